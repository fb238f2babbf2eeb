"""Stamps in rows: with what a copy was read is written down, and it is believed from then on."""

from collections.abc import Collection, Mapping

import sqlalchemy as sa
from sqlmodel import Session

from catalog.bulk import table_of
from catalog.models import Replica
from catalog.refs import ReplicaRef
from catalog.rowsets import rowset, update_rows
from catalog.states import ReplicaState

_replica = table_of(Replica)


def stamp(session: Session, times_us: Mapping[int, int]) -> None:
    """These replicas, by id, were read whole with files of these times."""
    rows = [{"id": i, "mtime_us": time_us} for i, time_us in sorted(times_us.items())]
    update_rows(session, Replica, rows, lambda _cells: {})


def stamp_read(session: Session, copies: Collection[ReplicaRef]) -> None:
    """As `stamp`, of copies that jobs have read; what isn't AVAILABLE any more stays as it is."""
    found = {(copy.storage_id, copy.path): copy for copy in copies}
    if not found:
        return
    kinds = {name: _replica.c[name].type for name in ("storage_id", "path", "mtime_us")}
    rows = [
        {"storage_id": c.storage_id, "path": c.path, "mtime_us": c.mtime_us} for c in found.values()
    ]
    cells = rowset(session, kinds, rows)
    # In one order: the next group of another pilot may have read the same files.
    them = session.execute(
        sa.select(_replica.c.id, cells.c.mtime_us)
        .join(
            cells,
            sa.and_(_replica.c.storage_id == cells.c.storage_id, _replica.c.path == cells.c.path),
        )
        .where(_replica.c.state == ReplicaState.AVAILABLE)
        .order_by(_replica.c.id)
        .with_for_update(of=_replica)
    )
    stamp(session, {row.id: row.mtime_us for row in them})
