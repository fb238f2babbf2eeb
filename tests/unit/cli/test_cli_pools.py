"""The commands say where a stage waits for a node that isn't there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from catalog import nodes, tasks
from catalog.db import Catalog
from catalog.nodes import Announcement
from flows.submit import Submission, submit

Spdf = Callable[..., Any]
GONE = "no node of pool gpu"


@pytest.fixture
def gpu_cut(cut: Path, tmp_path: Path) -> Path:
    """The template of these tests, on GPUs."""
    text = cut.read_text().replace(
        "    scatter: file\n", "    hints: {spdf:Stage: {device: GPU}}\n    scatter: file\n"
    )
    text = text.replace(
        "class: Workflow\n",
        "class: Workflow\n$namespaces: {spdf: 'https://spdf.readthedocs.io/ns#'}\n",
    )
    path = tmp_path / "gpucut.cwl"
    path.write_text(text)
    return path


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from catalog import poolnodes

    monkeypatch.delenv("SPDF_DEVICES", raising=False)
    monkeypatch.setattr(poolnodes, "_DEV", tmp_path / "nowhere")


def test_activation_and_every_view_of_a_workflow_name_the_missing_node(
    catalog: Catalog, gpu_cut: Path, dataset: str, ok: Spdf
) -> None:
    made = ok("template", "create", gpu_cut, "--mask", "run-?", "--activate")
    assert f"{GONE} so far" in made.err
    workflow, _ = submit(catalog, Submission("gpucut", dataset, {"count": "2"}))
    with catalog.read() as session:
        (task,) = tasks.of_workflow(session, workflow)
    shown = ok("workflow", "show", workflow)
    assert f"{GONE} since " in shown.out and "cut waits for one" in shown.out
    assert any(GONE in line for line in ok("workflow", "show", workflow, "--json").json["waits"])
    assert GONE in ok("task", "show", task.id).out
    assert any(GONE in line for line in ok("task", "show", task.id, "--json").json["waits"])
    assert GONE in ok("dataset", "why", f"{dataset}.gpucut.v1.cut.head").out
    said = Announcement("n1", "gpu", 1, 1, 1, (), None, "1")
    with catalog.write() as session:
        nodes.announce(session, said)
    for words in (("workflow", "show", workflow), ("task", "show", task.id)):
        assert GONE not in ok(*words).out
    assert GONE not in ok("template", "create", gpu_cut, "--mask", "run-?", "--activate").err


def test_a_submission_warns_on_stderr_and_leaves_stdout_clean(
    catalog: Catalog, gpu_cut: Path, dataset: str, ok: Spdf, capfd: pytest.CaptureFixture[str]
) -> None:
    from cli.workflow import _warn_of_pools

    ok("template", "create", gpu_cut, "--mask", "run-?", "--activate")
    workflow, _ = submit(catalog, Submission("gpucut", dataset, {"count": "2"}))
    capfd.readouterr()
    _warn_of_pools(catalog, workflow)
    out, err = capfd.readouterr()
    assert GONE in err and out == ""


def test_a_wait_says_it_once(
    catalog: Catalog, gpu_cut: Path, dataset: str, ok: Spdf, spdf: Spdf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from catalog import workflows
    from cli import watching

    ok("template", "create", gpu_cut, "--mask", "run-?", "--activate")
    workflow, _ = submit(catalog, Submission("gpucut", dataset, {"count": "2"}))
    turns: list[int] = []

    def sleep(_s: float) -> None:
        turns.append(1)
        if len(turns) == 3:
            with catalog.write() as session:
                workflows.cancel(session, workflow, "enough")

    monkeypatch.setattr(watching.time, "sleep", sleep)
    done = spdf("workflow", "watch", workflow)
    assert done.code == 6
    assert done.err.count(GONE) == 1
