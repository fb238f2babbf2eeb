"""How each peer runs the chain: the same two commands over each file, two jobs at a time."""

import ctypes
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.runs import Clock, Measured, Run, wrong_outputs
from benchmarks.twostage import TEMPLATE
from catalog.errors import SpdfError
from flows.services.processes import ProcessId, children_of, end

LIMIT_S = 3600.0
_PARSL = Path(__file__).with_name("run_parsl.py")
_PR_SET_CHILD_SUBREAPER = 36


class PeerFailed(SpdfError):
    """A peer that was started did not do its work."""


@dataclass(frozen=True)
class Peer:
    """A row of the table. `measure` gets the files, an empty folder and the environment's `bin`."""

    package: str
    files: int
    short: int
    measure: Callable[[Sequence[Path], Path, Path], Measured]
    note: str


def adopt_orphans() -> None:
    """Make this process the parent of what its descendants leave behind.

    parsl starts its workers through a shell that ends at once; so they are counted and ended here.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_leftovers() -> None:
    """End what a peer has left running."""
    own = ProcessId.of(os.getpid())
    assert own is not None
    end(children_of([own], recursive=True), grace_s=5.0)


def _cwltool(files: Sequence[Path], folder: Path, programs: Path) -> Measured:
    """The template itself; a run over one file, its caches warm, tells what start-up takes."""
    for name in ("cold", "one"):
        one = _cwltool_once(files[:1], folder / name, programs)
    whole = _cwltool_once(files, folder / "all", programs)
    wrong = wrong_outputs(files, folder / "all" / "out", ".digest")
    return Measured(whole.less(one), wrong, whole)


def _cwltool_once(files: Sequence[Path], folder: Path, programs: Path) -> Run:
    folder.mkdir()
    order = folder / "order.json"
    order.write_text(
        json.dumps({"files": [{"class": "File", "path": str(file)} for file in files]})
    )
    line = [
        str(programs / "cwltool"), "--quiet", "--no-container", "--parallel", "--parallel-max", "2",
        "--outdir", str(folder / "out"), str(TEMPLATE), str(order),
    ]  # fmt: skip
    log = folder / "log"
    with log.open("wb") as stream:
        clock = Clock()
        try:
            done = subprocess.run(
                line,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stream,
                env=_environment(folder.parent, programs),
                timeout=LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise PeerFailed(f"cwltool did not end within {LIMIT_S:.0f} s") from None
        run = clock.stop(2 * len(files))
    if done.returncode:
        raise PeerFailed(f"cwltool ended with {done.returncode}: {_tail(log)}")
    return run


def _parsl(files: Sequence[Path], folder: Path, programs: Path, *options: str) -> Measured:
    """All tasks at once; clocked from the first one's submission to the last one's result."""
    listed, log, out = folder / "files.txt", folder / "log", folder / "out"
    out.mkdir()
    listed.write_text("\n".join(map(str, files)))
    commands = [_path_of("md5sum"), _path_of("cut")]
    with (
        log.open("wb") as stream,
        subprocess.Popen(
            [
                str(programs / "python"),
                "-P",
                str(_PARSL),
                *options,
                str(listed),
                *commands,
                str(out),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stream,
            cwd=folder,
            env=_environment(folder, programs),
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        watch = threading.Timer(LIMIT_S, process.kill)
        watch.start()
        try:
            ready = process.stdout.readline() == b"ready\n"
            clock = Clock()
            if ready:
                process.stdin.write(b"go\n")
                process.stdin.flush()
            done = process.stdout.readline() == b"done\n"
            run = clock.stop(2 * len(files))
            process.wait()
        finally:
            watch.cancel()
    if process.returncode or not done:
        raise PeerFailed(f"parsl ended with {process.returncode}: {_tail(log)}")
    return Measured(run, wrong_outputs(files, out, ".cut"))


def _parsl_tuned(files: Sequence[Path], folder: Path, programs: Path) -> Measured:
    return _parsl(files, folder, programs, "--tuned")


def _environment(folder: Path, programs: Path) -> dict[str, str]:
    """Variables that keep a peer to its own environment, and what it writes in `folder`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    home, temporary = folder / "home", folder / "tmp"
    for place in (home, temporary):
        place.mkdir(exist_ok=True)
    return {
        **kept,
        "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "HOME": str(home),
        "TMPDIR": str(temporary),
    }


def _path_of(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise PeerFailed(f"there is no {program} on this machine; install coreutils")
    return found


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    print(*lines[-20:], sep="\n", file=sys.stderr)
    return lines[-1].strip() if lines else "it said nothing"


PEERS: Mapping[str, Peer] = {
    "cwltool": Peer("cwltool", 2000, 300, _cwltool, "--parallel, without its start-up"),
    "parsl": Peer("parsl", 10_000, 1000, _parsl, "its defaults, workers warm"),
    "parsl-tuned": Peer(
        "parsl", 10_000, 1000, _parsl_tuned, "no log, no encryption, 4 tasks prefetched"
    ),
}
