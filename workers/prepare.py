"""A task made ready on a node, once for all of its jobs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from catalog.errors import ErrorCode
from workers.cwl import Tool, ToolFailure, load_tool
from workers.cwl.expressions import Expression, compile_expression
from workers.cwl.failures import bad_input, no_engine
from workers.cwl.files import read_contents
from workers.cwl.images import Image
from workers.cwl.values import settled
from workers.node import Node
from workers.spec import StepInput, TaskSpec
from workers.stagein import StageIn, resolve


@dataclass(frozen=True)
class PreparedInput:
    """A step's input with its default as a local value and its expression compiled."""

    spec: StepInput
    default: Any
    value_from: Expression | None

    def value(self, values: Mapping[str, Any]) -> Any:
        """Its value among what a job was given, before any expression. Raises `ToolFailure`."""
        value = gathered(self.spec, values) if self.spec.gather else values.get(self.spec.port)
        if self.spec.format is not None:
            value = with_format(value, self.spec.format)
        value = self.default if value is None else value
        return read_contents(value) if self.spec.load_contents else value


@dataclass(frozen=True)
class PreparedTask:
    """A compiled tool, and the values that all jobs of the task share, as local paths."""

    spec: TaskSpec
    tool: Tool
    inputs: tuple[PreparedInput, ...]
    when: Expression | None
    fixed: Mapping[str, Any]
    stage: StageIn

    def step_inputs(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What the tool is called with, from what a job was given.

        Defaults fill nulls, then every valueFrom sees the inputs as they were before any of them:
        CWL v1.2 Workflow, WorkflowStepInput. Raises `ToolFailure`.
        """
        values = {**self.fixed, **given}
        for item in self.inputs:
            values[item.spec.port] = item.value(values)
        for item in self.inputs:
            for part in item.spec.gather:
                del values[part]
        made = {
            item.spec.port: item.value_from.evaluate(values, values[item.spec.port])
            for item in self.inputs
            if item.value_from is not None
        }
        return values | made


def prepare(node: Node, spec: TaskSpec) -> PreparedTask:
    """Compile a task's tool and bring its fixed files to the node.

    Raises `StorageError` where a file can't be had, `BadTemplate` where the tool can't be run,
    `ToolFailure` where this node never can (NODE_TOO_SMALL, CONTAINER_ENGINE_MISSING) or has no
    image for it (CONTAINER_IMAGE_MISSING, CONTAINER_FAILED).
    """
    if not node.slots.can_ever(spec.resources):
        raise ToolFailure(
            ErrorCode.NODE_TOO_SMALL,
            f"stage {spec.stage!r} needs {spec.resources.devices} GPU for each job, and the node "
            f"{node.name} has fewer; run it where there are as many, or lower cudaDeviceCountMin",
        )
    stage = StageIn(node, node.directory / "fixed")
    document = resolve(spec.step.tool, stage, spec.refs)
    js, library = _javascript(document)
    tool = load_tool(document)
    if tool.container is not None:
        _get_image(node, tool.container)

    def compiled(text: str | None, place: str) -> Expression | None:
        return None if text is None else compile_expression(text, js, library, place=place)

    types = {one.name: one.type for one in tool.inputs}

    def prepared(item: StepInput) -> PreparedInput:
        default = resolve(item.default, stage, spec.refs)
        kind = types.get(item.port)
        if kind is not None and kind.fits(default):
            default = settled(kind, default)
        value_from = compiled(item.value_from, f"valueFrom of the step's input {item.port!r}")
        return PreparedInput(item, default, value_from)

    return PreparedTask(
        spec=spec,
        tool=tool,
        inputs=tuple(prepared(item) for item in spec.step.inputs),
        when=compiled(spec.step.when, "when"),
        fixed=resolve(spec.fixed, stage, spec.refs),
        stage=stage,
    )


def with_format(value: Any, form: str) -> Any:
    """`value` with the format `form` in its Files that have none of their own."""
    if isinstance(value, list | tuple):
        return [with_format(one, form) for one in value]
    if isinstance(value, Mapping) and value.get("class") == "File":
        return {"format": form, **value}
    return value


def gathered(item: StepInput, values: Mapping[str, Any]) -> Any:
    """What an input of several sources is: CWL v1.2 Workflow, linkMerge and pickValue.

    Raises `ToolFailure` where the sources have no value to pick, or more than the only one.
    """
    found: list[Any] = []
    for part in item.gather:
        value = values.get(part)
        found += value if item.flattened and isinstance(value, list) else [value]
    if item.pick is None:
        return found
    there = [value for value in found if value is not None]
    if item.pick == "all_non_null":
        return there
    if not there or (item.pick == "the_only_non_null" and len(there) > 1):
        raise bad_input(
            f"{len(there)} of the {len(found)} sources of the step's input {item.port!r} have a "
            f"value, and it says `pickValue: {item.pick}`"
        )
    return there[0]


def _get_image(node: Node, image: Image) -> None:
    if node.containers is None:
        raise no_engine(f"the node {node.name} has no engine")
    node.ledger.uses(node.containers.engine)
    node.containers.ensure(image)


def _javascript(document: Mapping[str, Any]) -> tuple[bool, tuple[str, ...]]:
    """Whether the tool's expressions may be JavaScript, and its `expressionLib`."""
    for requirement in (*document.get("requirements", ()), *document.get("hints", ())):
        if requirement.get("class") == "InlineJavascriptRequirement":
            return True, tuple(requirement.get("expressionLib") or ())
    return False, ()
