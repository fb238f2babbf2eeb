"""The costs of the capacity model, out of what nodes.py, workers.py and chain.py have measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.capacity import CATALOG, POOLER, SERVER, SERVER_DB, Costs, Load, busy_cores
from benchmarks.prefectload import BEAT_S
from benchmarks.workers import QUICK_S

Result = Mapping[str, Any]

ASK = 0.5
"""Of a poll: a pilot with jobs in hand asks in one of the two transactions of an idle one."""

TRIPS = {"beat": 4, "poll": 11, "jobs": 20}
"""Statements to and fro, with BEGIN, COMMIT and a pool's ping: all that a pooler sees of them."""


@dataclass(frozen=True)
class Fit:
    """The costs, and the share of pilots that were asking in vain when they were measured."""

    costs: Costs
    idle_share: float
    quiet_s: float


def fit(nodes: Result, workers: Result, chain: Result) -> Fit:
    """Each cost from the phase that has little else in it, less what is known of the rest."""
    load = nodes["phases"]["load"]
    catalog = _catalog_costs(nodes["phases"])
    trip = _trip_cost(nodes["phases"])
    server = _server_costs(workers["phases"], "server")
    server_db = _server_costs(workers["phases"], "postgres")
    per_job = chain["spdf"]["cpu_ms_per_job"]
    idle_per_job = server["idle"] * chain["spdf"]["wall_s"] / chain["spdf"]["jobs"]
    costs = Costs(
        job_catalog=catalog["job"] + catalog["define"],
        beat_catalog=catalog["beat"],
        poll_catalog=catalog["poll"],
        advance_catalog=catalog["advance"],
        job_pooler=trip * TRIPS["jobs"],
        beat_pooler=trip * TRIPS["beat"],
        poll_pooler=trip * TRIPS["poll"],
        idle_server=server["idle"],
        worker_server=server["worker"],
        worker_beat_server=server["beat"],
        poll_server=server["poll"],
        run_server=server["run"],
        run_worker_server=server["run beside a worker"],
        record_server=per_job["Prefect server"] - idle_per_job,
        worker_server_db=server_db["worker"],
        worker_beat_server_db=server_db["beat"],
        poll_server_db=server_db["poll"],
        run_server_db=server_db["run"],
        record_server_db=per_job["PostgreSQL"],
        job_recorder=per_job["recorder"],
        job_control=per_job["workflow and workers"],
        job_catalog_bytes=load["bytes_per_job"],
        record_server_bytes=workers["record_bytes"],
    )
    return Fit(costs, _in_vain(load) * load["quiet_s"] / load["pilots"], load["quiet_s"])


def _in_vain(row: Result) -> float:
    """Polls per second, those of pilots with jobs in hand by what they cost."""
    counts = row["counts"]
    return float((counts["poll"] + ASK * counts["ask"]) / row["seconds"])


def _catalog_costs(phases: Result) -> dict[str, float]:
    """Milliseconds of one advance, defined job, heartbeat, poll and job."""
    costs: dict[str, float] = {}

    def rest(name: str, divisor: str, *known: str) -> float:
        row = phases[name]
        counts = dict(row["counts"], poll=_in_vain(row) * row["seconds"])
        words = {"advance": "advances", "define": "defined"}
        spent = row["cpu_ms"]["PostgreSQL"] - sum(costs[k] * counts[words.get(k, k)] for k in known)
        return max(0.0, float(spent / max(1, counts[divisor])))

    costs["advance"] = rest("advance", "advances")
    costs["define"] = rest("define", "defined", "advance")
    costs["beat"] = rest("beat", "beat", "advance")
    costs["poll"] = rest("poll", "poll", "advance")
    costs["job"] = rest("load", "jobs", "advance", "define", "beat", "poll")
    return costs


def _trip_cost(phases: Result) -> float:
    """Milliseconds of the pooler for one statement, over all phases that a fit may use."""
    rows = [phases[name] for name in ("beat", "poll", "load")]
    counts = [dict(row["counts"], poll=_in_vain(row) * row["seconds"]) for row in rows]
    trips = sum(count[name] * TRIPS[name] for count in counts for name in TRIPS)
    return float(sum(row["cpu_ms"]["PgBouncer"] for row in rows) / trips)


def _server_costs(phases: Result, who: str) -> dict[str, float]:
    """Milliseconds of a worker's second, its heartbeat, a poll, and a flow run."""

    def rate(name: str) -> float:
        return float(phases[name]["cpu_ms"][who] / phases[name]["seconds"])

    idle, count = rate("idle"), phases["connected"]["workers"]
    worker = max(0.0, (rate("connected") - idle) / count)
    beat = max(0.0, ((rate("beats") - idle) / count - worker) * QUICK_S)
    polls, runs, beside = phases["polls"], phases["runs"], phases["runs beside workers"]
    there = (worker + beat / BEAT_S) * polls["workers"]
    spent = polls["cpu_ms"][who] - (idle + there) * polls["seconds"]
    run = (runs["cpu_ms"][who] - idle * runs["seconds"]) / runs["runs"]
    more = beside["cpu_ms"][who] - (idle + worker * count) * beside["seconds"]
    return {
        "idle": idle,
        "worker": worker,
        "beat": beat,
        "poll": spent / polls["polls"],
        "run": run,
        "run beside a worker": (more / beside["runs"] - run) / count,
    }


def checks(found: Fit, nodes: Result, workers: Result) -> list[dict[str, Any]]:
    """CPU per second that the model says, beside what a run shows that took no part in the fit."""
    row, polled = nodes["phases"]["check"], workers["phases"]["check"]
    load = Load(
        nodes=row["pilots"],
        jobs_per_s=row["counts"]["jobs"] / row["seconds"],
        beat_s=row["beat_s"],
        idle_share=found.idle_share,
        lease_polls_per_s=row["pilots"] / row["quiet_s"],
        tasks=1,
        workflows=1,
        node_beats=0.0,
        shift_s=float("inf"),
    )
    said = busy_cores(found.costs, load)
    idle = workers["phases"]["idle"]
    asked = Load(
        nodes=polled["workers"],
        jobs_per_s=0.0,
        worker_query_s=polled["query_s"],
        worker_beat_s=BEAT_S,
        worker_polls_per_s=float("inf"),
        shift_s=float("inf"),
    )
    of_server = busy_cores(found.costs, asked)
    lines = [
        (CATALOG, said[CATALOG], row["cpu_ms"]["PostgreSQL"] / row["seconds"]),
        (POOLER, said[POOLER], row["cpu_ms"]["PgBouncer"] / row["seconds"]),
    ]
    for station, name in ((SERVER, "server"), (SERVER_DB, "postgres")):
        measured = polled["cpu_ms"][name] / polled["seconds"]
        if station is SERVER_DB:
            # That of the catalog is the same on a stand.
            measured -= idle["cpu_ms"][name] / idle["seconds"]
        lines.append((station, of_server[station], measured))
    return [
        {
            "station": station,
            "model_ms_per_s": round(1000 * cores, 1),
            "measured_ms_per_s": round(measured, 1),
            "ratio": round(1000 * cores / measured, 2) if measured else None,
        }
        for station, cores, measured in lines
    ]
