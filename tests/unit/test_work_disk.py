"""Who filled the work disk of a node: others, which is its outage, or the job itself."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from catalog.errors import ErrorClass, ErrorCode
from tests.servers.disks import fill, mounted
from tests.unit.test_faults import Bench, failed
from workers.probe import check_disk
from workers.spec import Outcome

MIB = 1 << 20
WRITE = "set -e; head -c {} /dev/zero > o.txt"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[], Bench]]:
    """What makes a node, and its storages, on a disk of 16 MiB and 400 inodes."""
    made: list[Bench] = []
    with mounted(tmp_path / "disk", "tmpfs", mib=16, inodes=400) as folder:

        def make() -> Bench:
            made.append(Bench(folder))
            return made[0]

        yield make
        for one in made:
            one.close()


def test_a_disk_that_the_job_alone_fills_is_its_own_fault(disk: Callable[[], Bench]) -> None:
    one = disk()
    result = one.run(WRITE.format(32 * MIB))
    failed(result, ErrorCode.WORK_DISK_FULL, ErrorClass.PAYLOAD)
    assert "takes more than half of the node's work disk" in str(result.message)
    assert "bytes are free" in str(result.message)
    check_disk(one.node.directory)
    assert one.run().outcome is Outcome.FINISHED, "its work directory is emptied"


def test_inodes_that_the_job_alone_takes_are_its_own_fault(disk: Callable[[], Bench]) -> None:
    result = disk().run("for i in $(seq 1000); do : > $i || exit 1; done")
    failed(result, ErrorCode.WORK_DISK_FULL, ErrorClass.PAYLOAD)
    assert "inodes are free" in str(result.message)


def test_a_disk_that_others_fill_is_the_nodes_outage(disk: Callable[[], Bench]) -> None:
    one = disk()
    filler = fill(one.folder)
    with filler.open("r+b") as file:
        file.truncate(10 * MIB)
    result = one.run(WRITE.format(32 * MIB))
    failed(result, ErrorCode.NODE_DISK_FULL, ErrorClass.OUTAGE)
    filler.unlink()
    assert one.run(WRITE.format(6 * MIB)).outcome is Outcome.FINISHED
