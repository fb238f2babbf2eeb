"""Processes by identity, and the addresses and logins of the embedded server."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from catalog.errors import Conflict, Unavailable
from catalog.settings import Settings
from flows.server import (
    COOKIE,
    base_env,
    client_env,
    prepare_server,
    read_server,
    server_env,
)
from flows.services.processes import ProcessId, end, environment_of, marked, running
from flows.services.records import Record, only_one, read_records, write_record


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, _env_file=None)


def start(*command: str, **environment: str) -> tuple[subprocess.Popen[bytes], ProcessId]:
    process = subprocess.Popen(command, env={**os.environ, **environment})
    identity = ProcessId.of(process.pid)
    assert identity is not None
    return process, identity


def test_a_process_is_its_pid_and_its_start() -> None:
    process, identity = start("sleep", "60")
    try:
        assert identity.alive()
        reused = ProcessId(identity.pid, identity.started - 1)
        assert not reused.alive()
        assert not reused.send(signal.SIGKILL)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    assert not identity.alive()
    assert ProcessId.of(identity.pid) is None


def test_one_that_will_not_stop_is_killed_with_what_it_started() -> None:
    script = "trap '' TERM; sleep 61 & echo $!; wait; sleep 62"
    process = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    child = ProcessId.of(int(process.stdout.readline()))
    parent = ProcessId.of(process.pid)
    assert child is not None and parent is not None
    end([parent], grace_s=0.3, tick=lambda: None)
    process.wait()
    process.stdout.close()
    assert process.returncode == -signal.SIGKILL
    assert not child.alive()


def test_what_was_started_for_a_home_is_known_by_its_mark() -> None:
    process, identity = start("sleep", "60", **{COOKIE: "a-mark-of-this-test"})
    try:
        assert list(marked("a-mark-of-this-test")) == [identity]
        assert environment_of(identity)[COOKIE] == "a-mark-of-this-test"
        assert identity in running(command="sleep 60")
    finally:
        process.kill()
        process.wait()


def test_records_survive_and_a_broken_one_is_left_out(settings: Settings) -> None:
    (settings.home / "run").mkdir()
    record = Record("server", "server", 12, 3.0, restarts=1)
    write_record(settings, record)
    (settings.home / "run" / "half.json").write_text('{"name": ')
    assert read_records(settings) == {"server": record}


def test_two_at_once_are_kept_apart(settings: Settings) -> None:
    with only_one(settings), pytest.raises(Conflict, match="another `spdf up`"), only_one(settings):
        pass
    with only_one(settings):
        pass


def test_login_and_port_stay_and_are_the_owners_alone(settings: Settings) -> None:
    server = prepare_server(settings)
    assert prepare_server(settings) == server == read_server(settings)
    for name in ("login", "server.json"):
        assert stat.S_IMODE((settings.home / name).stat().st_mode) == 0o600
    assert (settings.home / "login").read_text() == f"{server.user}:{server.password}\n"


def test_children_get_our_server_and_not_the_users(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "https://elsewhere.example/api")
    monkeypatch.setenv("PREFECT_API_KEY", "secret")
    with_site = client_env(settings)
    assert "PREFECT_API_AUTH_STRING" not in with_site
    server = prepare_server(settings)
    child = base_env(settings, server)
    assert child["PREFECT_API_URL"] == server.api_url
    assert "PREFECT_API_KEY" not in child
    assert child["DO_NOT_TRACK"] == "1"
    assert server_env(settings, server)["PREFECT_UI_API_URL"] == server.api_url
    assert client_env(settings)["PREFECT_API_URL"] == server.api_url


def test_without_any_server_the_message_says_how_to_get_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(Unavailable, match="spdf up"):
        client_env(settings)


def test_services_do_not_import_prefect() -> None:
    """The command line imports them, and answers `status` without waiting for Prefect."""
    code = "import flows.services, sys; sys.exit('prefect' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
