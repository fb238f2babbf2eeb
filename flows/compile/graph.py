"""The stages of a plan as a Mermaid flowchart."""

from flows.plan import Plan, Stage, StageKind

_INPUT = "dataset"


def graph(plan: Plan) -> str:
    """Mermaid text: the dataset, the stages with what they are, and the ports between them."""
    lines = ["flowchart TD", f'    {_INPUT}[("{_escaped(plan.dataset_input)}")]']
    number = {stage.name: f"s{index}" for index, stage in enumerate(plan.stages)}
    for item in plan.fixed:
        lines.append(f'    {_fixed_id(plan, item.name)}[/"{_escaped(item.name)}"/]')
    for stage in plan.stages:
        lines.append(f'    {number[stage.name]}["{_label(stage)}"]')
        for port in stage.is_output:
            lines.append(f"    {number[stage.name]} ==> o_{number[stage.name]}_{_id(port)}")
            lines.append(f'    o_{number[stage.name]}_{_id(port)}(["{_escaped(port)}"])')
    for stage in plan.stages:
        for link in stage.links:
            for source in link.sources:
                start = _INPUT if source.stage is None else number[source.stage]
                note = f"{source.port} → {link.port}"
                lines.append(f'    {start} -->|"{_escaped(note)}"| {number[stage.name]}')
        for fixed in stage.fixed:
            lines.append(
                f'    {_fixed_id(plan, fixed.input)} -.->|"{_escaped(fixed.port)}"| '
                f"{number[stage.name]}"
            )
    return "\n".join(lines) + "\n"


def _label(stage: Stage) -> str:
    kind = str(stage.kind.value)
    if stage.kind is StageKind.MERGE:
        kind = f"merge of {stage.files_per_job}" if stage.files_per_job else "merge of all"
    marks = [kind, stage.device]
    if stage.step.when is not None:
        marks.append("when")
    return f"{_escaped(stage.name)}<br/>{', '.join(marks)}"


def _fixed_id(plan: Plan, name: str) -> str:
    return f"f{[item.name for item in plan.fixed].index(name)}"


def _id(port: str) -> str:
    return "".join(c if c.isalnum() else f"_{ord(c)}_" for c in port)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
