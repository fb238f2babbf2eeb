"""The embedded profile as real processes: `up`, `down`, and what is killed in between."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from catalog.settings import Settings
from flows.server import Server, call_api, read_server
from flows.services import Status, UpInfo
from flows.services.processes import environment_of, marked

pytestmark = pytest.mark.xdist_group("server")

ROOT = Path(__file__).parents[2]
CALL = """
import sys
from catalog.settings import get_settings
from flows import services
print(repr(getattr(services, sys.argv[1])(get_settings())))
"""
VALUES = {name: getattr(__import__("flows.services", fromlist=[name]), name)
          for name in ("Status", "UpInfo", "ServiceStatus")}  # fmt: skip


@dataclass
class Home:
    """One SPDF_HOME, driven by processes of its own, as a command line would."""

    path: Path

    def call(self, verb: str) -> Any:
        done = self.run(verb)
        assert done.returncode == 0, done.stderr[-3000:]
        return eval(done.stdout, dict(VALUES))  # noqa: S307

    def run(self, verb: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", CALL, verb],
            env={**os.environ, "SPDF_HOME": str(self.path),
                 "SPDF_DRAIN_S": "5", "SPDF_WATCHDOG_S": "30",
                 "PYTHONPATH": str(ROOT), **environment},
            cwd=self.path.parent,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )  # fmt: skip

    def up(self) -> UpInfo:
        info: UpInfo = self.call("up")
        return info

    def down(self) -> list[str]:
        names: list[str] = self.call("down")
        return names

    def status(self) -> Status:
        status: Status = self.call("status")
        return status

    def pid(self, name: str) -> int:
        found = [s.pid for s in self.status().services if s.name == name]
        assert found and found[0], f"{name} doesn't run"
        return found[0]

    @property
    def server(self) -> Server:
        server = read_server(Settings(home=self.path, _env_file=None))
        assert server is not None
        return server

    def processes(self) -> list[str]:
        return list(marked(self.server.instance).values())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    home = Home(tmp_path_factory.mktemp("services") / "home")
    yield home
    home.run("down")


def until(condition: Any, limit_s: float = 40) -> Any:
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.3)
    raise AssertionError("it did not come to pass")


def test_up_brings_up_everything_and_says_so_a_second_time(home: Home) -> None:
    assert home.status() == Status(False, None, None, None)
    info = home.up()
    assert not info.already
    names = {"server", "recorder", "worker-control", "worker-watchdog", "worker-cpu"}
    assert names <= set(info.services)
    status = home.status()
    assert status.up and all(service.healthy for service in status.services)
    again = home.up()
    assert again.already and again.login == info.login and again.ui_url == info.ui_url
    for name in ("login", "server.json"):
        assert stat.S_IMODE((home.path / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700


def test_the_watchdog_runs_on_its_own_worker(home: Home) -> None:
    runs = {"flow_runs": {"state": {"type": {"any_": ["RUNNING", "COMPLETED"]}}},
            "flows": {"name": {"any_": ["watchdog"]}}}  # fmt: skip
    until(lambda: call_api(home.server, "POST", "/flow_runs/count", runs), 90)


def test_a_service_that_dies_is_started_again(home: Home) -> None:
    before = home.pid("recorder")
    os.kill(before, signal.SIGKILL)

    def again() -> bool:
        found = [s for s in home.status().services if s.name == "recorder"]
        return found[0].healthy and found[0].pid not in (None, before)

    until(again)


def test_a_flow_run_that_died_with_its_worker_gives_its_slot_back(home: Home) -> None:
    """A dead watchdog that holds its slot for ever would leave every workflow to its fate."""
    worker = home.pid("worker-watchdog")
    run_id, process = until(lambda: halted_run(home), 90)
    os.kill(worker, signal.SIGKILL)
    os.kill(process, signal.SIGKILL)
    until(lambda: run_state(home, run_id) == "CRASHED", 90)
    until(lambda: engine_process(home), 90)


def engine_process(home: Home) -> tuple[str, int] | None:
    """A flow run of this home and its process."""
    for process, command in marked(home.server.instance).items():
        if "prefect.engine" in command:
            return environment_of(process).get("PREFECT__FLOW_RUN_ID", ""), process.pid
    return None


def halted_run(home: Home) -> tuple[str, int] | None:
    """A flow run that is at work, and its process, halted: it can't end before it is killed."""
    if (found := engine_process(home)) is None:
        return None
    run_id, process = found
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGSTOP)
        if run_id and run_state(home, run_id) == "RUNNING":
            return found
        os.kill(process, signal.SIGCONT)
    return None


def run_state(home: Home, run_id: str) -> str:
    state: str = call_api(home.server, "GET", f"/flow_runs/{run_id}")["state_type"]
    return state


def test_up_after_a_kill_of_supervisor_and_workers_starts_clean(home: Home) -> None:
    status, login = home.status(), home.server.auth
    assert status.supervisor_pid is not None
    pids = {service.name: service.pid for service in status.services}
    for name in ("worker-control", "worker-cpu", "recorder"):
        os.kill(pids[name] or 0, signal.SIGKILL)
    os.kill(status.supervisor_pid, signal.SIGKILL)
    again = home.up()
    assert not again.already
    assert again.login == login
    assert home.pid("server") != pids["server"], "what was left was stopped"
    assert home.status().up


def test_after_the_supervisor_was_killed_down_still_stops_everything(home: Home) -> None:
    supervisor = home.status().supervisor_pid
    assert supervisor is not None
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: not home.status().up)
    assert len(home.processes()) >= 5
    assert {"server", "recorder", "worker-cpu"} <= set(home.down())
    assert home.processes() == []
    assert home.down() == []


def test_a_reused_pid_is_left_alone(home: Home) -> None:
    """The record names a process that is gone; another has its pid now."""
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        record = home.path / "run" / "worker-cpu.json"
        record.write_text(
            f'{{"name": "worker-cpu", "kind": "worker", "pid": {stranger.pid}, "started": 1.0}}'
        )
        home.down()
        assert stranger.poll() is None
    finally:
        stranger.terminate()
        stranger.wait()


def test_a_start_that_fails_names_the_part_and_leaves_nothing(home: Home) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = home.run("up", SPDF_API_PORT=str(port))
    assert done.returncode != 0
    assert f"port {port} is taken" in done.stderr
    broken = home.run("up", SPDF_WATCHDOG_S="1e300")
    assert broken.returncode != 0
    assert "setup ended 3 times" in broken.stderr
    assert "OverflowError" in broken.stderr, "the end of the log says why"
    assert home.processes() == []
