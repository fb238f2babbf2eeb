"""Commands that meet a mount that hangs: they end, and say which storage doesn't answer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from catalog import answering
from tests.servers.disks import hanging

Spdf = Callable[..., Any]
SAID = "doesn't answer within 1 s; check its mount or server"


@pytest.fixture
def away(home: Path, ok: Spdf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place of a storage `raw`."""
    monkeypatch.setattr(answering, "LIMIT_S", 1.0)
    ok("storage", "add", "raw", tmp_path / "raw", "--role", "input")
    return tmp_path / "raw"


def test_how_full_storages_are_is_told(spdf: Spdf, ok: Spdf, away: Path) -> None:
    with hanging(away):
        assert SAID in ok("buffer", "status").err
        done = spdf("status")
    assert (done.out + done.err).count(SAID) == 1


def test_a_file_of_another_storage_is_added(spdf: Spdf, ok: Spdf, away: Path, buffer: Path) -> None:
    (buffer / "a.raw").write_text("content")
    ok("dataset", "create", "run-1")
    with hanging(away):
        assert ok("dataset", "add", "run-1", buffer / "a.raw", "--json").json["new"] == 1
        done = spdf("dataset", "add", "run-1", away / "b.raw")
    assert done.code == 5 and SAID in done.err
