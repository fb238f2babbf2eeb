"""The node that jobs run on: its scratch space, its tokens and its way to the storages."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from catalog.drivers import StorageDriver
from catalog.refs import StorageTrouble
from workers.cwl.containers import Containers
from workers.orphans import PayloadLedger
from workers.probe import LastFull
from workers.reapers import Reapers
from workers.slots import Slots
from workers.workspace import Workspaces


@dataclass(frozen=True)
class Node:
    """What every job of a pilot shares."""

    name: str
    ledger: PayloadLedger
    slots: Slots
    storages: Mapping[int, StorageDriver]
    verify_linked: bool = False
    patience_s: float = 0.0
    """How long a transfer waits for a storage that is away."""
    containers: Containers | None = None
    """The engine of payloads in containers; None: the node has none."""
    tell: Callable[[StorageTrouble], None] = lambda trouble: None
    """Called where a storage is out, while the job that met it waits for it."""

    workspaces: Workspaces = field(init=False)
    reapers: Reapers = field(init=False)
    last_full: LastFull = field(init=False)

    def __post_init__(self) -> None:
        """Make room for jobs."""
        object.__setattr__(self, "workspaces", Workspaces(self.directory))
        object.__setattr__(self, "reapers", Reapers(self.ledger.started))
        object.__setattr__(self, "last_full", LastFull(self.directory.parent))

    @property
    def directory(self) -> Path:
        """The pilot's own scratch space."""
        return self.ledger.directory


def program_version() -> str:
    """The version of this program, as attempts record it."""
    try:
        return version("spdf")
    except PackageNotFoundError:
        return "unknown"
