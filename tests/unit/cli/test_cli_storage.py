"""`spdf storage`: what is refused, what is marked, and what is told of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from catalog import answering
from tests.privileges import modes_hold
from tests.servers.disks import hanging

Spdf = Callable[..., Any]
MARKER = ".spdf-storage"


def test_a_storage_inside_another_is_refused_with_both_names(
    spdf: Spdf, ok: Spdf, home: Path, tmp_path: Path
) -> None:
    ok("storage", "add", "raw", tmp_path / "data" / "raw", "--role", "input")
    done = spdf("storage", "add", "out", tmp_path / "data", "--role", "output")
    assert done.code == 4
    assert "storage raw" in done.err and "lies inside storage out" in done.err
    done = spdf("storage", "add", "part", tmp_path / "data" / "raw" / "run", "--role", "output")
    assert done.code == 4 and "lies inside storage raw" in done.err
    assert not (tmp_path / "data" / "raw" / "run").exists()
    assert [s["name"] for s in ok("storage", "list", "--json").json] == [
        "buffer", "internal", "output", "raw",
    ]  # fmt: skip


def test_what_is_no_place_is_refused_in_one_line_and_nothing_is_made(
    spdf: Spdf, ok: Spdf, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty place would be the folder one stands in, `s3://…` a directory called `s3:`."""
    monkeypatch.chdir(tmp_path)
    ok("storage", "add", "raw", tmp_path / "raw", "--role", "input")
    before = sorted(tmp_path.rglob("*"))
    for place in ("", "s3://bucket/x", "HTTP://here/bucket"):
        for line in (("add", "new", place, "--role", "input"), ("move", "raw", place)):
            done = spdf("storage", *line)
            assert (done.code, len(done.err.splitlines())) == (2, 1), done.err
            assert f"{place!r} is no place of a storage" in done.err
    for place, why in (("http://here:port/b", "is no S3 storage"), ("~nobody-here/x", "home")):
        done = spdf("storage", "add", "new", place, "--role", "input")
        assert (done.code, len(done.err.splitlines())) == (2, 1) and why in done.err
    assert sorted(tmp_path.rglob("*")) == before


def test_the_same_storage_again_changes_nothing(ok: Spdf, home: Path, tmp_path: Path) -> None:
    line = ("storage", "add", "raw", tmp_path / "raw", "--role", "input", "--json")
    first = ok(*line).json
    marker = (tmp_path / "raw" / MARKER).read_bytes()
    assert ok(*line).json == first
    assert (tmp_path / "raw" / MARKER).read_bytes() == marker
    assert (first["standing"], first["to_place"]) == ("itself", "")
    assert json.loads(marker)["storage"] == first["identity"]


def test_a_copy_of_a_storage_is_not_a_new_one(
    spdf: Spdf, ok: Spdf, home: Path, tmp_path: Path
) -> None:
    """As the same server's directory mounted at two places, which nothing else tells of."""
    ok("storage", "add", "raw", tmp_path / "raw", "--role", "input")
    (tmp_path / "copy" / "deep").mkdir(parents=True)
    (tmp_path / "copy" / MARKER).write_bytes((tmp_path / "raw" / MARKER).read_bytes())
    for place in ("copy", "copy/deep"):
        done = spdf("storage", "add", "other", tmp_path / place, "--role", "input")
        assert done.code == 4 and "is storage 'raw' already, by the marker" in done.err


def test_a_directory_that_is_made_is_said(ok: Spdf, home: Path, tmp_path: Path) -> None:
    told = f"the directory {tmp_path / 'raw'} wasn't there, and was made"
    line = ("storage", "add", "raw", tmp_path / "raw", "--role", "input")
    assert told in ok(*line).err
    assert told not in ok(*line).err


def test_where_we_may_not_write_the_marker_is_printed(ok: Spdf, home: Path, tmp_path: Path) -> None:
    place = tmp_path / "raw"
    place.mkdir(mode=0o555)
    with modes_hold():
        done = ok("storage", "add", "raw", place, "--role", "input")
        listed = ok("storage", "list")
    assert "have .spdf-storage placed at" in done.err
    assert "unmarked" in listed.out and "storage 'raw' has no marker" in listed.err
    text = done.err[done.err.index("{") :]
    place.chmod(0o755)
    (place / MARKER).write_text(text)
    assert ok("storage", "show", "raw", "--json").json["standing"] == "itself"
    ok("storage", "mark", "raw")


def test_a_storage_that_is_away_is_told_with_what_to_do(
    spdf: Spdf, ok: Spdf, home: Path, tmp_path: Path
) -> None:
    ok("storage", "add", "raw", tmp_path / "raw", "--role", "input")
    (tmp_path / "raw").rename(tmp_path / "aside")
    (tmp_path / "raw").mkdir()
    (found,) = [s for s in ok("storage", "list", "--json").json if s["name"] == "raw"]
    assert found["standing"] == "away" and "bring back what was there" in found["why"]
    shown = ok("storage", "show", "raw").out
    assert "away" in shown and "spdf storage mark raw --yes" in shown
    assert spdf("storage", "mark", "raw").code == 5
    assert list((tmp_path / "raw").iterdir()) == []
    ok("storage", "mark", "raw", "--yes")
    assert ok("storage", "show", "raw", "--json").json["standing"] == "itself"


def test_the_default_storages_are_marked(ok: Spdf, home: Path) -> None:
    found = ok("storage", "list", "--json").json
    assert {s["standing"] for s in found} == {"itself"}
    for storage in found:
        assert (Path(storage["url"]) / MARKER).exists()


def test_the_marker_cannot_be_added_to_a_dataset(spdf: Spdf, ok: Spdf, buffer: Path) -> None:
    ok("dataset", "create", "run-1")
    done = spdf("dataset", "add", "run-1", buffer / MARKER)
    assert done.code == 2 and "is the name of a storage's marker" in done.err


@pytest.mark.parametrize("words", [("mark",), ("show",)])
def test_an_unknown_storage_is_not_found(spdf: Spdf, home: Path, words: tuple[str, ...]) -> None:
    assert spdf("storage", *words, "nothing").code == 3


def test_a_storage_that_was_brought_elsewhere_is_moved(
    spdf: Spdf, ok: Spdf, home: Path, tmp_path: Path
) -> None:
    ok("storage", "add", "raw", tmp_path / "raw", "--role", "input")
    (tmp_path / "raw" / "x.raw").write_text("x")
    ok("dataset", "create", "run-1")
    ok("dataset", "add", "run-1", tmp_path / "raw" / "x.raw")
    (tmp_path / "new").mkdir()
    done = spdf("storage", "move", "raw", tmp_path / "new")
    assert done.code == 5 and "its marker .spdf-storage isn't there" in done.err
    done = spdf("storage", "move", "raw", home / "storage" / "output" / "raw")
    assert done.code == 4 and "lies inside storage output" in done.err
    (tmp_path / "new").rmdir()
    (tmp_path / "raw").rename(tmp_path / "new")
    assert spdf("dataset", "verify", "run-1").code == 5
    assert ok("storage", "move", "raw", tmp_path / "new", "--json").json["standing"] == "itself"
    ok("dataset", "verify", "run-1")
    done = spdf("storage", "move", "raw", "http://127.0.0.1:9/bucket")
    assert done.code == 2


def test_commands_end_by_themselves_where_a_mount_hangs(
    spdf: Spdf, ok: Spdf, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "LIMIT_S", 1.0)
    place = tmp_path / "raw"
    ok("storage", "add", "raw", place, "--role", "input")
    with hanging(place):
        for line in (
            ("add", "new", place / "new", "--role", "output"),
            ("add", "new", place / "new", "--role", "output", "--unchecked"),
            ("add", "new", tmp_path / "new", "--role", "output"),
            ("mark", "raw"),
            ("mark", "raw", "--yes"),
            ("move", "internal", place),
        ):
            done = spdf("storage", *line)
            assert done.code != 0 and "doesn't answer within 1 s" in done.err, line
        assert "away" in ok("storage", "list").out
        assert "away" in ok("storage", "show", "raw").out
    assert [s["name"] for s in ok("storage", "list", "--json").json] == [
        "buffer", "internal", "output", "raw",
    ]  # fmt: skip
    ok("storage", "mark", "raw")


def test_a_place_that_is_no_utf8_is_refused_in_a_sentence(spdf: Any, bare_home: Path) -> None:
    place = bare_home / "lat\udce4"
    done = spdf("storage", "add", "odd", place, "--role", "input")
    assert done.code == 2 and not place.exists()
    assert done.err.endswith(
        "lat\\xe4 is no UTF-8, and can't be kept; rename it, or give another.\n"
    )


def test_a_name_that_is_no_utf8_is_told_as_its_bytes(spdf: Any, home: Path) -> None:
    done = spdf("storage", "show", "lat\udce4")
    assert done.code == 2
    assert done.err == "spdf: the name or text 'lat\\xe4' is no UTF-8; give another.\n"
