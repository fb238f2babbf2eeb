"""Where a pilot goes on in its queue, and how often what is costly is done."""

import time
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from sqlmodel import Session

from catalog import attempts, jobs, pilots, tasks
from catalog.attempts import Lease
from catalog.db import Catalog
from flows.share import Share
from flows.shift.turn import Turn


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "monotonic", made)
    return made


def leases(*ordinals: int) -> list[Lease]:
    return [Lease(i, i, 1, f"k{i}", i, {}) for i in ordinals]


def test_a_pilot_goes_on_behind_its_last_lease_and_looks_back_now_and_then(clock: Clock) -> None:
    turn = Turn()
    assert turn.after() == -1
    turn.took(leases(0, 1, 2))
    assert turn.after() == 2
    turn.took(leases(3, 5))
    assert turn.after() == 5
    clock.now += 1.1
    assert turn.after() == -1, "jobs may have come back"
    turn.took(leases(1, 6))
    assert turn.after() == 6


def test_the_longer_a_look_at_the_whole_queue_takes_the_rarer_it_is(clock: Clock) -> None:
    turn = Turn()
    turn.after()
    clock.now += 0.1
    turn.took(leases(0))
    clock.now += 90
    assert turn.after() == 0
    turn.took(leases(1))
    clock.now += 11
    assert turn.after() == -1


def test_a_pilot_that_finds_nothing_more_looks_at_the_whole_queue_soon(clock: Clock) -> None:
    turn = Turn()
    turn.after()
    clock.now += 0.1
    turn.took(leases(0))
    turn.after()
    turn.took([])
    clock.now += 2.1
    assert turn.after() == -1


def test_a_look_that_waited_for_its_connection_does_not_keep_a_pilot_from_looking(
    clock: Clock,
) -> None:
    turn = Turn()
    turn.after()
    clock.now += 30
    turn.took(leases(0))
    turn.after()
    turn.took([])
    clock.now += 5.1
    assert turn.after() == -1
    clock.now += 30
    turn.took(leases(1))
    clock.now += 301
    assert turn.after() == -1


def test_what_takes_longer_is_done_less_often(clock: Clock) -> None:
    share = Share(3.0, 0.01)
    assert share.is_due
    with share.spend():
        clock.now += 0.001
    clock.now += 2.9
    assert not share.is_due
    clock.now += 0.2
    assert share.is_due
    with share.spend():
        clock.now += 1.0
    clock.now += 99.0
    assert not share.is_due
    clock.now += 1.1
    assert share.is_due


def lease(session: Session) -> object:
    return session.execute(sa.select(attempts._ready(1, 5, False, 3).c.id)).all()


@pytest.mark.parametrize(
    ("ask", "index"),
    [
        (lease, "ix_job_open"),
        (lambda session: tasks.has_unfinished(session, 1), "ix_job_open"),
        (lambda session: tasks.count_ready(session, 1, 5), "ix_job_open"),
        (lambda session: jobs.unpassed(session, 1, 5), "ix_job_unpassed"),
        (lambda session: jobs.after_ordinal(session, 1, 5, 5), "ix_job_task_id_ordinal"),
        (lambda session: attempts.held(session, 1), "ix_job_pilot_id"),
        (lambda session: pilots.begun(session, ["run"]), "ix_pilot_flow_run_id"),
        (lambda session: pilots.lost_runs(session, 60, 5), "ix_pilot_state_ended_at"),
    ],
)
def test_what_is_asked_often_is_found_by_an_index(
    backend: str, catalog: Catalog, ask: Callable[[Session], object], index: str
) -> None:
    if backend != "sqlite":
        pytest.skip("a planner that knows how small the table is reads all of it")
    asked: list[tuple[str, tuple[object, ...]]] = []

    def note(_c: object, _k: object, statement: str, parameters: object, *_: object) -> None:
        asked.append((statement, parameters))  # type: ignore[arg-type]

    with catalog.read() as session:
        connection = session.connection()
        sa.event.listen(connection, "before_cursor_execute", note)
        ask(session)
        (statement, parameters) = asked[-1]
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    assert index in "\n".join(str(row) for row in rows)
