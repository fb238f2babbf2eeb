"""Deployments: those of prefect.yaml, and one for each ACTUAL template.

`python -m flows.deployments` lays down pools and deployments on the server of the environment.
"""

import sys
import time
from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema as flow_schema
from ruamel.yaml import YAML

from catalog.db import Catalog, get_catalog
from catalog.errors import Unavailable
from catalog.models import Template
from catalog.outage import isolated, sentence
from catalog.settings import Settings, get_settings
from catalog.states import TemplateState
from catalog.troubles import Of, Troubles
from flows.away import is_server_away
from flows.compile import parameter_schema
from flows.containers import DOCKER, pool_values
from flows.plan import plan_from_json
from flows.pools import ensure_pools
from flows.queues import CONTROL, DEFAULT_QUEUE
from flows.server import call_api, project_file, read_server
from workers.devices import has_gpu

WORKFLOW_ENTRYPOINT = "flows.workflow.run_workflow"
TEMPLATE_TAG = "template"
WATCHDOG = "watchdog"
_START_S = 120.0


@dataclass(frozen=True)
class Deployment:
    """One entry of prefect.yaml. `interval_s` is its schedule, `limit` how many runs at once."""

    name: str
    entrypoint: str
    pool: str
    queue: str | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    interval_s: float | None = None
    limit: int | None = None
    collision: str | None = None


def read_deployments(path: Path | None = None) -> tuple[Deployment, ...]:
    """The deployments of a prefect.yaml; ours where no path is given."""
    document = YAML(typ="safe").load(path or project_file("prefect.yaml"))
    return tuple(_deployment(entry) for entry in document["deployments"])


def _deployment(entry: Mapping[str, Any]) -> Deployment:
    pool = entry["work_pool"]
    schedules = entry.get("schedules") or []
    limit = entry.get("concurrency_limit") or {}
    return Deployment(
        name=entry["name"],
        entrypoint=entry["entrypoint"],
        pool=pool["name"],
        queue=pool.get("work_queue_name"),
        description=entry.get("description"),
        tags=tuple(entry.get("tags") or ()),
        parameters=entry.get("parameters") or {},
        interval_s=schedules[0]["interval"] if schedules else None,
        limit=limit.get("limit"),
        collision=limit.get("collision_strategy"),
    )


def ensure_deployments(
    client: SyncPrefectClient,
    *,
    pools: Collection[str],
    watchdog_s: float,
    path: Path | None = None,
) -> tuple[str, ...]:
    """Deploy what prefect.yaml says for these pools; gives the names, `flow/deployment`.

    `watchdog_s` takes the place of the interval that is written there for the watchdog.
    """
    return tuple(
        _ensure_deployment(client, deployment, watchdog_s)
        for deployment in read_deployments(path)
        if deployment.pool in pools
    )


def _ensure_deployment(client: SyncPrefectClient, deployment: Deployment, watchdog_s: float) -> str:
    flow: Flow[..., Any] = load_flow_from_entrypoint(
        deployment.entrypoint, use_placeholder_flow=False
    )
    interval_s = deployment.interval_s
    if interval_s is not None and deployment.name == WATCHDOG:
        interval_s = watchdog_s
    options = None
    if deployment.collision:
        strategy = ConcurrencyLimitStrategy(deployment.collision)
        options = ConcurrencyOptions(collision_strategy=strategy)
    client.create_deployment(
        flow_id=client.create_flow_from_name(flow.name),
        name=deployment.name,
        entrypoint=deployment.entrypoint,
        work_pool_name=deployment.pool,
        work_queue_name=deployment.queue,
        description=deployment.description,
        tags=list(deployment.tags),
        parameters=dict(deployment.parameters),
        parameter_openapi_schema=flow_schema(flow).model_dump(exclude_unset=True),
        enforce_parameter_schema=True,
        schedules=_schedules(interval_s),
        concurrency_limit=deployment.limit,
        concurrency_options=options,
        pull_steps=[],
    )
    return f"{flow.name}/{deployment.name}"


def _schedules(interval_s: float | None) -> list[DeploymentScheduleCreate]:
    if interval_s is None:
        return []
    every = IntervalSchedule(interval=timedelta(seconds=interval_s))
    return [DeploymentScheduleCreate(schedule=every, active=True)]


def publish_template(
    client: SyncPrefectClient,
    name: str,
    version: int,
    schema: Mapping[str, Any],
    *,
    tags: Collection[str] = (),
    description: str | None = None,
) -> str:
    """Show a template as a flow and deployment of its own name; gives the deployment's id.

    `schema` is a JSON schema of the parameters of `run_workflow` that a user fills in: the web
    page makes its form from it, and the server refuses a run that doesn't fit it. A version
    published before is replaced.
    """
    reference = f"{name}@{version}"
    deployment_id = client.create_deployment(
        flow_id=client.create_flow_from_name(name),
        name=name,
        version=str(version),
        entrypoint=WORKFLOW_ENTRYPOINT,
        work_pool_name=CONTROL,
        work_queue_name=DEFAULT_QUEUE,
        description=description,
        tags=[TEMPLATE_TAG, *tags],
        parameters={"template": reference},
        parameter_openapi_schema=_with_template(schema, reference),
        enforce_parameter_schema=True,
        pull_steps=[],
    )
    return str(deployment_id)


def _with_template(schema: Mapping[str, Any], reference: str) -> dict[str, Any]:
    """The schema with what every template takes, and with nothing that it doesn't name."""
    whole = deepcopy(dict(schema))
    whole["type"] = "object"
    whole["additionalProperties"] = False
    properties = dict(whole.get("properties", {}))
    whole["properties"] = properties
    last = max((p.get("position", 0) for p in properties.values()), default=0)
    for position, (name, shape) in enumerate(_common(reference).items(), last + 1):
        properties[name] = {"title": name, **shape, "position": position}
    return whole


def _common(reference: str) -> dict[str, dict[str, Any]]:
    """Parameters of `run_workflow` that no template declares."""
    return {
        "again": {
            "type": "boolean",
            "default": False,
            "description": "Run once more what was run over this dataset before.",
        },
        "template": {
            "type": "string",
            "enum": [reference],
            "default": reference,
            "description": "Name and version of the template that this form is for.",
        },
        "workflow": {
            "type": "integer",
            "description": "Set by spdf where it takes up a workflow; leave it empty.",
        },
    }


def withdraw_template(client: SyncPrefectClient, name: str) -> bool:
    """Take an archived template's deployment away; its runs stay. Whether there was one."""
    try:
        found = client.read_deployment_by_name(f"{name}/{name}")
        client.delete_deployment(found.id)
    except ObjectNotFound:
        return False
    return True


def sync_templates(client: SyncPrefectClient, catalog: Catalog) -> tuple[str, ...]:
    """Publish every ACTUAL template of the catalog, withdraw what is shown and isn't; the names."""
    table: Any = Template
    chosen = (
        sa.select(table.id, table.name, table.version, table.plan)
        .where(table.state == TemplateState.ACTUAL)
        .order_by(table.name)
    )
    with catalog.read() as session:
        rows = session.execute(chosen).all()
    noted = Troubles(catalog, "deployments")
    for row in rows:
        tell = partial(_tell_unshown, noted, row.id, row.name)
        with isolated("template", row.name, tell, outage=is_server_away):
            plan = plan_from_json(row.plan)
            schema = parameter_schema(plan, row.name)
            publish_template(client, row.name, row.version, schema, description=plan.doc)
            noted.over(Of.TEMPLATE, row.id)
    actual = {row.name for row in rows}
    for name in _published(client) - actual:
        with isolated("template", name, outage=is_server_away):
            withdraw_template(client, name)
    return tuple(row.name for row in rows)


def _tell_unshown(noted: Troubles, template_id: int, name: str, error: Exception) -> None:
    told = f"it can't be shown as a deployment on the server ({sentence(error)})"
    noted.note(Of.TEMPLATE, template_id, name, told)


def _published(client: SyncPrefectClient) -> set[str]:
    """Names of the templates that the server shows."""
    body: dict[str, Any] = {
        "deployments": {"tags": {"all_": [TEMPLATE_TAG]}},
        "limit": 200,
        "offset": 0,
    }
    names: set[str] = set()
    while True:
        page = client.request("POST", "/deployments/filter", json=body).json()
        names.update(entry["name"] for entry in page if entry["entrypoint"] == WORKFLOW_ENTRYPOINT)
        if len(page) < 200:
            return names
        body["offset"] += len(page)


def lay_down(settings: Settings, *, gpu: bool) -> None:
    """Lay down pools, deployments and templates on the server of the environment."""
    with get_client(sync_client=True) as client:
        kind = settings.pilots_in
        values = pool_values(settings) if kind == DOCKER else None
        pools = ensure_pools(client, gpu=gpu, pilots_in=kind, values=values)
        ensure_deployments(client, pools=pools, watchdog_s=settings.watchdog_s)
        sync_templates(client, get_catalog())
        # The schedule begins one interval from now; what was left behind shouldn't wait for it.
        watchdog = client.read_deployment_by_name(f"{WATCHDOG}/{WATCHDOG}")
        client.create_flow_run_from_deployment(watchdog.id)


def _wait_for_server(settings: Settings) -> None:
    """Wait for the server that is started together with this process; raises `Unavailable`."""
    server, until = read_server(settings), time.monotonic() + _START_S
    while server is not None and not settings.api_url:
        try:
            call_api(server, "GET", "/admin/version", wait_s=2.0)
            return
        except Unavailable:
            if time.monotonic() > until:
                raise
        time.sleep(0.1)


def main() -> int:
    """Lay down what this machine serves, once its server answers."""
    settings = get_settings()
    _wait_for_server(settings)
    # A site has nodes of other kinds than this machine.
    lay_down(settings, gpu=has_gpu(settings) or settings.local_servers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
