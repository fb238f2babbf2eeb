"""Fixtures of what runs in containers."""

from tests.servers.dockerd import dockerd as dockerd
