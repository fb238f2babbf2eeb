"""Submitting: a template and a dataset become a workflow with its tasks and datasets, once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session

from catalog import datasets, definition, duties, files, fixedinputs, storages, templates
from catalog.db import Catalog
from catalog.definition import NewTask
from catalog.errors import BadInput, Conflict
from catalog.models import StorageRole
from catalog.templates import TemplateDetail
from flows.compile import parse_input
from flows.engines import check_engines
from flows.fixed import store_files
from flows.plan import Plan, Stage, plan_from_json

FILE_PREFIX = "file:"
"""`file:ID` in an input of type File names a file that the catalog knows."""


@dataclass(frozen=True)
class Submission:
    """What is asked for. Inputs are CWL values, or the texts that a user gave.

    `by_itself`: no person asks, but an automatic template takes the dataset.
    """

    template: str
    dataset: str
    inputs: Mapping[str, Any]
    rank: int | None = None
    again: bool = False
    by_itself: bool = False


def submit(
    catalog: Catalog, wanted: Submission, flow_run_id: str | None = None
) -> tuple[int, bool]:
    """Define the workflow, or find the one there is; gives (id, whether it is new).

    The same flow run gets the same workflow, however often it is started. Raises `NotFound`,
    `BadInput` for inputs that don't fit, `Conflict` where template or dataset can't be worked on,
    or a stage needs a container and its pool has no engine.
    """
    with catalog.read() as session:
        template = templates.get(session, wanted.template)
        dataset = datasets.by_name(session, wanted.dataset)
    _check_match(template, dataset.name, dataset.derived)
    plan = plan_from_json(template.plan)
    inputs = fixed_inputs(catalog, plan, wanted.inputs)
    rank = plan.rank if wanted.rank is None else wanted.rank
    with catalog.write() as session:
        workflow_id, new = definition.define(
            session,
            template.id,
            dataset.id,
            _new_tasks(session, plan, rank),
            inputs=inputs,
            rank=rank,
            again=wanted.again,
            flow_run_id=flow_run_id,
            files=_brought(template, inputs),
        )
        if new:
            check_engines(session, plan)
        if wanted.by_itself:
            duties.take(session, dataset.id, [template.name])
    return workflow_id, new


def _brought(template: TemplateDetail, inputs: Mapping[str, Any]) -> set[int]:
    """The files of a template that its jobs read: defaults, but for those of given inputs."""
    fixed = [item for item in template.plan.get("fixed", ()) if item["name"] not in inputs]
    return set(fixedinputs.file_ids({**template.plan, "fixed": fixed}))


def _check_match(template: TemplateDetail, dataset: str, derived: bool) -> None:
    if derived and not template.derived:
        raise Conflict(
            f"dataset {dataset!r} was made by a workflow and template {template.name!r} is not "
            "for such; `derived: true` in its spdf:Template hint allows it."
        )


def fixed_inputs(catalog: Catalog, plan: Plan, given: Mapping[str, Any]) -> dict[str, Any]:
    """The workflow's fixed inputs, checked, with their Files in the catalog."""
    known = {item.name: item for item in plan.fixed}
    for name in given:
        if name not in known:
            there = ", ".join(sorted(known)) or "none"
            raise BadInput(f"the template has no input {name!r}; it has: {there}.")
    values = {
        name: _value(catalog, plan, name, value)
        for name, value in given.items()
        if value is not None
    }
    for name, item in known.items():
        if item.required and name not in values:
            raise BadInput(f"input {name!r} is needed; give it with --input {name}=…")
    return values


def _value(catalog: Catalog, plan: Plan, name: str, value: Any) -> Any:
    kind = next(item.type for item in plan.fixed if item.name == name)
    if isinstance(value, str) and value.startswith(FILE_PREFIX) and "File" in _names(kind):
        with catalog.read() as session:
            found = files.find(session, value.removeprefix(FILE_PREFIX))
        return {"class": "File", "file_id": found.id, "basename": found.name.rpartition("/")[2]}
    return store_files(catalog, parse_input(plan, name, value))


def _names(kind: Any) -> list[Any]:
    return kind if isinstance(kind, list) else [kind]


def _new_tasks(session: Session, plan: Plan, rank: int) -> list[NewTask]:
    internal = storages.default_for(session, StorageRole.INTERNAL).id
    output = storages.default_for(session, StorageRole.OUTPUT).id
    return [
        NewTask(
            stage.name,
            stage.pool,
            rank + stage.rank,
            _places(stage, internal, output),
            _readers(plan, stage),
        )
        for stage in plan.stages
    ]


def _readers(plan: Plan, stage: Stage) -> dict[str, tuple[str, ...]]:
    """By port, of what only other stages read: those stages."""
    found: dict[str, tuple[str, ...]] = {}
    for port in stage.step.outputs:
        readers = tuple(
            other.name
            for other in plan.stages
            if any(
                (s.stage, s.port) == (stage.name, port.name)
                for link in other.links
                for s in link.sources
            )
        )
        if readers and port.kind != "value" and port.name not in stage.is_output:
            found[port.name] = readers
    return found


def _places(stage: Stage, internal: int, output: int) -> dict[str, int]:
    places = {
        port.name: output if port.name in stage.is_output else internal
        for port in stage.step.outputs
        if port.kind != "value"
    }
    return {**places, "log": internal}


def shown_inputs(value: Any) -> Any:
    """Fixed inputs as the web page's form takes them: catalog files as `file:ID`."""
    if isinstance(value, Mapping):
        if value.get("class") == "File" and "file_id" in value:
            return f"{FILE_PREFIX}{value['file_id']}"
        return {key: shown_inputs(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [shown_inputs(item) for item in value]
    return value
