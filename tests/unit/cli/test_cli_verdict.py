"""The demo's verdict says no where something is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from cli import verdict
from cli.verdict import Check, Verdict


def stages(**changed: dict[str, Any]) -> list[dict[str, Any]]:
    """The table of stages of a demo of 8 files that went well, with changes."""
    common = {"jobs": 8, "finished": 8, "skipped": 0, "failed": 0, "files out": 8}
    rows = {name: dict(common) for name in ("decode", "reconstruct", "select")}
    rows["select"] |= {"finished": 7, "skipped": 1, "files out": 7}
    rows["merge"] = common | {"jobs": 1, "finished": 1, "files out": 1}
    for name, values in changed.items():
        rows[name] |= values
    return [{"stage": name, **row} for name, row in rows.items()]


def test_a_good_run_is_right() -> None:
    assert all(check.right for check in verdict._counts(stages(), 8))


@pytest.mark.parametrize(
    ("stage", "values", "what"),
    [
        ("decode", {"jobs": 9, "finished": 9}, "decode: jobs done"),
        ("decode", {"finished": 7, "failed": 1}, "decode: jobs done"),
        ("select", {"finished": 6}, "select: jobs done"),
        ("reconstruct", {"files out": 7}, "reconstruct: files"),
        ("merge", {"files out": 0}, "merge: files"),
        ("merge", {"finished": 0}, "merge: files"),
    ],
)
def test_a_wrong_count_is_named(stage: str, values: dict[str, Any], what: str) -> None:
    wrong = [c.what for c in verdict._counts(stages(**{stage: values}), 8) if not c.right]
    assert wrong == [what]


@pytest.mark.parametrize(
    ("raw", "kept", "right"), [(2000, 100, True), (2000, 101, False), (1, 0, True)]
)
def test_the_reduction_must_be_20(raw: int, kept: int, right: bool) -> None:
    assert verdict._reduction(raw, kept).right is right


@pytest.mark.parametrize(("value", "right"), [(0.98, True), (0.979, False), (None, False)])
def test_a_share_must_reach_its_bound(value: float | None, right: bool) -> None:
    assert verdict._share("purity", value, 0.98).right is right


def test_one_wrong_check_makes_the_verdict_wrong() -> None:
    good, bad = Check("a", "1", "1", True), Check("b", "1", "2", False)
    assert Verdict([good]).right and not Verdict([good, bad]).right


def test_an_evaluation_that_fails_or_disappoints_is_wrong(tmp_path: Path) -> None:
    program = tmp_path / "evaluate.py"
    program.write_text("import sys; sys.exit('no truth')")
    (check,) = verdict._physics(tmp_path, ["a.events"], [], tmp_path)
    assert not check.right and check.found == "no truth"
    program.write_text(f"print({json.dumps({'efficiency': 0.5, 'purity': 1.0})!r})")
    checks = verdict._physics(tmp_path, ["a.events"], [], tmp_path)
    assert [check.right for check in checks] == [False, True]
