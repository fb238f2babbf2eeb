"""Compute nodes that share only the catalog, the server and the S3 storage."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from tests.acceptance.driver import LEASE_S, Node, WholeSite
from tests.acceptance.machine import until
from tests.servers.island import Bridges, inhabitants

pytestmark = pytest.mark.xdist_group("server")

FILES = 500
ENGINE = "prefect.engine"


@pytest.fixture(scope="module")
def files(whole_site: WholeSite) -> dict[str, bytes]:
    """Content by basename of the files of the dataset `raw-0500`."""
    return whole_site.copied("raw-0500", FILES)


@pytest.fixture
def bridges(whole_site: WholeSite, tmp_path: Path) -> Iterator[Bridges]:
    """The way to the site for a node in a network of its own."""
    made = Bridges(tmp_path / "bridges", whole_site.ports)
    yield made
    made.close()


def done_by(site: WholeSite, workflow: int) -> dict[str, int]:
    """Finished attempts of a workflow, by node."""
    query = (
        "SELECT pilot.node, count(*) FROM attempt JOIN pilot ON pilot.id = attempt.pilot_id"
        " JOIN task ON task.id = pilot.task_id"
        " WHERE workflow_id = ? AND attempt.state = 'FINISHED' GROUP BY 1"
    )
    return dict(site.rows(query, workflow))


def prefect_workers(node: Node) -> list[int]:
    """The Prefect workers that a node runs."""
    return [p.pid for p in node.mine() if "flows.services.nodeworker" in p.command]


def test_one_of_two_nodes_is_cut_off_and_killed_and_the_other_ends_the_run(
    whole_site: WholeSite,
    files: dict[str, bytes],
    bridges: Bridges,
    nodes: list[Node],
    tmp_path: Path,
) -> None:
    site = whole_site
    other = Bridges(tmp_path / "other", site.ports)
    try:
        nodes.append(site.start_node("east", "--slots", 4, bridges=other))
        nodes.append(site.start_node("west", "--slots", 4, bridges=bridges))
        site.online("east", "west")
        workflow = site.copy("raw-0500", 0.3)
        until(
            lambda: min(done_by(site, workflow).get(name, 0) for name in ("east", "west")) >= 40,
            lambda: f"both nodes take part: {done_by(site, workflow)}",
            120,
        )
        assert site.state(workflow) == "IN_PROGRESS"
        bridges.cut()
        west = nodes[1].process
        assert west is not None
        after = site.attempts(workflow)["FINISHED"]
        until(lambda: site.attempts(workflow)["FINISHED"] > after + 30, "the run goes on")
        for pid in inhabitants(west.pid):
            # A payload may end by itself meanwhile.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        site.finished(workflow, 300)
        site.came_out(workflow, files, tmp_path / "got")
        done = done_by(site, workflow)
        assert done["east"] >= 40
        assert done["west"] >= 40
        assert site.attempts(workflow)["LOST"] >= 1, "what west had in hand was taken back"
        until(lambda: site.node_state("west") == "OFFLINE", "the silent node is given up", 90)
        assert site.node_state("east") == "ONLINE"
        assert nodes[0].stop() == 0
        assert site.node_state("east") == "OFFLINE"
    finally:
        other.close()


def test_a_node_that_is_drained_hands_back_and_loses_nothing(
    whole_site: WholeSite, files: dict[str, bytes], nodes: list[Node], tmp_path: Path
) -> None:
    site = whole_site
    nodes.append(site.start_node("north", "--slots", 2))
    site.online("north")
    workflow = site.copy("raw-0500", 0.2)
    until(lambda: done_by(site, workflow).get("north", 0) >= 20, "the node is at work", 90)
    site.spdf("worker", "drain", "north")
    assert nodes[0].process is not None
    assert nodes[0].process.wait(60) == 0
    assert not nodes[0].mine(), "nothing outlives its worker"
    assert site.node_state("north") == "OFFLINE"
    assert "LOST" not in site.attempts(workflow)
    assert site.jobs(workflow).get("RUNNING", 0) == 0
    site.spdf("worker", "drain", "north", code=4)
    nodes.append(site.start_node("south", "--slots", 8))
    site.online("south")
    site.finished(workflow, 300)
    site.came_out(workflow, files, tmp_path / "got")
    assert set(done_by(site, workflow)) == {"north", "south"}


def test_a_worker_that_was_killed_is_followed_by_one_that_cleans_up(
    whole_site: WholeSite, files: dict[str, bytes], nodes: list[Node]
) -> None:
    site = whole_site
    nodes.append(site.start_node("centre", "--slots", 2))
    node = nodes[0]
    site.online("centre")
    workflow = site.copy("raw-0500", 5)
    until(lambda: site.jobs(workflow).get("RUNNING", 0) >= 2, "payloads run", 60)
    assert node.process is not None
    os.kill(node.process.pid, signal.SIGKILL)
    node.process.wait()
    prefect = prefect_workers(node)
    pilot = site.one(
        "SELECT flow_run_id FROM pilot JOIN task ON task.id = task_id"
        " WHERE workflow_id = ? AND pilot.state = 'ACTIVE'",
        workflow,
    )
    (engine,) = [p for p in node.mine() if pilot in p.environment.values() and ENGINE in p.command]
    os.kill(engine.pid, signal.SIGKILL)
    node.start("--slots", 2)
    until(lambda: not set(prefect) & {p.pid for p in node.mine()}, "the old Prefect worker is gone")
    until(lambda: site.run_state(pilot) == "CRASHED", "the dead run is shown as crashed", 90)
    until(lambda: site.attempts(workflow).get("LOST", 0) >= 2, "its jobs were taken back", 60)
    assert LEASE_S < 60
    site.spdf("workflow", "cancel", workflow)
    assert node.stop() == 0


def test_a_worker_becomes_the_program_that_was_installed_meanwhile(
    whole_site: WholeSite, nodes: list[Node], tmp_path: Path
) -> None:
    site = whole_site
    installed = tmp_path / "installed"
    installed.mkdir()
    nodes.append(site.start_node("newer", "--slots", 1, PYTHONPATH=str(installed)))
    site.online("newer")
    program = "SELECT program, pid FROM node WHERE name = 'newer'"
    ((before, pid),) = site.rows(program)
    (installed / "spdf-99.0.dist-info").mkdir()
    (installed / "spdf-99.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: spdf\nVersion: 99.0\n"
    )
    until(lambda: site.rows(program) == [("99.0", pid)], "it has started anew, as itself")
    assert before != "99.0"
    (first,) = until(lambda: prefect_workers(nodes[0]), "its Prefect worker is there again")
    os.kill(first, signal.SIGKILL)
    until(lambda: prefect_workers(nodes[0]) not in ([], [first]), "one that ended is followed")
    assert nodes[0].stop() == 0


def test_a_worker_whose_name_another_node_took_stops_and_leaves_that_one_alone(
    whole_site: WholeSite, nodes: list[Node]
) -> None:
    site = whole_site
    nodes.append(site.start_node("same", "--slots", 1))
    site.online("same")
    with psycopg.connect(site.catalog_url) as connection:
        connection.execute("UPDATE node SET pid = 1 WHERE name = 'same'")
    assert nodes[0].process is not None
    assert nodes[0].process.wait(60) == 4
    assert "give each node a name of its own" in (nodes[0].home / "worker.log").read_text()
    assert site.rows("SELECT state, pid FROM node WHERE name = 'same'") == [("ONLINE", 1)]
    assert not nodes[0].mine()


def test_a_worker_says_what_is_missing(whole_site: WholeSite, nodes: list[Node]) -> None:
    site = whole_site
    done = site.run("worker", "start", "--pool", "disk")
    assert done.returncode == 2
    done = site.run("worker", "drain", "nowhere")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    nodes.append(site.start_node("twin", "--slots", 1))
    site.online("twin")
    second = Node("twin", nodes[0].home, nodes[0].environment)
    second.start()
    assert second.process is not None
    assert second.process.wait(60) == 4
    assert "already uses" in (nodes[0].home / "worker.log").read_text()
    assert nodes[0].stop() == 0
