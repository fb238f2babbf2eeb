"""Programs that tests need and a machine may lack: installed where that is ours to do."""

import os
import shutil
import subprocess
import warnings
from collections.abc import Callable
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
            _install(packages)
            look()
            return
        if os.environ.get("CI"):
            pytest.fail(str(missing))
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.warn(f"NOT TESTED: {missing}", stacklevel=2)
        pytest.skip(f"NOT TESTED: {missing}")


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
