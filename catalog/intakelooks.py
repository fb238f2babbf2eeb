"""How the looks of the rules go: when each looked last, what it found, what is in its way."""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import durations
from catalog.bulk import insert_ignore
from catalog.clock import now
from catalog.intakerules import active
from catalog.models import IntakeLook

MOST_S = 300.0
"""A rule that looked well no later than this ago is taken for followed."""


@dataclass(frozen=True)
class LookInfo:
    """The last good look of a rule, and why there was none since."""

    rule_id: int
    looked_at: datetime | None
    files: int
    refused: int
    error: str | None
    error_at: datetime | None
    moment: datetime
    """The catalog's time now."""


def good(session: Session, rule_id: int, *, files: int, refused: int) -> None:
    """A look of a rule went well: it found so many files, and so many things that aren't taken."""
    _set(
        session, rule_id,
        looked_at=now(), files=files, refused=refused, error=None, error_at=None,
    )  # fmt: skip


def failed(session: Session, rule_id: int, why: str) -> None:
    """A look of a rule failed; when the first one did stays."""
    begun = sa.case((col(IntakeLook.error).is_(None), now()), else_=col(IntakeLook.error_at))
    _set(session, rule_id, error=why, error_at=begun)


def _set(session: Session, rule_id: int, **values: object) -> None:
    insert_ignore(session, IntakeLook, [{"rule_id": rule_id, "files": 0, "refused": 0}])
    session.execute(
        sa.update(IntakeLook).where(col(IntakeLook.rule_id) == rule_id).values(**values),
        execution_options={"synchronize_session": False},
    )


def all_looks(session: Session) -> dict[int, LookInfo]:
    """By the rules' ids."""
    rows = session.execute(
        sa.select(
            col(IntakeLook.rule_id),
            col(IntakeLook.looked_at),
            col(IntakeLook.files),
            col(IntakeLook.refused),
            col(IntakeLook.error),
            col(IntakeLook.error_at),
            now().label("moment"),
        )
    )
    return {row.rule_id: LookInfo(**row._mapping) for row in rows}


def troubles(session: Session, most_s: float = MOST_S) -> dict[str, str]:
    """Of rules that get nowhere, by name: why, in a sentence.

    Those that can't be followed, whose last look failed, or that had none for `most_s`.
    """
    looks = all_looks(session)
    found = {}
    for rule in active(session):
        look = looks.get(rule.id)
        if (fault := rule.fault) is not None:
            found[rule.name] = f"it can't be followed: {fault}"
        elif look is None or look.moment is None:
            continue
        elif look.error is not None:
            since = f" since {look.error_at:%Y-%m-%d %H:%M:%SZ}" if look.error_at else ""
            found[rule.name] = f"its looks fail{since}: {look.error}"
        elif look.looked_at is not None:
            ago_s = (look.moment - look.looked_at).total_seconds()
            if ago_s > most_s:
                found[rule.name] = f"it had no look for {durations.words(ago_s)}"
    return found
