"""Large files: what each step of a file's life costs, beside plain programs that do as much.

Prints for each step the seconds and GiB/s, the ratio to `cat`, `cp` or the plain S3 client (by
turns in one run), and how often the file's bytes are read and written by us. Then two jobs on one
slot: the sum of their phases beside the wall time. Files are in the disk's cache. Ends with 1 where
a checksum is wrong, or a step reads or writes more than it must; times are never judged.
"""

import argparse
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from benchmarks import limit, overlap
from benchmarks.link import link
from benchmarks.results import deliver, parser, whole
from benchmarks.stand import scratch
from benchmarks.steps import Step, measure, remove

MIB = 2**20
SHORT_MIB, FULL_MIB = 256, 2048
ALGORITHMS = ("adler32", "md5")


def main() -> int:
    """Measure, print, and write the result where it is asked for."""
    options = parser(__doc__)
    options.add_argument("--mib", type=whole, default=FULL_MIB, help="size of the file")
    options.add_argument("--rounds", type=whole, default=3)
    options.add_argument(
        "--mbit", type=whole, help="rate of the link to the S3 server (by tc, as root)"
    )
    given = options.parse_args()
    with link(1, given.mbit):
        pass  # Else it would be told of minutes later.
    size_bytes = (SHORT_MIB if given.short else given.mib) * MIB
    with scratch() as folder, _elsewhere(size_bytes) as memory:
        bench = Bench(folder, memory, size_bytes)
        rows = [_measured(bench, step, given) for step in bench.steps()]
        both = overlap.measure(folder / "overlap", bench.source, bench.checksums["adler32"])
        remove(*(folder / "overlap").rglob("copy"))
        far, why = _s3(bench, given)
        xargs = limit.measure_quick(folder)
    figures = {
        "bytes": size_bytes,
        "blocks_shared": bench.shares,
        "steps": rows + far,
        "s3_left_out": why,
        "s3_link_mbit": given.mbit if far else None,
        "overlap": both,
    }
    faults = [fault for row in [*rows, *far, both] for fault in row.pop("faults")]
    return deliver(given, "largefiles", figures, limit=xargs.as_json(), faults=faults, show=_show)


@contextmanager
def _elsewhere(size_bytes: int) -> Iterator[Path | None]:
    """A directory in memory, another file system than the disk; None where it has no room."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or shutil.disk_usage(memory).free < 3 * size_bytes:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="spdf-bench-", dir=memory) as text:
        yield Path(text)


def _measured(bench: "Bench", step: Step, given: argparse.Namespace) -> dict[str, Any]:
    return measure(step, bench.size_bytes, set(bench.checksums.values()), given.rounds)


def _s3(bench: "Bench", given: argparse.Namespace) -> tuple[list[dict[str, Any]], str | None]:
    """The steps on S3, or why there are none."""
    from benchmarks.gateway import gateway, steps
    from catalog.errors import Unavailable

    try:
        with gateway(bench.folder / "s3") as settings:
            target = bench.folder / "fetched"
            with link(urlsplit(settings.s3_url).port or 80, given.mbit):
                todo = steps(settings, bench.source, target, ALGORITHMS)
                rows = [_measured(bench, step, given) for step in todo]
            remove(target)
            return rows, None
    except Unavailable as error:
        return [], str(error)


@dataclass
class Bench:
    """The file, and the places that it goes between."""

    folder: Path
    memory: Path | None
    size_bytes: int

    def __post_init__(self) -> None:
        """Make the file and all else that the steps need."""
        from catalog import schema, storages
        from catalog.checksums import file_checksum
        from catalog.db import Catalog
        from catalog.drivers.local import LocalDriver
        from catalog.models import StorageKind, StorageRole

        (self.folder / "in").mkdir()
        self.source = self.folder / "in" / "file"
        with self.source.open("wb") as file:
            for _ in range(self.size_bytes // MIB):
                file.write(secrets.token_bytes(MIB))
        self.checksums = {name: file_checksum(self.source, name) for name in ALGORITHMS}
        self.catalog = Catalog(f"sqlite:///{self.folder / 'catalog.db'}")
        schema.upgrade(self.catalog)
        with self.catalog.write() as session:
            self.input, self.output = (
                storages.add(session, role, StorageKind.LOCAL, role, str(self.folder / place))
                for role, place in ((StorageRole.INPUT, "in"), (StorageRole.OUTPUT, "out"))
            )
        self.driver = LocalDriver("out", self.folder / "out")
        self.work, self.stored = self.folder / "work", self.folder / "out" / "x"
        self.fetched = self.folder / "fetched"
        self.shares = self._cp(self.source, self.work, "--reflink=always") == 0

    def steps(self) -> Iterator[Step]:
        """All on local file systems."""
        copied = 0 if self.shares else 1
        yield Step("register", self._register, self._cat, lambda: None, 1, 0)
        yield Step("stage-in, linked", lambda: self._stage_in(False), None, lambda: None, 0, 0)
        yield Step(
            "stage-in, verified", lambda: self._stage_in(True), self._cat, lambda: None, 1, 0
        )
        yield Step(
            "stage-out, renamed",
            lambda: self._put(self.work, move=True),
            lambda: self._shell('cat "$1" >/dev/null; sync "$1"; mv "$1" "$2"', self.work),
            lambda: self._fresh(self.work),
            1,
            0,
        )
        if self.memory is not None:
            away = self.memory / "file"
            yield Step(
                "stage-out, other file system",
                lambda: self._put(away, move=True),
                lambda: self._shell('cp "$1" "$2"; sync "$2"; rm "$1"', away),
                lambda: self._fresh(away),
                1,
                1,
            )
            remove(away)
        yield Step(
            "stage-out of an input",
            lambda: self._put(self.source, move=False),
            lambda: self._shell('cp "$1" "$2"; sync "$2"', self.source),
            lambda: remove(self.stored),
            1,
            copied,
        )
        yield Step(
            "dataset add --copy-to",
            self._copy_in,
            lambda: self._shell('cp "$1" "$2"; sync "$2"', self.source),
            lambda: remove(self.stored, self.folder / "out" / "file"),
            1,
            copied,
        )
        self._put(self.source, move=False)
        yield Step(
            "dataset get",
            self._get,
            lambda: self._cp(self.stored, self.fetched),
            lambda: remove(self.fetched),
            1,
            copied,
        )
        remove(self.fetched, self.stored)

    def _register(self) -> str:
        from catalog import intake

        return intake.measure([self.source], [self.input])[0].row.checksum

    def _stage_in(self, verify: bool) -> None:
        """Raises where the file isn't what the catalog says."""
        from catalog.drivers.local import LocalDriver
        from catalog.refs import FileRef, ReplicaRef
        from workers.node import Node
        from workers.orphans import PayloadLedger
        from workers.slots import Capacity, Slots
        from workers.stagein import StageIn

        checksum = self.checksums["adler32"]
        ref = FileRef(1, "file", self.size_bytes, checksum, (ReplicaRef(1, "file"),))
        storages = {1: LocalDriver("in", self.source.parent)}
        ledger = PayloadLedger(self.folder / "node", 1)
        slots = Slots(self.folder / "slots", Capacity(1, 64))
        StageIn(Node("bench", ledger, slots, storages, verify_linked=verify), self.folder).cwl_file(
            ref
        )
        ledger.close()

    def _put(self, source: Path, *, move: bool) -> str | None:
        self.stored.unlink(missing_ok=True)
        return self.driver.put(source, "x", checksum="adler32", move=move).checksum

    def _copy_in(self) -> str:
        from catalog import intake

        given = {self.source: intake.Expected(self.size_bytes, self.checksums["adler32"])}
        (measured,) = intake.copy_in([self.source], self.output, "run", expected=given)
        (self.folder / "out" / "run" / "file").unlink()
        return measured.row.checksum

    def _get(self) -> None:
        """Raises where the bytes aren't what the catalog says."""
        from catalog.refs import ReplicaRef
        from cli.copies import Reader, Wanted

        replicas = (ReplicaRef(self.output.id, "x"),)
        wanted = Wanted("x", self.size_bytes, self.checksums["adler32"], replicas)
        Reader(self.catalog).fetch(wanted, self.fetched)

    def _fresh(self, path: Path) -> None:
        """The file as a payload leaves it: not yet on the disk."""
        remove(self.stored, path)
        self._cp(self.source, path, "--reflink=never")

    def _cat(self) -> None:
        with Path(os.devnull).open("wb") as nowhere:
            subprocess.run(["cat", self.source], stdout=nowhere, check=True)

    def _cp(self, source: Path, target: Path, *options: str) -> int:
        line = ["cp", *options, source, target]
        return subprocess.run(line, check=False, stderr=subprocess.DEVNULL).returncode

    def _shell(self, script: str, source: Path) -> None:
        line = ["sh", "-ec", script, "sh", source, self.stored]
        subprocess.run(line, check=True)


def _show(result: Mapping[str, Any]) -> None:
    console = Console()
    table = Table(padding=0, title=f"a file of {result['bytes'] // MIB} MiB, in the disk's cache")
    for column in ("step", "s", "GiB/s", "CPU", "plain s", "CPU", "ratio", "reads", "writes"):
        left = column == "step"
        table.add_column(column, justify="left" if left else "right", no_wrap=True)
    for row in result["steps"]:
        plain = row["plain"] or {"wall_s": "–", "cpu_s": "–"}
        fast = row["writes"] == row["reads"] == 0 and row["wall_s"] < 0.1
        table.add_row(
            row["step"], str(row["wall_s"]), "–" if fast else str(row["gib_per_s"]),
            str(row["cpu_s"]), str(plain["wall_s"]), str(plain["cpu_s"]),
            "–" if row["ratio"] is None else f"{row['ratio']:.2f}",
            f"{row['reads']:.2f}", f"{row['writes']:.2f}",
        )  # fmt: skip
    console.print(table)
    if result["s3_left_out"]:
        console.print(f"no S3: {result['s3_left_out']}")
    both = result["overlap"]
    phases = ", ".join(f"{name} {took} s" for name, took in both["phases_s"].items())
    console.print(
        f"{both['jobs']} jobs on one slot: {phases}; together {both['sum_s']} s, done in "
        f"{both['wall_s']} s = {both['ratio']}; reads {both['reads']:.2f}, "
        f"writes {both['writes']:.2f} files a job"
    )


if __name__ == "__main__":
    sys.exit(main())
