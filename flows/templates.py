"""Templates from a file to the catalog: compiled, packed, and with their files stored."""

from pathlib import Path
from typing import Any

from catalog import templates
from catalog.db import Catalog
from catalog.errors import BadInput, BadName, Conflict
from catalog.names import check_name
from catalog.refs import Retention
from catalog.templates import TemplateInfo
from flows.compile import check_mask, compile_template
from flows.compile.mask import in_common
from flows.engines import check_engines
from flows.fixed import store_files
from flows.plan import plan_from_json, plan_to_json

RESERVED = frozenset(
    {"deletion", "housekeeping", "inspection", "pilot", "upload", "watchdog", "workflow"}
)
"""Flows of ours: a template is shown as a flow of its own name beside them."""


def create(
    catalog: Catalog,
    path: Path,
    *,
    name: str | None = None,
    mask: str | None = None,
    auto: bool = False,
    precedence: int = 0,
    intermediate: Retention = Retention.KEEP,
    in_place: bool = False,
) -> tuple[TemplateInfo, tuple[str, ...]]:
    """Compile a CWL file and add it as a DRAFT; gives it and what its author should know.

    `in_place` says that it is to take the place of the ACTUAL one, which is checked beforehand.

    The name is by default the file's; the mask that of its `spdf:Template` hint.
    Raises `BadTemplate` for what can't run, `BadInput` for a mask that can't be used.
    """
    compiled = compile_template(path)
    plan = compiled.plan
    name = name or _name_of(path)
    if name in RESERVED:
        raise BadInput(f"template name {name!r} is that of one of our flows; give another --name.")
    mask = mask or plan.mask
    if mask is None:
        raise BadInput(
            f"template {name!r} has no mask; give --mask, or `mask` in its spdf:Template hint."
        )
    check_mask(name, 1, plan, mask)
    if in_place:
        with catalog.read() as session:
            before = templates.actual(session, name)
        if before is not None:
            _check_place(before, mask)
    needed = sorted(item.name for item in plan.fixed if item.required)
    if auto and needed:
        raise BadInput(
            f"template {name!r} needs its input {needed[0]!r}, which nobody gives where workflows "
            "begin by themselves; give it a default in the document, or use --manual."
        )
    stored: dict[str, Any] = store_files(catalog, plan_to_json(plan))
    with catalog.write() as session:
        info = templates.create(
            session,
            name,
            mask,
            compiled.document,
            stored,
            compiled.digest,
            plan.derived,
            auto=auto,
            precedence=precedence,
            intermediate=intermediate,
        )
    return info, compiled.warnings


def _name_of(path: Path) -> str:
    try:
        return check_name("template", path.stem)
    except BadName as fault:
        raise BadInput(f"{fault} It is the file's; give another with --name.") from None


def activate(
    catalog: Catalog, template_id: int, *, replace: bool = False
) -> tuple[TemplateInfo, TemplateInfo | None]:
    """Make a version the ACTUAL one of its name; gives it, and the one whose place it takes.

    Raises `Conflict` where its stages can't run on the nodes, or where it is for no dataset that
    the one before is for, unless it is to `replace` that; `StateConflict`, `NotFound`.
    """
    with catalog.read() as session:
        check_engines(session, plan_from_json(templates.get_by_id(session, template_id).plan))
    with catalog.write() as session:
        name = templates.get_by_id(session, template_id).name
        before = templates.actual(session, name)
        info = templates.activate(session, template_id)
        if before is None or before.id == info.id:
            return info, None
        if not replace:
            _check_place(before, info.mask)
    return info, before


def _check_place(before: TemplateInfo, mask: str) -> None:
    """Raise `Conflict` where a mask fits nothing that the ACTUAL template of its name is for."""
    if in_common(before.mask, mask) is None:
        raise Conflict(
            f"template {before.ref} is for datasets like {before.mask}, and the new one, like "
            f"{mask}, for none of these: it would end the other one. Give it a name of its own "
            "with `spdf template create --name`, or say --replace."
        )
