"""`spdf template`: CWL workflows and the datasets that they are for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalog.counts import count_of
from catalog.errors import NotFound
from catalog.refs import Retention
from catalog.states import TemplateState
from cli import trials
from cli.home import open_catalog, server_answers, server_client
from cli.output import (
    Json,
    note,
    plain,
    print_fields,
    print_json,
    print_table,
    say,
    show_list,
)
from cli.parameters import MOST_RANK

if TYPE_CHECKING:
    from catalog.db import Catalog
    from catalog.templates import TemplateInfo
    from flows.plan import Plan

app = typer.Typer(name="template", help="CWL workflows to be applied.", no_args_is_help=True)

File = Annotated[
    Path, typer.Argument(metavar="FILE", help="A CWL v1.2 Workflow.", show_default=False)
]
Ref = Annotated[
    str, typer.Argument(metavar="TEMPLATE", help="NAME, or NAME@VERSION.", show_default=False)
]

Replace = Annotated[
    bool,
    typer.Option("--replace", help="Though it is for no dataset that the one before is for."),
]
_SHOWN = 5


@app.command()
def create(
    file: File,
    mask: Annotated[
        str | None, typer.Option(help="Names of datasets it is for; else that of its hint.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Its name; else the file's.")] = None,
    auto: Annotated[
        bool,
        typer.Option(
            "--auto/--manual", help="Process what it matches by itself, or when it is submitted."
        ),
    ] = False,
    precedence: Annotated[
        int,
        typer.Option(
            min=-MOST_RANK,
            max=MOST_RANK,
            help="Where several automatic ones match, the highest wins.",
        ),
    ] = 0,
    intermediate: Annotated[
        Retention, typer.Option(help="How long the files between its stages are kept.")
    ] = Retention.KEEP,
    active: Annotated[bool, typer.Option("--activate", help="Make it ACTUAL at once.")] = False,
    replace: Replace = False,
    as_json: Json = False,
) -> None:
    """Check a CWL workflow and add it as a DRAFT; the same again changes nothing."""
    from flows import templates

    catalog = open_catalog(create=True)
    info, warnings = templates.create(
        catalog, file, name=name, mask=mask, auto=auto, precedence=precedence,
        intermediate=intermediate, in_place=active and not replace,
    )  # fmt: skip
    for warning in warnings:
        note(warning)
    shown = None
    if active:
        info, shown = activate_one(catalog, info, replace=replace)
    _tell(info, as_json, shown)


@app.command()
def validate(
    file: File,
    mask: Annotated[str | None, typer.Option(help="Check this mask too.")] = None,
    as_json: Json = False,
) -> None:
    """Check a CWL workflow and show what it would do; nothing is stored."""
    from flows.compile import check_mask, compile_template

    compiled = compile_template(file)
    wanted = mask or compiled.plan.mask
    if wanted is not None:
        check_mask(file.stem, 1, compiled.plan, wanted)
    if as_json:
        found = {"valid": True, "mask": wanted, "digest": compiled.digest}
        print_json({**found, "warnings": compiled.warnings, **_plan_json(compiled.plan)})
        return
    for warning in compiled.warnings:
        note(warning)
    _show_plan(compiled.plan)
    say(f"{file} is a valid template" + (f" for {wanted}" if wanted else "; it needs a --mask"))


@app.command("list")
def list_all(
    name: Annotated[str | None, typer.Option(help="Only versions of this one.")] = None,
    state: Annotated[TemplateState | None, typer.Option(help="Only those in this state.")] = None,
    as_json: Json = False,
) -> None:
    """List templates by name, the newest version first."""
    from catalog import templates

    with open_catalog().read() as session:
        found = templates.list_templates(session, name=name, state=state)
    show_list(
        found,
        as_json,
        lambda t: {
            "template": t.ref,
            "state": t.state,
            "mask": t.mask,
            "derived": t.derived,
            "auto": t.auto,
            "created": t.created_at,
        },
        empty="no templates; `spdf template create` adds one.",
    )


@app.command()
def show(
    template: Ref,
    document: Annotated[
        bool, typer.Option("--document", help="Print its packed CWL document instead.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show one template: its inputs and stages."""
    from catalog import events, templates
    from flows.plan import plan_from_json

    with open_catalog().read() as session:
        info = templates.get(session, template)
        history = events.history(session, "template", info.id)
    if document:
        print_json(info.document)
        return
    plan = plan_from_json(info.plan)
    if as_json:
        kept = {key: value for key, value in plain(info).items() if key not in ("document", "plan")}
        print_json({**kept, **_plan_json(plan), "history": history})
        return
    print_fields(
        {
            "template": info.ref,
            "state": info.state,
            "mask": info.mask,
            "for derived": info.derived,
            "automatic": info.auto,
            "precedence": info.precedence,
            "intermediate files": info.intermediate,
            "digest": info.digest,
            "created": info.created_at,
            "about": plan.doc or plan.label,
        }
    )
    _show_plan(plan)


def _show_plan(plan: "Plan") -> None:
    beside = [item.pattern + ("" if item.required else "?") for item in plan.companions]
    about = f"the dataset, with {', '.join(beside)}" if beside else "the dataset"
    dataset = {"input": plan.dataset_input, "type": "File[]", "default": None, "about": about}
    rows = [
        {"input": i.name, "type": _type(i.type), "default": _default(i.default), "about": i.doc}
        for i in plan.fixed
    ]
    print_table([dataset, *rows])
    print_table(
        [
            {
                "stage": s.name,
                "kind": s.kind.value,
                "from": ", ".join(s.upstreams) or plan.dataset_input,
                "outputs": ", ".join(port.name for port in s.step.outputs),
                "device": s.device,
                "image": s.image,
                "cores": s.resources.cores,
                "memory MiB": s.resources.ram_mib,
                "retry": s.retry,
                "files per job": s.files_per_job,
            }
            for s in plan.stages
        ]
    )


def _type(kind: Any) -> str:
    from flows.compile.cwltypes import describe

    return describe(kind)


def _default(value: Any) -> Any:
    if isinstance(value, dict) and value.get("class") == "File":
        return value.get("basename") or value.get("path") or value.get("location")
    return value


def _plan_json(plan: "Plan") -> dict[str, Any]:
    from flows.plan import plan_to_json

    found = plan_to_json(plan)
    return {key: found[key] for key in ("dataset_input", "companions", "fixed", "stages", "rank")}


@app.command()
def activate(template: Ref, replace: Replace = False, as_json: Json = False) -> None:
    """Make a version the ACTUAL one (NAME alone: the newest) and show it in the web page.

    The one before is ARCHIVED.
    """
    catalog = open_catalog()
    info, shown = activate_one(catalog, _newest(catalog, template), replace=replace)
    _tell(info, as_json, shown)


def _newest(catalog: "Catalog", ref: str) -> "TemplateInfo":
    from catalog import templates

    with catalog.read() as session:
        if "@" in ref:
            return templates.get(session, ref)
        found = templates.list_templates(session, name=ref, limit=1)
    if not found:
        raise NotFound("template", ref)
    return found[0]


def activate_one(
    catalog: "Catalog", info: "TemplateInfo", *, replace: bool = False
) -> "tuple[TemplateInfo, bool]":
    """Make a version ACTUAL; gives it, and whether the web page shows it already."""
    from catalog import following
    from flows import templates

    info, before = templates.activate(catalog, info.id, replace=replace)
    if before is not None:
        note(
            f"{info.ref} takes the place of {before.ref} (for {before.mask}), which is ARCHIVED now"
        )
        with catalog.read() as session:
            left = following.unfollowed(session, before)
        if left:
            note(
                f"nothing follows {count_of(len(left), 'dataset')} by itself that {before.ref} was "
                f"for: {', '.join(left[:_SHOWN])}{' and more' if len(left) > _SHOWN else ''}"
            )
    _warn_of_pools(catalog, info)
    return info, _publish(catalog, info)


def _warn_of_pools(catalog: "Catalog", info: "TemplateInfo") -> None:
    """Say which stages will wait for a node that isn't there."""
    from catalog import poolnodes, templates
    from flows.plan import plan_from_json

    with catalog.read() as session:
        plan = plan_from_json(templates.get_by_id(session, info.id).plan)
        for line in poolnodes.of_pools(session, {stage.pool for stage in plan.stages}):
            note(line)


def _publish(catalog: "Catalog", info: "TemplateInfo") -> bool:
    if not server_answers():
        return False
    with server_client() as client:
        from catalog import templates
        from flows.compile import parameter_schema
        from flows.deployments import publish_template
        from flows.plan import plan_from_json

        with catalog.read() as session:
            plan = plan_from_json(templates.get_by_id(session, info.id).plan)
        schema = parameter_schema(plan, info.name)
        publish_template(client, info.name, info.version, schema, description=plan.doc)
    return True


@app.command()
def archive(template: Ref, as_json: Json = False) -> None:
    """Take a version out of use and out of the web page.

    NAME alone is the ACTUAL one, else the newest.
    """
    from catalog import templates

    catalog = open_catalog()
    with catalog.write() as session:
        before = templates.get(session, template)
        info = templates.archive(session, before.id)
    shown = None
    if before.state is TemplateState.ACTUAL and server_answers():
        with server_client() as client:
            from flows.deployments import withdraw_template

            withdraw_template(client, info.name)
        shown = False
    _tell(info, as_json, shown)


def _tell(info: "TemplateInfo", as_json: bool, shown: bool | None) -> None:
    if as_json:
        kept = plain(info)
        kept.pop("document", None)
        kept.pop("plan", None)
        print_json({**kept, "ref": info.ref, "shown": shown})
        return
    say(f"template {info.ref} is {info.state} for {info.mask}")
    if info.state is TemplateState.ACTUAL and shown is False:
        note("the server is not up: the web page shows it after the next `spdf up`.")
    if info.state is TemplateState.DRAFT:
        note(f"`spdf template activate {info.ref}` makes it usable.")


@app.command()
def graph(
    template: Annotated[
        str,
        typer.Argument(metavar="TEMPLATE", help="A CWL file, NAME or NAME@N.", show_default=False),
    ],
    as_json: Json = False,
) -> None:
    """Print the stages as a Mermaid flowchart."""
    from flows.compile import compile_template
    from flows.compile import graph as drawn
    from flows.plan import plan_from_json

    if Path(template).is_file():
        plan = compile_template(Path(template)).plan
    else:
        from catalog import templates

        with open_catalog().read() as session:
            plan = plan_from_json(templates.get(session, template).plan)
    if as_json:
        print_json({"template": template, "mermaid": drawn(plan)})
    else:
        typer.echo(drawn(plan), nl=False)


app.command("try")(trials.try_template)
