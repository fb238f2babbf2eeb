"""How the services of the embedded profile do, by the server, the catalog and their pulses."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy.exc import SQLAlchemyError

from catalog import singletons
from catalog.db import get_catalog
from catalog.errors import Unavailable
from catalog.settings import Settings
from flows.intake import INTAKE
from flows.pulse import read_pulse
from flows.recorder.names import RECORDER
from flows.server import Server, call_api
from flows.services import children
from flows.services.children import worker_name
from flows.services.records import Record, read_records

START_S = {children.SERVER: 120.0, children.WORKER: 120.0}
_START_S = 60.0
"""A service may take so long from its start until it does its work; a kind may take longer."""


class Word(StrEnum):
    """How a service does, in a word."""

    DOWN = "down"
    STARTING = "starting"
    UNHEALTHY = "unhealthy"
    HEALTHY = "healthy"


@dataclass(frozen=True)
class Condition:
    """How a service does, and why it isn't well.

    `is_mendable` says that a new process of it may do better: none mends an outage.
    """

    word: Word
    why: str | None = None
    is_mendable: bool = False


WELL = Condition(Word.HEALTHY)
DOWN = Condition(Word.DOWN, "it has no process")

Health = Mapping[str, Condition]
"""The condition of each service, by name."""


def check(settings: Settings, server: Server) -> Health:
    """Ask the server, its workers' heartbeats, and of recorder and intake their pulse and role."""
    records = read_records(settings)
    answers = _answers(server, records.get("server"))
    workers = [r for r in records.values() if r.kind == children.WORKER and r.alive]
    beats = _worker_beats(server) if answers and workers else None
    return {
        record.name: _condition(settings, record, answers=answers, beats=beats)
        for record in records.values()
    }


def _condition(
    settings: Settings, record: Record, *, answers: bool, beats: Mapping[str, datetime] | None
) -> Condition:
    if record.kind == children.SETUP and record.last_exit == 0 and record.pid == 0:
        return WELL
    if not record.alive:
        if record.kind == children.SETUP and record.last_exit is not None:
            told = f"it failed with exit code {record.last_exit}, and is tried again"
            return Condition(Word.UNHEALTHY, told)
        return DOWN
    why: str | None
    match record.kind:
        case children.SETUP:
            return Condition(Word.STARTING, "it lays down pools and deployments")
        case children.SERVER:
            why = None if answers else "it doesn't answer"
        case children.WORKER:
            why = _silence(settings, record, beats)
        case children.RECORDER | children.INTAKE:
            return _pulse(settings, record)
        case _:
            why = None
    mendable = record.kind == children.SERVER or beats is not None
    return WELL if why is None else _not_yet(record, why, mendable=mendable)


def _not_yet(record: Record, why: str, *, mendable: bool) -> Condition:
    """Of a service that isn't at work: it is starting, for as long as that may take."""
    age_s = record.process.age_s()
    if age_s < START_S.get(record.kind, _START_S):
        return Condition(Word.STARTING, why)
    return Condition(Word.UNHEALTHY, why, mendable)


def _answers(server: Server, record: Record | None) -> bool:
    if record is None or not record.alive:
        return False
    try:
        call_api(server, "GET", "/admin/version", wait_s=3.0)
    except Unavailable:
        return False
    return True


def _silence(
    settings: Settings, record: Record, beats: Mapping[str, datetime] | None
) -> str | None:
    """Why a worker can't be told to be at work.

    The server must have heard of this very process, not only of one before of its name.
    """
    if beats is None:
        return "the server doesn't tell whether it has heard of it"
    beat = beats.get(worker_name(settings, record.name))
    # By how long ago both were: the clock may have been set since the process began.
    if beat is None or (datetime.now(UTC) - beat).total_seconds() > record.process.age_s():
        return "the server hasn't heard of it"
    return None


def _worker_beats(server: Server) -> Mapping[str, datetime] | None:
    """The last heartbeat of each worker that the server takes for online, in all pools."""
    online = {"workers": {"status": {"any_": ["ONLINE"]}}}
    try:
        pools = call_api(server, "POST", "/work_pools/filter", {"limit": 50})
        found = []
        for pool in pools:
            found += call_api(server, "POST", f"/work_pools/{pool['name']}/workers/filter", online)
    except Unavailable:
        return None
    return {
        worker["name"]: datetime.fromisoformat(worker["last_heartbeat_time"]) for worker in found
    }


def _pulse(settings: Settings, record: Record) -> Condition:
    """The condition of a service that leads a role, and writes how its loops do."""
    beat = read_pulse(settings, record.name, record.pid)
    if beat is None:
        return _not_yet(record, "it has not begun to work", mendable=True)
    if (trouble := beat.trouble(time.monotonic())) is not None:
        return Condition(Word.UNHEALTHY, *trouble)
    owner = _owner({children.RECORDER: RECORDER, children.INTAKE: INTAKE}[record.kind])
    if owner is not None and owner.endswith(f":{record.pid}"):
        return WELL
    why = f"it waits for its role, which {owner or 'nobody'} has"
    return _not_yet(record, why, mendable=False)


def _owner(role: str) -> str | None:
    """Who holds the lease of a role: an owner's name ends with its pid."""
    try:
        with get_catalog().read() as session:
            return singletons.held(session, role).get(role)
    except SQLAlchemyError:
        return None
