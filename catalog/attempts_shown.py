"""What Prefect has been told, and shown back, of each attempt: the recorder's part of `attempt`.

An attempt is *due* while its state isn't the one last posted, *unconfirmed* from a post until it
is read back, and *shown* once its end was read back. `shown_state` is the state last posted,
`shown_at` the time of a post that hasn't been read back, `shown_try` the number of posts.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session

from catalog.bulk import table_of
from catalog.clock import now
from catalog.models import Attempt, Job, Pilot, Task
from catalog.rowsets import among
from catalog.states import AttemptState, JobState

UNSHOWABLE = "UNSHOWABLE"
"""`shown_state` of an attempt that has no flow run to be shown under."""

_attempt: Any = Attempt
_job: Any = Job
_task: Any = Task
_pilot: Any = Pilot
# The words of the partial index; SQLite uses it only for the very same expression.
_UNSHOWN = sa.text("NOT attempt.shown")


@dataclass(frozen=True)
class DueAttempt:
    """An attempt whose state Prefect is to be told. Times are the catalog's."""

    attempt_id: int
    number: int
    state: AttemptState
    key: str
    stage: str
    flow_run_id: str
    started_at: datetime
    ended_at: datetime | None
    tries: int
    skipped: bool
    error: str | None
    exit_code: int | None
    message: str | None
    node: str | None


@dataclass(frozen=True)
class FinishedAttempt:
    """An attempt that ended well (FINISHED, or its job SKIPPED). Times are the catalog's."""

    attempt_id: int
    number: int
    key: str
    flow_run_id: str
    started_at: datetime
    ended_at: datetime
    message: str | None

    @property
    def state(self) -> AttemptState:
        """FINISHED."""
        return AttemptState.FINISHED


@dataclass(frozen=True)
class PostedAttempt:
    """An attempt whose state was posted and not yet read back."""

    attempt_id: int
    state: AttemptState
    flow_run_id: str
    tries: int
    posted_at: datetime


def due(
    session: Session,
    limit: int,
    *,
    running_after_s: float,
    finished: bool = True,
) -> list[DueAttempt]:
    """The first attempts by id that Prefect is to be told of.

    Without `finished` those that ended well are left out.

    One that still runs counts from `running_after_s` after its start, so that short jobs are told
    of once, at their end; and only once it has begun (it has a phase): a lease that is handed back
    leaves no attempt, so nothing may be told of it.
    """
    told = _attempt.shown_state.is_not_distinct_from(_as_text(_attempt.state))
    running = _attempt.state == AttemptState.RUNNING
    rows = session.execute(
        sa.select(
            _attempt.id, _attempt.number, _attempt.state, _job.key, _task.stage,
            _pilot.flow_run_id, _attempt.started_at, _attempt.ended_at, _attempt.shown_try,
            sa.and_(
                _job.state == JobState.SKIPPED, _job.attempt == _attempt.number
            ).label("skipped"),
            _attempt.error, _attempt.exit_code, _attempt.message, _attempt.node,
        )
        .join(_job, _job.id == _attempt.job_id)
        .join(_task, _task.id == _job.task_id)
        .join(_pilot, _pilot.id == _attempt.pilot_id)
        .where(
            _UNSHOWN,
            sa.not_(told),
            sa.true() if finished else _attempt.state != AttemptState.FINISHED,
            sa.or_(
                sa.not_(running),
                sa.and_(_attempt.phase.is_not(None), _attempt.started_at < now(-running_after_s)),
            ),
            _pilot.flow_run_id.is_not(None),
        )
        .order_by(_attempt.id)
        .limit(limit)
    ).all()  # fmt: skip
    return [DueAttempt(*row) for row in rows]


def finished(session: Session, limit: int) -> list[FinishedAttempt]:
    """The first attempts by id that ended well and aren't shown, of pilots with a flow run."""
    rows = session.execute(
        sa.select(
            _attempt.id, _attempt.number, _job.key, _pilot.flow_run_id,
            _attempt.started_at, _attempt.ended_at, _attempt.message,
        )
        .join(_job, _job.id == _attempt.job_id)
        .join(_pilot, _pilot.id == _attempt.pilot_id)
        .where(
            _UNSHOWN,
            _attempt.state == AttemptState.FINISHED,
            _pilot.flow_run_id.is_not(None),
        )
        .order_by(_attempt.id)
        .limit(limit)
    ).all()  # fmt: skip
    return [FinishedAttempt(*row) for row in rows]


def mark_shown(session: Session, ids: Collection[int]) -> None:
    """Note that Prefect shows the good ends of these attempts."""
    session.execute(
        sa.update(_attempt)
        .where(among(session, table_of(Attempt).c.id, ids), _UNSHOWN)
        .values(shown=True, shown_state=AttemptState.FINISHED.value, shown_at=None)
    )


def mark_posted(session: Session, posts: Collection[tuple[int, AttemptState]]) -> None:
    """Note, before the post itself, that these attempts are told of in these states."""
    for state in AttemptState:
        ids = [attempt_id for attempt_id, posted in posts if posted == state]
        if ids:
            session.execute(
                sa.update(_attempt)
                .where(_attempt.id.in_(ids), _UNSHOWN)
                .values(
                    shown_state=state.value,
                    shown_try=_attempt.shown_try + 1,
                    shown_at=now(),
                )
            )


def unconfirmed(session: Session, limit: int) -> list[PostedAttempt]:
    """Posts that stand and were not read back, oldest attempt first."""
    rows = session.execute(
        sa.select(
            _attempt.id, _attempt.state, _pilot.flow_run_id, _attempt.shown_try, _attempt.shown_at
        )
        .join(_pilot, _pilot.id == _attempt.pilot_id)
        .where(
            _UNSHOWN,
            _attempt.shown_at.is_not(None),
            _attempt.shown_state == _as_text(_attempt.state),
        )
        .order_by(_attempt.id)
        .limit(limit)
    ).all()
    return [PostedAttempt(*row) for row in rows]


def database_time(session: Session) -> datetime:
    """The database's time, to tell the age of posts by."""
    value: datetime = session.execute(sa.select(now())).scalar_one()
    return value


def mark_confirmed(session: Session, posts: Collection[tuple[int, AttemptState]]) -> int:
    """Note that these states were read back; gives how many attempts are shown now.

    An attempt that runs is shown only with its end.
    """
    ended = [i for i, state in posts if state != AttemptState.RUNNING]
    running = [i for i, state in posts if state == AttemptState.RUNNING]
    if running:
        session.execute(
            sa.update(_attempt)
            .where(
                _attempt.id.in_(running),
                _UNSHOWN,
                _attempt.shown_state == AttemptState.RUNNING.value,
            )
            .values(shown_at=None)
        )
    if not ended:
        return 0
    result: Any = session.execute(
        sa.update(_attempt).where(_attempt.id.in_(ended), _UNSHOWN).values(shown=True)
    )
    return int(result.rowcount)


def mark_missing(session: Session, ids: Collection[int]) -> None:
    """Note that posts of these attempts got lost: they are due again."""
    if ids:
        session.execute(
            sa.update(_attempt)
            .where(_attempt.id.in_(ids), _UNSHOWN)
            .values(shown_state=None, shown_at=None)
        )


def mark_unshowable(
    session: Session, *, flow_run_ids: Collection[str] = (), ids: Collection[int] = ()
) -> int:
    """Give up on attempts that Prefect can't show; gives how many.

    They are those of pilots without a flow run once they ended, those of deleted flow runs, and
    those named by `ids`.
    """
    given_up: list[Any] = [_homeless()]
    if flow_run_ids:
        deleted = sa.select(_pilot.id).where(_pilot.flow_run_id.in_(flow_run_ids))
        given_up.append(_attempt.pilot_id.in_(deleted))
    if ids:
        given_up.append(_attempt.id.in_(ids))
    result: Any = session.execute(
        sa.update(_attempt)
        .where(_UNSHOWN, sa.or_(*given_up))
        .values(shown=True, shown_state=UNSHOWABLE, shown_at=None)
    )
    return int(result.rowcount)


def has_homeless(session: Session) -> bool:
    """Whether attempts have ended that belong to no flow run."""
    found = session.execute(sa.select(_attempt.id).where(_UNSHOWN, _homeless()).limit(1)).first()
    return found is not None


def log_tails(session: Session, ids: Sequence[int]) -> dict[int, str]:
    """The ends of the logs that these attempts have, by attempt."""
    rows = session.execute(
        sa.select(_attempt.id, _attempt.log_tail).where(
            _attempt.id.in_(ids), _attempt.log_tail.is_not(None), _attempt.log_tail != ""
        )
    ).all()
    return {row.id: row.log_tail for row in rows}


def count_unshown(session: Session) -> int:
    """Attempts that have ended and aren't shown: how far Prefect lags behind."""
    count: int = session.execute(
        sa.select(sa.func.count())
        .select_from(_attempt)
        .where(_UNSHOWN, _attempt.state != AttemptState.RUNNING)
    ).scalar_one()
    return count


def _homeless() -> Any:
    return sa.and_(
        _attempt.state != AttemptState.RUNNING,
        _attempt.pilot_id.in_(sa.select(_pilot.id).where(_pilot.flow_run_id.is_(None))),
    )


def _as_text(state: Any) -> Any:
    """The state column as the plain word that it is stored as."""
    return sa.type_coerce(state, sa.String())
