"""Disks that fill up, and processes of ours that die, under a pilot as production runs it.

Nobody's job pays for it: all goes on by itself, once there is room.
"""

import os
import resource
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from catalog import (
    datasets,
    intake,
    jobs,
    outages,
    ownership,
    pilots,
    storages,
    tasks,
    templates,
    workflows,
)
from catalog.db import Catalog
from catalog.errors import ErrorCode, Unavailable
from catalog.models import StorageRole
from catalog.settings import Settings
from catalog.states import JobState, WorkflowState
from flows import templates as template_files
from flows.advance import Chain, advance, load
from flows.shift import Roster, Shift
from flows.submit import Submission, submit
from tests.acceptance.machine import until
from tests.documents import copying
from tests.servers.disks import fill, mounted
from workers.slots import Capacity

BYTES = 20_000
JOBS = 120


class Line:
    """A workflow of many jobs, and the pilots that run it on this machine."""

    def __init__(self, catalog: Catalog, settings: Settings, home: Path) -> None:
        self.catalog, self.settings, self._home = catalog, settings, home
        self.shifts: list[Shift] = []

    def begin(self, *, count: int = JOBS, command: str = "cat", arguments: str = "") -> None:
        """Lay everything down, up to READY jobs."""
        with self.catalog.write() as session:
            places = {
                role: storages.add(session, role, "local", role, str(self._home / role))
                for role in StorageRole
            }
        raws = [self._home / f"f{number:03d}.dat" for number in range(count)]
        for raw in raws:
            raw.write_bytes(os.urandom(BYTES))
        measured = intake.copy_in(raws, places[StorageRole.INPUT], "run")
        with self.catalog.write() as session:
            dataset = datasets.create(session, "run-1")
            intake.add(session, dataset, measured)
            datasets.close(session, dataset)
        (self._home / "copy.cwl").write_text(copying(command, arguments))
        info, _ = template_files.create(self.catalog, self._home / "copy.cwl", mask="run-?")
        with self.catalog.write() as session:
            reference = templates.activate(session, info.id).ref
        workflow, _ = submit(self.catalog, Submission(reference, "run-1", {}))
        with self.catalog.write() as session:
            epoch = ownership.claim(session, workflow, "test", 600.0, None)
        assert epoch is not None
        self.chain: Chain = load(self.catalog, workflow, epoch, 600.0)
        self.task = self.chain.task_ids["copy"]
        advance(self.chain)

    def shift(self) -> None:
        """One pilot's shift."""
        roster = Roster(self.task, "cpu", Capacity(2, 1024), None)
        with Shift(self.catalog, self.settings, roster) as shift:
            self.shifts.append(shift)
            shift.work(lambda window: [shift.begin_job(job) for job in window])

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Pilots, one after the other, until the workflow has ended."""
        over = threading.Event()

        def pilots_come_and_go() -> None:
            while not over.is_set() and advance(self.chain) is WorkflowState.IN_PROGRESS:
                try:
                    self.shift()
                except (RuntimeError, Unavailable):
                    continue

        with ThreadPoolExecutor(1) as pool:
            work = pool.submit(pilots_come_and_go)
            try:
                yield
                until(work.done, lambda: f"{self.counts()} {self.errors()} {self.out()}", 120)
                work.result()
            finally:
                over.set()

    def counts(self) -> dict[JobState, int]:
        with self.catalog.read() as session:
            return tasks.count_jobs(session, [self.task])[self.task]

    def out(self) -> list[str]:
        with self.catalog.read() as session:
            return [outages.sentence(outage) for outage in outages.current(session)]

    def tells(self, words: str) -> None:
        """Wait until an outage is told of in these words."""
        until(lambda: any(words in told for told in self.out()), lambda: f"{words}: {self.out()}")

    def errors(self) -> Counter[str | None]:
        """Of all attempts."""
        with self.catalog.read() as session:
            rows = jobs.list_jobs(session, task_id=self.task, limit=JOBS)
            found = jobs.attempts(session, [row.id for row in rows])
        return Counter(attempt.error for tried in found.values() for attempt in tried)

    def ended_well(self, *codes: ErrorCode) -> None:
        """All is done, no job paid for it, and nothing else happened than these."""
        with self.catalog.read() as session:
            info = workflows.get(session, self.chain.workflow_id)
            assert info.state is WorkflowState.FINISHED, info.reason
            rows = jobs.list_jobs(session, task_id=self.task, limit=JOBS)
        assert {(row.state, row.failures) for row in rows} == {(JobState.FINISHED, 0)}
        errors = self.errors()
        assert errors[None] == len(rows)
        assert set(errors) <= {None, *codes}, errors
        assert self.out() == []


@dataclass(frozen=True)
class Home:
    """Where a test's storages are, and its node's work directory."""

    folder: Path
    settings: Settings


@pytest.fixture
def home(tmp_path: Path) -> Home:
    settings = Settings(
        _env_file=None, home=tmp_path, work_dir=tmp_path / "work", slots=2, memory_mib=1024,
        heartbeat_s=0.5, lease_s=10.0, drain_s=1.0, commit_s=0.05, outage_s=1.0, pilot_idle_s=20.0,
    )  # fmt: skip
    return Home(tmp_path, settings)


@pytest.fixture
def line(catalog: Catalog, home: Home) -> Line:
    return Line(catalog, home.settings, home.folder)


def fill_inodes(disk: Path) -> list[Path]:
    """Take all the inodes of a disk."""
    made: list[Path] = []
    try:
        while True:
            path = disk / f"filler-{len(made)}"
            path.touch()
            made.append(path)
    except OSError:
        return made


def test_a_full_output_storage_costs_no_job_a_try(line: Line, tmp_path: Path) -> None:
    with mounted(tmp_path / "output", "tmpfs", mib=8) as disk:
        line.begin()
        filler = fill(disk)
        with line.at_work():
            until(
                lambda: any("storage output is full" in told for told in line.out()), "it is told"
            )
            until(lambda: not line.counts().get(JobState.RUNNING), "what had begun is back")
            tried = sum(line.errors().values())
            assert line.counts() == {JobState.READY: JOBS}
            time.sleep(2.0)
            assert sum(line.errors().values()) == tried, "nobody tries meanwhile"
            filler.unlink()
        line.ended_well(ErrorCode.STORAGE_FULL)
        assert tried <= 8, "as many as were in hand"


def test_jobs_that_wait_for_a_full_storage_go_on_with_what_they_made(
    catalog: Catalog, home: Home, tmp_path: Path
) -> None:
    line = Line(catalog, home.settings.model_copy(update={"outage_s": 60.0}), home.folder)
    with mounted(tmp_path / "output", "tmpfs", mib=8) as disk:
        line.begin(count=10)
        filler = fill(disk)
        with line.at_work():
            until(line.out, "it is told while they wait")
            filler.unlink()
        line.ended_well()
        assert line.errors() == {None: 10}, "no payload ran twice"


def test_a_storage_without_inodes_is_full(line: Line, tmp_path: Path) -> None:
    with mounted(tmp_path / "output", "tmpfs", mib=8, inodes=300) as disk:
        line.begin(count=20)
        made = fill_inodes(disk)
        with line.at_work():
            until(
                lambda: any("storage output is full" in told for told in line.out()), "it is told"
            )
            for path in made:
                path.unlink()
        line.ended_well(ErrorCode.STORAGE_FULL)


@pytest.mark.parametrize("role", [StorageRole.OUTPUT, StorageRole.INPUT])
def test_a_storage_that_is_away_and_comes_back_fails_nobody(
    line: Line, tmp_path: Path, role: StorageRole
) -> None:
    line.begin(count=20)
    away = tmp_path / "elsewhere"
    (tmp_path / role).rename(away)
    with line.at_work():
        line.tells(f"storage {role}")
        away.rename(tmp_path / role)
    line.ended_well(ErrorCode.STORAGE_UNAVAILABLE, ErrorCode.STORAGE_GONE)


class Gate:
    """A door that payloads wait at, once they have begun."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "gate"
        (self._folder / "waiting").mkdir(parents=True)
        self.script = (
            f"touch {self._folder}/waiting/$$; "
            f"while [ ! -e {self._folder}/open ]; do sleep 0.05; done; "
        )

    def waiting(self) -> int:
        """How many have come so far."""
        return len(list((self._folder / "waiting").iterdir()))

    def open(self) -> None:
        (self._folder / "open").touch()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


@pytest.mark.parametrize("speaks", [True, False])
def test_a_full_work_disk_is_no_fault_of_the_payload(
    line: Line, gate: Gate, tmp_path: Path, *, speaks: bool
) -> None:
    program = tmp_path / "copy.sh"
    quiet = "" if speaks else "exec 2>/dev/null;"
    program.write_text(f"{quiet} set -e; {gate.script} cat $1 > made; cat made")
    with mounted(tmp_path / "work", "tmpfs", mib=16) as disk:
        line.begin(command="sh", arguments=str(program))
        with line.at_work():
            until(lambda: gate.waiting() >= 2, "both slots are at work")
            filler = fill(disk)
            gate.open()
            line.tells("gets no jobs")
            filler.unlink()
        line.ended_well(ErrorCode.NODE_DISK_FULL)
        assert line.errors()[ErrorCode.NODE_DISK_FULL] >= 2, "those that were at work"


def test_a_pilot_begins_once_its_node_has_room(line: Line, tmp_path: Path) -> None:
    with mounted(tmp_path / "work", "tmpfs", mib=8) as disk:
        line.begin(count=10)
        filler = fill(disk)
        with line.at_work():
            line.tells("gets no jobs")
            filler.unlink()
        line.ended_well()


def test_a_work_disk_without_inodes(line: Line, gate: Gate, tmp_path: Path) -> None:
    program = tmp_path / "copy.sh"
    program.write_text(f"set -e; {gate.script} cat $1 > made; cat made")
    with mounted(tmp_path / "work", "tmpfs", mib=16, inodes=400) as disk:
        line.begin(command="sh", arguments=str(program))
        with line.at_work():
            until(lambda: gate.waiting() >= 2, "both slots are at work")
            made = fill_inodes(disk)
            gate.open()
            line.tells("gets no jobs")
            for path in made:
                path.unlink()
        line.ended_well(ErrorCode.NODE_DISK_FULL)


def test_too_many_open_files_are_no_fault_of_the_job(line: Line) -> None:
    line.begin()
    with line.at_work():
        until(lambda: line.counts().get(JobState.FINISHED, 0) > 5, "it has begun")
        for member in members(line):
            member.rlimit(resource.RLIMIT_NOFILE, (3, 4096))
        until(lambda: line.errors()[ErrorCode.NODE_EXHAUSTED], "jobs meet it")
        line.tells("gets no jobs")
        for member in members(line):
            member.rlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    line.ended_well(ErrorCode.NODE_EXHAUSTED)


def members(line: Line) -> list[psutil.Process]:
    """The processes that run the jobs of the pilot that is at work."""
    crew = until(lambda: line.shifts[-1]._crew, "it has a crew")
    return psutil.Process(crew._process.pid).children()


def slowly(folder: Path) -> dict[str, str]:
    """A payload that takes a while."""
    (folder / "slow.sh").write_text("sleep 0.1; cat $1")
    return {"command": "sh", "arguments": str(folder / "slow.sh")}


def test_processes_of_a_pilot_that_die_cost_no_job_a_try(line: Line, tmp_path: Path) -> None:
    line.begin(**slowly(tmp_path))
    with line.at_work():
        for done in (5, 20, 35, 50):
            until(lambda done=done: line.counts().get(JobState.FINISHED, 0) > done, "it goes on")
            members(line)[0].kill()
    line.ended_well(ErrorCode.PROCESS_LOST)
    assert line.errors()[ErrorCode.PROCESS_LOST] <= 8, "one at work and one ahead, each time"
    assert len(line.shifts) == 1, "the pilot went on"


def test_a_first_process_that_dies_ends_its_pilot_and_blames_no_job(
    line: Line, tmp_path: Path
) -> None:
    line.begin(**slowly(tmp_path))
    with line.at_work():
        for number in range(1, 5):
            until(lambda number=number: len(line.shifts) >= number, "there is a pilot")
            crew = until(lambda: line.shifts[-1]._crew, "it has a crew")
            psutil.Process(crew._process.pid).kill()
    line.ended_well(ErrorCode.PROCESS_LOST, ErrorCode.PILOT_STOPPED)
    with line.catalog.read() as session:
        rows = jobs.list_jobs(session, task_id=line.task, limit=JOBS)
    assert {row.losses for row in rows} == {0}


def test_a_pilot_whose_processes_never_start_spends_no_attempt(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers import crew

    line.begin(count=5)
    with monkeypatch.context() as patch:
        patch.setattr(crew.sys, "executable", "/bin/false")
        with pytest.raises(crew.CrewLost):
            line.shift()
    assert line.errors() == {}
    assert line.counts() == {JobState.READY: 5}
    with line.catalog.read() as session:
        assert not any(pilot.ended_at is None for pilot in pilots.list_pilots(session))
