"""Dispatch: as many pilots as ready jobs, nodes and the stage's limit warrant."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, WorkerStatus
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectException
from sqlmodel import Session

from catalog import nodes, obstacles, pilots, pressure, stranded, tasks, usage
from catalog.outage import isolated
from catalog.settings import Settings
from catalog.states import TaskState
from catalog.tasks import TaskInfo
from flows.advance import Chain
from flows.away import is_server_away
from flows.plan import Stage, StageKind
from flows.pools import queue_of_rank
from flows.share import Share

log = logging.getLogger(__name__)

_WAIT_S = 300.0
"""How long a pilot that was asked for counts, though it has not begun."""
_LOOK_SHARE = 0.1
_MANY = 100
"""Pilots that ready jobs are counted for where nobody knows how many may be had."""
MOST_WAITING = 50
"""Most pilots of a task that were asked for and haven't begun. Each poll of each node is answered
with all that wait, each turn asks after them, and a turn that asks for a thousand takes longer than
the workflow's lease."""


@dataclass(frozen=True)
class _Need:
    """What the catalog says of a task's pilots: how many it warrants and has."""

    task_id: int
    stage: Stage
    wanted: int
    live: int
    nodes_online: int


@dataclass
class Dispatcher:
    """Submits pilots for one workflow, and remembers those that have not begun."""

    chain: Chain
    settings: Settings
    client: SyncPrefectClient
    dataset: str
    rank: int = 0
    _asked: dict[int, dict[str, float]] = field(default_factory=dict)
    _looking: Share = field(default_factory=lambda: Share(0.0, _LOOK_SHARE))
    _ahead: set[int] = field(default_factory=set)
    _held_back: set[int] = field(default_factory=set)

    def dispatch(self) -> int:
        """Ask for the pilots that are missing; gives how many. Prefect's errors are survived."""
        if not self._looking.is_due:
            return 0
        with self._looking.spend(), self.chain.catalog.read() as session:
            needs = self._needs(session)
            self._forget(
                pilots.begun(session, [r for asked in self._asked.values() for r in asked])
            )
        if self._held_back:
            with self.chain.catalog.write() as session:
                pressure.send_home(session, sorted(self._held_back))
        count = 0
        try:
            for need in needs:
                with isolated("task", need.task_id, outage=is_server_away):
                    for _ in range(self._missing(need)):
                        self._submit(need.stage)
                        count += 1
                    self._ahead.add(need.task_id)
        except (httpx.HTTPError, PrefectException) as error:
            log.warning("no pilots could be asked for", extra={"fault": str(error)})
        return count

    def _needs(self, session: Session) -> list[_Need]:
        rows = tasks.of_workflow(session, self.chain.workflow_id)
        moving = {row.id: row.stage for row in rows if row.state is TaskState.IN_PROGRESS}
        soon = self._soon(rows, set(moving.values()))
        if soon and stranded.expects_nothing(session, self.chain.dataset_id):
            soon = {}
        ids = moving | soon
        live = pilots.live_counts(session, list(ids))
        waiting = obstacles.blocked_tasks(session, list(ids))
        self._held_back = self._paused(session, ids)
        found = []
        for task_id, name in ids.items():
            stage = self.chain.plan.stage(name)
            if task_id in self._held_back:
                continue
            out = obstacles.blocked_nodes(session, stage.pool, task_id)
            there = nodes.online(session, stage.pool)
            offers = [node.slots for node in there if node.name not in out]
            slots = min(offers, default=self.settings.slots)
            most = stage.max_pilots or self.settings.max_pilots or len(offers) + 1
            most = most if offers else max(most, _MANY)
            ready = tasks.count_ready(session, task_id, most * slots)
            wanted = max(-(-ready // slots), int(task_id in soon and task_id not in self._ahead))
            here = live.get(task_id, 0)
            if task_id in waiting or (there and not offers):
                # One is enough to see when what is out is well again.
                wanted = min(wanted, 1)
            elif out:
                here -= obstacles.live_pilots(session, task_id, out)
            found.append(_Need(task_id, stage, wanted, here, len(offers)))
        return found

    def _paused(self, session: Session, ids: Mapping[int, str]) -> set[int]:
        """Tasks that only add to a storage which is above its high-water mark.

        Those that read what lies there go on, and so, once these
        have nothing to do, does the oldest workflow: else nothing would ever be freed.
        """
        pressed = usage.pressed(session)
        if not pressed:
            return set()
        places = tasks.outputs(session, list(ids))
        paused = {
            task_id
            for task_id, name in ids.items()
            if not self.chain.plan.stage(name).upstreams
            and pressed & {o.storage_id for port, o in places[task_id].items() if port != "log"}
        }
        if not paused or pressure.may_produce(session, self.chain.workflow_id):
            return set()
        return paused

    def _forget(self, started: set[str]) -> None:
        for asked in self._asked.values():
            for run_id in started & asked.keys():
                del asked[run_id]

    def _soon(self, rows: Sequence[TaskInfo], moving: set[str]) -> dict[int, str]:
        """Tasks that get their first jobs when the stage before ends one of its own, by id.

        One pilot is asked for ahead, once: it starts while that stage works.
        """
        found = {}
        for row in rows:
            stage = self.chain.plan.stage(row.stage)
            waits = stage.barrier or (stage.kind is StageKind.MERGE and not stage.files_per_job)
            if row.state is TaskState.DEFINED and not waits and moving & set(stage.upstreams):
                found[row.id] = row.stage
        return found

    def _missing(self, need: _Need) -> int:
        """Pilots to be asked for, with what only Prefect knows; it may be away."""
        waiting = self._waiting(need.task_id)
        if need.wanted <= need.live + waiting:
            return 0
        wanted = min(need.wanted, self._limit(need.stage, need.nodes_online))
        return min(wanted - need.live, MOST_WAITING) - waiting

    @property
    def waits(self) -> bool:
        """Whether pilots were asked for that have not begun, as far as was known last."""
        return any(self._asked.values())

    def _waiting(self, task_id: int) -> int:
        """Pilots that were asked for and may still begin."""
        asked = self._asked.setdefault(task_id, {})
        for run_id, since in list(asked.items()):
            old = time.monotonic() - since
            if old > _WAIT_S or (old > 10.0 and _ended(self.client, run_id)):
                del asked[run_id]
        return len(asked)

    def _limit(self, stage: Stage, nodes_online: int) -> int:
        """Most pilots of a stage: one for each node, which the catalog knows better than Prefect.

        A node that left is online in Prefect until three of its heartbeats are missed.
        """
        if stage.max_pilots is not None:
            return stage.max_pilots
        if self.settings.max_pilots:
            return self.settings.max_pilots
        if not nodes_online:
            return max(1, _online_workers(self.client, stage.pool))
        own = not self.settings.api_url and self.settings.local_payloads
        return nodes_online + own

    def _submit(self, stage: Stage) -> None:
        task_id = self.chain.task_ids[stage.name]
        queue = queue_of_rank(self.client, stage.pool, self.rank + stage.rank)
        run = run_deployment(
            f"pilot/{stage.pool}",
            parameters={"task": task_id},
            work_queue_name=queue,
            flow_run_name=f"{stage.name} · {self.dataset}",
            tags=[f"workflow:{self.chain.workflow_id}", f"task:{task_id}"],
            timeout=0,
            as_subflow=True,
        )
        assert isinstance(run, FlowRun)
        self._asked.setdefault(task_id, {})[str(run.id)] = time.monotonic()

    def stop_waiting(self) -> None:
        """Delete the runs of pilots that were asked for and are not needed any more."""
        for asked in self._asked.values():
            for run_id in asked:
                _delete_unstarted(self.client, run_id)


def _delete_unstarted(client: SyncPrefectClient, run_id: str) -> None:
    try:
        run = client.read_flow_run(UUID(run_id))
        if run.state is not None and run.state.is_scheduled():
            client.delete_flow_run(run.id)
    except (httpx.HTTPError, ObjectNotFound) as error:
        log.debug("pilot run not removed", extra={"fault": str(error)})


def _ended(client: SyncPrefectClient, run_id: str) -> bool:
    try:
        state = client.read_flow_run(UUID(run_id)).state
    except ObjectNotFound:
        return True
    except httpx.HTTPError:
        return False
    return state is not None and state.is_final()


def _online_workers(client: SyncPrefectClient, pool: str) -> int:
    workers = client.read_workers_for_work_pool(pool)
    return sum(worker.status is WorkerStatus.ONLINE for worker in workers)
