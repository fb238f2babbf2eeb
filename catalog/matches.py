"""Matching datasets to the templates whose workflows begin by themselves."""

import fnmatch
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog.bulk import chunks
from catalog.clock import now
from catalog.models import Dataset
from catalog.rowsets import among
from catalog.states import DatasetState, TemplateState
from catalog.templates import TemplateInfo, list_templates


@dataclass(frozen=True)
class Unmatched:
    """A dataset that was not looked at yet."""

    id: int
    name: str
    derived: bool
    incomplete: bool = False
    """No template takes it by itself."""


def auto_templates(session: Session) -> list[TemplateInfo]:
    """The ACTUAL templates whose workflows begin by themselves."""
    found = list_templates(session, state=TemplateState.ACTUAL)
    return [template for template in found if template.auto and template.activated_at is not None]


def unmatched(
    session: Session,
    templates: Sequence[TemplateInfo],
    *,
    besides: Collection[int] = (),
    limit: int,
) -> list[Unmatched]:
    """Datasets that one of these templates may be for: OPEN, or closed since it was activated.

    Those with the ids `besides` are left out.
    """
    if not templates:
        return []
    since = min(t.activated_at for t in templates if t.activated_at is not None)
    rows = session.execute(
        sa.select(
            col(Dataset.id),
            col(Dataset.name),
            col(Dataset.derived),
            col(Dataset.incomplete).is_not(None),
        )
        .where(
            col(Dataset.matched_at).is_(None),
            ~among(session, col(Dataset.id), besides),
            sa.or_(
                col(Dataset.state) == DatasetState.OPEN,
                sa.and_(col(Dataset.state) == DatasetState.CLOSED, col(Dataset.closed_at) >= since),
            ),
        )
        .order_by(col(Dataset.id))
        .limit(limit)
    )
    return [Unmatched(*row) for row in rows]


def choose(templates: Sequence[TemplateInfo], dataset: str, derived: bool) -> TemplateInfo | None:
    """The template for a dataset; None where none matches.

    The highest precedence wins, then the mask with the most characters that stand for themselves,
    then the name that comes first.
    """
    fit = [
        template
        for template in templates
        if fnmatch.fnmatchcase(dataset, template.mask) and (template.derived or not derived)
    ]
    return min(fit, key=_order, default=None)


def _order(template: TemplateInfo) -> tuple[int, int, str]:
    return -template.precedence, -said(template.mask), template.name


def said(mask: str) -> int:
    """How many characters of a mask stand for themselves."""
    return len(re.sub(r"\[[^\]]*\]|[*?]", "", mask))


def settle(session: Session, dataset_ids: Sequence[int]) -> None:
    """These datasets were looked at, and are not looked at again."""
    for batch in chunks(list(dataset_ids)):
        session.execute(
            sa.update(Dataset).where(col(Dataset.id).in_(batch)).values(matched_at=now()),
            execution_options={"synchronize_session": False},
        )
