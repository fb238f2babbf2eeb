"""A storage whose file system answers EIO or ESTALE now and then, by a preloaded library."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "servers" / "faltering.c"
SCRIPT = """
import hashlib, os, sys
from dataclasses import replace
from pathlib import Path
from catalog import tries
from catalog.drivers.identity import Identity
from catalog.drivers.local import LocalDriver

tries.FILE = replace(tries.FILE, first_s=0.0001)
root, here = Path(sys.argv[1]), Path(sys.argv[2])
driver = LocalDriver("disk", root, Identity("disk-1", True))
paths = [f"d{number % 3}/f{number:02}" for number in range(40)]
sums = {}
for path in paths:
    source = here / "source"
    source.write_bytes(os.urandom(300_000))
    sums[path] = driver.put(source, path, checksum="sha256").checksum
assert sums == {path: driver.checksum(path, "sha256") for path in paths}
assert {found.path for found in driver.list()} == set(paths)
for number, path in enumerate(paths):
    assert driver.stat(path).size_bytes == 300_000
    assert driver.get(path, here / f"a{number}", checksum="sha256") == sums[path]
    assert driver.fetch(path, here / f"b{number}", "sha256").checksum == sums[path]
    with driver.open(path) as stream:
        assert stream.fileno() > 0
assert all(driver.delete(path) for path in paths[:10])
assert driver.delete_many(paths[10:]) == {}
assert list(driver.list()) == []
assert driver.read_marker() is not None
"""


@pytest.fixture
def library(tmp_path: Path) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("NOT TESTED: this machine has no C compiler")
    made = tmp_path / "faltering.so"
    line = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-o", str(made), str(SOURCE), "-ldl"]
    subprocess.run(line, check=True)
    return made


@pytest.mark.parametrize("seed", [1, 2])
def test_what_falters_now_and_then_is_tried_again(library: Path, tmp_path: Path, seed: int) -> None:
    root, told = tmp_path / "storage", tmp_path / "told"
    root.mkdir()
    (root / ".spdf-storage").write_text('{"format": 1, "storage": "disk-1", "claims": []}')
    env = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "FALTERS_BELOW": str(root),
        "FALTERS_PERCENT": "4",
        "FALTERS_SEED": str(seed),
        "FALTERS_TOLD": str(told),
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(root), str(tmp_path)],
        env=env, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(told.read_text()) > 30
