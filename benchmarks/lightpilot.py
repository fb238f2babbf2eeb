"""Light pilots: threads that do with the catalog what pilots do, and whose payloads only sleep.

Each has a connection of its own. Many share a process and its cache of compiled statements, so
that the cost of the clients leaves the machine to the servers.
"""

import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlmodel import Session

from catalog import attempts, completion, jobfiles, pilots, tasks
from catalog.attempts import Lease
from catalog.db import Catalog
from catalog.refs import JobResult, NewFile, Outcome
from catalog.tasks import OutputDataset

LEASE, POLL, ASK, BEAT, COMMIT = "lease", "poll", "ask", "beat", "commit"
"""A poll is that of an idle pilot and finds nothing; an ask, of one that has jobs in hand."""
BEGIN, END = "begin", "end"


@dataclass(frozen=True)
class Orders:
    """What a group of pilots does; times are seconds, `begin` and `until` by the wall clock.

    `outputs` are the dataset of the payload's file and that of its log. A period of 0 leaves an
    action out. After a lease that found nothing the next is `quiet_s` away.
    """

    url: str
    pooler: str
    task_id: int
    outputs: tuple[OutputDataset, OutputDataset]
    pilots: int
    slots: int
    payload_s: float
    beat_s: float
    poll_s: float
    quiet_s: float
    lease_s: float
    begin: float
    until: float
    nice: int


@dataclass
class Log:
    """What pilots did: (action, when it ended, how long it took, jobs) of each transaction."""

    done: list[tuple[str, float, float, int]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def work(orders: Orders) -> Log:
    """Let a group of pilots work until `until` and their last jobs have ended."""
    os.nice(orders.nice)
    catalog = Catalog(orders.url, pool_size=orders.pilots, pooler=orders.pooler)
    log = Log()
    threads = [
        threading.Thread(target=_run, args=(catalog, orders, number, log), daemon=True)
        for number in range(orders.pilots)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    catalog.close()
    return log


def _run(catalog: Catalog, orders: Orders, number: int, log: Log) -> None:
    try:
        LightPilot(catalog, orders, number, log).work()
    except Exception as error:  # noqa: BLE001  (the boundary of a thread: a fault must reach the result)
        log.faults.append(f"pilot {number}: {type(error).__name__}: {error}")


class LightPilot:
    """One pilot, in one thread."""

    def __init__(self, catalog: Catalog, orders: Orders, number: int, log: Log) -> None:
        self._catalog, self._orders, self._log, self._number = catalog, orders, log, number
        self._waiting: list[Lease] = []
        self._running: list[tuple[float, Lease]] = []
        self._held: set[int] = set()

    def work(self) -> None:
        """Begin at a moment of its own, work, and end."""
        orders = self._orders
        spread_s = max(0.0, orders.begin - time.time())
        time.sleep(random.uniform(0.2, 0.9) * spread_s)
        with self._catalog.read() as session:
            engine = session.get_bind()
        self._connection = engine.connect()
        try:
            with self._transaction(BEGIN) as session:
                self._id = pilots.start(
                    session, orders.task_id, pool="cpu", node=f"node-{self._number}",
                    pid=self._number, slots=orders.slots, flow_run_id=None,
                )  # fmt: skip
            self._shift()
            with self._transaction(END) as session:
                pilots.end(session, self._id, "no jobs left")
        finally:
            self._connection.close()

    def _shift(self) -> None:
        orders, now = self._orders, time.time()
        beat_at = now + random.uniform(0, orders.beat_s) if orders.beat_s else float("inf")
        poll_at = now + random.uniform(0, orders.poll_s) if orders.poll_s else float("inf")
        while True:
            now = time.time()
            ends = [lease for due, lease in self._running if due <= now]
            if ends:
                self._running = [item for item in self._running if item[0] > now]
                self._commit(ends)
            self._fill()
            if now >= poll_at and self._room:
                found = self._ask()
                poll_at = time.time() + (orders.poll_s if found else orders.quiet_s)
                if not found and now >= orders.until and not self._running:
                    return
            if now >= beat_at:
                beat_at += orders.beat_s
                self._beat()
            if not orders.poll_s and now >= orders.until:
                return
            due = min([beat_at, poll_at if self._room else now + 1, *(t for t, _ in self._running)])
            time.sleep(max(0.0, min(due - time.time(), 1.0)))

    @property
    def _room(self) -> int:
        return 2 * self._orders.slots - len(self._waiting) - len(self._running)

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self._orders.slots:
            took_s = self._orders.payload_s * random.uniform(0.9, 1.1)
            self._running.append((time.time() + took_s, self._waiting.pop(0)))

    def _ask(self) -> bool:
        """Lease what there is room for, as a pilot does: those to run alone where it is idle."""
        orders, begun = self._orders, time.perf_counter()
        with self._transaction() as session:
            leases = self._take(session, self._room, alone=False)
            if not leases and not self._held:
                leases = self._take(session, 1, alone=True)
        if leases:
            with self._transaction() as session:
                jobfiles.inputs(session, [lease.job_id for lease in leases])
        elif not self._held:
            self._look_around()
        self._note(LEASE if leases else ASK if self._held else POLL, begun, len(leases))
        self._held |= {lease.job_id for lease in leases}
        self._waiting += leases
        self._fill()
        assert len(leases) <= 2 * orders.slots
        return bool(leases)

    def _look_around(self) -> None:
        with self._transaction() as session:
            tasks.get(session, self._orders.task_id)
            session.execute(tasks.others_ready_query("cpu", self._orders.task_id)).scalar()

    def _take(self, session: Session, limit: int, *, alone: bool) -> list[Lease]:
        return attempts.lease(
            session, self._id, self._orders.task_id, limit, lease_s=self._orders.lease_s,
            node=f"node-{self._number}", program="bench", tool_digest="d", alone=alone,
        )  # fmt: skip

    def _beat(self) -> None:
        with self._transaction(BEAT, len(self._held)) as session:
            beat = attempts.heartbeat(session, self._id, self._orders.lease_s, {})
        lost = self._held - beat.held
        if lost:
            self._log.faults.append(f"pilot {self._number} lost {len(lost)} leases")

    def _commit(self, ends: list[Lease]) -> None:
        results = [self._result(lease) for lease in ends]
        with self._transaction(COMMIT, len(ends)) as session:
            known = completion.confirmed(session, results)
            taken = known | completion.finish(session, self._id, results, retry=1)
        self._held -= {lease.job_id for lease in ends}
        if len(taken) != len(ends):
            self._log.faults.append(f"pilot {self._number}: {len(ends) - len(taken)} refused")

    def _result(self, lease: Lease) -> JobResult:
        out, log = (
            NewFile(
                port=dataset.port,
                index=0,
                name=f"{lease.key}/{dataset.port}",
                size_bytes=1,
                checksum="adler32:00010001",
                storage_id=dataset.storage_id,
                path=f"{dataset.name}/{lease.key}/a{lease.number}/{dataset.port}",
                dataset_id=dataset.dataset_id,
            )
            for dataset in self._orders.outputs
        )
        return JobResult(
            job_id=lease.job_id, attempt_id=lease.attempt_id, number=lease.number,
            outcome=Outcome.FINISHED, exit_code=0, files=(out,), log=log,
        )  # fmt: skip

    @contextmanager
    def _transaction(self, action: str | None = None, count: int = 0) -> Iterator[Session]:
        """A transaction on the pilot's own connection, after the ping of a pool's check-out."""
        begun = time.perf_counter()
        dialect, connection = self._connection.dialect, self._connection
        dialect.do_ping(connection.connection.dbapi_connection)  # type: ignore[arg-type]
        with Session(connection, expire_on_commit=False) as session, session.begin():
            yield session
        if action:
            self._note(action, begun, count)

    def _note(self, action: str, begun: float, count: int) -> None:
        self._log.done.append((action, time.time(), time.perf_counter() - begun, count))


def percentile(values: Sequence[float], part: float) -> float | None:
    """The value below which that part of them lies."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
