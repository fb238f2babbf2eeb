"""A real S3 server for the tests of one session: Ceph's object gateway on loopback."""

import secrets
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from catalog.settings import Settings, get_settings
from flows.services.rgw import PACKAGES, ObjectStore, program
from flows.site.buckets import ensure_bucket
from tests.servers.install import need
from tests.servers.postgres import free_port


@dataclass
class S3Server:
    """The gateway and what it stands on, each a process that a test may kill and start anew."""

    store: ObjectStore
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, *names: str) -> None:
        """Start the named parts (all, if none is named)."""
        for name, line in self.store.commands().items():
            if names and name not in names:
                continue
            with (self.store.directory / f"{name}.out").open("ab") as log:
                self.processes[name] = subprocess.Popen(
                    line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )

    def kill(self, *names: str) -> None:
        """Kill the named parts (all, if none is named) as a power cut would."""
        for name in names or tuple(self.processes):
            self.processes[name].kill()
            self.processes[name].wait()

    def stop(self) -> None:
        """End all parts, the gateway first."""
        for name in ("rgw", "osd", "mon"):
            process = self.processes.get(name)
            if process is None or process.poll() is not None:
                continue
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def settings(self, home: Path, **more: object) -> Settings:
        """Settings with the server's login, and small parts so that little data has many."""
        given = {
            "s3_url": self.store.url,
            "s3_access_key": self.store.access_key,
            "s3_secret_key": self.store.secret_key,
            "s3_part_bytes": 5 * 2**20,
            **more,
        }
        return Settings(_env_file=None, home=home, **given)

    def bucket(self, home: Path) -> str:
        """The address of a new bucket."""
        return ensure_bucket(self.settings(home), f"test-{secrets.token_hex(4)}")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server that runs; its data go with the session."""
    need(lambda: [program(name) for name in PACKAGES], *PACKAGES)
    directory = tmp_path_factory.mktemp("s3") / "store"
    store = ObjectStore(directory, free_port(), secrets.token_hex(10), secrets.token_urlsafe(30))
    store.prepare()
    server = S3Server(store)
    try:
        server.start()
        store.wait_ready()
        yield server
    finally:
        server.stop()


@pytest.fixture
def s3_logins(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """The server's login in the environment, from which all settings are made meanwhile."""
    settings = s3_server.settings(tmp_path)
    monkeypatch.setenv("SPDF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SPDF_S3_ACCESS_KEY", settings.s3_access_key.get_secret_value())
    monkeypatch.setenv("SPDF_S3_SECRET_KEY", settings.s3_secret_key.get_secret_value())
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()
