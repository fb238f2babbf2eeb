"""`spdf worker`: what serves a pool on a compute node, and the nodes that there are."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from catalog.counts import count_of
from catalog.errors import Conflict, Unavailable
from cli.home import open_catalog, settings
from cli.output import Json, note, plain, print_json, say, show_list
from cli.parameters import MOST_SLOTS

if TYPE_CHECKING:
    from catalog.nodes import NodeInfo

app = typer.Typer(name="worker", help="Compute nodes and their workers.", no_args_is_help=True)


class Pool(StrEnum):
    """The pools of a site."""

    CONTROL = "control"
    CPU = "cpu"
    GPU = "gpu"


Node = Annotated[str, typer.Argument(metavar="NODE", help="Name of a node.")]
OfPool = Annotated[Pool | None, typer.Option("--pool", help="Only its worker of this pool.")]


@app.command()
def start(
    pool: Annotated[Pool, typer.Option(help="Pool to serve.")],
    slots: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST_SLOTS, help="Cores for payloads; SPDF_SLOTS or all by default."
        ),
    ] = None,
) -> None:
    """Serve a pool on this node until SIGTERM, which lets running jobs finish or hands them back.

    Jobs get SPDF_DRAIN_S seconds for it. Logs go to standard error.
    """
    from flows.logs import log_to_stderr
    from flows.server import ask, client_env

    current = settings()
    if slots is not None:
        current = current.model_copy(update={"slots": slots})
    env = client_env(current)
    open_catalog()
    url, login = env.get("PREFECT_API_URL", ""), env.get("PREFECT_API_AUTH_STRING", "")
    found = ask(url, login, "GET", f"/work_pools/{pool}")
    if found is None:
        raise Unavailable(
            f"the server at {url} has no pool {pool}; `spdf site setup` lays it down."
        )
    assert current.work_dir is not None
    try:
        current.work_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(
            f"the work directory {current.work_dir} can't be made ({error.strerror}); name one "
            "that this user may write in SPDF_WORK_DIR."
        ) from error
    from flows.services.daemon import Daemon

    log_to_stderr(current)
    Daemon(current, str(pool), found["type"]).run()


@app.command("list")
def list_all(
    online: Annotated[bool, typer.Option("--online", help="Only those that are there.")] = False,
    as_json: Json = False,
) -> None:
    """List compute nodes: a line for each pool that one serves."""
    from catalog import nodes

    with open_catalog().read() as session:
        found = nodes.list_nodes(session, present=online)
    show_list(
        found,
        as_json,
        lambda n: {
            "node": n.name,
            "pool": n.pool,
            "state": n.state,
            "slots": n.slots,
            "memory MiB": n.memory_mib,
            "GPUs": len(n.devices),
            "containers": n.engine,
            "spdf": n.program,
            "last beat": n.beat_at,
            "clock": _clock(n),
            "why": n.reason,
        },
        empty="no nodes; `spdf worker start` makes this machine one.",
    )


def _clock(info: "NodeInfo") -> str | None:
    """How far a node's clock is off; nobody is kept busy by tenths of a second."""
    from catalog import durations

    if info.clock_off_s is None or abs(info.clock_off_s) < 1:
        return None if info.clock_off_s is None else "right"
    which = "ahead" if info.clock_off_s > 0 else "behind"
    return f"{durations.words(abs(info.clock_off_s))} {which}"


@app.command()
def show(node: Node, pool: OfPool = None, as_json: Json = False) -> None:
    """Show what a node has, and its live pilots."""
    from catalog import nodes, pilots

    with open_catalog().read() as session:
        found = nodes.find(session, node, pool)
        live = [p for p in pilots.list_pilots(session, live=True, limit=1000) if p.node == node]
    if as_json:
        print_json({"workers": plain(found), "pilots": plain(live)})
        return
    for worker in found:
        say(
            f"{worker.name}, pool {worker.pool}: {worker.state}, {worker.slots} slots, "
            f"{worker.memory_mib} MiB, spdf {worker.program}"
        )
        for device in worker.devices:
            memory = f", {device['memory_mib']} MiB" if device.get("memory_mib") else ""
            say(f"  GPU {device['number']}: {device.get('name') or 'unknown'}{memory}")
    for pilot in live:
        done = f"{count_of(pilot.jobs_done, 'job')} done"
        say(f"  pilot {pilot.id}: {pilot.state}, stage {pilot.stage}, {done}")


@app.command()
def drain(node: Node, pool: OfPool = None, as_json: Json = False) -> None:
    """Ask a node to take no more pilots, to finish what runs, and to stop its workers."""
    from catalog import nodes

    with open_catalog().write() as session:
        found = nodes.find(session, node, pool)
        moved = nodes.drain(session, [one.id for one in found], "an operator asked for it")
    if not moved:
        states = ", ".join(f"{one.pool} {one.state}" for one in found)
        raise Conflict(f"node {node} has no worker that is ONLINE ({states}).")
    drained = [one.pool for one in found if one.id in moved]
    if as_json:
        print_json({"node": node, "pools": drained})
        return
    say(f"{node} drains: {', '.join(drained)}")
    note(f"`spdf worker show {node}` tells when it is OFFLINE")
