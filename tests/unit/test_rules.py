"""Rules of the intake as values and rows: what they say, what is refused, what old ones mean."""

from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from catalog import intakerules, rulewords
from catalog.db import Catalog
from catalog.errors import BadInput, Conflict
from catalog.models import IntakeRule
from catalog.refs import Untaken
from catalog.rule import Rule
from catalog.storages import StorageInfo

RULE = Rule("daq", "raw", r"(?P<run>run-\d+)/.*\.raw", "{run}")
END = r"(?P<run>run-\d+)/END"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, "nothing closes its datasets but `spdf dataset close`"),
        ({"end_pattern": END}, f"ended with a dataset at marker {END}; that is"),
        (
            {"end_pattern": END, "close_count": 5},
            f"ended with a dataset at marker {END} and 5 files; that is",
        ),
        (
            {"end_pattern": END, "close_count": 5, "either": True},
            f"marker {END} or 5 files; that is",
        ),
        (
            {"close_count": 5, "quiet_s": 60.0},
            "ended with a dataset at 5 files or 1 min without files; that is",
        ),
        (
            {"end_pattern": END, "close_count": 5, "quiet_s": 60.0},
            f"ended with a dataset at marker {END} and 5 files or 1 min without files",
        ),
        ({"end_pattern": END}, "a marker of a run without files makes none, and is told of"),
        ({"end_pattern": END, "close_empty": True}, "without files makes an empty, CLOSED dataset"),
        ({"lifetime_s": 360.0}, "deleted, bytes and all, 6 min after it is done with"),
        ({"lifetime_s": 360.0}, "nobody has said what becomes of datasets that nothing took"),
        (
            {"lifetime_s": 360.0, "unmatched": Untaken.KEEP},
            "one that no template took, and nobody processed, stays until `spdf dataset release`",
        ),
        (
            {"lifetime_s": 360.0, "unmatched": Untaken.EXPIRE},
            "one that no template took is deleted 6 min after its close",
        ),
        (
            {"lifetime_s": 360.0, "until": ("reco", "qa")},
            "and one of each of reco, qa, is FINISHED",
        ),
        (
            {"lifetime_s": 360.0, "shed_percent": 90},
            "above 90 % of the quota of raw what is overdue",
        ),
        ({"stable_s": 0.0}, "as soon as it is listed"),
        ({"stable_s": 0.5}, "once it hasn't changed for 0.5 s"),
    ],
)
def test_a_rule_says_what_it_will_do(more: dict[str, Any], told: str) -> None:
    assert told in "\n".join(rulewords.sentences(replace(RULE, **more)))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"pattern": r"(?P<run>run-\d+)(?!x)/.*"}, "--pattern .*can't be used: `\\(\\?!…\\)`"),
        ({"end_pattern": r"(?P<run>r)\bEND"}, "--end .*known for ASCII only"),
        ({"pattern": "", "dataset": "all"}, "--pattern '' fits no path"),
        ({"pattern": r"(?P<run>)^$"}, "--pattern .* fits no path"),
        ({"end_pattern": "(?P<run>)"}, "--end .* fits no path"),
        ({"either": True, "close_count": 5}, "--either needs both"),
        ({"close_empty": True}, "--empty-runs close needs --end"),
        ({"close_empty": True, "end_pattern": END, "close_count": 5}, "can't go with --end and"),
        ({"close_count": 0}, "--count 0 is no number of files"),
        ({"close_count": 2**63}, "is no number of files"),
        ({"lifetime_s": 0.0}, "--lifetime of 0 s is too short.* at least 1m"),
        ({"lifetime_s": 59.0}, "--lifetime of 59 s is too short"),
        ({"lifetime_s": 60.0}, "--lifetime needs --unmatched: `keep` keeps datasets"),
        ({"unmatched": Untaken.KEEP}, "--unmatched needs --lifetime"),
        ({"until": ("reco",)}, "--until needs --lifetime"),
        ({"shed_percent": 90}, "--shed-above needs --lifetime"),
        ({"shed_percent": 101}, "--shed-above 101 is no percentage"),
        ({"prefix": ".staging/"}, "is hidden"),
        ({"prefix": "daq/.staging"}, "is hidden"),
    ],
)
def test_a_rule_that_can_not_do_what_it_says_is_refused(
    catalog: Catalog, storage: StorageInfo, wrong: dict[str, Any], told: str
) -> None:
    with catalog.write() as session, pytest.raises(BadInput, match=told):
        intakerules.add(session, replace(RULE, **wrong))


def test_rules_of_before_close_by_whichever_comes_first(
    catalog: Catalog, storage: StorageInfo
) -> None:
    both = replace(RULE, end_pattern=END, close_count=5)
    with catalog.write() as session:
        intakerules.add(session, both)
        intakerules.add(session, replace(RULE, name="one", close_count=5))
        session.execute(sa.update(IntakeRule).values(either=None))
        assert intakerules.get(session, "daq").either
        assert not intakerules.get(session, "one").either
        assert intakerules.add(session, replace(both, either=True)).either
        intakerules.add(session, replace(RULE, name="one", close_count=5))
        with pytest.raises(Conflict, match="whichever comes first; say --either for that"):
            intakerules.add(session, both)


def test_a_standing_rule_whose_pattern_can_not_be_used_says_why(
    catalog: Catalog, storage: StorageInfo
) -> None:
    with catalog.write() as session:
        intakerules.add(session, replace(RULE, end_pattern=END))
        session.execute(sa.update(IntakeRule).values(end_pattern=r"(?P<run>run-\d+)/(?=E)END"))
        rule = intakerules.get(session, "daq")
    assert rule.fault is not None and "--end" in rule.fault
    assert rule.may_be_marker("run-1/END") and rule.may_be_marker("anything")
    assert "is hidden" in str(replace(RULE, prefix=".old/").fault)
    assert RULE.fault is None and not RULE.may_be_marker("run-1/END")
