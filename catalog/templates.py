"""Templates: packed workflows with their plans, versions, and the datasets that they are for."""

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog.bulk import insert_new
from catalog.clock import now
from catalog.errors import BadInput, BadName, NotFound, StateConflict
from catalog.models import Dataset, Template, Workflow
from catalog.names import MAX_NAME, check_name
from catalog.refs import Retention
from catalog.states import DatasetState, TemplateState
from catalog.transitions import move, move_one, record

REPLACED = "replaced by "
"""How the event of an ARCHIVED one begins that another version took the place of."""
_MASK = re.compile(r"[A-Za-z0-9._+@=*?\[\]!-]+\Z")


@dataclass(frozen=True)
class TemplateInfo:
    """A version of a template as its row stood, without its document and plan."""

    id: int
    name: str
    version: int
    state: TemplateState
    mask: str
    derived: bool
    digest: str
    auto: bool
    precedence: int
    intermediate: Retention
    created_at: datetime
    activated_at: datetime | None

    @property
    def ref(self) -> str:
        """`name@version`, by which `get` finds it."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True)
class TemplateDetail(TemplateInfo):
    """A version with its packed CWL document and its compiled plan, both as JSON."""

    document: dict[str, Any]
    plan: dict[str, Any]


_INFO = (
    col(Template.id),
    col(Template.name),
    col(Template.version),
    col(Template.state),
    col(Template.mask),
    col(Template.derived),
    col(Template.digest),
    col(Template.auto),
    col(Template.precedence),
    col(Template.intermediate),
    col(Template.created_at),
    col(Template.activated_at),
)
_DETAIL = (*_INFO, col(Template.document), col(Template.plan))


def check_mask(mask: str) -> str:
    """`mask`, if it is a glob over dataset names (`*`, `?`, `[…]`); else `BadInput`."""
    fault = None
    if not _MASK.match(mask):
        fault = "it is empty or holds a character that no dataset name has"
    elif len(mask) > MAX_NAME:
        fault = f"it is longer than {MAX_NAME} characters"
    elif ".." in mask:
        fault = "it holds `..`"
    elif re.search(r"[\[\]]", re.sub(r"\[!?[^\[\]!]+\]", "", mask)):
        fault = "a `[` has no matching `]`"
    if fault:
        raise BadInput(f"mask {mask!r} can't be used: {fault}; write a glob such as `run-*`.")
    return mask


def create(
    session: Session,
    name: str,
    mask: str,
    document: Mapping[str, Any],
    plan: Mapping[str, Any],
    digest: str,
    derived: bool = False,
    *,
    auto: bool = False,
    precedence: int = 0,
    intermediate: Retention = Retention.KEEP,
) -> TemplateInfo:
    """Add the next version of a template, as a DRAFT.

    With `auto` the datasets that it matches are processed without being asked for. The newest
    version is given back unchanged where all is the same and it is not ARCHIVED.
    Raises `BadName`, and `BadInput` for an invalid mask.
    """
    if "@" in check_name("template", name):
        raise BadName(f"template name {name!r} can't be used: `@` separates the version; drop it.")
    row = {
        "name": name,
        "state": TemplateState.DRAFT,
        "mask": check_mask(mask),
        "derived": derived,
        "document": dict(document),
        "plan": dict(plan),
        "digest": digest,
        "auto": auto,
        "precedence": precedence,
        "intermediate": intermediate,
    }
    said = ("digest", "mask", "derived", "auto", "precedence", "intermediate")
    while True:
        newest = _newest(session, name)
        same = newest and all(getattr(newest, field) == row[field] for field in said)
        if newest and same and newest.state is not TemplateState.ARCHIVED:
            return newest
        version = newest.version + 1 if newest else 1
        # Nothing is inserted where another took the version meanwhile: then look again.
        for new in insert_new(session, Template, [row | {"version": version}], col(Template.id)):
            record(session, Template, [(new.id, None)], TemplateState.DRAFT)
            return _info(session, new.id)


def activate(session: Session, template_id: int) -> TemplateInfo:
    """Make a version the one that datasets are matched to; the one before is archived.

    An ACTUAL one stays as it is. Raises `StateConflict` for an ARCHIVED one, `NotFound`.
    """
    info = _info(session, template_id)
    # All versions are locked in the order of ids, so that two activations queue up.
    rows = session.execute(
        sa.select(col(Template.id), col(Template.state))
        .where(col(Template.name) == info.name)
        .order_by(col(Template.id))
        .with_for_update()
    ).all()
    if any(row.id == template_id and row.state is TemplateState.ACTUAL for row in rows):
        return _info(session, template_id)
    why = "add it again with `spdf template create`" if info.state is TemplateState.ARCHIVED else ""
    move_one(
        session, Template, template_id, TemplateState.ACTUAL,
        name=info.ref, why=why, activated_at=now(),
    )  # fmt: skip
    if info.auto:
        _look_again(session)
    before = [r.id for r in rows if r.state is TemplateState.ACTUAL]
    move(session, Template, before, TemplateState.ARCHIVED, message=f"{REPLACED}{info.ref}")
    return _info(session, template_id)


def actual(session: Session, name: str) -> TemplateInfo | None:
    """The ACTUAL version of a template, if there is one."""
    found = list_templates(session, name=name, state=TemplateState.ACTUAL, limit=1)
    return found[0] if found else None


def _look_again(session: Session) -> None:
    """Have OPEN datasets that nothing processes matched anew: a template may be for them now."""
    taken = sa.exists().where(col(Workflow.dataset_id) == col(Dataset.id))
    session.execute(
        sa.update(Dataset)
        .where(
            col(Dataset.state) == DatasetState.OPEN, col(Dataset.matched_at).is_not(None), ~taken
        )
        .values(matched_at=None),
        execution_options={"synchronize_session": False},
    )


def archive(session: Session, template_id: int) -> TemplateInfo:
    """Take a version out of use; an ARCHIVED one stays as it is. Raises `NotFound`."""
    info = _info(session, template_id)
    if not move(session, Template, [template_id], TemplateState.ARCHIVED):
        state = _info(session, template_id).state
        if state is not TemplateState.ARCHIVED:
            raise StateConflict("template", info.ref, state, TemplateState.ARCHIVED)
    return _info(session, template_id)


def get_by_id(session: Session, template_id: int) -> TemplateDetail:
    """The version with that id; raises `NotFound`."""
    row = session.execute(sa.select(*_DETAIL).where(col(Template.id) == template_id)).one_or_none()
    if row is None:
        raise NotFound("template", template_id)
    return TemplateDetail(**row._mapping)


def get(session: Session, ref: str) -> TemplateDetail:
    """The version that `ref` means: `name@N`, or of `name` the ACTUAL, else the newest one.

    Raises `NotFound`.
    """
    name, at, number = ref.partition("@")
    query = sa.select(*_DETAIL).where(col(Template.name) == name)
    if at:
        known = number.isascii() and number.isdigit() and len(number) < 10
        query = query.where(col(Template.version) == (int(number) if known else 0))
    else:
        actual_first = sa.case((col(Template.state) == TemplateState.ACTUAL, 0), else_=1)
        query = query.order_by(actual_first, col(Template.version).desc()).limit(1)
    row = session.execute(query).one_or_none()
    if row is None:
        raise NotFound("template", ref)
    return TemplateDetail(**row._mapping)


def _info(session: Session, template_id: int) -> TemplateInfo:
    row = session.execute(sa.select(*_INFO).where(col(Template.id) == template_id)).one_or_none()
    if row is None:
        raise NotFound("template", template_id)
    return TemplateInfo(**row._mapping)


def _newest(session: Session, name: str) -> TemplateInfo | None:
    row = session.execute(
        sa.select(*_INFO)
        .where(col(Template.name) == name)
        .order_by(col(Template.version).desc())
        .limit(1)
    ).one_or_none()
    return TemplateInfo(**row._mapping) if row else None


def list_templates(
    session: Session,
    *,
    name: str | None = None,
    state: TemplateState | None = None,
    limit: int = 1000,
) -> list[TemplateInfo]:
    """Template versions, by name and the newest first."""
    query = sa.select(*_INFO).order_by(col(Template.name), col(Template.version).desc())
    if name is not None:
        query = query.where(col(Template.name) == name)
    if state is not None:
        query = query.where(col(Template.state) == state)
    return [TemplateInfo(**row._mapping) for row in session.execute(query.limit(limit))]


def matching(session: Session, dataset_name: str, derived: bool) -> list[TemplateInfo]:
    """The ACTUAL templates whose mask fits a dataset, by name.

    A dataset that a workflow made (`derived`) fits only masks that were declared for such.
    """
    query = sa.select(*_INFO).where(col(Template.state) == TemplateState.ACTUAL)
    if derived:
        query = query.where(col(Template.derived))
    rows = session.execute(query.order_by(col(Template.name)))
    found = [TemplateInfo(**row._mapping) for row in rows]
    return [info for info in found if fnmatch.fnmatchcase(dataset_name, info.mask)]
