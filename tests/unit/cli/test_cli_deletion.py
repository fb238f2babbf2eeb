"""`spdf dataset delete` and `undelete`: told first, asked for, and taken back."""

import hashlib
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from catalog import lifecycle
from catalog.db import Catalog
from catalog.states import DatasetState
from cli import datasetdelete
from flows import deletion as flow

Spdf = Callable[..., Any]


def state(ok: Spdf, name: str) -> str:
    return str(ok("dataset", "show", name, "--json").json["state"])


def test_a_dry_run_tells_what_would_go_and_changes_nothing(
    ok: Spdf, dataset: str, buffer: Path, tmp_path: Path
) -> None:
    (tmp_path / "x.raw").write_text("outside")
    ok("dataset", "create", "other")
    ok("dataset", "add", "other", buffer / "a.txt")
    ok("dataset", "add", "other", tmp_path / "x.raw", "--copy-to", "buffer")
    ok("dataset", "close", "other")
    told = ok("dataset", "delete", "other", "--dry-run", "--json").json
    assert told["whole"] == {"files": 2, "size_bytes": 12}
    assert told["removed"] == {"files": 1, "size_bytes": 7}
    assert told["originals"] == {"files": 0, "size_bytes": 0}
    assert told["kept"] == {"files": 1, "size_bytes": 5}
    (shared,) = told["referrers"]
    assert (shared["kind"], shared["named"]) == ("datasets that share files", ["run-1 (CLOSED)"])
    done = ok("dataset", "delete", dataset, "--dry-run")
    assert "2 (8 B), detached: their bytes stay" in done.out
    assert "nothing was changed" in done.err
    assert (
        "removed for good, too"
        in ok("dataset", "delete", dataset, "--dry-run", "--remove-originals").out
    )
    assert state(ok, dataset) == state(ok, "other") == "CLOSED"


def test_without_a_terminal_it_needs_yes(ok: Spdf, spdf: Spdf, dataset: str) -> None:
    done = spdf("dataset", "delete", dataset)
    assert done.code == 2 and "there is no terminal to ask at" in done.err
    assert state(ok, dataset) == "CLOSED"


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 2), ("", 2)])
def test_at_a_terminal_it_asks(
    spdf: Spdf, ok: Spdf, dataset: str, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    class Terminal:
        """A terminal at which somebody answers."""

        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return answer + "\n"

    monkeypatch.setattr(datasetdelete.sys, "stdin", Terminal())
    done = spdf("dataset", "delete", dataset, "--remove-originals")
    assert done.code == code
    assert "for good, its originals (3 files, 13 B)" in done.err + done.out
    monkeypatch.undo()


def test_originals_stay_and_the_deletion_can_be_taken_back(
    ok: Spdf, dataset: str, buffer: Path, catalog: Catalog
) -> None:
    done = ok("dataset", "delete", dataset, "--yes")
    assert "`spdf dataset undelete run-1` takes it back" in done.out
    shown = ok("dataset", "show", dataset, "--json").json
    until = datetime.fromisoformat(shown["grace_until"]) - datetime.now(UTC)
    assert timedelta(hours=23) < until < timedelta(hours=25)
    assert "spdf dataset undelete run-1" in ok("dataset", "show", dataset).out
    assert "nothing goes before" in ok("dataset", "why", dataset).out
    assert ok("dataset", "undelete", dataset, "--json").json["state"] == "CLOSED"
    ok("dataset", "delete", dataset, "--yes", "--grace", "0s")
    assert flow.delete(catalog).detached == 3
    assert sorted(path.name for path in buffer.glob("*.txt")) == [
        "a.txt", "b.txt", "c.txt",
    ]  # fmt: skip
    assert "3 of its files were detached" in ok("dataset", "why", dataset).out
    listed = ok("inspect", "detached", "--json").json
    assert [item["path"] for item in listed] == ["a.txt", "b.txt", "c.txt"]
    assert ok("intake", "rescan", "--storage", "buffer", "--json").json == {"files": 3}


def test_originals_go_by_the_word_that_names_them_with_their_number_and_size(
    ok: Spdf, spdf: Spdf, dataset: str, buffer: Path, catalog: Catalog
) -> None:
    with catalog.write() as session:
        lifecycle.pin(session, 1, "for the paper")
    done = spdf("dataset", "delete", dataset, "--remove-originals", "--yes")
    assert done.code == 4 and "is pinned (for the paper)" in done.err
    ok("dataset", "unpin", dataset)
    ok("dataset", "delete", dataset, "--remove-originals", "--yes", "--grace", "0s")
    assert flow.delete(catalog).copies == 3
    assert not [path for path in buffer.iterdir() if path.is_file() and path.suffix == ".txt"]
    history = ok("dataset", "show", dataset, "--json").json["history"]
    (told,) = [event["message"] for event in history if event["after"] == DatasetState.DELETING]
    assert told == "asked for by an operator; with its originals: 3 files, 13 bytes"


def test_without_the_flag_an_earlier_order_for_originals_is_taken_back_and_told(
    ok: Spdf, dataset: str, buffer: Path, catalog: Catalog
) -> None:
    ok("dataset", "delete", dataset, "--remove-originals", "--yes")
    told = ok("dataset", "delete", dataset, "--grace", "0s", "--yes").out
    assert "detached: their bytes stay; the order to remove them, too, is taken back" in told
    assert flow.delete(catalog).detached == 3
    assert len([*buffer.glob("*.txt")]) == 3


def test_an_order_for_originals_that_comes_too_late_is_refused(
    ok: Spdf, spdf: Spdf, dataset: str, buffer: Path, catalog: Catalog
) -> None:
    ok("dataset", "delete", dataset, "--grace", "0s", "--yes")
    for how in ("--yes", "--dry-run"):
        done = spdf("dataset", "delete", dataset, "--remove-originals", how)
        assert done.code == 4 and "that its originals stay; that can't be changed" in done.err
    assert "its bytes are going already" in ok("dataset", "delete", dataset, "--yes").out
    assert flow.delete(catalog).detached == 3
    assert len([*buffer.glob("*.txt")]) == 3


def test_what_cannot_be_deleted_says_so_in_a_dry_run_too(
    ok: Spdf, spdf: Spdf, dataset: str
) -> None:
    ok("dataset", "pin", dataset)
    done = spdf("dataset", "delete", dataset, "--dry-run", "--json")
    assert done.code == 4 and "is pinned" in done.json["refused"]
    assert spdf("dataset", "undelete", dataset).code == 4


def test_a_deleted_name_is_made_again(
    ok: Spdf, spdf: Spdf, dataset: str, buffer: Path, catalog: Catalog
) -> None:
    ok("dataset", "delete", dataset, "--yes")
    done = spdf("dataset", "create", dataset)
    assert done.code == 4 and "`spdf dataset undelete run-1` takes it back" in done.err
    ok("dataset", "delete", dataset, "--yes", "--grace", "0s")
    flow.delete(catalog)
    assert spdf("dataset", "delete", dataset, "--yes").code == 4
    ok("dataset", "create", dataset)
    ok("dataset", "add", dataset, buffer / "a.txt")
    (buffer / "b.txt").unlink()
    (buffer / "b.txt").write_text("other bytes than before")
    ok("dataset", "add", dataset, buffer / "b.txt")
    assert ok("dataset", "close", dataset, "--json").json["file_count"] == 2
    assert [d["name"] for d in ok("dataset", "list", "--json").json] == ["run-1", "run-1#1"]
    for command in ("show", "why", "files"):
        ok("dataset", command, "run-1#1")
    assert len(ok("dataset", "files", "run-1#1", "--json").json) == 3


def test_the_same_bytes_are_the_same_file_by_whichever_checksum(
    ok: Spdf, spdf: Spdf, buffer: Path, home: Path
) -> None:
    path = buffer / "lead"
    number = next(n for n in range(10_000) if zlib.adler32(b"pad%d\n" % n) < 1 << 28)
    path.write_bytes(b"pad%d\n" % number)
    content = path.read_bytes()
    digits = f"{zlib.adler32(content):x}"
    ok("dataset", "create", "run-1")
    forms = [
        f"adler32:{digits}",
        f"adler32:0x{digits}",
        f"ADLER32:{digits.upper()}",
        f"md5:{hashlib.md5(content).hexdigest().upper()}",
        hashlib.sha256(content).hexdigest(),
    ]
    for form in forms:
        ok("dataset", "add", "run-1", path, "--checksum", form)
    (found,) = ok("dataset", "files", "run-1", "--json").json
    assert found["checksum"] == f"adler32:{digits.zfill(8)}"
    done = spdf("dataset", "add", "run-1", path, "--checksum", "sha1:" + "0" * 40)
    assert done.code == 2 and "'sha1' is not known; take one of" in done.err
    path.write_text("other")
    md5 = hashlib.md5(b"other").hexdigest()
    for more in ([], ["--checksum", md5]):
        done = spdf("dataset", "add", "run-1", path, *more)
        assert done.code == 4 and "other bytes need another name while" in done.err


def test_an_empty_file_has_a_short_checksum(ok: Spdf, buffer: Path, home: Path) -> None:
    (buffer / "empty").touch()
    ok("dataset", "create", "run-1")
    for form in ("adler32:1", "adler32:00000001", "d41d8cd98f00b204e9800998ecf8427e"):
        ok("dataset", "add", "run-1", buffer / "empty", "--checksum", form, "--size", 0)
    (found,) = ok("dataset", "files", "run-1", "--json").json
    assert found["checksum"] == "adler32:00000001"
