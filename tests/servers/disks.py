"""File systems of a test's own, mounted for as long as it runs."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from catalog.errors import Unavailable
from tests.servers.install import need

_LEAST_MIB = 320
"""XFS takes no smaller disk."""


@contextmanager
def mounted(folder: Path, kind: str) -> Iterator[Path]:
    """A new file system at `folder`: `tmpfs`, or `xfs`, whose files can share blocks."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: only root can mount a file system")
    folder.mkdir()
    line = ["-t", "tmpfs", "-o", f"size={_LEAST_MIB}m", "tmpfs"]
    image = folder.with_suffix(".image")
    if kind == "xfs":
        need(_mkfs, "xfsprogs")
        with image.open("wb") as file:
            file.truncate(_LEAST_MIB << 20)
        subprocess.run([_mkfs(), "-q", "-m", "reflink=1", image], check=True)
        line = ["-o", "loop", str(image)]
    if subprocess.run(["mount", *line, folder], check=False).returncode != 0:
        pytest.skip(f"NOT TESTED: this machine mounts no {kind}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
        image.unlink(missing_ok=True)


def _mkfs() -> str:
    found = shutil.which("mkfs.xfs", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if found is None:
        raise Unavailable("mkfs.xfs is not on this machine; install Debian's xfsprogs.")
    return found
