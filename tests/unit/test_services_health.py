"""A service that turns without getting anywhere is unhealthy, and is started anew, ever later."""

import errno
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from catalog import db, problems, schema, singletons, troubles
from catalog.db import Catalog
from catalog.outage import Over
from catalog.settings import Settings, get_settings
from catalog.troubles import Of, Troubles
from flows import pulse
from flows.intake import INTAKE
from flows.intake.loops import Loop, Stopped
from flows.pulse import Pulse, pulse_path, read_pulse, tell
from flows.server import Server
from flows.services import children, health, watcher
from flows.services.children import Child
from flows.services.control import _whole
from flows.services.health import DOWN, Condition, Word
from flows.services.keeper import LONGEST_SICK_S, Keeper
from flows.services.processes import ProcessId
from flows.services.records import Record, run_dir, write_record
from flows.services.supervisor import Supervisor
from flows.services.watcher import PATIENCE_S


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Of an embedded profile with a catalog and nothing else."""
    monkeypatch.setenv("SPDF_HOME", str(tmp_path))
    monkeypatch.delenv("SPDF_CATALOG_URL", raising=False)
    get_settings.cache_clear()
    db._catalog.cache_clear()
    schema.upgrade(db.get_catalog())
    run_dir(get_settings()).mkdir()
    yield get_settings()
    db.get_catalog().close()
    get_settings.cache_clear()
    db._catalog.cache_clear()


@pytest.fixture
def server(tmp_path: Path) -> Server:
    """One that doesn't answer."""
    return Server(port=1, user="u", password="p", instance="i")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, which a test moves."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def sleeper() -> Iterator[Callable[[], ProcessId]]:
    """Starts processes that do nothing."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> ProcessId:
        started.append(subprocess.Popen(["sleep", "300"]))
        identity = ProcessId.of(started[-1].pid)
        assert identity is not None
        return identity

    yield start
    for process in started:
        process.kill()
        process.wait()


def fail(beat: Pulse, error: Exception, times: int, clock: list[float], loop: str = "turn") -> None:
    for _ in range(times):
        with pytest.raises(type(error)), beat.turn(loop):
            raise error
        clock[0] += 11.0


def away() -> OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    return OperationalError("SELECT 1", {}, error)


def trouble_of(settings: Settings, beat: Pulse, at: float) -> Any:
    beat.write()
    found = read_pulse(settings, "x", os.getpid())
    assert found is not None
    return found.trouble(at)


def test_turns_that_fail_make_a_service_unhealthy_and_one_that_goes_through_heals_it(
    settings: Settings, clock: list[float]
) -> None:
    beat = Pulse(settings, "x")
    fail(beat, KeyError("odd"), 2, clock)
    assert trouble_of(settings, beat, clock[0]) is None, "it may yet mend"
    fail(beat, KeyError("odd"), 2, clock)
    why, mendable = trouble_of(settings, beat, clock[0])
    assert "loop `turn` failed 4 times" in why and "odd" in why and mendable
    with beat.turn("other"):
        pass
    assert trouble_of(settings, beat, clock[0]) is not None, "another loop that goes heals nothing"
    with beat.turn("turn"):
        pass
    assert trouble_of(settings, beat, clock[0]) is None


def test_an_outage_is_told_and_mended_by_no_new_process(
    settings: Settings, clock: list[float]
) -> None:
    beat = Pulse(settings, "x")
    fail(beat, away(), 5, clock)
    why, mendable = trouble_of(settings, beat, clock[0])
    assert "failed 5 times" in why and not mendable


def test_a_turn_that_does_not_end_makes_a_service_unhealthy(
    settings: Settings, clock: list[float]
) -> None:
    beat = Pulse(settings, "x")
    with beat.turn("turn"):
        clock[0] += pulse.STALLED_S - 1
        assert trouble_of(settings, beat, clock[0]) is None
        clock[0] += 2
        why, mendable = trouble_of(settings, beat, clock[0])
        assert "has not ended a turn" in why and mendable
    assert trouble_of(settings, beat, clock[0]) is None


def test_silence_makes_a_service_unhealthy(settings: Settings, clock: list[float]) -> None:
    beat = Pulse(settings, "x")
    with beat.turn("turn"):
        pass
    beat.write()
    clock[0] += pulse.SILENT_S + 1
    found = json.loads(pulse_path(settings, "x").read_text())
    assert found["loops"]["turn"]["failures"] == 0
    told = read_pulse(settings, "x", found["pid"])
    assert told is not None
    trouble = told.trouble(clock[0])
    assert trouble is not None and "no sign of life" in trouble[0] and trouble[1]
    assert read_pulse(settings, "x", found["pid"] + 1) is None, "that of another process"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"pid":1,"at":1,"loops":{"a":{}}}'])
def test_a_pulse_that_cannot_be_read_is_none(settings: Settings, text: str) -> None:
    pulse_path(settings, "x").write_text(text)
    assert read_pulse(settings, "x", 1) is None


def test_a_pulse_that_cannot_be_written_stops_no_loop(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("no folder")
    beat = Pulse(Settings(home=tmp_path, _env_file=None), "x")
    with beat.turn("turn"):
        beat.write()


def test_a_loop_tells_of_each_turn_and_ends_with_its_role(settings: Settings) -> None:
    beat, stop, turns = Pulse(settings, "x"), threading.Event(), []

    def turn() -> float:
        turns.append(len(turns))
        if len(turns) == 1:
            raise KeyError("once")
        if len(turns) == 3:
            raise Stopped
        return 0.0

    loop = Loop("odd", turn, stop, beat)
    loop.start()
    loop.join(20)
    assert not loop.is_alive() and stop.is_set() and len(turns) == 3
    assert beat.loops()["odd"].failures == 0


def test_what_ends_a_loop_is_no_failure(settings: Settings) -> None:
    beat = Pulse(settings, "x")
    with pytest.raises(Over), beat.turn("turn"):
        raise Stopped
    assert beat.loops()["turn"].failures == 0


def test_others_see_a_loop_that_gets_nowhere_in_rows(
    catalog: Catalog, tmp_path: Path, clock: list[float]
) -> None:
    beat = Pulse(Settings(home=tmp_path, _env_file=None), INTAKE)
    noted = Troubles(catalog, INTAKE)
    fail(beat, KeyError("odd"), 4, clock, "spool")
    for _ in range(2):
        tell(beat, noted, INTAKE)
    with catalog.read() as session:
        (problem,) = problems.problems(session)
    assert "service intake: its loop `spool` gets nowhere" in problem.message
    with beat.turn("spool"):
        pass
    tell(beat, noted, INTAKE)
    with catalog.read() as session:
        assert problems.problems(session) == []


# What `status` says.


def test_an_intake_is_starting_until_it_works_and_unhealthy_once_it_gets_nowhere(
    settings: Settings, server: Server, sleeper: Callable[[], ProcessId],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    process = sleeper()

    def condition() -> Condition:
        return health.check(settings, server)["intake"]

    write_record(settings, Record("intake", children.INTAKE, process.pid, process.started))
    assert condition().word is Word.STARTING
    with monkeypatch.context() as later:
        later.setattr(ProcessId, "age_s", lambda _self: 100.0)
        assert condition() == Condition(Word.UNHEALTHY, "it has not begun to work", True)
    _beats(settings, process.pid, {"ok_at": time.monotonic()})
    assert condition().word is Word.STARTING and "waits for its role" in str(condition().why)
    with db.get_catalog().write() as session:
        assert singletons.acquire(session, INTAKE, f"host:abc:{process.pid}", 60.0)
    assert condition() == health.WELL
    since = time.monotonic() - 100
    _beats(settings, process.pid, {
        "ok_at": since, "failures": 9, "failing_since": since, "why": "odd"
    })  # fmt: skip
    assert condition().word is Word.UNHEALTHY and condition().is_mendable
    write_record(settings, Record("intake", children.INTAKE, 0, 0.0, restarts=1))
    assert condition() == DOWN


def test_a_worker_was_heard_whatever_the_clock_was_when_it_began(
    settings: Settings, server: Server, sleeper: Callable[[], ProcessId],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Its record is of a time to come: the machine came back with its clock three hours behind."""
    process = sleeper()
    write_record(settings, Record("worker-cpu", children.WORKER, process.pid, process.started))
    later = time.time() + 3 * 3600.0
    os.utime(run_dir(settings) / "worker-cpu.json", (later, later))
    name = children.worker_name(settings, "worker-cpu")
    monkeypatch.setattr(health, "_answers", lambda *_: True)
    heard = {name: datetime.now(UTC)}
    monkeypatch.setattr(health, "_worker_beats", lambda _server: heard)
    time.sleep(0.1)
    assert health.check(settings, server)["worker-cpu"] == health.WELL
    heard[name] -= timedelta(hours=1)
    told = health.check(settings, server)["worker-cpu"]
    assert told.word is Word.STARTING, "it was another process before"


def _beats(settings: Settings, pid: int, loop: dict[str, Any]) -> None:
    written = {"pid": pid, "at": time.monotonic(), "loops": {"requests": loop}}
    pulse_path(settings, "intake").write_text(json.dumps(written))


@pytest.mark.parametrize(
    ("words", "supervised", "whole"),
    [
        ({"server": Word.HEALTHY, "setup": Word.HEALTHY}, True, Word.HEALTHY),
        ({"server": Word.HEALTHY}, True, Word.STARTING),
        ({"server": Word.STARTING, "setup": Word.HEALTHY}, True, Word.STARTING),
        ({"server": Word.UNHEALTHY, "setup": Word.HEALTHY}, True, Word.UNHEALTHY),
        ({"server": Word.DOWN, "setup": Word.HEALTHY}, True, Word.UNHEALTHY),
        ({"server": Word.HEALTHY, "setup": Word.HEALTHY}, False, Word.UNHEALTHY),
    ],
)
def test_the_whole_is_as_its_worst_service(
    words: dict[str, Word], supervised: bool, whole: Word
) -> None:
    records = {name: Record(name, children.SETUP if name == "setup" else name, 1, 1.0)
               for name in words}  # fmt: skip
    found = _whole(records, {n: Condition(w) for n, w in words.items()}, supervised=supervised)
    assert found is whole


# What the supervisor does about it.


def keeper_of(command: list[str], tmp_path: Path, name: str = "intake") -> Keeper:
    return Keeper([Child(name, children.INTAKE, tuple(command), {})], cwd=tmp_path)


def test_an_unhealthy_service_is_started_anew_ever_later(
    tmp_path: Path, clock: list[float]
) -> None:
    keeper = keeper_of(["/bin/sleep", "300"], tmp_path)
    (service,) = keeper.services
    waits = []
    for _ in range(12):
        clock[0] += 1000
        assert service.due
        keeper.start(service)
        assert service.process is not None
        keeper.end_sick(service, "it gets nowhere", signal.SIGTERM)
        keeper.end_sick(service, "once is enough", signal.SIGTERM)
        service.process.wait()
        keeper.reap()
        waits.append(service.not_before - clock[0])
    assert waits == sorted(waits) and waits[0] == 2.0 and waits[-1] == LONGEST_SICK_S
    assert service.restarts == 12


def test_one_that_will_not_end_is_killed(tmp_path: Path, clock: list[float]) -> None:
    script = "import signal,time; signal.signal(15, signal.SIG_IGN); print(flush=True)\n"
    keeper = Keeper(
        [Child("x", children.INTAKE, (sys.executable, "-c", script + "time.sleep(300)"), {})],
        cwd=tmp_path, log=lambda _name: (tmp_path / "log").open("ab"),
    )  # fmt: skip
    (service,) = keeper.services
    keeper.start(service)
    assert service.process is not None
    while not (tmp_path / "log").stat().st_size:
        assert service.process.poll() is None
    keeper.end_sick(service, "it gets nowhere", signal.SIGTERM)
    keeper.kill_unwilling(10.0)
    assert service.process.poll() is None
    clock[0] += 11
    keeper.kill_unwilling(10.0)
    assert service.process.wait() == -signal.SIGKILL


def test_the_supervisor_starts_anew_what_is_unhealthy_for_long_and_nothing_else(
    settings: Settings, server: Server, monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    said = {"intake": Condition(Word.UNHEALTHY, "odd", True),
            "recorder": Condition(Word.UNHEALTHY, "the catalog is away", False),
            "worker-cpu": Condition(Word.HEALTHY)}  # fmt: skip
    monkeypatch.setattr(watcher, "check", lambda *_: said)
    wanted = [Child("intake", children.INTAKE, ("/bin/sleep", "300"), {}),
              Child("recorder", children.RECORDER, ("/bin/sleep", "300"), {}),
              Child("worker-cpu", children.WORKER, ("/bin/sleep", "300"), {})]  # fmt: skip
    monkeypatch.setattr(children, "services", lambda *_args, **_more: tuple(wanted))
    monkeypatch.setattr("flows.services.supervisor.bury_dead_runs", lambda *_: 0)
    (settings.home / "log").mkdir()
    supervisor = Supervisor(settings, server)
    try:
        supervisor._tick()
        supervisor.watcher.look()
        supervisor._tick()
        assert all(s.ended_at is None for s in supervisor.keeper.services), "since just now"
        clock[0] += PATIENCE_S + 1
        supervisor.watcher.look()
        supervisor._tick()
        ended = [s.child.name for s in supervisor.keeper.services if s.ended_at is not None]
        assert ended == ["intake"]
    finally:
        for service in supervisor.keeper.services:
            if service.process:
                service.process.kill()
                service.process.wait()


def test_a_service_that_cannot_be_started_keeps_no_other_from_it(
    settings: Settings, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [Child("broken", children.INTAKE, ("/nowhere/at/all",), {}),
              Child("other", children.INTAKE, ("/bin/true",), {})]  # fmt: skip
    monkeypatch.setattr(children, "services", lambda *_args, **_more: tuple(wanted))

    def no_room(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("flows.services.supervisor.bury_dead_runs", no_room)
    (settings.home / "log").mkdir()
    supervisor = Supervisor(settings, server)
    supervisor._tick()
    other = supervisor.keeper.services[1].process
    assert other is not None and other.wait() == 0
    assert supervisor.keeper.services[0].process is None


def test_problems_of_one_source_hide_no_others(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_session: Any) -> Any:
        raise KeyError("odd")

    monkeypatch.setattr(
        problems, "SOURCES", {"odd": broken, "good": lambda _s: ["all is lost"], **problems.SOURCES}
    )
    with catalog.write() as session:
        troubles.write(session, "match", Of.DATASET, 1, "run-1", "no template fits")
    with catalog.read() as session:
        told = [(p.source, p.message) for p in problems.problems(session)]
    assert told[0][0] == "odd" and "KeyError" in told[0][1]
    assert told[1] == ("good", "all is lost")
    assert "dataset run-1: no template fits" in told[2][1]
