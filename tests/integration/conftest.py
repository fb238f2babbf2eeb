"""A real Prefect server, one for the whole session."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from catalog.errors import Unavailable
from catalog.settings import Settings
from flows.server import Server, call_api, prefect_home, prepare_server
from flows.services.children import services
from tests.servers.rgw import s3_logins as s3_logins
from tests.servers.rgw import s3_server as s3_server


@pytest.fixture(scope="session")
def server_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a home of its own, outside the user's."""
    home = tmp_path_factory.mktemp("home")
    return Settings(home=home, _env_file=None)


@pytest.fixture(scope="session")
def prefect_server(server_settings: Settings) -> Iterator[Server]:
    """A server that answers, with the settings of the embedded profile."""
    with serve(server_settings) as server:
        yield server


@contextmanager
def serve(settings: Settings) -> Iterator[Server]:
    """A server of these settings, while the block runs."""
    prefect_home(settings).mkdir(parents=True, exist_ok=True)
    server = prepare_server(settings)
    log = settings.home / "server.log"
    with log.open("wb") as stream:
        child = services(settings, server, gpu=False)[0]
        process = subprocess.Popen(
            child.command,
            env=dict(child.env),
            cwd=settings.home,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        _wait_for(server, process, log)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 90
    while True:
        try:
            call_api(server, "GET", "/admin/version")
            return
        except Unavailable:
            if process.poll() is not None or time.monotonic() > until:
                pytest.fail(f"the Prefect server did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
