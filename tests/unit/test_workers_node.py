"""Tokens of a node, and the burial of dead pilots' payloads."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from catalog.errors import BadInput
from catalog.settings import Settings
from catalog.states import Phase
from flows.shift.hand import Hand
from tests.acceptance.machine import until
from workers.devices import capacity, memory_mib
from workers.job import RunningJob
from workers.orphans import PayloadLedger, clean_dead, living_reapers
from workers.reaper import look
from workers.slots import Capacity, Slots
from workers.spec import JobSpec, Resources


def need(cores: float = 1, devices: int = 0, ram_mib: int = 1, share: int = 1) -> Resources:
    """What a job of a test asks for."""
    return Resources(cores=cores, ram_mib=ram_mib, devices=devices, jobs_per_device=share)


@pytest.fixture
def at_once() -> threading.Event:
    """A stop that has come: who can't have its tokens now gets none."""
    stop = threading.Event()
    stop.set()
    return stop


def test_cores_are_shared_by_all_pilots_of_a_node(tmp_path: Path, at_once: threading.Event) -> None:
    one, other = Slots(tmp_path, Capacity(2, 64)), Slots(tmp_path, Capacity(2, 64))
    with one.take(need()) as first, other.take(need()) as second:
        assert first is not None
        assert second is not None
        with one.take(need(), at_once) as third:
            assert third is None, "both cores are taken"
    with one.take(need(2), at_once) as both:
        assert both is not None, "tokens come back"


def test_a_core_is_found_beyond_those_taken_in_another_order(tmp_path: Path) -> None:
    slots, got = Slots(tmp_path, Capacity(3, 64)), threading.Event()

    def take() -> None:
        with slots.take(need()):
            got.set()

    with ExitStack() as first:
        first.enter_context(slots.take(need()))
        with slots.take(need()):
            first.close()
            with slots.take(need()):
                threading.Thread(target=take, daemon=True).start()
                assert got.wait(10), "the third core is free"


def test_memory_is_shared_by_all_pilots_of_a_node(tmp_path: Path, at_once: threading.Event) -> None:
    one, other = Slots(tmp_path, Capacity(8, 100)), Slots(tmp_path, Capacity(8, 100))
    with one.take(need(ram_mib=30)), other.take(need(ram_mib=30)) as middle:
        assert middle is not None
        with one.take(need(ram_mib=41), at_once) as too_much:
            assert too_much is None
        with one.take(need(ram_mib=40), at_once) as rest:
            assert rest is not None


def test_memory_in_pieces_is_as_good_as_in_one(tmp_path: Path, at_once: threading.Event) -> None:
    slots = Slots(tmp_path, Capacity(8, 100))
    with ExitStack() as first, slots.take(need(ram_mib=40)):
        first.enter_context(slots.take(need(ram_mib=30)))
        with slots.take(need(ram_mib=20)):
            first.close()
            with slots.take(need(ram_mib=41), at_once) as too_much:
                assert too_much is None
            with slots.take(need(ram_mib=40), at_once) as pieces:
                assert pieces is not None


def test_a_job_that_asks_for_more_than_the_node_gets_all_of_it(
    tmp_path: Path, at_once: threading.Event
) -> None:
    slots = Slots(tmp_path, Capacity(2, 64))
    for greedy in (need(cores=16), need(ram_mib=500)):
        with slots.take(greedy) as grant:
            assert grant is not None
            assert grant.cores <= 2
            with slots.take(need(), at_once) as other:
                assert other is None


def test_two_jobs_never_share_a_device(tmp_path: Path, at_once: threading.Event) -> None:
    slots = Slots(tmp_path, Capacity(4, 64, devices=(0, 3)))
    with slots.take(need(1, 1)) as one, slots.take(need(1, 1)) as other:
        assert one is not None
        assert other is not None
        assert {*one.devices, *other.devices} == {0, 3}
        for share in (1, 8):
            with slots.take(need(1, 1, share=share), at_once) as third:
                assert third is None
        with slots.take(need(), at_once) as plain:
            assert plain is not None
            assert plain.devices == ()


def test_jobs_share_a_device_where_their_stage_allows(
    tmp_path: Path, at_once: threading.Event
) -> None:
    slots = Slots(tmp_path, Capacity(8, 64, devices=(5,)))
    with ExitStack() as held:
        for _ in range(3):
            grant = held.enter_context(slots.take(need(1, 1, share=3), at_once))
            assert grant is not None
            assert grant.devices == (5,)
        for share in (1, 3):
            with slots.take(need(1, 1, share=share), at_once) as another:
                assert another is None


def test_of_many_pilots_that_ask_at_once_only_one_gets_the_device(tmp_path: Path) -> None:
    inside, most = 0, 0
    counting = threading.Lock()

    def pilot() -> None:
        nonlocal inside, most
        slots = Slots(tmp_path, Capacity(8, 64, devices=(0,)))
        for _ in range(60):
            with slots.take(need(1, 1)):
                with counting:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0)
                with counting:
                    inside -= 1

    threads = [threading.Thread(target=pilot) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == 1


def test_a_payload_keeps_the_tokens_of_its_dead_pilot(
    tmp_path: Path, at_once: threading.Event
) -> None:
    slots = Slots(tmp_path, Capacity(4, 64, devices=(0,)))
    with slots.take(need(1, 1)) as grant:
        assert grant is not None
        payload = subprocess.Popen(["sleep", "300"], pass_fds=grant.descriptors)
    try:
        with slots.take(need(1, 1), at_once) as other:
            assert other is None, "the device is still in use"
    finally:
        payload.kill()
        payload.wait()
    with slots.take(need(1, 1), at_once) as other:
        assert other is not None


def test_a_node_without_as_many_devices_never_can(tmp_path: Path) -> None:
    slots = Slots(tmp_path, Capacity(4, 64, devices=(0,)))
    assert slots.can_ever(need(64, 1, ram_mib=10_000))
    assert not slots.can_ever(need(1, 2))


def test_a_waiting_job_gets_the_token_when_it_is_free(tmp_path: Path) -> None:
    slots, got = Slots(tmp_path, Capacity(1, 64)), threading.Event()

    def wait() -> None:
        with slots.take(need()) as grant:
            assert grant is not None
            got.set()

    with slots.take(need()):
        thread = threading.Thread(target=wait)
        thread.start()
        assert not got.wait(0.2)
    assert got.wait(10)
    thread.join()


def test_jobs_of_a_pilot_are_served_in_the_order_in_which_they_ask(tmp_path: Path) -> None:
    slots, served = Slots(tmp_path, Capacity(1, 64)), []
    asking = threading.Semaphore(0)

    def job(number: int) -> None:
        asking.release()
        with slots.take(need()):
            served.append(number)

    with slots.take(need()):
        threads = [threading.Thread(target=job, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
            assert asking.acquire(timeout=10)
            time.sleep(0.07)  # longer than the longest pause between two looks
    for thread in threads:
        thread.join(10)
    assert served == list(range(8))


def test_tokens_go_from_job_to_job_of_a_pilot_without_being_looked_for(tmp_path: Path) -> None:
    slots, seen = Slots(tmp_path, Capacity(1, 64)), []

    def job() -> None:
        with slots.take(need()) as grant:
            assert grant is not None
            seen.append(grant)

    with slots.take(need()) as first:
        threads = [threading.Thread(target=job) for _ in range(3)]
        for thread in threads:
            thread.start()
        while len(slots._queue) < 3:
            time.sleep(0.01)
    for thread in threads:
        thread.join(20)
    assert seen == [first] * 3
    with Slots(tmp_path, Capacity(1, 64)).take(need()) as other:
        assert other is not None, "the last of them gives them back"


def test_a_pilot_of_many_short_jobs_leaves_tokens_to_others(tmp_path: Path) -> None:
    busy, other = Slots(tmp_path, Capacity(1, 64)), Slots(tmp_path, Capacity(1, 64))
    over = threading.Event()

    def jobs() -> None:
        while not over.is_set():
            with busy.take(need(), over):
                time.sleep(0.001)

    threads = [threading.Thread(target=jobs) for _ in range(3)]
    for thread in threads:
        thread.start()
    got = threading.Event()

    def take() -> None:
        with other.take(need()):
            got.set()

    taker = threading.Thread(target=take)
    taker.start()
    try:
        assert got.wait(60)
    finally:
        over.set()
        for thread in (*threads, taker):
            thread.join(60)


def test_tokens_that_were_handed_to_a_job_that_is_stopped_are_not_lost(tmp_path: Path) -> None:
    slots = Slots(tmp_path, Capacity(1, 64))

    def job(stop: threading.Event) -> None:
        with slots.take(need(), stop):
            pass

    for _ in range(200):
        stop = threading.Event()
        waiting = threading.Thread(target=job, args=(stop,))
        with slots.take(need()):
            waiting.start()
            stop.set()
        waiting.join(20)
    with Slots(tmp_path, Capacity(1, 64)).take(need()) as grant:
        assert grant is not None


@pytest.mark.parametrize(
    ("given", "hidden", "numbers"),
    [("0,3", None, (0, 3)), ("2", "0", (2,)), ("", "-1", ())],
)
def test_devices_are_those_that_are_named(
    given: str, hidden: str | None, numbers: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert capacity(Settings(devices=given)).devices == numbers


@pytest.mark.parametrize("given", ["all", "0,0", "0,,1", "-1"])
def test_a_list_of_devices_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(BadInput, match=r"SPDF_DEVICES is .* write the numbers"):
        capacity(Settings(devices=given))


def test_memory_is_what_the_machine_has_or_the_setting_says() -> None:
    has = capacity(Settings()).memory_mib
    assert has == memory_mib()
    assert 64 < has <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    assert capacity(Settings(memory_mib=123)).memory_mib == 123


PILOT = """
import sys
from pathlib import Path
from workers.cwl.process import Command, run_command
from workers.orphans import PayloadLedger
from workers.reapers import Reapers
ledger = PayloadLedger(Path(sys.argv[1]), 7)
def started(pid):
    ledger.started(pid)
    print(pid, flush=True)
where = str(ledger.directory)
command = Command(
    ["sh", "-c", "(setsid sleep 300 &) ; sleep 300 & setsid sh -c 'exec sleep 300' & sleep 300"],
    {"PATH": "/usr/bin:/bin"}, where, where + "/log", keep=[ledger.held],
)
run_command(command, Reapers(started))
"""


@pytest.fixture
def pilot(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that acts as a pilot with one payload of several processes: (pilot, reaper)."""
    process = subprocess.Popen(
        [sys.executable, "-c", PILOT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    reaper = int(process.stdout.readline())
    until(lambda: len(payload(tmp_path)) == 5, "all of it runs", 20)
    yield process, reaper
    for pid in (process.pid, reaper, *payload(tmp_path)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def payload(folder: Path) -> list[int]:
    """The living processes of the pilot's payload, wherever they are: by what they are called."""
    where = str(folder / "pilot-7")
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cwd() == where and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def test_payloads_of_a_dead_pilot_are_ended(
    pilot: tuple[subprocess.Popen[str], int], tmp_path: Path
) -> None:
    process, _ = pilot
    assert clean_dead(tmp_path) == 0
    left = payload(tmp_path)
    assert len(left) == 5, "a living pilot's payloads are left alone"
    process.kill()
    process.wait()
    assert clean_dead(tmp_path) == 1
    assert not any(map(look, left))
    assert not list(tmp_path.glob("pilot-*"))


def test_payloads_of_a_pilot_that_died_with_its_reaper_are_ended(
    pilot: tuple[subprocess.Popen[str], int], tmp_path: Path
) -> None:
    process, reaper = pilot
    left = payload(tmp_path)
    for pid in (process.pid, reaper):
        os.kill(pid, signal.SIGSTOP)
    for pid in (process.pid, reaper):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    assert any(map(look, left))
    until(lambda: clean_dead(tmp_path) == 1, "all of it is ended", 20)
    assert not any(map(look, left))
    assert not list(tmp_path.glob("pilot-*"))


def test_a_reaper_that_still_has_to_do_is_waited_for(
    pilot: tuple[subprocess.Popen[str], int], tmp_path: Path
) -> None:
    process, reaper = pilot
    os.kill(reaper, signal.SIGSTOP)
    process.kill()
    process.wait()
    assert clean_dead(tmp_path) == 0, "its payload may be at work"
    assert len(payload(tmp_path)) == 5
    os.kill(reaper, signal.SIGCONT)
    until(lambda: clean_dead(tmp_path) == 1, "it has ended it", 20)
    until(lambda: look(reaper) is None, "it is gone, too", 20)


def test_a_number_that_is_anothers_by_now_is_left_alone(tmp_path: Path) -> None:
    other = subprocess.Popen(["sleep", "300"], start_new_session=True)
    try:
        dead = subprocess.run(
            [sys.executable, "-c", DIES, str(tmp_path), str(other.pid)], check=False
        )
        assert dead.returncode == -signal.SIGKILL
        assert clean_dead(tmp_path) == 1
        assert other.poll() is None, "it started at another time: it is not the reaper"
    finally:
        other.kill()
        other.wait()


DIES = """
import os, sys
from pathlib import Path
from workers.orphans import PayloadLedger
ledger = PayloadLedger(Path(sys.argv[1]), 7)
(ledger.directory / "payloads").write_text(f"{sys.argv[2]} 1\\n")
os.kill(os.getpid(), 9)
"""


CONTAINER = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc")
"""Runs what follows with process numbers of its own, as in a container."""


@pytest.fixture
def distant(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A container with a pilot and its payload; a line of input kills the pilot alone."""
    if subprocess.run([*CONTAINER, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("NOT TESTED: this machine gives no process number namespaces")
    stay = '"$@" & read line; kill -9 $!; wait $!; echo gone; read line'
    process = subprocess.Popen(
        [*CONTAINER, "--kill-child", "sh", "-c", stay, "sh", sys.executable, "-c", PILOT, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline(), "the payload's group"
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_a_pilot_in_another_container_is_known_by_its_lock(
    distant: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert distant.stdin is not None and distant.stdout is not None
    assert clean_dead(tmp_path) == 0, "its number means nothing here, and it lives"
    (reaper,) = [
        process
        for process in psutil.Process(distant.pid).children(recursive=True)
        if any("reaper.py" in word for word in process.cmdline())
    ]
    reaper.suspend()
    distant.stdin.write("kill the pilot\n")
    distant.stdin.flush()
    assert distant.stdout.readline() == "gone\n"
    assert clean_dead(tmp_path) == 0, "its payload lives, and only those there can kill it"
    assert (tmp_path / "pilot-7" / "payloads").exists()
    distant.kill()
    distant.wait()
    deadline = time.monotonic() + 10
    while not (cleaned := clean_dead(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert cleaned == 1
    assert not list(tmp_path.glob("pilot-*"))


def test_a_pilot_that_ends_leaves_nothing(tmp_path: Path) -> None:
    ledger = PayloadLedger(tmp_path, 1)
    assert (tmp_path / "pilot-1").is_dir()
    ledger.close()
    assert not list(tmp_path.iterdir())


def test_a_phase_is_told_of_jobs_that_run_for_a_while() -> None:
    spec = JobSpec(1, 7, 1, "k", 0, 1, {})
    running = RunningJob(spec)
    hand = Hand()
    hand.add([running])
    assert running.begin()
    running.phase = Phase.PAYLOAD
    assert hand.new_phases() == {}, "it has just begun"
    running._begun -= 5
    assert hand.new_phases() == {7: Phase.PAYLOAD}
    assert hand.new_phases() == {7: Phase.PAYLOAD}, "nobody heard it yet"
    hand.told({7: Phase.PAYLOAD})
    assert hand.new_phases() == {}, "told once"
    running.phase = Phase.STAGE_OUT
    running.ended = True
    assert hand.new_phases() == {}, "its end is about to be registered"


def test_the_end_of_an_attempt_leaves_the_next_one_of_its_job_in_hand() -> None:
    again = RunningJob(JobSpec(1, 8, 1, "k", 0, 2, {}))
    hand = Hand()
    hand.add([RunningJob(JobSpec(1, 7, 1, "k", 0, 1, {}))])
    hand.add([again])
    hand.drop([(1, 1)])
    assert hand.all() == [again]
    hand.drop([(1, 2)])
    assert hand.all() == []


def test_a_line_of_the_ledger_that_a_full_disk_cut_short_spoils_no_other(tmp_path: Path) -> None:
    ledger = PayloadLedger(tmp_path, 1)
    with (ledger.directory / "payloads").open("a") as file:
        file.write("\n4711 99")
    with subprocess.Popen(["sleep", "60"]) as one:
        ledger.started(one.pid)
        assert set(living_reapers(ledger.directory)) == {one.pid}
        one.kill()
    with (ledger.directory / "payloads").open("a") as file:
        file.write("\n47")
    assert living_reapers(ledger.directory) == {}
    ledger.close()
