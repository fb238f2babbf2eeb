"""A full disk of SPDF_HOME is named as that; a relative SPDF_HOME is made absolute."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from catalog import fulldisk
from catalog.outage import is_outage, sentence
from catalog.settings import Settings
from tests.servers.disks import fill, mounted

ROOT = Path(__file__).parents[3]
RUN = "from cli.main import run; run()"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An SPDF_HOME on a disk of its own, with a catalog."""
    with mounted(tmp_path / "home", "tmpfs", mib=8) as home:
        done = spdf(home, "dataset", "create", "run-1")
        assert done.returncode == 0, done.stderr
        yield home


def spdf(home: Path | str, *words: str, cwd: Path = ROOT, **more: str) -> Any:
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", RUN, *words],
        env={**env, "SPDF_HOME": str(home), **more},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_command_that_finds_the_disk_full_says_so_and_goes_on_after(disk: Path) -> None:
    filler = fill(disk)
    for words in (("dataset", "create", "run-2"), ("dataset", "close", "run-1")):
        done = spdf(disk, *words)
        assert done.returncode == 5, done.stderr
        assert f"spdf: no space left on {disk} (SPDF_HOME): " in done.stderr
        assert "Traceback" not in done.stderr and "defect" not in done.stderr
    status = spdf(disk, "status", "--json")
    assert status.returncode == 3 and f"no space left on {disk} (SPDF_HOME)" in status.stdout
    filler.unlink()
    assert spdf(disk, "dataset", "close", "run-1").returncode == 0
    assert "no space left" not in spdf(disk, "status", "--json").stdout


def test_a_home_or_spool_that_cannot_be_laid_down_is_told_as_full(disk: Path) -> None:
    fill(disk)
    done = spdf(disk / "deeper", "up")
    assert done.returncode == 5, done.stderr
    assert f"no space left on {disk}/deeper (SPDF_HOME)" in done.stderr
    status = spdf(disk.parent, "status", "--json", SPDF_SPOOL=str(disk / "spool"))
    assert f"no space left on {disk}/spool (SPDF_SPOOL)" in status.stdout


def test_output_that_finds_no_room_is_no_defect(disk: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-uc", RUN, "dataset", "list"],
            env={**os.environ, "SPDF_HOME": str(disk), "PYTHONPATH": str(ROOT)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=120,
        )
    assert done.returncode == 5 and "no space left where the output goes" in done.stderr


def test_what_services_say_of_a_full_disk_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path)
    monkeypatch.setattr(fulldisk, "get_settings", lambda: settings)
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "spool" / "x"))
    assert sentence(error).startswith(f"no space left on {tmp_path} (SPDF_HOME): ")
    assert is_outage(error)
    elsewhere = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "/elsewhere/x")
    assert sentence(elsewhere).startswith("no space left on /elsewhere/x: ")
    assert fulldisk.told(FileNotFoundError(errno.ENOENT, "gone", str(tmp_path))) is None


def test_a_relative_home_is_one_place_whatever_folder_a_service_works_in(tmp_path: Path) -> None:
    done = spdf("home", "dataset", "create", "run-1", cwd=tmp_path)
    assert done.returncode == 0 and (tmp_path / "home" / "catalog.db").exists()
    code = (
        "import os, subprocess, sys; sys.argv = ['spdf', '--version']\n"
        "from cli.main import run\n"
        "try: run()\n"
        "except SystemExit: pass\n"
        "os.chdir('/')\n"
        "more = 'import os; from catalog.settings import get_settings as s; "
        "print(s().home, s().spool, s().work_dir)'\n"
        "print(subprocess.run([sys.executable, '-c', more], capture_output=True).stdout.decode())"
    )
    more = {"SPDF_HOME": "home", "SPDF_SPOOL": "spool", "SPDF_WORK_DIR": "../work"}
    shown = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **more},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    for name in ("home", "spool", "../work"):
        assert str(tmp_path / name) in shown
