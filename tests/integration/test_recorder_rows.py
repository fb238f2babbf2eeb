"""Finished attempts as rows of a real Prefect server's database, on SQLite and on PostgreSQL."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from prefect.client.orchestration import SyncPrefectClient
from sqlmodel import col

from catalog.attempts_shown import UNSHOWABLE, FinishedAttempt, count_unshown, finished
from catalog.db import Catalog
from catalog.errors import Unavailable
from catalog.models import Attempt
from catalog.schema import upgrade
from catalog.settings import Settings
from catalog.states import AttemptState, JobState
from flows.recorder.api import TaskRunApi
from flows.recorder.names import task_run_id
from flows.recorder.pace import Pace
from flows.recorder.rounds import Counts, record_once
from flows.recorder.rows import TaskRunRows
from flows.server import Server, server_database
from tests.integration.attempts import (
    BEGAN,
    add_attempt,
    add_pilot,
    add_task,
    new_flow_run,
    read_runs,
)
from tests.integration.conftest import serve

pytestmark = pytest.mark.xdist_group("server")

OF_ITS_OWN = {"id", "name", "created", "updated", "state_id", "flow_run_id", "dynamic_key"}
"""What two task runs of the same kind need not have in common."""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    home = tmp_path_factory.mktemp("rows") / "home"
    if request.param == "sqlite":
        return Settings(home=home, _env_file=None)
    cluster = request.getfixturevalue("postgres_server")
    name = f"prefect_{secrets.token_hex(4)}"
    cluster.create_database(name)
    url = cluster.url(name).replace("postgresql://", "postgresql+asyncpg://")
    return Settings(home=home, server_database_url=url, _env_file=None)


@pytest.fixture(scope="module")
def server(settings: Settings) -> Iterator[Server]:
    with serve(settings) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[SyncPrefectClient]:
    with SyncPrefectClient(server.api_url, auth_string=server.auth) as client:
        yield client


@pytest.fixture
def rows(settings: Settings, server: Server) -> Iterator[TaskRunRows]:
    rows = TaskRunRows(server_database(settings))
    yield rows
    rows.close()


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")
    upgrade(catalog)
    yield catalog
    catalog.close()


def record(catalog: Catalog, client: SyncPrefectClient, rows: TaskRunRows | None) -> Counts:
    """Rounds until nothing is left; gives the first."""
    api, pace = TaskRunApi(client), Pace(most=100, batch=50)
    first = record_once(catalog, api, pace, rows=rows)
    for _ in range(600):
        if record_once(catalog, api, pace, rows=rows).idle:
            return first
    raise AssertionError("not all was recorded")


def many(catalog: Catalog, flow_run: str, count: int) -> list[int]:
    """So many attempts that FINISHED."""
    with catalog.write() as session:
        task_id = add_task(session)
        pilot_id = add_pilot(session, task_id, flow_run)
        return [
            add_attempt(session, task_id, pilot_id, f"k{number:05}", AttemptState.FINISHED)
            for number in range(count)
        ]


def pair(catalog: Catalog, flow_run: str) -> list[int]:
    """An attempt that FINISHED, and one whose job was SKIPPED."""
    with catalog.write() as session:
        task_id = add_task(session)
        pilot_id = add_pilot(session, task_id, flow_run)
        return [
            add_attempt(session, task_id, pilot_id, 'g "1" é', AttemptState.FINISHED),
            add_attempt(
                session, task_id, pilot_id, "null", AttemptState.FINISHED,
                job_state=JobState.SKIPPED, message="skipped",
            ),
        ]  # fmt: skip


def common(run: dict[str, Any]) -> dict[str, Any]:
    """What a server shows of a task run, without what is its own."""
    state = {k: v for k, v in run["state"].items() if k not in ("id", "state_details")}
    details = {
        k: v
        for k, v in run["state"]["state_details"].items()
        if k not in ("flow_run_id", "task_run_id")
    }
    shown = {k: v for k, v in run.items() if k not in OF_ITS_OWN}
    return {**shown, "state": state, "details": details, "labels": None}


def without_tries(run: dict[str, Any]) -> dict[str, Any]:
    """An event's timestamp has its try in microseconds."""
    moment = run["state_timestamp"] if "state_timestamp" in run else run["state"]["timestamp"]
    assert moment.startswith("2026-01-01T12:00:03")
    return {**run, "state_timestamp": None, "state": {**run["state"], "timestamp": None}}


def test_rows_show_what_events_show(
    catalog: Catalog, client: SyncPrefectClient, rows: TaskRunRows
) -> None:
    by_rows, by_events = new_flow_run(client), new_flow_run(client)
    pair(catalog, by_rows)
    record(catalog, client, rows)
    pair(catalog, by_events)
    record(catalog, client, None)
    one, other = read_runs(client, [by_rows]), read_runs(client, [by_events])
    assert [run["name"] for run in one] == [run["name"] for run in other] == ['g "1" é#1', "null#1"]
    assert [without_tries(common(run)) for run in one] == [
        without_tries(common(run)) for run in other
    ]
    for run in one:
        assert run["state"]["state_details"]["flow_run_id"] == by_rows
        assert run["state"]["state_details"]["task_run_id"] == run["id"]
        (state,) = client.request(
            "GET",
            "/task_run_states/",
            params={"task_run_id": run["id"]},  # type: ignore[arg-type]
        ).json()
        assert state["id"] == run["state_id"] and state["type"] == "COMPLETED"


def test_an_event_that_comes_late_changes_nothing(
    catalog: Catalog, client: SyncPrefectClient, rows: TaskRunRows
) -> None:
    flow_run = new_flow_run(client)
    with catalog.write() as session:
        task_id = add_task(session)
        pilot_id = add_pilot(session, task_id, flow_run)
        attempt = add_attempt(session, task_id, pilot_id, "x", AttemptState.RUNNING)
    record(catalog, client, rows)
    assert [run["state_type"] for run in read_runs(client, [flow_run])] == ["RUNNING"]
    with catalog.write() as session:
        session.execute(
            sa.update(Attempt)
            .where(col(Attempt.id) == attempt)
            .values(state=AttemptState.FINISHED, ended_at=BEGAN + timedelta(seconds=9))
        )
    record(catalog, client, rows)
    (run,) = read_runs(client, [flow_run])
    assert (run["state_type"], run["total_run_time"]) == ("COMPLETED", 9.0)
    assert run["id"] == str(task_run_id(flow_run, attempt))


def test_a_recorder_that_died_before_it_noted_it_writes_nothing_twice(
    catalog: Catalog, client: SyncPrefectClient, rows: TaskRunRows
) -> None:
    flow_run = new_flow_run(client)
    pair(catalog, flow_run)
    with catalog.read() as session:
        attempts = finished(session, 10)
    assert rows.write(attempts) == set()
    before = read_runs(client, [flow_run])
    record(catalog, client, rows)
    assert read_runs(client, [flow_run]) == before and len(before) == 2
    with catalog.read() as session:
        assert count_unshown(session) == 0


def test_one_round_writes_what_ended_well_and_posts_the_rest(
    catalog: Catalog, client: SyncPrefectClient, rows: TaskRunRows
) -> None:
    flow_run = new_flow_run(client)
    pair(catalog, flow_run)
    with catalog.write() as session:
        task_id = add_task(session)
        pilot_id = add_pilot(session, task_id, flow_run)
        add_attempt(
            session, task_id, pilot_id, "bad", AttemptState.FAILED, job_state=JobState.FAILED,
            error="PAYLOAD_FAILED", exit_code=7, log_tail="why",
        )  # fmt: skip
    first = record(catalog, client, rows)
    assert (first.posted, first.shown, first.waiting) == (3, 2, 1)
    runs = read_runs(client, [flow_run])
    assert {run["name"]: run["state_type"] for run in runs} == {
        'g "1" é#1': "COMPLETED", "null#1": "COMPLETED", "bad#1": "FAILED",
    }  # fmt: skip


def test_what_ends_well_while_a_round_is_under_way_is_left_to_the_next(
    catalog: Catalog, client: SyncPrefectClient, rows: TaskRunRows
) -> None:
    flow_run = new_flow_run(client)

    class Late(TaskRunRows):
        """Jobs end just after the round has written what ended before."""

        def write(self, attempts: Sequence[FinishedAttempt]) -> set[str]:
            gone = rows.write(attempts)
            if len(attempts) == 2:
                pair(catalog, flow_run)
            return gone

    pair(catalog, flow_run)
    api, pace = TaskRunApi(client), Pace(most=100, batch=50)
    late = Late("sqlite://")
    first = record_once(catalog, api, pace, rows=late)
    late.close()
    assert (first.shown, first.waiting) == (2, 0), "none was posted as an event"


def test_attempts_of_deleted_flow_runs_are_given_up(
    catalog: Catalog, client: SyncPrefectClient, rows: TaskRunRows
) -> None:
    flow_run, deleted = new_flow_run(client), new_flow_run(client)
    client.request("DELETE", f"/flow_runs/{deleted}")  # type: ignore[arg-type]
    kept = pair(catalog, flow_run)
    gone = pair(catalog, deleted)
    record(catalog, client, rows)
    assert len(read_runs(client, [flow_run])) == 2
    with catalog.read() as session:
        states = dict(session.execute(sa.select(col(Attempt.id), col(Attempt.shown_state))).all())
    assert states == {**dict.fromkeys(kept, "FINISHED"), **dict.fromkeys(gone, UNSHOWABLE)}


def test_an_attempt_that_the_database_refuses_holds_nobody_back(
    catalog: Catalog, client: SyncPrefectClient, rows: TaskRunRows, settings: Settings
) -> None:
    flow_run = new_flow_run(client)
    ids = many(catalog, flow_run, 4)
    with refusing(settings, "k00002#1"):
        counts = record_once(catalog, TaskRunApi(client), Pace(most=1, batch=1), rows=rows)
    assert (counts.shown, counts.unshowable) == (3, 1)
    shown = {UUID(run["id"]) for run in read_runs(client, [flow_run])}
    assert shown == {task_run_id(flow_run, ids[number]) for number in (0, 1, 3)}
    with catalog.read() as session:
        states = dict(session.execute(sa.select(col(Attempt.id), col(Attempt.shown_state))).all())
    assert states[ids[2]] == UNSHOWABLE
    assert record_once(catalog, TaskRunApi(client), Pace(most=1, batch=1), rows=rows).idle


def test_where_all_are_refused_none_is_given_up(
    catalog: Catalog, client: SyncPrefectClient, rows: TaskRunRows, settings: Settings
) -> None:
    """Then it isn't the attempts that are wrong: they are written once the database is mended."""
    flow_run = new_flow_run(client)
    many(catalog, flow_run, 3)
    with (
        refusing(settings, *(f"k{number:05}#1" for number in range(3))),
        pytest.raises(Unavailable, match="takes none of 3 task runs"),
    ):
        record_once(catalog, TaskRunApi(client), Pace(most=1, batch=1), rows=rows)
    assert record(catalog, client, rows).shown == 3
    assert len(read_runs(client, [flow_run])) == 3


REFUSE = {
    "sqlite": (
        "CREATE TRIGGER refuse BEFORE INSERT ON task_run WHEN NEW.name IN ({names}) "
        "BEGIN SELECT RAISE(ABORT, 'refused'); END",
        "DROP TRIGGER refuse",
    ),
    "postgresql": (
        "ALTER TABLE task_run ADD CONSTRAINT refuse CHECK (name NOT IN ({names})) NOT VALID",
        "ALTER TABLE task_run DROP CONSTRAINT refuse",
    ),
}


@contextmanager
def refusing(settings: Settings, *names: str) -> Iterator[None]:
    """Meanwhile the server's database takes no task runs of these names."""
    rows = TaskRunRows(server_database(settings))
    begin, end = REFUSE[rows._engine.dialect.name]
    listed = ", ".join(f"'{name}'" for name in names)
    try:
        with rows._engine.begin() as connection:
            connection.exec_driver_sql(begin.format(names=listed))
        yield
    finally:
        with rows._engine.begin() as connection:
            connection.exec_driver_sql(end)
        rows.close()


def test_many_are_written_in_one_round(
    catalog: Catalog, client: SyncPrefectClient, rows: TaskRunRows
) -> None:
    flow_run = new_flow_run(client)
    ids = many(catalog, flow_run, 2500)
    counts = record_once(catalog, TaskRunApi(client), Pace(most=1, batch=1), rows=rows)
    assert (counts.shown, counts.waiting) == (2500, 0)
    shown = {UUID(run["id"]) for run in read_runs(client, [flow_run])}
    assert shown == {task_run_id(flow_run, attempt_id) for attempt_id in ids}


def test_a_database_that_is_away_is_unavailable(catalog: Catalog, tmp_path: Path) -> None:
    pair(catalog, "00000000-0000-0000-0000-000000000001")
    with catalog.read() as session:
        attempts = finished(session, 10)
    with pytest.raises(Unavailable, match="Prefect server's database"):
        TaskRunRows(f"sqlite:///{tmp_path / 'nowhere' / 'prefect.db'}").write(attempts)
