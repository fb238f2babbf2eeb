"""Errands over an S3 server that spoils requests: up, verified, inspected, fetched and deleted.

A real S3 server stands behind a proxy (`faultyproxy`) that answers 503 and 500, cuts connections
and loses answers, by a seed, at a share of all requests. Prints for each share the seconds of each
errand and the ratio to those without faults, in one run. Ends with 1 where an errand failed, a file
isn't where it must be with its bytes, or something is left behind; times are never judged.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from benchmarks.gateway import gateway
from benchmarks.limit import measure_quick
from benchmarks.results import deliver, parser, whole
from benchmarks.stand import scratch
from catalog import datasets, deletion, intake, schema, storages, transfers, uploads
from catalog.checksums import file_checksum
from catalog.db import Catalog
from catalog.drivers import driver_for
from catalog.errors import StorageError
from catalog.inspection.scan import Options, inspect
from catalog.names import MARKER
from catalog.refs import StorageInfo
from catalog.settings import Settings, get_settings
from catalog.states import DatasetState, InspectionState, UploadState
from catalog.verification import verify_dataset
from cli.copies import fetch_dataset
from flows.site.buckets import ensure_bucket

SHARES = (0.0, 0.03, 0.3)
NAME = "run-1"
_MOST_RUNS = 20
_WARM = 50


def main() -> int:
    """Measure, print, and write the result where it is asked for."""
    options = parser(__doc__)
    options.add_argument("--files", type=whole, default=2000)
    options.add_argument("--bytes", type=whole, default=4096, help="size of each")
    options.add_argument("--seed", type=whole, default=27)
    given = options.parse_args()
    if given.short:
        given.files = min(given.files, 200)
    with scratch() as folder:
        xargs = measure_quick(folder)
        sources = folder / "raw"
        sources.mkdir()
        for number in range(given.files):
            (sources / f"f{number:06}.raw").write_bytes(os.urandom(given.bytes))
        with gateway(folder / "s3") as settings:
            runs = [_measured(folder, settings, sources, given, share) for share in SHARES]
    figures = {
        "files": given.files,
        "bytes": given.bytes,
        "seed": given.seed,
        "runs": [run.as_json(runs[0]) for run in runs],
    }
    faults = [f"at {run.share:.0%}: {fault}" for run in runs for fault in run.faults]
    return deliver(given, "faulty_s3", figures, limit=xargs.as_json(), faults=faults, show=_show)


@dataclass
class Run:
    """All errands at one share of faults."""

    share: float
    seconds: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    proxy: Mapping[str, int] = field(default_factory=dict)
    upload_runs: int = 0

    @contextmanager
    def timed(self, errand: str) -> Iterator[None]:
        """Measure one."""
        begun = time.perf_counter()
        yield
        self.seconds[errand] = time.perf_counter() - begun

    def check(self, right: bool, told: str) -> None:
        """Something must be so."""
        if not right:
            self.faults.append(told)

    @property
    def total_s(self) -> float:
        """Of all errands."""
        return sum(self.seconds.values())

    def as_json(self, first: "Run") -> dict[str, Any]:
        """What it measured, beside the first one."""
        return {
            "share": self.share,
            "seconds": {name: round(took, 3) for name, took in self.seconds.items()},
            "ratios": {
                name: round(took / first.seconds[name], 2)
                for name, took in self.seconds.items()
                if name in first.seconds
            },
            "total_s": round(self.total_s, 3),
            "ratio": round(self.total_s / first.total_s, 2),
            "upload_runs": self.upload_runs,
            "requests": dict(self.proxy),
        }


def _measured(
    folder: Path, settings: Settings, sources: Path, given: argparse.Namespace, share: float
) -> Run:
    """A catalog of its own, a bucket of its own, and a proxy between."""
    run, home = Run(share), folder / f"at-{share}"
    home.mkdir()
    # That of the catalog before; each has the storage for its own.
    (sources / MARKER).unlink(missing_ok=True)
    bucket = urlsplit(ensure_bucket(settings, f"bench-{round(1000 * share)}"))
    assert bucket.port is not None
    with _login(settings, home), _proxy(bucket.port, given.seed, share, run) as port:
        catalog = Catalog(f"sqlite:///{home}/catalog.db")
        schema.upgrade(catalog)
        with catalog.write() as session:
            raw = storages.add(session, "raw", "local", "input", str(sources))
            url = f"http://{bucket.hostname}:{port}{bucket.path}"
            tape = storages.add(session, "tape", "s3", "output", url)
            made = datasets.create(session, NAME)
        measured = intake.measure(sorted(sources.glob("*.raw")), [raw])
        with catalog.write() as session:
            intake.add(session, made, measured)
            datasets.close(session, made)
        _warm_up(tape, sources)
        try:
            _errands(run, catalog, tape, made, home, given.files)
        except StorageError as error:
            run.faults.append(f"an errand gave up: {error}")
        finally:
            catalog.engine.dispose()
    shutil.rmtree(home)
    return run


def _warm_up(tape: StorageInfo, sources: Path) -> None:
    """A server's first objects take longer."""
    driver, source = driver_for(tape), next(sources.glob("*.raw"))
    paths = [f"warm/{number}" for number in range(_WARM)]
    for path in paths:
        driver.put(source, path)
    driver.delete_many(paths)


def _errands(
    run: Run, catalog: Catalog, tape: StorageInfo, made: int, home: Path, files: int
) -> None:
    """All five, one after the other."""
    with run.timed("up"):
        info = _upload(run, catalog, made, tape, home)
    run.check(info is UploadState.DONE, f"the upload is {info}")
    with run.timed("verified"):
        wrong = verify_dataset(catalog, made)
    run.check(not wrong, f"{len(wrong)} copies aren't whole: {wrong[:2]}")
    with run.timed("inspected"):
        look = inspect(catalog, tape.id, Options(100.0, 0.0))
    is_well = look.state is InspectionState.DONE and not look.found and look.reason is None
    run.check(is_well and look.replicas == files == look.objects, f"the inspection found {look}")
    aside = Path(f"{home}-aside")
    with _away(catalog, aside), run.timed("fetched"):
        got = list(fetch_dataset(catalog, made, home / "got"))
    bad = [one for one in got if one.fault is not None or not _is_whole(one.path, one.member)]
    run.check(not bad and len(got) == files, f"{len(bad)} of {len(got)} files weren't fetched")
    with run.timed("deleted"):
        with catalog.write() as session:
            deletion.mark(session, made, "the benchmark")
        removed = deletion.remove(catalog, made)
    with catalog.read() as session:
        state = datasets.get(session, made).state
    run.check(state is DatasetState.DELETED and not removed.faults, f"it is {state}: {removed}")
    left = [found.path for found in driver_for(tape).list()]
    run.check(not left, f"{len(left)} objects are left, such as {left[:1]}")


def _upload(run: Run, catalog: Catalog, made: int, tape: StorageInfo, home: Path) -> UploadState:
    """As often as it takes: one that meets an outage is run again, as the intake does."""
    with catalog.write() as session:
        upload = uploads.ask(session, made, tape.id)
    while True:
        run.upload_runs += 1
        try:
            return transfers.transfer(catalog, upload, home / "scratch").state
        except StorageError:
            if run.upload_runs >= _MOST_RUNS:
                raise


def _is_whole(path: Path, member: Any) -> bool:
    return bool(file_checksum(path, member.checksum.partition(":")[0]) == member.checksum)


@contextmanager
def _away(catalog: Catalog, aside: Path) -> Iterator[None]:
    """Have the copies on the disk out of the way meanwhile, so that S3's are fetched."""
    with catalog.read() as session:
        place = Path(storages.by_name(session, "raw").url)
    place.rename(aside)
    try:
        yield
    finally:
        aside.rename(place)


@contextmanager
def _login(settings: Settings, home: Path) -> Iterator[None]:
    """The server's login in the environment, from which all settings are made meanwhile."""
    mine = {
        "SPDF_HOME": str(home),
        "SPDF_S3_ACCESS_KEY": settings.s3_access_key.get_secret_value(),
        "SPDF_S3_SECRET_KEY": settings.s3_secret_key.get_secret_value(),
    }
    before = dict(os.environ)
    os.environ.update(mine)
    get_settings.cache_clear()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        get_settings.cache_clear()


@contextmanager
def _proxy(upstream: int, seed: int, share: float, run: Run) -> Iterator[int]:
    """The proxy in a process of its own: its port. What it has spoilt is the run's afterwards."""
    line = [sys.executable, "-m", "benchmarks.faultyproxy", str(upstream), str(seed), str(share)]
    with subprocess.Popen(
        line,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()
            run.proxy = json.loads(process.stdout.readline() or "{}")


def _show(result: Mapping[str, Any]) -> None:
    console = Console()
    table = Table(title=f"{result['files']} files of {result['bytes']} bytes, seconds (ratio)")
    table.add_column("errand")
    cells: dict[str, list[str]] = {}
    for run in result["runs"]:
        asked = run["requests"].get("asked", 0)
        spoilt = sum(run["requests"].values()) - asked
        table.add_column(f"{run['share']:.0%}: {spoilt} of {asked}", justify="right")
        for name, took in run["seconds"].items():
            cells.setdefault(name, []).append(f"{took:.1f} ({run['ratios'].get(name, 0):.2f})")
        cells.setdefault("all", []).append(f"{run['total_s']:.1f} ({run['ratio']:.2f})")
    everything = cells.pop("all")
    for name, row in [*cells.items(), ("all", everything)]:
        table.add_row(name, *row)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
