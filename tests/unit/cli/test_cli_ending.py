"""`spdf workflow cancel` and `retry`, `dataset close` of what they leave, and who is told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from catalog import intakerules, sources, workflows
from catalog.db import Catalog
from catalog.rule import Rule
from flows.submit import Submission, submit

Spdf = Callable[..., Any]
HEADS = "run-1.cut.v1.cut.head"
AFTER = f"{HEADS}.after.v1.again.head"


@pytest.fixture
def follower(failed: int, cut: Path, catalog: Catalog, ok: Spdf) -> int:
    """A workflow that waits for what the one that FAILED would have made."""
    path = cut.with_name("after.cwl")
    hint = 'hints: {"spdf:Template": {mask: "*.cut.head", derived: true}}\n'
    spaces = "$namespaces: {spdf: https://spdf.readthedocs.io/ns#}\n"
    text = cut.read_text().replace("  cut:\n", "  again:\n").replace("cut/head", "again/head")
    path.write_text(text.replace("inputs:\n", spaces + hint + "inputs:\n", 1))
    ok("template", "create", path, "--activate")
    return submit(catalog, Submission("after", HEADS, {}))[0]


def test_a_person_closes_what_a_failed_workflow_left_and_it_is_marked(
    ok: Spdf, spdf: Spdf, catalog: Catalog, failed: int, tmp_path: Path
) -> None:
    done = ok("dataset", "close", HEADS)
    assert "is CLOSED, incomplete: 2 files" in done.out
    assert f"is incomplete: workflow {failed}, which makes it, is FAILED: stage cut" in done.err
    (row,) = ok("dataset", "list", "--mask", HEADS, "--json").json
    assert row["incomplete"].startswith(f"workflow {failed}")
    assert "CLOSED, incomplete" in ok("dataset", "list", "--mask", HEADS).out
    assert "lacks" in ok("dataset", "show", HEADS).out
    assert "is incomplete" in ok("dataset", "get", HEADS, tmp_path / "x").err
    outputs = ok("workflow", "show", failed, "--json").json["outputs"]
    assert [out["dataset"] for out in outputs if out["incomplete"]] == [
        HEADS, HEADS.replace("head", "log")
    ]  # fmt: skip
    (task,) = ok("task", "list", "--workflow", failed, "--json").json
    assert "CLOSED, incomplete" in ok("task", "show", task["id"]).out
    made = ok("dataset", "files", HEADS, "--json").json[0]["id"]
    assert [one["dataset"] for one in ok("file", "show", made, "--json").json["incomplete"]] == [
        HEADS
    ]
    assert f"dataset {HEADS}, which it comes from, is incomplete" in ok("file", "show", made).out
    assert ok("dataset", "verify", HEADS, "--json").json["changed"] is False
    assert spdf("dataset", "close", HEADS.replace("head", "log"), "--complete").code == 2


def test_what_is_left_and_who_waits_is_told_at_the_end(
    ok: Spdf, spdf: Spdf, failed: int, follower: int
) -> None:
    done = spdf("workflow", "watch", failed)
    assert f"leaves, OPEN, incomplete: {HEADS} (2 files)" in done.err
    assert f"1 workflow waiting for it: {follower} (after · {HEADS})" in done.err
    assert (
        f"its input {HEADS} stays OPEN: workflow {failed}" in ok("workflow", "show", follower).out
    )
    assert any(
        f"dataset {HEADS} stays OPEN" in line for line in spdf("status", "--json").json["problems"]
    )
    done = ok("workflow", "cancel", failed)
    assert f"`spdf workflow cancel {follower}` ends who waits" in done.err
    assert "--discard` removes what stays" in done.err


def test_several_are_cancelled_or_none_and_those_who_wait_with_them(
    ok: Spdf, spdf: Spdf, failed: int, follower: int, tmp_path: Path
) -> None:
    done = spdf("workflow", "cancel", failed, 999)
    assert done.code == 3 and "so none is: nothing was changed" in done.err
    assert ok("workflow", "show", failed, "--json").json["state"] == "FAILED"
    assert spdf("workflow", "cancel", "x").code == 2
    done = ok("workflow", "cancel", failed, "--with-readers", "--discard", "--json").json
    assert [(one["id"], one["state"]) for one in done] == [
        (failed, "CANCELLED"), (follower, "CANCELLED")
    ]  # fmt: skip
    assert HEADS in done[0]["discarded"] and AFTER in done[1]["discarded"]
    assert done[0]["leaves"] == done[0]["waiting"] == []
    assert ok("dataset", "show", HEADS, "--json").json["state"] == "DELETING"
    (tmp_path / "list").write_text(f"{failed}\n{follower}\n")
    again = ok("workflow", "cancel", "--from", tmp_path / "list", "--json").json
    assert [one["new"] for one in again] == [False, False]


def test_a_discard_of_what_another_reads_changes_nothing(
    ok: Spdf, spdf: Spdf, failed: int, follower: int
) -> None:
    done = spdf("workflow", "cancel", failed, "--discard")
    assert done.code == 4 and f"the input of workflow {follower}" in done.err
    assert ok("workflow", "show", failed, "--json").json["state"] == "FAILED"


def test_one_of_several_is_waited_for_at_a_time(spdf: Spdf, failed: int) -> None:
    done = spdf("workflow", "retry", failed, failed + 1, "--wait")
    assert done.code == 2 and "--wait watches one workflow" in done.err


def test_a_removed_rule_says_who_waits_and_how_to_go_on(
    ok: Spdf, catalog: Catalog, home: Path, cut: Path
) -> None:
    ok("dataset", "create", "run-7")
    ok("template", "create", cut, "--mask", "run-?", "--activate")
    with catalog.write() as session:
        rule = intakerules.add(
            session, Rule("daq", "buffer", "(?P<run>.+)/f", "{run}", end_pattern="(?P<run>.+)/END")
        )
        sources.join(session, rule, [1])
    workflow, _ = submit(catalog, Submission("cut", "run-7", {}))
    done = ok("intake", "remove", "daq")
    assert "nothing closes 1 OPEN dataset that it filled: run-7" in done.err
    assert f"1 workflow waiting for it: {workflow} (cut · run-7)" in done.err
    assert "`spdf dataset close run-7` closes it with what is there, as incomplete" in done.err
    with catalog.read() as session:
        assert workflows.get(session, workflow).reason is None
    assert "incomplete" not in ok("dataset", "close", "run-7", "--complete").out
