"""From a packed workflow to the stages of a plan."""

from collections.abc import Iterator
from dataclasses import replace

from catalog.errors import BadName
from catalog.names import check_name
from flows.compile import checks, cwltypes, fits, formats, hints, links, tool
from flows.compile.clashes import check_work_dir
from flows.compile.connect import connect, gathered_output, several
from flows.compile.located import Mapping, plain, refuse
from flows.compile.ports import bind
from flows.compile.requirements import Scope, resources
from flows.compile.wires import Port, Wire
from flows.plan import FixedLink, Source, Stage, StageKind
from workers.cwl.normal import has_expression
from workers.spec import StepInput, StepSpec


class Builder:
    """Collects the stages of one template while its workflows are walked through."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []
        self.warnings: list[str] = []

    def workflow(
        self, node: Mapping, names: dict[str, Wire], scope: Scope, prefix: str, inside: str | None
    ) -> dict[str, Wire]:
        """Compile a workflow whose inputs are `names`; its outputs.

        `prefix` comes before the names of its stages; `inside` is the descent over which an
        enclosing step scatters, None outside of any.
        """
        known = dict(names)
        for step in ordered(node, known):
            passed = self._step(step, known, scope, prefix, inside)
            known.update({f"{step['id']}/{port}": wire for port, wire in passed.items()})
        given: dict[str, Wire] = {}
        for output in node["outputs"]:
            what = f"output {output['id']!r}"
            if not prefix and several(output, "outputSource"):
                given[output["id"]] = gathered_output(output, known, what)
                continue
            wire = connect(output, "outputSource", known, what)
            if wire is None:
                refuse(f"{what} has no `outputSource`; name a step's output.", output)
            if wire.parts:
                refuse(
                    f"{what} combines several values of one job into a list, which is not "
                    "stored; name each as an output of its own, or write `pickValue: "
                    "first_non_null` where branches meet again.",
                    output,
                    "outputSource",
                )
            fits.check_output(output, wire, what, self.warnings)
            given[output["id"]] = formats.passed(wire, output)
        return given

    def _step(
        self, step: Mapping, names: dict[str, Wire], scope: Scope, prefix: str, inside: str | None
    ) -> dict[str, Wire]:
        name = f"{prefix}{_checked_name(step, prefix)}"
        inner = scope.inside(step, self.warnings)
        run = step["run"]
        ports = bind(step, names, inner)
        checks.scatter(step, ports, inner)
        if run["class"] == "Workflow":
            return self._subworkflow(step, name, ports, inner, inside)
        if run["class"] not in ("CommandLineTool", "ExpressionTool"):
            refuse(
                f"step {name!r} runs the class {run['class']}; a step runs a CommandLineTool, an "
                "ExpressionTool or a Workflow.",
                step,
                "run",
            )
        return self._stage(step, name, ports, inner, inside)

    def _subworkflow(
        self, step: Mapping, name: str, ports: list[Port], scope: Scope, inside: str | None
    ) -> dict[str, Wire]:
        run = step["run"]
        checks.subworkflow(step, ports, scope, self.warnings)
        scattered = [port.wire for port in ports if port.scattered and port.wire is not None]
        links.check_scatter(step, scattered, inside)
        descent = scattered[0].descent if scattered else inside
        names = {
            port["id"]: _entering(port, ports, step, bool(scattered)) for port in run["inputs"]
        }
        # The inner workflow may be a template of its own; here it is a part of this one.
        inner = scope.inside(run, self.warnings).without((hints.TEMPLATE,))
        given = self.workflow(run, names, inner, f"{name}.", descent)
        passed: dict[str, Wire] = {}
        for port in step["out"]:
            if port not in given:
                refuse(
                    f"step {name!r} passes on {port!r}, which its workflow does not give; it "
                    f"gives {', '.join(given) or 'nothing'}.",
                    step,
                    "out",
                )
            wire = given[port]
            if scattered and not wire.per_key:
                refuse(
                    f"output {port!r} of step {name!r} is one of its inputs, the same for each of "
                    "its jobs; connect what takes it to that input itself.",
                    step,
                    "out",
                )
            passed[port] = replace(wire, array=True) if scattered else wire
        return passed

    def _stage(
        self, step: Mapping, name: str, ports: list[Port], step_scope: Scope, inside: str | None
    ) -> dict[str, Wire]:
        run = step["run"]
        scope = step_scope.inside(run, self.warnings)
        given = tool.outputs(run, step)
        checks.inputs(step, name, ports)
        kind, descent = links.shape(step, name, ports, inside)
        expressions = _expressions(step, ports, step_scope)
        document = tool.document(name, run, scope, step_scope, expressions)
        formats.check_reads(step, ports, document, self.warnings)
        found = links.links(step, name, ports, kind, self.warnings)
        hint = hints.stage_hint(scope.hints.get(hints.STAGE))
        devices = hints.cuda_devices(scope.get(hints.CUDA))
        device = hint.device or ("GPU" if devices else "CPU")
        if hints.TEMPLATE in scope.hints:
            refuse(f"{hints.TEMPLATE} belongs on the workflow.", scope.hints[hints.TEMPLATE])
        self.stages.append(
            Stage(
                name=name,
                kind=kind,
                step=StepSpec(
                    tool=document,
                    inputs=tuple(item for port in ports for item in _step_inputs(port)),
                    outputs=tuple(output.port for output in given.values()),
                    when=step.get("when"),
                ),
                links=found,
                fixed=tuple(
                    FixedLink(feed.name, feed.wire.fixed)
                    for port in ports
                    for feed in port.feeds()
                    if feed.wire is not None and feed.wire.fixed is not None
                ),
                resources=resources(
                    scope, (devices or 1) if device == "GPU" else 0, hint.jobs_per_device
                ),
                descent=descent,
                device=device,
                retry=hint.retry,
                rank=hint.rank,
                goal=hint.goal,
                max_pilots=hint.max_pilots,
                barrier=hint.barrier,
                files_per_job=_files_per_job(scope, name, kind),
            )
        )
        made, before = self.stages[-1], self.stages[:-1]
        check_work_dir(made, ports, scope.get("InitialWorkDirRequirement"), before)
        return _leaving(made, step, ports, given)


def _step_inputs(port: Port) -> list[StepInput]:
    """How a node makes the value of a port, after those of the sources that it gathers."""
    own = StepInput(port.name, port.default, port.value_from, port.load_contents)
    if port.wire is None or port.wire.gathering is None:
        return [own if port.wire is None else replace(own, format=port.wire.format)]
    how, feeds = port.wire.gathering, port.feeds()
    parts = [
        StepInput(
            feed.name,
            plain(feed.wire.default) if feed.wire is not None else None,
            load_contents=feed.load_contents,
            format=feed.wire.format if feed.wire is not None else None,
        )
        for feed in feeds
    ]
    names = tuple(feed.name for feed in feeds)
    return [*parts, replace(own, gather=names, flattened=how.flattened, pick=how.pick)]


def _leaving(
    stage: Stage, step: Mapping, ports: list[Port], given: dict[str, tool.Output]
) -> dict[str, Wire]:
    """What a stage gives to those after it, by port."""
    gone = frozenset().union(*(p.wire.gone for p in ports if p.wire is not None))
    array = any(port.scattered for port in ports)
    entries = {entry["id"]: entry for entry in step["run"]["outputs"]}
    known = {port: formats.of_output(entries[port], step["run"], ports) for port in given}
    return {
        port: Wire(
            type=output.type,
            sources=(Source(stage.name, port),),
            descent=stage.descent,
            array=array,
            nulls=_nulls(stage.name, port, output, step),
            gone=gone if stage.kind is StageKind.MAP else frozenset(),
            secondary=output.secondary,
            format=known[port][0],
            vague=known[port][1],
        )
        for port, output in given.items()
    }


def _files_per_job(scope: Scope, name: str, kind: StageKind) -> int | None:
    """What `spdf:Merge` says; raises BadTemplate where nothing is merged."""
    merge = scope.hints.get(hints.MERGE)
    if merge is not None and kind is not StageKind.MERGE:
        refuse(
            f"step {name!r} takes its files one by one, so {hints.MERGE} has no meaning; "
            "remove the hint, or take the whole list without `scatter`.",
            merge,
        )
    return hints.merge_hint(merge)


def ordered(node: Mapping, names: dict[str, Wire]) -> Iterator[Mapping]:
    """The steps of a workflow, each after those that it takes from.

    Raises BadTemplate: no steps, two of one name, a source that doesn't exist, a circle.
    """
    steps = {}
    for step in node.get("steps") or ():
        if step["id"] in steps:
            refuse(f"there are two steps {step['id']!r}; rename one.", step)
        steps[step["id"]] = step
    if not steps:
        refuse("the workflow has no steps; add one.", node, "steps")
    left = dict(steps)
    while left:
        ready = [
            name
            for name, step in left.items()
            if not any(before in left for before in _befores(step))
        ]
        if not ready:
            first = next(iter(left.values()))
            refuse(f"steps {', '.join(left)} wait for each other in a circle; cut it.", first)
        # One at a time, so that a step stands as early as the document has it.
        yield left.pop(ready[0])


def _befores(step: Mapping) -> Iterator[str]:
    for entry in step.get("in") or ():
        for source in cwltypes.union(entry.get("source") or []):
            if "/" in str(source):
                yield str(source).partition("/")[0]


def _checked_name(step: Mapping, prefix: str) -> str:
    name = str(step["id"])
    try:
        check_name("step", name)
    except BadName as fault:
        refuse(str(fault), step)
    if not prefix and name[0] == "r" and name[1:].isdigit():
        refuse(
            f"step name {name!r} stands for the repetition of a workflow in datasets' names; "
            "rename it.",
            step,
        )
    return name


def _expressions(step: Mapping, ports: list[Port], scope: Scope) -> bool:
    found = [
        tool.check_expression(port.value_from, scope, port.node, "valueFrom") for port in ports
    ]
    if "when" in step:
        if step["when"] is not None and not has_expression(step["when"]):
            refuse("`when` is no expression; write `$(...)`.", step, "when")
        found.append(tool.check_expression(step["when"], scope, step, "when"))
    return any(found)


def _nulls(name: str, port: str, output: tool.Output, step: Mapping) -> frozenset[str]:
    found = {f"when {name}"} if step.get("when") is not None else set()
    if output.port.optional:
        found.add(f"null {name}/{port}")
    return frozenset(found)


def _entering(port: Mapping, ports: list[Port], step: Mapping, scattering: bool) -> Wire:
    """What an input of a subworkflow stands for inside of it."""
    bound = next((each for each in ports if each.name == port["id"]), None)
    default = port.get("default")
    if bound is not None and bound.default is not None:
        default = bound.default
    wire = bound.wire if bound is not None else None
    if wire is None:
        if default is None and not cwltypes.is_optional(port["type"]):
            refuse(
                f"step {step['id']!r} gives nothing to the input {port['id']!r} of its workflow; "
                "add it to `in`.",
                step,
                "in",
            )
        return Wire(port["type"], default=default)
    assert bound is not None
    fits.check_type(bound, port, step)
    loads = wire.load_contents or bound.load_contents or bool(port.get("loadContents"))
    held = replace(wire, load_contents=loads)
    if wire.default is None and not wire.array and not wire.parts:
        held = replace(held, default=default)
    if not wire.per_key and wire.fixed is None and wire.default is None and not wire.parts:
        return Wire(port["type"], default=default)
    return replace(held, array=False) if scattering and bound.scattered else held
