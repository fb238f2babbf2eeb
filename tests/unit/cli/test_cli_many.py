"""Commands that take many names: as arguments, from a list, from a folder; all or none."""

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from catalog.db import Catalog
from catalog.refs import RequestKind
from catalog.requests import parse, submit

Spdf = Callable[..., Any]


@pytest.fixture
def runs(ok: Spdf, home: Path) -> list[str]:
    """Three OPEN datasets."""
    names = ["run-3", "run-1", "run-2"]
    for name in names:
        ok("dataset", "create", name)
    return names


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Gives the command its standard input."""

    def give(text: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))

    return give


def states(ok: Spdf, names: list[str]) -> list[str]:
    return [ok("dataset", "show", name, "--json").json["state"] for name in names]


def members(ok: Spdf, name: str) -> list[str]:
    return [file["name"] for file in ok("dataset", "files", name, "--json").json]


@pytest.mark.parametrize("end", [b"\n", b"\0"])
def test_files_of_a_list_are_added_in_its_order(
    ok: Spdf, buffer: Path, tmp_path: Path, end: bytes, piped: Callable[[bytes], None]
) -> None:
    names = [f"{9999 - i} of a run.raw" for i in range(300)]
    for name in names:
        (buffer / name).write_text(name)
    text = end.join(os.fsencode(buffer / name) for name in names) + end
    ok("dataset", "create", "run-1")
    (tmp_path / "list").write_bytes(text)
    assert ok("dataset", "add", "run-1", "--from", tmp_path / "list", "--json").json["new"] == 300
    assert members(ok, "run-1") == names

    ok("dataset", "create", "run-2")
    piped(text)
    ok("dataset", "add", "run-2", buffer / names[7], "--from", "-")
    assert members(ok, "run-2") == [names[7], *names[:7], *names[8:]]


def test_a_line_feed_in_a_name_is_taken_from_a_list_ended_by_nul(
    spdf: Spdf, ok: Spdf, buffer: Path, piped: Callable[[bytes], None]
) -> None:
    (buffer / "a\nb.raw").write_text("odd")
    ok("dataset", "create", "run-1")
    piped(os.fsencode(buffer / "a\nb.raw") + b"\0")
    done = spdf("dataset", "add", "run-1", "--from", "-")
    assert done.code == 2 and "holds control or invalid characters" in done.err


def test_a_name_that_is_no_utf8_is_told_as_elsewhere(
    spdf: Spdf, ok: Spdf, buffer: Path, piped: Callable[[bytes], None]
) -> None:
    odd = os.fsdecode(os.fsencode(buffer) + b"/r\xfcn.raw")
    Path(odd).write_text("odd")
    ok("dataset", "create", "run-1")
    given = spdf("dataset", "add", "run-1", odd)
    piped(os.fsencode(odd) + b"\n")
    listed = spdf("dataset", "add", "run-1", "--from", "-")
    assert (listed.code, listed.err) == (given.code, given.err) and listed.code == 2
    assert r"r\xfcn.raw" in listed.err
    piped(b"r\xfcn\n")
    done = spdf("dataset", "close", "--from", "-")
    assert done.code in (2, 3) and "Traceback" not in done.err and "defect" not in done.err


def test_of_a_list_with_one_bad_file_none_is_added(
    spdf: Spdf, ok: Spdf, buffer: Path, tmp_path: Path
) -> None:
    (buffer / "a.raw").write_text("a")
    (tmp_path / "list").write_text(f"{buffer}/a.raw\n{buffer}/gone.raw\n")
    ok("dataset", "create", "run-1")
    done = spdf("dataset", "add", "run-1", "--from", tmp_path / "list")
    assert done.code == 2 and f"{buffer}/gone.raw can't be read" in done.err
    assert members(ok, "run-1") == []


@pytest.mark.parametrize(
    ("text", "sentence"), [(b"", "names no FILE"), (b"\n\n", "names no FILE"), (None, "can't be")]
)
def test_a_list_without_names_is_refused(
    spdf: Spdf, ok: Spdf, home: Path, tmp_path: Path, text: bytes | None, sentence: str
) -> None:
    ok("dataset", "create", "run-1")
    if text is not None:
        (tmp_path / "list").write_bytes(text)
    done = spdf("dataset", "add", "run-1", "--from", tmp_path / "list")
    assert done.code == 2 and sentence in done.err and str(tmp_path / "list") in done.err


def test_without_names_or_standard_input_a_command_says_what_it_needs(
    spdf: Spdf, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = spdf("dataset", "close")
    assert done.code == 2 and "--from" in done.err
    monkeypatch.setattr(sys, "stdin", None)
    done = spdf("dataset", "close", "--from", "-")
    assert done.code == 2 and "there is none" in done.err


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.raw", ["B.raw", "a.raw", "b.raw"]),
        ("[ab].raw", ["a.raw", "b.raw"]),
        ("*/*.raw", ["sub/c.raw"]),
        ("**/*.raw", ["B.raw", "a.raw", "b.raw", "sub/c.raw", "sub/deep/d.raw"]),
        ("**/**/c.*", ["sub/c.raw"]),
        ("s*/**/*", ["sub/c.raw", "sub/deep/d.raw", "sub/x.txt"]),
    ],
)
def test_files_of_a_folder_are_added_in_the_order_of_their_names(
    ok: Spdf, buffer: Path, pattern: str, expected: list[str]
) -> None:
    made = ["b.raw", "a.raw", "B.raw", "x.txt", ".hidden.raw", "sub/c.raw", "sub/x.txt",
            "sub/.part.raw", "sub/deep/d.raw", ".dark/e.raw"]  # fmt: skip
    for name in made:
        (buffer / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (buffer / "run" / name).write_text(name)
    (buffer / "run" / "folder.raw").mkdir()
    (buffer / "run" / "loop").symlink_to(buffer / "run")
    ok("dataset", "create", "run-1")
    ok("dataset", "add", "run-1", buffer / "run", "--pattern", pattern)
    assert members(ok, "run-1") == [f"run/{name}" for name in expected]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "--pattern", "*.dat"], "no file of"),
        (["run", "--pattern", ".*"], "hidden ones aren't taken"),
        (["run", "--pattern", "../*"], "can't be used"),
        (["run", "--pattern", "/*"], "can't be used"),
        (["run", "--pattern", "**"], "can't be used"),
        (["run/a.raw", "--pattern", "*"], "is no folder"),
        (["gone", "--pattern", "*"], "can't be read"),
        (["run"], "is a directory; give the files in it, or --pattern"),
    ],
)
def test_a_folder_or_pattern_that_gives_no_files_is_refused(
    spdf: Spdf, ok: Spdf, buffer: Path, words: list[str], sentence: str
) -> None:
    (buffer / "run").mkdir()
    (buffer / "run" / "a.raw").write_text("a")
    (buffer / "run" / ".b.raw").write_text("b")
    ok("dataset", "create", "run-1")
    done = spdf("dataset", "add", "run-1", buffer / words[0], *words[1:])
    assert done.code == 2 and sentence in done.err
    assert members(ok, "run-1") == []


def test_several_datasets_are_changed_together(
    ok: Spdf, runs: list[str], tmp_path: Path, piped: Callable[[bytes], None]
) -> None:
    (tmp_path / "list").write_text("\n".join(runs))
    pinned = ok("dataset", "pin", *runs, "--reason", "wanted", "--json").json
    assert [info["name"] for info in pinned] == runs
    assert {info["pin"] for info in pinned} == {"wanted"}
    assert ok("dataset", "unpin", "--from", tmp_path / "list").out.count("is not pinned") == 3
    closed = ok("dataset", "close", "run-2", "--from", tmp_path / "list", "--json").json
    assert [info["name"] for info in closed] == ["run-2", "run-3", "run-1"]
    assert states(ok, runs) == ["CLOSED"] * 3
    lasting = ok("dataset", "expire", *runs, "--lifetime", "7d", "--json").json
    assert all(info["expires_at"] for info in lasting)
    piped(b"run-1\0run-2\0")
    told = ok("dataset", "delete", "--from", "-", "--yes")
    assert "run-1" in told.out and states(ok, runs) == ["CLOSED", "DELETING", "DELETING"]
    ok("dataset", "undelete", "run-1", "run-2")
    assert states(ok, runs) == ["CLOSED"] * 3
    verified = ok("dataset", "verify", *runs, "--json").json
    assert [one["dataset"] for one in verified] == runs
    ordered = ok("dataset", "upload", *runs, "--to", "output", "--json").json
    assert len({upload["id"] for upload in ordered}) == 3


def test_json_of_one_name_is_a_document_and_of_a_list_a_list(
    ok: Spdf, runs: list[str], tmp_path: Path
) -> None:
    (tmp_path / "list").write_text("run-1\n")
    assert ok("dataset", "pin", "run-1", "--json").json["name"] == "run-1"
    (info,) = ok("dataset", "pin", "--from", tmp_path / "list", "--json").json
    assert info["name"] == "run-1"
    (info,) = ok("dataset", "close", "run-1", "run-1", "--json").json
    assert info["state"] == "CLOSED"


@pytest.mark.parametrize(
    "words", [["close"], ["pin"], ["expire", "--never"], ["delete", "--yes"], ["undelete"]]
)
def test_where_one_of_several_cannot_be_none_is(
    spdf: Spdf, ok: Spdf, runs: list[str], words: list[str]
) -> None:
    ok("dataset", "delete", "run-3", "--yes", "--grace", "0s")
    before = states(ok, runs)
    done = spdf("dataset", words[0], "run-1", "gone-1", "run-2", "gone-2", *words[1:])
    assert done.code == 3
    assert "no dataset 'gone-1'" in done.err and "no dataset 'gone-2'" in done.err
    assert "2 of 4 can't be done, so none is" in done.err
    if words[0] != "delete":  # One that is being deleted may be so again.
        done = spdf("dataset", words[0], "run-1", "run-3", "run-2", *words[1:])
        assert done.code == 4 and "nothing was changed" in done.err
    assert states(ok, runs) == before
    assert not any(ok("dataset", "show", name, "--json").json["pin"] for name in runs)


def test_several_are_deleted_only_where_all_can_be(spdf: Spdf, ok: Spdf, runs: list[str]) -> None:
    ok("dataset", "pin", "run-1")
    done = spdf("dataset", "delete", *runs, "--yes", "--json")
    assert done.code == 4 and "is pinned" in done.err
    assert [bool(plan["refused"]) for plan in done.json] == [False, True, False]
    assert states(ok, runs) == ["OPEN"] * 3
    assert len(ok("dataset", "delete", "run-2", "run-3", "--dry-run", "--json").json) == 2
    done = spdf("dataset", "delete", "run-2", "run-3")
    assert done.code == 2 and "2 datasets (0 files, 0 B) would be deleted" in done.err
    assert states(ok, runs) == ["OPEN"] * 3


def test_several_requests_are_cancelled_and_queued_again_together(
    spdf: Spdf, ok: Spdf, home: Path, catalog: Catalog, tmp_path: Path
) -> None:
    with catalog.write() as session:
        kind = RequestKind.DATASET_INPUT
        keys = [f"key-{i}" for i in range(4)]
        asked = [{"kind": kind, "key": key, "name": f"run-{key[-1]}"} for key in keys]
        submit(session, [parse(one) for one in asked])
    (tmp_path / "list").write_text("\n".join(keys[1:]))
    done = spdf("request", "retry", "--from", tmp_path / "list")
    assert done.code == 4 and "3 of 3 can't be done" in done.err
    ended = ok("request", "cancel", "--from", tmp_path / "list", "--json").json
    assert [info["state"] for info in ended] == ["ERROR"] * 3
    done = spdf("request", "cancel", *keys)
    assert done.code == 4 and ok("request", "show", "key-0", "--json").json["state"] == "QUEUED"
    assert ok("request", "retry", keys[1], keys[2]).out.count("is QUEUED") == 2
    assert ok("request", "cancel", keys[0], "--json").json["key"] == keys[0]


def test_files_of_a_list_are_verified_each_by_itself(
    spdf: Spdf, ok: Spdf, dataset: str, buffer: Path, tmp_path: Path
) -> None:
    (tmp_path / "list").write_text("buffer:a.txt\nbuffer:b.txt\nbuffer:c.txt\n")
    found = ok("file", "verify", "--from", tmp_path / "list", "--json").json
    assert [one["file"] for one in found] == ["buffer:a.txt", "buffer:b.txt", "buffer:c.txt"]
    (buffer / "b.txt").write_text("bax")
    done = spdf("file", "verify", "--from", tmp_path / "list")
    assert done.code == 4 and "buffer:b.txt" in done.out and "BAD" in done.out
    done = spdf("file", "verify", "buffer:a.txt", "buffer:gone.txt")
    assert done.code == 3 and "buffer:gone.txt" in done.err
    done = spdf("file", "recover", "buffer:b.txt", "buffer:a.txt")
    assert done.code != 0 and "file buffer:a.txt is AVAILABLE" in done.out
    assert "buffer:b.txt" in done.err


def test_jobs_of_a_list_are_released_and_ids_are_numbers(
    spdf: Spdf, ok: Spdf, failed: int, tmp_path: Path, catalog: Catalog
) -> None:
    jobs = [job["id"] for job in ok("job", "list", "--workflow", failed, "--json").json]
    (tmp_path / "list").write_text("\n".join(map(str, jobs)))
    done = spdf("job", "release", "--from", tmp_path / "list")
    assert done.code == 4 and "none of these jobs is HELD" in done.err
    (tmp_path / "list").write_text(f"{jobs[0]}\nfirst\n")
    done = spdf("job", "release", "--from", tmp_path / "list")
    assert done.code == 2 and "JOB 'first' is no id" in done.err
    done = spdf("job", "release", "--workflow", failed, "999999")
    assert done.code == 3


def test_datasets_are_created_and_explained_from_a_list_all_or_none(
    spdf: Spdf, ok: Spdf, home: Path, piped: Callable[[bytes], None]
) -> None:
    piped(b"run-1\nrun-2\n")
    made = ok("dataset", "create", "--from", "-", "--lifetime", "7d", "--json").json
    assert [(one["name"], one["state"]) for one in made] == [("run-1", "OPEN"), ("run-2", "OPEN")]
    done = spdf("dataset", "create", "run-3", "run-1", "bad name")
    assert done.code == 4 and "'run-1' exists already" in done.err and "bad name" in done.err
    assert spdf("dataset", "show", "run-3").code == 3, "none is made"
    told = ok("dataset", "why", "run-2", "run-1", "--json").json
    assert [one["dataset"] for one in told] == ["run-2", "run-1"] and told[0]["causes"]
    assert "run-1:\n- run-1 is OPEN" in ok("dataset", "why", "run-2", "run-1").out
    assert isinstance(ok("dataset", "why", "run-1", "--json").json, list)
    assert spdf("dataset", "why", "run-1", "gone").code == 3


def test_several_datasets_are_copied_each_to_a_folder_of_its_name(
    spdf: Spdf, ok: Spdf, buffer: Path, tmp_path: Path
) -> None:
    for name in ("run-1", "run-2"):
        (buffer / name).mkdir()
        (buffer / name / "a.raw").write_text(name)
        ok("dataset", "create", name)
        ok("dataset", "add", name, buffer / name / "a.raw")
    got = ok("dataset", "get", "run-1", "run-2", tmp_path / "out", "--json").json
    assert [one["new"] for one in got] == [1, 1]
    assert (tmp_path / "out/run-2/run-2/a.raw").read_text() == "run-2"
    ok("dataset", "get", "run-1", tmp_path / "one")
    assert (tmp_path / "one/run-1/a.raw").read_text() == "run-1"
    (tmp_path / "list").write_text("run-2\n")
    ok("dataset", "get", tmp_path / "listed", "--from", tmp_path / "list")
    assert (tmp_path / "listed/run-2/run-2/a.raw").exists()
    done = spdf("dataset", "get", "run-1")
    assert done.code == 2 and "then the directory" in done.err
    (buffer / "run-1/a.raw").unlink()
    done = spdf("dataset", "get", "run-1", "run-2", tmp_path / "rest")
    assert done.code == 5 and (tmp_path / "rest/run-2/run-2/a.raw").exists()
