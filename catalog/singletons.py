"""Roles that only one process may have at a time, held by a lease in catalog time.

A lease whose process is known to be dead is over at once: see `catalog.flocks`.
"""

import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import flocks
from catalog.bulk import insert_ignore
from catalog.clock import now
from catalog.models import Singleton


def acquire(
    session: Session, name: str, owner: str, lease_s: float, *, holder: str | None = None
) -> int | None:
    """Take a role that nobody holds; gives its new epoch, None while another's lease runs.

    The epoch grows with every owner: what was done under an older one is void. `holder` is the mark
    by which others on this machine see that this process lives.
    """
    insert_ignore(session, Singleton, [{"name": name, "epoch": 0}])
    left = _left(session, name)
    return session.execute(
        sa.update(Singleton)
        .where(
            col(Singleton.name) == name,
            sa.or_(
                col(Singleton.owner).is_(None),
                col(Singleton.lease_until) < now(),
                col(Singleton.epoch) == left,
            ),
        )
        .values(
            owner=owner, epoch=col(Singleton.epoch) + 1, lease_until=now(lease_s), holder=holder
        )
        .returning(col(Singleton.epoch))
    ).scalar()


def _left(session: Session, name: str) -> int | None:
    """The epoch under which a role is held by a process that is known to be dead."""
    row = session.execute(
        sa.select(col(Singleton.epoch), col(Singleton.holder)).where(
            col(Singleton.name) == name, col(Singleton.lease_until) >= now()
        )
    ).one_or_none()
    return row.epoch if row is not None and flocks.is_dead(row.holder) else None


def renew(session: Session, name: str, owner: str, epoch: int, lease_s: float) -> bool:
    """Hold the role for longer; False where it was lost.

    A lease that ran out without another taking it may be renewed. The row stays locked until the
    transaction ends, so what else is written in it is fenced.
    """
    held = session.execute(
        sa.update(Singleton)
        .where(_mine(name, owner, epoch))
        .values(lease_until=now(lease_s))
        .returning(col(Singleton.epoch))
    )
    return held.scalar() is not None


def release(session: Session, name: str, owner: str, epoch: int) -> bool:
    """Give the role up; False where it was lost already."""
    released = session.execute(
        sa.update(Singleton)
        .where(_mine(name, owner, epoch))
        .values(owner=None, lease_until=None, holder=None)
        .returning(col(Singleton.epoch))
    )
    return released.scalar() is not None


def is_held(session: Session, name: str) -> bool:
    """Whether anybody has the role now."""
    return name in held(session, name)


def held(
    session: Session, name: str | None = None, *, names_holders: bool = True
) -> dict[str, str]:
    """Who has roles now, by role; of one or of all. A schema of before names no holders."""
    holder = col(Singleton.holder) if names_holders else sa.null().label("holder")
    query = sa.select(col(Singleton.name), col(Singleton.owner), holder).where(
        col(Singleton.owner).is_not(None), col(Singleton.lease_until) > now()
    )
    if name is not None:
        query = query.where(col(Singleton.name) == name)
    return {row.name: row.owner for row in session.execute(query) if not flocks.is_dead(row.holder)}


def is_known(session: Session, name: str) -> bool:
    """Whether anybody ever had the role, since it was forgotten last."""
    query = sa.select(sa.exists().where(col(Singleton.name) == name))
    return bool(session.execute(query).scalar())


def forget(session: Session, name: str) -> None:
    """Remove the row of a role that nobody will want again."""
    session.execute(sa.delete(Singleton).where(col(Singleton.name) == name))


def _mine(name: str, owner: str, epoch: int) -> sa.ColumnElement[bool]:
    return sa.and_(
        col(Singleton.name) == name, col(Singleton.owner) == owner, col(Singleton.epoch) == epoch
    )
