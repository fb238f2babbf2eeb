"""Programs that tests need and a machine may lack: installed where that is ours to do."""

import fcntl
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from catalog.errors import Unavailable


def need(look: Callable[[], object], *packages: str) -> None:
    """Have what `look` finds: root installs Debian's packages, others fail in CI, and skip else.

    `look` raises `Unavailable` where it finds nothing.
    """
    try:
        look()
        return
    except Unavailable as missing:
        if os.geteuid() == 0 and shutil.which("apt-get"):
            with _turn():
                _install_missing(look, packages)
            return
        if os.environ.get("CI"):
            pytest.fail(str(missing))
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.warn(f"NOT TESTED: {missing}", stacklevel=2)
        pytest.skip(f"NOT TESTED: {missing}")


@contextmanager
def _turn() -> Iterator[None]:
    # apt does not wait for the lock of its lists, and every worker of pytest may need packages.
    with (Path(tempfile.gettempdir()) / "spdf-tests-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install_missing(look: Callable[[], object], packages: tuple[str, ...]) -> None:
    try:
        look()
    except Unavailable:
        _install(packages)
        look()


def _install(packages: tuple[str, ...]) -> None:
    # Debian's postgresql would make and start a cluster of its own.
    choice = Path("/etc/postgresql-common/createcluster.d/spdf-tests.conf")
    choice.parent.mkdir(parents=True, exist_ok=True)
    choice.write_text("create_main_cluster = false\n")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    options = ("-o", "DPkg::Lock::Timeout=300", "-qq")
    for line in (
        ("apt-get", *options, "update"),
        ("apt-get", *options, "install", "-y", "--no-install-recommends", *packages),
    ):
        subprocess.run(line, env=environment, check=True, stdout=subprocess.DEVNULL)
