"""Fitting the capacity model: costs that made up a measurement are found in it again."""

from typing import Any

import pytest

from benchmarks.capacity import CATALOG, POOLER, SERVER, SERVER_DB
from benchmarks.fit import ASK, TRIPS, checks, fit
from benchmarks.prefectload import BEAT_S
from benchmarks.workers import QUICK_S

CHAIN = {
    "spdf": {
        "jobs": 1000, "wall_s": 10.0,
        "cpu_ms_per_job": {
            "Prefect server": 0.9, "PostgreSQL": 1.1, "recorder": 0.2, "workflow and workers": 0.4,
        }
    }
}  # fmt: skip
CATALOG_MS = {"advances": 4.0, "defined": 0.3, "beat": 0.6, "poll": 1.3, "jobs": 4.0}
POOLER_MS = {name: 0.04 * trips for name, trips in TRIPS.items()}
NEVER = 1e12
IDLE, WORKER, BEAT, POLL, RUN, BESIDE = 60.0, 0.4, 6.0, 20.0, 90.0, 0.1


def _phase(pilots: int, **counts: float) -> dict[str, Any]:
    """What a phase would show in which so much was done in ten seconds."""
    all_counts = dict.fromkeys(("advances", "defined", "beat", "poll", "ask", "jobs"), 0.0)
    all_counts |= {"advances": 10.0} | counts

    def spent(ms: dict[str, float]) -> float:
        return (
            sum(ms[name] * all_counts[name] for name in ms) + ASK * ms["poll"] * all_counts["ask"]
        )

    return {
        "pilots": pilots, "seconds": 10.0, "counts": all_counts, "beat_s": 5.0, "quiet_s": 1.5,
        "bytes_per_job": 4000,
        "cpu_ms": {"PostgreSQL": spent(CATALOG_MS), "PgBouncer": spent(POOLER_MS)},
    }  # fmt: skip


def _server(
    workers: int, *, beat_s: float = BEAT_S, polls: float = 0.0, runs: float = 0.0
) -> dict[str, Any]:
    spent = 10 * workers / beat_s * BEAT
    spent += 10 * (IDLE + WORKER * workers) + POLL * polls + (RUN + BESIDE * workers) * runs
    cpu = {"server": spent, "postgres": spent / 10}
    return {"workers": workers, "seconds": 10.0, "polls": polls, "runs": runs, "cpu_ms": cpu}


@pytest.fixture
def nodes() -> dict[str, Any]:
    """A result of nodes.py."""
    return {
        "phases": {
            "advance": _phase(0),
            "define": _phase(0, defined=300.0),
            "beat": _phase(300, beat=3000.0),
            "poll": _phase(300, poll=3000.0),
            "load": _phase(300, beat=600.0, poll=500.0, ask=1000.0, jobs=150.0, defined=150.0),
            "check": _phase(150, beat=300.0, poll=500.0, jobs=300.0, defined=300.0),
        }
    }


@pytest.fixture
def workers() -> dict[str, Any]:
    """A result of workers.py."""
    check = _server(50, polls=250.0) | {"query_s": 2.0}
    return {
        "record_bytes": 1500,
        "phases": {
            "idle": _server(0),
            "runs": _server(0, runs=20.0),
            "beats": _server(100, beat_s=QUICK_S),
            "connected": _server(100, beat_s=NEVER),
            "runs beside workers": _server(100, beat_s=NEVER, runs=20.0),
            "polls": _server(100, polls=150.0),
            "check": check,
        },
    }


def test_costs_are_found_again(nodes: dict[str, Any], workers: dict[str, Any]) -> None:
    costs = fit(nodes, workers, CHAIN).costs
    assert costs.advance_catalog == pytest.approx(4.0)
    assert costs.beat_catalog == pytest.approx(0.6)
    assert costs.poll_catalog == pytest.approx(1.3)
    assert costs.job_catalog == pytest.approx(4.3), "defined and done"
    assert (costs.job_pooler, costs.beat_pooler) == (pytest.approx(0.8), pytest.approx(0.16))
    assert costs.idle_server == pytest.approx(60.0)
    assert costs.worker_server == pytest.approx(0.4)
    assert costs.worker_beat_server == pytest.approx(6.0)
    assert costs.poll_server == pytest.approx(20.0)
    assert costs.run_server == pytest.approx(90.0)
    assert costs.run_worker_server == pytest.approx(0.1)
    assert (costs.record_server, costs.job_recorder) == pytest.approx((0.3, 0.2))


def test_a_run_of_the_same_costs_is_foretold(
    nodes: dict[str, Any], workers: dict[str, Any]
) -> None:
    found = checks(fit(nodes, workers, CHAIN), nodes, workers)
    assert [row["station"] for row in found] == [CATALOG, POOLER, SERVER, SERVER_DB]
    assert all(row["ratio"] == pytest.approx(1.0, abs=0.02) for row in found)
