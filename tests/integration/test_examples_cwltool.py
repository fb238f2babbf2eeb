"""The example templates, unchanged, in another CWL runner."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.cwltool


def cwl_file(path: Path) -> dict[str, str]:
    """A CWL File value."""
    return {"class": "File", "path": str(path)}


def run_cwltool(
    document: Path, job: dict[str, Any], folder: Path, code: int = 0
) -> tuple[dict[str, Any], str]:
    """The (output object, stderr) of cwltool; files lie under `folder`."""
    folder.mkdir(parents=True)
    order = folder / "job.json"
    order.write_text(json.dumps(job))
    done = subprocess.run(
        [
            *(BIN / "cwltool", "--no-container", "--preserve-environment", "PATH"),
            *("--outdir", folder / "out", "--tmpdir-prefix", f"{folder}/tmp/", document, order),
        ],
        env={**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout or "{}"), done.stderr


def simulate(home: Path, *options: object) -> dict[str, Any]:
    """Simulate small slices; the job of the chain over them."""
    command = [sys.executable, "-B", EXAMPLES / "spd/simulate.py", "--outdir", home]
    small = ["--events-per-slice", "150", *map(str, options)]
    subprocess.run([str(word) for word in (*command, *small)], check=True)
    return {
        "slices": [cwl_file(path) for path in sorted((home / "slices").iterdir())],
        "calibration": cwl_file(home / "calibration.csv"),
    }


def expected_of_programs(home: Path, folder: Path) -> dict[str, bytes]:
    """Output bytes by name when the programs run one after the other, without any runner."""
    folder.mkdir()

    def program(name: str, *arguments: object) -> None:
        command = (sys.executable, "-B", EXAMPLES / "spd" / name, *arguments)
        subprocess.run([str(word) for word in command], check=True, cwd=folder, capture_output=True)

    for path in sorted((home / "slices").iterdir()):
        stem = path.stem
        table = home / "calibration.csv"
        program("decode.py", path, "--calibration", table, "--output", f"{stem}.hits")
        program("reconstruct.py", f"{stem}.hits", "--output", f"{stem}.events")
        program("select_events.py", f"{stem}.events", "--output", f"{stem}.selected")
    selected = sorted(path.name for path in folder.glob("*.selected"))
    program("merge.py", *selected, "--output", "merged.selected")
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".hits"}


def test_detector_chain_gives_the_bytes_of_its_programs(tmp_path: Path) -> None:
    job = simulate(tmp_path / "run", "--files", 4)
    outputs, _ = run_cwltool(EXAMPLES / "spd/chain.cwl", job, tmp_path / "cwltool")
    files = [*outputs["tracks"], *outputs["selected"], outputs["merged"]]
    given = {file["basename"]: Path(file["path"]).read_bytes() for file in files}
    assert given == expected_of_programs(tmp_path / "run", tmp_path / "programs")
    assert len(outputs["tracks"]) == 4
    assert 0 < len(outputs["selected"]) < 4, "the filter should drop some slice whole, not all"


def test_fixed_inputs_reach_the_filter(tmp_path: Path) -> None:
    job = simulate(tmp_path / "run", "--files", 1)
    outputs, _ = run_cwltool(EXAMPLES / "spd/chain.cwl", {**job, "min_pt": 50.0}, tmp_path / "a")
    assert outputs["selected"] == []
    assert len(outputs["tracks"]) == 1


def test_corrupt_slice_is_a_permanent_failure(tmp_path: Path) -> None:
    job = simulate(tmp_path / "run", "--files", 1, "--corrupt")
    one = {"raw": job["slices"][0], "calibration": job["calibration"]}
    outputs, said = run_cwltool(EXAMPLES / "spd/decode.cwl", one, tmp_path / "a", code=1)
    assert "run0042-00001.raw is corrupt" in said
    assert "permanentFail" in said
    assert not outputs.get("hits")


def test_md5_says_what_md5sum_says(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.dat", "-b", "c_d.e.gz")]
    for path in paths:
        path.write_bytes(path.name.encode() * 1000)
    job = {"files": [cwl_file(path) for path in paths]}
    outputs, _ = run_cwltool(EXAMPLES / "md5/md5.cwl", job, tmp_path / "cwltool")
    for path, file in zip(paths, outputs["digests"], strict=True):
        said = subprocess.run(
            ["md5sum", "--", path.name], cwd=tmp_path, capture_output=True, check=True
        )
        assert file["basename"] == f"{path.name}.md5"
        assert Path(file["path"]).read_bytes() == said.stdout


def test_two_stages_leave_the_digest(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.dat" for i in range(3)]
    for path in paths:
        path.write_bytes(path.name.encode() * 1000)
    job = {"files": [cwl_file(path) for path in paths]}
    outputs, _ = run_cwltool(EXAMPLES / "twostage/chain.cwl", job, tmp_path / "cwltool")
    said = [Path(file["path"]).read_text() for file in outputs["digests"]]
    assert said == [f"{hashlib.md5(path.read_bytes()).hexdigest()}\n" for path in paths]
