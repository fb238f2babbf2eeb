"""Pools, deployments and templates on a real Prefect server."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from catalog.errors import Conflict, Unavailable
from catalog.settings import Settings
from flows.containers import DOCKER, pool_values
from flows.deployments import ensure_deployments, publish_template, withdraw_template
from flows.pools import ensure_pools
from flows.queues import LIVE_WORKFLOWS
from flows.server import Server, call_api
from flows.site import check

pytestmark = pytest.mark.xdist_group("server")

SCHEMA = {
    "title": "md5",
    "type": "object",
    "properties": {
        "dataset": {"type": "string", "title": "Dataset", "position": 0},
        "inputs": {
            "type": "object",
            "position": 1,
            "properties": {"seed": {"type": "integer"}},
            "additionalProperties": False,
        },
        "rank": {"type": "integer", "position": 2},
    },
    "required": ["dataset"],
}


@pytest.fixture
def client(prefect_server: Server) -> Iterator[SyncPrefectClient]:
    with SyncPrefectClient(prefect_server.api_url, auth_string=prefect_server.auth) as client:
        ensure_pools(client, gpu=False)
        yield client


def queues(client: SyncPrefectClient) -> dict[str, tuple[int | None, int | None]]:
    found = client.read_work_queues(work_pool_name="control")
    return {queue.name: (queue.priority, queue.concurrency_limit) for queue in found}


def submit(client: SyncPrefectClient, name: str, parameters: dict[str, Any]) -> Any:
    deployment = client.read_deployment_by_name(name)
    return client.create_flow_run_from_deployment(deployment.id, parameters=parameters)


def test_the_server_wants_its_login(prefect_server: Server) -> None:
    stranger = Server(prefect_server.port, "spdf", "guess", "-")
    with pytest.raises(Unavailable, match="refuses the login"):
        call_api(stranger, "POST", "/flows/filter", {})
    assert call_api(prefect_server, "POST", "/flows/filter", {}) is not None


def test_the_web_page_may_talk_to_this_server_alone(prefect_server: Server) -> None:
    with urllib.request.urlopen(f"{prefect_server.ui_url}/") as answer:
        policy = answer.headers["content-security-policy"]
    sources = policy.partition("connect-src ")[2].partition(";")[0].split()
    assert f"http://127.0.0.1:{prefect_server.port}" in sources
    assert all(s == "'self'" or f":{prefect_server.port}" in s for s in sources)


def test_pools_are_laid_down_once_and_an_operators_limit_stays(client: SyncPrefectClient) -> None:
    fixed = {"watchdog": (1, 1), "housekeeping": (3, 1), "data": (4, 4)}
    assert queues(client) == {**fixed, "default": (2, LIVE_WORKFLOWS)}
    default = client.read_work_queue_by_name("default", work_pool_name="control")
    client.update_work_queue(default.id, concurrency_limit=7)
    assert ensure_pools(client, gpu=True) == ("control", "cpu", "gpu")
    assert queues(client) == {**fixed, "default": (2, 7)}
    client.update_work_queue(default.id, concurrency_limit=LIVE_WORKFLOWS)


def test_a_worker_makes_the_queues_that_it_asks_for(
    client: SyncPrefectClient, prefect_server: Server
) -> None:
    lost = client.read_work_queue_by_name("housekeeping", work_pool_name="control")
    client.delete_work_queue_by_id(lost.id)
    (finding,) = check._queues(prefect_server.api_url, prefect_server.auth)
    assert (finding.part, finding.name, finding.right) == ("queue", "housekeeping", False)
    assert "`spdf site setup`" in finding.mend
    worker = subprocess.Popen(
        [
            sys.executable, "-m", "flows.services.nodeworker",
            "--type", "process", "--pool", "control", "--name", "w",
            "--work-queue", "housekeeping",
        ],
        env={
            **os.environ,
            "PREFECT_API_URL": prefect_server.api_url,
            "PREFECT_API_AUTH_STRING": prefect_server.auth,
        },
    )  # fmt: skip
    try:
        end = time.monotonic() + 60
        while "housekeeping" not in queues(client) and time.monotonic() < end:
            time.sleep(0.1)
    finally:
        worker.kill()
        worker.wait(30)
    assert queues(client)["housekeeping"] == (3, 1)
    assert not list(check._queues(prefect_server.api_url, prefect_server.auth))


def test_pilots_run_in_containers_where_pools_are_of_that_type(
    client: SyncPrefectClient, tmp_path: Path
) -> None:
    values = pool_values(Settings(home=tmp_path, pilot_image="spdf:beam"))
    with pytest.raises(Conflict, match="cpu is of type process, and SPDF_PILOTS_IN asks for dock"):
        ensure_pools(client, gpu=True, pilots_in=DOCKER, values=values)
    try:
        for name in ("cpu", "gpu"):
            client.request("DELETE", "/work_pools/{name}", path_params={"name": name})
        for _ in range(2):
            ensure_pools(client, gpu=True, pilots_in=DOCKER, values=values)
        pools = {name: client.read_work_pool(name) for name in ("control", "cpu", "gpu")}
        assert [pool.type for pool in pools.values()] == ["process", "docker", "docker"]
        variables = pools["gpu"].base_job_template["variables"]["properties"]
        assert variables["image"]["default"] == "spdf:beam"
        assert variables["volumes"]["default"] == [f"{tmp_path}:{tmp_path}"]
    finally:
        for name in ("cpu", "gpu"):
            client.request("DELETE", "/work_pools/{name}", path_params={"name": name})


def test_deployments_are_those_of_the_file(client: SyncPrefectClient) -> None:
    for _ in range(2):
        names = ensure_deployments(client, pools=("control", "cpu"), watchdog_s=30)
    single = ("workflow", "watchdog", "housekeeping", "deletion", "upload", "inspection")
    assert names == ("pilot/cpu", *(f"{name}/{name}" for name in single))
    for name in ("deletion", "upload", "inspection"):
        assert client.read_deployment_by_name(f"{name}/{name}").work_queue_name == "data"
    housekeeping = client.read_deployment_by_name("housekeeping/housekeeping")
    assert [s.schedule.interval.total_seconds() for s in housekeeping.schedules] == [3600]  # type: ignore[union-attr]
    assert housekeeping.work_queue_name == "housekeeping"
    watchdog = client.read_deployment_by_name("watchdog/watchdog")
    assert [s.schedule.interval.total_seconds() for s in watchdog.schedules] == [30]  # type: ignore[union-attr]
    assert watchdog.work_queue_name == "watchdog"
    assert watchdog.concurrency_options is not None
    assert watchdog.concurrency_options.collision_strategy == "CANCEL_NEW"
    assert watchdog.global_concurrency_limit is not None
    assert watchdog.global_concurrency_limit.limit == 1
    pilot = client.read_deployment_by_name("pilot/cpu")
    assert (pilot.entrypoint, pilot.pull_steps) == ("flows.pilot.pilot", [])
    with pytest.raises(PrefectHTTPStatusError, match="409"):
        submit(client, "pilot/cpu", {"task": "not a number"})


def test_a_template_is_a_deployment_of_its_own_name(client: SyncPrefectClient) -> None:
    publish_template(client, "md5", 1, SCHEMA, tags=["rank-0"], description="Digests.")
    run = submit(client, "md5/md5", {"dataset": "raw", "inputs": {"seed": 3}})
    assert run.state.is_scheduled()
    assert run.parameters == {"template": "md5@1", "dataset": "raw", "inputs": {"seed": 3}}
    assert client.read_flow(run.flow_id).name == "md5"

    publish_template(client, "md5", 2, SCHEMA)
    run = submit(client, "md5/md5", {"dataset": "raw"})
    assert run.parameters["template"] == "md5@2"


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({}, "dataset"),
        ({"dataset": 5}, "dataset"),
        ({"dataset": "raw", "inputs": {"seed": "x"}}, "seed"),
        ({"dataset": "raw", "inputs": {"sed": 1}}, "sed"),
        ({"dataset": "raw", "dataste": "raw"}, "dataste"),
        ({"dataset": "raw", "template": "other@1"}, "template"),
    ],
)
def test_the_server_refuses_what_a_template_does_not_take(
    client: SyncPrefectClient, parameters: dict[str, Any], field: str
) -> None:
    publish_template(client, "strict", 1, SCHEMA)
    with pytest.raises(PrefectHTTPStatusError) as refusal:
        submit(client, "strict/strict", parameters)
    assert refusal.value.response.status_code == 409
    assert field in refusal.value.response.text


def test_an_archived_template_is_no_longer_offered(client: SyncPrefectClient) -> None:
    publish_template(client, "old", 1, SCHEMA)
    run = submit(client, "old/old", {"dataset": "raw"})
    client.request(
        "POST",
        f"/flow_runs/{run.id}/set_state",
        json={"state": {"type": "COMPLETED", "name": "Completed"}, "force": True},
    )
    assert withdraw_template(client, "old")
    assert not withdraw_template(client, "old")
    with pytest.raises(ObjectNotFound):
        client.read_deployment_by_name("old/old")
    assert client.read_flow_run(run.id).state is not None


def test_prefect_yaml_holds_for_prefect_deploy_too(
    client: SyncPrefectClient, prefect_server: Server, tmp_path: Path
) -> None:
    """`prefect deploy --all` and `spdf up` must agree on what is deployed."""
    ensure_pools(client, gpu=True)
    ours = ensure_deployments(client, pools=("control", "cpu", "gpu"), watchdog_s=60)
    before = {name: summary(client, name) for name in ours}
    deploy_all(prefect_server, tmp_path)
    for name in ours:
        assert summary(client, name) == before[name]


def summary(client: SyncPrefectClient, name: str) -> dict[str, Any]:
    deployment = client.read_deployment_by_name(name)
    intervals = [s.schedule.interval.total_seconds() for s in deployment.schedules]  # type: ignore[union-attr]
    limit = deployment.global_concurrency_limit
    return {
        "entrypoint": deployment.entrypoint,
        "pull_steps": deployment.pull_steps,
        "pool": deployment.work_pool_name,
        "queue": deployment.work_queue_name,
        "schema": deployment.parameter_openapi_schema,
        "strict": deployment.enforce_parameter_schema,
        "intervals": intervals,
        "limit": limit.limit if limit else None,
        "options": deployment.concurrency_options,
        "tags": deployment.tags,
        "description": deployment.description,
    }


def deploy_all(server: Server, home: Path) -> None:
    import os
    import subprocess
    import sys

    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all",
         "--prefect-file", str(root / "prefect.yaml")],
        cwd=root,
        env={**os.environ, "PREFECT_API_URL": server.api_url, "DO_NOT_TRACK": "1",
             "PREFECT_API_AUTH_STRING": server.auth, "PREFECT_HOME": str(home),
             "PYTHONPATH": str(root)},
        check=True,
        capture_output=True,
        timeout=120,
    )  # fmt: skip
