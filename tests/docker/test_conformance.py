"""The part of the CWL v1.2 conformance suite that asks for a container."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from cwltest.compare import compare

from catalog.errors import BadTemplate
from tests.servers.dockerd import Dockerd
from workers.cwl.containers import Containers
from workers.cwl.failures import ToolFailure
from workers.cwl.runner import run_document

SUITE = Path(
    os.environ.get("SPDF_CONFORMANCE_DIR")
    or Path(__file__).resolve().parents[3] / "shared" / "conformance"
)
INDEX = SUITE / "conformance_tests.yaml"
RUNNABLE = (
    "dockeroutputdir",
    "glob_outside_outputs_fails",
    "iwd-container-entryname1",
    "iwdr_dir_literal_real_file",
)
"""Those that ask for no more than a Unix; two others fetch a page of the network."""

pytestmark = [
    pytest.mark.docker,
    pytest.mark.xdist_group("docker"),
    pytest.mark.skipif(
        not INDEX.is_file(),
        reason=f"no conformance tests at {SUITE}; name their folder in SPDF_CONFORMANCE_DIR",
    ),
]


def images() -> set[str]:
    """What the suite's tools name in `dockerPull`."""
    texts = (path.read_text("utf-8") for path in SUITE.rglob("*.cwl"))
    return {name for text in texts for name in re.findall(r"dockerPull\W+([\w./:-]+)", text)}


@pytest.fixture
def containers(dockerd: Dockerd, busybox: str, monkeypatch: pytest.MonkeyPatch) -> Containers:
    """A daemon that has the suite's images, or what stands for them."""
    monkeypatch.setenv("DOCKER_HOST", dockerd.environment["DOCKER_HOST"])
    for name in images():
        dockerd.run("tag", busybox, name)
    return Containers("docker")


def named(name: str) -> dict[str, Any]:
    tests: list[dict[str, Any]] = yaml.safe_load(INDEX.read_text("utf-8"))
    return next(test for test in tests if test["id"] == name)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:rdflib")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:pyparsing")
@pytest.mark.parametrize("name", RUNNABLE)
def test_tool(name: str, containers: Containers, tmp_path: Path) -> None:
    test = named(name)
    job = SUITE / test["job"] if test.get("job") else None
    if test.get("should_fail"):
        with pytest.raises((BadTemplate, ToolFailure), match="leads out of the output directory"):
            run_document(SUITE / test["tool"], job, tmp_path, containers=containers)
        return
    compare(
        test["output"], run_document(SUITE / test["tool"], job, tmp_path, containers=containers)
    )
