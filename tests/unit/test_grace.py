"""Grace: what a person deletes can be taken back for a while, and nothing goes until then."""

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlmodel import Session, col

from catalog import (
    clock,
    datasets,
    deletion,
    deletioncauses,
    events,
    files,
    grace,
    lifecycle,
    storages,
    usage,
)
from catalog.db import Catalog
from catalog.errors import Conflict, StateConflict
from catalog.models import Dataset, Storage, Workflow
from catalog.refs import Originals
from catalog.states import DatasetState, WorkflowState
from catalog.storages import StorageInfo
from flows import deletion as flow
from tests.privileges import modes_hold

DAY_S = 86400.0
AddFiles = Callable[[int, Sequence[str]], list[int]]
Run = Callable[..., int]


@pytest.fixture
def run(catalog: Catalog, storage: StorageInfo, add_files: AddFiles) -> Run:
    """Make a dataset of copies whose bytes are there; gives its id."""

    def make(name: str, names: Sequence[str], *, close: bool = True) -> int:
        with catalog.write() as session:
            made = datasets.create(session, name)
        add_files(made, names)
        for each in names:
            Path(storage.url, each).write_text(each)
        if close:
            with catalog.write() as session:
                datasets.close(session, made)
        return made

    return make


def mark(catalog: Catalog, dataset_id: int, grace_s: float = DAY_S) -> bool:
    with catalog.write() as session:
        return deletion.mark(session, dataset_id, "a test", grace_s=grace_s, by_person=True)


def undelete(catalog: Catalog, dataset_id: int) -> DatasetState:
    with catalog.write() as session:
        return grace.undelete(session, dataset_id).state


def state(catalog: Catalog, dataset_id: int) -> DatasetState:
    with catalog.read() as session:
        return datasets.get(session, dataset_id).state


def there(storage: StorageInfo) -> list[str]:
    return sorted(path.name for path in Path(storage.url).glob("[!.]*"))


def end_early(session: Session) -> list[str]:
    return grace.end_early(session, grace.in_the_way(session))


def test_nothing_goes_while_grace_lasts_and_all_does_after_it(
    catalog: Catalog, storage: StorageInfo, run: Run
) -> None:
    made = run("run-1", ["a"])
    mark(catalog, made)
    assert flow.delete(catalog).datasets == 0
    assert deletion.remove(catalog, made).copies == 0
    assert there(storage) == ["a"] and state(catalog, made) is DatasetState.DELETING
    with catalog.read() as session:
        assert datasets.deleting(session) == [], "no run is started for it"
    clock.shift_clock(DAY_S + 1)
    assert flow.delete(catalog).copies == 1
    assert there(storage) == []


@pytest.mark.parametrize("closed", [True, False])
def test_what_is_taken_back_is_what_it_was(
    catalog: Catalog, storage: StorageInfo, run: Run, closed: bool
) -> None:
    made = run("run-1", ["a"], close=closed)
    mark(catalog, made)
    before = DatasetState.CLOSED if closed else DatasetState.OPEN
    assert undelete(catalog, made) is before
    with catalog.write() as session:
        info = datasets.get(session, made)
        told = events.history(session, "dataset", made)[-1]
        assert datasets.close(session, made).state is DatasetState.CLOSED
    assert (info.grace_until, info.deleting_at, info.originals) == (None, None, None)
    assert (told.before, told.after, told.message) == ("DELETING", before, "taken back")
    clock.shift_clock(2 * DAY_S)
    assert flow.delete(catalog).datasets == 0 and there(storage) == ["a"]


def test_a_dataset_that_is_being_deleted_cannot_be_closed(catalog: Catalog, run: Run) -> None:
    made = run("run-1", ["a"], close=False)
    mark(catalog, made)
    with pytest.raises(StateConflict), catalog.write() as session:
        datasets.close(session, made)


def test_a_lifetime_goes_on_where_it_was_when_it_was_deleted(catalog: Catalog, run: Run) -> None:
    made = run("run-1", ["a"])
    with catalog.write() as session:
        ends = lifecycle.set_lifetime(session, made, 1000).expires_at
    assert ends is not None
    mark(catalog, made)
    clock.shift_clock(5000)
    assert undelete(catalog, made) is DatasetState.CLOSED
    with catalog.write() as session:
        info = datasets.get(session, made)
        assert info.expires_at is not None
        assert abs(info.expires_at - ends - timedelta(seconds=5000)) < timedelta(seconds=60)
        assert deletion.expire(session) == []


def test_after_its_grace_it_cannot_be_taken_back(catalog: Catalog, run: Run) -> None:
    late, gone, alive = run("late", ["a"]), run("gone", ["b"]), run("alive", ["c"])
    for made in (late, gone):
        mark(catalog, made)
    clock.shift_clock(DAY_S + 1)
    with pytest.raises(Conflict, match="its bytes are going"):
        undelete(catalog, late)
    deletion.remove(catalog, gone)
    with pytest.raises(Conflict, match="is DELETED, and can't be taken back"):
        undelete(catalog, gone)
    with pytest.raises(Conflict, match="is CLOSED: nobody deletes it"):
        undelete(catalog, alive)


def test_who_asks_again_ends_the_grace_sooner_and_never_later(
    catalog: Catalog, storage: StorageInfo, run: Run
) -> None:
    made = run("run-1", ["a"])
    assert mark(catalog, made)
    assert not mark(catalog, made, 2 * DAY_S)
    with catalog.read() as session:
        first = datasets.get(session, made).grace_until
    assert mark(catalog, made, 60.0)
    with catalog.write() as session:
        sooner = datasets.get(session, made).grace_until
        assert deletion.mark(
            session, made, "again", grace_s=DAY_S, by=Originals.BY_WORD, by_person=True
        )
        assert datasets.get(session, made).originals is Originals.BY_WORD
    assert first is not None and sooner is not None and sooner < first
    assert mark(catalog, made, 0.0)
    assert deletion.remove(catalog, made).copies == 1
    assert there(storage) == []


def test_a_later_word_of_a_person_decides_on_originals_until_grace_is_over(
    catalog: Catalog, run: Run
) -> None:
    made = run("run-1", ["a"])

    def order(by: Originals | None, grace_s: float = DAY_S) -> Originals | None:
        with catalog.write() as session:
            deletion.mark(session, made, "told", grace_s=grace_s, by=by, by_person=True)
            return datasets.get(session, made).originals

    assert order(Originals.BY_WORD) is Originals.BY_WORD
    assert order(None) is None
    with catalog.read() as session:
        told = events.history(session, "dataset", made)[-1]
    assert told.after == deletion.AGAIN
    assert told.message is not None and "is taken back: they stay" in told.message
    assert order(None, 0.0) is None
    with pytest.raises(Conflict, match="that its originals stay; that can't be changed any more"):
        order(Originals.BY_WORD)
    assert order(None) is None, "the same again is no conflict"


@pytest.mark.parametrize("by", [None, Originals.BY_WORD])
def test_nobody_but_a_person_changes_what_a_person_ordered(
    catalog: Catalog, run: Run, by: Originals | None
) -> None:
    made = run("run-1", ["a"])
    with catalog.write() as session:
        deletion.mark(session, made, "told", grace_s=DAY_S, by=Originals.BY_WORD, by_person=True)
        before = datasets.get(session, made)
        assert not deletion.mark(session, made, "by a lifetime", by=by)
        assert datasets.get(session, made) == before


def test_files_of_a_dataset_that_may_be_taken_back_are_held(
    catalog: Catalog, storage: StorageInfo, run: Run, add_files: AddFiles
) -> None:
    made, other = run("run-1", ["a"]), run("run-2", ["b"], close=False)
    add_files(other, ["a"])
    mark(catalog, made)
    mark(catalog, other, 0.0)
    assert deletion.remove(catalog, other).kept == 1
    assert there(storage) == ["a"]
    assert undelete(catalog, made) is DatasetState.CLOSED
    mark(catalog, made, 0.0)
    assert deletion.remove(catalog, made).copies == 1


def test_a_lifetime_gives_no_grace(catalog: Catalog, storage: StorageInfo, run: Run) -> None:
    made = run("run-1", ["a"])
    with catalog.write() as session:
        lifecycle.set_lifetime(session, made, 0)
    clock.shift_clock(10)
    assert flow.delete(catalog).copies == 1
    assert there(storage) == []


def test_above_the_high_water_mark_the_oldest_grace_ends_one_at_a_time(
    catalog: Catalog, storage: StorageInfo, run: Run
) -> None:
    first, second = run("first", ["aaaa"]), run("second", ["bbbb"])
    for made in (second, first):
        mark(catalog, made)
    with catalog.write() as session:
        oldest = clock.now(-3600)
        session.execute(
            sa.update(Dataset).where(col(Dataset.id) == first).values(deleting_at=oldest)
        )
        assert end_early(session) == []
        usage.set_quota(session, storage.id, 8, 90, 80)
        assert usage.press(session) == {storage.name: usage.PRESSED}
        assert end_early(session) == ["first"]
        assert end_early(session) == [], "its bytes go first"
        told = events.history(session, "dataset", first)[-1]
    assert (told.after, told.message) == (
        grace.ENDED,
        f"storage {storage.name} is above its high-water mark",
    )
    assert deletion.remove(catalog, first).copies == 1
    assert there(storage) == ["bbbb"]


def test_a_deletion_that_is_stuck_on_a_full_storage_holds_up_no_other(
    catalog: Catalog, storage: StorageInfo, run: Run
) -> None:
    for name in ("stuck", "first", "second"):
        Path(storage.url, name).mkdir()
    stuck, first, second = (run(name, [f"{name}/a"]) for name in ("stuck", "first", "second"))
    mark(catalog, stuck, grace_s=0.0)
    for name in ("stuck", "first"):
        Path(storage.url, name).chmod(0o555)
    for number, made in enumerate((first, second)):
        mark(catalog, made)
        with catalog.write() as session:
            when = sa.update(Dataset).where(col(Dataset.id) == made)
            session.execute(when.values(deleting_at=clock.now(number - 10)))
    with catalog.write() as session:
        session.execute(sa.update(Storage).values(pressed_at=clock.now()))
        assert end_early(session) == [], "it goes first, as far as anybody knows"
    with modes_hold():
        assert deletion.remove(catalog, stuck).faults
    with catalog.write() as session:
        assert end_early(session) == ["first"]
        assert end_early(session) == [], "one at a time still"
    with modes_hold():
        assert deletion.remove(catalog, first).faults
    with catalog.write() as session:
        assert end_early(session) == [], "nothing may go there at all: the others keep theirs"


def test_a_grace_whose_end_would_free_nothing_is_not_ended_early(
    catalog: Catalog, storage: StorageInfo, run: Run, add_files: AddFiles
) -> None:
    shared, other, alone = run("shared", ["a"]), run("other", ["b"], close=False), run("alone", "c")
    add_files(other, ["a"])
    for made in (shared, alone):
        mark(catalog, made)
    with catalog.write() as session:
        session.execute(sa.update(Storage).values(pressed_at=clock.now()))
        assert end_early(session) == ["alone"], "the end of the older one's frees nothing"
    deletion.remove(catalog, alone)
    mark(catalog, other)
    with catalog.write() as session:
        assert end_early(session) == ["shared"], "nobody else keeps it any more"


@pytest.fixture
def elsewhere(catalog: Catalog, tmp_path: Path) -> Callable[[str], int]:
    """Makes a dataset of one file on another storage, and deletes it before all others."""
    with catalog.write() as session:
        place = storages.add(session, "elsewhere", "local", "output", str(tmp_path / "elsewhere"))

    def make(name: str) -> int:
        with catalog.write() as session:
            made = datasets.create(session, name)
            row = files.NewFileRow("elsewhere", name, name, 1, "adler32:00000001")
            (file_id,) = files.register(session, place.id, [row], in_place=False)
            datasets.attach(session, made, [datasets.Member(file_id, name)])
            deletion.mark(session, made, "a test", grace_s=DAY_S)
            older = sa.update(Dataset).where(col(Dataset.id) == made)
            session.execute(older.values(deleting_at=clock.now(-3600)))
        return made

    return make


def test_however_many_older_ones_lie_elsewhere_grace_ends_where_it_is_full(
    catalog: Catalog, storage: StorageInfo, run: Run, elsewhere: Callable[[str], int]
) -> None:
    there_first = [elsewhere(f"graced-{number}") for number in range(60)]
    with catalog.write() as session:
        going = sa.update(Dataset).where(col(Dataset.id).in_(there_first[:30]))
        session.execute(going.values(grace_until=None))
    mine = [run("older", ["a"]), run("younger", ["b"])]
    for made in mine:
        mark(catalog, made)
    with catalog.write() as session:
        older = sa.update(Dataset).where(col(Dataset.id) == mine[0])
        session.execute(older.values(deleting_at=clock.now(-10)))
        session.execute(
            sa.update(Storage).where(col(Storage.id) == storage.id).values(pressed_at=clock.now())
        )
        assert end_early(session) == ["older"]
        assert end_early(session) == [], "its bytes go first, whatever goes elsewhere"
    assert deletion.remove(catalog, mine[0]).copies == 1
    with catalog.write() as session:
        assert end_early(session) == ["younger"]


def test_grace_of_what_lies_elsewhere_or_stays_anyway_is_not_ended(
    catalog: Catalog, storage: StorageInfo, run: Run
) -> None:
    mark(catalog, run("run-1", ["a"]))
    with catalog.write() as session:
        original = datasets.create(session, "in-place")
        row = files.NewFileRow("raw", "o", "o", 1, "adler32:00000001")
        (file_id,) = files.register(session, storage.id, [row])
        datasets.attach(session, original, [datasets.Member(file_id, "o")])
    mark(catalog, original)
    with catalog.write() as session:
        older = sa.update(Dataset).where(col(Dataset.id) == original)
        session.execute(older.values(deleting_at=clock.now(-10)))
        session.execute(sa.update(Storage).values(pressed_at=clock.now()))
        assert end_early(session) == ["run-1"], "an original frees nothing"


def test_either_it_is_taken_back_or_its_bytes_go(
    catalog: Catalog, storage: StorageInfo, run: Run
) -> None:
    """Both at once, at the moment at which the grace ends."""
    for round_ in range(5):
        made = run(f"run-{round_}", [f"f{round_}"])
        mark(catalog, made, 0.001)
        outcome: list[object] = []

        def back(made: int = made, outcome: list[object] = outcome) -> None:
            try:
                outcome.append(undelete(catalog, made))
            except Conflict as error:
                outcome.append(error)

        thread = threading.Thread(target=back)
        thread.start()
        deletion.remove(catalog, made)
        thread.join()
        is_back = outcome == [DatasetState.CLOSED]
        assert (state(catalog, made) is DatasetState.CLOSED) == is_back
        assert is_back or state(catalog, made) in (DatasetState.DELETING, DatasetState.DELETED)
        assert Path(storage.url, f"f{round_}").exists() or not is_back


def test_why_tells_until_when_and_how_it_is_taken_back(catalog: Catalog, run: Run) -> None:
    made = run("run-1", ["a"])
    mark(catalog, made)
    with catalog.read() as session:
        (cause,) = deletioncauses.going(session, datasets.get(session, made))
    assert "nothing goes before" in cause.fact
    assert "`spdf dataset undelete run-1`" in cause.next


def test_why_says_what_keeps_a_dataset_whose_lifetime_is_over(catalog: Catalog, run: Run) -> None:
    made = run("run-1", ["a"])
    with catalog.write() as session:
        lifecycle.set_lifetime(session, made, 0)
        session.execute(sa.update(Dataset).values(pin="for the paper"))
    clock.shift_clock(10)
    with catalog.read() as session:
        (cause,) = deletioncauses.due(session, datasets.get(session, made))
    assert "its lifetime ended" in cause.fact and "pinned (for the paper)" in cause.next


def said(catalog: Catalog, dataset_id: int, by: Originals | None, *, dry: bool) -> str | None:
    """Why a person's word to delete a dataset is refused, if it is; `dry`: were it given."""
    with catalog.write() as session:
        info = datasets.get(session, dataset_id)
        try:
            if dry:
                deletion.check_word(session, info, by)
            else:
                deletion.mark(session, dataset_id, "again", by=by, by_person=True)
        except Conflict as error:
            return str(error)
    return None


@pytest.mark.parametrize("by", [None, Originals.BY_WORD])
@pytest.mark.parametrize("before", ["closed", "pinned", "grace", "going", "going with originals"])
def test_a_dry_run_refuses_what_the_word_itself_would(
    catalog: Catalog, run: Run, before: str, by: Originals | None
) -> None:
    made = run("run-1", ["a"])
    with catalog.write() as session:
        if before == "pinned":
            lifecycle.pin(session, made, "for the paper")
        elif before == "grace":
            deletion.mark(session, made, "a test", grace_s=DAY_S, by_person=True)
        elif before.startswith("going"):
            word = Originals.BY_WORD if before.endswith("originals") else None
            deletion.mark(session, made, "a test", by=word, by_person=True)
    dry = said(catalog, made, by, dry=True)
    refused = {
        "pinned": True,
        "going": by is Originals.BY_WORD,
        "going with originals": by is None,
    }.get(before, False)
    assert (dry is not None) == refused
    assert dry == said(catalog, made, by, dry=False)


def test_a_dry_run_refuses_what_a_workflow_makes_until_that_is_final(
    catalog: Catalog, chain: object
) -> None:
    """Though it is CLOSED, and may go by itself once it was consumed."""
    with catalog.write() as session:
        made = datasets.by_name(session, "run.md5.v1.merge.log").id
        datasets.close(session, made)
        session.execute(sa.update(Workflow).values(state=WorkflowState.IN_PROGRESS))
    dry = said(catalog, made, None, dry=True)
    assert dry is not None and "is made by workflow 1, which isn't final" in dry
    assert dry == said(catalog, made, None, dry=False)
