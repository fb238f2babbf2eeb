"""`spdf storage` and `spdf dataset`."""

import re
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Spdf = Callable[..., Any]


def test_a_dataset_from_files_to_files(ok: Spdf, buffer: Path, tmp_path: Path) -> None:
    names = ["b.raw", "a.raw", "sub/c.raw"]
    (buffer / "sub").mkdir()
    for name in names:
        (buffer / name).write_text(f"content of {name}")
    ok("dataset", "create", "run-1")
    added = ok("dataset", "add", "run-1", *(buffer / name for name in names), "--json").json
    assert (added["files"], added["new"]) == (3, 3)
    assert ok("dataset", "add", "run-1", buffer / "a.raw", "--json").json["new"] == 0
    closed = ok("dataset", "close", "run-1", "--json").json
    assert (closed["state"], closed["file_count"]) == ("CLOSED", 3)
    assert closed["size_bytes"] == added["size_bytes"]

    found = ok("dataset", "files", "run-1", "--json").json
    assert [file["name"] for file in found] == names
    adler = f"adler32:{zlib.adler32(b'content of b.raw'):08x}"
    assert found[0]["checksum"] == adler
    assert found[0]["scope"] == "buffer"
    assert [f["name"] for f in ok("dataset", "files", "run-1", "--limit", 1, "--json").json] == [
        "b.raw"
    ]

    shown = ok("dataset", "show", "run-1", "--json").json
    assert [event["after"] for event in shown["history"]] == ["OPEN", "CLOSED"]
    assert shown["origin"] is None

    got = ok("dataset", "get", "run-1", tmp_path / "out", "--json").json
    assert got["new"] == 3
    for name in names:
        assert (tmp_path / "out" / name).read_text() == f"content of {name}"
    assert ok("dataset", "get", "run-1", tmp_path / "out", "--json").json["new"] == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.raw", "b.raw", "sub"}


def test_get_replaces_nothing_and_gives_no_corrupt_bytes(
    spdf: Spdf, dataset: str, buffer: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.txt").write_text("mine")
    done = spdf("dataset", "get", dataset, out)
    assert done.code == 4 and "is there with other bytes" in done.err
    assert (out / "a.txt").read_text() == "mine"
    assert "2 files" in done.out and "1 could not be" in done.out, "it keeps no other from it"

    for name in ("a.txt", "b.txt"):
        (out / name).unlink()
    (buffer / "b.txt").write_text("bax")
    done = spdf("dataset", "get", dataset, out)
    assert done.code == 5
    assert f"file b.txt is corrupt at {buffer}/b.txt: its checksum is" in done.err
    assert "1 file " in done.out and "1 were there, 1 could not be" in done.out
    assert sorted(path.name for path in out.iterdir()) == ["a.txt", "c.txt"]


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127, f"sub/{'y' * 251}.raw"])
def test_a_file_of_the_longest_name_is_got_and_copied(
    ok: Spdf, buffer: Path, tmp_path: Path, name: str
) -> None:
    (buffer / name).parent.mkdir(exist_ok=True)
    (buffer / name).write_text("long")
    ok("dataset", "create", "run-1")
    ok("dataset", "add", "run-1", buffer / name)
    for new in (1, 0):
        assert ok("dataset", "get", "run-1", tmp_path / "out", "--json").json["new"] == new
    assert (tmp_path / "out" / name).read_text() == "long"
    ok("dataset", "create", "run-2")
    ok("dataset", "add", "run-2", tmp_path / "out" / name, "--copy-to", "buffer")
    assert (buffer / "run-2" / Path(name).name).read_text() == "long"


def test_what_comes_to_be_there_meanwhile_is_not_replaced(
    ok: Spdf, spdf: Spdf, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from catalog.drivers.local import LocalDriver

    get = LocalDriver.get

    def got(self: LocalDriver, path: str, target: Path, **how: Any) -> Any:
        (tmp_path / "out" / path).write_text("mine, and new")
        return get(self, path, target, **how)

    monkeypatch.setattr(LocalDriver, "get", got)
    done = spdf("dataset", "get", dataset, tmp_path / "out")
    assert done.code == 4 and "is there with other bytes" in done.err
    assert (tmp_path / "out" / "a.txt").read_text() == "mine, and new"


def test_two_that_get_the_same_at_the_same_time_are_in_nobodys_way(
    ok: Spdf, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from catalog.drivers.local import LocalDriver

    get, out = LocalDriver.get, tmp_path / "out"
    others: list[int] = []
    first = threading.Lock()

    def got(self: LocalDriver, path: str, target: Path, **how: Any) -> Any:
        checksum = get(self, path, target, **how)
        if first.acquire(blocking=False):
            others.append(ok("dataset", "get", dataset, out, "--json").json["new"])
        return checksum

    monkeypatch.setattr(LocalDriver, "get", got)
    mine = ok("dataset", "get", dataset, out, "--json").json["new"]
    assert others[0] >= 1 and others[0] + mine == 3
    assert {path.name for path in out.iterdir()} == {"a.txt", "b.txt", "c.txt"}


def test_files_outside_a_storage_are_refused_or_copied(
    ok: Spdf, spdf: Spdf, buffer: Path, tmp_path: Path
) -> None:
    path = tmp_path / "x.raw"
    path.write_text("outside")
    ok("dataset", "create", "run-1")
    done = spdf("dataset", "add", "run-1", path)
    assert done.code == 2 and "lies on no storage" in done.err
    ok("dataset", "add", "run-1", path, "--copy-to", "buffer")
    assert (buffer / "run-1" / "x.raw").read_text() == "outside"
    (found,) = ok("dataset", "files", "run-1", "--json").json
    assert found["name"] == "run-1/x.raw"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--size", "3"], "has 7 bytes, not the 3 given"),
        (["--checksum", "adler32:00000000"], "not the adler32:00000000 given"),
        (["--checksum", "md5:12"], "malformed"),
    ],
)
def test_a_file_that_is_not_as_said_changes_nothing(
    ok: Spdf, spdf: Spdf, buffer: Path, options: list[str], sentence: str
) -> None:
    (buffer / "x.raw").write_text("content")
    ok("dataset", "create", "run-1")
    done = spdf("dataset", "add", "run-1", buffer / "x.raw", *options)
    assert done.code == 2 and sentence in done.err
    assert ok("dataset", "files", "run-1", "--json").json == []
    assert ok("storage", "usage", "--json").json == []


def test_a_file_that_is_as_said_is_registered_with_that_checksum(ok: Spdf, buffer: Path) -> None:
    (buffer / "x.raw").write_text("content")
    ok("dataset", "create", "run-1")
    md5 = "md5:9a0364b9e99bb480dd25e1f0284c8555"
    ok("dataset", "add", "run-1", buffer / "x.raw", "--size", 7, "--checksum", md5[4:],
       "--scope", "spd")  # fmt: skip
    (found,) = ok("dataset", "files", "run-1", "--json").json
    assert (found["checksum"], found["scope"]) == (md5, "spd")


def test_size_and_checksum_are_of_one_file(spdf: Spdf, ok: Spdf, buffer: Path) -> None:
    for name in ("x", "y"):
        (buffer / name).write_text("content")
    ok("dataset", "create", "run-1")
    done = spdf("dataset", "add", "run-1", buffer / "x", buffer / "y", "--size", 7)
    assert done.code == 2 and "one file" in done.err


def test_a_closed_dataset_takes_no_files_and_copies_none(
    spdf: Spdf, dataset: str, buffer: Path, tmp_path: Path
) -> None:
    path = tmp_path / "late.raw"
    path.write_text("late")
    done = spdf("dataset", "add", dataset, path, "--copy-to", "buffer")
    assert done.code == 4 and "is CLOSED" in done.err
    assert not (buffer / dataset).exists()


def test_what_a_dataset_got_and_when_it_goes_is_said_in_words(ok: Spdf, buffer: Path) -> None:
    for name in ("a", "b"):
        (buffer / name).write_text("1234")
    ok("dataset", "create", "run-1")
    assert "run-1: 1 file added (4 B in all)" in ok("dataset", "add", "run-1", buffer / "a").out
    added = ok("dataset", "add", "run-1", buffer / "a", buffer / "b").out
    assert "run-1: 1 file added, 1 in it already (8 B in all)" in added
    line = ("dataset", "expire", "run-1")
    assert "is deleted after 2 d from its close" in ok(*line, "--lifetime", "2d").out
    ok("dataset", "close", "run-1")
    told = ok(*line, "--lifetime", "2d").out
    assert re.search(r"is deleted after \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ\n", told)
    assert "run-1 isn't deleted by itself" in ok(*line, "--never").out


def test_lists_are_filtered(ok: Spdf, dataset: str) -> None:
    ok("dataset", "create", "other")
    names = [d["name"] for d in ok("dataset", "list", "--mask", "run-*", "--json").json]
    assert names == ["run-1"]
    names = [d["name"] for d in ok("dataset", "list", "--state", "OPEN", "--json").json]
    assert names == ["other"]
    done = ok("dataset", "list", "--limit", 1)
    assert "other" in done.out and "run-1" not in done.out
    assert "--limit shows more" in done.err


def test_a_storage_is_added_once(ok: Spdf, spdf: Spdf, home: Path, tmp_path: Path) -> None:
    place = tmp_path / "more"
    added = ok("storage", "add", "more", place, "--role", "output", "--json").json
    assert (added["role"], added["url"]) == ("output", str(place))
    assert ok("storage", "add", "more", place, "--role", "output").code == 0
    assert spdf("storage", "add", "more", tmp_path / "x", "--role", "output").code == 4
    assert spdf("storage", "add", "x", place, "--role", "nonsense").code == 2


def test_tables_in_a_pipe_are_neither_cut_nor_padded(ok: Spdf, home: Path, tmp_path: Path) -> None:
    place = tmp_path / ("long-" * 30)
    ok("storage", "add", "long", place, "--role", "input")
    lines = ok("storage", "list").out.splitlines()
    assert any(line.endswith(str(place)) for line in lines)
    assert all(line == line.rstrip() for line in lines)


def test_a_verification_tells_of_a_file_that_cannot_be_read_and_reads_the_others(
    spdf: Spdf, ok: Spdf, buffer: Path
) -> None:
    paths = [buffer / name for name in ("a.raw", "b.raw", "c.raw")]
    for path in paths:
        path.write_text(f"content of {path.name}")
    ok("dataset", "create", "run-1")
    ok("dataset", "add", "run-1", *paths)
    paths[0].unlink()
    paths[0].symlink_to(paths[0])
    paths[1].write_text("other bytes")
    done = spdf("dataset", "verify", "run-1", "--json")
    assert done.code == 4
    loop, wrong = done.json["wrong"]
    assert (loop["file"], loop["state"], loop["read"]) == ("buffer:a.raw", "AVAILABLE", False)
    assert "symbolic links" in loop["found"]
    assert (wrong["file"], wrong["state"], wrong["read"]) == ("buffer:b.raw", "BAD", True)
    assert "symbolic links" in spdf("dataset", "verify", "run-1").out
    assert spdf("file", "verify", "buffer:a.raw").code == 4
    ok("file", "verify", "buffer:c.raw")
