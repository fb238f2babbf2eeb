"""Pilots as containers of the project's image, on a real Docker daemon."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows.containers import LABEL, remove_ended
from tests.acceptance.driver import LEASE_S, NAP, TIMES, Node, Site, running
from tests.acceptance.machine import until
from tests.servers.dockerd import Dockerd, import_base

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]

ROOT = Path(__file__).parents[2]
FILES = 4


@pytest.fixture(scope="module")
def image(dockerd: Dockerd) -> str:
    """The project's image, as `make image` builds it from a base that was imported."""
    command = ["make", "--no-print-directory", "-o", f"{sys.prefix}/.dev", "image"]
    command += [f"VENV={sys.prefix}", f"BASE={import_base(dockerd)}"]
    built = subprocess.run(
        command, cwd=ROOT, env=dockerd.environment, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stdout[-4000:] + built.stderr[-4000:]
    return built.stdout.rpartition("Successfully tagged ")[2].strip()


@contextmanager
def docker_site(dockerd: Dockerd, home: Path, **settings: str) -> Iterator[Site]:
    """A home whose pilots run in containers, up; at the end nothing of it runs."""
    home.mkdir(mode=0o700)
    kept = {k: v for k, v in dockerd.environment.items() if not k.startswith(("SPDF_", "PREFECT_"))}
    own = {"SPDF_HOME": str(home), "SPDF_PILOTS_IN": "docker", "PYTHONPATH": str(ROOT)}
    with running(Site(home, {**kept, **TIMES, **own, **settings})) as site:
        yield site


@pytest.fixture(scope="module")
def site(dockerd: Dockerd, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A home that serves its Docker pool itself."""
    with docker_site(dockerd, tmp_path_factory.mktemp("docker") / "home") as made:
        yield made


def naps(site: Site) -> dict[str, bytes]:
    """Content by key of the 30 files of dataset `nap-files`; template `nap` is active."""
    files = {f"f{i:02d}.dat": f"content {i}\n".encode() * (i + 1) for i in range(30)}
    site.dataset("nap-files", site.write("nap-files", files))
    path = site.home / "nap.cwl"
    path.write_text(NAP)
    site.template(path, "nap-files")
    return {f"nap-files/{name}": content for name, content in files.items()}


def test_the_image_runs_as_a_user_without_rights_or_compilers(dockerd: Dockerd, image: str) -> None:
    words = "id -un; spdf --help >&2; for p in cc gcc make; do command -v $p; done; exit 0"
    said = dockerd.run("run", "--rm", "--network", "none", image, "sh", "-c", words)
    assert said.split() == ["spdf"]


def test_the_demos_chain_runs_in_containers(dockerd: Dockerd, site: Site, image: str) -> None:
    found = site.json("demo", "--files", FILES, limit_s=300)
    assert found["right"] is True
    assert [s["jobs"] for s in found["stages"]] == [FILES, FILES, FILES, 1]
    assert {state for (state,) in site.rows("SELECT state FROM dataset")} == {"CLOSED"}
    ended = site.attempts(found["workflow"]["id"])
    assert ended == {"FINISHED": 3 * FILES + 1}, "every job ran once"


def test_a_killed_container_loses_no_job_and_leaves_no_payload(
    dockerd: Dockerd, site: Site
) -> None:
    files = naps(site)
    workflow = site.nap(5, 6)
    site.in_progress(workflow)
    pilots = (
        "SELECT pid, flow_run_id FROM pilot JOIN task ON task.id = task_id WHERE workflow_id = ?"
    )
    ((pid, flow_run),) = site.rows(pilots, workflow)
    payloads = until(lambda: len(p := site.payloads()) >= 2 and p, "payloads run")
    os.kill(pid, signal.SIGKILL)
    until(lambda: not payloads & site.payloads(), "the payloads are gone", LEASE_S + 12)
    site.release(workflow)
    site.finished(workflow)
    site.whole(workflow, files)
    until(lambda: site.run_state(flow_run) == "CRASHED", "its worker told the server")
    state = site.api("GET", f"/flow_runs/{flow_run}")["state"]
    assert "137" in state["message"], "the container's exit code"


def test_a_node_serves_a_docker_pool_and_drains(
    dockerd: Dockerd, image: str, tmp_path: Path
) -> None:
    with docker_site(dockerd, tmp_path / "home", SPDF_LOCAL_PAYLOADS="false") as site:
        node = Node("dock", site.home, {**site.environment, "SPDF_NODE": "dock"})
        node.start("--slots", 2)
        files = naps(site)
        workflow = site.nap(5)
        site.in_progress(workflow)
        site.spdf("worker", "drain", "dock")
        assert node.process is not None
        assert node.process.wait(90) == 0
        assert site.jobs(workflow).get("RUNNING", 0) == 0
        running = ("ps", "--quiet", "--filter", f"label={LABEL}=dock")
        assert dockerd.run(*running) == "", "no pilot outlives its node's worker"
        site.release(workflow)
        node.start("--slots", 2)
        site.finished(workflow)
        site.whole(workflow, files)
        assert "LOST" not in site.attempts(workflow)
        assert node.stop(90) == 0


def test_containers_that_ended_are_removed(
    dockerd: Dockerd, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ours(*options: str) -> list[str]:
        return dockerd.run("ps", "--all", "--quiet", "--filter", f"label={LABEL}", *options).split()

    once = ("run", "--network", "none", "--label", LABEL)
    dockerd.run(*once, image, "true")
    dockerd.run(*once, "--detach", "--name", "at-work", image, "sleep", "300")
    monkeypatch.setenv("DOCKER_HOST", dockerd.environment["DOCKER_HOST"])
    try:
        ended = len(ours("--filter", "status=exited"))
        assert remove_ended(3600) == 0, "the worker reads how they ended"
        assert remove_ended(0) == ended >= 1
        assert not ours("--filter", "status=exited") and ours()
    finally:
        dockerd.run("rm", "--force", "at-work")
