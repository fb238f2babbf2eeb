"""Finished attempts as rows of the Prefect server's own database, many in one statement.

An event takes a server fifteen times as long as these rows, and may get lost there. What is
written is what Prefect's own recorder writes for a `Completed` event; a test holds the two to each
other, and the rows are only written for the very version of Prefect that is installed here.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from prefect.client.schemas.objects import StateType
from prefect.server.database.orm_models import FlowRun, TaskRun, TaskRunState
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlmodel import Session

from catalog.attempts_shown import FinishedAttempt
from catalog.bulk import is_postgresql
from catalog.errors import Unavailable
from catalog.rowsets import rowset
from flows.recorder.api import Refused
from flows.recorder.events import printable
from flows.recorder.names import TASK_KEY, event_id, task_run_id

_flow_run: sa.Table = FlowRun.__table__  # type: ignore[assignment]
_task_run: sa.Table = TaskRun.__table__  # type: ignore[assignment]
_state: sa.Table = TaskRunState.__table__  # type: ignore[assignment]
_COMPLETED, _NAME = StateType.COMPLETED, "Completed"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PATIENCE_S = 10


class TaskRunRows:
    """The database of the server, at the `url` that the server itself is given."""

    def __init__(self, url: str) -> None:
        place = sa.make_url(url)
        if place.get_backend_name() == "sqlite":
            driver, patience = "sqlite", {"timeout": _PATIENCE_S}
        else:
            driver, patience = "postgresql+psycopg", {"connect_timeout": _PATIENCE_S}
        self._engine = sa.create_engine(
            place.set(drivername=driver), pool_size=1, pool_pre_ping=True, connect_args=patience
        )

    def close(self) -> None:
        """Give the connection back."""
        self._engine.dispose()

    def write(self, attempts: Sequence[FinishedAttempt]) -> set[str]:
        """Have the attempts shown as completed task runs; gives the flow runs that are gone.

        Attempts of those aren't written. Writing one again changes nothing. Raises `Unavailable`,
        and `Refused` where the database doesn't take what one of them says; then none is written.
        """
        try:
            with Session(self._engine) as session, session.begin():
                wanted = {attempt.flow_run_id for attempt in attempts}
                there = _existing(session, wanted)
                rows = [_Row(a) for a in attempts if a.flow_run_id in there]
                if rows:
                    _write_runs(session, rows)
                    _write_states(session, rows)
                return wanted - there
        except (DataError, IntegrityError) as error:
            raise Refused(f"the Prefect server's database: {error.orig}") from error
        except DBAPIError as error:
            raise Unavailable(f"the Prefect server's database: {error.orig}.") from error


class _Row:
    """What one attempt gives to both tables, as JSON has it."""

    def __init__(self, attempt: FinishedAttempt) -> None:
        run = task_run_id(attempt.flow_run_id, attempt.attempt_id)
        self.attempt = attempt
        self.run = str(run)
        self.state = str(event_id(run, attempt.state, 0))
        self.ended = max(attempt.ended_at, attempt.started_at)
        self.title = printable(f"{attempt.key}#{attempt.number}")


def _existing(session: Session, ids: Collection[str]) -> set[str]:
    """Those of the flow runs that the server has; they stay until the transaction ends."""
    rows = session.execute(
        sa.select(_flow_run.c.id)
        .where(_flow_run.c.id.in_([UUID(i) for i in ids]))
        .with_for_update(read=True, key_share=True)
    )
    return {str(row.id) for row in rows}


def _write_runs(session: Session, rows: Sequence[_Row]) -> None:
    moment, span = _formats(session)
    cells = [
        {
            "id": row.run,
            "name": row.title,
            "state_id": row.state,
            "state_timestamp": moment(row.ended),
            "expected_start_time": moment(row.attempt.started_at),
            "start_time": moment(row.attempt.started_at),
            "end_time": moment(row.ended),
            "total_run_time": span(row.ended - row.attempt.started_at),
            "flow_run_id": row.attempt.flow_run_id,
            "dynamic_key": str(row.attempt.attempt_id),
        }
        for row in rows
    ]
    common = {
        "state_type": _COMPLETED,
        "state_name": _NAME,
        "task_key": TASK_KEY,
        "run_count": 1,
        "flow_run_run_count": 1,
        "tags": [],
        "task_inputs": {},
    }
    insert = _insert(session, _task_run, cells, common)
    changing = ("state_id", "state_timestamp", "state_type", "state_name", "end_time",
                "total_run_time", "updated")  # fmt: skip
    session.connection().execute(
        insert.on_conflict_do_update(
            index_elements=["id"],
            set_={name: insert.excluded[name] for name in changing},
            where=_task_run.c.state_timestamp < insert.excluded.state_timestamp,
        )
    )


def _write_states(session: Session, rows: Sequence[_Row]) -> None:
    moment, _ = _formats(session)
    cells = [
        {
            "id": row.state,
            "task_run_id": row.run,
            "timestamp": moment(row.ended),
            "message": printable(row.attempt.message or ""),
            "state_details": {"flow_run_id": row.attempt.flow_run_id, "task_run_id": row.run},
        }
        for row in rows
    ]
    insert = _insert(session, _state, cells, {"type": _COMPLETED, "name": _NAME})
    session.connection().execute(insert.on_conflict_do_nothing())


def _insert(
    session: Session,
    table: sa.Table,
    cells: Sequence[Mapping[str, Any]],
    common: Mapping[str, Any],
) -> Any:
    """The statement that inserts rows with values of their own and `common` ones."""
    now = datetime.now(UTC)
    common = {**common, "created": now, "updated": now}
    own = list(cells[0])
    source = rowset(session, {name: table.c[name].type for name in own}, cells)
    chosen = [source.c[name] for name in own]
    chosen += [sa.literal(value, table.c[name].type).label(name) for name, value in common.items()]
    dialect = postgresql if is_postgresql(session) else sqlite
    # A WHERE, as SQLite otherwise takes the ON of ON CONFLICT for that of a join.
    query = sa.select(*chosen).where(sa.true())
    return dialect.insert(table).from_select([*own, *common], query)


def _formats(session: Session) -> Any:
    """How the database is given points in time, and lengths of time, as texts."""
    if is_postgresql(session):
        return datetime.isoformat, lambda span: f"{span.total_seconds():.6f} seconds"
    return _sqlite_time, lambda span: _sqlite_time(_EPOCH + span)


def _sqlite_time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
