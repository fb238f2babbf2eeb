"""Guarded state changes: the only way in which a coarse entity's state changes."""

from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, SQLModel

from catalog.bulk import table_of
from catalog.errors import Conflict, StateConflict
from catalog.models import Event
from catalog.rowsets import among, listed
from catalog.states import sources


def move(
    session: Session,
    model: type[SQLModel],
    ids: Collection[int],
    target: StrEnum,
    *,
    only_from: Collection[StrEnum] | None = None,
    message: str | None = None,
    **values: Any,
) -> list[int]:
    """Move those of `ids` that may to `target`, with an event each; gives the ids that moved.

    `values` are further columns to set. The states it may come from are those of the table of
    transitions, narrowed by `only_from`.
    """
    if not ids:
        return []
    table: Any = model
    allowed = [s for s in sources(target) if only_from is None or s in only_from]
    rows = session.execute(
        sa.select(table.id, table.state)
        .where(among(session, table.id, ids), table.state.in_(allowed))
        .order_by(table.id)
        .with_for_update()
    ).all()
    change(session, model, {row.id: row.state for row in rows}, target, message=message, **values)
    return [row.id for row in rows]


def change(
    session: Session,
    model: type[SQLModel],
    locked: Mapping[int, StrEnum],
    target: StrEnum,
    *,
    message: str | None = None,
    **values: Any,
) -> None:
    """As `move`, of rows that the caller has locked, given by id with the states they are in.

    Raises `Conflict` where one of them may not go there, or is elsewhere by now.
    """
    if not locked:
        return
    table, allowed = table_of(model), sources(target)
    done = session.connection().execute(
        sa.update(table)
        .where(among(session, table.c.id, locked), table.c.state.in_(allowed))
        .values(state=target, **values)
    )
    if done.rowcount != len(locked) or not set(locked.values()) <= set(allowed):
        raise Conflict(f"not all of {len(locked)} rows of {entity(model)} may become {target}.")
    record(session, model, locked.items(), target, message)


def move_one(
    session: Session,
    model: type[SQLModel],
    entity_id: int,
    target: StrEnum,
    *,
    name: object = None,
    why: str = "",
    message: str | None = None,
    **values: Any,
) -> None:
    """Move one entity to `target`; raises `StateConflict` where the table doesn't allow it."""
    if move(session, model, [entity_id], target, message=message, **values):
        return
    table: Any = model
    state = session.execute(sa.select(table.state).where(table.id == entity_id)).scalar()
    raise StateConflict(entity(model), name or entity_id, state or "unknown", target, why)


def record(
    session: Session,
    model: type[SQLModel],
    changes: Iterable[tuple[int, StrEnum | None]],
    target: StrEnum,
    message: str | None = None,
) -> None:
    """Append an event for each (id, state before)."""
    alike: dict[StrEnum | None, list[int]] = {}
    for entity_id, before in changes:
        alike.setdefault(before, []).append(entity_id)
    table = table_of(Event)
    common = {"entity": entity(model), "after": target, "message": message}
    for before, ids in alike.items():
        cells = {
            name: sa.literal(value, table.c[name].type)
            for name, value in (common | {"before": before}).items()
        }
        them = listed(session, table.c.entity_id.type, ids)
        chosen = sa.select(them.c.value, *cells.values())
        session.connection().execute(sa.insert(table).from_select(["entity_id", *cells], chosen))


def record_change(
    session: Session, model: type[SQLModel], entity_id: int, word: str, message: str | None = None
) -> None:
    """Append an event of something that is no change of a state."""
    row = {"entity": entity(model), "entity_id": entity_id, "after": word, "message": message}
    session.execute(sa.insert(Event), [row])


def entity(model: type[SQLModel]) -> str:
    """The word for a model in events and messages."""
    return str(model.__tablename__)
