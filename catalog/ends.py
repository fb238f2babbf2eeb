"""Whether a source of a dataset has ended, for statements."""

from typing import Any

import sqlalchemy as sa
from sqlmodel import col

from catalog.models import IntakeRule, Source


def unended(*columns: Any) -> sa.Select[Any]:
    """These columns of sources that have not ended; a rule's quiet is judged now.

    So it is until its dataset is closed: more may come. A rule that is followed no longer, or has
    seen no file, isn't quiet.
    """
    is_quiet = sa.and_(
        col(IntakeRule.active),
        col(IntakeRule.quiet_s).is_not(None),
        col(Source.files) > 0,
        col(Source.quiet_for_s) >= col(IntakeRule.quiet_s),
    )
    return (
        sa.select(*columns)
        .select_from(Source)
        .join(IntakeRule, col(IntakeRule.id) == col(Source.rule_id), isouter=True)
        .where(col(Source.ended_by).is_(None), sa.not_(sa.func.coalesce(is_quiet, sa.false())))
    )
