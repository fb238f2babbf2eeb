"""Registering files in bulk through the request path, on PostgreSQL and on SQLite.

A sender submits requests of many files each, and the processor that the intake runs does them at
the same time; then a dataset of all of them is listed, closed, its digest computed, and deleted.
Prints files per second from the first request to the last answer, seconds of each step, whose CPU
the files took, and how much memory the processor grew meanwhile. The bytes aren't looked at: there
are none. Ends with 1 where the catalog doesn't hold what was asked for.
"""

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.database import database
from benchmarks.limit import measure_quick
from benchmarks.results import deliver, parser, whole
from benchmarks.stand import scratch
from catalog import datasets, deletion, manifests, requests, schema, storages
from catalog.db import Catalog
from catalog.requests.processor import Processor, collect_rarely
from catalog.states import RequestState

PER_REQUEST = 1000
NAME = "bulk-1"
BACKENDS = ("postgresql", "sqlite")


def main() -> int:
    """Measure and print."""
    options = parser(__doc__)
    options.add_argument("--files", type=whole, default=1_000_000)
    given = options.parse_args()
    collect_rarely()
    count = 20_000 if given.short else given.files
    with scratch() as folder:
        limit = measure_quick(folder)
        lines = {}
        for backend in BACKENDS:
            with _catalog(backend, folder) as (catalog, url, server_cpu_s):
                lines[backend] = _measure(catalog, url, server_cpu_s, folder, count)
    faults = [fault for line in lines.values() for fault in line.pop("faults")]
    figures = {"files": count, "per_request": PER_REQUEST, "backends": lines}
    return deliver(given, "bulk", figures, limit=limit.as_json(), faults=faults, show=_show)


@contextmanager
def _catalog(backend: str, folder: Path) -> Iterator[tuple[Catalog, str, Callable[[], float]]]:
    """A new catalog, its URL, and the CPU seconds of its server so far."""
    if backend == "postgresql":
        with database(folder) as server:
            catalog = server.catalog("bulk")
            yield catalog, server.cluster.url("bulk"), server.cpu_s
            catalog.close()
        return
    url = f"sqlite:///{folder / 'catalog.db'}"
    catalog = Catalog(url)
    schema.upgrade(catalog)
    yield catalog, url, lambda: 0.0
    catalog.close()


def _measure(
    catalog: Catalog, url: str, server_cpu_s: Callable[[], float], folder: Path, count: int
) -> dict[str, Any]:
    with catalog.write() as session:
        storages.add(session, "disk", "local", "input", str(folder / "disk"))
    requests.submit_requests(catalog, [{"kind": "dataset.input", "key": "new", "name": NAME}])
    line: dict[str, Any] = {"faults": []}
    processor = Processor(catalog, lambda _session: None)
    processor.turn()
    before = _rss_mib()
    server_s, processor_s = server_cpu_s(), time.process_time()
    with _sender(url, count) as pipe:
        pipe.send("go")
        begun = time.perf_counter()
        while True:
            is_over = pipe.poll()
            if processor.turn() == 0:
                if is_over:
                    break
                time.sleep(0.002)
        line["register_s"] = round(time.perf_counter() - begun, 3)
        line["accept_s"], sender_s = pipe.recv()
    line["files_per_s"] = round(count / line["register_s"], 1)
    spent = {
        "sender": sender_s,
        "processor": time.process_time() - processor_s,
        "server": server_cpu_s() - server_s,
    }
    line |= {f"cpu_{name}_us": round(1e6 * s / count, 1) for name, s in spent.items()}
    with catalog.read() as session:
        info = datasets.by_name(session, NAME)
        failed = requests.list_requests(session, state=RequestState.ERROR)
    line["page_ms"] = round(1000 * _timed(lambda: _page(catalog, info.id, count)), 1)
    closing = {"kind": "dataset.close", "key": "close", "datasetId": NAME, "fileCount": count}
    requests.submit_requests(catalog, [closing])
    line["close_s"] = _timed(lambda: _drain(processor))
    line["digest_s"] = _timed(lambda: _digest(catalog, info.id))
    line["mark_deleted_s"] = _timed(lambda: _mark(catalog, info.id))
    line["remove_s"] = _timed(lambda: deletion.remove(catalog, info.id))
    line["grown_mib"] = round(_rss_mib() - before, 1)
    processor.close()
    with catalog.read() as session:
        info = datasets.get(session, info.id)
    if failed or info.file_count != count or info.state != "DELETED":
        line["faults"].append(f"{len(failed)} requests failed, {info}")
    return line


@contextmanager
def _sender(url: str, count: int) -> Iterator[Any]:
    """A process that submits the requests once it is told to; the pipe to it.

    It tells at the end how long that took it, and how much CPU.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_send, args=(url, count, theirs), daemon=True)
    process.start()
    theirs.close()
    ours.recv()
    yield ours
    process.join()


def _send(url: str, count: int, pipe: Any) -> None:
    catalog = Catalog(url)
    with catalog.read() as session:
        storages.list_all(session)
    pipe.send("ready")
    pipe.recv()
    cpu_s = time.process_time()
    accept_s = _timed(lambda: _accept(catalog, count))
    pipe.send((accept_s, time.process_time() - cpu_s))


def _timed(call: Any) -> float:
    begun = time.perf_counter()
    call()
    return round(time.perf_counter() - begun, 3)


def _rss_mib() -> float:
    """The most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _accept(catalog: Catalog, count: int) -> None:
    for start in range(0, count, 10 * PER_REQUEST):
        documents = [
            {
                "kind": "file.process",
                "key": f"files {first}",
                "datasetId": NAME,
                "verify": "none",
                "files": [
                    {
                        "storageId": "disk",
                        "path": f"run/{i:08d}",
                        "size": i,
                        "checksum": "adler32:00000001",
                    }
                    for i in range(first, min(first + PER_REQUEST, count))
                ],
            }
            for first in range(start, min(start + 10 * PER_REQUEST, count), PER_REQUEST)
        ]
        requests.submit_requests(catalog, documents)


def _drain(processor: Processor) -> None:
    while processor.turn():
        pass


def _page(catalog: Catalog, dataset_id: int, count: int) -> None:
    """A page of a listing, from the middle of the dataset."""
    with catalog.read() as session:
        after = (count // 2, "")
        found = manifests.members(session, dataset_id, after=after, limit=1000)
        assert found


def _digest(catalog: Catalog, dataset_id: int) -> None:
    with catalog.read() as session:
        manifests.content(session, dataset_id)


def _mark(catalog: Catalog, dataset_id: int) -> None:
    with catalog.write() as session:
        deletion.mark(session, dataset_id, "a benchmark")


def _show(result: Mapping[str, Any]) -> None:
    table = Table(title=f"{result['files']} files, {result['per_request']} in a request")
    table.add_column("")
    for backend in result["backends"]:
        table.add_column(backend, justify="right")
    for name in next(iter(result["backends"].values())):
        table.add_row(name, *(str(line[name]) for line in result["backends"].values()))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
