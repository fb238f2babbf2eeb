"""What a pilot needs to know of its task, read from the catalog once."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlmodel import Session

from catalog import jobfiles, tasks, templates, workflows
from flows.plan import Plan, Stage, StageKind, plan_from_json
from workers.cwl.parameters import ParameterCompiler
from workers.cwl.values import settled
from workers.spec import OutputTarget, StepSpec, TaskSpec
from workers.stagein import file_ids


def load_task(session: Session, task_id: int) -> TaskSpec:
    """The task's tool, fixed inputs and output places; raises `NotFound`."""
    task = tasks.get(session, task_id)
    workflow = workflows.get(session, task.workflow_id)
    plan = plan_from_json(templates.get_by_id(session, workflow.template_id).plan)
    stage = plan.stage(task.stage)
    fixed = fixed_values(plan, stage, workflow.inputs)
    step = asdict(stage.step)
    named = file_ids(fixed) | file_ids(step["tool"])
    named |= set().union(*(file_ids(item["default"]) for item in step["inputs"]))
    outputs = tasks.outputs(session, [task_id])[task_id]
    return TaskSpec(
        task_id=task_id,
        stage=stage.name,
        workflow_id=workflow.id,
        step=stage.step,
        resources=stage.resources,
        retry=stage.retry,
        tool_digest=step_digest(stage.step),
        fixed=fixed,
        refs=jobfiles.file_refs(session, sorted(named)),
        targets={
            port: OutputTarget(out.dataset_id, out.name, out.storage_id)
            for port, out in outputs.items()
        },
        lists=frozenset(
            link.port
            for link in stage.links
            if stage.kind is StageKind.MERGE or link.kind == "File[]"
        ),
    )


def fixed_values(plan: Plan, stage: Stage, given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a stage's fixed ports: what the workflow was given, else the template's default.

    A field that a record leaves out is null, as its declared type says.
    """
    declared = {item.name: item for item in plan.fixed}
    found = {}
    for link in stage.fixed:
        item, value = declared[link.input], given.get(link.input)
        value = item.default if value is None else value
        kind = ParameterCompiler(stage.name, js=True).type(item.type, item.name)
        found[link.port] = settled(kind, value) if kind.fits(value) else value
    return found


def step_digest(step: StepSpec) -> str:
    """A digest of everything that a step does with its inputs."""
    said = asdict(step)
    for item in said["inputs"]:
        if not item["gather"]:
            # As before there were inputs of several sources: the same step has the same digest.
            for key in ("gather", "flattened", "pick"):
                del item[key]
    text = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
