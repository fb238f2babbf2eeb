"""Nothing waits for what can't come: who ends says what that leaves, and what it lacks."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlmodel import col

from catalog import (
    causes,
    datasets,
    files,
    following,
    grace,
    incomplete,
    intakerules,
    manifests,
    ownership,
    problems,
    sources,
    storages,
    stranded,
    tasks,
    templates,
    waits,
    workflows,
)
from catalog.datasets import DatasetInfo
from catalog.db import Catalog
from catalog.errors import Conflict
from catalog.files import NewFileRow
from catalog.lineage import lineage
from catalog.models import Dataset, DatasetFile, StorageKind, StorageRole
from catalog.rule import Rule
from catalog.settings import Settings
from catalog.signs import TaskSigns
from catalog.states import DatasetState, TaskState, WorkflowState
from flows import templates as template_files
from flows.advance import advance, load
from flows.dispatch import Dispatcher
from flows.intake.generator import Generator
from flows.share import Share
from flows.submit import Submission, submit
from tests.acceptance.machine import until

CHAIN = Path(__file__).resolve().parents[2] / "examples" / "twostage" / "chain.cwl"
MADE = "run-1.chain.v1.cut.digest"
AFTER = f"{MADE}.after.v1.last.digest"
OPEN, CLOSED = DatasetState.OPEN, DatasetState.CLOSED


@dataclass
class Site:
    """A catalog with `chain`, for runs, and `after` and `third`, for what these make."""

    catalog: Catalog

    def submit(self, template: str, dataset: str) -> int:
        return submit(self.catalog, Submission(template, dataset, {}))[0]

    def dataset(self, name: str) -> DatasetInfo:
        with self.catalog.read() as session:
            return datasets.by_name(session, name)

    def cancel(self, workflow: int) -> None:
        with self.catalog.write() as session:
            workflows.cancel(session, workflow, "the wrong run")

    def fail(self, workflow: int, *, but: Sequence[str] = ()) -> None:
        """End a workflow as FAILED, with all its stages but those."""
        with self.catalog.write() as session:
            ownership.claim(session, workflow, "me", 60.0, None)
            for task in tasks.of_workflow(session, workflow):
                good = task.stage in but
                state = TaskState.FINISHED if good else TaskState.FAILED
                tasks.end(session, task.id, state, None if good else "it went wrong")
            workflows.finish(session, workflow, WorkflowState.FAILED, "it went wrong")

    def finish(self, workflow: int) -> WorkflowState:
        """Advance a workflow that has no jobs."""
        with self.catalog.write() as session:
            epoch = ownership.claim(session, workflow, "me", 60.0, None)
        assert epoch is not None
        return advance(load(self.catalog, workflow, epoch, 60.0))

    def close(self, name: str, *, is_whole: bool = False) -> DatasetInfo:
        """Close a dataset by a person's word."""
        with self.catalog.write() as session:
            info = datasets.by_name(session, name)
            incomplete.check_closable(session, info.id)
            return datasets.close(session, info.id, is_whole=is_whole)

    def why(self, name: str) -> str:
        with self.catalog.read() as session:
            found = causes.why_dataset(session, datasets.by_name(session, name))
        return "\n".join(f"{cause.fact}; {cause.next}" for cause in found)

    def waits(self, workflow: int) -> str:
        with self.catalog.read() as session:
            return "\n".join(waits.of_workflow(session, workflow))

    def told(self) -> list[str]:
        with self.catalog.read() as session:
            found = problems.problems(session)
        return [one.message for one in found if one.source == "datasets that nobody closes"]

    def more_may_come(self, workflow: int, stage: int = 0) -> bool:
        with self.catalog.read() as session:
            task = tasks.of_workflow(session, workflow)[stage]
        return TaskSigns(
            self.catalog, task.id, pool="cpu", node="n", long_s=9.0
        ).outlook().more_may_come  # fmt: skip

    def fill(self, name: str, *files_of_it: str) -> list[int]:
        """Have a job's outputs in a dataset that a workflow makes."""
        with self.catalog.write() as session:
            info = datasets.by_name(session, name)
            place = storages.by_name(session, "internal")
            rows = [
                NewFileRow(name, one, f"{name}/{one}", 1, "adler32:00620062") for one in files_of_it
            ]
            ids = files.register(session, place.id, rows, in_place=False)
            session.add_all(
                DatasetFile(dataset_id=info.id, file_id=i, name=one, key=one, position=number)
                for number, (i, one) in enumerate(zip(ids, files_of_it, strict=True))
            )
        return ids


@pytest.fixture
def site(catalog: Catalog, tmp_path: Path) -> Site:
    text = CHAIN.read_text()
    with catalog.write() as session:
        for role in StorageRole:
            storages.add(session, role, StorageKind.LOCAL, role, str(tmp_path / role))
    for name, mask in (("chain", "run-*[0-9]"), ("after", "*.cut.digest")):
        path = tmp_path / f"{name}.cwl"
        hint = f'{{mask: "{mask}", derived: {str(name == "after").lower()}}}'
        text = text.replace('{mask: "bench-*[0-9]"}', hint)
        path.write_text(text)
        text = CHAIN.read_text().replace("  cut:", "  last:").replace("cut/digest", "last/digest")
        info, _ = template_files.create(catalog, path)
        with catalog.write() as session:
            templates.activate(session, info.id)
    (tmp_path / "third.cwl").write_text(
        text.replace("last", "end").replace(
            '{mask: "bench-*[0-9]"}', '{mask: "*.last.digest", derived: true}'
        )
    )
    info, _ = template_files.create(catalog, tmp_path / "third.cwl")
    with catalog.write() as session:
        templates.activate(session, info.id)
        datasets.create(session, "run-1")
    return Site(catalog)


@pytest.fixture
def chained(site: Site) -> tuple[int, int, int]:
    """Three workflows, each of which follows what the one before makes."""
    return site.submit("chain", "run-1"), site.submit("after", MADE), site.submit("third", AFTER)


def test_a_cancel_leaves_what_is_open_as_incomplete_and_names_all_who_wait(
    site: Site, chained: tuple[int, int, int]
) -> None:
    first, second, third = chained
    assert site.told() == [] and site.waits(second) == ""
    site.cancel(first)
    assert site.dataset(MADE).incomplete == (
        f"workflow {first}, which makes it, was cancelled: the wrong run"
    )
    assert site.dataset(AFTER).incomplete is None, "its own workflow goes on"
    with site.catalog.read() as session:
        left = stranded.of_workflow(session, first)
    assert {one.dataset for one in left.datasets} == {
        f"run-1.chain.v1.{port}" for port in ("md5sum.line", "md5sum.log", "cut.digest", "cut.log")
    }
    assert [reader.id for reader in left.readers] == [second, third]
    assert f"cancel {second} {third}` ends" in stranded.ways_on(left)
    assert "dataset close run-1.chain.v1.md5sum.line " in stranded.ways_on(left)


def test_who_waits_is_told_the_cause_at_any_distance(
    site: Site, chained: tuple[int, int, int]
) -> None:
    first, second, third = chained
    site.cancel(first)
    cause = f"workflow {first} (chain · run-1), which makes it, is CANCELLED: the wrong run"
    assert f"its input {MADE} stays OPEN: {cause}" in site.waits(second)
    assert f"`spdf workflow cancel {second}`" in site.waits(second)
    assert f"workflow {second} (after · {MADE}) makes it, and waits" in site.waits(third)
    assert cause in site.waits(third) and f"`spdf dataset close {MADE}`" in site.waits(third)
    assert cause in site.why(AFTER), "also that of what they make"
    assert f"2 workflows waiting for it: {second} (after" in site.why(MADE)
    (line,) = site.told()
    assert cause in line and f"`spdf workflow cancel {second} {third}` ends who waits" in line
    site.close(MADE)
    assert site.told() == [] and site.waits(third) == ""


def test_what_is_closed_so_is_incomplete_and_so_is_all_that_is_made_of_it(
    site: Site, chained: tuple[int, int, int]
) -> None:
    first, second, third = chained
    site.fill(MADE, "a")
    site.cancel(first)
    closed = site.close(MADE)
    assert closed.state is CLOSED and closed.file_count == 1
    assert closed.incomplete is not None and "the wrong run" in closed.incomplete
    with site.catalog.write() as session:
        session.execute(sa.delete(DatasetFile))
    for workflow in (second, third):
        assert site.finish(workflow) is WorkflowState.FINISHED
    assert site.dataset(AFTER).incomplete == (f"the input of its workflow, {MADE}, is incomplete")
    last = site.dataset(f"{AFTER}.third.v1.end.digest")
    assert last.incomplete == f"the input of its workflow, {AFTER}, is incomplete"


def test_the_manifest_of_an_incomplete_dataset_is_another_one(site: Site) -> None:
    names = {}
    for name in ("run-1", "run-2"):
        with site.catalog.write() as session:
            made = datasets.by_name(session, name) if name == "run-1" else None
            dataset = made.id if made else datasets.create(session, name)
            if name == "run-2":
                sources.hold(session, dataset, "daq", expects=1)
            names[name] = datasets.close(session, dataset)
    assert names["run-2"].incomplete == "closed with 0 files: sender daq announced 1 file"
    assert names["run-1"].digest != names["run-2"].digest
    with site.catalog.read() as session:
        for info in names.values():
            assert manifests.content(session, info.id).digest == info.digest, "as verify reads it"


def test_outputs_of_stages_that_ended_well_are_whole(site: Site) -> None:
    workflow = site.submit("chain", "run-1")
    site.fail(workflow, but=["md5sum"])
    with site.catalog.write() as session:
        whole = datasets.by_name(session, "run-1.chain.v1.md5sum.line")
        session.execute(
            sa.update(Dataset)
            .where(col(Dataset.id) == whole.id)
            .values(state=CLOSED, incomplete=None)
        )
    site.cancel(workflow)
    assert site.dataset("run-1.chain.v1.md5sum.line").incomplete is None
    assert "was cancelled" in str(site.dataset(MADE).incomplete)


def test_what_an_earlier_program_has_left_without_a_word_is_incomplete_too(site: Site) -> None:
    workflow = site.submit("chain", "run-1")
    site.cancel(workflow)
    with site.catalog.write() as session:
        session.execute(sa.update(Dataset).values(incomplete=None))
    assert "(cut), which makes it, is CANCELLED" in str(site.close(MADE).incomplete)


def test_a_retry_goes_on_with_what_a_failed_workflow_left(site: Site) -> None:
    first = site.submit("chain", "run-1")
    second = site.submit("after", MADE)
    site.fail(first)
    assert "is FAILED: it went wrong" in str(site.dataset(MADE).incomplete)
    assert f"`spdf workflow retry {first}` goes on with it" in site.waits(second)
    with site.catalog.write() as session:
        workflows.retry(session, first)
    assert site.dataset(MADE).incomplete is None
    assert site.waits(second) == ""


@pytest.mark.parametrize("deleted", [False, True])
def test_what_was_closed_or_deleted_can_not_be_gone_on_with(site: Site, deleted: bool) -> None:
    workflow = site.submit("chain", "run-1")
    site.fail(workflow)
    if deleted:
        with site.catalog.write() as session:
            stranded.discard(session, workflow, "a test", 0.0)
    else:
        site.close(MADE)
    with pytest.raises(Conflict, match="takes no more files"), site.catalog.write() as session:
        workflows.retry(session, workflow)
    with site.catalog.read() as session:
        assert workflows.get(session, workflow).state is WorkflowState.FAILED


def test_what_a_workflow_still_makes_only_it_closes(site: Site) -> None:
    workflow = site.submit("chain", "run-1")
    with pytest.raises(Conflict, match=f"workflow {workflow}, which is DEFINED"):
        site.close(MADE)
    site.finish(workflow)
    with pytest.raises(Conflict, match="`spdf workflow cancel"):
        site.close(MADE)


def test_no_automatic_template_takes_what_is_incomplete_and_why_says_so(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = site.catalog
    with catalog.write() as session:
        session.execute(sa.update(templates.Template).values(auto=True))
    site.cancel(site.submit("chain", "run-1"))
    failed = site.submit("chain", "run-1")
    site.fail(failed)
    site.close(MADE)
    generator = Generator(catalog, lambda _session: None)
    monkeypatch.setattr(generator, "_start", lambda _begun: None)

    def taken() -> list[str]:
        generator.turn()
        with catalog.read() as session:
            return [w.dataset for w in workflows.list_workflows(session) if w.template == "after"]

    assert taken() == []
    for name in (MADE, MADE.replace(".v1", ".v1.r2")):
        assert "so template after@1 doesn't take it by itself" in site.why(name)
        assert f"`spdf workflow submit after {name}` does" in site.why(name)
    with catalog.write() as session:
        assert list(following.lost(session)) == []
        workflows.retry(session, failed)
    assert taken() == [MADE.replace(".v1", ".v1.r2")], "it is made to its end after all"


def rule(catalog: Catalog, name: str, place: str = "input") -> Rule:
    with catalog.write() as session:
        return intakerules.add(
            session,
            Rule(name, place, r"(?P<run>[^/]+)/.*", "{run}", end_pattern=r"(?P<run>.+)/END"),
        )


def test_a_removed_rule_says_what_it_leaves_and_who_waits(site: Site) -> None:
    catalog = site.catalog
    made = rule(catalog, "daq")
    workflow = site.submit("chain", "run-1")
    assert site.more_may_come(workflow)
    with catalog.write() as session:
        sources.join(session, made, [site.dataset("run-1").id])
        intakerules.remove(session, "daq")
        left = stranded.of_rule(session, made.id)
    assert left.open == ("run-1",) and [reader.id for reader in left.readers] == [workflow]
    cause = "intake rule daq, which fills it, was removed"
    assert cause in site.waits(workflow) and "`spdf intake add daq …`" in site.waits(workflow)
    assert cause in site.told()[0]
    assert "1 workflow waiting for it" in site.why("run-1")
    assert not site.more_may_come(workflow), "its pilots may go"
    assert site.dataset("run-1").incomplete is None, "another rule may go on"
    closed = site.close("run-1")
    assert closed.incomplete == (
        "closed with 0 files: intake rule daq, which filled it, was removed before it had ended"
    )


def test_a_person_may_say_that_nothing_is_missing(site: Site) -> None:
    made = rule(site.catalog, "daq")
    with site.catalog.write() as session:
        sources.join(session, made, [site.dataset("run-1").id])
        intakerules.remove(session, "daq")
    assert any("removed intake rules have left OPEN: run-1" in line for line in site.told())
    assert site.close("run-1", is_whole=True).incomplete is None


def test_pilots_stay_while_another_rule_still_fills_the_input(site: Site) -> None:
    catalog = site.catalog
    workflow = site.submit("chain", "run-1")
    for name in ("one", "two"):
        made = rule(catalog, name)
    with catalog.write() as session:
        sources.join(session, made, [site.dataset("run-1").id])
        intakerules.remove(session, "one")
    assert site.more_may_come(workflow)
    assert "intake rule one" in site.waits(workflow), "it can't be closed by itself, though"


def test_pilots_of_who_waits_in_vain_are_not_kept(site: Site, tmp_path: Path) -> None:
    first, second = site.submit("chain", "run-1"), site.submit("after", MADE)
    assert site.more_may_come(second) and site.more_may_come(second, stage=1)
    site.cancel(first)
    assert not site.more_may_come(second)
    assert not site.more_may_come(second, stage=1), "the stage before has no job, and gets none"

    class Asking(Dispatcher):
        asked = 0

        def _submit(self, stage: object) -> None:
            self.asked += 1

    with site.catalog.write() as session:
        epoch = ownership.claim(session, second, "me", 60.0, None)
        tasks.begin(session, [tasks.of_workflow(session, second)[0].id])
    assert epoch is not None
    settings = Settings(_env_file=None, home=tmp_path, slots=2, max_pilots=1)
    dispatcher = Asking(load(site.catalog, second, epoch, 60.0), settings, None, "x")  # type: ignore[arg-type]
    dispatcher._looking = Share(0.0, float("inf"))
    dispatcher.dispatch()
    assert dispatcher.asked == 0, "none ahead, for a stage that gets nothing"


def test_a_discard_deletes_what_stays_and_can_be_taken_back(site: Site) -> None:
    first, second = site.submit("chain", "run-1"), site.submit("after", MADE)
    site.cancel(first)
    read = pytest.raises(Conflict, match=f"input of workflow {second}")
    with read, site.catalog.write() as session:
        stranded.discard(session, first, "a test", 60.0)
    assert site.dataset(MADE).state is OPEN, "all or none"
    site.cancel(second)
    with site.catalog.write() as session:
        assert len(stranded.discard(session, first, "a test", 60.0)) == 4
        assert stranded.of_workflow(session, first).datasets == ()
        back = grace.undelete(session, site.dataset(MADE).id)
    assert back.state is OPEN and back.incomplete is not None


def test_the_lineage_of_what_an_incomplete_dataset_gave_says_so(
    site: Site, add_files: Callable[[int, Sequence[str]], list[int]]
) -> None:
    with site.catalog.write() as session:
        sources.hold(session, site.dataset("run-1").id, "daq", expects=9)
    (raw,) = add_files(site.dataset("run-1").id, ["a"])
    with site.catalog.write() as session:
        assert lineage(session, raw).incomplete == ()
    lacks = str(site.close("run-1").incomplete)
    first = site.submit("chain", "run-1")
    (made,) = site.fill(MADE, "a")
    with site.catalog.read() as session:
        assert incomplete.of_lineage(session, [raw], [first]) == [
            incomplete.Lacking("run-1", lacks)
        ]
    site.cancel(first)
    with site.catalog.read() as session:
        assert [one.dataset for one in lineage(session, made).incomplete] == [MADE]


def test_a_close_and_a_retry_at_once_don_t_both_happen(site: Site, backend: str) -> None:
    """Ours holds the workflow's row, so that the retry waits, and finds its output closed."""
    if backend != "postgresql":
        pytest.skip("writers of SQLite wait for each other in any case")
    workflow = site.submit("chain", "run-1")
    site.fail(workflow)
    ends: list[str] = []

    def retry() -> None:
        try:
            with site.catalog.write() as session:
                workflows.retry(session, workflow)
            ends.append("retried")
        except Conflict as error:
            ends.append(str(error))

    thread = threading.Thread(target=retry)
    with site.catalog.write() as session:
        info = datasets.by_name(session, MADE)
        incomplete.check_closable(session, info.id)
        thread.start()
        until(lambda: _waits(site.catalog), "the retry waits for it", 20)
        datasets.close(session, info.id)
    thread.join(20)
    assert len(ends) == 1 and "takes no more files" in ends[0]


def _waits(catalog: Catalog) -> bool:
    with catalog.read() as session:
        query = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(session.execute(query).scalar())
