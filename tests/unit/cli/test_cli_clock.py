"""`spdf clock`: what is told of a clock that was set, and accepting it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from catalog import cattime, clock, datasets, deletion
from catalog.db import Catalog

Spdf = Callable[..., Any]
DAY_S = 86400.0


def beat(catalog: Catalog) -> None:
    with catalog.write() as session:
        session.connection()
        cattime.keep(session)


def expire(catalog: Catalog) -> list[str]:
    with catalog.write() as session:
        return deletion.expire(session)


def test_a_right_clock_is_told_as_that(ok: Spdf, spdf: Spdf, home: Path, catalog: Catalog) -> None:
    beat(catalog)
    done = ok("clock")
    assert "right" in done.out and done.err == ""
    found = ok("clock", "--json").json
    assert (found["skew_s"], found["problems"], found["events"]) == (0.0, [], [])
    done = spdf("clock", "accept")
    assert (done.code, len(done.err.splitlines())) == (4, 1), done.err


def test_a_clock_that_was_set_is_told_and_accepted_by_a_word(
    ok: Spdf, spdf: Spdf, home: Path, catalog: Catalog
) -> None:
    beat(catalog)
    with catalog.write() as session:
        made = datasets.create(session, "keep", lifetime_s=30 * DAY_S)
        datasets.close(session, made)
    clock.set_clock(45 * DAY_S)
    beat(catalog)
    done = ok("clock")
    assert "45 d ahead" in done.out and "keep" in done.err and "accept" in done.err
    told = spdf("status", "--json").json["problems"]
    assert any("45 d ahead" in sentence for sentence in told)
    done = spdf("clock", "accept")
    assert (done.code, len(done.err.splitlines())) == (2, 1) and "keep" in done.err
    assert expire(catalog) == []
    assert "catalog time is" in ok("clock", "accept", "--yes").out
    assert expire(catalog) == ["keep"]
    assert [item["after"] for item in ok("clock", "--json").json["events"]] == ["SET", "ACCEPTED"]
