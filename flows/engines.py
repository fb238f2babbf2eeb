"""Container engines: whether the nodes of each pool can run a plan's stages."""

from sqlmodel import Session

from catalog import nodes
from catalog.errors import Conflict
from catalog.settings import get_settings
from flows.plan import Plan


def check_engines(session: Session, plan: Plan) -> None:
    """Raise `Conflict` where a stage runs in a container and a node of its pool has no engine.

    A pool of which no node is online is judged by those that were; one that never had a node is
    served by this machine, and its own setting counts.
    """
    for stage in plan.stages:
        if stage.image is not None and (lack := _lack(session, stage.pool)):
            raise Conflict(
                f"stage {stage.name!r} runs in the image {stage.image!r} (DockerRequirement), and "
                f"{lack}; set SPDF_CONTAINER_ENGINE to docker or podman there and start it again, "
                "or move DockerRequirement to `hints` and install the program on the nodes."
            )


def _lack(session: Session, pool: str) -> str:
    """Who of a pool has no engine; empty where all have one."""
    known = nodes.online(session, pool) or [
        node for node in nodes.list_nodes(session) if node.pool == pool
    ]
    if known:
        names = ", ".join(node.name for node in known if not node.engine)
        return names and f"of the pool {pool!r} has no container engine: {names}"
    if get_settings().container_engine:
        return ""
    return f"this machine, which serves the pool {pool!r}, has no container engine"
