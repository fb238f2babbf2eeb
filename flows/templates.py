"""Templates from a file to the catalog: compiled, packed, and with their files stored."""

from pathlib import Path
from typing import Any

from catalog import templates
from catalog.db import Catalog
from catalog.errors import BadInput, BadName
from catalog.names import check_name
from catalog.refs import Retention
from catalog.templates import TemplateInfo
from flows.compile import check_mask, compile_template
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
) -> tuple[TemplateInfo, tuple[str, ...]]:
    """Compile a CWL file and add it as a DRAFT; gives it and what its author should know.

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


def activate(catalog: Catalog, template_id: int) -> TemplateInfo:
    """Make a version the ACTUAL one of its name.

    Raises `Conflict` where its stages can't run on the nodes, `StateConflict`, `NotFound`.
    """
    with catalog.read() as session:
        check_engines(session, plan_from_json(templates.get_by_id(session, template_id).plan))
    with catalog.write() as session:
        return templates.activate(session, template_id)
