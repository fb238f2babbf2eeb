"""The recorder against a real Prefect server."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa
from prefect.client.orchestration import SyncPrefectClient
from sqlmodel import col

from catalog.attempts_shown import UNSHOWABLE, count_unshown
from catalog.db import Catalog
from catalog.models import (
    Attempt,
    Singleton,
)
from catalog.schema import upgrade
from catalog.settings import Settings
from catalog.states import AttemptState, JobState
from flows.recorder.api import TaskRunApi
from flows.recorder.names import RECORDER, task_run_id
from flows.recorder.pace import Pace
from flows.recorder.rounds import Counts, record_once
from flows.server import Server, base_env
from tests.integration.attempts import (
    BEGAN,
    add_attempt,
    add_pilot,
    add_task,
    new_flow_run,
    read_runs,
)

pytestmark = pytest.mark.xdist_group("server")

CYCLE = (
    AttemptState.FINISHED, AttemptState.FINISHED, AttemptState.FAILED,
    AttemptState.LOST, AttemptState.CANCELLED, AttemptState.FINISHED,
)  # fmt: skip
TYPES = {
    AttemptState.FINISHED: "COMPLETED",
    AttemptState.FAILED: "FAILED",
    AttemptState.LOST: "CRASHED",
    AttemptState.CANCELLED: "CANCELLED",
    AttemptState.RUNNING: "RUNNING",
}


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")
    upgrade(catalog)
    yield catalog
    catalog.close()


@pytest.fixture
def client(prefect_server: Server) -> Iterator[SyncPrefectClient]:
    with SyncPrefectClient(prefect_server.api_url, auth_string=prefect_server.auth) as client:
        yield client


@pytest.fixture
def api(client: SyncPrefectClient) -> TaskRunApi:
    return TaskRunApi(client)


def fill(catalog: Catalog, flow_run_ids: list[str], count: int) -> dict[UUID, str]:
    """`count` attempts in mixed states; gives the type that each task run must get."""
    expected = {}
    with catalog.write() as session:
        task_id = add_task(session)
        pilots = [(run, add_pilot(session, task_id, run)) for run in flow_run_ids]
        for i in range(count):
            state = CYCLE[i % len(CYCLE)]
            run, pilot_id = pilots[i % len(pilots)]
            failed = {}
            if state is AttemptState.FAILED:
                failed = {"error": "PAYLOAD_FAILED", "exit_code": 7, "message": f"bad \0 {i}",
                          "log_tail": f"line of {i}\nthe end of {i}"}  # fmt: skip
            attempt_id = add_attempt(session, task_id, pilot_id, f"f{i:04}", state, **failed)
            expected[task_run_id(run, attempt_id)] = TYPES[state]
    return expected


def record_all(catalog: Catalog, api: TaskRunApi, pace: Pace, limit_s: float = 90) -> Counts:
    """Rounds until nothing is left to do; gives the sum of what they did."""
    until = time.monotonic() + limit_s
    posted = confirmed = missing = 0
    while time.monotonic() < until:
        counts = record_once(catalog, api, pace)
        assert counts.waiting <= pace.most
        posted, confirmed = posted + counts.posted, confirmed + counts.confirmed
        missing += counts.missing
        if counts.idle:
            return Counts(posted=posted, confirmed=confirmed, missing=missing)
        time.sleep(0.1)
    raise AssertionError(f"not all was recorded: {counts}")


def count_states(client: SyncPrefectClient, run_id: str) -> int:
    answer = client.request("GET", "/task_run_states/", params={"task_run_id": run_id})
    return len(answer.json())


def start_recorder(settings: Settings, server: Server, catalog: Catalog) -> subprocess.Popen[bytes]:
    environment = {
        **base_env(settings, server),
        "SPDF_CATALOG_URL": catalog.url.render_as_string(hide_password=False),
        "SPDF_RECORDER_BATCH": "20",
        "SPDF_RECORDER_UNCONFIRMED": "60",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "flows.recorder"],
        env=environment,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def test_a_recorder_killed_in_the_middle_leaves_nothing_out_and_nothing_twice(
    catalog: Catalog, client: SyncPrefectClient, api: TaskRunApi,
    prefect_server: Server, server_settings: Settings,
) -> None:  # fmt: skip
    flow_runs = [new_flow_run(client), new_flow_run(client)]
    expected = fill(catalog, flow_runs, 300)

    process = start_recorder(server_settings, prefect_server, catalog)
    try:
        while True:
            with catalog.read() as session:
                left = count_unshown(session)
            if left < 250:
                break
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert left > 0, "the recorder was meant to be killed before its end"

    pace = Pace(most=100, batch=40, grace_s=5)
    record_all(catalog, api, pace)
    runs = read_runs(client, flow_runs)
    assert {UUID(run["id"]): run["state_type"] for run in runs} == expected
    assert len(runs) == 300

    assert record_all(catalog, api, pace) == Counts()
    again = read_runs(client, flow_runs)
    assert [run["state_id"] for run in again] == [run["state_id"] for run in runs]
    with catalog.read() as session:
        assert count_unshown(session) == 0


def test_a_task_run_tells_what_the_catalog_knows(
    catalog: Catalog, client: SyncPrefectClient, api: TaskRunApi
) -> None:
    flow_run = new_flow_run(client)
    with catalog.write() as session:
        task_id = add_task(session)
        pilot_id = add_pilot(session, task_id, flow_run)
        add_attempt(session, task_id, pilot_id, "good", AttemptState.FINISHED)
        add_attempt(
            session, task_id, pilot_id, "null", AttemptState.FINISHED, job_state=JobState.SKIPPED
        )
        add_attempt(
            session, task_id, pilot_id, "bad", AttemptState.FAILED, job_state=JobState.FAILED,
            error="PAYLOAD_FAILED", exit_code=7, message="no \0 luck", log_tail="last \0 words",
        )  # fmt: skip
    record_all(catalog, api, Pace(most=100, batch=10, grace_s=5))

    runs = {run["name"]: run for run in read_runs(client, [flow_run])}
    assert set(runs) == {"good#1", "null#1", "bad#1"}
    assert runs["null#1"]["state"]["message"] == "skipped"
    bad = runs["bad#1"]
    assert bad["state"]["message"] == "PAYLOAD_FAILED: no \ufffd luck (exit code 7)"
    assert bad["tags"] == ["PAYLOAD_FAILED"]
    for run in runs.values():
        assert datetime.fromisoformat(run["start_time"]) == BEGAN
        assert datetime.fromisoformat(run["end_time"]) == BEGAN + timedelta(seconds=3)
        assert run["total_run_time"] == 3.0
    body = {"logs": {"flow_run_id": {"any_": [flow_run]}}}
    logs = client.request("POST", "/logs/filter", json=body).json()
    assert [(entry["task_run_id"], entry["message"]) for entry in logs] == [
        (bad["id"], "last \ufffd words")
    ]


def test_a_long_job_is_shown_running_and_then_ended(
    catalog: Catalog, client: SyncPrefectClient, api: TaskRunApi
) -> None:
    flow_run = new_flow_run(client)
    pace = Pace(most=100, batch=10, grace_s=5)
    with catalog.write() as session:
        task_id = add_task(session)
        pilot_id = add_pilot(session, task_id, flow_run)
        long = add_attempt(session, task_id, pilot_id, "long", AttemptState.RUNNING)
        add_attempt(session, task_id, pilot_id, "leased", AttemptState.RUNNING, phase=None)
        add_attempt(
            session, task_id, pilot_id, "young", AttemptState.RUNNING,
            started_at=datetime.now(UTC) + timedelta(seconds=60),
        )  # fmt: skip
    record_all(catalog, api, pace)
    runs = read_runs(client, [flow_run])
    assert [(run["name"], run["state_type"]) for run in runs] == [("long#1", "RUNNING")]

    with catalog.write() as session:
        session.execute(
            sa.update(Attempt)
            .where(col(Attempt.id) == long)
            .values(state=AttemptState.FINISHED, ended_at=BEGAN + timedelta(hours=1))
        )
    record_all(catalog, api, pace)
    runs = read_runs(client, [flow_run])
    assert [(run["name"], run["state_type"]) for run in runs] == [("long#1", "COMPLETED")]
    assert runs[0]["total_run_time"] == 3600.0
    assert count_states(client, runs[0]["id"]) == 2


def test_a_later_state_of_the_servers_own_is_overruled(
    catalog: Catalog, client: SyncPrefectClient, api: TaskRunApi
) -> None:
    """As when the server calls the task runs of a cancelled flow run cancelled, with its clock."""
    flow_run = new_flow_run(client)
    pace = Pace(most=100, batch=10, grace_s=1)
    with catalog.write() as session:
        task_id = add_task(session)
        pilot_id = add_pilot(session, task_id, flow_run)
        attempt = add_attempt(session, task_id, pilot_id, "x", AttemptState.RUNNING)
    record_all(catalog, api, pace)
    run = str(task_run_id(flow_run, attempt))
    cancelled = {"state": {"type": "CANCELLED", "name": "Cancelled"}, "force": True}
    client.request("POST", f"/task_runs/{run}/set_state", json=cancelled)
    with catalog.write() as session:
        session.execute(
            sa.update(Attempt)
            .where(col(Attempt.id) == attempt)
            .values(state=AttemptState.FINISHED, ended_at=BEGAN + timedelta(seconds=9))
        )
    counts = record_all(catalog, api, pace)
    assert counts.missing >= 1
    assert read_runs(client, [flow_run])[0]["state_type"] == "COMPLETED"


def test_attempts_without_a_flow_run_are_given_up_and_hold_nobody_back(
    catalog: Catalog, client: SyncPrefectClient, api: TaskRunApi
) -> None:
    flow_run, deleted = new_flow_run(client), new_flow_run(client)
    client.request("DELETE", f"/flow_runs/{deleted}")
    with catalog.write() as session:
        task_id = add_task(session)
        pilots = [add_pilot(session, task_id, run) for run in (flow_run, deleted, None)]
        ids = [
            add_attempt(session, task_id, pilot, f"f{i}", AttemptState.FINISHED)
            for i, pilot in enumerate(pilots)
        ]
    record_all(catalog, api, Pace(most=100, batch=10, grace_s=5))
    assert len(read_runs(client, [flow_run])) == 1
    with catalog.read() as session:
        rows = session.execute(sa.select(col(Attempt.id), col(Attempt.shown_state))).all()
        shown = {row[0]: row[1] for row in rows}
    assert shown == {ids[0]: "FINISHED", ids[1]: UNSHOWABLE, ids[2]: UNSHOWABLE}


def test_two_recorders_take_turns(
    catalog: Catalog, prefect_server: Server, server_settings: Settings
) -> None:
    recorders = [start_recorder(server_settings, prefect_server, catalog) for _ in range(2)]
    waiting = {process.pid: process for process in recorders}
    try:
        while waiting:
            leader = waiting.pop(wait_for_leader(catalog, set(waiting)))
            leader.terminate()
            assert leader.wait(20) == 0
    finally:
        for process in waiting.values():
            process.kill()
            process.wait()


def wait_for_leader(catalog: Catalog, pids: set[int], limit_s: float = 30) -> int:
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        with catalog.read() as session:
            owner = session.execute(
                sa.select(col(Singleton.owner)).where(col(Singleton.name) == RECORDER)
            ).scalar()
        if owner and int(owner.rpartition(":")[2]) in pids:
            return int(owner.rpartition(":")[2])
        time.sleep(0.1)
    raise AssertionError("no recorder took the lease")
