"""Care for data that real chains made: lost files made again, releases, backpressure, findings."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col

from catalog import (
    datasets,
    deletion,
    events,
    files,
    lifecycle,
    manifests,
    pilots,
    pressure,
    standing,
    storages,
    transfers,
    uploads,
    usage,
)
from catalog.db import Catalog
from catalog.errors import Conflict
from catalog.failpoints import VARIABLE
from catalog.inspection import findings
from catalog.inspection.scan import Options, inspect
from catalog.inspection.settle import Settled, settle
from catalog.models import Replica, StorageKind, StorageRole
from catalog.refs import FindingKind, Retention
from catalog.settings import Settings
from catalog.states import (
    DatasetState,
    FindingState,
    InspectionState,
    ReplicaState,
    UploadState,
    WorkflowState,
)
from flows import recovery
from flows.advance import advance
from flows.recovery import NotRecovered, recover, recover_marked
from tests.integration.test_chain import EXAMPLES, Site, slices
from tests.integration.test_chain import site as site

LOOK = Options(sample_percent=100.0, grace_s=0.0)
CHAIN = EXAMPLES / "twostage" / "chain.cwl"


def finished(site: Site, name: str = "run-1", count: int = 6, **more: Any) -> str:
    """A finished two-stage chain over a dataset; gives the prefix of its datasets' names."""
    from catalog import templates
    from flows import templates as template_files

    site.dataset(name, slices(count))
    info, _ = template_files.create(site.catalog, CHAIN, mask="run-?", **more)
    with site.catalog.write() as session:
        templates.activate(session, info.id)
    assert site.run(site.submit(info.ref, name)) is WorkflowState.FINISHED
    return f"{name}.chain.v{info.version}"


def places(site: Site, dataset: str) -> dict[str, tuple[int, Path]]:
    """Id and path of the bytes of a dataset's files, by key."""
    with site.catalog.read() as session:
        info = datasets.by_name(session, dataset)
        roots = {s.id: Path(s.url) for s in storages.list_all(session)}
        return {
            m.key: (m.id, roots[m.replicas[0].storage_id] / m.replicas[0].path)
            for m in manifests.all_members(session, info.id)
        }


def spoil(path: Path) -> None:
    """Flip a bit: same size, other bytes."""
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


def storage_id(site: Site, name: str) -> int:
    with site.catalog.read() as session:
        return storages.by_name(session, name).id


def state_of(site: Site, dataset: str) -> DatasetState:
    with site.catalog.read() as session:
        return datasets.by_name(session, dataset).state


def clean(site: Site, *names: str) -> bool:
    """Whether an inspection of these storages finds nothing, and what is on them was counted."""
    with site.catalog.write() as session:
        for name in names:
            place = storages.by_name(session, name).id
            assert usage.recount(session, place) == (0, 0), name
    found = [inspect(site.catalog, storage_id(site, name), LOOK) for name in names]
    return all(info.state is InspectionState.DONE and not info.found for info in found)


def test_what_jobs_store_is_counted(site: Site) -> None:
    finished(site)
    with site.catalog.read() as session:
        there = {item.storage: item.files for item in usage.of_storages(session)}
    assert there == {"input": 6, "internal": 6, "output": 6}
    assert clean(site, "input", "internal", "output")


# Recovery.


def test_a_lost_file_is_made_again_by_its_job(site: Site) -> None:
    prefix = finished(site)
    lines = places(site, f"{prefix}.md5sum.line")
    file_id, path = next(iter(lines.values()))
    content = path.read_bytes()
    path.unlink()
    internal = storage_id(site, "internal")
    assert inspect(site.catalog, internal, LOOK).missing == 1
    assert settle(site.catalog, internal) == Settled(marked=1)
    done = recover(site.catalog, site.settings, file_id)
    assert done.job_id is not None and done.path.endswith("~1")
    with site.catalog.read() as session:
        (place,) = files.replicas(session, [file_id])[file_id]
        (over,) = findings.findings(session, states=tuple(FindingState))
    assert (site.home / "internal" / place.path).read_bytes() == content
    assert over.state is FindingState.RECOVERED
    assert recover(site.catalog, site.settings, file_id).job_id is None, "nothing to do"
    assert clean(site, "internal", "output", "input")
    assert list(Path(site.settings.work_dir or "").glob("spdf-recover-*")) == []


RECOVER = """
import sys
from catalog.db import Catalog
from catalog.settings import Settings
from flows.recovery import recover
recover(Catalog(sys.argv[1]), Settings(), int(sys.argv[2]))
"""


def test_a_recovery_that_died_over_its_bytes_is_made_by_the_next(
    site: Site, catalog_url: str
) -> None:
    prefix = finished(site, count=2)
    file_id, path = next(iter(places(site, f"{prefix}.md5sum.line").values()))
    content = path.read_bytes()
    path.unlink()
    settle_all(site, "internal")
    killed = subprocess.run(
        [sys.executable, "-c", RECOVER, catalog_url, str(file_id)],
        env={
            **os.environ, VARIABLE: "recovery.put", "SPDF_HOME": str(site.home),
            "SPDF_WORK_DIR": str(site.settings.work_dir),
        },
        cwd=Path(__file__).resolve().parents[2],
        timeout=60,
        check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    left = path.with_name(f"{path.name}~1")
    assert left.read_bytes() == content
    done = recover(site.catalog, site.settings, file_id)
    assert done.path.endswith("~2")
    assert (site.home / "internal" / done.path).read_bytes() == content
    info = inspect(site.catalog, storage_id(site, "internal"), LOOK)
    assert (info.missing, info.dark) == (0, 1), "what the first one left is found"
    assert left.exists()


def test_other_bytes_than_the_catalogs_are_not_kept(site: Site, tmp_path: Path) -> None:
    template = tmp_path / "chain.cwl"
    text = CHAIN.read_text()
    assert "md5sum" in text
    salt = tmp_path / "salt"
    salt.write_text("one")
    program = tmp_path / "salted"
    program.write_text(f"#!/bin/sh\ncat {salt}; md5sum\n")
    program.chmod(0o755)
    template.write_text(text.replace("baseCommand: md5sum", f"baseCommand: {program}"))
    assert str(program) in template.read_text()
    site.dataset("run-1", slices(2))
    chain = site.submit(site.template(template, mask="run-?"), "run-1")
    assert site.run(chain) is WorkflowState.FINISHED
    file_id, path = next(iter(places(site, "run-1.chain.v1.md5sum.line").values()))
    path.unlink()
    settle_all(site, "internal")
    salt.write_text("two")
    with pytest.raises(NotRecovered, match=r"makes another .* its bytes are not kept"):
        recover(site.catalog, site.settings, file_id)
    with site.catalog.read() as session:
        assert files.replicas(session, [file_id]) == {file_id: ()}
    salt.write_text("one")
    assert recover(site.catalog, site.settings, file_id).job_id is not None


def test_a_file_whose_dataset_is_deleted_meanwhile_is_not_kept(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = finished(site)
    file_id, path = next(iter(places(site, f"{prefix}.md5sum.line").values()))
    path.unlink()
    internal = storage_id(site, "internal")
    inspect(site.catalog, internal, LOOK)
    settle(site.catalog, internal)
    run = recovery._run

    def running(*given: Any) -> Any:
        made = run(*given)
        with site.catalog.write() as session:
            gone = datasets.by_name(session, f"{prefix}.md5sum.line").id
            deletion.mark(session, gone, "a test")
        deletion.remove(site.catalog, gone)
        return made

    monkeypatch.setattr(recovery, "_run", running)
    with pytest.raises(NotRecovered, match="was deleted meanwhile"):
        recover(site.catalog, site.settings, file_id)
    assert clean(site, "internal")


def test_what_comes_from_outside_or_from_what_is_lost_cannot_be_made_again(site: Site) -> None:
    prefix = finished(site, count=2)
    raw_id, raw = next(iter(places(site, "run-1").values()))
    line_id, line = next(iter(places(site, f"{prefix}.md5sum.line").values()))
    for path in (raw, line):
        path.unlink()
    for name in ("input", "internal"):
        settle_all(site, name)
    with pytest.raises(NotRecovered, match="comes from outside"):
        recover(site.catalog, site.settings, raw_id)
    with pytest.raises(NotRecovered, match=f"`spdf file recover {raw_id}` first"):
        recover(site.catalog, site.settings, line_id)
    done, faults = recover_marked(site.catalog, site.settings, storage_id(site, "internal"))
    assert done == [] and len(faults) == 1


def settle_all(site: Site, name: str) -> Settled:
    place = storage_id(site, name)
    assert inspect(site.catalog, place, LOOK).state is InspectionState.DONE
    return settle(site.catalog, place)


def test_planted_faults_are_found_all_and_only_those_and_settled(site: Site) -> None:
    prefix = finished(site, count=24)
    lines = list(places(site, f"{prefix}.md5sum.line").values())
    missing, short, flipped = lines[:3], lines[3:6], lines[6:9]
    for _, path in missing:
        path.unlink()
    for _, path in short:
        path.chmod(0o644)
        os.truncate(path, 5)
    for _, path in flipped:
        spoil(path)
    internal = site.home / "internal"
    dark = [internal / "dark" / f"d{i}" for i in range(3)]
    dark[0].parent.mkdir()
    for path in dark:
        path.write_text("nobody knows me")
    place = storage_id(site, "internal")
    info = inspect(site.catalog, place, Options(100.0, grace_s=3600.0, limit_percent=99.0))
    assert (info.missing, info.corrupt, info.dark) == (3, 6, 0), "young dark bytes are left alone"
    info = inspect(site.catalog, place, Options(100.0, grace_s=0.0, limit_percent=99.0))
    assert (info.missing, info.corrupt, info.dark) == (3, 6, 3)
    with site.catalog.read() as session:
        found = findings.findings(session, storage_id=place)
    wanted = {str(p.relative_to(internal)) for _, p in missing + short + flipped}
    wanted |= {str(p.relative_to(internal)) for p in dark}
    assert {item.path for item in found} == wanted
    assert settle(site.catalog, place) == Settled(marked=9, quarantined=3)
    assert all(path.exists() for path in dark)
    assert settle(site.catalog, place, remove_dark=True) == Settled(removed=3)
    assert not any(path.exists() for path in dark)
    done, faults = recover_marked(site.catalog, site.settings, place)
    assert (len(done), faults) == (9, [])
    assert clean(site, "internal")
    with site.catalog.read() as session:
        assert findings.findings(session) == []
        told = [events.history(session, "finding", item.id) for item in found]
    ends = {history[-1].after for history in told}
    assert ends == {"RECOVERED", "REMOVED"}
    removed = [h for h in told if h[-1].after == "REMOVED"]
    assert all([e.after for e in h][-2:] == ["MARKED", "REMOVED"] for h in removed)


# Inspections.


def test_an_emptied_storage_is_asked_about_and_nothing_is_touched(site: Site) -> None:
    prefix = finished(site, count=12)
    kept = {path: path.read_bytes() for _, path in places(site, f"{prefix}.md5sum.line").values()}
    place = storage_id(site, "internal")
    standing.mark(site.catalog, place)
    for path in kept:
        path.unlink()
    info = inspect(site.catalog, place, LOOK)
    assert info.state is InspectionState.ASKING and info.missing == 12
    assert "12 of" in (info.reason or "") and "all of it mounted?" in (info.reason or "")
    with site.catalog.read() as session:
        states = set(session.scalars(sa.select(col(Replica.state))))
    assert states == {ReplicaState.AVAILABLE}
    for path, content in kept.items():
        path.write_bytes(content)
    assert inspect(site.catalog, place, LOOK).state is InspectionState.DONE
    assert settle(site.catalog, place) == Settled(), "it has seen that all is whole again"
    assert clean(site, "internal")


def test_a_storage_that_is_away_fails_the_inspection(site: Site) -> None:
    finished(site, count=1)
    (site.home / "internal").rename(site.home / "aside")
    info = inspect(site.catalog, storage_id(site, "internal"), LOOK)
    assert info.state is InspectionState.FAILED and "mount or make it" in (info.reason or "")


def test_a_sample_reads_every_file_once_in_so_many_inspections(site: Site) -> None:
    prefix = finished(site, count=8)
    for _, path in places(site, f"{prefix}.md5sum.line").values():
        spoil(path)
    place = storage_id(site, "internal")
    options = Options(sample_percent=25.0, grace_s=0.0, limit_percent=100.0)
    seen: set[str] = set()
    for _ in range(4):
        inspect(site.catalog, place, options)
        with site.catalog.read() as session:
            seen = {item.path for item in findings.findings(session, storage_id=place)}
    assert len(seen) == 8
    none = Options(sample_percent=0.0, grace_s=0.0)
    assert inspect(site.catalog, storage_id(site, "output"), none).found == 0


def test_dark_bytes_of_an_input_storage_are_removed_only_when_that_is_asked_for(
    site: Site,
) -> None:
    finished(site, count=1)
    stray = site.home / "input" / "stray.raw"
    stray.write_text("raw data that nobody has registered")
    place = storage_id(site, "input")
    inspect(site.catalog, place, LOOK)
    assert settle(site.catalog, place, quarantine_s=0.0).quarantined == 1
    settle(site.catalog, place, quarantine_s=0.0)
    assert stray.exists()
    settle(site.catalog, place, remove_dark=True)
    assert not stray.exists()


def test_dark_bytes_are_not_removed_while_pilots_store_files(site: Site) -> None:
    """What a pilot has stored gets its row with the next commit."""
    finished(site, count=1)
    stored = site.home / "internal" / "fresh"
    stored.write_text("a pilot will register it in a moment")
    place = storage_id(site, "internal")
    inspect(site.catalog, place, LOOK)
    with site.catalog.write() as session:
        task = session.execute(sa.text("SELECT min(id) FROM task")).scalar_one()
        pilot = pilots.start(session, task, pool="cpu", node="n", pid=1, slots=1, flow_run_id=None)
    with pytest.raises(Conflict, match=r"pilots are at work \(1\)"):
        settle(site.catalog, place, remove_dark=True)
    assert stored.exists()
    with site.catalog.write() as session:
        pilots.end(session, pilot, "done")
    assert settle(site.catalog, place, remove_dark=True).removed == 1


def test_names_that_no_row_can_have_are_told_of(site: Site) -> None:
    finished(site, count=1)
    odd = os.fsdecode(os.fsencode(site.home / "internal") + b"/\xff")
    Path(odd).write_text("x")
    info = inspect(site.catalog, storage_id(site, "internal"), LOOK)
    assert info.state is InspectionState.DONE and info.found == 0
    assert "1 file with a name that can't be used" in (info.reason or "")


def test_a_log_is_not_made_again(site: Site, tmp_path: Path) -> None:
    loud = tmp_path / "loud.cwl"
    loud.write_text(
        CHAIN.read_text().replace(
            "baseCommand: md5sum", "baseCommand: [sh, -c, 'echo hi >&2; md5sum']"
        )
    )
    site.dataset("run-1", slices(1))
    chain = site.submit(site.template(loud, mask="run-?"), "run-1")
    assert site.run(chain) is WorkflowState.FINISHED
    ((file_id, path),) = places(site, "run-1.loud.v1.md5sum.log").values()
    path.unlink()
    settle_all(site, "internal")
    with pytest.raises(NotRecovered, match="is the log of a job"):
        recover(site.catalog, site.settings, file_id)


def test_dark_bytes_that_got_a_row_meanwhile_stay(site: Site) -> None:
    finished(site, count=1)
    late = {"late.raw": b"late"}
    path = site.home / "input" / "run-2" / "late.raw"
    path.parent.mkdir()
    path.write_bytes(late["late.raw"])
    place = storage_id(site, "input")
    inspect(site.catalog, place, LOOK)
    settle(site.catalog, place)
    site.dataset("run-2", late)
    assert settle(site.catalog, place, remove_dark=True).cleared == 1
    assert path.exists() and clean(site, "input")


# What lies between stages.


def test_intermediate_files_go_once_their_readers_are_finished(site: Site) -> None:
    prefix = finished(site, intermediate=Retention.CONSUMED)
    with site.catalog.write() as session:
        gone, _ = lifecycle.release(session, 0)
    assert gone == [f"{prefix}.md5sum.line"]
    for info in pending(site):
        deletion.remove(site.catalog, info)
    assert state_of(site, f"{prefix}.md5sum.line") is DatasetState.DELETED
    assert state_of(site, f"{prefix}.cut.digest") is DatasetState.CLOSED
    assert len(site.contents(f"{prefix}.cut.digest")) == 6
    assert clean(site, "internal", "output")


def pending(site: Site) -> list[int]:
    with site.catalog.read() as session:
        return [info.id for info in datasets.deleting(session)]


def test_intermediate_files_stay_while_a_reader_works(site: Site) -> None:
    from catalog import templates
    from flows import templates as template_files

    site.dataset("run-1", slices(3))
    info, _ = template_files.create(
        site.catalog, CHAIN, mask="run-?", intermediate=Retention.CONSUMED
    )
    with site.catalog.write() as session:
        templates.activate(session, info.id)
    chain = site.submit(info.ref, "run-1")
    advance(chain)
    site.shift(chain, "md5sum")
    for _ in range(3):
        advance(chain)
    assert state_of(site, "run-1.chain.v1.md5sum.line") is DatasetState.CLOSED
    with site.catalog.write() as session:
        assert lifecycle.release(session, 0) == ([], 0)
    assert site.run(chain) is WorkflowState.FINISHED
    with site.catalog.write() as session:
        assert lifecycle.release(session, 0)[0] == ["run-1.chain.v1.md5sum.line"]


def test_intermediate_files_stay_until_the_outputs_are_uploaded(site: Site, tmp_path: Path) -> None:
    prefix = finished(site, intermediate=Retention.UPLOADED)
    with site.catalog.write() as session:
        assert lifecycle.release(session, 0)[0] == []
        tape = storages.add(
            session, "tape", StorageKind.LOCAL, StorageRole.OUTPUT, str(tmp_path / "tape")
        )
        made = datasets.by_name(session, f"{prefix}.cut.digest").id
        upload = uploads.ask(session, made, tape.id)
    assert transfers.transfer(site.catalog, upload, tmp_path).state is UploadState.DONE
    with site.catalog.write() as session:
        assert lifecycle.release(session, 0)[0] == [f"{prefix}.md5sum.line"]


def test_by_default_intermediate_files_are_kept(site: Site) -> None:
    finished(site)
    with site.catalog.write() as session:
        assert lifecycle.release(session, 0) == ([], 0)


# Backpressure.


def test_who_only_adds_to_a_full_storage_waits_for_who_reads(site: Site, catalog: Catalog) -> None:
    from flows.dispatch import Dispatcher

    template = site.template(CHAIN, mask="run-?")
    nothing: Any = None
    chains = []
    for name in ("run-1", "run-2"):
        site.dataset(name, slices(2))
        chains.append(site.submit(template, name))
        advance(chains[-1])
    first, second = (Dispatcher(chain, Settings(_env_file=None), nothing, "d") for chain in chains)

    def wanted(dispatcher: Dispatcher) -> set[str]:
        with catalog.read() as session:
            return {need.stage.name for need in dispatcher._needs(session) if need.wanted}

    assert "md5sum" in wanted(first) and "md5sum" in wanted(second)
    with catalog.write() as session:
        usage.set_quota(session, storages.by_name(session, "internal").id, 1, 90, 50)
        usage.note(session, storages.by_name(session, "internal").id, 1, 5)
        assert usage.press(session)
    assert "md5sum" in wanted(first), "the oldest goes on while no reader has work"
    assert "md5sum" not in wanted(second)
    site.shift(chains[0], "md5sum")
    advance(chains[0])
    with catalog.read() as session:
        assert not pressure.may_produce(session, chains[0].workflow_id)
    assert "cut" in wanted(first), "readers go first"
    assert "md5sum" not in wanted(first) | wanted(second)
    with catalog.write() as session:
        usage.set_quota(session, storages.by_name(session, "internal").id, None, 90, 50)
        usage.press(session)
    assert "md5sum" in wanted(second)


def test_findings_name_their_kind(site: Site) -> None:
    prefix = finished(site, count=1)
    ((_, path),) = places(site, f"{prefix}.cut.digest").values()
    standing.mark(site.catalog, storage_id(site, "output"))
    path.unlink()
    inspect(site.catalog, storage_id(site, "output"), LOOK)
    with site.catalog.read() as session:
        assert len(findings.findings(session, kind=FindingKind.MISSING)) == 1
        assert findings.findings(session, kind=FindingKind.DARK) == []


SETTLE = """
import sys
from catalog.db import Catalog
from catalog.inspection.settle import settle
settle(Catalog(sys.argv[1]), int(sys.argv[2]), remove_dark=True)
"""


@pytest.mark.parametrize("failpoint", ["inspection.noted", "inspection.removed"])
def test_settling_that_is_killed_goes_on(site: Site, catalog_url: str, failpoint: str) -> None:
    finished(site, count=1)
    dark = [site.home / "internal" / f"dark{i}" for i in range(3)]
    for path in dark:
        path.write_text("nobody knows me")
    place = storage_id(site, "internal")
    inspect(site.catalog, place, LOOK)
    line = [sys.executable, "-c", SETTLE, catalog_url, str(place)]
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, VARIABLE: failpoint}
    killed = subprocess.run(line, env=env, cwd=root, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    subprocess.run(line, cwd=root, timeout=60, check=True)
    assert not any(path.exists() for path in dark)
    with site.catalog.read() as session:
        states = {item.state for item in findings.findings(session, states=tuple(FindingState))}
    assert states == {FindingState.REMOVED}
    assert clean(site, "internal")
