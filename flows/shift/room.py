"""The room that a pilot takes up on its node: who it is, and what its processes work with."""

from collections.abc import Callable
from dataclasses import dataclass

from catalog.drivers import Drivers
from catalog.refs import StorageInfo, StorageTrouble
from catalog.settings import Settings
from workers.crew import processes_for, threads_for
from workers.cwl.containers import Containers
from workers.node import Node
from workers.orphans import PayloadLedger
from workers.slotprocess import Plan
from workers.slots import Capacity, Slots
from workers.spec import TaskSpec


@dataclass(frozen=True)
class Roster:
    """Who a pilot is: where it runs, for which task, and how much it may do."""

    task_id: int
    pool: str
    capacity: Capacity
    flow_run_id: str | None

    @property
    def slots(self) -> int:
        """How many jobs of one core run at once."""
        return self.capacity.cores


def make_node(
    settings: Settings,
    roster: Roster,
    pilot_id: int,
    places: tuple[StorageInfo, ...],
    tell: Callable[[StorageTrouble], None],
) -> Node:
    """The node as a pilot has it. Raises `OSError` where its disk has no room for a pilot."""
    engine = settings.container_engine
    assert settings.work_dir is not None
    ledger = PayloadLedger(settings.work_dir, pilot_id)
    return Node(
        name=settings.node,
        ledger=ledger,
        slots=Slots(settings.work_dir / "slots", roster.capacity),
        storages=Drivers(places, settings),
        verify_linked=settings.verify_inputs,
        patience_s=settings.outage_s,
        containers=Containers(engine, str(ledger.directory)) if engine else None,
        tell=tell,
    )


def make_plan(
    settings: Settings,
    roster: Roster,
    node: Node,
    task: TaskSpec,
    places: tuple[StorageInfo, ...],
) -> Plan:
    """What the processes of a pilot work on."""
    processes = processes_for(roster.slots)
    assert settings.work_dir is not None
    return Plan(
        name=settings.node,
        task=task,
        work_dir=settings.work_dir,
        directory=node.directory,
        capacity=roster.capacity,
        storages=places,
        verify_linked=settings.verify_inputs,
        patience_s=settings.outage_s,
        engine=settings.container_engine or None,
        processes=processes,
        threads=threads_for(2 * roster.slots, processes),
    )
