"""Which services of the embedded profile do their work, asked of the server and the catalog."""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import col

from catalog.clock import now
from catalog.db import get_catalog
from catalog.errors import Unavailable
from catalog.models import Singleton
from catalog.settings import Settings
from flows.intake import INTAKE
from flows.recorder.names import RECORDER
from flows.server import Server, call_api
from flows.services import children
from flows.services.children import worker_name
from flows.services.records import Record, read_records, written_at


@dataclass(frozen=True)
class Health:
    """Names of the services that answered, or were seen at work."""

    healthy: frozenset[str]


def check(settings: Settings, server: Server) -> Health:
    """Ask the server, its workers' heartbeats, and the leases of the recorder and the intake."""
    healthy = set()
    records = read_records(settings)
    if _answers(server, records.get("server")):
        healthy.add("server")
        workers = [r for r in records.values() if r.kind == children.WORKER and r.alive]
        beats = _worker_beats(server) if workers else {}
        healthy |= {r.name for r in workers if _beats(settings, r, beats)}
    for record in records.values():
        if record.kind == children.SETUP and record.last_exit == 0 and record.pid == 0:
            healthy.add(record.name)
        if record.kind == children.BACKEND and record.alive:
            healthy.add(record.name)
    for name, role in ((children.RECORDER, RECORDER), (children.INTAKE, INTAKE)):
        leader = records.get(name)
        if leader is not None and leader.alive and _leads(leader, role):
            healthy.add(name)
    return Health(frozenset(healthy))


def _answers(server: Server, record: Record | None) -> bool:
    if record is None or not record.alive:
        return False
    try:
        call_api(server, "GET", "/admin/version", wait_s=3.0)
    except Unavailable:
        return False
    return True


def _beats(settings: Settings, record: Record, beats: dict[str, datetime]) -> bool:
    """Whether the server heard of this very process, not only of one before of its name."""
    beat = beats.get(worker_name(settings, record.name))
    return beat is not None and beat.timestamp() >= written_at(settings, record)


def _worker_beats(server: Server) -> dict[str, datetime]:
    """The last heartbeat of each worker that the server takes for online, in all pools."""
    online = {"workers": {"status": {"any_": ["ONLINE"]}}}
    try:
        pools = call_api(server, "POST", "/work_pools/filter", {"limit": 50})
        found = []
        for pool in pools:
            found += call_api(server, "POST", f"/work_pools/{pool['name']}/workers/filter", online)
    except Unavailable:
        return {}
    return {
        worker["name"]: datetime.fromisoformat(worker["last_heartbeat_time"]) for worker in found
    }


def _leads(record: Record, role: str) -> bool:
    """Whether the role's lease is held by that process: an owner's name ends with its pid."""
    held = sa.select(col(Singleton.owner)).where(
        col(Singleton.name) == role, col(Singleton.lease_until) > now()
    )
    try:
        with get_catalog().read() as session:
            owner = session.execute(held).scalar()
    except SQLAlchemyError:
        return False
    return owner is not None and owner.endswith(f":{record.pid}")
