"""One file that can't be read or written on a storage that is well is that file's trouble."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlmodel import Session

from catalog import causes, outages
from catalog.checksums import file_checksum
from catalog.drivers.identity import Identity
from catalog.drivers.local import LocalDriver
from catalog.drivers.marker import Marker
from catalog.errors import ErrorClass, ErrorCode
from catalog.models import Job
from catalog.names import MARKER
from catalog.refs import FileRef, ReplicaRef
from catalog.states import JobState, Phase
from catalog.verdicts import MAX_SYSTEM_ATTEMPTS, OF_JOBS
from tests.conftest import EVERY_WAY
from tests.unit.test_faults import Bench, failed
from tests.unit.test_faults import bench as bench
from tests.unit.test_outages import Site
from tests.unit.test_outages import site as site
from tests.unit.test_workload import start as start

E = ErrorCode


def a_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def a_broken_disk(path: Path) -> None:
    """A file whose first byte gives EIO."""
    path.unlink()
    path.symlink_to("/proc/self/mem")


@pytest.fixture
def one(bench: Callable[..., Bench]) -> Bench:
    """A job that reads `in/f.dat`, beside which there is another file."""
    made = bench()
    object.__setattr__(made.node, "patience_s", 3600.0)
    (made.folder / "in" / "other.dat").write_text("other")
    return made


def empty(one: Bench) -> None:
    """Have the catalog know the input as a file of no bytes, which is read."""
    object.__setattr__(one.node, "verify_linked", True)
    one.file = FileRef(7, "run/f.dat", 0, "adler32:00000001", (ReplicaRef(1, "f.dat"),))


@pytest.mark.parametrize("spoil", [a_loop, a_broken_disk])
def test_an_input_that_alone_can_not_be_read_is_no_outage_of_its_storage(
    one: Bench, spoil: Callable[[Path], None]
) -> None:
    empty(one)
    spoil(one.folder / "in" / "f.dat")
    result = one.run()
    failed(result, E.INPUT_UNREADABLE, ErrorClass.TRANSIENT)
    assert result.phase is Phase.STAGE_IN and not result.bad_inputs
    assert "'run/f.dat'" in str(result.message) and str(one.folder / "in") in str(result.message)
    assert one.troubles == [], "nobody waits for the storage"


def test_so_is_one_that_has_to_be_fetched(one: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    empty(one)
    a_broken_disk(one.folder / "in" / "f.dat")
    monkeypatch.setattr(one.node.storages[1], "local_path", lambda path: None)
    failed(one.run(), E.INPUT_UNREADABLE, ErrorClass.TRANSIENT)


def test_so_is_a_secondary_file(one: Bench) -> None:
    place = one.folder / "in" / "f.idx"
    place.write_text("index")
    index = FileRef(8, "run/f.idx", 5, file_checksum(place, "md5"), (ReplicaRef(1, "f.idx"),))
    one.file = FileRef(7, "run/f.dat", 5, one.file.checksum, one.file.replicas, (index,))
    a_loop(place)
    result = one.run()
    failed(result, E.INPUT_UNREADABLE, ErrorClass.TRANSIENT)
    assert "'run/f.idx'" in str(result.message)


def test_a_directory_in_the_place_of_an_input_is_no_input(one: Bench) -> None:
    place = one.folder / "in" / "f.dat"
    place.unlink()
    place.mkdir()
    size = place.stat().st_size
    one.file = FileRef(7, "run/f.dat", size, one.file.checksum, one.file.replicas)
    failed(one.run(), E.INPUT_MISSING, ErrorClass.PERMANENT)


def test_without_another_file_the_marker_tells_that_the_storage_is_well(one: Bench) -> None:
    root = one.folder / "in"
    (root / "other.dat").unlink()
    a_loop(root / "f.dat")
    object.__setattr__(one.node, "patience_s", 0.0)
    failed(one.run(), E.STORAGE_UNAVAILABLE, ErrorClass.OUTAGE)
    (root / MARKER).write_bytes(Marker("this").to_bytes())
    one.node.storages[1] = LocalDriver("in", root, Identity("this", marked=True))  # type: ignore[index]
    failed(one.run(), E.INPUT_UNREADABLE, ErrorClass.TRANSIENT)
    (root / MARKER).write_bytes(Marker("another").to_bytes())
    failed(one.run(), E.STORAGE_UNAVAILABLE, ErrorClass.OUTAGE)


def test_another_copy_that_can_be_read_will_do(one: Bench) -> None:
    a_loop(one.folder / "in" / "f.dat")
    (one.folder / "out" / "copy.dat").write_text("hello")
    places = (ReplicaRef(1, "f.dat"), ReplicaRef(2, "copy.dat"))
    one.file = FileRef(7, "run/f.dat", 5, one.file.checksum, places)
    assert one.run().error is None
    (one.folder / "out" / "copy.dat").unlink()
    failed(one.run(), E.INPUT_UNREADABLE, ErrorClass.TRANSIENT)
    one.file = FileRef(7, "run/f.dat", 5, one.file.checksum, places[::-1])
    failed(one.run(), E.INPUT_UNREADABLE, ErrorClass.TRANSIENT)


def a_file(path: Path) -> None:
    path.write_text("in the way")


def a_link_to_nowhere(path: Path) -> None:
    path.symlink_to("nowhere")


def a_link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


IN_THE_WAY = [a_file, a_link_to_nowhere, a_link_to_itself]


@pytest.mark.parametrize("leave", IN_THE_WAY)
def test_an_output_that_alone_can_not_be_stored_is_no_outage_of_its_storage(
    one: Bench, leave: Callable[[Path], None]
) -> None:
    leave(one.folder / "out" / "out")
    result = one.run()
    failed(result, E.OUTPUT_UNWRITABLE, ErrorClass.TRANSIENT)
    assert result.phase is Phase.STAGE_OUT
    assert str(one.folder / "out" / "out") in str(result.message)
    assert one.troubles == [], "nobody waits for the storage"
    left = [path.name for path in (one.folder / "out").iterdir()]
    assert sorted(left) in (["out"], ["logs", "out"]), "the look leaves nothing"


LIMITED = """
import sys
from pathlib import Path
from tests.unit.test_faults import Bench

one = Bench(Path(sys.argv[1]))
inside, out = one.folder / "in", one.folder / "out"
(inside / "other.dat").write_text("other")
exec(sys.argv[2])
result = one.run()
one.close()
print(result.error, result.outcome)
"""


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ('(inside / "f.dat").chmod(0)', "INPUT_UNREADABLE FAILED"),
        ("[path.chmod(0) for path in inside.iterdir()]", "STORAGE_UNAVAILABLE FAILED"),
        ('(out / "out").mkdir(0o555)', "OUTPUT_UNWRITABLE FAILED"),
        ("out.chmod(0o555)", "STORAGE_UNAVAILABLE FAILED"),
        ('Bench.run = lambda self, run=Bench.run: run(self, "echo x > o; chmod 0 o")',
         "None FINISHED"),
    ],
    ids=["input", "all inputs", "output", "all outputs", "made unreadable"],
)  # fmt: skip
def test_what_a_mode_keeps_from_us_is_told_by_what_it_does_not(
    tmp_path: Path, spoil: str, said: str
) -> None:
    command = [sys.executable, "-c", LIMITED, str(tmp_path), spoil]
    if os.geteuid() == 0:
        if (setpriv := shutil.which("setpriv")) is None:
            pytest.skip("NOT TESTED: modes keep nothing from root, and there is no setpriv")
        command = [setpriv, "--bounding-set=-dac_override,-dac_read_search", *command]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout.split("\n")[0] == said, done.stderr


def at_once(session: Session) -> None:
    session.execute(sa.update(Job).values(not_before=None))


@EVERY_WAY
@pytest.mark.parametrize("code", sorted(OF_JOBS))
def test_a_files_trouble_is_tried_on_each_other_node_and_keeps_no_other_job_waiting(
    site: Site, code: ErrorCode
) -> None:
    site.node("n", "m", "o")
    for node in ("n", "m"):
        (lease,) = site.lease(node, 1)
        assert lease.ordinal == 0
        site.end([lease], code, node, storage_id=site.run.storage)
        (job, *_) = site.jobs()
        assert (job.state, job.failures) == (JobState.READY, 0)
        assert site.out() == [], "neither the storage nor the node is out"
        assert site.lease(node, 1)[0].ordinal != 0, "another node has time to have it first"
        with site.catalog.write() as session:
            at_once(session)
    site.end(site.lease("o", 1), code, "o")
    (job, *_) = site.jobs()
    assert (job.state, job.error) == (JobState.FAILED, code)
    with site.catalog.read() as session:
        told = " ".join(cause.fact for cause in causes.why_job(session, job))
    assert f"it is {code}" in told


@EVERY_WAY
@pytest.mark.parametrize("code", [*sorted(OF_JOBS), E.PROGRAM_NOT_FOUND])
def test_no_job_is_tried_on_others_for_ever(site: Site, code: ErrorCode) -> None:
    """The other node is there, and has no time."""
    site.node("n", "m")
    for number in range(MAX_SYSTEM_ATTEMPTS):
        assert site.jobs()[0].state is JobState.READY, number
        (lease,) = site.lease("n", 1)
        assert lease.ordinal == 0
        site.end([lease], code)
        with site.catalog.write() as session:
            at_once(session)
            for outage in outages.current(session):
                outages.end(session, outage)
    assert site.jobs()[0].state is JobState.FAILED
