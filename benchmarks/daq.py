"""A detector's data acquisition, simulated: files at a rate, runs with markers, a chain behind.

Files are written and renamed into a buffer that the intake watches; each run has an end-of-run
marker, and is processed by an automatic template of three stages. Prints how long files took to be
registered, how many requests and jobs waited at the most, and how long after the last file all was
done. Ends with 1 where a file or a request is lost, a dataset is not closed with all of its files,
or a workflow is not FINISHED.
"""

import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import limit
from benchmarks.latency import TEMPLATE
from benchmarks.results import deliver, parser, positive, whole
from benchmarks.stand import PROFILES, SITE, scratch, stand

RULE = r"(?P<run>daq-\d+)/.*\.raw"
MARKER = r"(?P<run>daq-\d+)/END"
LOOK_S = 1.0
END_S = 1800.0
"""How long what is left after the last file is waited for."""


@dataclass
class Course:
    """What the simulator did, and what was seen meanwhile."""

    written: dict[str, float] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)
    queued: list[int] = field(default_factory=list)
    open_jobs: list[int] = field(default_factory=list)
    behind_s: float = 0.0
    """The most that a file was written later than the rate asks for."""


def main() -> int:
    """Measure and print."""
    options = parser(__doc__)
    options.add_argument("--profile", choices=PROFILES, default=SITE)
    options.add_argument("--rate", type=positive, default=20.0, help="files in a second")
    options.add_argument("--seconds", type=positive, default=600.0)
    options.add_argument("--run-files", type=whole, default=1000, help="files of a run")
    options.add_argument("--bytes", type=whole, default=4096, help="bytes of a file")
    given = options.parse_args()
    if given.short:
        given.seconds, given.run_files = 20.0, 150
    with scratch() as folder:
        reached = limit.measure_quick(folder)
        with stand(folder, given.profile) as running:
            buffer = running.folder / "buffer"
            _lay_down(running.folder, buffer)
            course, over = Course(), threading.Event()
            watch = threading.Thread(target=_watch, args=(course, over))
            watch.start()
            _write(course, buffer, given)
            done_s = _wait_for_all(course)
            over.set()
            watch.join()
            figures, faults = _figures(course, done_s)
    figures = {"profile": given.profile, "rate_per_s": given.rate, "seconds": given.seconds,
               "bytes": given.bytes, **figures}  # fmt: skip
    return deliver(given, "daq", figures, limit=reached.as_json(), faults=faults, show=_show)


def _lay_down(folder: Path, buffer: Path) -> None:
    """Storages, the automatic template, and the rule."""
    from catalog import intakerules, storages, templates
    from catalog.db import get_catalog
    from catalog.models import StorageKind, StorageRole
    from flows import templates as template_files

    catalog = get_catalog()
    with catalog.write() as session:
        storages.add(session, "daq", StorageKind.LOCAL, StorageRole.INPUT, str(buffer))
        known = {storage.role for storage in storages.list_all(session)}
        for role in set(StorageRole) - known:
            storages.add(session, f"daq-{role}", StorageKind.LOCAL, role, str(folder / role))
    info, _ = template_files.create(catalog, TEMPLATE, name="daq", mask="daq-*[0-9]", auto=True)
    with catalog.write() as session:
        templates.activate(session, info.id)
        intakerules.add(
            session,
            intakerules.Rule("daq", "daq", RULE, "{run}", end_pattern=MARKER, stable_s=0.0),
        )


def _write(course: Course, buffer: Path, given: Any) -> None:
    """Files at the rate, each renamed when it is whole; a marker behind each run."""
    count, begun, run = int(given.rate * given.seconds), time.monotonic(), ""
    for number in range(count):
        late_s = time.monotonic() - begun - number / given.rate
        course.behind_s = max(course.behind_s, late_s)
        time.sleep(max(0.0, -late_s))
        if number % given.run_files == 0:
            if run:
                (buffer / run / "END").touch()
            run = f"daq-{number // given.run_files + 1}"
            (buffer / run).mkdir(parents=True)
        name = f"{run}/f{number:07d}.raw"
        part = buffer / run / f".f{number:07d}"
        part.write_bytes(os.urandom(given.bytes))
        part.rename(buffer / name)
        course.written[name] = time.time()
        course.runs[run] = course.runs.get(run, 0) + 1
    (buffer / run / "END").touch()


def _watch(course: Course, over: threading.Event) -> None:
    """Look at what waits, now and then."""
    import sqlalchemy as sa

    from catalog.db import get_catalog
    from catalog.models import IS_OPEN, Job
    from catalog.requests import queue
    from catalog.states import RequestState

    while not over.wait(LOOK_S):
        with get_catalog().read() as session:
            course.queued.append(queue.count(session, RequestState.QUEUED))
            query = sa.select(sa.func.count()).select_from(Job).where(IS_OPEN)
            course.open_jobs.append(session.execute(query).scalar_one())


def _wait_for_all(course: Course) -> float:
    """Wait until every run is closed and processed; gives the seconds that took."""
    begun = time.monotonic()
    while time.monotonic() - begun < END_S and not _is_all_done(len(course.runs)):
        time.sleep(0.5)
    return round(time.monotonic() - begun, 1)


def _is_all_done(runs: int) -> bool:
    from catalog import workflows
    from catalog.db import get_catalog
    from catalog.states import is_final

    with get_catalog().read() as session:
        found = workflows.list_workflows(session, limit=10_000)
    return len(found) == runs and all(is_final(info.state) for info in found)


def _figures(course: Course, done_s: float) -> tuple[dict[str, Any], list[str]]:
    waits = sorted(_waits(course))
    figures = {
        "files": len(course.written),
        "runs": len(course.runs),
        "registered": len(waits),
        "registered_s": {
            name: round(waits[min(len(waits) - 1, int(share * len(waits)))], 3)
            for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
        },
        "writer_behind_s": round(course.behind_s, 3),
        "most_queued_requests": max(course.queued, default=0),
        "most_open_jobs": max(course.open_jobs, default=0),
        "done_after_last_file_s": done_s,
    }
    return figures, _faults(course, len(waits))


def _waits(course: Course) -> list[float]:
    """Seconds from each file's name in the buffer to the answer of its request."""
    import sqlalchemy as sa
    from sqlmodel import col

    from catalog.db import get_catalog
    from catalog.models import Request
    from catalog.states import RequestState

    with get_catalog().read() as session:
        rows = session.execute(
            sa.select(col(Request.payload), col(Request.ended_at)).where(
                col(Request.kind) == "file.input", col(Request.state) == RequestState.DONE
            )
        )
        return [
            row.ended_at.timestamp() - course.written[file["path"]]
            for row in rows
            for file in row.payload["files"]
        ]


def _faults(course: Course, registered: int) -> list[str]:
    from catalog import datasets, workflows
    from catalog.db import get_catalog
    from catalog.requests import queue
    from catalog.states import DatasetState, RequestState, WorkflowState

    faults = []
    if registered != len(course.written):
        faults.append(f"{registered} of {len(course.written)} files were registered")
    with get_catalog().read() as session:
        for state in (RequestState.QUEUED, RequestState.ERROR):
            if left := queue.count(session, state):
                faults.append(f"{left} requests are {state}")
        for name, count in course.runs.items():
            info = datasets.by_name(session, name)
            if info.state is not DatasetState.CLOSED or info.file_count != count:
                faults.append(f"{name} is {info.state} with {info.file_count} of {count} files")
        ended = [info.state for info in workflows.list_workflows(session, limit=10_000)]
    if ended != [WorkflowState.FINISHED] * len(course.runs):
        faults.append(f"workflows of {len(course.runs)} runs: {sorted(map(str, ended))}")
    return faults


def _show(result: Mapping[str, Any]) -> None:
    table = Table(
        title=f"{result['rate_per_s']:g} files a second for {result['seconds']:g} s, "
        f"{result['profile']}"
    )
    table.add_column("")
    table.add_column("", justify="right")
    shown = ("files", "runs", "registered", "writer_behind_s", "most_queued_requests",
             "most_open_jobs", "done_after_last_file_s")  # fmt: skip
    for name in shown:
        table.add_row(name.replace("_", " "), str(result[name]))
    for name, seconds in result["registered_s"].items():
        table.add_row(f"registered after, s, {name}", str(seconds))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
