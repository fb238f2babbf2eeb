"""Fixtures of what runs in containers."""

import pytest

from tests.servers.busybox import import_busybox
from tests.servers.dockerd import Dockerd
from tests.servers.dockerd import dockerd as dockerd
from tests.servers.podman import podman as podman


@pytest.fixture(scope="session")
def busybox(dockerd: Dockerd) -> str:
    """The name of a small image that the daemon has."""
    return import_busybox(dockerd)
