"""A catalog that became what it had been earlier removes nothing by itself, in whichever way."""

import secrets
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlmodel import col

from catalog import (
    clock,
    datasets,
    deletion,
    deletioncauses,
    files,
    grace,
    leave,
    lifecycle,
    problems,
    removal,
    requests,
    restores,
    schema,
    standing,
    storages,
    usage,
)
from catalog.backup import back_up, restore
from catalog.datasets import Member
from catalog.db import Catalog
from catalog.errors import StorageError
from catalog.files import NewFileRow
from catalog.inspection.scan import Options, inspect
from catalog.inspection.settle import settle
from catalog.models import CatalogInfo, Dataset, Upload
from catalog.refs import Retention, StorageInfo
from catalog.requests import parse
from catalog.states import DatasetState, UploadState
from flows import deletion as flow
from flows.intake.housework import Housework
from tests.processing import do_all

FULL = Options(sample_percent=100.0, grace_s=0.0, limit_percent=100.0)
DAY_S = 86400.0
Way = Callable[[Catalog, Path], None]


@pytest.fixture
def disk(catalog: Catalog, tmp_path: Path) -> StorageInfo:
    """An output storage with the marker of this catalog."""
    with catalog.write() as session:
        made = storages.add(session, "disk", "local", "output", str(tmp_path / "disk"))
    return standing.mark(catalog, made.id).storage


def fill(catalog: Catalog, place: StorageInfo, name: str, **more: object) -> int:
    """A closed dataset of one file on the storage."""
    path = Path(place.url, name)
    path.write_text(name)
    row = NewFileRow(
        place.name, name, name, len(name), f"adler32:{zlib.adler32(name.encode()):08x}"
    )
    with catalog.write() as session:
        made = datasets.create(session, name, **more)  # type: ignore[arg-type]
        ids = files.register(session, place.id, [row], in_place=False)
        datasets.attach(session, made, [Member(ids[0], name)])
        datasets.close(session, made)
    return made


def restored(catalog: Catalog, tmp_path: Path) -> None:
    """A backup is made and restored, and the storages claimed: that is not what keeps bytes."""
    made = back_up(catalog, tmp_path / f"backup-{secrets.token_hex(4)}")
    with catalog.read() as session:
        before = session.execute(sa.select(col(CatalogInfo.instance))).scalar_one()
    restore(catalog, made.path, replace=True)
    with catalog.write() as session:
        after = session.execute(sa.select(col(CatalogInfo.instance))).scalar_one()
        assert after != before, "the claims of before aren't its own"
        session.execute(sa.update(CatalogInfo).values(instance=before))


def rolled_back(catalog: Catalog, tmp_path: Path) -> None:
    """Found to be an earlier one by its claim on a storage."""
    with catalog.write() as session:
        before = session.execute(sa.select(col(CatalogInfo.instance))).scalar_one()
        restores.note_rollback(session)
        session.execute(sa.update(CatalogInfo).values(instance=before))


EARLIER = pytest.mark.parametrize("become_earlier", [restored, rolled_back])


def state(catalog: Catalog, dataset_id: int) -> DatasetState:
    with catalog.read() as session:
        return datasets.get(session, dataset_id).state


def accept(catalog: Catalog) -> None:
    with catalog.write() as session:
        assert restores.accept(session) == 1
        assert leave.why_not(session) is None


@EARLIER
def test_a_lifetime_that_is_over_removes_nothing(
    catalog: Catalog, disk: StorageInfo, tmp_path: Path, become_earlier: Way
) -> None:
    made = fill(catalog, disk, "run-1", lifetime_s=60.0)
    become_earlier(catalog, tmp_path)
    clock.shift_clock(DAY_S)
    assert flow.delete(catalog).datasets == 0
    assert state(catalog, made) is DatasetState.CLOSED, "it can be pinned still"
    assert Path(disk.url, "run-1").exists()
    accept(catalog)
    assert flow.delete(catalog).datasets == 1
    assert not Path(disk.url, "run-1").exists()


@EARLIER
@pytest.mark.parametrize("retention", [Retention.CONSUMED, Retention.UPLOADED])
def test_what_is_consumed_or_uploaded_stays(
    catalog: Catalog,
    disk: StorageInfo,
    chain: object,
    tmp_path: Path,
    become_earlier: Way,
    retention: Retention,
) -> None:
    with catalog.write() as session:
        made = datasets.by_name(session, "run.md5.v1.merge.log").id
        datasets.close(session, made)
        values = {"retention": retention, "readers": ["merge"]}
        session.execute(sa.update(Dataset).where(col(Dataset.id) == made).values(values))
        task = datasets.get(session, made).task_id
        out = Dataset(name="out", derived=True, task_id=task, port="o", state=DatasetState.CLOSED)
        session.add(out)
        session.flush()
        sent = Upload(
            dataset_id=out.id, storage_id=disk.id, state=UploadState.DONE, files=0, size_bytes=0
        )
        session.add(sent)
    become_earlier(catalog, tmp_path)
    with catalog.write() as session:
        assert lifecycle.release(session, 0) == ([], 0)
    assert state(catalog, made) is DatasetState.CLOSED
    accept(catalog)
    with catalog.write() as session:
        assert lifecycle.release(session, 0)[0] == ["run.md5.v1.merge.log"]


@EARLIER
@pytest.mark.parametrize("grace_s", [0.0, 3600.0])
def test_a_deletion_of_before_removes_nothing_and_may_be_taken_back(
    catalog: Catalog, disk: StorageInfo, tmp_path: Path, become_earlier: Way, grace_s: float
) -> None:
    """It may have been taken back, and pinned, since then."""
    made = fill(catalog, disk, "run-1")
    with catalog.write() as session:
        deletion.mark(session, made, "a test", grace_s=grace_s, by_person=True)
    become_earlier(catalog, tmp_path)
    clock.shift_clock(7200.0)
    with catalog.write() as session:
        assert grace.end_due(session) == []
        assert datasets.deleting(session) == [], "no run is started for it"
    assert flow.delete(catalog).copies == 0
    assert deletion.remove(catalog, made).copies == 0
    assert Path(disk.url, "run-1").exists()
    with catalog.read() as session:
        (cause,) = deletioncauses.going(session, datasets.get(session, made))[:1]
    assert "`spdf catalog accept`" in cause.next or grace_s
    if grace_s:
        with catalog.write() as session:
            assert grace.undelete(session, made).state is DatasetState.CLOSED
        return
    accept(catalog)
    assert flow.delete(catalog).copies == 1


@EARLIER
def test_a_full_storage_ends_no_grace(
    catalog: Catalog, disk: StorageInfo, tmp_path: Path, become_earlier: Way
) -> None:
    made = fill(catalog, disk, "run-1")
    with catalog.write() as session:
        deletion.mark(session, made, "a test", grace_s=7 * DAY_S, by_person=True)
        usage.set_quota(session, disk.id, 4, 90, 80)
        usage.fold(session)
        usage.press(session)
    become_earlier(catalog, tmp_path)
    with catalog.read() as session:
        assert grace.in_the_way(session) == {}
    assert flow.delete(catalog).copies == 0
    assert Path(disk.url, "run-1").exists()
    accept(catalog)
    assert flow.delete(catalog).copies == 1


@EARLIER
def test_dark_bytes_stay(
    catalog: Catalog, disk: StorageInfo, tmp_path: Path, become_earlier: Way
) -> None:
    with catalog.write() as session:
        datasets.create(session, "run-1.x", derived=True)
    dark = Path(disk.url, "run-1.x/000000/7.a1.out")
    dark.parent.mkdir(parents=True)
    dark.write_text("dark")
    inspect(catalog, disk.id, FULL)
    settle(catalog, disk.id)
    become_earlier(catalog, tmp_path)
    clock.shift_clock(2 * DAY_S)
    inspect(catalog, disk.id, FULL)
    settle(catalog, disk.id, quarantine_s=-1.0)
    with pytest.raises(StorageError, match="nothing is removed there: this catalog was"):
        settle(catalog, disk.id, remove_dark=True)
    assert dark.exists()


@EARLIER
def test_a_removal_that_was_begun_is_not_ended(
    catalog: Catalog, disk: StorageInfo, tmp_path: Path, become_earlier: Way
) -> None:
    """By an inspection, which ends what nobody else comes by again."""
    made = fill(catalog, disk, "run-1")
    with catalog.write() as session:
        found = removal.lock(session, sa.true())
        removal.doom(session, found, "its copy is elsewhere now")
    become_earlier(catalog, tmp_path)
    assert "this catalog was" in removal.finish(catalog, disk.id).faults[0]
    assert Path(disk.url, "run-1").exists()
    assert state(catalog, made) is DatasetState.CLOSED


@EARLIER
def test_a_request_of_before_deletes_nothing(
    catalog: Catalog, disk: StorageInfo, tmp_path: Path, become_earlier: Way
) -> None:
    """It may have been answered since, and its dataset made anew."""
    made = fill(catalog, disk, "run-1")
    document = {"kind": "dataset.delete", "key": "old", "datasetId": "run-1"}
    with catalog.write() as session:
        requests.submit(session, [parse(document)])
    become_earlier(catalog, tmp_path)
    do_all(catalog)
    assert state(catalog, made) is DatasetState.CLOSED
    with catalog.write() as session:
        requests.submit(session, [parse({**document, "key": "new"})])
    do_all(catalog)
    assert flow.delete(catalog).copies == 1, "this one was asked for since"


@EARLIER
def test_a_person_may_delete(
    catalog: Catalog, disk: StorageInfo, tmp_path: Path, become_earlier: Way
) -> None:
    made = fill(catalog, disk, "run-1")
    become_earlier(catalog, tmp_path)
    with catalog.write() as session:
        deletion.mark(session, made, "a person", by_person=True)
    assert flow.delete(catalog).copies == 1
    assert not Path(disk.url, "run-1").exists()


@EARLIER
def test_what_a_catalog_became_is_told_until_it_is_accepted(
    catalog: Catalog, tmp_path: Path, become_earlier: Way
) -> None:
    become_earlier(catalog, tmp_path)
    with catalog.read() as session:
        (told,) = [p.message for p in problems.problems(session) if p.source == "removal"]
        assert restores.generation(session) == 1
    assert "removes nothing by itself; `spdf catalog accept` shows" in told
    accept(catalog)
    with catalog.read() as session:
        assert not [p for p in problems.problems(session) if p.source == "removal"]


def test_each_restore_begins_a_generation_that_was_never_before(
    catalog: Catalog, tmp_path: Path
) -> None:
    """Also of the same backup once more."""
    made = back_up(catalog, tmp_path / "backup")
    for generation in (1, 2, 3):
        aside = restore(catalog, made.path, replace=True).aside
        with catalog.read() as session:
            found = restores.latest(session)
        assert found is not None and (found.id, found.aside) == (generation, aside)


@pytest.mark.parametrize("revision", ["0009", "0015"])
def test_a_backup_of_an_earlier_schema_is_known_for_restored(
    bare_url: str, tmp_path: Path, revision: str
) -> None:
    """Before and after it is migrated."""
    catalog = Catalog(bare_url)
    config = Config()
    config.set_main_option("script_location", str(schema.migrations()))
    with catalog.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    made = back_up(catalog, tmp_path / "backup")
    restore(catalog, made.path, replace=True)
    schema.upgrade(catalog)
    schema.check(catalog)
    with catalog.read() as session:
        assert restores.generation(session) == 1
        assert leave.why_not(session) is not None
    catalog.close()


@pytest.mark.parametrize("by", ["intake", "deletion"])
def test_a_rollback_is_looked_for_before_anything_goes(
    catalog: Catalog, disk: StorageInfo, by: str
) -> None:
    """Where nobody said `restore`: the claim on the storage tells."""
    made = fill(catalog, disk, "run-1", lifetime_s=60.0)
    inspect(catalog, disk.id, FULL)
    with catalog.write() as session:
        session.execute(sa.update(CatalogInfo).values(beat=0))
    clock.shift_clock(DAY_S)
    if by == "intake":
        Housework(catalog, lambda _session: None).turn()
    else:
        flow.delete(catalog)
    assert state(catalog, made) is DatasetState.CLOSED
    assert Path(disk.url, "run-1").exists()
