"""What is to be done with a dataset before it goes by itself: what holds it, and for how long."""

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col

from catalog import (
    causes,
    clock,
    datasets,
    deletion,
    events,
    files,
    intakerules,
    lifecycle,
    lifetimes,
    prospect,
    shedding,
    storages,
    templates,
    uploads,
    usage,
    workflows,
)
from catalog.datasets import Member
from catalog.db import Catalog
from catalog.errors import BadInput, Conflict, NotFound
from catalog.filling import fills
from catalog.lifetimes import Sum
from catalog.models import (
    Dataset,
    Duty,
    Job,
    JobInput,
    JobOutput,
    StorageKind,
    StorageRole,
    Task,
    Template,
    Upload,
    Workflow,
)
from catalog.problems import problems
from catalog.refs import Originals, Retention, Untaken
from catalog.settings import get_settings
from catalog.states import (
    DatasetState,
    JobState,
    TaskState,
    TemplateState,
    UploadState,
    WorkflowState,
)
from catalog.storages import StorageInfo
from flows import templates as template_files
from flows.intake.generator import Generator
from tests.acceptance.machine import until
from tests.unit.test_sources import waiting
from tests.unit.watched import END, Buffer

CLOSED, DELETING = DatasetState.CLOSED, DatasetState.DELETING
FAILED, FINISHED, CANCELLED = WorkflowState.FAILED, WorkflowState.FINISHED, WorkflowState.CANCELLED
RUNNING = WorkflowState.IN_PROGRESS
CHAIN = Path(__file__).resolve().parents[2] / "examples" / "twostage" / "chain.cwl"
LIFETIME_S = 3600.0
KEPT_S = 7 * 86400.0


@pytest.fixture
def buffer(catalog: Catalog, storage: StorageInfo) -> Buffer:
    return Buffer(catalog, storage)


def follow(buffer: Buffer, unmatched: Untaken | None = Untaken.KEEP, **more: Any) -> None:
    buffer.follow(end_pattern=END, lifetime_s=LIFETIME_S, unmatched=unmatched, **more)


def arrive(buffer: Buffer, run: str = "run-1") -> int:
    """A run of two files arrives and is closed; gives its dataset."""
    buffer.arrive(f"{run}/a.raw", f"{run}/b.raw", f"{run}/END")
    buffer.look(4)
    assert buffer.state(run) is CLOSED
    with buffer.catalog.read() as session:
        return datasets.by_name(session, run).id


def template(catalog: Catalog, name: str = "reco", *, auto: bool = True, version: int = 1) -> int:
    """An ACTUAL template for runs, which begins by itself where it is `auto`."""
    with catalog.write() as session:
        row = Template(
            name=name, version=version, state=TemplateState.ACTUAL, mask="run*", document={},
            plan={}, digest=f"{name}{version}", auto=auto, precedence=0,
        )  # fmt: skip
        session.add(row)
        session.flush()
        session.execute(sa.update(Template).values(activated_at=clock.now(-1)))
        return row.id


def workflow(
    catalog: Catalog, template_id: int, dataset_id: int, state: WorkflowState = FAILED,
    **more: Any,
) -> int:  # fmt: skip
    """A workflow of one stage over a dataset, in that state as of now."""
    with catalog.write() as session:
        digest = str(session.scalar(sa.select(sa.func.count(col(Workflow.id)))))
        row = Workflow(
            template_id=template_id, dataset_id=dataset_id, inputs={}, inputs_digest=digest,
            number=int(digest) + 1, state=state, **more,
        )  # fmt: skip
        session.add(row)
        session.flush()
        task_state = TaskState(state.value)
        session.add(Task(workflow_id=row.id, stage="s", ordinal=0, pool="cpu", state=task_state))
    end(catalog, row.id, state)
    return row.id


def end(catalog: Catalog, workflow_id: int, state: WorkflowState) -> None:
    """Put a workflow in a state as of now."""
    over = state in (FAILED, FINISHED, CANCELLED)
    with catalog.write() as session:
        session.execute(
            sa.update(Workflow)
            .where(col(Workflow.id) == workflow_id)
            .values(state=state, ended_at=clock.now() if over else None)
        )


def housework(catalog: Catalog, at_s: float | None = None) -> list[str]:
    """What lifetimes mark, at a time from now."""
    if at_s is not None:
        clock.shift_clock(at_s)
    with catalog.write() as session:
        return deletion.expire(session)


def overdue(catalog: Catalog) -> list[str]:
    with catalog.read() as session:
        return [one.name for one in lifetimes.overdue(session)]


def why(catalog: Catalog, name: str = "run-1") -> str:
    with catalog.read() as session:
        found = causes.why_name(session, name)
    return "\n".join(f"{cause.fact} → {cause.next}" for cause in found)


def told(catalog: Catalog) -> str:
    with catalog.read() as session:
        return "\n".join(p.message for p in problems(session) if p.source == "lifetimes")


def release(catalog: Catalog, name: str = "run-1") -> bool:
    with catalog.write() as session:
        return lifetimes.release(session, datasets.by_name(session, name).id, "by a test")


def send(catalog: Catalog, dataset_id: int, state: UploadState, place: str = "tape") -> int:
    """An upload that came to that state."""
    with catalog.write() as session:
        if (known := {s.name: s.id for s in storages.list_all(session)}).get(place) is None:
            made = storages.add(session, place, StorageKind.LOCAL, StorageRole.OUTPUT, f"/{place}")
            known[place] = made.id
        upload = uploads.ask(session, dataset_id, known[place])
        ended = clock.now() if state in (UploadState.DONE, UploadState.FAILED) else None
        session.execute(
            sa.update(Upload)
            .where(col(Upload.id) == upload)
            .values(state=state, reason="no room", ended_at=ended)
        )
    return upload


# Raw data whose lifetime ends before anything was done with it.


def nothing_took_it(buffer: Buffer) -> str:
    follow(buffer)
    arrive(buffer)
    return "no template took it and nobody processed it, and its intake rule keeps such"


def its_workflow_failed(buffer: Buffer) -> str:
    follow(buffer)
    reco = template(buffer.catalog)
    workflow(buffer.catalog, reco, arrive(buffer))
    return "workflow 1 (reco@1) over it is FAILED → `spdf workflow retry 1` tries again"


def its_template_can_not_begin(buffer: Buffer) -> str:
    follow(buffer, Untaken.EXPIRE)
    template(buffer.catalog)
    arrive(buffer)
    return "template reco takes it by itself, and no workflow of it has begun"


def its_upload_failed(buffer: Buffer) -> str:
    follow(buffer, Untaken.EXPIRE)
    send(buffer.catalog, arrive(buffer), UploadState.FAILED)
    return "its upload to tape is FAILED → `spdf dataset upload run-1 --to tape` goes on"


def its_rule_waits_for_a_template(buffer: Buffer) -> str:
    template(buffer.catalog, "qa", auto=False)
    follow(buffer, Untaken.EXPIRE, until=("qa",))
    arrive(buffer)
    return "template qa is awaited by intake rule daq, and no workflow of it has begun"


def nobody_has_decided(buffer: Buffer) -> str:
    follow(buffer)
    with buffer.catalog.write() as session:
        session.execute(sa.text("UPDATE intake_rule SET unmatched = NULL"))
    workflow(buffer.catalog, template(buffer.catalog), arrive(buffer), FINISHED)
    return "intake rule daq doesn't say what becomes of datasets that nothing took"


@pytest.mark.parametrize(
    "shape",
    [
        nothing_took_it,
        its_workflow_failed,
        its_template_can_not_begin,
        its_upload_failed,
        its_rule_waits_for_a_template,
        nobody_has_decided,
    ],
)
def test_raw_data_that_is_not_done_with_stays_and_is_told(
    buffer: Buffer, shape: Callable[[Buffer], str]
) -> None:
    expected = shape(buffer)
    catalog = buffer.catalog
    assert housework(catalog, LIFETIME_S - 60) == [] and overdue(catalog) == []
    assert housework(catalog, 100 * LIFETIME_S) == []
    assert buffer.state("run-1") is CLOSED and buffer.path("run-1/a.raw").exists()
    assert expected in why(catalog) and "`spdf dataset release run-1`" in why(catalog)
    assert overdue(catalog) == ["run-1"]
    bytes_of_two = 2 * len("run-1/a.raw")
    with catalog.read() as session:
        assert lifetimes.sums(session) == [Sum("daq", buffer.storage.id, 1, bytes_of_two)]
        (fill,) = [one for one in fills(catalog) if one.storage == buffer.storage.name]
        assert fill.overdue_bytes == bytes_of_two
        referrers = prospect.prospect(session, datasets.by_name(session, "run-1").id).referrers
    assert "not done with it" in [one.kind for one in referrers]
    assert f"overdue of intake rule daq: 1 dataset, {bytes_of_two} bytes" in told(catalog)
    assert release(catalog) and not release(catalog), "once is enough"
    assert housework(catalog) == ["run-1"], "an operator has said so"
    assert overdue(catalog) == [] and told(catalog).count("overdue") == 0
    with catalog.read() as session:
        about = datasets.by_name(session, "run-1").id
        said = [(e.after, e.message) for e in events.history(session, "dataset", about)]
    assert ("RELEASED", "by a test") in said


def test_files_go_once_they_were_processed_after_all(buffer: Buffer) -> None:
    follow(buffer)
    reco = template(buffer.catalog)
    run = arrive(buffer)
    failed = workflow(buffer.catalog, reco, run)
    assert housework(buffer.catalog, 100 * LIFETIME_S) == []
    with buffer.catalog.write() as session:
        workflows.retry(session, failed)
    assert housework(buffer.catalog) == []
    end(buffer.catalog, failed, FINISHED)
    assert housework(buffer.catalog) == [] and overdue(buffer.catalog) == []
    assert housework(buffer.catalog, 101 * LIFETIME_S - 60) == [], "its lifetime begins then"
    assert housework(buffer.catalog, 101 * LIFETIME_S + 60) == ["run-1"]
    deletion.remove(buffer.catalog, run)
    assert not buffer.path("run-1/a.raw").exists(), "the rule's lifetime takes the originals"


@pytest.mark.parametrize("state", [FINISHED, CANCELLED])
def test_a_lifetime_begins_at_the_end_of_what_was_to_be_done(
    buffer: Buffer, state: WorkflowState
) -> None:
    follow(buffer)
    reco = template(buffer.catalog)
    made = workflow(buffer.catalog, reco, arrive(buffer), RUNNING)
    assert housework(buffer.catalog) == [] and "begins when all is done" in why(buffer.catalog)
    clock.shift_clock(1000)
    end(buffer.catalog, made, state)
    housework(buffer.catalog, 2000)
    with buffer.catalog.read() as session:
        info = datasets.by_name(session, "run-1")
        ended = workflows.get(session, made).ended_at
    assert info.expires_at is not None and ended is not None
    assert info.expires_at == ended + timedelta(seconds=LIFETIME_S)
    assert housework(buffer.catalog, 1000 + LIFETIME_S + 5) == ["run-1"]


def test_another_version_does_and_one_that_was_cancelled_beside_one_that_failed_does_not(
    buffer: Buffer,
) -> None:
    follow(buffer)
    first, second = template(buffer.catalog), template(buffer.catalog, version=2)
    run = arrive(buffer)
    workflow(buffer.catalog, first, run)
    workflow(buffer.catalog, second, run, CANCELLED)
    assert housework(buffer.catalog, 2 * LIFETIME_S) == []
    workflow(buffer.catalog, second, run, FINISHED)
    housework(buffer.catalog)
    assert housework(buffer.catalog, 4 * LIFETIME_S) == ["run-1"]


@pytest.mark.parametrize("unmatched", Untaken)
def test_what_nothing_took_goes_where_the_rule_says_so(buffer: Buffer, unmatched: Untaken) -> None:
    follow(buffer, unmatched)
    run = arrive(buffer)
    gone = housework(buffer.catalog, LIFETIME_S + 1)
    assert gone == (["run-1"] if unmatched is Untaken.EXPIRE else [])
    if gone:
        return
    # By hand counts, too.
    workflow(buffer.catalog, template(buffer.catalog, auto=False), run, FINISHED)
    assert housework(buffer.catalog) == []
    assert housework(buffer.catalog, 3 * LIFETIME_S) == ["run-1"]


def test_what_another_rule_that_fills_it_keeps_stays(buffer: Buffer) -> None:
    follow(buffer, Untaken.EXPIRE)
    follow_too = {"name": "calib", "pattern": r"(?P<run>run-\d+)/.*\.cal"}
    follow(buffer, Untaken.KEEP, **follow_too)
    buffer.arrive("run-1/x.cal")
    arrive(buffer)
    assert housework(buffer.catalog, 2 * LIFETIME_S) == []


def test_the_one_that_takes_it_while_it_is_open_is_written_down(
    catalog: Catalog, buffer: Buffer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the real generator; a workflow that a person begins over it is nobody's duty."""
    with catalog.write() as session:
        for role in (StorageRole.INTERNAL, StorageRole.OUTPUT):
            storages.add(session, role, StorageKind.LOCAL, role, str(tmp_path / role))
    for name, auto in (("reco", True), ("mine", False)):
        info, _ = template_files.create(catalog, CHAIN, name=name, mask="run-*[0-9]", auto=auto)
        with catalog.write() as session:
            templates.activate(session, info.id)
    follow(buffer)
    buffer.arrive("run-1/a.raw")
    buffer.look(2)
    generator = Generator(catalog, lambda _session: None)
    monkeypatch.setattr(generator, "_start", lambda _begun: None)
    generator.turn()
    with catalog.write() as session:
        session.execute(sa.text("UPDATE template SET auto = false"))
    buffer.arrive("run-1/b.raw", "run-1/END")
    buffer.look(3)
    with catalog.read() as session:
        assert list(session.scalars(sa.select(col(Duty.template)))) == ["reco"]
        (made,) = workflows.list_workflows(session)
    end(catalog, made.id, FAILED)
    assert housework(catalog, 100 * LIFETIME_S + KEPT_S) == []
    assert overdue(catalog) == ["run-1"]


# Within a goal.


def job(
    catalog: Catalog, task_id: int, key: str, state: JobState, reads: int, makes: int | None = None
) -> None:
    with catalog.write() as session:
        row = Job(task_id=task_id, key=key, ordinal=0, state=state)
        session.add(row)
        session.flush()
        session.add(JobInput(job_id=row.id, port="i", position=0, file_id=reads, task_id=task_id))
        if makes is not None:
            session.add(JobOutput(job_id=row.id, port="o", position=0, file_id=makes))


def partly(catalog: Catalog, made: int, *, failed: int = 1) -> int:
    """Say of a workflow that it is FINISHED within its goal; gives its task."""
    with catalog.write() as session:
        of_it = col(Task.workflow_id) == made
        counts = {"FINISHED": 1, "FAILED": failed}
        session.execute(sa.update(Task).where(of_it).values(counts=counts))
        return session.scalars(sa.select(col(Task.id)).where(of_it)).one()


@pytest.fixture
def tolerated(buffer: Buffer, new_rows: Callable[..., Any]) -> int:
    """A run of which a workflow did b.raw, and failed on what a stage before had made of a.raw."""
    catalog = buffer.catalog
    follow(buffer)
    reco = template(catalog)
    run = arrive(buffer)
    made = workflow(catalog, reco, run, FINISHED)
    last = partly(catalog, made)
    with catalog.write() as session:
        (hits,) = files.register(session, buffer.storage.id, new_rows("hits"))
        a, b = (files.find(session, f"raw:run-1/{name}.raw").id for name in "ab")
        first = Task(
            workflow_id=made, stage="first", ordinal=1, pool="cpu", state=TaskState.FINISHED
        )
        session.add(first)
        session.flush()
        decode = first.id
    job(catalog, decode, "a", JobState.FINISHED, a, hits)
    job(catalog, last, "a", JobState.FAILED, hits)
    job(catalog, last, "b", JobState.FINISHED, b)
    return run


def test_what_jobs_failed_on_within_a_goal_stays_when_the_rest_goes(
    buffer: Buffer, tolerated: int
) -> None:
    catalog = buffer.catalog
    assert housework(catalog, LIFETIME_S + 60) == ["run-1"]
    deletion.remove(catalog, tolerated)
    assert buffer.path("run-1/a.raw").exists() and not buffer.path("run-1/b.raw").exists()
    assert buffer.names("run-1.unprocessed") == ["run-1/a.raw"]
    assert overdue(catalog) == ["run-1.unprocessed"]
    told = why(catalog, "run-1.unprocessed")
    assert "jobs of template reco failed on these files of run-1 → `spdf workflow submit" in told
    buffer.look(3)
    with catalog.read() as session:
        assert datasets.by_name(session, "run-1").state is DatasetState.DELETED, "not made anew"
        parted = datasets.by_name(session, "run-1.unprocessed").id
        reco = session.scalars(sa.select(col(Template.id))).one()
        said = [str(e.message) for e in events.history(session, "dataset", tolerated)]
    assert any("1 of its files, on which jobs failed, stay as dataset run-1.un" in m for m in said)
    assert housework(catalog, 50 * LIFETIME_S) == []
    again = workflow(catalog, reco, parted, FINISHED)
    partly(catalog, again, failed=0)
    assert housework(catalog) == []
    assert housework(catalog, 52 * LIFETIME_S) == ["run-1.unprocessed"]
    deletion.remove(catalog, parted)
    assert not buffer.path("run-1/a.raw").exists(), "the rule's lifetime takes this original, too"


def test_what_another_workflow_has_processed_is_not_parted(buffer: Buffer, tolerated: int) -> None:
    with buffer.catalog.read() as session:
        reco = session.scalars(sa.select(col(Template.id))).one()
    workflow(buffer.catalog, reco, tolerated, FINISHED)
    assert housework(buffer.catalog, LIFETIME_S + 60) == ["run-1"]
    with buffer.catalog.read() as session, pytest.raises(NotFound):
        datasets.by_name(session, "run-1.unprocessed")


def test_what_fails_again_is_parted_again_and_what_is_released_is_not(
    buffer: Buffer, tolerated: int
) -> None:
    catalog = buffer.catalog
    assert housework(catalog, LIFETIME_S + 60) == ["run-1"]
    deletion.remove(catalog, tolerated)
    with catalog.read() as session:
        reco = session.scalars(sa.select(col(Template.id))).one()
        parted = datasets.by_name(session, "run-1.unprocessed").id
        a = files.find(session, "raw:run-1/a.raw").id
    again = workflow(catalog, reco, parted, FINISHED)
    job(catalog, partly(catalog, again), "a", JobState.FAILED, a)
    assert housework(catalog, 5 * LIFETIME_S) == ["run-1.unprocessed"]
    deletion.remove(catalog, parted)
    assert buffer.names("run-1.unprocessed.2") == ["run-1/a.raw"]
    assert release(catalog, "run-1.unprocessed.2")
    assert housework(catalog) == ["run-1.unprocessed.2"]
    with catalog.read() as session:
        last = datasets.by_name(session, "run-1.unprocessed.2").id
    deletion.remove(catalog, last)
    assert not buffer.path("run-1/a.raw").exists()


def test_by_hand_within_a_goal_is_not_enough_where_the_rule_keeps(
    buffer: Buffer, tolerated: int
) -> None:
    with buffer.catalog.write() as session:
        session.execute(sa.delete(Duty))
    assert housework(buffer.catalog, LIFETIME_S + 60) == ["run-1"]
    assert buffer.names("run-1.unprocessed") == ["run-1/a.raw"]
    assert "nobody processed it" in why(buffer.catalog, "run-1.unprocessed")
    assert housework(buffer.catalog, 9 * LIFETIME_S) == []


# Users' own workflows, and what they would need for a retry.


def lasting(catalog: Catalog, name: str = "mine") -> int:
    """A person's CLOSED dataset that goes after a while."""
    with catalog.write() as session:
        made = datasets.create(session, name, lifetime_s=LIFETIME_S)
        datasets.close(session, made)
    return made


def test_a_workflow_of_a_user_that_failed_holds_its_input_for_a_set_time(catalog: Catalog) -> None:
    made = workflow(catalog, template(catalog, auto=False), lasting(catalog), RUNNING)
    assert housework(catalog, 2 * LIFETIME_S) == []
    end(catalog, made, FAILED)
    assert housework(catalog) == [] and overdue(catalog) == ["mine"]
    assert "workflow 1 (reco@1), which reads it is FAILED, and may be retried until" in why(
        catalog, "mine"
    )
    assert housework(catalog, KEPT_S) == []
    assert housework(catalog, KEPT_S + 3 * LIFETIME_S) == ["mine"]


def test_one_that_succeeded_later_ends_that(catalog: Catalog) -> None:
    made, reco = lasting(catalog), template(catalog, auto=False)
    workflow(catalog, reco, made)
    workflow(catalog, reco, made, FINISHED)
    assert housework(catalog, 2 * LIFETIME_S) == ["mine"]


def test_no_time_is_a_setting_too(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    workflow(catalog, template(catalog, auto=False), lasting(catalog))
    monkeypatch.setattr(get_settings(), "failed_holds_s", 0.0)
    assert housework(catalog, 2 * LIFETIME_S) == ["mine"]


def test_what_a_failed_workflow_made_and_its_fixed_inputs_stay_for_a_retry(
    catalog: Catalog, storage: StorageInfo, new_rows: Callable[..., Any]
) -> None:
    tables = lasting(catalog, "tables")
    reco, run = template(catalog, auto=False), lasting(catalog, "input")
    with catalog.write() as session:
        (table,) = files.register(session, storage.id, new_rows("gain"))
        session.execute(sa.text("UPDATE dataset SET state = 'OPEN'"))
        datasets.attach(session, tables, [Member(table, "gain")])
        session.execute(sa.text("UPDATE dataset SET state = 'CLOSED'"))
    failed = workflow(catalog, reco, run)
    with catalog.write() as session:
        task = session.scalars(sa.select(col(Task.id))).one()
        hits = Dataset(name="hits", derived=True, task_id=task, port="out")
        session.add(hits)
        session.flush()
        datasets.close(session, hits.id)
        lifecycle.set_lifetime(session, hits.id, LIFETIME_S)
        session.execute(sa.update(Workflow).values(inputs={"gain": {"file_id": table}}))
    assert housework(catalog, 2 * LIFETIME_S) == []
    assert "which makes it is FAILED" in why(catalog, "hits")
    assert "which reads a file of it, too, is FAILED" in why(catalog, "tables")
    end(catalog, failed, CANCELLED)
    assert housework(catalog) == ["tables", "input", "hits"]


def test_an_upload_that_is_given_up_or_done_elsewhere_holds_nothing(catalog: Catalog) -> None:
    made = lasting(catalog)
    send(catalog, made, UploadState.FAILED)
    done = send(catalog, made, UploadState.DONE, "disk")
    assert housework(catalog, 2 * LIFETIME_S) == []
    with catalog.write() as session:
        tape = storages.by_name(session, "tape").id
        info = uploads.order(session, made, tape, cancel=True)
        assert info.state is UploadState.CANCELLED and info.id != done
    assert housework(catalog) == ["mine"], "an hour from when it was done, which is over"


def test_a_later_upload_to_the_same_place_mends_one_that_failed(catalog: Catalog) -> None:
    made = lasting(catalog)
    send(catalog, made, UploadState.FAILED)
    send(catalog, made, UploadState.DONE)
    assert housework(catalog, 3 * LIFETIME_S) == ["mine"]


# What lies between stages.


@pytest.mark.parametrize("retention", [Retention.CONSUMED, Retention.UPLOADED])
def test_what_a_reader_failed_on_within_its_goal_stays(
    catalog: Catalog, retention: Retention
) -> None:
    reco, run = template(catalog, auto=False), lasting(catalog)
    workflow(catalog, reco, run, FINISHED)
    with catalog.write() as session:
        task = session.scalars(sa.select(col(Task.id))).one()
        between = Dataset(
            name="hits", derived=True, task_id=task, port="out", retention=retention, readers=["s"]
        )
        out = Dataset(name="out", derived=True, task_id=task, port="all")
        session.add_all([between, out])
        session.flush()
        for one in (between, out):
            datasets.close(session, one.id)
        session.execute(sa.update(Task).values(counts={"FINISHED": 9, "FAILED": 1}))
        to = out.id
    send(catalog, to, UploadState.DONE)
    with catalog.write() as session:
        assert lifecycle.release(session, 0) == ([], 0)
    assert "1 job failed within a goal, so what they read is unprocessed" in why(catalog, "hits")
    with catalog.write() as session:
        session.execute(sa.update(Task).values(counts={"FINISHED": 10}))
        assert lifecycle.release(session, 0) == (["hits"], 0)


# Shedding.


def press(buffer: Buffer, quota_bytes: int) -> None:
    with buffer.catalog.write() as session:
        usage.set_quota(session, buffer.storage.id, quota_bytes, 99, 50)


def shed(catalog: Catalog) -> list[str]:
    with catalog.write() as session:
        return shedding.shed(session)


def test_above_its_mark_a_rule_sheds_what_is_overdue_oldest_first_and_says_so(
    buffer: Buffer,
) -> None:
    catalog = buffer.catalog
    follow(buffer, shed_percent=60)
    reco = template(catalog)
    runs = [arrive(buffer, f"run-{n}") for n in (3, 1, 2)]
    workflow(catalog, reco, runs[0], RUNNING)
    workflow(catalog, reco, runs[1])
    press(buffer, 110)
    assert shed(catalog) == [], "nothing is overdue"
    clock.shift_clock(2 * LIFETIME_S)
    assert shed(catalog) == ["run-1"], "of 66 bytes 60 %; the first one is being processed"
    assert shed(catalog) == [], "one at a time"
    deletion.remove(catalog, runs[1])
    assert not buffer.path("run-1/a.raw").exists()
    with catalog.read() as session:
        said = [e for e in events.history(session, "dataset", runs[1]) if e.after == "DELETING"]
    assert said[0].message == (
        "shed by intake rule daq, as storage raw is above 60 % of its quota; not done: workflow 2 "
        "(reco@1) over it is FAILED"
    )
    assert shed(catalog) == [], "44 bytes are below"
    press(buffer, 70)
    assert shed(catalog) == ["run-2"]


def test_a_rule_that_does_not_say_so_sheds_nothing(buffer: Buffer) -> None:
    follow(buffer)
    arrive(buffer)
    press(buffer, 1)
    clock.shift_clock(2 * LIFETIME_S)
    assert shed(buffer.catalog) == []


def test_the_alarm_of_an_input_buffer_comes_early_and_names_what_is_overdue(
    buffer: Buffer,
) -> None:
    follow(buffer)
    arrive(buffer)
    press(buffer, 100)
    assert [fill.warning for fill in fills(buffer.catalog)] == [None]
    press(buffer, 40)
    (warning,) = [fill.warning for fill in fills(buffer.catalog)]
    assert warning == (
        "input buffer raw is above its low mark: only who writes there can slow down"
    )
    clock.shift_clock(2 * LIFETIME_S)
    press(buffer, 22)
    with buffer.catalog.write() as session:
        usage.press(session)
    (warning,) = [fill.warning for fill in fills(buffer.catalog)]
    assert str(warning).startswith("input buffer raw is above its high-water mark: only who")
    assert str(warning).endswith("; 22 bytes of it are overdue: `spdf dataset list --overdue`")


# Rules.


def test_a_rule_says_what_becomes_of_what_nothing_took(
    catalog: Catalog, storage: StorageInfo
) -> None:
    rule = intakerules.Rule("daq", storage.name, r"(?P<run>r\d+)", "{run}", lifetime_s=LIFETIME_S)
    decided = intakerules.Rule(**{**vars(rule), "unmatched": Untaken.KEEP})
    with catalog.write() as session:
        with pytest.raises(BadInput, match="--lifetime needs --unmatched"):
            intakerules.add(session, rule)
        with pytest.raises(NotFound, match="reco"):
            intakerules.add(session, intakerules.Rule(**{**vars(decided), "until": ("reco",)}))
        intakerules.add(session, decided)
        # As one that stood before anybody could say so.
        session.execute(sa.text("UPDATE intake_rule SET unmatched = NULL"))
    assert "nobody has said what becomes" in told(catalog)
    with catalog.write() as session:
        before = intakerules.get(session, "daq")
        later = intakerules.Rule(**{**vars(before), "stable_s": 9.0})
        assert intakerules.update(session, later).unmatched is None, "all else may be changed"
        longer = intakerules.Rule(**{**vars(before), "lifetime_s": 2 * LIFETIME_S})
        with pytest.raises(BadInput, match="--lifetime needs --unmatched"):
            intakerules.update(session, longer)
        gone = intakerules.Rule(**{**vars(before), "lifetime_s": None})
        assert intakerules.update(session, gone).unmatched is Untaken.KEEP
        again = intakerules.Rule(**{**vars(decided), "unmatched": Untaken.EXPIRE})
        assert intakerules.update(session, again).unmatched is Untaken.EXPIRE
    assert told(catalog) == ""


def test_of_a_rule_that_was_removed_undecided_what_it_made_stays(buffer: Buffer) -> None:
    follow(buffer)
    arrive(buffer)
    with buffer.catalog.write() as session:
        session.execute(sa.text("UPDATE intake_rule SET unmatched = NULL"))
        intakerules.remove(session, "daq")
    assert housework(buffer.catalog, 2 * LIFETIME_S) == []
    assert "`spdf intake update" not in why(buffer.catalog)
    assert release(buffer.catalog) and housework(buffer.catalog) == ["run-1"]


# Removal against retry.


@pytest.mark.parametrize("state", [DELETING, DatasetState.DELETED])
def test_a_retry_whose_files_are_going_is_refused(catalog: Catalog, state: DatasetState) -> None:
    made = lasting(catalog)
    failed = workflow(catalog, template(catalog, auto=False), made)
    with catalog.write() as session:
        session.execute(sa.update(Dataset).values(state=state))
    told = rf"can't be retried: its input dataset 'mine', is {state}"
    with pytest.raises(Conflict, match=told), catalog.write() as session:
        workflows.retry(session, failed)
    with catalog.read() as session:
        assert workflows.get(session, failed).state is FAILED, "nothing was changed"


def test_a_retry_whose_stages_or_fixed_inputs_are_gone_is_refused(
    catalog: Catalog, storage: StorageInfo, new_rows: Callable[..., Any]
) -> None:
    failed = workflow(catalog, template(catalog, auto=False), lasting(catalog))
    with catalog.write() as session:
        task = session.scalars(sa.select(col(Task.id))).one()
        session.add(Dataset(name="made", derived=True, task_id=task, state=DELETING))
        (table,) = files.register(session, storage.id, new_rows("gain"))
    with pytest.raises(Conflict, match="what it needs, dataset 'made'"), catalog.write() as session:
        workflows.retry(session, failed)
    with catalog.write() as session:
        session.execute(sa.text("UPDATE dataset SET state = 'OPEN' WHERE name = 'made'"))
        session.execute(sa.update(Workflow).values(inputs={"gain": {"file_id": table}}))
        session.execute(sa.text("UPDATE replica SET state = 'DELETING'"))
    with pytest.raises(Conflict, match="no copy that is AVAILABLE"), catalog.write() as session:
        workflows.retry(session, failed)


def obvious_retry(session: Any, failed: int) -> None:
    """As a retry that asks for its input's state, and holds nothing."""
    workflow_row = workflows.get(session, failed)
    if datasets.get(session, workflow_row.dataset_id).state is not CLOSED:
        raise Conflict("its files are going")
    session.execute(sa.update(Workflow).where(col(Workflow.id) == failed).values(state=RUNNING))


@pytest.mark.parametrize("is_ours", [False, True])
def test_a_removal_that_begins_while_a_workflow_is_retried_does_not_take_its_files(
    catalog: Catalog, backend: str, is_ours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The obvious retry, uncommitted, isn't seen by the removal; ours is waited for."""
    if backend != "postgresql":
        pytest.skip("writers of SQLite wait for each other in any case")
    monkeypatch.setattr(get_settings(), "failed_holds_s", 0.0)
    made = lasting(catalog)
    failed = workflow(catalog, template(catalog, auto=False), made)
    clock.shift_clock(2 * LIFETIME_S)
    gone: list[str] = []
    thread = threading.Thread(target=lambda: gone.extend(housework(catalog)))
    with catalog.write() as session:
        if is_ours:
            workflows.retry(session, failed)
        else:
            obvious_retry(session, failed)
        thread.start()
        if is_ours:
            until(lambda: waiting(catalog), "the removal waits for it", 20)
        else:
            thread.join(20)
    thread.join(20)
    with catalog.read() as session:
        state = datasets.get(session, made).state
        assert workflows.get(session, failed).state is RUNNING
    assert (gone, state) == (([], CLOSED) if is_ours else (["mine"], DELETING))


@pytest.mark.parametrize("is_ours", [False, True])
def test_a_retry_that_begins_while_its_files_are_marked_is_refused(
    catalog: Catalog, backend: str, is_ours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend != "postgresql":
        pytest.skip("writers of SQLite wait for each other in any case")
    monkeypatch.setattr(get_settings(), "failed_holds_s", 0.0)
    failed = workflow(catalog, template(catalog, auto=False), lasting(catalog))
    clock.shift_clock(2 * LIFETIME_S)
    refused: list[bool] = []

    def retry() -> None:
        try:
            with catalog.write() as session:
                (workflows.retry if is_ours else obvious_retry)(session, failed)
            refused.append(False)
        except Conflict:
            refused.append(True)

    thread = threading.Thread(target=retry)
    with catalog.write() as session:
        assert deletion.expire(session) == ["mine"]
        thread.start()
        if is_ours:
            until(lambda: waiting(catalog), "the retry waits for it", 20)
        else:
            thread.join(20)
    thread.join(20)
    assert refused == [is_ours]


def test_what_is_marked_by_itself_is_asked_about_again(buffer: Buffer) -> None:
    follow(buffer)
    run = arrive(buffer)
    with pytest.raises(Conflict, match="isn't done with"), buffer.catalog.write() as session:
        deletion.mark_by_itself(session, run, "too early", by=Originals.BY_RULE)
    with buffer.catalog.write() as session:
        assert deletion.mark(session, run, "a person says so")
