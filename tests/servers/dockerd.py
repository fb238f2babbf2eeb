"""A private Docker daemon for the tests of one session. It can't pull: images are imported."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from catalog.errors import Unavailable
from tests.servers.install import need

PACKAGES = ("docker.io", "mmdebstrap")
BASE = "spdf-test-base:bookworm"
WITHIN = "python3,python3-venv,ca-certificates"
"""Debian's packages of the base that the project's image is built from."""


@dataclass(frozen=True)
class Dockerd:
    """A daemon below a directory: networks are `none` and `host`, and nothing is pulled."""

    directory: Path
    environment: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        own = {"DOCKER_HOST": f"unix://{self.directory}/socket", "DOCKER_BUILDKIT": "0"}
        object.__setattr__(self, "environment", {**os.environ, **own})

    def command(self) -> list[str]:
        """What runs the daemon."""
        return [
            _program("dockerd"),
            "--iptables=false", "--ip6tables=false", "--ip-masq=false", "--bridge=none",
            f"--data-root={self.directory}/data", f"--exec-root={self.directory}/exec",
            f"--pidfile={self.directory}/pid", f"--host=unix://{self.directory}/socket",
        ]  # fmt: skip

    def run(self, *words: str) -> str:
        """What the `docker` command prints, which succeeds."""
        done = subprocess.run(
            ["docker", *words], env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"docker {words}: {done.stderr}"
        return done.stdout

    def wait_ready(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        """Wait until it answers."""
        end = time.monotonic() + 60
        line = ["docker", "version"]
        while subprocess.run(
            line, env=self.environment, capture_output=True, check=False
        ).returncode:
            late = time.monotonic() > end or process.poll() is not None
            assert not late, f"dockerd doesn't answer: {log.read_text()[-4000:]}"
            time.sleep(0.2)


@pytest.fixture(scope="session")
def dockerd() -> Iterator[Dockerd]:
    """A daemon that runs; its images and containers go with the session. Needs root."""
    need(lambda: [_program(name) for name in ("dockerd", "docker", "mmdebstrap")], *PACKAGES)
    with tempfile.TemporaryDirectory(prefix="spdf-docker-", ignore_cleanup_errors=True) as place:
        daemon = Dockerd(Path(place))
        log = Path(place, "log")
        with log.open("ab") as stream:
            process = subprocess.Popen(daemon.command(), stdout=stream, stderr=stream, cwd="/")
        try:
            daemon.wait_ready(process, log)
            yield daemon
        finally:
            process.terminate()
            process.wait(60)
            for left in Path(place, "exec", "netns").glob("*"):
                subprocess.run(["umount", left], check=False)


def import_base(daemon: Dockerd) -> str:
    """A Debian with Python as an image, made of Debian's packages; gives its name."""
    rootfs = daemon.directory / "rootfs.tar"
    line = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={WITHIN}", "bookworm"]
    subprocess.run([*line, str(rootfs)], check=True, capture_output=True)
    daemon.run("import", str(rootfs), BASE)
    rootfs.unlink()
    return BASE


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None or os.geteuid() != 0:
        raise Unavailable(f"the tests' Docker needs root and {name}; install {PACKAGES}.")
    return found
