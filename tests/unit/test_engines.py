"""Whether the nodes of a pool can run a stage that needs a container."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog import nodes
from catalog.db import Catalog
from catalog.errors import Conflict
from catalog.nodes import Announcement
from catalog.settings import get_settings
from flows.compile import compile_template
from flows.engines import check_engines
from flows.plan import Plan, plan_from_json, plan_to_json

TEMPLATE = """
cwlVersion: v1.2
class: Workflow
requirements: {{ScatterFeatureRequirement: {{}}}}
inputs: {{files: "File[]"}}
outputs: {{}}
steps:
  fit:
    scatter: file
    in: {{file: files}}
    out: [fitted]
    {where}: {{DockerRequirement: {{dockerPull: "lab/fit:3"}}}}
    run:
      class: CommandLineTool
      baseCommand: [cat]
      inputs: {{file: {{type: File, inputBinding: {{}}}}}}
      outputs: {{fitted: stdout}}
"""


def plan(folder: Path, where: str = "requirements") -> Plan:
    path = folder / "fit.cwl"
    path.write_text(TEMPLATE.format(where=where))
    return plan_from_json(plan_to_json(compile_template(path).plan))


def announce(catalog: Catalog, name: str, engine: str | None, pool: str = "cpu") -> int:
    with catalog.write() as session:
        return nodes.announce(session, Announcement(name, pool, 1, 4, 64, (), engine, "1"))


def check(catalog: Catalog, found: Plan) -> None:
    with catalog.read() as session:
        check_engines(session, found)


@pytest.fixture(autouse=True)
def no_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine has none; a test may set one."""
    monkeypatch.setenv("SPDF_CONTAINER_ENGINE", "")
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def test_every_node_that_is_online_needs_an_engine(catalog: Catalog, tmp_path: Path) -> None:
    found = plan(tmp_path)
    announce(catalog, "n1", "docker")
    announce(catalog, "g1", None, pool="gpu")
    check(catalog, found)
    bare = announce(catalog, "n2", None)
    with pytest.raises(Conflict, match=r"'fit'.*'lab/fit:3'.*'cpu'.*: n2; set SPDF_CONTAINER_EN"):
        check(catalog, found)
    with catalog.write() as session:
        nodes.leave(session, bare, 1, "gone")
    check(catalog, found)


def test_where_no_node_is_online_the_last_ones_count(catalog: Catalog, tmp_path: Path) -> None:
    found = plan(tmp_path)
    node = announce(catalog, "n1", "podman")
    with catalog.write() as session:
        nodes.leave(session, node, 1, "night")
    check(catalog, found)


def test_without_nodes_this_machines_setting_counts(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = plan(tmp_path)
    with pytest.raises(Conflict, match="this machine"):
        check(catalog, found)
    monkeypatch.setenv("SPDF_CONTAINER_ENGINE", "docker")
    get_settings.cache_clear()
    check(catalog, found)


def test_a_hint_needs_no_engine(catalog: Catalog, tmp_path: Path) -> None:
    found = plan(tmp_path, "hints")
    assert found.stages[0].image is None
    check(catalog, found)
