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


def test_the_chains_give_the_bytes_of_cwltool(site: Site, tmp_path: Path) -> None:
    place = site.home / "storage" / "input" / "simulated"
    job = simulate(place, "--files", 4)
    slices = [Path(file["path"]) for file in job["slices"]]
    site.dataset("run-0042", slices)
    small = site.write("small", {f"{i}.dat": f"content {i}\n".encode() * 500 for i in range(5)})
    site.dataset("bench-1", small)
    two_stages = EXAMPLES / "twostage" / "chain.cwl"
    site.spdf("template", "create", two_stages, "--name", "twostage", "--activate")
    site.spdf("template", "create", EXAMPLES / "spd" / "chain.cwl", "--activate")

    calibration = f"calibration={job['calibration']['path']}"
    chain = site.json("workflow", "submit", "chain", "run-0042", "--input", calibration)["id"]
    two = site.json("workflow", "submit", "twostage", "bench-1")["id"]

    spd, _ = run_cwltool(EXAMPLES / "spd" / "chain.cwl", job, tmp_path / "spd")
    order = {"files": [cwl_file(path) for path in small]}
    cut, _ = run_cwltool(two_stages, order, tmp_path / "twostage")

    site.finished(two)
    assert ours(site, two, ("cut", "digest")) == by_basename(cut)
    site.finished(chain)
    ports = (("reconstruct", "events"), ("select", "selected"), ("merge", "merged"))
    assert ours(site, chain, *ports) == by_basename(spd)
    assert len(spd["tracks"]) == 4 and spd["selected"] and spd["merged"]
