"""Compute nodes in the catalog: announced, drained, given up."""

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from catalog import clock, nodes
from catalog.clock import shift_clock
from catalog.db import Catalog
from catalog.errors import NotFound
from catalog.nodes import Announcement
from catalog.states import NodeState

GPU = {"number": 0, "name": "H200", "uuid": "GPU-1", "memory_mib": 141_000}
SAID = Announcement("n1", "gpu", 10, 8, 64_000, (GPU,), None, "1.0")


@pytest.fixture(autouse=True)
def right_clock() -> Iterator[None]:
    """The clock is put right after each test."""
    yield
    shift_clock(0)


def test_a_node_is_what_its_worker_said_last(catalog: Catalog) -> None:
    with catalog.write() as session:
        first = nodes.announce(session, SAID)
        nodes.announce(session, replace(SAID, pool="cpu", devices=(), engine="podman"))
    with catalog.write() as session:
        assert nodes.announce(session, replace(SAID, pid=11, slots=16)) == first
    with catalog.read() as session:
        cpu, gpu = nodes.find(session, "n1")
        assert (cpu.pool, cpu.engine, cpu.devices) == ("cpu", "podman", [])
        assert (gpu.pool, gpu.pid, gpu.slots, gpu.devices) == ("gpu", 11, 16, [GPU])
        assert [node.id for node in nodes.online(session, "gpu")] == [first]
        assert nodes.count_online(session, "gpu") == 1
        with pytest.raises(NotFound, match="no node of pool control 'n1'; `spdf worker list`"):
            nodes.find(session, "n1", "control")


def test_a_drained_node_takes_no_pilots_and_leaves(catalog: Catalog) -> None:
    with catalog.write() as session:
        node = nodes.announce(session, SAID)
        assert nodes.beat(session, node, 10) is NodeState.ONLINE
        assert nodes.drain(session, [node], "maintenance") == [node]
        assert nodes.drain(session, [node], "again") == []
        assert nodes.beat(session, node, 10) is NodeState.DRAINING
        assert nodes.online(session, "gpu") == []
        assert nodes.count_online(session, "gpu") == 0
        assert [one.id for one in nodes.list_nodes(session, present=True)] == [node]
        nodes.leave(session, node, 10, "done")
        assert nodes.list_nodes(session, present=True) == []
        (info,) = nodes.list_nodes(session)
        assert (info.state, info.reason) == (NodeState.OFFLINE, "done")
        assert info.ended_at is not None
        nodes.announce(session, SAID)
        (info,) = nodes.list_nodes(session)
        assert (info.state, info.reason, info.ended_at) == (NodeState.ONLINE, None, None)


def test_a_silent_node_is_given_up_and_online_when_it_is_heard_again(catalog: Catalog) -> None:
    with catalog.write() as session:
        silent = nodes.announce(session, SAID)
        heard = nodes.announce(session, replace(SAID, name="n2", pid=20))
    shift_clock(100)
    with catalog.write() as session:
        nodes.beat(session, heard, 20)
        assert nodes.lose_silent(session, 60) == [silent]
        assert nodes.lose_silent(session, 60) == []
        assert nodes.beat(session, silent, 10) is NodeState.ONLINE
        assert len(nodes.online(session, "gpu")) == 2


def test_a_worker_whose_place_was_taken_learns_it_and_changes_nothing(catalog: Catalog) -> None:
    with catalog.write() as session:
        node = nodes.announce(session, SAID)
        nodes.announce(session, replace(SAID, pid=11))
        assert nodes.beat(session, node, 10) is NodeState.OFFLINE
        nodes.leave(session, node, 10, "gone")
        (info,) = nodes.list_nodes(session)
        assert (info.state, info.pid) == (NodeState.ONLINE, 11)


def test_a_node_whose_clock_is_off_is_told_of(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with catalog.write() as session:
        node = nodes.announce(session, SAID)
    for off_s, told in ((0.0, []), (30.0, []), (-7200.0, ["2 h behind"]), (0.0, [])):
        with catalog.write() as session:
            session.connection()
            with monkeypatch.context() as patched:
                patched.setattr(clock, "wall", lambda off_s=off_s: time.time() + off_s)
                nodes.beat(session, node, SAID.pid)
        with catalog.read() as session:
            (info,) = nodes.list_nodes(session)
            sentences = list(nodes.off(session))
        assert info.clock_off_s is not None and abs(info.clock_off_s - off_s) < 10
        assert len(sentences) == len(told)
        assert all(words in sentence for words, sentence in zip(told, sentences, strict=True))
