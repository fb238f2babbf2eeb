"""What is done now and then besides: lifetimes, marks of storages, and runs that are needed."""

import logging
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException
from sqlmodel import Session

from catalog import (
    cattime,
    clock,
    clockcare,
    datasets,
    deletion,
    grace,
    lifecycle,
    shedding,
    singletons,
    troubles,
    uploads,
    usage,
)
from catalog.db import Catalog
from catalog.inspection import findings
from catalog.outage import is_outage, isolated, sentence
from catalog.troubles import Of, Troubles
from flows.away import is_server_away
from flows.deletion import DELETION
from flows.intake import INTAKE
from flows.intake.schedules import drop_false
from flows.upload import UPLOAD, role_name

log = logging.getLogger(__name__)

EVERY_S = 2.0
_SAMPLE_S = 60.0
BEGIN_S, LONGEST_S = 20.0, 600.0
"""A run takes its role within the first time; the same errand waits up to the second."""


class Housework:
    """Takes turns of it."""

    def __init__(self, catalog: Catalog, fence: Callable[[Session], None]) -> None:
        self._catalog, self._fence = catalog, fence
        self._sampled = float("-inf")
        self._released = 0
        self._again = Again()
        self._skew_s: float | None = None
        self._troubles = Troubles(catalog, "housework")

    def turn(self) -> float:
        """Do what is due; gives the seconds until the next turn."""
        for name, chore in (
            ("lifetimes", self._expire),
            ("what lies between stages", self._release),
            ("shedding", self._shed),
            ("usage", self._count),
            ("history of usage", self._sample),
        ):
            with self._apart(name), self._catalog.write() as session:
                self._fence(session)
                chore(session)
        with self._apart("grace of deletions"):
            self._end_grace()
        with self._apart("schedules", outage=is_server_away):
            self._follow_clock()
        with self._apart("flow runs", outage=is_server_away):
            self._start_runs()
        return EVERY_S

    @contextmanager
    def _apart(
        self, chore: str, outage: Callable[[BaseException], bool] = is_outage
    ) -> Iterator[None]:
        """A chore that fails keeps no other from being done, and is told of in rows."""
        number = zlib.crc32(chore.encode())

        def tell(error: Exception) -> None:
            told = f"its chore `{chore}` fails: {sentence(error)}"
            self._troubles.note(Of.SERVICE, number, INTAKE, told)

        with isolated("chore", chore, tell, outage=outage):
            yield
            self._troubles.over(Of.SERVICE, number)

    def _expire(self, session: Session) -> None:
        for name in deletion.expire(session):
            log.info("dataset expired", extra={"dataset": name})

    def _release(self, session: Session) -> None:
        released, self._released = lifecycle.release(session, self._released)
        for name in released:
            log.info("dataset released", extra={"dataset": name})

    def _shed(self, session: Session) -> None:
        for name in shedding.shed(session):
            log.warning("dataset shed", extra={"dataset": name})

    def _count(self, session: Session) -> None:
        usage.fold(session)
        for name, word in usage.press(session).items():
            log.warning("storage passed a mark", extra={"storage": name, "now": word})

    def _end_grace(self) -> None:
        with self._catalog.read() as session:
            pressing = grace.in_the_way(session)
        with self._catalog.write() as session:
            self._fence(session)
            ended = grace.end_due(session) + grace.end_early(session, pressing)
        for name in ended:
            log.info("grace of a deletion ended", extra={"dataset": name})

    def _follow_clock(self) -> None:
        """Where the clock was set back: what the server has scheduled for a time to come goes."""
        with self._catalog.read() as session:
            session.connection()
            skew_s = clock.begun().skew_s
            if self._skew_s is None:
                is_back = clockcare.was_set_back(session)
            else:
                is_back = skew_s < self._skew_s - cattime.LIMIT_S
        try:
            if is_back:
                with get_client(sync_client=True) as client:
                    drop_false(client)
            self._skew_s = skew_s
        except (httpx.HTTPError, PrefectException) as error:
            log.info("scheduled runs were not looked at", extra={"why": str(error)})

    def _sample(self, session: Session) -> None:
        if time.monotonic() - self._sampled >= _SAMPLE_S:
            usage.sample(session)
            troubles.forget_old(session)
            for info in findings.bury(session):
                log.warning("inspection died", extra={"inspection": info.id})
            self._sampled = time.monotonic()

    def _start_runs(self) -> None:
        """Start the flow runs that have something to do, and don't go on."""
        with self._catalog.read() as session:
            wanted = [
                errand
                for errand in _errands(session)
                if not singletons.is_held(session, errand.role)
            ]
        due = self._again.due(wanted)
        if not due:
            return
        try:
            with get_client(sync_client=True) as client:
                for errand in due:
                    with isolated("errand", errand.role, outage=is_server_away):
                        found = client.read_deployment_by_name(f"{errand.flow}/{errand.flow}")
                        client.create_flow_run_from_deployment(
                            found.id, parameters=errand.parameters
                        )
                        self._again.started(errand)
        except (httpx.HTTPError, PrefectException) as error:
            log.warning("runs could not be started", extra={"why": str(error)})


@dataclass(frozen=True)
class Errand:
    """What a flow run is needed for; `progress` is another one once it got anywhere."""

    flow: str
    role: str
    progress: tuple[int, ...]
    upload: int | None = None

    @property
    def parameters(self) -> dict[str, int]:
        """Of its flow run."""
        return {} if self.upload is None else {"upload": self.upload}


def _errands(session: Session) -> list[Errand]:
    deleting = datasets.deleting(session)
    found = []
    if deleting:
        found.append(Errand(DELETION, DELETION, tuple(info.id for info in deleting)))
    for info in uploads.going(session):
        found.append(Errand(UPLOAD, role_name(info.id), (info.files_done,), info.id))
    return found


class Again:
    """When a run is started again for the same errand: at once if it got further, else ever later.

    So a storage that is away for a night doesn't fill Prefect with runs that fail.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[tuple[int, ...], float, float]] = {}

    def due(self, wanted: Sequence[Errand]) -> list[Errand]:
        """Those whose run is to be started now; what isn't wanted any more is forgotten."""
        roles = {errand.role for errand in wanted}
        self._last = {role: last for role, last in self._last.items() if role in roles}
        return [errand for errand in wanted if self._is_due(errand)]

    def _is_due(self, errand: Errand) -> bool:
        progress, at, wait_s = self._last.get(errand.role, ((), 0.0, 0.0))
        waited_s = time.monotonic() - at
        return waited_s >= (wait_s if progress == errand.progress else min(wait_s, BEGIN_S))

    def started(self, errand: Errand) -> None:
        """A run was started for it."""
        progress, _, wait_s = self._last.get(errand.role, ((), 0.0, 0.0))
        next_s = min(2 * wait_s, LONGEST_S) if progress == errand.progress else BEGIN_S
        self._last[errand.role] = errand.progress, time.monotonic(), max(next_s, BEGIN_S)
