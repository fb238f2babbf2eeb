"""A site's control host: what `spdf site init` lays down, started as its compose file says.

The images can't be had here; the servers are those of the system's packages, with the addresses
and logins of the files. All that is ours runs by the very commands of the compose file.
"""

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import psycopg
import pytest
from ruamel.yaml import YAML

from catalog.errors import Unavailable
from flows.services import postgres, rgw
from flows.services.postgres import Cluster
from flows.services.rgw import ObjectStore
from flows.site import layout
from tests.acceptance.driver import BIN, COPY, TIMES, WholeSite, clean_environment
from tests.acceptance.machine import until
from tests.servers.install import need
from tests.servers.postgres import PACKAGE

pytestmark = pytest.mark.xdist_group("server")

FILES = 30
PORTS = (layout.POSTGRES_PORT, layout.S3_PORT, layout.REDIS_PORT, layout.API_PORT)


@dataclass
class ControlHost:
    """The directory of a site, and the processes in the place of its containers."""

    home: Path
    ports: dict[int, int]
    """The ports of the test by those of the files."""
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def values(self, name: str) -> dict[str, str]:
        """An environment file."""
        lines = (self.home / name).read_text().splitlines()
        return dict(line.partition("=")[::2] for line in lines)

    def environment(self, *names: str) -> dict[str, str]:
        """What a container with these files has, and the system's own."""
        kept = clean_environment()
        own = {
            "HOME": str(self.home),
            "SPDF_WORK_DIR": str(self.home / "work"),
            "SPDF_NODE": "head",
        }
        path = f"{BIN}{os.pathsep}{kept.get('PATH', os.defpath)}"
        given = {key: value for name in names for key, value in self.values(name).items()}
        return {**kept, **given, **TIMES, **own, "PATH": path}

    def renumbered(self, text: str) -> str:
        """A text of the site with this test's ports."""
        for port, other in self.ports.items():
            text = re.sub(rf"\b{port}\b", str(other), text)
        return text

    def service(self, name: str) -> dict[str, Any]:
        """A service of the compose file, with its values filled in."""
        text = (self.home / "compose.yaml").read_text()
        filled = self.renumbered(Template(text).substitute(self.values(".env")))
        found: dict[str, Any] = YAML(typ="safe").load(filled)["services"][name]
        return found

    def start(self, name: str, *command: str) -> None:
        """Start a service, by its own command if no other is given."""
        service = self.service(name)
        words = list(command) or list(map(str, service["command"]))
        files = service.get("env_file", ["server.env"])
        with (self.home / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                words, env=self.environment(*files), cwd=self.home, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def healthy(self, name: str) -> None:
        """Wait until a service's own health check succeeds."""
        test = list(map(str, self.service(name)["healthcheck"]["test"]))
        assert test[0] == "CMD"
        until(
            lambda: not subprocess.run(test[1:], env=self.environment("server.env"),
                                       capture_output=True, check=False).returncode,
            lambda: f"{name} is healthy: {(self.home / f'{name}.log').read_text()[-2000:]}",
            90,
        )  # fmt: skip

    def stop(self, name: str) -> None:
        """End a service as Docker does: SIGTERM, and SIGKILL after its grace."""
        process = self.processes[name]
        process.send_signal(signal.SIGINT if name == "postgres" else signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def redis_server() -> Path:
    """Where Debian puts it; raises `Unavailable`."""
    path = Path("/usr/bin/redis-server")
    if not path.exists():
        raise Unavailable("redis-server is not installed; `apt-get install redis-server`.")
    return path


@pytest.fixture(scope="module")
def host() -> Iterator[ControlHost]:
    """A control host with everything up but the workers of payloads."""
    need(lambda: postgres.program("postgres"), PACKAGE)
    need(lambda: rgw.program("radosgw"), *rgw.PACKAGES)
    need(redis_server, "redis-server")
    with ExitStack() as stack:
        home = Path("/tmp", f"spdf-host-{os.getpid()}")
        stack.callback(subprocess.run, ["rm", "-rf", home], check=True)
        subprocess.run([BIN / "spdf", "site", "init", home], check=True)
        made = ControlHost(home, dict(zip(PORTS, _free_ports(), strict=True)))
        for path in (*home.glob("*.env"), home / ".env"):
            path.write_text(made.renumbered(path.read_text()))
        try:
            _start_servers(made)
            yield made
        finally:
            for name in reversed(made.processes):
                made.stop(name)


def _free_ports() -> list[int]:
    probes = [socket.socket() for _ in PORTS]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _start_servers(host: ControlHost) -> None:
    logins, ports = host.values(".env"), host.ports
    cluster = Cluster(
        host.home / "postgres", ports[layout.POSTGRES_PORT], "spdf", logins["POSTGRES_PASSWORD"]
    )
    cluster.prepare()
    host.start("postgres", *cluster.command())
    cluster.wait_ready()
    cluster.create_database("spdf")
    with psycopg.connect(cluster.url("spdf"), autocommit=True) as connection:
        connection.execute((host.home / "prefect-database.sql").read_bytes())
    store = ObjectStore(
        host.home / "s3", ports[layout.S3_PORT], logins["S3_ACCESS_KEY"], logins["S3_SECRET_KEY"]
    )
    store.prepare()
    for name, line in store.commands().items():
        with (host.home / f"{name}.log").open("ab") as log:
            host.processes[f"s3-{name}"] = subprocess.Popen(
                line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
    store.wait_ready()
    host.start("redis")
    host.healthy("redis")
    host.start("server-database")
    log = host.home / "server-database.log"
    assert host.processes.pop("server-database").wait(120) == 0, log.read_text()
    host.start("server")
    host.healthy("server")
    host.start("services")
    host.start("setup")
    assert host.processes.pop("setup").wait(120) == 0, (host.home / "setup.log").read_text()
    for name in ("recorder", "intake", "control", "cpu"):
        host.start(name)


def test_the_whole_site_is_right_and_runs_a_workflow(host: ControlHost) -> None:
    api = host.values("node.env")
    user, _, password = api["SPDF_API_AUTH"].partition(":")
    site = WholeSite(
        host.home,
        {**host.environment("spdf.env"), "SPDF_HOME": str(host.home)},
        {"api_url": api["SPDF_API_URL"], "user": user, "password": password},
        api["SPDF_CATALOG_URL"],
    )
    site.online("head")
    until(lambda: site.run("site", "check").returncode == 0, lambda: site.spdf("site", "check"), 60)
    (host.home / "copy.cwl").write_text(COPY)
    site.template(host.home / "copy.cwl", "raw-????")
    files = site.copied("raw-0030", FILES)
    workflow = site.copy("raw-0030", 0.1)
    site.finished(workflow, 120)
    site.came_out(workflow, files, host.home / "got")
    site.shown_as(workflow, {"COMPLETED": FILES})
    posted = site.api(
        "POST", "/events/filter", {"filter": {"event": {"name": ["prefect.task-run.Completed"]}}}
    )
    assert posted["total"] == 0, "its recorder writes them to the server's database"


def test_its_intake_does_what_requests_ask_for(host: ControlHost, tmp_path: Path) -> None:
    site = WholeSite(host.home, {**host.environment("spdf.env"), "SPDF_HOME": str(host.home)})
    request = tmp_path / "request.json"
    request.write_text('{"kind": "dataset.input", "key": "k", "name": "by-request"}')
    assert "1 request answered, 0" in site.spdf("register", request, "--wait")
    assert site.json("dataset", "show", "by-request")["state"] == "OPEN"


def test_check_names_what_is_away(host: ControlHost) -> None:
    site = WholeSite(host.home, {**host.environment("spdf.env"), "SPDF_HOME": str(host.home)})
    until(lambda: site.run("site", "check").returncode == 0, lambda: site.run("site", "check"), 60)
    host.stop("cpu")
    (cpu,) = [one for one in site.json("site", "check", code=1) if not one["right"]]
    assert (cpu["part"], cpu["name"]) == ("workers", "cpu")
    assert "spdf worker start --pool cpu" in cpu["mend"]
    wrong = {**site.environment, "SPDF_S3_SECRET_KEY": "wrong"}
    done = subprocess.run(
        [BIN / "spdf", "site", "check"], env=wrong, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert re.search(r"storage +buffer +NO", done.stdout), done.stdout
