"""Requests, events and roles that one process has at a time."""

import threading

import pytest

from catalog import clock, datasets, events, requests, singletons
from catalog.db import Catalog
from catalog.errors import BadInput, Conflict, NotFound, StateConflict
from catalog.requests import NewRequest
from catalog.states import RequestState


def test_a_request_sent_again_is_the_same(catalog: Catalog) -> None:
    new = [NewRequest("register", key, {"n": key}) for key in ("b", "a")]
    with catalog.write() as session:
        first = requests.submit(session, new)
    with catalog.write() as session:
        assert requests.submit(session, [*new, NewRequest("register", "c", {})])[:2] == first
    with catalog.read() as session:
        assert requests.list_requests(session)[0].key == "c"
        assert len(requests.list_requests(session)) == 3
        assert len(requests.list_requests(session, before=max(first), limit=1)) == 1


def test_a_key_with_another_content_is_refused(catalog: Catalog) -> None:
    with catalog.write() as session:
        requests.submit(session, [NewRequest("register", "a", {"n": 1})])
    for other in (NewRequest("register", "a", {"n": 2}), NewRequest("close", "a", {"n": 1})):
        with pytest.raises(Conflict, match="'a' was sent before"), catalog.write() as session:
            requests.submit(session, [NewRequest("register", "new", {}), other])
    with pytest.raises(BadInput), catalog.write() as session:
        requests.submit(session, [NewRequest("register", "", {})])
    with catalog.read() as session:
        assert len(requests.list_requests(session)) == 1


def test_requests_are_taken_in_order_and_answered_once(catalog: Catalog) -> None:
    with catalog.write() as session:
        ids = requests.submit(session, [NewRequest("k", f"r{i}", {}) for i in range(3)])
    with catalog.write() as session:
        taken = requests.take(session, 2)
        assert [r.id for r in taken] == sorted(ids)[:2]
        requests.reply(session, taken[0].id, RequestState.DONE, {"ok": True})
        requests.reply(session, taken[1].id, RequestState.ERROR, {"error": "no"})
    with catalog.write() as session:
        assert [r.id for r in requests.take(session, 9)] == sorted(ids)[2:]
        done = requests.get(session, taken[0].id)
        assert (done.state, done.reply) == (RequestState.DONE, {"ok": True})
        assert done.ended_at is not None
        with pytest.raises(StateConflict, match="is DONE and can't become ERROR"):
            requests.reply(session, taken[0].id, RequestState.ERROR)
        with pytest.raises(NotFound):
            requests.reply(session, 999, RequestState.DONE)
        requests.reply(session, taken[1].id, RequestState.QUEUED)
        assert requests.get(session, taken[1].id).ended_at is None


def test_events_are_told_newest_first(catalog: Catalog) -> None:
    with catalog.write() as session:
        ids = [datasets.create(session, name) for name in "abc"]
        datasets.close(session, ids[0])
    with catalog.read() as session:
        found = events.recent(session, 2)
        both = events.history(session, "dataset", ids[0])
    assert [(e.entity_id, e.after) for e in found] == [(ids[0], "CLOSED"), (ids[2], "OPEN")]
    assert [e.after for e in both] == ["OPEN", "CLOSED"]
    assert both[0].at <= both[1].at and both[0].at.tzinfo is not None


def test_a_role_has_one_holder_until_its_lease_ends(catalog: Catalog) -> None:
    with catalog.write() as session:
        assert singletons.acquire(session, "recorder", "one", 30) == 1
        assert singletons.acquire(session, "recorder", "two", 30) is None
        assert singletons.acquire(session, "recorder", "one", 30) is None
        assert singletons.acquire(session, "watchdog", "two", 30) == 1
        assert singletons.renew(session, "recorder", "one", 1, 30)
        assert not singletons.renew(session, "recorder", "two", 1, 30)
    clock.shift_clock(29)
    with catalog.write() as session:
        assert singletons.acquire(session, "recorder", "two", 30) is None
        assert singletons.renew(session, "recorder", "one", 1, 30)
    clock.shift_clock(58)
    with catalog.write() as session:
        assert singletons.acquire(session, "recorder", "two", 30) is None
    clock.shift_clock(60)
    with catalog.write() as session:
        assert singletons.acquire(session, "recorder", "two", 30) == 2
        assert not singletons.renew(session, "recorder", "one", 1, 30)
        assert not singletons.release(session, "recorder", "one", 1)


def test_an_expired_role_that_nobody_took_is_renewed(catalog: Catalog) -> None:
    with catalog.write() as session:
        singletons.acquire(session, "recorder", "one", 30)
    clock.shift_clock(1000)
    with catalog.write() as session:
        assert singletons.renew(session, "recorder", "one", 1, 30)
        assert singletons.acquire(session, "recorder", "two", 30) is None


def test_a_released_role_is_free_at_once(catalog: Catalog) -> None:
    with catalog.write() as session:
        singletons.acquire(session, "recorder", "one", 30)
        assert singletons.release(session, "recorder", "one", 1)
        assert singletons.acquire(session, "recorder", "two", 30) == 2


def test_of_many_who_want_a_role_one_gets_it(catalog: Catalog) -> None:
    epochs: list[int | None] = []

    def acquire(owner: str) -> None:
        with catalog.write() as session:
            epochs.append(singletons.acquire(session, "recorder", owner, 30))

    threads = [threading.Thread(target=acquire, args=(f"o{i}",)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(epochs, key=str) == [1, *[None] * 5]
