"""Pilots in containers: what a Docker pool's template says of them, and what each node fills in."""

import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from catalog.errors import Unavailable
from catalog.settings import Settings
from flows.server import COOKIE

PROCESS, DOCKER = "process", "docker"
"""What pilots run in, as settings and Prefect call it."""

USER = "SPDF_PILOT_USER"
"""Environment variable of a worker: user and group of its containers, as numbers."""

LABEL = "spdf.pilot"
"""Of every container that a pilot runs in; its value is the node's name."""


def own_image() -> str:
    """The image that `make image` builds from this version."""
    return f"spdf:{version('spdf')}"


def pool_values(settings: Settings) -> dict[str, Any]:
    """Values of a Docker pool's variables: the image, and what containers share with a node."""
    return {
        "image": settings.pilot_image or own_image(),
        "volumes": settings.pilot_volumes or _own_volumes(settings),
    }


def _own_volumes(settings: Settings) -> list[str]:
    """The home, and the work directory where it lies elsewhere, under the same paths.

    One mount for both where that can be: files are linked and renamed only within one.
    """
    assert settings.work_dir is not None
    places = [settings.home]
    if not settings.work_dir.is_relative_to(settings.home):
        places.append(settings.work_dir)
    return [f"{place}:{place}" for place in places]


def pass_settings(template: dict[str, Any]) -> None:
    """Let a template take each setting from the worker that starts the container.

    Only the names go to the server. A node's worker knows its own settings and logins, and gives
    them to its pilots; those it doesn't have are empty, and are read from `spdf.env`.
    """
    names = [f"SPDF_{name.upper()}" for name in Settings.model_fields]
    template["job_configuration"]["env"] |= {
        name: f"{{{{ ${name} }}}}" for name in (*names, COOKIE)
    }
    # The server refuses a placeholder that is no variable, though workers fill these in themselves.
    template["variables"]["properties"] |= {
        f"${name}": {
            "title": name,
            "type": "string",
            "description": "Taken from the worker's own environment.",
        }
        for name in (*names, COOKIE, USER)
    }


def worker_values(settings: Settings) -> Mapping[str, str]:
    """What the environment of a worker of a Docker pool has to say besides its settings."""
    return {
        "SPDF_HOME": str(settings.home),
        "SPDF_WORK_DIR": str(settings.work_dir),
        USER: f"{os.getuid()}:{os.getgid()}",
    }


def check_docker(settings: Settings) -> None:
    """Look whether pilots could start; raises `Unavailable` if no Docker or no image of ours."""
    import docker
    from docker.errors import DockerException, ImageNotFound

    address = os.environ.get("DOCKER_HOST", "its usual socket")
    try:
        client = docker.from_env(timeout=10)
    except DockerException as error:
        raise _no_docker(address) from error
    try:
        client.images.get(settings.pilot_image or own_image())
    except ImageNotFound as error:
        # Another image is pulled by the worker that needs it.
        if not settings.pilot_image:
            raise Unavailable(
                f"Docker has no image {own_image()} for pilots; build it with `make image`, "
                "or name another in SPDF_PILOT_IMAGE."
            ) from error
    except (DockerException, OSError) as error:
        raise _no_docker(address) from error
    finally:
        client.close()


def remove_ended(kept_s: float) -> int:
    """Remove the containers of pilots that ended longer ago than that; gives how many.

    Raises docker's `DockerException`, or OSError, where no Docker answers.
    """
    import docker
    from docker.errors import NotFound

    count = 0
    client = docker.from_env(timeout=30)
    try:
        ended = {"label": LABEL, "status": ["created", "exited", "dead"]}
        for container in client.containers.list(all=True, filters=ended, ignore_removed=True):
            if _age_s(container.attrs) > kept_s:
                with suppress(NotFound):
                    container.remove()
                    count += 1
    finally:
        client.close()
    return count


def _age_s(container: Mapping[str, Any]) -> float:
    """Seconds since a container ended; since it was made, where it could not be started."""
    state = container["State"]
    since = container["Created"] if state["Status"] == "created" else state["FinishedAt"]
    return (datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds()


def _no_docker(address: str) -> Unavailable:
    return Unavailable(
        f"SPDF_PILOTS_IN is docker, and no Docker answers at {address}; "
        "start it, name it in DOCKER_HOST, or set SPDF_PILOTS_IN=process."
    )
