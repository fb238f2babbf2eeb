"""Guarded transitions: every pair of the table, through the one function that moves."""

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import Session, SQLModel

from catalog import events
from catalog.db import Catalog
from catalog.errors import Conflict, StateConflict
from catalog.models import (
    Attempt,
    Dataset,
    Finding,
    FindingKind,
    Inspection,
    Job,
    Node,
    Pilot,
    Replica,
    Request,
    Storage,
    Task,
    Template,
    Upload,
    Workflow,
)
from catalog.states import ALLOWED, DatasetState, TemplateState, is_final, sources
from catalog.transitions import change, move, move_one, record_change

MODELS: list[type[SQLModel]] = [
    Template, Dataset, Replica, Workflow, Task, Job, Attempt, Pilot, Node, Request,
    Upload, Inspection, Finding,
]  # fmt: skip


@pytest.fixture
def row_ids(catalog: Catalog, chain: Any) -> dict[type[SQLModel], int]:
    """A row of every model that has states."""
    with catalog.write() as session:
        task = session.execute(sa.select(Task.id)).scalars().first()
        pilot = Pilot(task_id=task, pool="cpu", node="n", pid=1, slots=1)
        node = Node(name="n", pool="cpu", pid=1, slots=1, memory_mib=1, devices=[], program="0")
        dataset = session.execute(sa.select(Dataset.id)).scalars().first()
        storage = session.execute(sa.select(Storage.id)).scalars().first()
        upload = Upload(dataset_id=dataset, storage_id=storage, files=0, size_bytes=0)
        inspection = Inspection(storage_id=storage, sample_percent=1.0)
        session.add(inspection)
        session.flush()
        finding = Finding(
            inspection_id=inspection.id, storage_id=storage, kind=FindingKind.DARK, path="x",
            size_bytes=0, message="",
        )  # fmt: skip
        session.add_all([pilot, node, upload, finding, Request(kind="k", key="k", payload={})])
        session.flush()
        session.add(Attempt(job_id=chain.merge_job, number=1, pilot_id=pilot.id))
        session.flush()
        return {
            model: session.execute(sa.select(model.id)).scalars().first()  # type: ignore
            for model in MODELS
        }


def _state_of(session: Session, model: Any, row_id: int) -> StrEnum:
    return session.execute(sa.select(model.state).where(model.id == row_id)).scalar_one()


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__tablename__)
def test_move_follows_the_table(
    catalog: Catalog, row_ids: dict[type[SQLModel], int], model: Any
) -> None:
    row_id = row_ids[model]
    with catalog.write() as session:
        states = type(_state_of(session, model, row_id))
        for before in states:
            for after in states:
                session.execute(sa.update(model).values(state=before))
                moved = move(session, model, [row_id], after)
                allowed = after in ALLOWED[states].get(before, frozenset())
                assert moved == ([row_id] if allowed else []), (before, after)
                expected = after if allowed else before
                assert _state_of(session, model, row_id) is expected, (before, after)


def test_every_state_machine_is_tested() -> None:
    tables: list[Any] = [*MODELS]
    states = {model.__table__.c.state.type.enum_class for model in tables}
    assert states == set(ALLOWED)


@pytest.mark.parametrize("states", ALLOWED, ids=lambda states: states.__name__)
def test_no_state_leads_to_itself_and_each_is_reachable(states: type[StrEnum]) -> None:
    first = next(iter(states))
    for state in states:
        assert state not in sources(state)
        assert state is first or sources(state)


FINALS = {
    "WorkflowState": "FINISHED FAILED CANCELLED",
    "TaskState": "FINISHED FAILED CANCELLED",
    "JobState": "FINISHED FAILED SKIPPED CANCELLED",
    "AttemptState": "FINISHED FAILED LOST CANCELLED",
    "PilotState": "DONE LOST",
    "DatasetState": "DELETED",
    "ReplicaState": "DELETED",
    "TemplateState": "ARCHIVED",
    "NodeState": "",
    "RequestState": "DONE",
    "UploadState": "DONE FAILED CANCELLED",
    "InspectionState": "DONE FAILED",
    "FindingState": "RECOVERED REMOVED CLEARED",
}


@pytest.mark.parametrize("states", ALLOWED, ids=lambda states: states.__name__)
def test_work_has_ended_in_these_states_and_in_no_others(states: type[StrEnum]) -> None:
    assert [state for state in states if is_final(state)] == FINALS[states.__name__].split()


def test_what_is_no_change_of_a_state_is_an_event_of_its_entity_alone(catalog: Catalog) -> None:
    with catalog.write() as session:
        record_change(session, Dataset, 7, "HELD", "by a person")
    with catalog.read() as session:
        (event,) = events.history(session, "dataset", 7)
        assert (event.before, event.after, event.message) == (None, "HELD", "by a person")
        assert events.history(session, "dataset", 8) == []


def test_one_change_says_why_in_its_event(catalog: Catalog) -> None:
    with catalog.write() as session:
        session.add(Dataset(name="d"))
        session.flush()
        dataset = session.execute(sa.select(Dataset.id)).scalar_one()
        move_one(session, Dataset, dataset, DatasetState.CLOSED, name="d", message="all there")
    with catalog.read() as session:
        (event,) = events.history(session, "dataset", dataset)
        assert event.message == "all there"


def test_move_one_names_entity_state_and_reason(catalog: Catalog) -> None:
    with catalog.write() as session:
        session.add(Dataset(name="d", state=DatasetState.CLOSED))
        session.flush()
        dataset = session.execute(sa.select(Dataset.id)).scalar_one()
    with (
        pytest.raises(StateConflict, match="dataset 'd' is CLOSED and can't become OPEN: because"),
        catalog.write() as session,
    ):
        move_one(session, Dataset, dataset, DatasetState.OPEN, name="d", why="because")


def test_move_appends_an_event_per_change_and_none_for_what_stays(catalog: Catalog) -> None:
    with catalog.write() as session:
        session.add_all([Dataset(name="a"), Dataset(name="b", state=DatasetState.DELETED)])
        session.flush()
        first, second = session.execute(sa.select(Dataset.id).order_by(Dataset.id)).scalars()
        assert move(session, Dataset, [first, second], DatasetState.CLOSED, message="m") == [first]
    with catalog.read() as session:
        (event,) = events.history(session, "dataset", first)
        assert (event.before, event.after, event.message) == ("OPEN", "CLOSED", "m")
        assert events.history(session, "dataset", second) == []


@pytest.mark.parametrize("believed", [DatasetState.OPEN, DatasetState.DELETED])
def test_a_change_of_what_may_not_go_there_changes_nothing(
    catalog: Catalog, believed: DatasetState
) -> None:
    """What the caller believes of the second is out of date, or can't be left at all."""
    with catalog.write() as session:
        session.add_all([Dataset(name="a"), Dataset(name="b", state=DatasetState.DELETED)])
        session.flush()
        first, second = session.execute(sa.select(Dataset.id).order_by(Dataset.id)).scalars()
    with pytest.raises(Conflict, match="may become CLOSED"), catalog.write() as session:
        change(session, Dataset, {first: DatasetState.OPEN, second: believed}, DatasetState.CLOSED)
    with catalog.read() as session:
        assert events.history(session, "dataset", first) == []
        states = session.execute(sa.select(Dataset.state).order_by(Dataset.id)).scalars()
        assert list(states) == [DatasetState.OPEN, DatasetState.DELETED]


def test_only_from_narrows_the_table(catalog: Catalog) -> None:
    with catalog.write() as session:
        row = Template(name="t", version=1, mask="*", document={}, plan={}, digest="d")
        session.add(row)
        session.flush()
        only = [TemplateState.ACTUAL]
        assert move(session, Template, [row.id], TemplateState.ARCHIVED, only_from=only) == []


def test_move_rolls_back_with_its_event(catalog: Catalog) -> None:
    with catalog.write() as session:
        session.add(Dataset(name="d"))
        session.flush()
        dataset = session.execute(sa.select(Dataset.id)).scalar_one()

    def fail(step: Callable[[], object]) -> None:
        step()
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError), catalog.write() as session:
        fail(lambda: move(session, Dataset, [dataset], DatasetState.CLOSED))
    with catalog.read() as session:
        assert _state_of(session, Dataset, dataset) is DatasetState.OPEN
        assert events.history(session, "dataset", dataset) == []
