"""Leave to remove: whether this catalog may remove anything by itself now, and if not, why.

Whatever goes without a person's word of that moment asks here first: lifetimes that are over, what
is consumed or uploaded, what a grace or a high-water mark lets go, dark bytes, and what an earlier
run has begun. A person's word is enough by itself, given since the catalog became what it is.
"""

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import restores
from catalog.models import Dataset, Request

ACCEPT = "`spdf catalog accept` shows what it would remove, and lets it"


def why_not(session: Session) -> str | None:
    """Why nothing may go by itself now, in a sentence; None where it may."""
    found = restores.unaccepted(session)
    if found is None:
        return None
    return (
        f"this catalog was {found.how} at {found.at:%Y-%m-%d %H:%M:%SZ}, knows nothing of what "
        f"was done since then, and removes nothing by itself; {ACCEPT}"
    )


def too_old(session: Session, key: str) -> str | None:
    """Why nothing goes by a request of before a restore: it may have been answered since.

    None where something may, or the request is a later one.
    """
    found = restores.unaccepted(session)
    if found is None:
        return None
    query = sa.select(col(Request.id)).where(
        col(Request.key) == key, col(Request.created_at) >= found.at
    )
    return None if session.execute(query).first() is not None else why_not(session)


def has_word(session: Session) -> sa.ColumnElement[bool]:
    """Whether bytes of a `Dataset` that is being deleted may go now, as an expression.

    Where nothing may go by itself that is one whose deletion was asked for since then.
    """
    found = restores.unaccepted(session)
    return sa.true() if found is None else col(Dataset.deleting_at) >= found.at
