"""A stage for a pool that has no node says so, until one comes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from catalog import causes, clock, datasets, jobs, nodes, poolnodes, tasks, waits, workflows
from catalog.db import Catalog
from catalog.models import Task
from catalog.nodes import Announcement
from catalog.settings import Settings

Chain = Any


@pytest.fixture(autouse=True)
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Sets what this machine is: at first one of a site, which runs no payloads by itself."""

    def become(**values: Any) -> None:
        made = Settings(home=tmp_path, _env_file=None, **values)
        monkeypatch.setattr(poolnodes, "get_settings", lambda: made)

    monkeypatch.setattr(poolnodes, "_DEV", tmp_path)
    become(api_url="http://site:4200/api")
    return become


def announce(catalog: Catalog, pool: str) -> int:
    said = Announcement(
        name="n1", pool=pool, pid=1, slots=4, memory_mib=1, devices=(), engine=None, program="1"
    )
    with catalog.write() as session:
        return nodes.announce(session, said)


def absent(catalog: Catalog, *pools: str) -> list[str]:
    with catalog.read() as session:
        return sorted(poolnodes.absent(session, pools))


def test_a_pool_has_a_node_from_its_first_to_the_end_of_its_last(catalog: Catalog) -> None:
    assert absent(catalog, "cpu", "gpu") == ["cpu", "gpu"]
    node = announce(catalog, "gpu")
    assert absent(catalog, "cpu", "gpu") == ["cpu"]
    with catalog.write() as session:
        nodes.drain(session, [node], "an operator asked for it")
    assert absent(catalog, "gpu") == [], "it is still there"
    with catalog.write() as session:
        nodes.leave(session, node, 1, "done")
        (left,) = nodes.find(session, "n1")
    with catalog.read() as session:
        assert poolnodes.absent(session, ["gpu"]) == {"gpu": left.ended_at}
        (told,) = poolnodes.of_pools(session, ["gpu"])
    assert told.startswith(f"no node of pool gpu since {left.ended_at:%Y-%m-%d %H:%M}")
    announce(catalog, "gpu")
    assert absent(catalog, "gpu") == []


def test_one_that_is_silent_for_too_long_is_no_node(catalog: Catalog) -> None:
    announce(catalog, "gpu")
    clock.shift_clock(3600.0)
    with catalog.write() as session:
        nodes.lose_silent(session, 60.0)
    assert absent(catalog, "gpu") == ["gpu"]


def test_a_laptop_runs_payloads_itself_but_for_those_that_need_what_it_lacks(
    catalog: Catalog, site: Callable[..., None], tmp_path: Path
) -> None:
    site()
    assert absent(catalog, "cpu", "gpu") == ["gpu"]
    site(devices="0")
    assert absent(catalog, "cpu", "gpu") == []
    site(local_payloads=False)
    assert absent(catalog, "cpu") == ["cpu"]
    site()
    (tmp_path / "nvidia0").touch()
    assert absent(catalog, "gpu") == []


@pytest.fixture
def waiting(catalog: Catalog, chain: Chain) -> int:
    """A workflow whose second stage is for GPUs and has not ended; its id."""
    with catalog.write() as session:
        rows = tasks.of_workflow(session, chain.workflow)
        session.execute(
            sa.update(Task)
            .where(Task.id == rows[-1].id)  # type: ignore[arg-type]
            .values(pool="gpu", state="IN_PROGRESS")
        )
        session.execute(sa.text("UPDATE job SET state = 'READY' WHERE key = 'g0'"))
    return int(chain.workflow)


def test_what_waits_for_a_node_says_for_which_and_since_when(
    catalog: Catalog, chain: Chain, waiting: int, site: Callable[..., None]
) -> None:
    site()
    with catalog.read() as session:
        info = workflows.get(session, waiting)
        (told,) = waits.of_workflow(session, waiting)
        since = f"no node of pool gpu since {info.created_at:%Y-%m-%d %H:%M:%SZ}"
        assert told.startswith(since) and "merge waits for one" in told
        assert "spdf worker start --pool gpu" in told
        job = jobs.get(session, chain.merge_job)
        assert any(since in cause.fact for cause in causes.why_job(session, job))
        made = datasets.by_name(session, "run.md5.v1.merge.log")
        assert any(since in cause.fact for cause in causes.why_dataset(session, made))
    announce(catalog, "gpu")
    with catalog.read() as session:
        assert waits.of_workflow(session, waiting) == []


def test_what_has_ended_waits_for_no_node(catalog: Catalog, chain: Chain) -> None:
    with catalog.read() as session:
        assert waits.of_workflow(session, chain.workflow) == []
