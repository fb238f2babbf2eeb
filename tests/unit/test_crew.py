"""The processes that a pilot's jobs run in."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from catalog.errors import ERRORS, ErrorClass, ErrorCode
from catalog.refs import StorageInfo, StorageKind, StorageRole
from catalog.states import Phase
from tests.acceptance.machine import until
from tests.making import made_in
from workers.crew import Crew, CrewLost, Unready
from workers.job import RunningJob
from workers.messages import Channel, connection
from workers.orphans import PayloadLedger
from workers.reaper import look
from workers.slotprocess import Plan
from workers.slots import Capacity
from workers.spec import (
    JobResult,
    JobSpec,
    Outcome,
    OutputPort,
    OutputTarget,
    Resources,
    StepInput,
    StepSpec,
    TaskSpec,
)

OUTPUT, LOGS = 1, 2


class Pilot:
    """A crew, and the ends that it told of. Each end has a text of `long` characters."""

    def __init__(
        self, folder: Path, *, processes: int = 2, devices: int = 0, long: int = 0, doc: str = ""
    ) -> None:
        js = [{"class": "InlineJavascriptRequirement"}]
        text = {"outputEval": f"${{ return 'x'.repeat({long}); }}"}
        tool: dict[str, Any] = {
            "class": "CommandLineTool", "cwlVersion": "v1.2", "id": "say", "doc": doc,
            "baseCommand": ["sh", "-c"], "stdout": "said", "requirements": js, "hints": [],
            "inputs": [{"id": "script", "type": "string", "inputBinding": {"position": 1}}],
            "outputs": [
                {"id": "said", "type": "stdout"},
                {"id": "text", "type": "string", "outputBinding": text},
            ],
        }  # fmt: skip
        ports = OutputPort("said", "File"), OutputPort("text", "value")
        step = StepSpec(tool, (StepInput("script"),), ports)
        targets = {"said": OutputTarget(1, "out", OUTPUT), "log": OutputTarget(2, "logs", OUTPUT)}
        resources = Resources(devices=devices)
        task = TaskSpec(1, "say", 1, step, resources, 1, "digest", {}, {}, targets)
        (folder / "out").mkdir()
        place = str(folder / "out")
        self.ledger = PayloadLedger(folder / "work", 1)
        self.ends: list[JobResult] = []
        plan = Plan(
            name="here",
            task=task,
            work_dir=folder / "work",
            directory=self.ledger.directory,
            capacity=Capacity(cores=8, memory_mib=8192),
            storages=(
                StorageInfo(OUTPUT, "out", StorageKind.LOCAL, StorageRole.OUTPUT, place),
            ),
            verify_linked=False,
            patience_s=1.0,
            engine=None,
            processes=processes,
            threads=2,
        )  # fmt: skip
        self.crew = Crew(plan, self.ledger.held, self.ends.append)
        self.first = self.crew._process.pid

    @property
    def members(self) -> list[int]:
        """The processes that run jobs."""
        return [child.pid for child in psutil.Process(self.first).children()]

    def close(self) -> None:
        self.crew.close()
        self.ledger.close()


@pytest.fixture
def pilot(tmp_path: Path) -> Iterator[Callable[..., Pilot]]:
    yield from made_in(tmp_path, Pilot)


def halted(pilot: Callable[..., Pilot]) -> tuple[Pilot, int]:
    """A pilot with one process that runs jobs, which is stopped; and that."""
    one = pilot(processes=1)
    one.crew.prepare()
    (member,) = one.members
    os.kill(member, signal.SIGSTOP)
    until(lambda: psutil.Process(member).status() == psutil.STATUS_STOPPED, "it is stopped", 20)
    return one, member


def job(number: int, script: str) -> RunningJob:
    return RunningJob(JobSpec(number, number, 1, str(number), number, 1, {}, {"script": script}))


def test_jobs_run_in_several_processes(pilot: Callable[..., Pilot], tmp_path: Path) -> None:
    crew = pilot().crew
    crew.prepare()
    futures = [crew.submit(job(n, "echo $PPID; sleep 0.05")) for n in range(40)]
    results = [future.result(30) for future in futures]
    assert {result.outcome for result in results} == {Outcome.FINISHED}
    parents = {(tmp_path / "out" / file.path).read_text() for r in results for file in r.files}
    assert len(parents) == 2


def test_an_end_is_told_once_and_with_all_that_it_brings(pilot: Callable[..., Pilot]) -> None:
    one = pilot()
    one.crew.prepare()
    running = job(1, "exit 3")
    result = one.crew.submit(running).result(30)
    assert (result.outcome, result.exit_code) == (Outcome.FAILED, 3)
    assert one.ends == [result] and running.ended


def test_a_job_in_progress_is_stopped_and_its_phase_is_known(pilot: Callable[..., Pilot]) -> None:
    one = pilot()
    one.crew.prepare()
    running = job(1, "exec sleep 60")
    future = one.crew.submit(running)
    until(lambda: running.phase is not None, "its phase is told", 20)
    running.halt()
    assert future.result(20).outcome is Outcome.STOPPED


def test_a_job_that_is_drained_is_to_be_tried_again(pilot: Callable[..., Pilot]) -> None:
    one = pilot()
    one.crew.prepare()
    running = job(1, "exec sleep 60")
    future = one.crew.submit(running)
    until(lambda: running.phase is not None, "it is at work", 20)
    running.draining = True
    running.halt()
    assert future.result(20).error is ErrorCode.PILOT_STOPPED


def test_what_has_not_begun_is_taken_back(pilot: Callable[..., Pilot]) -> None:
    one = pilot(processes=1)
    one.crew.prepare()
    first = job(1, "exec sleep 60")
    future = one.crew.submit(first)
    until(lambda: first.phase is not None, "the first is at work", 20)
    others = [job(number, "true") for number in range(2, 400)]
    futures = [one.crew.submit(other) for other in others]
    back = one.crew.recall()
    assert {id(other) for other in back} == {id(other) for other in others}
    assert all(each.cancelled() for each in futures)
    first.halt()
    assert future.result(20).outcome is Outcome.STOPPED


def test_a_job_that_was_given_up_before_it_began_never_runs(
    pilot: Callable[..., Pilot], tmp_path: Path
) -> None:
    one = pilot(processes=1)
    one.crew.prepare()
    first, second = job(1, "exec sleep 60"), job(2, f"touch {tmp_path}/ran")
    begun = one.crew.submit(first)
    until(lambda: first.phase is not None, "the first is at work", 20)
    waiting = one.crew.submit(second)
    second.halt()
    first.halt()
    assert begun.result(20).outcome is Outcome.STOPPED
    assert waiting.result(20).outcome is Outcome.STOPPED
    assert not (tmp_path / "ran").exists()


def test_more_jobs_at_once_where_it_is_made_larger(pilot: Callable[..., Pilot]) -> None:
    one = pilot(processes=1)
    one.crew.prepare()
    one.crew.resize(2)
    both = [job(1, "exec sleep 60"), job(2, "exec sleep 60")]
    futures = [one.crew.submit(each) for each in both]
    until(lambda: all(each.phase is not None for each in both), "both are at work", 20)
    for each in both:
        each.halt()
    assert {future.result(20).outcome for future in futures} == {Outcome.STOPPED}


def test_a_process_that_dies_loses_its_own_job_and_is_replaced(
    pilot: Callable[..., Pilot], tmp_path: Path
) -> None:
    one = pilot()
    one.crew.prepare()
    stay = [job(n, f"echo $$ > {tmp_path}/{n}; exec sleep 60") for n in (1, 2)]
    futures = [one.crew.submit(each) for each in stay]
    until(lambda: all((tmp_path / n).exists() for n in "12"), "both are at work", 20)
    before = set(one.members)
    os.kill(next(iter(before)), signal.SIGKILL)
    until(lambda: any(future.done() for future in futures), "one is lost", 20)
    (gone,) = (future.result() for future in futures if future.done())
    assert (gone.outcome, gone.error, gone.phase) == (
        Outcome.LOST, ErrorCode.PROCESS_LOST, Phase.PAYLOAD,
    )  # fmt: skip
    assert "killed by signal 9" in str(gone.message)
    until(lambda: len(one.members) == 2 and set(one.members) != before, "another is there", 20)
    assert one.crew.fault is None
    assert one.crew.submit(job(3, "echo more")).result(20).outcome is Outcome.FINISHED
    stay[gone.job_id == 1].halt()
    assert [future.result(20).outcome for future in futures].count(Outcome.STOPPED) == 1


def test_each_job_ends_once_however_often_a_process_dies(pilot: Callable[..., Pilot]) -> None:
    one = pilot()
    one.crew.prepare()
    futures = [one.crew.submit(job(number, "sleep 0.02")) for number in range(1, 121)]
    for _ in range(4):
        time.sleep(0.2)
        os.kill(one.members[0], signal.SIGKILL)
    results = [future.result(60) for future in futures]
    assert sorted(result.job_id for result in results) == list(range(1, 121))
    assert len(one.ends) == 120
    lost = [result for result in results if result.outcome is Outcome.LOST]
    assert len(lost) <= 4, "each had one in hand"
    assert {r.outcome for r in results if r not in lost} == {Outcome.FINISHED}


def test_a_job_that_a_process_had_only_just_read_is_run_by_another(
    pilot: Callable[..., Pilot],
) -> None:
    one, member = halted(pilot)
    futures = [one.crew.submit(job(number, "true")) for number in (1, 2)]
    read = one.crew._recalled.receive()
    os.kill(member, signal.SIGKILL)
    assert [future.result(30).outcome for future in futures] == [Outcome.FINISHED] * 2
    assert read.job_id == 1


def test_the_processes_end_with_their_pilot_and_kill_their_payloads(
    pilot: Callable[..., Pilot],
) -> None:
    one = pilot()
    one.crew.prepare()
    running = job(1, "exec sleep 60")
    one.crew.submit(running)
    until(lambda: running.phase is not None, "it is at work", 20)
    tree = psutil.Process(one.first).children(recursive=True)
    assert len(tree) == 4, "two that run jobs, and below one of them a reaper with the payload"
    one.crew.close()
    until(lambda: not any(each.is_running() for each in tree), "all are gone", 20)


def test_they_die_when_the_first_of_them_is_killed(pilot: Callable[..., Pilot]) -> None:
    one = pilot()
    one.crew.prepare()
    tree = psutil.Process(one.first).children(recursive=True)
    os.kill(one.first, signal.SIGKILL)
    until(lambda: not any(each.is_running() for each in tree), "all are gone", 20)
    until(lambda: one.crew.fault is not None, "the pilot knows", 20)


LEAVES = """
python3 - <<'P'
import os
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 4096)
        with open(PIDS, "w") as file:
            file.write(str(os.getpid()))
        os.execvp("sleep", ["sleep", "600"])
    os._exit(0)
P
exec sleep 600
"""
"""A payload whose descendant leaves its group and session, and closes all that it inherited."""


@pytest.fixture
def leaver(tmp_path: Path) -> Callable[[Pilot], int]:
    """Has such a payload run, and gives the number of the process that left it."""

    def leave(one: Pilot) -> int:
        one.crew.prepare()
        pids = tmp_path / "pid"
        one.crew.submit(job(1, LEAVES.replace("PIDS", repr(str(pids)))))
        until(lambda: pids.exists() and bool(pids.read_text()), "it has left", 20)
        return int(pids.read_text())

    return leave


@pytest.mark.parametrize("killed", ["first", "member", "all", "member and reaper"])
def test_what_left_its_payload_ends_whoever_is_killed(
    killed: str, pilot: Callable[..., Pilot], leaver: Callable[[Pilot], int]
) -> None:
    one = pilot(processes=1)
    pid = leaver(one)
    (member,) = one.members
    (reaper,) = [child.pid for child in psutil.Process(member).children()]
    doomed = {
        "first": [one.first],
        "member": [member],
        "all": [one.first, member],
        "member and reaper": [reaper, member],
    }[killed]
    for each in doomed:
        os.kill(each, signal.SIGKILL)
    until(lambda: look(pid) is None, "it is gone", 20)
    until(lambda: look(reaper) is None, "its reaper, too", 20)


def test_a_reaper_that_was_dead_before_its_process_is_buried(
    pilot: Callable[..., Pilot], leaver: Callable[[Pilot], int]
) -> None:
    one = pilot(processes=1)
    leaver(one)
    (member,) = one.members
    (reaper,) = [child.pid for child in psutil.Process(member).children()]
    # The process can't wait for it, so it comes to the first one dead.
    for pid, number in (member, signal.SIGSTOP), (reaper, signal.SIGKILL):
        os.kill(pid, number)
    until(lambda: look(reaper) is None, "it is dead", 20)
    os.kill(member, signal.SIGKILL)
    until(lambda: member not in one.members, "the process is gone", 20)
    until(lambda: len(one.members) == 1 and reaper not in one.members, "one is there anew", 20)


def test_a_job_whose_reaper_is_killed_is_tried_again_and_nothing_of_it_lives_on(
    pilot: Callable[..., Pilot], leaver: Callable[[Pilot], int]
) -> None:
    one = pilot(processes=1)
    pid = leaver(one)
    (reaper,) = [child.pid for child in psutil.Process(one.members[0]).children()]
    os.kill(reaper, signal.SIGKILL)
    until(lambda: bool(one.ends), "its end is told", 20)
    assert one.ends[0].error is ErrorCode.REAPER_LOST
    assert ERRORS[ErrorCode.REAPER_LOST].error_class is ErrorClass.SYSTEM
    assert look(pid) is None
    assert one.crew.submit(job(2, "echo on")).result(20).outcome is Outcome.FINISHED


def test_a_crew_that_dies_before_it_is_ready_is_no_fault_of_the_task(
    pilot: Callable[..., Pilot],
) -> None:
    one = pilot()
    os.kill(one.first, signal.SIGKILL)
    with pytest.raises(CrewLost, match="could not be started"):
        one.crew.prepare()


def test_they_leave_a_signal_to_their_pilot(pilot: Callable[..., Pilot]) -> None:
    one = pilot()
    one.crew.prepare()
    for pid in (one.first, *one.members):
        os.kill(pid, signal.SIGTERM)
    time.sleep(0.3)
    assert one.crew.submit(job(1, "echo still here")).result(20).outcome is Outcome.FINISHED


def test_a_task_that_cannot_run_here_says_so(pilot: Callable[..., Pilot]) -> None:
    with pytest.raises(Unready, match="needs 1 GPU") as caught:
        pilot(devices=1).crew.prepare()
    assert caught.value.code is ErrorCode.NODE_TOO_SMALL


def test_a_long_message_goes_by_a_file_that_is_gone_afterwards(tmp_path: Path) -> None:
    ours, theirs = connection()
    sender, receiver = Channel(ours, tmp_path), Channel(theirs, tmp_path)
    for message in ("short", "long" * 100_000):
        sender.send(message)
        assert receiver.receive() == message
    assert not list(tmp_path.iterdir())
    with pytest.raises(BlockingIOError):
        receiver.receive(wait=False)
    sender.close()
    with pytest.raises(EOFError):
        receiver.receive()
    receiver.close()
