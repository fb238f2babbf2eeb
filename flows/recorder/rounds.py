"""One round of the recorder: confirm what was posted, then post what is due."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from sqlmodel import Session

from catalog.attempts_shown import (
    DueAttempt,
    FinishedAttempt,
    PostedAttempt,
    database_time,
    due,
    finished,
    has_homeless,
    log_tails,
    mark_confirmed,
    mark_missing,
    mark_posted,
    mark_shown,
    mark_unshowable,
    unconfirmed,
)
from catalog.db import Catalog
from catalog.errors import Unavailable
from catalog.outage import Over, in_halves, sentence
from catalog.states import AttemptState
from flows.recorder.api import PAGE, Refused, TaskRunApi
from flows.recorder.events import STATES, log_entry, state_event
from flows.recorder.names import is_run_id, task_run_id
from flows.recorder.pace import Pace
from flows.recorder.rows import TaskRunRows

logger = logging.getLogger(__name__)

LOOK_CLOSELY_S = 4.0
WRITTEN_AT_ONCE = 1000
Told = TypeVar("Told", DueAttempt, FinishedAttempt)

_RUNNING, _FINISHED = AttemptState.RUNNING, AttemptState.FINISHED


@dataclass(frozen=True)
class Counts:
    """What a round did. `waiting` posts are still to be read back."""

    posted: int = 0
    confirmed: int = 0
    shown: int = 0
    missing: int = 0
    unshowable: int = 0
    waiting: int = 0

    @property
    def idle(self) -> bool:
        """Whether there was nothing to do and nothing to wait for."""
        return not (self.posted or self.confirmed or self.missing or self.waiting)


class LostLease(Over):
    """Another process is the recorder now; nothing of the step was written."""


Fence = Callable[[Session], None]
"""Called first in every write transaction; raises `LostLease` where the role is lost."""


def no_fence(_session: Session) -> None:
    """For a step that nobody else can be doing."""


@dataclass(frozen=True)
class Recording:
    """What a step works on."""

    catalog: Catalog
    api: TaskRunApi
    pace: Pace
    fence: Fence = no_fence
    rows: TaskRunRows | None = None
    """Where the server's database may be written to."""

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A write transaction of the one recorder."""
        with self.catalog.write() as session:
            self.fence(session)
            yield session


def record_once(
    catalog: Catalog,
    api: TaskRunApi,
    pace: Pace,
    fence: Fence = no_fence,
    rows: TaskRunRows | None = None,
) -> Counts:
    """Write what ended well, confirm, then post: at any point the process may be killed.

    With `rows` attempts that ended well are written to the server's database, and only the others
    are posted. Raises `Unavailable` while the server is away, and `LostLease`; what was done by
    then stays done.
    """
    step = Recording(catalog, api, pace, fence, rows)
    written, orphaned = _write_finished(step, rows) if rows else (0, 0)
    confirmed, shown, missing = _confirm(step)
    with catalog.read() as session:
        waiting = len(unconfirmed(session, pace.most))
        homeless = has_homeless(session)
    unshowable = posted = 0
    if homeless:
        with step.write() as session:
            unshowable = mark_unshowable(session)
    while waiting + posted < pace.window:
        room = min(pace.batch, pace.window - waiting - posted)
        sent, dropped = _post_batch(step, room)
        posted += sent
        unshowable += dropped
        if sent + dropped == 0:
            break
    return Counts(
        posted + written,
        confirmed + written,
        shown + written,
        missing,
        unshowable + orphaned,
        waiting + posted,
    )


def _write_finished(step: Recording, rows: TaskRunRows) -> tuple[int, int]:
    """Write attempts that ended well; gives how many, and how many can't be shown."""
    written = dropped = 0
    while True:
        with step.catalog.read() as session:
            attempts = finished(session, WRITTEN_AT_ONCE)
        if not attempts:
            return written, dropped
        gone, refused = _write(rows, attempts)
        shown = [
            attempt.attempt_id
            for attempt in attempts
            if attempt.flow_run_id not in gone and attempt.attempt_id not in refused
        ]
        with step.write() as session:
            mark_shown(session, shown)
            if gone or refused:
                dropped += mark_unshowable(session, flow_run_ids=gone, ids=refused)
        written += len(shown)
        if len(attempts) < WRITTEN_AT_ONCE:
            return written, dropped


def _write(rows: TaskRunRows, attempts: Sequence[FinishedAttempt]) -> tuple[set[str], list[int]]:
    """Write attempts; gives the flow runs that are gone, and the attempts that were refused."""
    gone: set[str] = set()
    refused = _send(lambda some: gone.update(rows.write(some)), attempts)
    if len(refused) == len(attempts) > 1:
        raise Unavailable(
            f"the Prefect server's database takes none of {len(attempts)} task runs; see the log."
        )
    return gone, refused


def _send(send: Callable[[Sequence[Told]], None], attempts: Sequence[Told]) -> list[int]:
    """Send attempts together or, where that fails, in halves; gives those that can't be, by id.

    Raises `Unavailable`.
    """
    refused: list[int] = []

    def give_up(attempt: Told, error: Exception) -> None:
        refused.append(attempt.attempt_id)
        logger.error(
            "an attempt can't be shown",
            extra={"attempt": attempt.attempt_id, "why": sentence(error)},
        )

    in_halves(attempts, send, give_up)
    return refused


def _post_batch(step: Recording, room: int) -> tuple[int, int]:
    """Post up to `room` attempts; gives how many were posted, and how many can't be shown."""
    with step.catalog.read() as session:
        attempts = due(
            session,
            room,
            running_after_s=step.pace.running_after_s,
            finished=step.rows is None,
        )
    if not attempts:
        return 0, 0
    # One event of an unknown flow run makes the server lose the whole batch.
    wanted = {attempt.flow_run_id for attempt in attempts}
    gone = wanted - step.api.existing_flow_runs({run for run in wanted if is_run_id(run)})
    dropped = 0
    if gone:
        with step.write() as session:
            dropped = mark_unshowable(session, flow_run_ids=gone)
        logger.warning("flow runs are gone", extra={"flow_runs": len(gone), "attempts": dropped})
        attempts = [attempt for attempt in attempts if attempt.flow_run_id not in gone]
    if attempts:
        dropped += _post(step, attempts)
    return len(attempts), dropped


def _post(step: Recording, attempts: Sequence[DueAttempt]) -> int:
    """Note the posts, then post: an attempt noted and not posted is found missing later on."""
    with step.write() as session:
        mark_posted(session, [(attempt.attempt_id, attempt.state) for attempt in attempts])
    later = {a.attempt_id: step.pace.later.pop(a.attempt_id, None) for a in attempts}
    refused = _send(
        lambda some: step.api.post_events([state_event(a, later[a.attempt_id]) for a in some]),
        attempts,
    )
    if refused:
        with step.write() as session:
            mark_unshowable(session, ids=refused)
    return len(refused)


def _confirm(step: Recording) -> tuple[int, int, int]:
    """Read back what was posted; gives how many were confirmed, shown for good, and lost.

    The server takes posts in by their order: behind a chunk that isn't there yet none is asked for.
    """
    with step.catalog.read() as session:
        at = database_time(session)
        posts = sorted(unconfirmed(session, step.pace.most), key=lambda post: post.posted_at)
    by_state: dict[AttemptState, list[PostedAttempt]] = defaultdict(list)
    for post in posts:
        if _age_s(post, at) > step.pace.fresh_s:
            by_state[post.state].append(post)
    confirmed = shown = missing = 0
    for state, group in by_state.items():
        for start in range(0, len(group), PAGE):
            chunk = group[start : start + PAGE]
            arrived = _arrived(step, state, chunk, closely=_age_s(chunk[0], at) > LOOK_CLOSELY_S)
            there = {post.attempt_id for post in arrived}
            lost = [p.attempt_id for p in chunk if p.attempt_id not in there and _lost(step, p, at)]
            shown += _settle(step, arrived, lost)
            confirmed += len(arrived)
            missing += len(lost)
            if len(arrived) < len(chunk):
                break
            step.pace.arrived()
    return confirmed, shown, missing


def _settle(step: Recording, arrived: Sequence[PostedAttempt], lost: Sequence[int]) -> int:
    """Write down what was read back, and what has to be posted again; gives how many are shown."""
    if not arrived and not lost:
        return 0
    _show_logs(step, arrived)
    with step.write() as session:
        shown = mark_confirmed(session, [(p.attempt_id, p.state) for p in arrived])
        mark_missing(session, lost)
    if lost:
        step.pace.lost()
        logger.warning("posts got lost", extra={"posts": len(lost), "window": step.pace.window})
    return shown


def _age_s(post: PostedAttempt, at: datetime) -> float:
    return (at - post.posted_at).total_seconds()


def _lost(step: Recording, post: PostedAttempt, at: datetime) -> bool:
    return _age_s(post, at) > step.pace.grace(post.tries)


def _arrived(
    step: Recording,
    state: AttemptState,
    posts: Sequence[PostedAttempt],
    *,
    closely: bool,
) -> list[PostedAttempt]:
    """Those of the posts that the server shows. Counting is cheap, so that is asked first.

    Where some are missing, each is looked at only if told to look `closely`.
    """
    kind, _ = STATES[state]
    runs: dict[UUID, PostedAttempt] = {
        task_run_id(post.flow_run_id, post.attempt_id): post for post in posts
    }
    count = step.api.count_in_state(list(runs), kind)
    if count == len(runs):
        for post in posts:
            step.pace.later.pop(post.attempt_id, None)
        return list(posts)
    if not closely:
        return []
    states = step.api.read_states(list(runs))
    arrived = []
    for run, post in runs.items():
        found = states.get(run)
        if found is None:
            continue
        if found.type == kind:
            arrived.append(post)
            step.pace.later.pop(post.attempt_id, None)
        else:
            step.pace.later[post.attempt_id] = found.at
    return arrived


def _show_logs(step: Recording, posts: Sequence[PostedAttempt]) -> None:
    """Give the task runs of attempts that failed the end of their log, once."""
    failed = [p.attempt_id for p in posts if p.state not in (_RUNNING, _FINISHED)]
    if not failed:
        return
    with step.catalog.read() as session:
        tails = log_tails(session, failed)
    if not tails:
        return
    runs = {p.attempt_id: task_run_id(p.flow_run_id, p.attempt_id) for p in posts}
    # A recorder that was killed after this step may have posted them.
    there = step.api.with_logs([runs[attempt_id] for attempt_id in tails])
    entries = [
        log_entry(post.flow_run_id, runs[post.attempt_id], post.posted_at, tails[post.attempt_id])
        for post in posts
        if post.attempt_id in tails and runs[post.attempt_id] not in there
    ]
    try:
        step.api.post_logs(entries)
    except Refused as refusal:
        logger.warning("logs can't be shown", extra={"logs": len(entries), "why": str(refusal)})
