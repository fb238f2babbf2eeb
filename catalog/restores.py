"""Restores: the times at which this catalog became what it had been earlier, as rows.

Each begins a new generation, the row's id: ids of rows start again, and the generation keeps what
is stored from then on apart from what was stored under the same ids before. Until a person has
accepted it (`spdf catalog accept`) nothing is removed without a word: see `leave`.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateTable
from sqlmodel import Session, col

from catalog.bulk import table_of
from catalog.clock import now
from catalog.models import CatalogInfo, Restore

RESTORED, ROLLED_BACK = "restored from a backup", "rolled back"
"""How it came to that."""


@dataclass(frozen=True)
class RestoreInfo:
    """A restore as its row stood; `aside` is where the catalog of before is kept, if it is."""

    id: int
    at: datetime
    how: str
    aside: str | None
    accepted_at: datetime | None


_INFO = (
    col(Restore.id),
    col(Restore.at),
    col(Restore.how),
    col(Restore.aside),
    col(Restore.accepted_at),
)


def latest(session: Session) -> RestoreInfo | None:
    """The newest; None of a catalog that was never anything else."""
    query = sa.select(*_INFO).order_by(col(Restore.id).desc()).limit(1)
    row = session.execute(query).one_or_none()
    return None if row is None else RestoreInfo(**row._mapping)


def generation(session: Session) -> int:
    """Of what is stored now; 0 of a catalog that was never restored."""
    return int(session.scalar(sa.select(sa.func.max(col(Restore.id)))) or 0)


def unaccepted(session: Session) -> RestoreInfo | None:
    """The newest that nobody has accepted; None where all are."""
    query = sa.select(*_INFO).where(col(Restore.accepted_at).is_(None))
    row = session.execute(query.order_by(col(Restore.id).desc()).limit(1)).one_or_none()
    return None if row is None else RestoreInfo(**row._mapping)


def accept(session: Session) -> int:
    """A person says that it is known what was lost; gives how many restores that ends."""
    done = session.connection().execute(
        sa.update(Restore).where(col(Restore.accepted_at).is_(None)).values(accepted_at=now())
    )
    return int(done.rowcount)


def note_rollback(session: Session) -> None:
    """The catalog was found to be an earlier one than it was: it is another instance from now on.

    Once: who finds it a second time before that is accepted changes nothing.
    """
    if unaccepted(session) is not None:
        return
    session.add(Restore(id=generation(session) + 1, how=ROLLED_BACK))
    session.execute(
        sa.update(CatalogInfo).values(instance=secrets.token_hex(16)),
        execution_options={"synchronize_session": False},
    )


def statements(kind: str, *, after: int, aside: str | None, claims: bool) -> list[str]:
    """What a restore adds to a catalog of any schema, in the SQL of `sqlite` or `postgresql`.

    `after` is the generation of what was there before, and `claims` whether its schema has an
    instance by which it claims storages.
    """
    dialects = {"sqlite": sqlite.dialect, "postgresql": postgresql.dialect}
    table = CreateTable(table_of(Restore), if_not_exists=True)
    moment = {"sqlite": "strftime('%Y-%m-%d %H:%M:%f', 'now')", "postgresql": "clock_timestamp()"}
    kept = "NULL" if aside is None else "'" + aside.replace("'", "''") + "'"
    floor = {"sqlite": "max", "postgresql": "greatest"}[kind]
    found = [
        f"{str(table.compile(dialect=dialects[kind]())).strip()};",
        f"INSERT INTO restore (id, at, how, aside) SELECT 1 + {floor}({after}, "
        f"coalesce(max(id), 0)), {moment[kind]}, '{RESTORED}', {kept} FROM restore;",
    ]
    if claims:
        found.append(f"UPDATE catalog_info SET instance = '{secrets.token_hex(16)}';")
    return found
