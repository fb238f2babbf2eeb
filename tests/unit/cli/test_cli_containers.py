"""Stages that need a container, where there is no engine for them."""

from pathlib import Path
from typing import Any

import pytest

from catalog import nodes, templates, workflows
from catalog.db import Catalog
from catalog.errors import Conflict
from catalog.nodes import Announcement
from catalog.states import TemplateState
from flows.submit import Submission, submit


@pytest.fixture
def boxed(cut: Path) -> Path:
    """The template of these tests, in a container."""
    docker = "      requirements: {DockerRequirement: {dockerPull: 'lab/cut:1'}}\n"
    before, tool, after = cut.read_text().partition("      class: CommandLineTool\n")
    cut.write_text(f"{before}{tool}{docker}{after}")
    return cut


def announce(catalog: Catalog, engine: str | None) -> None:
    with catalog.write() as session:
        nodes.announce(session, Announcement("n1", "cpu", 1, 4, 64, (), engine, "1"))


@pytest.mark.usefixtures("home")
def test_a_template_is_not_activated(
    spdf: Any, ok: Any, boxed: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPDF_CONTAINER_ENGINE", raising=False)
    ok("template", "create", boxed, "--mask", "run-?")
    announce(catalog, None)
    done = spdf("template", "activate", "cut")
    assert done.code == 4
    for word in ("'cut'", "'lab/cut:1'", "'cpu'", "n1", "SPDF_CONTAINER_ENGINE", "`hints`"):
        assert word in done.err
    with catalog.read() as session:
        assert templates.get(session, "cut").state is TemplateState.DRAFT
    announce(catalog, "podman")
    ok("template", "activate", "cut")
    shown = ok("template", "show", "cut")
    assert "lab/cut:1" in shown.out


def test_a_workflow_is_not_submitted(ok: Any, boxed: Path, dataset: str, catalog: Catalog) -> None:
    announce(catalog, "docker")
    ok("template", "create", boxed, "--mask", "run-?", "--activate")
    announce(catalog, None)
    with pytest.raises(Conflict, match="SPDF_CONTAINER_ENGINE"):
        submit(catalog, Submission("cut", dataset, {}))
    with catalog.read() as session:
        assert workflows.list_workflows(session) == []
    announce(catalog, "docker")
    _, new = submit(catalog, Submission("cut", dataset, {}))
    assert new
