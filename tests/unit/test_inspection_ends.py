"""An inspection ends, however it ends: by its end, an error, a signal, or its process's death."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from catalog import clock, singletons, storages
from catalog.db import Catalog
from catalog.inspection import findings, scan
from catalog.inspection.scan import inspect
from catalog.models import Singleton, StorageKind, StorageRole
from catalog.outage import Over
from catalog.states import InspectionState
from catalog.storages import StorageInfo
from flows import inspection as flow
from flows.inspection import inspect_all

OWNER = "host:abc:1"
DIES = """
import os, signal, sys
from catalog.db import Catalog
from catalog.drivers.local import LocalDriver
from catalog.inspection.scan import inspect
from flows.roles import holding
from functools import partial
LocalDriver.list = lambda *_a, **_k: os.kill(os.getpid(), signal.SIGKILL)
catalog = Catalog(sys.argv[1])
inspect(catalog, int(sys.argv[2]), hold=partial(holding, catalog))
"""


def states(catalog: Catalog) -> list[InspectionState]:
    with catalog.read() as session:
        return [info.state for info in findings.recent(session, 10)][::-1]


def bury(catalog: Catalog) -> list[int]:
    with catalog.write() as session:
        return [info.id for info in findings.bury(session)]


@pytest.mark.parametrize(
    "error", [OverflowError("a date beyond all"), KeyError("a defect"), RuntimeError("odd")]
)
def test_an_error_that_nobody_expected_ends_it(
    catalog: Catalog, storage: StorageInfo, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(scan._Scan, "look_at_bytes", broken)
    info = inspect(catalog, storage.id)
    assert info.state is InspectionState.FAILED
    assert info.reason and info.ended_at is not None


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(1), Over()])
def test_a_process_that_is_told_to_stop_says_so(
    catalog: Catalog, storage: StorageInfo, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise stop

    monkeypatch.setattr(scan._Scan, "look_at_rows", stopped)
    if isinstance(stop, Exception):
        assert inspect(catalog, storage.id).state is InspectionState.FAILED
    else:
        with pytest.raises(type(stop)):
            inspect(catalog, storage.id)
    assert states(catalog) == [InspectionState.FAILED]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_one_whose_process_was_killed_is_failed_once_that_is_known(
    catalog: Catalog, catalog_url: str, storage: StorageInfo, *, elsewhere: bool
) -> None:
    """On this machine at once, of another one when its lease is over."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", DIES, catalog_url, str(storage.id)], cwd=root, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert states(catalog) == [InspectionState.RUNNING]
    if elsewhere:
        with catalog.write() as session:
            session.execute(sa.update(Singleton).values(holder=None))
        assert bury(catalog) == [], "its lease runs: it may yet live"
        clock.shift_clock(3600.0)
    with catalog.read() as session:
        (dead,) = findings.recent(session, 10)
    assert bury(catalog) == [dead.id]
    assert states(catalog) == [InspectionState.FAILED]
    assert bury(catalog) == []


def test_the_next_inspection_ends_those_that_died(catalog: Catalog, storage: StorageInfo) -> None:
    with catalog.write() as session:
        dead = findings.begin(session, storage.id, 1.0)
        singletons.acquire(session, findings.role_of(dead), OWNER, 60.0)
    clock.shift_clock(3600.0)
    assert inspect(catalog, storage.id).state is InspectionState.DONE
    assert states(catalog) == [InspectionState.FAILED, InspectionState.DONE]


def test_one_that_lives_is_left_alone(catalog: Catalog, storage: StorageInfo) -> None:
    seen: list[list[int]] = []

    @contextmanager
    def hold(role: str) -> Iterator[None]:
        with catalog.write() as session:
            assert singletons.acquire(session, role, OWNER, 60.0)
        seen.append(bury(catalog))
        yield

    assert inspect(catalog, storage.id, hold=hold).state is InspectionState.DONE
    assert seen == [[]]
    with catalog.write() as session:
        findings.begin(session, storage.id, 1.0)
    assert bury(catalog) == [], "one of a program that holds no lease has a day"
    clock.shift_clock(2 * 86400.0)
    assert len(bury(catalog)) == 1


def test_a_storage_that_cannot_be_inspected_keeps_no_other_from_it(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with catalog.write() as session:
        for name in ("a", "b", "c"):
            storages.add(session, name, StorageKind.LOCAL, StorageRole.INPUT, str(tmp_path / name))
    monkeypatch.setattr(flow, "Board", Silent)
    real = flow.settle

    def settle(catalog: Catalog, storage_id: int) -> Any:
        with catalog.read() as session:
            if storages.get(session, storage_id).name == "b":
                raise OverflowError("odd")
        return real(catalog, storage_id)

    monkeypatch.setattr(flow, "settle", settle)
    done = inspect_all(catalog, None, scan.Options())
    assert [info.storage for info in done] == ["a", "b", "c"]
    with catalog.read() as session:
        from catalog import troubles

        (told,) = troubles.recent(session, 5)
    assert told.name == "b" and "can't be inspected" in told.error


class Silent:
    """A board that shows nothing: there is no server."""

    def __init__(self, _name: str) -> None:
        pass

    def show(self, *_: Any, **__: Any) -> None:
        """Show nothing."""
