"""Odd requests and files through the intake, beside good ones: what they cost the good ones.

Good files arrive in a watched buffer at 10 a second: alone, and for as long and in as many into a
new buffer beside odd requests (in the spool) and odd files (in the same buffer) at 100 a second.
Prints how long good files took to be registered, without and with the odd ones. Ends with 1 where a
good file isn't registered once, an odd document has no answer of its own and isn't rejected with a
sentence, an odd file is neither registered nor told of, or a service was started anew.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from benchmarks import limit, odd
from benchmarks.results import deliver, parser, positive, whole
from benchmarks.stand import EMBEDDED, PROFILES, Stand, scratch, stand

if TYPE_CHECKING:
    from catalog.requests import RequestInfo

ALONE, BESIDE = "alone", "hostile"
"""Storages, and the rules of their good files: what one course left is no burden on the other."""
GOOD, ODD = r"(?P<run>good-\d)/f\d+\.raw", r"(?P<run>odd)/.*"
END_S = 300.0
WARM_S = 10.0
SHARES = {"p10": 0.1, "p50": 0.5, "p75": 0.75, "p90": 0.9, "p95": 0.95, "p99": 0.99, "max": 1.0}


@dataclass
class Course:
    """What was written, and when."""

    written: dict[str, float] = field(default_factory=dict)
    documents: list[bytes] = field(default_factory=list)
    odd_files: int = 0
    behind_s: float = 0.0


def main() -> int:
    """Measure and print."""
    options = parser(__doc__)
    options.add_argument("--profile", choices=PROFILES, default=EMBEDDED)
    options.add_argument("--rate", type=positive, default=100.0, help="odd ones in a second")
    options.add_argument("--good", type=positive, default=10.0, help="good ones in a second")
    options.add_argument("--requests", type=whole, default=10_000, help="odd requests")
    options.add_argument("--files", type=whole, default=1000, help="odd files")
    options.add_argument("--seed", type=whole, default=1)
    given = options.parse_args()
    if given.short:
        given.requests, given.files = 1000, 100
    with scratch() as folder:
        reached = limit.measure_quick(folder)
        with stand(folder, given.profile) as running:
            figures, faults = _measure(running, given)
    return deliver(given, "hostile", figures, limit=reached.as_json(), faults=faults, show=_show)


def _measure(running: Stand, given: Any) -> tuple[dict[str, Any], list[str]]:
    from catalog.settings import get_settings

    spool = get_settings().spool
    assert spool is not None
    spool.mkdir(parents=True, exist_ok=True)
    before, course = running.services(), Course()
    together_s = (given.requests + given.files) / given.rate
    quiet = running.folder / ALONE
    _lay_down(quiet, ALONE)
    _write_good(course, quiet, "good-1", WARM_S, given.good)
    _wait(lambda: not _missing(course))
    _write_good(course, quiet, "good-2", together_s, given.good)
    _wait(lambda: not _missing(course))
    _unfollow(ALONE)
    buffer = running.folder / BESIDE
    _lay_down(buffer, BESIDE)
    _write_good(course, buffer, "good-3", WARM_S, given.good)
    _wait(lambda: not _missing(course))
    hostile = threading.Thread(target=_write_odd, args=(course, buffer, spool, given))
    hostile.start()
    _write_good(course, buffer, "good-4", together_s, given.good)
    hostile.join()
    # To look for all of them is work, which the good ones would have to wait for.
    waited_s = _wait(lambda: not _missing(course))
    waited_s += _wait(lambda: not _faults(course, buffer, spool))
    faults = _faults(course, buffer, spool)
    if (after := running.services()) != before:
        faults.append(f"services were started anew: {before} before, {after} after")
    alone, beside = (_latencies(course, run) for run in ("good-2", "good-4"))
    figures = {
        "profile": given.profile,
        "good_per_s": given.good,
        "odd_per_s": given.rate,
        "odd_requests": len(course.documents),
        "odd_files": course.odd_files,
        "good_files": len(course.written),
        "writer_behind_s": round(course.behind_s, 2),
        "answered_after_last_s": waited_s,
        "alone_s": _quantiles(alone),
        "beside_s": _quantiles(beside),
        "beside_p50_by_quarter_s": _by_quarter(beside),
        "p99_ratio": round(_quantile(beside, 0.99) / max(_quantile(alone, 0.99), 1e-3), 2),
        **_answers(),
    }
    return figures, faults


def _lay_down(buffer: Path, name: str) -> None:
    """A storage with a rule for its good files, and what odd ones are for."""
    from catalog import datasets, intakerules, storages
    from catalog.db import get_catalog
    from catalog.models import StorageKind, StorageRole

    (buffer / "odd").mkdir(parents=True)
    patterns = {name: GOOD, **({"odd": ODD} if name == BESIDE else {})}
    with get_catalog().write() as session:
        storages.add(session, name, StorageKind.LOCAL, StorageRole.INPUT, str(buffer))
        if name == BESIDE:
            datasets.create(session, "requested")
        for rule, pattern in patterns.items():
            made = intakerules.Rule(rule, name, pattern, "{run}", stable_s=0.0)
            intakerules.add(session, made)


def _unfollow(rule: str) -> None:
    from catalog import intakerules
    from catalog.db import get_catalog

    with get_catalog().write() as session:
        intakerules.remove(session, rule)


def _write_good(course: Course, buffer: Path, run: str, seconds: float, rate: float) -> None:
    """Good files at their rate, each renamed when it is whole."""
    (buffer / run).mkdir()
    begun = time.monotonic()
    for number in range(int(seconds * rate)):
        late_s = time.monotonic() - begun - number / rate
        course.behind_s = max(course.behind_s, late_s)
        time.sleep(max(0.0, -late_s))
        name = f"{run}/f{number:06}.raw"
        part = buffer / run / f".f{number:06}"
        part.write_bytes(name.encode() * 100)
        part.rename(buffer / name)
        course.written[name] = time.time()


def _write_odd(course: Course, buffer: Path, spool: Path, given: Any) -> None:
    """Odd requests and files at their rate, the files spread among the requests."""
    requests = odd.Requests(given.seed, BESIDE, odd.things(buffer))
    files = odd.Files(given.seed, buffer / "odd")
    count, begun = given.requests + given.files, time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, number / given.rate - (time.monotonic() - begun)))
        if number * given.files // count < (number + 1) * given.files // count:
            files.make(course.odd_files)
            course.odd_files += 1
        else:
            content = requests.make(len(course.documents))
            odd.spool(spool, f"{len(course.documents):06}", content)
            course.documents.append(content)


def _wait(until: Callable[[], bool]) -> float:
    """Wait until it is so, at most `END_S`; the seconds."""
    begun = time.monotonic()
    while time.monotonic() - begun < END_S and not until():
        time.sleep(0.5)
    return round(time.monotonic() - begun, 1)


def _registered() -> dict[str, list[float]]:
    """When each path of the storage was registered, as often as it was."""
    import sqlalchemy as sa

    from catalog.db import get_catalog
    from catalog.models import Replica

    found: dict[str, list[float]] = {}
    with get_catalog().read() as session:
        for row in session.execute(sa.select(Replica.path, Replica.created_at)):  # type: ignore[call-overload]
            found.setdefault(row.path, []).append(row.created_at.timestamp())
    return found


def _missing(course: Course) -> list[str]:
    there = _registered()
    return [name for name in course.written if len(there.get(name, ())) != 1]


def _faults(course: Course, buffer: Path, spool: Path) -> list[str]:
    """Sentences on what was lost."""
    faults = []
    for lost, told in (
        (_missing(course), "good files aren't registered once"),
        ([path.name for path in spool.glob("*.json")], "documents are where they were left"),
        (_unanswered(course, spool), "documents have no answer of their own"),
        (_untold(buffer), "odd files are neither registered nor told of"),
    ):
        if lost:
            faults.append(f"{len(lost)} {told}, such as {lost[0]}")
    return faults


def _unanswered(course: Course, spool: Path) -> list[str]:
    """Names of the odd documents that were neither answered, each as it was, nor rejected."""
    from catalog.db import get_catalog
    from catalog.requests import list_requests

    why = {p.name.removesuffix(".json.why"): p.stat().st_size for p in spool.glob("rejected/*.why")}
    with get_catalog().read() as session:
        known = {info.key: info for info in list_requests(session, limit=1_000_000)}
    return [
        f"{number:06}"
        for number, content in enumerate(course.documents)
        if not why.get(f"{number:06}") and not _is_answered(content, known)
    ]


def _is_answered(content: bytes, known: "Mapping[str, RequestInfo]") -> bool:
    """Whether a document's own request is done, or was answered with a sentence."""
    from catalog.errors import BadInput
    from catalog.requests import parse
    from catalog.states import RequestState

    try:
        document = parse(json.loads(content))
    except (BadInput, ValueError, RecursionError):
        return False
    info = known.get(document.key)
    if info is None or (info.kind, info.payload) != (document.kind, document.payload):
        return False
    is_refused = info.state is RequestState.ERROR and bool((info.reply or {}).get("error"))
    return is_refused or info.state is RequestState.DONE


def _untold(buffer: Path) -> list[str]:
    """Odd files that are there, and neither registered nor among what the rule doesn't take."""
    from catalog import intakerules, refusals
    from catalog.db import get_catalog
    from catalog.names import shown

    with get_catalog().read() as session:
        (rule,) = (rule for rule in intakerules.active(session) if rule.name == "odd")
        told = {info.path for info in refusals.of_rule(session, rule.id)}
    there = (
        f"odd/{path.name}"
        for path in (buffer / "odd").iterdir()
        if not path.name.startswith(".") and (path.is_symlink() or not path.is_dir())
    )
    known = told | {shown(path) for path in _registered()}
    return [path for path in there if shown(path) not in known]


def _answers() -> dict[str, int]:
    """How many requests were answered, and how."""
    from catalog import refusals
    from catalog.db import get_catalog
    from catalog.requests import queue
    from catalog.states import RequestState

    with get_catalog().read() as session:
        return {
            "done": queue.count(session, RequestState.DONE),
            "error": queue.count(session, RequestState.ERROR),
            "refused_files": refusals.count(session),
        }


def _latencies(course: Course, run: str) -> list[float]:
    """In the order in which the files were written."""
    there = _registered()
    return [
        there[name][0] - at
        for name, at in course.written.items()
        if name.startswith(f"{run}/") and name in there
    ]


def _quantile(seconds: Sequence[float], share: float) -> float:
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("inf")


def _quantiles(seconds: Sequence[float]) -> dict[str, float]:
    return {name: round(_quantile(seconds, share), 3) for name, share in SHARES.items()}


def _by_quarter(seconds: Sequence[float]) -> list[float]:
    """The p50 of each quarter: whether it grows with what has been odd so far."""
    count = len(seconds)
    quarters = [seconds[count * n // 4 : count * (n + 1) // 4] for n in range(4)]
    return [round(_quantile(quarter, 0.5), 3) for quarter in quarters]


def _show(result: Mapping[str, Any]) -> None:
    table = Table(title=f"odd ones at {result['odd_per_s']:g} a second, {result['profile']}")
    table.add_column("")
    table.add_column("", justify="right")
    for name, value in result.items():
        if not isinstance(value, Mapping):
            table.add_row(name.replace("_", " "), str(value))
    for which in ("alone_s", "beside_s"):
        for name, seconds in result[which].items():
            table.add_row(f"good registered after, s, {which.removesuffix('_s')}, {name}",
                          str(seconds))  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
