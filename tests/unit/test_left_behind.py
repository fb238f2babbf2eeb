"""What payloads leave where spdf goes on: pipes, links, devices, folders that are others by now."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from catalog.errors import ErrorClass, ErrorCode
from tests.making import made_in
from tests.unit.test_faults import Bench, failed
from workers.cwl.left import end_of, read_left
from workers.orphans import PayloadLedger, clean_dead
from workers.spec import Outcome
from workers.workspace import Workspaces

E = ErrorCode
# Most of these held a job up for ever, or took the machine's memory.
pytestmark = pytest.mark.timeout(60)

SOCKET = "import socket; socket.socket(socket.AF_UNIX).bind"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    yield from made_in(tmp_path, Bench)


def stored(one: Bench) -> Path:
    """A folder of a storage, with files that only the catalog may have removed."""
    folder = one.folder / "in" / "run"
    (folder / "out").mkdir(parents=True)
    for name in ("kept.raw", "log", "out/kept.raw"):
        (folder / name).write_text("precious")
    return folder


def kept(folder: Path) -> bool:
    """Whether all of it is still there, and nothing else."""
    files = {one for one in folder.rglob("*") if one.is_file() and one.read_text() == "precious"}
    return files == {folder / "kept.raw", folder / "log", folder / "out" / "kept.raw"}


@pytest.mark.parametrize(
    "script",
    [
        "cd ..; rm -rf out; ln -s {0} out",
        "cd ..; mv out aside; ln -s aside out; echo x > aside/f",
        "cd ..; rm -rf out; echo x > out",
        'cd ..; rm -rf "$PWD"; ln -s {0} "$PWD"',
    ],
    ids=["link", "link-to-itself", "file", "work-folder"],
)
def test_an_output_directory_that_was_replaced_gives_nothing_and_nothing_is_moved(
    bench: Callable[..., Bench], script: str
) -> None:
    one = bench()
    folder = stored(one)
    result = one.run(script.format(folder))
    failed(result, E.OUTPUT_INVALID, ErrorClass.PERMANENT)
    assert "has replaced its output directory" in str(result.message)
    assert kept(folder)
    left = [path.name for path in one.node.directory.glob("job-*")]
    assert not left, "the work folder is given up, a link to the storage as such"


def test_an_output_directory_that_was_made_anew_is_one(bench: Callable[..., Bench]) -> None:
    result = bench().run('D=$PWD; cd ..; rm -rf "$D"; mkdir "$D"; echo x > "$D/f"')
    assert [file.name for file in result.files] == ["k/f"]


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize("link", ["ln -s", "ln"])
def test_a_log_that_is_a_file_of_a_storage_is_neither_moved_nor_emptied(
    bench: Callable[..., Bench], link: str, code: int
) -> None:
    one = bench()
    folder = stored(one)
    result = one.run(f"echo x > o.txt; rm -f ../log; {link} {folder}/log ../log; exit {code}")
    assert result.outcome is (Outcome.FAILED if code else Outcome.FINISHED)
    assert kept(folder)
    if link == "ln -s":
        assert result.log is None and not result.log_tail


def test_a_hard_link_that_was_a_log_is_not_emptied_for_the_next_job(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("bytes")
    workspaces = Workspaces(tmp_path)
    with workspaces.take() as first:
        os.link(precious, first.log)
    with workspaces.take() as second:
        assert second.root == first.root
        assert not Path(second.log).exists()
    with workspaces.take() as third:
        Path(third.log).symlink_to(precious)
    assert precious.read_text() == "bytes"


@pytest.mark.parametrize(
    "made",
    [
        "rm -f ../log; mkfifo ../log",
        "rm -f ../log; mkdir ../log",
        "rm -f ../log; ln -s /dev/zero ../log",
        f"rm -f ../log; python3 -c '{SOCKET}(\"../log\")'",
        'cd ..; rm -rf "$PWD"; mkdir "$PWD"; mkfifo "$PWD/log"',
    ],
    ids=["pipe", "folder", "device", "socket", "work-folder"],
)
def test_a_log_that_is_no_file_leaves_a_payloads_failure_what_it_is(
    bench: Callable[..., Bench], made: str
) -> None:
    one = bench()
    result = one.run(f"{made}; exit 3")
    failed(result, E.PAYLOAD_FAILED, ErrorClass.PAYLOAD)
    assert result.exit_code == 3
    assert "its log is no file any more" in str(result.message)
    assert result.log is None and not result.log_tail


def test_a_log_that_is_no_file_costs_a_good_job_its_log_alone(
    bench: Callable[..., Bench],
) -> None:
    result = bench().run("echo x > o.txt; rm -f ../log; mkdir ../log; touch ../log/x")
    assert result.outcome is Outcome.FINISHED, result.message
    assert result.log is None


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("mkfifo cwl.output.json", "no regular file"),
        ("mkdir cwl.output.json", "no regular file"),
        (f"python3 -c '{SOCKET}(\"cwl.output.json\")'", "no regular file"),
        ("ln -s /dev/zero cwl.output.json", "outside"),
        ("ln -s /etc/passwd cwl.output.json", "outside"),
        ("ln -s nothing cwl.output.json", "a link to nothing"),
        ("mkfifo p; ln -s p cwl.output.json", "no regular file"),
        ("truncate -s 1T cwl.output.json", "more than 16777216 bytes"),
    ],
)
def test_an_output_object_that_is_no_small_file_is_refused_at_once(
    bench: Callable[..., Bench], made: str, said: str
) -> None:
    result = bench().run(f"echo x > o.txt; {made}")
    failed(result, E.OUTPUT_INVALID, ErrorClass.PERMANENT)
    assert said in str(result.message) and "cwl.output.json" in str(result.message)


def test_an_output_object_may_be_a_link_to_a_file_beside_it(bench: Callable[..., Bench]) -> None:
    value = json.dumps({"o": {"class": "File", "path": "o.txt"}})
    result = bench().run(f"echo x > o.txt; echo '{value}' > r.json; ln -s r.json cwl.output.json")
    assert [file.name for file in result.files] == ["k/o.txt"], result.message


@pytest.mark.parametrize(
    "made", ["ln -s . d/a; ln -s . d/b", "ln -s / d/a"], ids=["circle", "outside"]
)
def test_a_deep_listing_follows_no_links_out_nor_in_circles(
    bench: Callable[..., Bench], made: str
) -> None:
    binding = {"glob": "d", "loadListing": "deep_listing", "outputEval": "$(self[0].listing)"}
    output = {"id": "o", "type": "Any", "outputBinding": binding}
    result = bench(outputs=[output], stored="value").run(f"mkdir d; {made}")
    failed(result, E.OUTPUT_INVALID, ErrorClass.PERMANENT)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/random", "pipe"])
@pytest.mark.parametrize(
    "entry",
    [
        {"entry": "$(inputs.p)", "writable": True},
        "${return {class: 'File', path: inputs.p.path, basename: 'x'}}",
    ],
)
def test_what_has_no_end_is_no_input(
    bench: Callable[..., Bench], path: str, entry: Any, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    place = {"class": "File", "path": str(tmp_path / path), "basename": "x"}
    listing = {"class": "InitialWorkDirRequirement", "listing": [entry]}
    one = bench(
        requirements=[listing, {"class": "InlineJavascriptRequirement"}],
        inputs=[
            {"id": "f", "type": "File"},
            {"id": "s", "type": "string"},
            {"id": "p", "type": "File", "default": place, "loadContents": True},
        ],
    )
    result = one.run()
    failed(result, E.BAD_JOB_INPUT, ErrorClass.PERMANENT)
    assert place["path"] in str(result.message)


def test_the_null_device_is_an_empty_input(bench: Callable[..., Bench]) -> None:
    place = {"class": "File", "path": "/dev/null", "basename": "x"}
    inputs = [
        {"id": "f", "type": "File"},
        {"id": "s", "type": "string"},
        {"id": "p", "type": "File", "default": place, "loadContents": True},
    ]
    assert bench(inputs=inputs).run().outcome is Outcome.FINISHED


@pytest.mark.parametrize("name", ["pilot.json", "payloads", "engine"])
def test_a_dead_pilots_own_files_that_a_payload_made_pipes_hold_nobody_up(
    tmp_path: Path, name: str
) -> None:
    ledger = PayloadLedger(tmp_path / "live", 1)
    for number in (2, 3):
        shutil.copytree(ledger.directory, tmp_path / f"pilot-{number}")
    ledger.close()
    (tmp_path / "pilot-2" / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / "pilot-2" / name)
    assert clean_dead(tmp_path) == 1
    assert [path.name for path in tmp_path.glob("pilot-*")] == ["pilot-2"]


@pytest.mark.parametrize("read", [read_left, end_of])
def test_only_so_much_of_a_file_is_read_and_nothing_of_what_is_none(
    tmp_path: Path, read: Callable[[Path, int], bytes]
) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"12345")
    assert read(file, 5) == b"12345"
    (tmp_path / "link").symlink_to(file)
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "gone"):
        with pytest.raises(OSError, match=r"symbolic link|no regular file|No such"):
            read(tmp_path / name, 5)
    assert end_of(file, 2) == b"45"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_left(file, 4)
