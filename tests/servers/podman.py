"""Podman with images and containers of one session. It has no daemon, and pulls nothing."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from catalog.errors import Unavailable
from tests.servers.install import need

PACKAGES = ("podman", "runc")
_STORAGE = """
[storage]
driver = "vfs"
graphroot = "{directory}/graph"
runroot = "{directory}/run"
"""
_CONTAINERS = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
"""


@dataclass(frozen=True)
class Podman:
    """Podman's command with all that it keeps below a directory."""

    directory: Path
    environment: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        own = {
            "CONTAINERS_STORAGE_CONF": f"{self.directory}/storage.conf",
            "CONTAINERS_CONF": f"{self.directory}/containers.conf",
        }
        object.__setattr__(self, "environment", {**os.environ, **own})

    def configure(self) -> None:
        """Write its configuration."""
        text = _STORAGE.format(directory=self.directory)
        (self.directory / "storage.conf").write_text(text)
        (self.directory / "containers.conf").write_text(_CONTAINERS)

    def run(self, *words: str) -> str:
        """What the `podman` command prints, which succeeds."""
        done = subprocess.run(
            ["podman", *words], env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"podman {words}: {done.stderr}"
        return done.stdout


@pytest.fixture(scope="session")
def podman() -> Iterator[Podman]:
    """A podman that works; its images and containers go with the session. Needs root."""
    need(lambda: [_program(name) for name in PACKAGES], *PACKAGES)
    with tempfile.TemporaryDirectory(prefix="spdf-podman-", ignore_cleanup_errors=True) as place:
        engine = Podman(Path(place))
        engine.configure()
        yield engine
        engine.run("rm", "--all", "--force")


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None or os.geteuid() != 0:
        raise Unavailable(f"the tests' podman needs root and {name}; install {PACKAGES}.")
    return found
