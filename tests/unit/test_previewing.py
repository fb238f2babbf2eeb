"""Previews: what a rule would take, told before it is added."""

import pytest

from catalog import datasets
from catalog.db import Catalog
from catalog.rule import Rule
from catalog.states import DatasetState
from catalog.storages import StorageInfo
from flows.intake.previewing import Filled, Preview, previewed
from tests.unit.watched import END, PATTERN, Buffer

LOOK_S = 20.0


@pytest.fixture
def buffer(catalog: Catalog, storage: StorageInfo) -> Buffer:
    return Buffer(catalog, storage)


def preview(buffer: Buffer) -> Preview:
    rule = Rule("daq", buffer.storage.name, PATTERN, "{run}", stable_s=0.0, end_pattern=END)
    return previewed(buffer.catalog, rule, buffer.storage, LOOK_S)


def test_what_is_new_is_shown_by_dataset(buffer: Buffer) -> None:
    buffer.arrive("run-2/a.raw", "run-1/b.raw", "run-1/c.raw", "run-1/END", "notes.txt")
    buffer.path("run-1/l.raw").symlink_to("b.raw")
    with buffer.catalog.write() as session:
        datasets.create(session, "run-2")
    found = preview(buffer)
    assert found.datasets == [
        Filled("run-1", 2, 22, None),
        Filled("run-2", 1, 11, DatasetState.OPEN),
    ]
    assert (found.more, found.registered, found.left, found.late) == (0, 0, 0, 0)
    assert found.refused == 1, "the link"


def test_what_is_known_already_or_stays_out_is_told_apart(buffer: Buffer) -> None:
    watch = buffer.follow(end_pattern=END)
    buffer.arrive("run-1/a.raw", "run-1/END", "run-2/a.raw", "run-2/END", "run-3/a.raw")
    buffer.look(3)
    assert buffer.state("run-1") is buffer.state("run-2") is DatasetState.CLOSED
    buffer.delete("run-2")
    buffer.arrive("run-1/b.raw", "run-3/b.raw")
    found = previewed(buffer.catalog, watch.rule, buffer.storage, LOOK_S)
    assert found.datasets == [Filled("run-3", 1, 11, DatasetState.OPEN)]
    assert (found.registered, found.left, found.late) == (2, 1, 1)
