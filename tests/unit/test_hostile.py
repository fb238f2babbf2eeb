"""Hundreds of odd requests and files through the intake: each is answered, and none stops it."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from benchmarks import odd
from catalog import datasets, intakerules, refusals, storages
from catalog.db import Catalog
from catalog.models import StorageKind, StorageRole
from catalog.requests import list_requests, queue
from catalog.requests.processor import Processor
from catalog.rule import Rule
from catalog.states import RequestState
from flows.intake.housework import Housework
from flows.intake.spool import REJECTED, Spool
from flows.intake.watches import Watches

REQUESTS, FILES, GOOD = 300, 120, 30
LIMIT_S = 120.0


@pytest.fixture
def buffer(catalog: Catalog, tmp_path: Path) -> Path:
    """A watched storage, with a rule for good files and one for all others."""
    folder = tmp_path / "buffer"
    (folder / "odd").mkdir(parents=True)
    with catalog.write() as session:
        storages.add(session, "buffer", StorageKind.LOCAL, StorageRole.INPUT, str(folder))
        datasets.create(session, "requested")
        for name, pattern in (("good", r"(?P<run>good)/f\d+\.raw"), ("odd", r"(?P<run>odd)/.*")):
            intakerules.add(session, Rule(name, "buffer", pattern, "{run}", stable_s=0.0))
    return folder


@pytest.fixture
def processor(catalog: Catalog) -> Iterator[Processor]:
    made = Processor(catalog, lambda _session: None)
    yield made
    made.close()


@pytest.fixture
def watches(catalog: Catalog) -> Iterator[Watches]:
    made = Watches(catalog, 30.0)
    yield made
    made.close()


@pytest.mark.parametrize("seed", [1, 2])
def test_each_is_answered_and_the_good_ones_are_registered(
    catalog: Catalog,
    buffer: Path,
    tmp_path: Path,
    processor: Processor,
    watches: Watches,
    seed: int,
) -> None:
    directory = tmp_path / "spool"
    directory.mkdir()
    spool, housework = Spool(directory, catalog), Housework(catalog, lambda _session: None)
    requests = odd.Requests(seed, "buffer", odd.things(buffer))
    files = odd.Files(seed, buffer / "odd")
    (buffer / "good").mkdir()
    for number in range(REQUESTS):
        odd.spool(directory, f"{number:04}", requests.make(number))
    for number in range(FILES):
        files.make(number)
    for number in range(GOOD):
        (buffer / "good" / f"f{number}.raw").write_bytes(b"good")

    # No turn of any loop may raise: that would be one item's trouble for all.
    until = time.monotonic() + LIMIT_S
    for turn in itertools.count():
        assert time.monotonic() < until, "it did not come to an end"
        spool.look()
        watches.turn()
        processor.turn()
        if turn % 20 == 0:
            housework.turn()
        if turn > 20 and is_done(catalog, directory):
            break

    rejected = list((directory / REJECTED).glob("*.why"))
    assert rejected and all(path.stat().st_size > 10 for path in rejected)
    with catalog.read() as session:
        found = list_requests(session, limit=10_000)
        told = [info for info in found if info.state is RequestState.ERROR]
        taken = {info.key for info in found if info.key.startswith("odd-")}
        assert refusals.count(session) > 0
    assert told and all(info.reply and info.reply["error"] for info in told)
    assert not [info for info in told if info.reply and info.reply["code"] == "INTERNAL"]
    assert 0 < len(taken) <= REQUESTS - len(rejected)


def is_done(catalog: Catalog, directory: Path) -> bool:
    """Whether nothing waits, and each good file is registered once."""
    with catalog.read() as session:
        queued = queue.count(session, RequestState.QUEUED)
        good = session.execute(
            sa.text("SELECT count(*) FROM replica WHERE path LIKE 'good/%'")
        ).scalar_one()
    return not queued and good == GOOD and not list(directory.glob("*.json"))
