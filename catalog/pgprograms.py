"""PostgreSQL's own programs, where the system has them."""

import re
import shutil
import subprocess
from pathlib import Path

from catalog.errors import Unavailable

_DEBIAN = Path("/usr/lib/postgresql")


def program(name: str, package: str = "postgresql") -> Path:
    """A program of PostgreSQL: of the newest version that Debian installed, or in the PATH.

    Raises `Unavailable`, naming Debian's package that has it.
    """
    versions = sorted(_DEBIAN.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    if versions:
        return versions[-1]
    found = shutil.which(name)
    if found is None:
        raise Unavailable(
            f"{name} is not on this machine; install PostgreSQL (Debian's package `{package}`)."
        )
    return Path(found).resolve()


def major_version(path: Path) -> int:
    """The major version of PostgreSQL that a program is of; 0 where it doesn't say."""
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"\(PostgreSQL\) (\d+)", done.stdout)
    return int(found[1]) if found else 0
