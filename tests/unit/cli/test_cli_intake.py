"""`spdf intake`: what a rule will do, how it goes, and what it doesn't take."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from catalog import intakelooks, intakerules, refusals
from catalog.db import get_catalog
from catalog.refs import RefusalKind
from catalog.refusals import NewRefusal
from flows.intake.watch import Watch

pytestmark = pytest.mark.usefixtures("home")

Spdf = Callable[..., Any]
PATTERN = r"(?P<run>r\d)/.*\.raw"
END = r"(?P<run>r\d)/END"
ADD = ("intake", "add", "daq", "--storage", "buffer", "--pattern", PATTERN, "--dataset", "x-{run}")


def look() -> None:
    with get_catalog().read() as session:
        rule = intakerules.get(session, "daq")
    Watch(rule, get_catalog()).turn()


def test_add_says_what_the_rule_will_do(ok: Spdf) -> None:
    line = (*ADD, "--end", END, "--count", "5", "--lifetime", "6m", "--stable", "0s")
    line = (*line, "--unmatched", "keep")
    done = ok(*line)
    assert f"each file whose whole path is like {PATTERN}, as soon as it is listed" in done.out
    assert f"it has ended with a dataset at marker {END} and 5 files" in done.out
    assert "deleted, bytes and all, 6 min after it is done with" in done.out
    assert ok(*line).code == 0
    assert ok("intake", "list").out.count("marker") == 1


def test_of_a_storage_that_jobs_write_to_it_is_said_what_is_left_there(ok: Spdf) -> None:
    told = "internal has the role internal: jobs write there, too"
    assert told not in ok(*ADD).out
    assert told in ok(*ADD[:2], "inner", "--storage", "internal", *ADD[5:]).out
    assert told in ok("intake", "show", "inner").out


def test_a_pattern_that_can_not_be_used_is_one_line_and_status_2(spdf: Spdf, ok: Spdf) -> None:
    for pattern in (r"(?P<run>r)(?!x)", "(a+", r"(?P<run>r)\bx", "(?P<run>a{1001})"):
        done = spdf(*ADD[:6], pattern, *ADD[7:])
        assert done.code == 2 and len(done.err.splitlines()) == 1, done.err
        assert "--pattern" in done.err
    assert "no rules" in ok("intake", "list").out


def test_an_empty_storage_is_no_storage_rather_than_all(spdf: Spdf) -> None:
    for line in (("intake", "rescan"), ("inspect", "report"), ("inspect", "detached")):
        done = spdf(*line, "--storage", "")
        assert done.code == 3 and "no storage ''" in done.err
    assert "no dataset ''" in spdf("file", "why", "1", "--dataset", "").err


def test_list_and_show_tell_what_is_not_taken(ok: Spdf, buffer: Path) -> None:
    ok(*ADD, "--stable", "0s")
    (buffer / "r1").mkdir(parents=True)
    (buffer / "r1" / "a.raw").write_text("a")
    (buffer / "r1" / "link.raw").symlink_to("a.raw")
    look()
    (row,) = ok("intake", "list", "--json").json
    assert (row["name"], row["look"]["files"], row["look"]["refused"]) == ("daq", 1, 1)
    shown = ok("intake", "show", "daq", "--json").json
    assert [(item["path"], item["kind"]) for item in shown["refusals"]] == [("r1/link.raw", "LINK")]
    done = ok("intake", "show", "daq")
    assert "it takes each file" in done.out and "it is a symbolic link" in done.out
    why = ok("dataset", "why", "x-r1")
    assert "r1/link.raw on buffer isn't taken by intake rule daq" in why.out


def test_why_tells_of_a_dataset_that_is_not_there_as_nothing_was_taken(
    ok: Spdf, spdf: Spdf, buffer: Path
) -> None:
    ok(*ADD)
    (buffer / "r2").mkdir(parents=True)
    (buffer / "r2" / "link.raw").symlink_to("nowhere")
    look()
    done = ok("dataset", "why", "x-r2")
    assert "there is no dataset x-r2" in done.out and "it is a symbolic link" in done.out
    assert spdf("dataset", "why", "x-r3").code == 3
    assert "it is a symbolic link" in ok("file", "why", "buffer:r2/link.raw").out
    assert spdf("file", "why", "buffer:r2/other.raw").code == 3


def test_list_and_show_tell_what_is_in_a_rules_way(ok: Spdf, spdf: Spdf) -> None:
    ok(*ADD)
    with get_catalog().write() as session:
        intakelooks.failed(session, intakerules.get(session, "daq").id, "its mount hangs.")
    assert "rule daq: its looks fail since " in ok("intake", "list").err
    assert ok("intake", "list", "--json").json[0]["trouble"].endswith("its mount hangs.")
    assert "its mount hangs" in ok("intake", "show", "daq").err
    assert spdf("intake", "show", "nothing").code == 3


def test_what_a_close_of_empty_runs_needs_is_said(spdf: Spdf) -> None:
    done = spdf(*ADD, "--empty-runs", "close")
    assert done.code == 2 and "needs --end" in done.err
    assert spdf(*ADD, "--either", "--count", "3").code == 2


def test_files_that_are_left_as_a_person_wanted_are_told_beside(ok: Spdf) -> None:
    ok(*ADD)
    left = NewRefusal("r1/a.raw", "x-r1", RefusalKind.DETACHED, "it stayed")
    with get_catalog().write() as session:
        rule = intakerules.get(session, "daq")
        refusals.note(session, rule.id, rule.storage_id, [left])
    assert ok("intake", "list", "--json").json[0]["detached"] == 1
    done = ok("intake", "list")
    assert "spdf intake rescan" in " ".join((done.out + done.err).split())
    assert "DETACHED" in ok("intake", "show", "daq").out
