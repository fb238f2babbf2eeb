"""A packed document to a plan: the workflow's own inputs, hints and outputs."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from catalog.errors import BadInput
from flows.compile import cwltypes, formats, hints
from flows.compile.located import Mapping, plain, refuse
from flows.compile.mask import check_syntax
from flows.compile.requirements import EMPTY
from flows.compile.stages import Builder
from flows.compile.wires import Wire
from flows.plan import Companion, FixedInput, Plan, Source, Stage


def build(root: Mapping) -> tuple[Plan, tuple[str, ...]]:
    """The plan of a packed workflow, and what its author should know of.

    Raises BadTemplate for all that can't run here.
    """
    if root.get("class") != "Workflow":
        refuse("the document is no CWL Workflow.", root)
    builder = Builder()
    scope = EMPTY.inside(root, builder.warnings)
    hint_node = scope.hints.get(hints.TEMPLATE)
    hint = hints.template_hint(hint_node)
    if hint.mask is not None:
        try:
            check_syntax(hint.mask)
        except BadInput as fault:
            refuse(str(fault), hint_node, "mask")
    if hints.MERGE in scope.hints:
        refuse(f"{hints.MERGE} belongs on the step that merges.", scope.hints[hints.MERGE])
    dataset = _dataset(root, hint.dataset, hint_node)
    if dataset.get("default") is not None:
        builder.warnings.append(
            f"{root.source}:{dataset.at('default')}: the dataset {dataset['id']!r} has a default, "
            "which is never used here."
        )
    names = {port["id"]: _wire(port, port is dataset) for port in root["inputs"]}
    fixed = [_fixed(port) for port in root["inputs"] if port is not dataset]
    given = builder.workflow(root, names, scope.without((hints.TEMPLATE,)), "", None)
    stages = _with_outputs(builder.stages, given.values())
    _check_names(stages, root)
    if not any(link.sources[0].stage is None for stage in stages for link in stage.links):
        refuse(f"no step takes the dataset {dataset['id']!r}.", dataset)
    if not given:
        builder.warnings.append(f"{root.source}: the workflow has no outputs.")
    plan = Plan(
        dataset_input=dataset["id"],
        stages=stages,
        fixed=tuple(fixed),
        rank=hint.rank,
        mask=hint.mask,
        derived=hint.derived,
        label=_text(root.get("label")),
        doc=_text(root.get("doc")),
        companions=_companions(dataset),
    )
    return plan, tuple(dict.fromkeys(builder.warnings))


def _text(value: Any) -> str | None:
    if isinstance(value, list):
        return "\n".join(str(line) for line in value)
    return value if value is None else str(value)


def _dataset(root: Mapping, named: str | None, hint: Mapping | None) -> Mapping:
    """The input that is the dataset."""
    lists = [port for port in root["inputs"] if cwltypes.is_file_array(port["type"])]
    if named is not None:
        for port in lists:
            if port["id"] == named:
                return _checked_dataset(port)
        refuse(
            f"`dataset` names {named!r}, which is no input of type File[]; there are "
            f"{', '.join(port['id'] for port in lists) or 'none'}.",
            hint,
            "dataset",
        )
    if not lists:
        folders = [port for port in root["inputs"] if cwltypes.is_directory_array(port["type"])]
        if folders:
            refuse(
                f"input {folders[0]['id']!r} is of type Directory[], and a dataset is made of "
                "files; pack each folder into one file (`tar -cf`), declare `File[]`, and let the "
                "tool unpack it.",
                folders[0],
                "type",
            )
        refuse(
            "the workflow has no input of type File[], so no dataset can be given to it; declare "
            "one and scatter over it.",
            root,
            "inputs",
        )
    if len(lists) > 1:
        refuse(
            f"the workflow has several inputs of type File[] ({', '.join(p['id'] for p in lists)})"
            f"; say which is the dataset with the hint `{hints.TEMPLATE}: {{dataset: NAME}}`.",
            lists[1],
        )
    return _checked_dataset(lists[0])


def _checked_dataset(port: Mapping) -> Mapping:
    name = port["id"]
    for item in _companions(port):
        if "$" in item.pattern or "/" in item.pattern or not item.suffix:
            refuse(
                f"the dataset {name!r} has `secondaryFiles` by the pattern {item.pattern!r}; write "
                "an ending such as `.idx` or `^.idx`, since the files are found by their names.",
                port,
                "secondaryFiles",
            )
    return port


def _companions(port: Mapping) -> tuple[Companion, ...]:
    return tuple(
        Companion(item["pattern"], item.get("required") is not False)
        for item in port.get("secondaryFiles") or ()
    )


def _wire(port: Mapping, dataset: bool) -> Wire:
    form, vague = formats.of_input(port)
    if dataset:
        return Wire(
            type="File",
            sources=(Source(None, port["id"]),),
            array=True,
            format=form,
            vague=vague,
            load_contents=bool(port.get("loadContents")),
            secondary=tuple(item.pattern for item in _companions(port)),
            maybe=tuple(item.pattern for item in _companions(port) if not item.required),
        )
    kind = port["type"]
    if port.get("default") is not None and cwltypes.is_optional(kind):
        kind = cwltypes.required(kind)
    return Wire(
        type=kind,
        fixed=port["id"],
        load_contents=bool(port.get("loadContents")),
        format=form,
        vague=vague,
    )


def _fixed(port: Mapping) -> FixedInput:
    name, kind = port["id"], port["type"]
    if "Directory" in set(cwltypes.parts(kind)):
        refuse(
            f"input {name!r} is a Directory, and only files are stored; pack it (`tar -cf`), "
            "declare a File, and let the tool unpack it.",
            port,
            "type",
        )
    if port.get("secondaryFiles"):
        refuse(
            f"input {name!r} asks for secondary files; declare each as an input of its own.",
            port,
            "secondaryFiles",
        )
    if cwltypes.holds_files(kind) and not (cwltypes.is_file(kind) or cwltypes.is_file_array(kind)):
        refuse(
            f"input {name!r} is of type {cwltypes.describe(kind)}; declare its files as inputs "
            "of their own (File or File[]).",
            port,
            "type",
        )
    default = plain(port.get("default"))
    return FixedInput(
        name=name,
        type=plain(kind),
        required=default is None and not cwltypes.is_optional(kind),
        default=default,
        doc=_text(port.get("doc")) or _text(port.get("label")),
    )


def _with_outputs(stages: list[Stage], given: Any) -> tuple[Stage, ...]:
    named = {source for wire in given for source in wire.sources}
    return tuple(
        replace(
            stage,
            is_output=tuple(
                port.name for port in stage.step.outputs if Source(stage.name, port.name) in named
            ),
        )
        for stage in stages
    )


def _check_names(stages: tuple[Stage, ...], root: Mapping) -> None:
    """No two datasets of one workflow may have the same name."""
    seen: set[str] = set()
    for name in dataset_tails(stages):
        if name in seen:
            refuse(f"two outputs would make a dataset `…{name}`; rename a step or port.", root)
        seen.add(name)


def dataset_tails(stages: tuple[Stage, ...]) -> Iterator[str]:
    """`<step>.<port>` of each dataset that a workflow makes, logs included."""
    for stage in stages:
        for port in stage.step.outputs:
            if port.kind != "value":
                yield f"{stage.name}.{port.name}"
        yield f"{stage.name}.log"
