"""Events, and roles that one process has at a time."""

import threading

from catalog import clock, datasets, events, singletons
from catalog.db import Catalog


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
