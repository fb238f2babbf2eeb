"""A pilot's processes on a node that has no room, or whose files can't be read."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from catalog.errors import ErrorCode
from catalog.states import Phase
from tests.acceptance.machine import until
from tests.servers.disks import fill, mounted
from tests.unit.test_crew import Pilot, halted, job
from tests.unit.test_crew import pilot as pilot
from workers.cwl.faults import of_node
from workers.messages import NotWritten
from workers.spec import Outcome

LONG = 100_000
"""Characters of what goes by a file."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """The work disk of the node; ask for it before `pilot`, which has to leave it first."""
    with mounted(tmp_path / "work", "tmpfs", mib=8) as folder:
        yield folder


def messages(one: Pilot) -> list[Path]:
    return list(one.ledger.directory.glob("message-*"))


def test_an_end_that_has_no_room_is_the_nodes_outage_and_leaves_nothing(
    disk: Path, pilot: Callable[..., Pilot], tmp_path: Path
) -> None:
    one = pilot(processes=1, long=LONG)
    one.crew.prepare()
    gate, members = tmp_path / "gate", one.members
    running = job(1, f"while [ ! -e {gate} ]; do sleep 0.02; done")
    future = one.crew.submit(running)
    until(lambda: running.phase is Phase.PAYLOAD, "it is at work", 20)
    filler = fill(disk)
    gate.touch()
    result = future.result(30)
    assert (result.outcome, result.error) == (Outcome.FAILED, ErrorCode.NODE_DISK_FULL)
    assert result.message and "could not be told" in result.message
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not messages(one), "a part of one would take the last of the room"
    filler.unlink()
    again = one.crew.submit(job(1, "true")).result(30)
    assert again.outcome is Outcome.FINISHED
    assert again.values["text"] == "x" * LONG
    assert one.members == members, "the same process goes on"
    assert not messages(one)


def test_a_job_that_has_no_room_to_be_sent_is_the_nodes_outage(
    disk: Path, pilot: Callable[..., Pilot]
) -> None:
    one = pilot(processes=1)
    one.crew.prepare()
    filler = fill(disk)
    script = f"true {'x' * LONG}"
    results = [one.crew.submit(job(number, script)).result(30) for number in (1, 2)]
    assert {(r.outcome, r.error) for r in results} == {
        (Outcome.FAILED, ErrorCode.NODE_DISK_FULL)
    }  # fmt: skip
    assert one.ends == results
    assert one.crew.fault is None, "the pilot goes on"
    filler.unlink()
    assert one.crew.submit(job(3, script)).result(30).outcome is Outcome.FINISHED


def test_a_task_that_has_no_room_to_be_sent_is_the_nodes_outage(
    disk: Path, pilot: Callable[..., Pilot]
) -> None:
    one = pilot(doc="x" * LONG)
    fill(disk)
    with pytest.raises(NotWritten) as caught:
        one.crew.prepare()
    assert of_node(caught.value) is ErrorCode.NODE_DISK_FULL


def removed(message: Path) -> None:
    message.unlink()


def cut(message: Path) -> None:
    message.write_bytes(b"")


@pytest.mark.parametrize("spoil", [removed, cut])
def test_a_job_that_a_process_can_not_read_is_run_by_another(
    pilot: Callable[..., Pilot], spoil: Callable[[Path], None]
) -> None:
    one, member = halted(pilot)
    future = one.crew.submit(job(1, f"true {'x' * LONG}"))
    (path,) = messages(one)
    spoil(path)
    os.kill(member, signal.SIGCONT)
    assert future.result(30).outcome is Outcome.FINISHED
    assert member not in one.members
    assert one.crew.fault is None


def test_a_payload_that_failed_while_the_disk_was_full_is_not_to_blame_once_it_has_room(
    disk: Path, pilot: Callable[..., Pilot], tmp_path: Path
) -> None:
    """Another's failure has made room by then."""
    one = pilot(processes=2)
    one.crew.prepare()
    full, room = tmp_path / "full", tmp_path / "room"
    until_full = f"while [ ! -e {full} ]; do sleep 0.02; done; "
    tries = f"cat /bin/sh > copy || touch {tmp_path}/failed-$$; "
    jobs = [
        job(1, f"{until_full} {tries} exit 1"),
        job(2, f"{until_full} {tries} while [ ! -e {room} ]; do sleep 0.02; done; exit 1"),
    ]
    first, second = (one.crew.submit(each) for each in jobs)
    until(lambda: all(each.phase is Phase.PAYLOAD for each in jobs), "both are at work", 20)
    filler = fill(disk)
    full.touch()
    assert first.result(30).error is ErrorCode.NODE_DISK_FULL
    until(lambda: len(list(tmp_path.glob("failed-*"))) == 2, "both have failed", 20)
    filler.unlink()
    room.touch()
    assert second.result(30).error is ErrorCode.NODE_DISK_FULL
    assert one.crew.submit(job(3, "exit 1")).result(30).error is ErrorCode.PAYLOAD_FAILED
