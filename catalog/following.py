"""Datasets that an automatic template was for, and none is since another one took its place."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import datasets, matches
from catalog.counts import count_of
from catalog.datasets import DatasetInfo
from catalog.models import Event, Template, Workflow
from catalog.states import DatasetState, TemplateState
from catalog.templates import REPLACED, TemplateInfo, list_templates
from catalog.transitions import entity

MOST = 1000
"""Datasets of one template that are looked at."""
_SHOWN = 5


@dataclass(frozen=True)
class Replaced:
    """An automatic template that another version took the place of, and when."""

    template: TemplateInfo
    by: str
    at: datetime


def unfollowed(session: Session, before: TemplateInfo, since: datetime | None = None) -> list[str]:
    """Datasets, neither processed nor going, that only a replaced template is for.

    With `since` only those that are OPEN, or were closed later.
    """
    if not before.auto:
        return []
    known = matches.auto_templates(session)
    found = datasets.list_datasets(session, mask=before.mask, limit=MOST)
    left = [
        info
        for info in found
        if info.state in (DatasetState.OPEN, DatasetState.CLOSED)
        and (since is None or info.closed_at is None or info.closed_at >= since)
        and (before.derived or not info.derived)
        # None takes such by itself in any case, and `why` says so.
        and info.incomplete is None
        and matches.choose(known, info.name, info.derived) is None
    ]
    taken = _processed(session, [info.id for info in left])
    return [info.name for info in left if info.id not in taken]


def _processed(session: Session, dataset_ids: list[int]) -> set[int]:
    query = sa.select(col(Workflow.dataset_id)).where(col(Workflow.dataset_id).in_(dataset_ids))
    return set(session.scalars(query))


def of_dataset(session: Session, info: DatasetInfo) -> Replaced | None:
    """The template that was for a dataset last, where none is now and no workflow has it."""
    if info.incomplete is not None:
        return None
    if matches.choose(matches.auto_templates(session), info.name, info.derived) is not None:
        return None
    if _processed(session, [info.id]):
        return None
    fit = [
        item
        for item in replaced(session)
        if matches.choose([item.template], info.name, info.derived) is not None
        # What was closed before is for `workflow submit` in any case.
        and (info.closed_at is None or info.closed_at >= item.at)
    ]
    return max(fit, key=lambda item: item.at, default=None)


def left_alone(session: Session, info: DatasetInfo) -> TemplateInfo | None:
    """The template that is for an incomplete dataset, and takes it only by a person's word."""
    if _processed(session, [info.id]):
        return None
    return matches.choose(matches.auto_templates(session), info.name, info.derived)


def replaced(session: Session) -> Iterator[Replaced]:
    """Automatic templates that versions of the same name took the place of."""
    archived = {t.id: t for t in list_templates(session, state=TemplateState.ARCHIVED) if t.auto}
    rows = session.execute(
        sa.select(col(Event.entity_id), col(Event.message), col(Event.at))
        .where(
            col(Event.entity) == entity(Template),
            col(Event.entity_id).in_(list(archived)),
            col(Event.after) == TemplateState.ARCHIVED,
            col(Event.message).startswith(REPLACED),
        )
        .order_by(col(Event.id))
    )
    for row in rows:
        by = row.message.removeprefix(REPLACED)
        yield Replaced(archived[row.entity_id], by, row.at)


def lost(session: Session) -> Iterator[str]:
    """Of each template whose place another took: what nothing follows since, in a sentence."""
    for item in replaced(session):
        names = unfollowed(session, item.template, since=item.at)
        if names:
            more = " and more" if len(names) > _SHOWN else ""
            yield (
                f"nothing follows {count_of(len(names), 'dataset')} by itself since {item.by} took "
                f"the place of {item.template.ref}: {', '.join(names[:_SHOWN])}{more}; "
                f"{mend(item.template)}"
            )


def mend(template: TemplateInfo) -> str:
    """How a template that was replaced follows its datasets again."""
    return (
        f"`spdf template show {template.ref} --document` prints it, `spdf template create --name` "
        f"makes it anew, `spdf workflow submit {template.ref} DATASET` uses it as it is"
    )
