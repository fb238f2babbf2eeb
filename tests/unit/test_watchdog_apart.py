"""A workflow that can't be taken up, or an attempt that can't be shown, keeps no other from it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from catalog import clock, datasets, storages, templates, waits
from catalog.attempts_shown import FinishedAttempt
from catalog.db import Catalog
from catalog.errors import Unavailable
from catalog.models import StorageKind, StorageRole
from catalog.settings import Settings
from flows import templates as template_files
from flows import watchdog
from flows.recorder import rounds
from flows.recorder.names import is_run_id
from flows.submit import Submission, submit

CHAIN = Path(__file__).resolve().parents[2] / "examples" / "twostage" / "chain.cwl"


@pytest.fixture
def workflows_left(catalog: Catalog, tmp_path: Path) -> list[int]:
    """Workflows that nobody has begun for long."""
    with catalog.write() as session:
        for role in StorageRole:
            storages.add(session, role, StorageKind.LOCAL, role, str(tmp_path / role))
        for number in range(4):
            datasets.create(session, f"run-{number}")
    info, _ = template_files.create(catalog, CHAIN, name="chain", mask="run-?")
    with catalog.write() as session:
        templates.activate(session, info.id)
    ids = [submit(catalog, Submission("chain", f"run-{n}", {}))[0] for n in range(4)]
    clock.shift_clock(3600.0)
    return ids


def test_a_workflow_that_cannot_be_taken_up_is_told_of_and_the_others_are(
    catalog: Catalog, workflows_left: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    broken = {workflows_left[1]}

    def start_run(_client: Any, _catalog: Catalog, info: Any, **_: Any) -> str:
        if info.id in broken:
            raise KeyError("a deployment that is odd")
        started.append(info.id)
        return "run"

    monkeypatch.setattr(watchdog, "start_run", start_run)
    monkeypatch.setattr(watchdog, "states_of", lambda *_: {})
    settings = Settings(home=tmp_path, _env_file=None)
    client: Any = None
    count, _ = watchdog.tick(catalog, settings, client)
    assert count == 3 and sorted(started) == [i for i in workflows_left if i not in broken]
    with catalog.read() as session:
        assert any(
            "no flow run can be started" in line
            for line in waits.of_workflow(session, workflows_left[1])
        )
    broken.clear()
    watchdog.tick(catalog, settings, client)
    with catalog.read() as session:
        assert not session.execute(sa.text("SELECT 1 FROM trouble")).all()


def attempts(count: int) -> list[FinishedAttempt]:
    fields: dict[str, Any] = dict.fromkeys(FinishedAttempt.__dataclass_fields__)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        FinishedAttempt(**{**fields, "attempt_id": n, "started_at": at, "ended_at": at})
        for n in range(count)
    ]


@pytest.mark.parametrize("error", [ValueError("badly formed"), OverflowError("a date"), KeyError()])
def test_attempts_that_cannot_be_sent_are_found_among_many(error: Exception) -> None:
    sent: list[int] = []

    def send(some: Sequence[FinishedAttempt]) -> None:
        if any(item.attempt_id in (3, 77) for item in some):
            raise error
        sent.extend(item.attempt_id for item in some)

    assert sorted(rounds._send(send, attempts(100))) == [3, 77]
    assert sorted(sent) == [n for n in range(100) if n not in (3, 77)]


def test_a_server_that_is_away_gives_up_no_attempt() -> None:
    def send(_some: Sequence[FinishedAttempt]) -> None:
        raise Unavailable("the server is away")

    with pytest.raises(Unavailable):
        rounds._send(send, attempts(3))


def test_an_id_that_is_none_is_asked_of_no_server() -> None:
    assert is_run_id("0194c3f2-6e3c-7d2e-9f66-0b7f3d0f0f0a")
    assert not is_run_id("local") and not is_run_id("") and not is_run_id("\0")
