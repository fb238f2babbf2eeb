"""Originals: what was registered where it lay goes by a word that names it only, and else stays."""

import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col

from catalog import (
    clock,
    datasets,
    deletion,
    deletioncauses,
    deletionfaults,
    detached,
    events,
    files,
    intakerules,
    lifecycle,
    problems,
    removal,
    standing,
    storages,
    usage,
)
from catalog.datasets import Member
from catalog.db import Catalog
from catalog.drivers.local import LocalDriver
from catalog.errors import Conflict, StorageError
from catalog.files import NewFileRow
from catalog.inspection.scan import Options, inspect
from catalog.inspection.settle import settle
from catalog.models import Dataset, IntakeRule, Replica, StorageKind, StorageRole
from catalog.names import MARKER
from catalog.refs import Originals, Untaken
from catalog.stamps import Reading, of_stat
from catalog.states import DatasetState, ReplicaState
from catalog.storages import StorageInfo
from catalog.transitions import move
from flows import deletion as flow

NOW = Options(100.0, grace_s=0.0)
Register = Callable[..., int]


def original(storage: StorageInfo, name: str, content: str | None = None) -> NewFileRow:
    """A file that lies on the storage, written by somebody else."""
    content = name if content is None else content
    path = Path(storage.url, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    digest = f"adler32:{zlib.adler32(content.encode()):08x}"
    return NewFileRow(storage.name, name, name, len(content), digest)


@pytest.fixture
def register(catalog: Catalog, storage: StorageInfo) -> Register:
    """Make a CLOSED dataset of originals; gives its id."""

    def make(names: Sequence[str], name: str = "run-1", rule_id: int | None = None) -> int:
        rows = [original(storage, each) for each in names]
        with catalog.write() as session:
            made = datasets.create(session, name, rule_id=rule_id)
            ids = files.register(session, storage.id, rows)
            datasets.attach(session, made, [*map(Member, ids, names)])
            datasets.close(session, made)
        return made

    return make


def delete(catalog: Catalog, dataset_id: int, by: Originals | None = None) -> removal.Removed:
    with catalog.write() as session:
        assert deletion.mark(session, dataset_id, "a test", by=by)
    return deletion.remove(catalog, dataset_id)


def there(storage: StorageInfo) -> list[str]:
    root = Path(storage.url)
    found = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
    return sorted(name for name in found if name != MARKER)


def states(catalog: Catalog) -> set[ReplicaState]:
    with catalog.read() as session:
        return set(session.scalars(sa.select(col(Replica.state))))


def test_originals_stay_where_they_are_and_their_rows_end(
    catalog: Catalog, storage: StorageInfo, register: Register
) -> None:
    run = register(["a", "sub/b"])
    done = delete(catalog, run)
    assert (done.copies, done.detached, done.faults) == (0, 2, ())
    assert there(storage) == ["a", "sub/b"]
    assert states(catalog) == {ReplicaState.DELETED}
    with catalog.read() as session:
        assert datasets.get(session, run).state is DatasetState.DELETED
        (item,) = usage.of_storages(session)
        assert (item.files, item.size_bytes) == (0, 0), "what is detached is not counted as used"
        (told,) = events.history(session, "replica", 1)
        assert [d.path for d in detached.listing(session)] == ["a", "sub/b"]
        assert detached.count(session) == (2, 6)
    assert "registered in place, and stay" in str(told.message)


def test_what_the_product_wrote_goes_beside_originals_that_stay(
    catalog: Catalog, storage: StorageInfo, register: Register, tmp_path: Path
) -> None:
    run = register(["a"])
    with catalog.write() as session:
        place = str(tmp_path / "tape")
        tape = storages.add(session, "tape", StorageKind.LOCAL, StorageRole.OUTPUT, place)
    standing.mark(catalog, tape.id)
    with catalog.write() as session:
        copy = original(tape, "copy", "a")
        known = files.get(session, storage.name, "a")
        row = NewFileRow(known.scope, known.name, copy.path, known.size_bytes, known.checksum)
        files.register(session, tape.id, [row], in_place=False)
    done = delete(catalog, run)
    assert (done.copies, done.detached) == (1, 1)
    assert (there(storage), there(tape)) == (["a"], [])


def test_originals_go_by_a_word_and_the_event_names_it(
    catalog: Catalog, storage: StorageInfo, register: Register
) -> None:
    done = delete(catalog, register(["a", "b"]), Originals.BY_WORD)
    assert (done.copies, done.size_bytes, done.detached) == (2, 2, 0)
    assert there(storage) == []
    with catalog.read() as session:
        (told,) = events.history(session, "replica", 1)
        assert detached.listing(session) == []
    assert "--remove-originals" in str(told.message)


def test_a_pin_keeps_originals_from_any_word(
    catalog: Catalog, storage: StorageInfo, register: Register
) -> None:
    run = register(["a"])
    with catalog.write() as session:
        lifecycle.pin(session, run, "for the paper")
    with pytest.raises(Conflict, match="pinned"):
        delete(catalog, run, Originals.BY_WORD)
    assert there(storage) == ["a"]


@pytest.fixture
def rule(catalog: Catalog, storage: StorageInfo) -> intakerules.Rule:
    """A rule whose datasets go an hour after their close."""
    with catalog.write() as session:
        return intakerules.add(
            session,
            intakerules.Rule(
                "daq",
                storage.name,
                r"(?P<run>run-\d+)/.*",
                "{run}",
                lifetime_s=3600,
                unmatched=Untaken.EXPIRE,
            ),
        )


def expire(catalog: Catalog) -> list[str]:
    with catalog.write() as session:
        return deletion.expire(session)


def test_a_rules_lifetime_takes_what_the_rule_is_for_and_nothing_else(
    catalog: Catalog, storage: StorageInfo, register: Register, rule: intakerules.Rule
) -> None:
    run = register(["run-1/a", "by-hand", "run-2/of-another"], rule_id=rule.id)
    with catalog.write() as session:
        lifecycle.set_lifetime(session, run, 3600)
    clock.shift_clock(3601)
    assert expire(catalog) == ["run-1"]
    done = deletion.remove(catalog, run)
    assert (done.copies, done.detached) == (1, 2)
    assert there(storage) == ["by-hand", "run-2/of-another"]
    with catalog.read() as session:
        (mine,) = session.scalars(sa.select(col(Replica.id)).where(col(Replica.path) == "run-1/a"))
        told = [event.message for event in events.history(session, "replica", mine)]
        marked = [
            e.message for e in events.history(session, "dataset", run) if e.after == "DELETING"
        ]
    assert str(told[0]).endswith("by the lifetime of intake rule daq")
    assert marked == ["the lifetime of intake rule daq (1 h) is over"]


def test_of_two_rules_that_fill_one_dataset_each_lifetime_takes_its_own_storages_files(
    catalog: Catalog, storage: StorageInfo, register: Register, rule: intakerules.Rule,
    tmp_path: Path,
) -> None:  # fmt: skip
    run = register(["run-1/a"], rule_id=rule.id)
    kept = {}
    for name, lifetime_s in (("second", 60.0), ("longer", 7200.0), ("ever", None)):
        with catalog.write() as session:
            place = storages.add(
                session, name, StorageKind.LOCAL, StorageRole.INPUT, str(tmp_path / name)
            )
        kept[name] = standing.mark(catalog, place.id).storage
        with catalog.write() as session:
            pattern = r"(?P<run>run-\d+)/.*"
            more = intakerules.Rule(
                name,
                name,
                pattern,
                "{run}",
                lifetime_s=lifetime_s,
                unmatched=lifetime_s and Untaken.EXPIRE,
            )
            intakerules.add(session, more)
            ids = files.register(session, place.id, [original(place, f"run-1/{name}")])
            session.execute(sa.update(Dataset).values(state=DatasetState.OPEN))
            datasets.attach(session, run, [Member(ids[0], f"run-1/{name}")])
            session.execute(sa.update(Dataset).values(state=DatasetState.CLOSED))
    with catalog.write() as session:
        lifecycle.set_lifetime(session, run, 3600)
    clock.shift_clock(3601)
    assert expire(catalog) == ["run-1"]
    done = deletion.remove(catalog, run)
    assert (done.copies, done.detached) == (2, 2)
    assert [there(place) for place in kept.values()] == [[], ["run-1/longer"], ["run-1/ever"]]


def test_a_lifetime_that_no_rule_declared_detaches(
    catalog: Catalog, storage: StorageInfo, register: Register, rule: intakerules.Rule
) -> None:
    alone = register(["run-1/a"])
    shortened = register(["run-2/b"], "run-2", rule_id=rule.id)
    with catalog.write() as session:
        for run in (alone, shortened):
            lifecycle.set_lifetime(session, run, 10)
    clock.shift_clock(11)
    assert expire(catalog) == ["run-1", "run-2"]
    for run in (alone, shortened):
        assert deletion.remove(catalog, run).detached == 1
    assert there(storage) == ["run-1/a", "run-2/b"]


def test_a_lifetime_takes_only_what_the_watch_would_take_for_the_rule(
    catalog: Catalog, storage: StorageInfo, register: Register
) -> None:
    pattern, lifetime_s = r".*(?P<run>run-\d+)_.*", 60.0
    with catalog.write() as session:
        rule = intakerules.add(
            session,
            intakerules.Rule(
                "daq", storage.name, pattern, "{run}", prefix="daq/", lifetime_s=lifetime_s,
                unmatched=Untaken.EXPIRE,
                end_pattern=r".*(?P<run>run-\d+)_END",
            ),
        )  # fmt: skip
        other = intakerules.Rule(
            "other", storage.name, r"(?P<run>other)", "{run}", end_pattern=r".*/(?P<run>.*)\.stop"
        )
        intakerules.add(session, other)
    stay = [
        "daq/.part/run-1_b", "daq/run-1_END", "daq/run-1_x.stop", "keep/daq/run-1_c", "run-1_d",
    ]  # fmt: skip
    run = register(["daq/run-1_a", *stay], rule_id=rule.id)
    with catalog.write() as session:
        lifecycle.set_lifetime(session, run, lifetime_s)
    clock.shift_clock(lifetime_s + 1)
    assert expire(catalog) == ["run-1"]
    done = deletion.remove(catalog, run)
    assert (done.copies, done.detached) == (1, len(stay))
    assert there(storage) == stay


@pytest.mark.parametrize("anew", [False, True])
@pytest.mark.parametrize("marked", [False, True])
def test_a_rule_that_was_removed_declares_no_lifetime_any_more(
    catalog: Catalog, storage: StorageInfo, register: Register, rule: intakerules.Rule,
    marked: bool, anew: bool,
) -> None:  # fmt: skip
    run = register(["run-1/a"], rule_id=rule.id)
    with catalog.write() as session:
        lifecycle.set_lifetime(session, run, 3600)
    clock.shift_clock(3601)
    if marked:
        assert expire(catalog) == ["run-1"]
    with catalog.write() as session:
        intakerules.remove(session, rule.name)
        if anew:
            intakerules.add(
                session, intakerules.Rule(rule.name, storage.name, rule.pattern, "{run}")
            )
    if not marked:
        assert expire(catalog) == ["run-1"]
    assert deletion.remove(catalog, run).detached == 1
    assert there(storage) == ["run-1/a"]


def test_a_rule_that_cannot_be_followed_stops_no_deletion(
    catalog: Catalog, storage: StorageInfo, register: Register, rule: intakerules.Rule
) -> None:
    run = register(["by-hand", "run-1/a"], rule_id=rule.id)
    with catalog.write() as session:
        lifecycle.set_lifetime(session, run, 3600)
        broken = intakerules.Rule(
            "old", storage.name, r"(?P<run>x)", "{run}", lifetime_s=60.0, unmatched=Untaken.EXPIRE
        )
        made = intakerules.add(session, broken)
        # As one of an earlier program may stand there.
        session.execute(
            sa.update(IntakeRule)
            .where(col(IntakeRule.id) == made.id)
            .values(pattern=r"(?P<run>x)(?=y)", end_pattern=r"(?P<run>x)(?=y)")
        )
    clock.shift_clock(3601)
    assert expire(catalog) == ["run-1"]
    assert deletion.remove(catalog, run).copies == 1
    assert there(storage) == ["by-hand"]


@pytest.mark.parametrize("by", [None, Originals.BY_WORD])
def test_other_bytes_under_the_path_by_now_are_nobodys_to_remove(
    catalog: Catalog, storage: StorageInfo, register: Register, by: Originals | None
) -> None:
    run = register(["grown", "replaced", "same"])
    Path(storage.url, "grown").write_text("more than there was")
    Path(storage.url, "replaced").write_text("REPLACED")
    later = datetime.now(UTC).timestamp() + 1000
    os.utime(Path(storage.url, "replaced"), (later, later))
    os.utime(Path(storage.url, "same"), (later, later))
    done = delete(catalog, run, by)
    assert (done.left, done.faults) == (2, ())
    assert there(storage) == ["grown", "replaced", *(["same"] if by is None else [])]
    with catalog.read() as session:
        assert [d.path for d in detached.listing(session)] == (["same"] if by is None else [])
        assert events.history(session, "replica", 1)[-1].after == removal.LEFT


def rewrite(path: Path) -> None:
    """A moment after it was registered: well within what clocks may be apart."""
    path.write_text(path.read_text().upper())


def move_older_over(path: Path) -> None:
    """As by `mv`, `cp -p` or `rsync -t` of another file that is older, of the same size."""
    part = path.with_name("part")
    part.write_text(path.read_text().upper())
    os.utime(part, (1_000_000_000.5, 1_000_000_000.5))
    part.rename(path)


def write_in_place_and_set_back(path: Path) -> None:
    before = path.stat()
    path.write_text(path.read_text().upper())
    os.utime(path, (before.st_atime, before.st_mtime - 2))


CHANGES = [rewrite, move_older_over, write_in_place_and_set_back]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("stamped", [True, False])
def test_other_bytes_of_the_same_size_stay_whatever_their_time(
    catalog: Catalog,
    storage: StorageInfo,
    change: Callable[[Path], None],
    stamped: bool,
) -> None:
    """Whether it has a stamp, or stands from before there were any, when all of it is read."""
    run = stamped_run(catalog, storage, ["a", "b"], stamped=stamped)
    change(Path(storage.url, "a"))
    done = delete(catalog, run, Originals.BY_WORD)
    assert (done.copies, done.left, done.faults) == (1, 1, ())
    assert there(storage) == ["a"]
    with catalog.read() as session:
        assert events.history(session, "replica", 1)[-1].after == removal.LEFT


@pytest.mark.parametrize("change", CHANGES)
def test_a_lifetime_leaves_other_bytes_of_the_same_size(
    catalog: Catalog,
    storage: StorageInfo,
    rule: intakerules.Rule,
    change: Callable[[Path], None],
) -> None:
    run = stamped_run(catalog, storage, ["run-1/a", "run-1/b"], rule_id=rule.id)
    with catalog.write() as session:
        lifecycle.set_lifetime(session, run, 3600)
    clock.shift_clock(3601)
    change(Path(storage.url, "run-1/a"))
    assert expire(catalog) == ["run-1"]
    done = deletion.remove(catalog, run)
    assert (done.copies, done.left) == (1, 1)
    assert there(storage) == ["run-1/a"]


def test_what_has_its_stamp_goes_without_a_read_and_what_was_touched_after_one(
    catalog: Catalog, storage: StorageInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A buffer whose lifetimes end is not read a second time."""
    run = stamped_run(catalog, storage, ["a", "b"])
    os.utime(Path(storage.url, "b"), (5, 5))
    read, seen = LocalDriver.read, []

    def noted(driver: LocalDriver, path: str, algorithm: str) -> Reading:
        seen.append(path)
        return read(driver, path, algorithm)

    monkeypatch.setattr(LocalDriver, "read", noted)
    assert delete(catalog, run, Originals.BY_WORD).copies == 2
    assert (there(storage), seen) == ([], ["b"])


def stamped_run(
    catalog: Catalog,
    storage: StorageInfo,
    names: Sequence[str],
    *,
    stamped: bool = True,
    rule_id: int | None = None,
) -> int:
    """As `register`, with what the intake saw of the files."""
    rows = [original(storage, name) for name in names]
    if stamped:
        found = [Path(storage.url, name).stat() for name in names]
        rows = [replace(r, stamp=of_stat(f)) for r, f in zip(rows, found, strict=True)]
    with catalog.write() as session:
        made = datasets.create(session, "run-1", rule_id=rule_id)
        ids = files.register(session, storage.id, rows)
        datasets.attach(session, made, [*map(Member, ids, names)])
        datasets.close(session, made)
    return made


def test_what_is_written_between_the_look_and_the_removal_stays(
    catalog: Catalog, storage: StorageInfo, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also bytes of the same length and time under the path: they are another file."""
    run = register(["grown", "moved-in", "same"])
    remove = removal._remove_bytes

    def late(*args: Any) -> dict[int, StorageError]:
        root = Path(storage.url)
        (root / "grown").write_text("a new run")
        shutil.copy2(root / "moved-in", root / "part")
        (root / "part").write_text("MOVED-IN")
        shutil.copystat(root / "moved-in", root / "part")
        (root / "part").rename(root / "moved-in")
        return remove(*args)

    monkeypatch.setattr(removal, "_remove_bytes", late)
    done = delete(catalog, run, Originals.BY_WORD)
    assert (done.copies, done.left, done.faults) == (1, 2, ())
    assert there(storage) == ["grown", "moved-in"]
    with catalog.read() as session:
        assert datasets.get(session, run).state is DatasetState.DELETED
        told = events.history(session, "replica", 1)[-1]
        assert detached.listing(session) == []
    assert (told.after, "other bytes lie under its path now" in str(told.message)) == (
        removal.LEFT, True,
    )  # fmt: skip


def test_an_original_of_a_storage_that_is_away_waits_and_why_is_told(
    catalog: Catalog, storage: StorageInfo, register: Register, tmp_path: Path
) -> None:
    run = register(["a", "b"])
    aside = tmp_path / "aside"
    Path(storage.url).rename(aside)
    delete(catalog, run)
    with catalog.read() as session:
        info = datasets.get(session, run)
        assert info.state is DatasetState.DELETING
        (fault,) = deletionfaults.of_dataset(session, run)
        told = [cause.fact for cause in deletioncauses.going(session, info)]
        shown = [item.message for item in problems.problems(session) if item.source == "deletions"]
    assert (fault.storage, fault.files) == (storage.name, 2)
    assert len(shown) == 1 and "run-1 is being deleted, and 2 files on raw can't go" in shown[0]
    assert any("2 files on raw can't go" in fact and "mount or make it" in fact for fact in told)
    aside.rename(storage.url)
    assert deletion.remove(catalog, run).detached == 2
    with catalog.read() as session:
        assert deletionfaults.of_dataset(session, run) == []
        assert deletionfaults.count(session) == 0


@pytest.mark.parametrize("name", [None, "a", "b"])
def test_nothing_is_concluded_from_another_folder_at_the_mount_point(
    catalog: Catalog, storage: StorageInfo, register: Register, tmp_path: Path, name: str | None
) -> None:
    run = register(["a"])
    aside = tmp_path / "aside"
    Path(storage.url).rename(aside)
    Path(storage.url).mkdir()
    if name is not None:
        Path(storage.url, name).write_text("of another storage")
    assert len(delete(catalog, run).faults) == 1
    with catalog.read() as session:
        assert datasets.get(session, run).state is DatasetState.DELETING
    shutil.rmtree(storage.url)
    aside.rename(storage.url)
    assert deletion.remove(catalog, run).detached == 1


def test_one_datasets_error_holds_up_no_other(
    catalog: Catalog, storage: StorageInfo, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = register(["a"]), register(["b"], "run-2")
    with catalog.write() as session:
        for run in (bad, good):
            deletion.mark(session, run, "a test")
    whole = deletion.remove

    def failing(which: Catalog, dataset_id: int, **more: object) -> removal.Removed:
        if dataset_id == bad:
            raise RuntimeError("a defect")
        return whole(which, dataset_id, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(deletion, "remove", failing)
    done = flow.delete(catalog)
    assert (done.datasets, done.detached) == (1, 1)
    with catalog.read() as session:
        assert datasets.get(session, good).state is DatasetState.DELETED
        (fault,) = deletionfaults.of_dataset(session, bad)
    assert fault.storage is None and "RuntimeError: a defect" in fault.reason


def test_a_storage_without_a_login_holds_up_no_other(
    catalog: Catalog, storage: StorageInfo, register: Register
) -> None:
    with catalog.write() as session:
        storages.add(
            session, "far", StorageKind.S3, StorageRole.OUTPUT, "http://127.0.0.1:9/bucket"
        )
    assert delete(catalog, register(["a"]), Originals.BY_WORD).copies == 1
    assert there(storage) == []


def test_an_inspection_counts_what_is_detached_and_takes_it_for_dark_once_it_changed(
    catalog: Catalog, storage: StorageInfo, register: Register
) -> None:
    delete(catalog, register(["a", "b"]))
    info = inspect(catalog, storage.id, NOW)
    assert (info.dark, info.detached) == (0, 2)
    Path(storage.url, "a").write_text("something else")
    info = inspect(catalog, storage.id, NOW)
    assert (info.dark, info.detached) == (1, 1)


def test_what_was_dark_once_is_not_removed_after_it_was_detached(
    catalog: Catalog, storage: StorageInfo, register: Register
) -> None:
    original(storage, "a")
    assert inspect(catalog, storage.id, NOW).dark == 1
    settle(catalog, storage.id)
    delete(catalog, register(["a"]))
    assert settle(catalog, storage.id, remove_dark=True).removed == 0
    assert there(storage) == ["a"]


def test_an_inspection_ends_the_detaching_that_a_crash_left(
    catalog: Catalog, storage: StorageInfo, register: Register
) -> None:
    register(["a"])
    with catalog.write() as session:
        session.execute(sa.update(Dataset).values(state=DatasetState.DELETED))
        found = removal.lock(session, sa.true())
        removal.doom(session, found, "a test")
    settle(catalog, storage.id)
    assert there(storage) == ["a"] and states(catalog) == {ReplicaState.DELETED}
    with catalog.read() as session:
        assert detached.count(session) == (1, 1)


def test_an_original_that_is_bad_is_not_retired_with_its_bytes(
    catalog: Catalog, storage: StorageInfo, register: Register
) -> None:
    register(["a"])
    with catalog.write() as session:
        move(session, Replica, [1], ReplicaState.BAD)
        assert removal.retire(session, [1], "a test") == []
    assert states(catalog) == {ReplicaState.BAD} and there(storage) == ["a"]


def test_rows_of_programs_that_could_not_tell_are_originals_unless_a_workflow_made_the_file(
    catalog: Catalog, storage: StorageInfo
) -> None:
    with catalog.write() as session:
        for name, derived in (("run-1", False), ("made", True)):
            row = original(storage, name)
            made = Dataset(name=name, derived=derived)
            session.add(made)
            session.flush()
            ids = files.register(session, storage.id, [row])
            member = sa.text(
                "INSERT INTO dataset_file (dataset_id, file_id, name, key, position) "
                "VALUES (:d, :f, :n, :n, 0)"
            )
            session.execute(member, {"d": made.id, "f": ids[0], "n": name})
        session.execute(sa.update(Replica).values(in_place=None))
        both = list(session.scalars(sa.select(col(Dataset.id)).order_by(col(Dataset.id))))
    assert [delete(catalog, each).detached for each in both] == [1, 0]
    assert there(storage) == ["run-1"]


def test_a_dataset_with_nothing_detached_says_nothing_of_it(
    catalog: Catalog, storage: StorageInfo, register: Register
) -> None:
    stays, goes = register(["a"]), register(["b"], "run-2")
    delete(catalog, stays)
    delete(catalog, goes, Originals.BY_WORD)
    with catalog.read() as session:
        told = {
            run: [c.fact for c in deletioncauses.gone(session, datasets.get(session, run))]
            for run in (stays, goes)
        }
    assert len(told[goes]) == 1 and "1 of its files were detached" in told[stays][1]


def test_rescan_forgets_what_was_detached_below_a_prefix(
    catalog: Catalog, storage: StorageInfo, register: Register
) -> None:
    delete(catalog, register(["run-1/a", "run-2/b"]))
    with catalog.write() as session:
        assert detached.rescan(session, storage.id, "run-1/") == 1
        assert [d.path for d in detached.listing(session)] == ["run-2/b"]
        assert detached.rescan(session) == 1
