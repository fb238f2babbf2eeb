"""Load for a Prefect server: workers of nodes, and flow runs as pilots report them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg

from benchmarks.processes import between, cpu_by_tree
from catalog.settings import get_settings
from flows.server import NODE_SETTINGS, read_server, worker_env

POOL = "many"
BEAT_S = 10
"""Time between a worker's heartbeats where that is not what is measured."""


class Server:
    """The server under test. Every phase's figures are a dictionary of the same names."""

    def __init__(self, roots: Mapping[str, int], seconds: float, url: str = "") -> None:
        found = read_server(get_settings())
        assert found is not None
        self._stand = found
        self._url, self._roots, self._seconds = url or found.api_url, roots, seconds
        self.faults: list[str] = []
        self._batch = 0

    def _client(self) -> Any:
        from prefect.client.orchestration import SyncPrefectClient

        return SyncPrefectClient(self._url, auth_string=self._stand.auth)

    def lay_down(self) -> None:
        """A pool that no other worker serves, and the deployment of a pilot in it."""
        from prefect.client.schemas.actions import WorkPoolCreate

        with self._client() as client:
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
            self._deployment = client.create_deployment(
                flow_id=client.create_flow_from_name("pilot"), name=POOL, work_pool_name=POOL,
                entrypoint="flows.pilot.pilot", pull_steps=[],
            )  # fmt: skip

    @contextmanager
    def workers(
        self, count: int, query_s: float, beat_s: int = BEAT_S
    ) -> Iterator[list[tuple[float, float]]]:
        """So many workers; their polls, and how long each took, are there once they have left."""
        self._batch += 1
        polls: list[tuple[float, float]] = []
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.manyworkers", POOL, str(count), f"b{self._batch}"],
            env={
                **worker_env(get_settings(), self._stand),
                **NODE_SETTINGS,
                "PREFECT_WORKER_HEARTBEAT_SECONDS": str(beat_s),
                "PREFECT_API_URL": self._url,
                "PREFECT_WORKER_QUERY_SECONDS": f"{query_s:g}",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin and process.stdout
        try:
            if process.stdout.readline().strip() != "ready":
                raise RuntimeError("the workers did not start; see above")
            time.sleep(2.0)
            yield polls
            self._know(count)
            process.stdin.close()
            polls += [(at, took) for at, took in json.loads(process.stdout.readline())]
            process.wait(60)
        finally:
            process.kill()
            process.wait()

    def _know(self, count: int) -> None:
        """Note it where the server doesn't hold all workers of a batch for online."""
        seen, page = 0, 200
        with self._client() as client:
            for offset in range(0, 100 * page, page):
                found = client.read_workers_for_work_pool(POOL, limit=page, offset=offset)
                seen += sum(
                    worker.name.startswith(f"b{self._batch}-") and worker.status == "ONLINE"
                    for worker in found
                )
                if len(found) < page:
                    break
        if seen != count:
            self.faults.append(f"the server holds {seen} of {count} workers for online")

    def watch(
        self, *, workers: int, query_s: float, polls: list[tuple[float, float]] | None = None
    ) -> dict[str, Any]:
        """What the server spends in a while; `polls` is filled later and read by `_settle`."""
        begun, before = time.time(), cpu_by_tree(self._roots)
        time.sleep(self._seconds)
        used, ended = between(before, cpu_by_tree(self._roots)), time.time()
        return self._row(workers, used, ended - begun) | {
            "query_s": round(query_s, 3),
            "window": [begun, ended],
            "all_polls": polls,
        }

    def play(self, count: int, *, workers: int) -> dict[str, Any]:
        """Flow runs one after the other, with all that their worker and they themselves report."""
        with self._client() as client:
            self._play(client)
            begun, before = time.time(), cpu_by_tree(self._roots)
            ids = [self._play(client) for _ in range(count)]
            # What follows from their events happens within seconds.
            time.sleep(4.0)
            used, ended = between(before, cpu_by_tree(self._roots)), time.time()
            done = sum(client.read_flow_run(run).state.is_completed() for run in ids)
        if done != count:
            self.faults.append(f"{done} of {count} flow runs are completed")
        return self._row(workers, used, ended - begun) | {"runs": count}

    def _play(self, client: Any) -> Any:
        from prefect.client.schemas.actions import LogCreate
        from prefect.states import Completed, Pending, Running
        from prefect.types._datetime import now

        run = client.create_flow_run_from_deployment(self._deployment, parameters={"task": 1})
        client.read_deployment(self._deployment)
        client.set_flow_run_state(run.id, Pending())
        client.update_flow_run(run.id, infrastructure_pid=f"node:{os.getpid()}")
        client.read_flow_run(run.id)
        client.read_deployment(self._deployment)
        client.set_flow_run_state(run.id, Running())
        lines = [
            LogCreate(name="prefect.flow_runs", level=20, message=text, timestamp=now("UTC"),
                      flow_run_id=run.id)
            for text in ("submitting", "begins", "ends")
        ]  # fmt: skip
        client.create_logs(lines)
        client.set_flow_run_state(run.id, Completed())
        return run.id

    def record_bytes(self, count: int) -> int:
        """Bytes that a completed task run takes in the server's database, with its indexes."""
        before = _size_bytes()
        with self._client() as client:
            run = client.create_flow_run_from_deployment(self._deployment)
            for number in range(count):
                body = {
                    "flow_run_id": str(run.id), "name": f"f{number:07d}#1", "task_key": "run_job",
                    "dynamic_key": str(number), "state": {"type": "COMPLETED"},
                }  # fmt: skip
                client.request("POST", "/task_runs/", json=body).raise_for_status()
        return round((_size_bytes() - before) / count)

    def _row(self, workers: int, used: Mapping[str, float], seconds: float) -> dict[str, Any]:
        cpu = {name: round(1000 * s, 1) for name, s in used.items()}
        return {"workers": workers, "seconds": round(seconds, 2), "cpu_ms": cpu}


def _size_bytes() -> int:
    url = get_settings().server_database_url.get_secret_value()
    with psycopg.connect(url.replace("+asyncpg", "")) as connection:
        row = connection.execute(
            "SELECT pg_total_relation_size('task_run') + pg_total_relation_size('task_run_state')"
        ).fetchone()
    assert row is not None
    return int(row[0])
