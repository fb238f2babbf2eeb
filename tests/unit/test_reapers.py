"""The end of payloads: all their processes, wherever they went."""

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from catalog.errors import ErrorCode
from tests.acceptance.machine import until
from tests.unit.test_faults import Bench
from tests.unit.test_faults import bench as bench
from workers import reaper
from workers.cwl.failures import NotEnded, ToolFailure, ToolStopped
from workers.cwl.process import Command, Ended, run_command
from workers.reapers import Reapers
from workers.slots import Capacity, Slots
from workers.spec import Resources

PYTHON = sys.executable


@pytest.fixture
def started() -> list[int]:
    """The reapers of a test."""
    return []


@pytest.fixture
def reapers(started: list[int]) -> Iterator[Reapers]:
    made = Reapers(started.append)
    yield made
    made.close()


Run = Callable[..., Ended]


@pytest.fixture
def run(reapers: Reapers, tmp_path: Path) -> Run:
    """Runs a Python script as a payload in the test's directory."""

    def run(script: str, *, stop: threading.Event | None = None, **fields: object) -> Ended:
        words = [PYTHON, "-I", "-S", "-c", script]
        environment = {"PATH": os.defpath}
        command = Command(words, environment, str(tmp_path), str(tmp_path / "log"), **fields)  # type: ignore[arg-type]
        return run_command(command, reapers, stop)

    return run


def alive(pid: int) -> bool:
    return reaper.look(pid) is not None


def pids(folder: Path) -> list[int]:
    """The processes that a payload wrote down."""
    return [int(path.name[4:]) for path in folder.glob("pid-*")]


TOLD = """
import os, signal, sys, time
def told(): open(f"pid-{os.getpid()}", "w").close()
def write(out):
    told()
    while True:
        with open(out, "a") as file: file.write("later\\n")
        time.sleep(0.01)
def wait(count):
    while len([one for one in os.listdir() if one.startswith("pid-")]) < count: time.sleep(0.01)
"""

WAYS = {
    "a session of its own": """
if os.fork() == 0:
    os.setsid()
    write("out")
""",
    "a daemon that closed all descriptors": """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 4096)
        os.chdir("/"); os.chdir(here); os.umask(0)
        write("out")
    os._exit(0)
""",
    "one that ignores signals": """
if os.fork() == 0:
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)
    write("out")
""",
    "one that is stopped": """
if os.fork() == 0:
    os.setsid()
    told()
    os.kill(os.getpid(), signal.SIGSTOP)
    write("out")
""",
    "a group in the session": """
if os.fork() == 0:
    os.setpgid(0, 0)
    write("out")
""",
    "a subreaper of its own with orphans": """
if os.fork() == 0:
    import ctypes
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
    os.setsid()
    if os.fork() == 0:
        if os.fork() == 0:
            os.setsid()
            write("out")
        os._exit(0)
    write("out")
""",
}


@pytest.mark.parametrize("way", WAYS)
def test_a_payload_has_ended_when_all_its_processes_have(
    way: str, run: Run, tmp_path: Path
) -> None:
    count = 2 if "orphans" in way else 1
    ended = run(f"{TOLD}\nhere = {str(tmp_path)!r}\n{WAYS[way]}\nwait({count})")
    assert ended.exit_code == 0
    assert len(pids(tmp_path)) == count
    assert not any(map(alive, pids(tmp_path)))
    out = tmp_path / "out"
    before = out.read_bytes() if out.exists() else None
    time.sleep(0.1)
    assert (out.read_bytes() if out.exists() else None) == before, "what was stored stands"


def test_processes_that_make_others_all_the_time_are_ended(run: Run, tmp_path: Path) -> None:
    """Each child lives for a moment only, and is in a session of its own."""
    comet = """
if os.fork() == 0:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if os.fork(): os._exit(0)
        os.setsid()
        open("last", "w").write(str(os.getpid()))
time.sleep(0.1)
"""
    run(TOLD + comet)
    last = (tmp_path / "last").read_text()
    time.sleep(0.1)
    assert (tmp_path / "last").read_text() == last


def test_a_payload_that_forks_in_a_loop_is_ended(run: Run, tmp_path: Path) -> None:
    """Every process makes others, in sessions of their own, as long as there are a few hundred."""
    bomb = """
deadline = time.monotonic() + 60
if os.fork() == 0:
    while time.monotonic() < deadline:
        if len(os.listdir()) < 400 and os.fork() == 0:
            os.setsid()
            told()
        time.sleep(0.001)
wait(50)
"""
    run(TOLD + bomb)
    count = len(pids(tmp_path))
    assert count >= 50
    assert not any(map(alive, pids(tmp_path)))
    time.sleep(0.1)
    assert len(pids(tmp_path)) == count


@pytest.mark.parametrize("how", ["stop", "time"])
def test_a_stop_and_a_time_limit_end_all_of_it(how: str, run: Run, tmp_path: Path) -> None:
    stop = threading.Event()
    script = f"{TOLD}\nhere = {str(tmp_path)!r}\n" + "".join(WAYS.values()) + "time.sleep(600)"
    if how == "time":
        with pytest.raises(ToolFailure) as caught:
            run(script, time_limit_s=2.0)
        assert caught.value.code is ErrorCode.TIME_LIMIT
    else:
        halting = threading.Thread(
            target=lambda: (until(lambda: len(pids(tmp_path)) == 7, "all run", 20), stop.set())
        )
        halting.start()
        with pytest.raises(ToolStopped):
            run(script, stop=stop)
        halting.join()
    assert len(pids(tmp_path)) == 7
    assert not any(map(alive, pids(tmp_path)))


def test_what_all_processes_of_a_payload_used_counts(run: Run) -> None:
    """However much memory who runs it has had."""
    bytearray(b"x" * (300 * 2**20))
    work = "end = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
    grow = "x = bytearray(200 * 2**20)\nfor i in range(0, len(x), 4096): x[i] = 1\n"
    ended = run(f"{TOLD}\nif os.fork() == 0:\n    os.setsid()\n    exec({work + grow!r})\n"
                "    told()\n    time.sleep(600)\nwait(1)")  # fmt: skip
    assert ended.cpu_s > 0.3
    assert ended.peak_rss_bytes > 200 * 2**20


def test_payloads_one_after_the_other_have_one_reaper(
    run: Run, started: list[int], tmp_path: Path
) -> None:
    for _ in range(5):
        run(f"{TOLD}\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(60)\nwait(0)")
    assert len(started) == 1


def test_payloads_at_once_have_reapers_of_their_own(
    run: Run, started: list[int], tmp_path: Path
) -> None:
    """The end of one leaves the daemon of the other alone."""
    other = threading.Thread(
        target=lambda: run(f"{TOLD}\nif os.fork() == 0:\n    os.setsid()\n    write('out')\n"
                           "while not os.path.exists('go'): time.sleep(0.01)")
    )  # fmt: skip
    other.start()
    until(lambda: len(pids(tmp_path)) == 1, "its daemon runs", 20)
    (daemon,) = pids(tmp_path)
    run("pass")
    assert alive(daemon)
    (tmp_path / "go").touch()
    other.join()
    assert not alive(daemon)
    assert len(started) == 2


def test_a_reaper_that_died_at_rest_is_replaced(run: Run, started: list[int]) -> None:
    run("pass")
    os.kill(started[0], signal.SIGKILL)
    until(lambda: state(started[0]) == "Z", "it is dead", 20)
    assert run("pass").exit_code == 0
    assert len(started) == 2


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_payload_that_ends_or_halts_its_reaper_fails_and_is_ended(
    number: int, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.reapers._DEATH_S", 0.5)
    script = f"{TOLD}\ntold(); os.kill(os.getppid(), {number:d}); time.sleep(600)"
    with pytest.raises(ToolFailure) as caught:
        run(script, time_limit_s=1.0)
    assert caught.value.code is ErrorCode.REAPER_LOST
    assert not any(map(alive, pids(tmp_path)))


REFUSED = """
import os, sys
sys.path.insert(0, {folder!r})
import reaper
kill = os.kill
def refuse(pid, number):
    if os.path.exists(f"{{spared}}/pid-{{pid}}"): raise PermissionError(1, "not permitted")
    kill(pid, number)
spared = {spared!r}
os.kill = refuse
reaper._END_S = 0.5
reaper.main()
"""
"""A reaper that may not kill some processes: what a program of another user's is to it."""


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(Path(reaper.__file__).parent)
    program = tmp_path / "refused.py"
    program.write_text(REFUSED.format(folder=folder, spared=str(tmp_path)))
    monkeypatch.setattr(reaper, "__file__", str(program))


@pytest.mark.usefixtures("refused")
def test_a_payload_with_a_process_that_can_not_be_ended_fails(
    run: Run, started: list[int], tmp_path: Path
) -> None:
    reader, writer = os.pipe()
    with pytest.raises(NotEnded, match=r"can't be ended .*: python") as caught:
        run(f"{TOLD}\nif os.fork() == 0:\n    os.setsid()\n    os.closerange(0, 4096)\n"
            "    told()\n    time.sleep(600)\nwait(1)", keep=(writer,))  # fmt: skip
    os.close(writer)
    assert caught.value.code is ErrorCode.PAYLOAD_REMAINS
    (pid,) = pids(tmp_path)
    assert str(pid) in str(caught.value)
    assert alive(pid)
    os.set_blocking(reader, False)
    with pytest.raises(BlockingIOError):
        os.read(reader, 1)  # what it was given is still in use
    assert run("pass").exit_code == 0, "by another reaper"
    assert len(started) == 2
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid) and state(started[0]) == "Z", "its reaper ends after it", 20)
    assert os.read(reader, 1) == b""
    os.close(reader)


@pytest.mark.usefixtures("refused")
def test_what_can_not_be_ended_keeps_its_tokens_from_the_next_job(run: Run, tmp_path: Path) -> None:
    slots, need = Slots(tmp_path / "slots", Capacity(1, 64)), Resources(ram_mib=64)
    stop, begun = threading.Event(), threading.Event()

    def next_job() -> None:
        with slots.take(need, stop) as grant:
            if grant is not None:
                begun.set()

    waiting = threading.Thread(target=next_job)
    try:
        with pytest.raises(NotEnded), slots.take(need) as grant:
            assert grant is not None
            waiting.start()
            until(lambda: len(slots._queue) == 1, "the next job waits", 20)
            run(f"{TOLD}\ntold(); time.sleep(600)", time_limit_s=0.5, keep=grant.descriptors)
        assert len(slots._queue) == 1 and not begun.is_set(), "nothing is handed over"
        for pid in pids(tmp_path):
            os.kill(pid, signal.SIGKILL)
        until(begun.is_set, "they are free once it is gone", 20)
    finally:
        for pid in pids(tmp_path):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        stop.set()
        waiting.join()
        slots.close()


@pytest.mark.usefixtures("refused")
def test_nothing_to_which_such_a_process_may_write_is_stored(
    bench: Callable[..., Bench], tmp_path: Path
) -> None:
    one = bench()
    program = tmp_path / "leaves.py"
    program.write_text(
        f"{TOLD}\nprint('begun', flush=True)\nos.chdir({str(tmp_path)!r})\n"
        "if os.fork() == 0:\n    os.setsid()\n    told()\n    time.sleep(600)\nwait(1)"
    )
    result = one.run(f"echo x > o.txt; exec {PYTHON} -I -S {program}")
    (pid,) = pids(tmp_path)
    its_reaper = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(pid, signal.SIGKILL)
    until(lambda: state(its_reaper) == "Z", "its reaper ends after it", 20)
    assert (result.error, result.log_tail) == (ErrorCode.PAYLOAD_REMAINS, "begun\n")
    assert (result.files, result.log) == ((), None)
    assert not any(path.is_file() for path in (tmp_path / "out").rglob("*"))


@pytest.mark.usefixtures("refused")
def test_a_payload_that_can_not_be_stopped_fails(
    run: Run, started: list[int], tmp_path: Path
) -> None:
    with pytest.raises(NotEnded):
        run(f"{TOLD}\ntold(); time.sleep(600)", time_limit_s=0.5)
    for pid in pids(tmp_path):
        os.kill(pid, signal.SIGKILL)
    until(lambda: state(started[0]) == "Z", "its reaper ends after it", 20)


def test_a_program_starts_as_one_does_that_a_shell_starts(reapers: Reapers, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    try:
        script = 'grep -E "SigBlk|SigIgn" /proc/self/status; ls /proc/self/fd | wc -l; pwd'
        log = tmp_path / "log"
        words = ["sh", "-c", script]
        command = Command(words, {"PATH": os.defpath}, str(tmp_path), str(log), keep=(writer,))
        run_command(command, reapers)
        _, blocked, _, ignored, *rest = log.read_text().split()
        assert int(blocked, 16) == 0
        # What a shell has its jobs in the background ignore is inherited.
        ours = Path("/proc/self/status").read_text().partition("SigIgn:")[2].split()[0]
        more = int(ignored, 16) & ~int(ours, 16)
        assert more & 0x7FFFFFFF == 0, "but for the C library's own two"
        # Its streams, what it was given, and the folder that is listed.
        assert rest == ["5", str(tmp_path)]
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_a_text_that_no_program_can_be_given_is_a_bad_input(
    text: str, reapers: Reapers, tmp_path: Path
) -> None:
    for words, environment in ((["true", text], {}), (["true"], {"X": text})):
        command = Command(
            words, {"PATH": os.defpath, **environment}, str(tmp_path), str(tmp_path / "log")
        )
        with pytest.raises(ToolFailure) as caught:
            run_command(command, reapers)
        assert caught.value.code is ErrorCode.BAD_JOB_INPUT


STARTER = """
import sys
from workers.cwl.process import Command, run_command
from workers.reapers import Reapers
where = sys.argv[1]
shell = "setsid sleep 600 & echo $! > pid.tmp; mv pid.tmp pid; sleep 600"
command = Command(["sh", "-c", shell], {"PATH": "/usr/bin:/bin"}, where, where + "/log")
run_command(command, Reapers(lambda pid: print(pid, flush=True)))
"""


def test_a_reaper_ends_with_whoever_started_it(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [PYTHON, "-c", STARTER, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert parent.stdout is not None
    below = int(parent.stdout.readline())
    until((tmp_path / "pid").exists, "the payload runs", 20)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(lambda: not alive(below), "the reaper is gone", 20)
    assert not alive(int((tmp_path / "pid").read_text()))


HEIR = """
import os, sys
from pathlib import Path
from workers import reapers
from workers.cwl.failures import ToolFailure
from workers.cwl.process import Command, run_command
from workers.reaper import become_subreaper
where = sys.argv[1]
become_subreaper()
reapers._DEATH_S = 0.2
command = Command(
    ["sh", "-c", "kill -STOP $PPID; exit 0"], {"PATH": "/usr/bin:/bin"}, where, where + "/log",
    time_limit_s=0.5,
)
try:
    run_command(command, reapers.Reapers())
except ToolFailure as failure:
    print(failure.code.value)
print(Path(f"/proc/self/task/{os.getpid()}/children").read_text())
"""


def test_a_payload_that_was_dead_before_its_reaper_is_buried(tmp_path: Path) -> None:
    """A process that waited for none of them would have ever more dead children."""
    told = subprocess.run(
        [PYTHON, "-c", HEIR, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert told.stdout.split() == [ErrorCode.REAPER_LOST.value]


def test_a_reaper_that_can_not_be_written_down_is_not_left(tmp_path: Path) -> None:
    made: list[int] = []

    def full(pid: int) -> None:
        made.append(pid)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    reapers = Reapers(full)
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            reapers.run(("/bin/true", ["true"], {}, "/"), (), lambda: 1.0)
    until(lambda: not any(alive(pid) for pid in made), "they have ended", 20)
    assert len(made) == 2
    reapers.close()


def test_a_payload_is_not_started_without_the_files_that_it_is_to_write_to(
    run: Run, started: list[int], tmp_path: Path
) -> None:
    """It would write to others, and its output be empty."""
    run("pass")
    (pid,) = started
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    own = Path(f"/proc/{pid}/fd")
    until(lambda: len(list(own.iterdir())) == 4, "those of the last payload are closed", 20)
    used = {int(path.name) for path in own.iterdir()}
    one_more = next(number for number in range(100) if number not in used) + 1
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (one_more, before[1]))
    with pytest.raises(ToolFailure, match="Too many open files") as caught:
        run("print('said')", stdout=str(tmp_path / "said"))
    assert caught.value.code is ErrorCode.NODE_EXHAUSTED
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    run("print('said')", stdout=str(tmp_path / "said"))
    assert (tmp_path / "said").read_text() == "said\n"
    assert started == [pid], "the reaper goes on"
