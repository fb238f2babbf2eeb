"""Engines on the two-stage chain (md5sum, then cut) over small files, beside xargs; spdf is one.

Others are installed in environments of their own below build/peers at their first run. Prints jobs
per second, their ratio to what xargs reaches right before and after, and the CPU time of all
processes per job. Ends with 1 where an output is wrong or a peer fails; one that can't be installed
is shown as not measured, which is wrong only where --only names it.
"""

import argparse
import functools
import operator
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import limit
from benchmarks.limit import Limit
from benchmarks.peers import environments, ours
from benchmarks.peers.engines import PEERS, PeerFailed, adopt_orphans, end_leftovers
from benchmarks.peers.environments import NotInstalled
from benchmarks.peers.runs import wrong_outputs
from benchmarks.results import deliver, parser
from benchmarks.stand import PROFILES, scratch

OURS = {profile: f"spdf, {profile}" for profile in PROFILES}
NAMES = (*PEERS, *OURS.values())
LEAST = 100
"""Files below which a run's length says nothing."""


def main() -> int:
    """Measure, print, and write the result where it is asked for."""
    options = parser(__doc__)
    options.add_argument("--files", type=_count, help="files for each; else each has its own count")
    options.add_argument(
        "--only", action="append", choices=NAMES, metavar="NAME", help=f"of {', '.join(NAMES)}"
    )
    given = options.parse_args()
    wanted = [name for name in NAMES if not given.only or name in given.only]
    counts = {
        name: given.files or (peer.short if given.short else peer.files)
        for name, peer in PEERS.items()
        if name in wanted
    }
    adopt_orphans()
    xargs, peers, wrong = _others(counts)
    for profile, name in OURS.items():
        if name in wanted:
            measured, beside = ours.measure(profile, given.files, short=given.short)
            peers[name] = measured
            xargs = beside if xargs is None else xargs + beside
    assert xargs is not None
    faults = faults_of({"xargs": {"wrong_outputs": wrong}, **peers}, given.only or ())
    return deliver(
        given, "peers", {"peers": peers}, limit=xargs.as_json(), faults=faults, show=_show
    )


def _others(counts: Mapping[str, int]) -> tuple[Limit | None, dict[str, Any], int]:
    """The limit (None without peers), each peer's figures, and how many outputs of xargs are wrong.

    Each peer stands between two runs of xargs, and its ratio is to both.
    """
    if not counts:
        return None, {}, 0
    with scratch() as folder:
        packages = sorted({PEERS[name].package for name in counts})
        installed = {package: _install(package) for package in packages}
        files = limit.make_files(folder / "input", max(counts.values()))
        runs = [limit.measure(files, folder / "xargs-0")]
        wrong, peers = wrong_outputs(files, folder / "xargs-0", ".cut"), {}
        for number, (name, count) in enumerate(counts.items(), 1):
            figures = _measure(name, files[:count], folder / name, installed)
            runs.append(limit.measure(files, folder / f"xargs-{number}"))
            if "jobs_per_s" in figures:
                beside = (runs[-2] + runs[-1]).jobs_per_s
                figures |= {"beside": beside, "ratio": round(figures["jobs_per_s"] / beside, 3)}
            peers[name] = figures
    return functools.reduce(operator.add, runs), peers, wrong


def _count(text: str) -> int:
    if int(text) < LEAST:
        raise argparse.ArgumentTypeError(f"at least {LEAST}, else start-up is all that is measured")
    return int(text)


def _install(package: str) -> Path | NotInstalled:
    try:
        return environments.ready(package)
    except NotInstalled as error:
        return error


def _measure(
    name: str,
    files: Sequence[Path],
    folder: Path,
    installed: Mapping[str, Path | NotInstalled],
) -> dict[str, Any]:
    peer = PEERS[name]
    programs = installed[peer.package]
    figures = {"version": environments.version(peer.package), "files": len(files)}
    if isinstance(programs, NotInstalled):
        return {**figures, "not_measured": str(programs)}
    folder.mkdir()
    try:
        return {**figures, **peer.measure(files, folder, programs).as_json()}
    except PeerFailed as error:
        return {**figures, "failed": str(error)}
    finally:
        end_leftovers()


def faults_of(peers: Mapping[str, Mapping[str, Any]], named: Sequence[str]) -> list[str]:
    """Sentences on what is wrong; what couldn't be installed is only where it was named."""
    faults = []
    for name, figures in peers.items():
        if "failed" in figures:
            faults.append(f"{name} failed: {figures['failed']}")
        elif "not_measured" in figures:
            if name in named:
                faults.append(f"{name} was not measured: {figures['not_measured']}")
        elif figures["wrong_outputs"]:
            faults.append(f"{figures['wrong_outputs']} outputs of {name} are wrong")
    return faults


def _show(result: Mapping[str, Any]) -> None:
    Console().print(table_of(result["limit"], result["peers"]))
    for name, peer in PEERS.items():
        figures = result["peers"].get(name, {})
        reason = figures.get("not_measured")
        told = f"not measured: {reason}" if reason else peer.note
        if figures:
            print(f"{name}: {peer.package} {figures['version']}, {told}")


def table_of(xargs: Mapping[str, Any], peers: Mapping[str, Mapping[str, Any]]) -> Table:
    """A row for each, and one more where start-up was taken off."""
    table = Table(title=f"md5sum, then cut, over files of {limit.FILE_BYTES} B, two at a time")
    for column in ("", "jobs", "wall s", "jobs/s", "ratio", "CPU ms/job"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row(*_row("xargs -P2", {**xargs, "ratio": 1}))
    for name, figures in peers.items():
        if "jobs" in figures:
            table.add_row(*_row(name, figures))
        else:
            table.add_row(name, "failed" if "failed" in figures else "not measured")
        if "whole" in figures:
            table.add_row(*_row(f"{name}, whole process", figures["whole"]))
    return table


def _row(label: str, figures: Mapping[str, Any]) -> list[str]:
    columns = ("jobs", "wall_s", "jobs_per_s", "ratio", "cpu_ms_per_job")
    return [label, *(str(figures.get(column, "")) for column in columns)]


if __name__ == "__main__":
    sys.exit(main())
