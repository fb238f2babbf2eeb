"""A stage with a DockerRequirement, from the command line to its outputs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.dockerd import Dockerd

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]

ROOT = Path(__file__).parents[2]
TEMPLATE = """
cwlVersion: v1.2
class: Workflow
requirements: {{ScatterFeatureRequirement: {{}}}}
inputs: {{files: "File[]"}}
outputs: {{counts: {{type: "File[]", outputSource: count/counted}}}}
steps:
  count:
    scatter: file
    in: {{file: files}}
    out: [counted]
    run:
      class: CommandLineTool
      requirements: {{DockerRequirement: {{dockerPull: "{image}"}}}}
      baseCommand: [sh, -c, 'ls / > /dev/stderr; wc -c < "$0"']
      inputs: {{file: {{type: File, inputBinding: {{}}}}}}
      stdout: counted
      outputs: {{counted: stdout}}
"""


def spdf(
    dockerd: Dockerd, home: Path, engine: str, *words: object
) -> subprocess.CompletedProcess[str]:
    own = {"SPDF_HOME": str(home), "SPDF_CONTAINER_ENGINE": engine, "PYTHONPATH": str(ROOT)}
    kept = {k: v for k, v in dockerd.environment.items() if not k.startswith(("SPDF_", "PREFECT_"))}
    return subprocess.run(
        [sys.executable, "-m", "cli", *map(str, words)],
        env={**kept, **own}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def template(busybox: str, tmp_path: Path) -> Path:
    path = tmp_path / "count.cwl"
    path.write_text(TEMPLATE.format(image=busybox))
    return path


def test_a_stage_runs_in_its_image(dockerd: Dockerd, template: Path, tmp_path: Path) -> None:
    data = tmp_path / "raw.dat"
    data.write_bytes(os.urandom(1234))
    words = ("template", "try", template, data, "--outdir", tmp_path / "out")
    done = spdf(dockerd, tmp_path / "home", "docker", *words)
    assert done.returncode == 0, done.stderr
    kept = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert "1234" in [path.read_text().strip() for path in kept]
    logs = [path.read_text() for path in kept if "log" in str(path.relative_to(tmp_path / "out"))]
    assert any("bin" in text.split() and "lib" not in text.split() for text in logs)
    payloads = ("--filter", "label=spdf.payload")
    assert dockerd.run("ps", "--all", "--quiet", *payloads) == ""
