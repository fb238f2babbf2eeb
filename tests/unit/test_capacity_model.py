"""The arithmetic of the capacity model: known costs, known utilisation, the right station first."""

from dataclasses import fields, replace

import pytest

from benchmarks import capacity
from benchmarks.capacity import (
    CATALOG,
    CONTROL,
    RECORDER,
    SERVER,
    SERVER_DB,
    Costs,
    Load,
    Site,
    bytes_per_day,
    node_saturation,
    saturation,
    utilisation,
)

FREE = Costs(**{field.name: 0.0 for field in fields(Costs)})
LOAD = Load(nodes=100, jobs_per_s=10.0, worker_polls_per_s=30.0, prompt_s=0.0, workflows=0, tasks=4)
SITE = Site(database_cores=4.0, server_database_cores=2.0, workflows=1)


def costs(**ms: float) -> Costs:
    """Costs of nothing but what is named."""
    return replace(FREE, **ms)


def test_what_costs_nothing_keeps_nobody_busy() -> None:
    assert set(utilisation(FREE, LOAD, SITE).values()) == {0.0}
    assert saturation(FREE, LOAD, SITE).jobs_per_s == float("inf")


@pytest.mark.parametrize(
    ("ms", "station", "expected"),
    [
        ({"job_catalog": 20.0}, CATALOG, 10 * 0.020 / 4),
        ({"beat_catalog": 10.0}, CATALOG, 2 * 100 / 5 * 0.010 / 4),
        ({"poll_catalog": 1.0}, CATALOG, 0.5 * 100 / 0.25 * 0.001 / 4),
        ({"record_server": 3.0}, SERVER, 10 * 0.003),
        ({"idle_server": 60.0}, SERVER, 0.060),
        ({"worker_server": 0.5}, SERVER, 100 * 0.0005),
        ({"worker_beat_server": 6.0}, SERVER, 100 / 30 * 0.006),
        ({"poll_server": 10.0}, SERVER, 30 * 0.010),
        ({"run_server": 90.0}, SERVER, 100 / 1800 * 0.090),
        ({"run_worker_server": 0.9}, SERVER, 100 / 1800 * 100 * 0.0009),
        ({"record_server_db": 4.0}, SERVER_DB, 10 * 0.004 / 2),
        ({"job_recorder": 5.0}, RECORDER, 10 * 0.005),
        ({"job_control": 5.0}, CONTROL, 10 * 0.005),
    ],
)
def test_a_cost_counts_where_it_is_spent(
    ms: dict[str, float], station: str, expected: float
) -> None:
    used = utilisation(costs(**ms), LOAD, SITE)
    assert used[station] == pytest.approx(expected)
    assert sum(used.values()) == pytest.approx(expected)


def test_advances_cost_by_workflow() -> None:
    used = utilisation(costs(advance_catalog=100.0), replace(LOAD, workflows=4), SITE)
    assert used[CATALOG] == pytest.approx(4 * 0.1 / 4)


def test_polls_stop_growing_with_the_nodes() -> None:
    few, many = (replace(LOAD, nodes=nodes).polls_per_s for nodes in (10, 3000))
    assert (few, many) == (10.0, 30.0)
    prompt = replace(LOAD, nodes=1800, prompt_s=10.0)
    assert prompt.polls_per_s == 40.0, "one pilot ends in a second"
    unbounded = replace(LOAD, nodes=3000, worker_polls_per_s=float("inf"))
    assert unbounded.polls_per_s == 3000.0


def test_empty_leases_stop_growing_with_the_pilots_of_a_task() -> None:
    one = replace(LOAD, tasks=1, idle_share=0.5)
    rates = [replace(one, nodes=nodes).empty_leases_per_s for nodes in (10, 50, 3000)]
    assert rates == [20.0, 100.0, 100.0]
    assert replace(one, nodes=3000, tasks=3).empty_leases_per_s == 300.0


def test_the_fullest_station_is_where_it_ends() -> None:
    made = costs(job_catalog=8.0, record_server=4.0, job_recorder=3.0)
    assert saturation(made, LOAD, SITE).station == SERVER
    assert saturation(made, LOAD, SITE).jobs_per_s == pytest.approx(250.0)
    more = saturation(made, LOAD, replace(SITE, servers=2))
    assert (more.station, more.jobs_per_s) == (RECORDER, pytest.approx(1000 / 3))
    apart = saturation(made, LOAD, replace(SITE, servers=2, partitions=2))
    assert (apart.station, apart.jobs_per_s) == (SERVER, pytest.approx(500.0))


def test_what_nodes_cost_leaves_less_for_jobs() -> None:
    made = costs(record_server=2.0, worker_server=1.0)
    assert saturation(made, replace(LOAD, nodes=500), SITE).jobs_per_s == pytest.approx(250.0)
    full = saturation(made, replace(LOAD, nodes=1500), SITE)
    assert (full.station, full.jobs_per_s) == (SERVER, 0.0)


def test_the_nodes_that_fill_a_station_are_found() -> None:
    found = node_saturation(costs(worker_server=0.5, beat_catalog=1.0), LOAD, SITE)
    assert (found.station, found.jobs_per_s) == (SERVER, 2000.0)


def test_noise_is_no_gain() -> None:
    assert costs(job_catalog=-1.0).job_catalog == 0.0


def test_a_days_bytes() -> None:
    made = costs(job_catalog_bytes=1000.0, record_server_bytes=500.0)
    assert bytes_per_day(made, LOAD) == {"catalog": 864e6, "Prefect": 432e6}


def test_every_station_has_cores() -> None:
    assert all(SITE.cores(station) > 0 for station in capacity.STATIONS)
