"""The example chains give the same bytes here as, unchanged, in another CWL runner."""

from pathlib import Path

import pytest

from tests.acceptance.driver import EXAMPLES, Site, by_basename
from tests.integration.test_examples_cwltool import cwl_file, run_cwltool, simulate

pytestmark = [pytest.mark.xdist_group("server"), pytest.mark.cwltool]


def ours(site: Site, workflow: int, *ports: tuple[str, str]) -> dict[str, bytes]:
    """The bytes of what a workflow made on these ports."""
    made = [file for stage, port in ports for file in site.outputs(workflow, stage, port)]
    given = {name.rpartition("/")[2]: path.read_bytes() for _, name, path in made}
    assert len(given) == len(made)
    return given


def test_two_stages_give_the_bytes_of_cwltool(site: Site, tmp_path: Path) -> None:
    paths = site.write("small", {f"{i}.dat": f"content {i}\n".encode() * 500 for i in range(5)})
    site.dataset("bench-1", paths)
    template = EXAMPLES / "twostage" / "chain.cwl"
    site.spdf("template", "create", template, "--name", "twostage", "--activate")
    workflow = site.json("workflow", "submit", "twostage", "bench-1")["id"]
    order = {"files": [cwl_file(path) for path in paths]}
    theirs, _ = run_cwltool(template, order, tmp_path / "cwltool")
    site.finished(workflow)
    assert ours(site, workflow, ("cut", "digest")) == by_basename(theirs)


def test_the_detector_chain_gives_the_bytes_of_cwltool(site: Site, tmp_path: Path) -> None:
    order = simulate(site.home / "storage" / "input" / "simulated", "--files", 4)
    site.dataset("run-0042", [Path(file["path"]) for file in order["slices"]])
    template = EXAMPLES / "spd" / "chain.cwl"
    site.spdf("template", "create", template, "--activate")
    calibration = f"calibration={order['calibration']['path']}"
    workflow = site.json("workflow", "submit", "chain", "run-0042", "--input", calibration)["id"]
    theirs, _ = run_cwltool(template, order, tmp_path / "cwltool")
    site.finished(workflow)
    ports = (("reconstruct", "events"), ("select", "selected"), ("merge", "merged"))
    assert ours(site, workflow, *ports) == by_basename(theirs)
    assert len(theirs["tracks"]) == 4 and theirs["selected"] and theirs["merged"]
