"""File systems of a test's own, mounted for as long as it runs."""

import ctypes
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
def mounted(
    folder: Path, kind: str, *, mib: int = _LEAST_MIB, inodes: int | None = None
) -> Iterator[Path]:
    """A new file system at `folder`: `tmpfs`, or `xfs`, whose files can share blocks.

    A `tmpfs` has `mib` MiB, and so many `inodes`.
    """
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: only root can mount a file system")
    folder.mkdir()
    most = "" if inodes is None else f",nr_inodes={inodes}"
    line = ["-t", "tmpfs", "-o", f"size={mib}m{most}", "tmpfs"]
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


@contextmanager
def hanging(folder: Path) -> Iterator[Path]:
    """A mount at `folder` whose server never answers: who asks waits until it is over."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: only root can mount a file system")
    folder.mkdir(exist_ok=True)
    try:
        server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        pytest.skip("NOT TESTED: this machine has no FUSE")
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"hangs", os.fsencode(folder), b"fuse", 0, options) != 0:
            pytest.skip("NOT TESTED: this machine mounts no FUSE")
        yield folder
    finally:
        # Whoever waits is told that nobody is there.
        os.close(server)
        subprocess.run(["umount", "--lazy", folder], check=False)


def fill(disk: Path) -> Path:
    """Take all the room of a disk."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            return filler


def _mkfs() -> str:
    found = shutil.which("mkfs.xfs", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if found is None:
        raise Unavailable("mkfs.xfs is not on this machine; install Debian's xfsprogs.")
    return found
