"""The part of the CWL v1.2 conformance suite that asks for single tools."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from cwltest.compare import CompareFail, compare

from catalog.errors import BadTemplate
from workers.cwl.document import load_document
from workers.cwl.failures import ToolFailure, Unsupported
from workers.cwl.runner import run_document

SUITE = Path(
    os.environ.get("SPDF_CONFORMANCE_DIR")
    or Path(__file__).resolve().parents[3] / "shared" / "conformance"
)
INDEX = SUITE / "conformance_tests.yaml"
NEEDS_CONTAINER = frozenset(
    {
        "dockeroutputdir", "networkaccess", "networkaccess_disabled",
        "glob_outside_outputs_fails", "iwd-container-entryname1", "iwdr_dir_literal_real_file",
    }
)  # fmt: skip
"""Tests whose tool has DockerRequirement among its requirements."""


@lru_cache(maxsize=1)
def suite() -> list[dict[str, Any]]:
    if not INDEX.is_file():
        return []
    tests: list[dict[str, Any]] = yaml.safe_load(INDEX.read_text("utf-8"))
    return tests


def is_workflow(test: dict[str, Any]) -> bool:
    return "workflow" in test["tags"]


def cases(*, workflows: bool) -> list[Any]:
    return [pytest.param(test, id=test["id"]) for test in suite() if is_workflow(test) is workflows]


def run(test: dict[str, Any], outdir: Path) -> dict[str, Any]:
    job = test.get("job")
    return run_document(SUITE / test["tool"], None if job is None else SUITE / job, outdir)


pytestmark = pytest.mark.skipif(
    not INDEX.is_file(),
    reason=f"no conformance tests at {SUITE}; name their folder in SPDF_CONFORMANCE_DIR",
)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:rdflib")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:pyparsing")
@pytest.mark.parametrize("test", cases(workflows=False))
def test_tool(test: dict[str, Any], tmp_path: Path) -> None:
    if test["id"] in NEEDS_CONTAINER:
        with pytest.raises(Unsupported):
            run(test, tmp_path)
        pytest.skip("asks for a container, which is refused with a clear sentence")
    if test.get("should_fail"):
        with pytest.raises((BadTemplate, ToolFailure)) as caught:
            run(test, tmp_path)
        assert not isinstance(caught.value, Unsupported)
        return
    try:
        compare(test["output"], run(test, tmp_path))
    except CompareFail as difference:
        pytest.fail(str(difference))


@pytest.mark.parametrize("test", cases(workflows=True))
def test_workflow_document_is_packed(test: dict[str, Any]) -> None:
    if test["id"].startswith("invalid_syntax"):
        with pytest.raises(BadTemplate):
            load_document(SUITE / test["tool"])
        return
    packed = load_document(SUITE / test["tool"])
    assert packed["class"] == "Workflow"
    assert all(isinstance(step["run"], dict) for step in packed["steps"])
