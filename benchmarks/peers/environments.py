"""An environment for each package that is measured: made once, remade when its pins change."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from catalog.errors import Unavailable

PINS = Path(__file__).parent
ENVIRONMENTS = Path(__file__).resolve().parents[2] / "build" / "peers"
INSTALL_LIMIT_S = 900.0


class NotInstalled(Unavailable):
    """A peer's environment could not be made."""


def ready(package: str, pins: Path = PINS, root: Path = ENVIRONMENTS) -> Path:
    """The `bin` directory of an environment that has what `<pins>/<package>.txt` lists.

    What pip has to say goes to standard error. Raises NotInstalled.
    """
    wanted = pins / f"{package}.txt"
    folder = root / package
    stamp, content = folder / "made-of.txt", f"# {sys.version}\n{wanted.read_text()}"
    if not (stamp.exists() and stamp.read_text() == content):
        shutil.rmtree(folder, ignore_errors=True)
        _make(folder, wanted)
        stamp.write_text(content)
    return folder / "bin"


def version(package: str, pins: Path = PINS) -> str:
    """The release of the package itself that its list pins."""
    for line in (pins / f"{package}.txt").read_text().splitlines():
        name, _, release = line.partition("==")
        if name == package:
            return release
    raise LookupError(f"{package}.txt does not pin {package}; add a line {package}==RELEASE")


def _make(folder: Path, wanted: Path) -> None:
    _run("making an environment", [sys.executable, "-m", "venv", str(folder)])
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "-qq"]
    install = ["--retries", "1", "install", "--no-deps", "--only-binary", ":all:", "-r"]
    _run(f"installing {wanted.name} (needs a package index)", [*pip, *install, str(wanted)])
    _run(f"checking that {wanted.name} is complete", [*pip, "check"])


def _run(what: str, line: list[str]) -> None:
    try:
        done = subprocess.run(
            line,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            timeout=INSTALL_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"{what} took more than {INSTALL_LIMIT_S:.0f} s; try again") from None
    if done.returncode:
        raise NotInstalled(f"{what} ended with {done.returncode}; standard error has its own words")
