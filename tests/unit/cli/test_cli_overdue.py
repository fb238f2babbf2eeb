"""`spdf dataset list --overdue` and `release`: what is kept beyond its lifetime."""

from collections.abc import Callable
from typing import Any

import pytest

from catalog import clock, datasets, deletion, intakerules
from catalog.db import get_catalog
from catalog.states import DatasetState

pytestmark = pytest.mark.usefixtures("home")

Spdf = Callable[..., Any]
ADD = (
    "intake", "add", "daq", "--storage", "buffer", "--pattern", r"(?P<run>run-\d+)/.*",
    "--dataset", "{run}", "--lifetime", "60s",
)  # fmt: skip


@pytest.fixture
def runs(ok: Spdf) -> list[str]:
    """Two runs of a rule that nothing took, and whose lifetime is over."""
    ok(*ADD, "--unmatched", "keep")
    with get_catalog().write() as session:
        rule = intakerules.get(session, "daq").id
        for name in ("run-1", "run-2"):
            made = datasets.create(session, name, lifetime_s=60.0, rule_id=rule)
            datasets.close(session, made)
    clock.shift_clock(100)
    return ["run-1", "run-2"]


def states(*names: str) -> list[DatasetState]:
    with get_catalog().write() as session:
        deletion.expire(session)
        return [datasets.by_name(session, name).state for name in names]


def test_a_lifetime_needs_to_be_told_what_becomes_of_what_nothing_took(
    spdf: Spdf, ok: Spdf
) -> None:
    for more in ((), ("--dry-run",)):
        done = spdf(*ADD, *more)
        assert done.code == 2 and len(done.err.splitlines()) == 1
        assert "--lifetime needs --unmatched: `keep` keeps" in done.err
    assert "no rules" in ok("intake", "list").out
    done = spdf(*ADD, "--unmatched", "keep", "--until", "recco")
    assert done.code == 3 and "no template 'recco'" in done.err
    ok(*ADD, "--unmatched", "keep", "--shed-above", "90")
    assert ok("intake", "update", "daq", "--unmatched", "expire", "--json").json["unmatched"] == (
        "expire"
    )
    assert ok("intake", "update", "daq", "--shed-above", "0", "--json").json["shed_percent"] is None


def test_what_is_overdue_is_listed_with_what_it_is_kept_for(ok: Spdf, runs: list[str]) -> None:
    told = ok("dataset", "list", "--overdue", "--json").json
    assert [one["name"] for one in told] == runs
    assert (told[0]["rule"], told[0]["size_bytes"]) == ("daq", 0)
    assert told[0]["kept_for"][0]["fact"].startswith("no template took it")
    assert "no template took it" in ok("dataset", "why", "run-1").out
    assert "1 min from when all is done with it" in ok("dataset", "show", "run-1").out
    assert [one["name"] for one in ok("dataset", "list", "--overdue", "--mask", "*2", "--json").json
            ] == ["run-2"]  # fmt: skip
    kept = ok("dataset", "expire", "run-1", "--lifetime", "1d")
    assert "run-1 stays until it is done with: no template took it" in kept.err


def test_overdue_ones_are_released_by_a_mask_and_somebody_says_yes(
    spdf: Spdf, ok: Spdf, runs: list[str]
) -> None:
    assert spdf("dataset", "release", "x*").code == 3
    done = spdf("dataset", "release", "run-*")
    assert done.code == 2 and "no terminal to ask at: nothing was changed" in done.err
    assert "a dry run" in ok("dataset", "release", "run-*", "--dry-run").err
    assert states(*runs) == [DatasetState.CLOSED] * 2
    assert "run-1 is released" in ok("dataset", "release", "run-1", "--yes", "--reason", "bad").out
    assert states(*runs) == [DatasetState.DELETING, DatasetState.CLOSED]
    assert [one["name"] for one in ok("dataset", "release", "run-*", "--yes", "--json").json] == [
        "run-2"
    ]
    assert states(*runs) == [DatasetState.DELETING] * 2
    assert "nothing is overdue" in ok("dataset", "list", "--overdue").out
