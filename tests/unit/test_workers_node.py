"""Tokens of a node, and the burial of dead pilots' payloads."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers.orphans import PayloadLedger, clean_dead, start_time
from workers.slots import Slots


def test_cores_are_shared_by_all_pilots_of_a_node(tmp_path: Path) -> None:
    one, other = Slots(tmp_path, 2), Slots(tmp_path, 2)
    stop = threading.Event()
    stop.set()
    with one.take(1, 0) as first, other.take(1, 0) as second:
        assert first is not None
        assert second is not None
        with one.take(1, 0, stop) as third:
            assert third is None, "both cores are taken"
    with one.take(2, 0, stop) as both:
        assert both is not None, "tokens come back"


def test_a_job_that_asks_for_more_than_the_node_gets_all_of_it(tmp_path: Path) -> None:
    slots, stop = Slots(tmp_path, 2), threading.Event()
    stop.set()
    with slots.take(16, 0) as grant:
        assert grant is not None
        assert grant.cores == 2
        with slots.take(1, 0, stop) as other:
            assert other is None


def test_two_jobs_never_share_a_device(tmp_path: Path) -> None:
    slots, stop = Slots(tmp_path, 4, devices=(0, 3)), threading.Event()
    stop.set()
    with slots.take(1, 1) as one, slots.take(1, 1) as other:
        assert one is not None
        assert other is not None
        assert {*one.devices, *other.devices} == {0, 3}
        with slots.take(1, 1, stop) as third:
            assert third is None
        with slots.take(1, 0, stop) as plain:
            assert plain is not None
            assert plain.devices == ()


def test_a_waiting_job_gets_the_token_when_it_is_free(tmp_path: Path) -> None:
    slots, got = Slots(tmp_path, 1), threading.Event()

    def wait() -> None:
        with slots.take(1, 0) as grant:
            assert grant is not None
            got.set()

    with slots.take(1, 0):
        thread = threading.Thread(target=wait)
        thread.start()
        assert not got.wait(0.2)
    assert got.wait(10)
    thread.join()


def test_jobs_of_a_pilot_are_served_in_the_order_in_which_they_ask(tmp_path: Path) -> None:
    slots, served = Slots(tmp_path, 1), []
    asking = threading.Semaphore(0)

    def job(number: int) -> None:
        asking.release()
        with slots.take(1, 0):
            served.append(number)

    with slots.take(1, 0):
        threads = [threading.Thread(target=job, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
            assert asking.acquire(timeout=10)
            time.sleep(0.07)  # longer than the longest pause between two looks
    for thread in threads:
        thread.join(10)
    assert served == list(range(8))


PILOT = """
import subprocess, sys, time
from pathlib import Path
from workers.orphans import PayloadLedger
ledger = PayloadLedger(Path(sys.argv[1]), 7)
payload = subprocess.Popen(["sh", "-c", "sleep 300 & sleep 300"], process_group=0)
ledger.started(payload.pid)
print(payload.pid, flush=True)
time.sleep(300)
"""


@pytest.fixture
def pilot(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that acts as a pilot with one payload of several processes: (pilot, group)."""
    process = subprocess.Popen(
        [sys.executable, "-c", PILOT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    group = int(process.stdout.readline())
    yield process, group
    process.kill()
    process.wait()
    process.stdout.close()
    if members(group):
        os.killpg(group, signal.SIGKILL)


def members(group: int) -> list[int]:
    """Living processes of a group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def test_payloads_of_a_dead_pilot_are_killed(
    pilot: tuple[subprocess.Popen[str], int], tmp_path: Path
) -> None:
    process, group = pilot
    deadline = time.monotonic() + 10
    while len(members(group)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert clean_dead(tmp_path) == 0
    assert len(members(group)) >= 2, "a living pilot's payloads are left alone"
    process.kill()
    process.wait()
    assert clean_dead(tmp_path) == 1
    deadline = time.monotonic() + 10
    while members(group) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not members(group)
    assert not list(tmp_path.glob("pilot-*"))


def test_a_number_that_is_anothers_by_now_is_left_alone(
    pilot: tuple[subprocess.Popen[str], int], tmp_path: Path
) -> None:
    process, group = pilot
    ledger = tmp_path / "pilot-7" / "payloads"
    started = start_time(group)
    assert started is not None
    ledger.write_text(f"{group} {started - 1}\n")
    process.kill()
    process.wait()
    assert clean_dead(tmp_path) == 1
    assert members(group), "its leader started at another time: it is not the payload"


def test_a_pilot_that_ends_leaves_nothing(tmp_path: Path) -> None:
    ledger = PayloadLedger(tmp_path, 1)
    assert (tmp_path / "pilot-1").is_dir()
    ledger.close()
    assert not list(tmp_path.iterdir())
