"""The example templates give the same bytes here as, unchanged, in another CWL runner."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.acceptance.driver import EXAMPLES, Site

pytestmark = [pytest.mark.xdist_group("acceptance"), pytest.mark.cwltool]


def _module() -> ModuleType:
    path = Path(__file__).parents[1] / "integration" / "test_examples_cwltool.py"
    spec = importlib.util.spec_from_file_location("examples_cwltool", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


cwltool = _module()


def files_of(value: Any) -> list[Mapping[str, Any]]:
    """The Files in a CWL output object."""
    if isinstance(value, Mapping):
        return [value] if value.get("class") == "File" else files_of(list(value.values()))
    return [file for item in value for file in files_of(item)] if isinstance(value, list) else []


def by_basename(outputs: Any) -> dict[str, bytes]:
    """The bytes of an output object's files."""
    found = files_of(outputs)
    given = {file["basename"]: Path(file["path"]).read_bytes() for file in found}
    assert len(given) == len(found)
    return given


def ours(site: Site, workflow: int, *ports: tuple[str, str]) -> dict[str, bytes]:
    """The bytes of what a workflow made on these ports."""
    made = [file for stage, port in ports for file in site.outputs(workflow, stage, port)]
    given = {name.rpartition("/")[2]: path.read_bytes() for _, name, path in made}
    assert len(given) == len(made)
    return given


def test_the_examples_give_the_bytes_of_cwltool(site: Site, tmp_path: Path) -> None:
    place = site.home / "storage" / "input" / "simulated"
    job = cwltool.simulate(place, "--files", 6)
    slices = [Path(file["path"]) for file in job["slices"]]
    site.dataset("run-0042", slices)
    small = site.write("small", {f"{i}.dat": f"content {i}\n".encode() * 500 for i in range(5)})
    site.dataset("bench-1", small)
    for template, mask in (("md5", "files-*[0-9]"), ("twostage", "bench-*[0-9]")):
        (path,) = (EXAMPLES / template).glob("*.cwl")
        site.spdf("template", "create", path, "--name", template, "--mask", mask, "--activate")
    site.spdf("template", "create", EXAMPLES / "spd" / "chain.cwl", "--activate")

    calibration = f"calibration={job['calibration']['path']}"
    chain = site.json("workflow", "submit", "chain", "run-0042", "--input", calibration)["id"]
    md5 = site.json("workflow", "submit", "md5", "bench-1")["id"]
    two = site.json("workflow", "submit", "twostage", "bench-1")["id"]

    files = {"files": [cwltool.cwl_file(path) for path in small]}
    orders = {
        "spd/chain.cwl": job,
        "md5/md5.cwl": files,
        "twostage/chain.cwl": files,
    }
    theirs = {}
    for name, order in orders.items():
        outputs, _ = cwltool.run_cwltool(EXAMPLES / name, order, tmp_path / name)
        theirs[name] = by_basename(outputs)

    for workflow in (chain, md5, two):
        site.finished(workflow)
    ports = (("reconstruct", "events"), ("select", "selected"), ("merge", "merged"))
    assert ours(site, chain, *ports) == theirs["spd/chain.cwl"]
    assert len(theirs["spd/chain.cwl"]) > 7, "tracks of six slices, what was selected, the merge"
    assert ours(site, md5, ("md5sum", "digest")) == theirs["md5/md5.cwl"]
    assert ours(site, two, ("cut", "digest")) == theirs["twostage/chain.cwl"]
