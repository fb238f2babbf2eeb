"""Which template a dataset is processed by, and that it is once."""

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from catalog import (
    causes,
    clock,
    datasets,
    deletion,
    matches,
    problems,
    storages,
    templates,
    workflows,
)
from catalog.db import Catalog
from catalog.errors import BadInput, Conflict
from catalog.models import Replica, StorageKind, StorageRole
from catalog.names import MAX_NAME
from catalog.states import ReplicaState
from catalog.templates import TemplateInfo
from flows import templates as template_files
from flows.intake.generator import Generator
from flows.submit import Submission, submit

CHAIN = Path(__file__).resolve().parents[2] / "examples" / "twostage" / "chain.cwl"

Auto = Callable[..., TemplateInfo]


@pytest.fixture
def auto(catalog: Catalog, tmp_path: Path) -> Auto:
    """Makes an ACTUAL template whose workflows begin by themselves."""
    with catalog.write() as session:
        for role in StorageRole:
            storages.add(session, role, StorageKind.LOCAL, role, str(tmp_path / role))

    def made(mask: str, name: str, **more: int) -> TemplateInfo:
        info, _ = template_files.create(catalog, CHAIN, name=name, mask=mask, auto=True, **more)
        with catalog.write() as session:
            return templates.activate(session, info.id)

    return made


@pytest.fixture
def generator(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> Generator:
    """One without a Prefect server: the watchdog would start the runs."""
    made = Generator(catalog, lambda _session: None)
    monkeypatch.setattr(made, "_start", lambda _begun: None)
    return made


def dataset(catalog: Catalog, name: str, *, closed: bool = False) -> int:
    with catalog.write() as session:
        made = datasets.create(session, name)
        if closed:
            datasets.close(session, made)
    return made


def defined(catalog: Catalog) -> list[tuple[str, str]]:
    with catalog.read() as session:
        return sorted((w.dataset, w.template) for w in workflows.list_workflows(session))


def test_what_matches_becomes_a_workflow_once(
    catalog: Catalog, auto: Auto, generator: Generator
) -> None:
    auto("run-*[0-9]", "chain")
    for name, closed in (("run-1", True), ("run-2", False), ("other", True)):
        dataset(catalog, name, closed=closed)
    generator.turn()
    assert defined(catalog) == [("run-1", "chain"), ("run-2", "chain")]
    generator.turn()
    Generator(catalog, lambda _session: None).turn()
    assert len(defined(catalog)) == 2


def test_a_cancelled_workflow_is_not_made_again(
    catalog: Catalog, auto: Auto, generator: Generator
) -> None:
    auto("run-*[0-9]", "chain")
    dataset(catalog, "run-1")
    generator.turn()
    with catalog.write() as session:
        (workflow,) = workflows.list_workflows(session)
        workflows.cancel(session, workflow.id, "a test")
    generator.turn()
    assert len(defined(catalog)) == 1


def test_killed_between_the_workflow_and_the_note_of_it_there_is_one(
    catalog: Catalog, auto: Auto, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto("run-*[0-9]", "chain")
    dataset(catalog, "run-1")
    with monkeypatch.context() as patch:
        patch.setattr(matches, "settle", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            generator._submit(matches.Unmatched(1, "run-1", False), "chain")
    assert len(defined(catalog)) == 1
    generator.turn()
    assert len(defined(catalog)) == 1


def test_datasets_that_were_closed_before_are_left_and_open_ones_are_taken(
    catalog: Catalog, auto: Auto, generator: Generator
) -> None:
    dataset(catalog, "run-1", closed=True)
    dataset(catalog, "run-2")
    clock.shift_clock(10)
    auto("run-*[0-9]", "chain")
    generator.turn()
    assert defined(catalog) == [("run-2", "chain")]


def test_an_open_dataset_that_nothing_matched_is_looked_at_again_for_a_new_template(
    catalog: Catalog, auto: Auto, generator: Generator
) -> None:
    auto("run-*[0-9]", "chain")
    dataset(catalog, "beam-1")
    generator.turn()
    assert defined(catalog) == []
    auto("beam-*[0-9]", "beam")
    generator.turn()
    assert defined(catalog) == [("beam-1", "beam")]


def test_of_several_the_precedence_wins_then_the_mask_that_says_most_then_the_name(
    catalog: Catalog, auto: Auto, generator: Generator
) -> None:
    auto("run-*[0-9]", "b-any")
    auto("run-7*[0-9]", "a-seven")
    auto("run-77*[0-9]", "z-longest")
    auto("run-8*[0-9]", "first", precedence=5)
    auto("run-8?[0-9]", "second", precedence=5)
    auto("run-88[0-9]", "low", precedence=-1)
    for name in ("run-11", "run-71", "run-777", "run-881"):
        dataset(catalog, name)
    generator.turn()
    assert defined(catalog) == [
        ("run-11", "b-any"), ("run-71", "a-seven"), ("run-777", "z-longest"),
        ("run-881", "first"),
    ]  # fmt: skip


def test_datasets_that_are_refused_keep_no_others_waiting(
    catalog: Catalog, auto: Auto, generator: Generator, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    text = CHAIN.read_text()
    boxed = tmp_path / "boxed.cwl"
    needs = "requirements:\n  DockerRequirement: {dockerPull: nowhere}\n"
    boxed.write_text(text.replace("requirements:\n", needs, 1))
    info, _ = template_files.create(catalog, boxed, mask="box-*[0-9]", auto=True)
    with catalog.write() as session:
        templates.activate(session, info.id)
    auto("run-*[0-9]", "chain")
    monkeypatch.setattr("flows.intake.generator._MOST", 2)
    for number in range(4):
        dataset(catalog, f"box-{number}")
    dataset(catalog, "run-1")
    for _ in range(3):
        generator.turn()
    assert defined(catalog) == [("run-1", "chain")], "no node has an engine for the others"


def test_a_manual_template_waits_to_be_submitted(
    catalog: Catalog, auto: Auto, generator: Generator
) -> None:
    info, _ = template_files.create(catalog, CHAIN, name="manual", mask="run-*[0-9]")
    with catalog.write() as session:
        templates.activate(session, info.id)
    dataset(catalog, "run-1")
    generator.turn()
    assert defined(catalog) == []


def test_a_template_that_needs_an_input_cannot_be_automatic(
    catalog: Catalog, auto: Auto, tmp_path: Path
) -> None:
    text = CHAIN.read_text()
    path = tmp_path / "needs.cwl"
    path.write_text(text.replace("inputs:\n", "inputs:\n  threshold: int\n", 1))
    assert path.read_text() != text
    with pytest.raises(BadInput, match="needs its input 'threshold'"):
        template_files.create(catalog, path, mask="run-*[0-9]", auto=True)


def test_outputs_of_a_dataset_with_a_long_name_are_cut_alike(
    catalog: Catalog, auto: Auto, generator: Generator
) -> None:
    auto("run-*[ab]", "chain")
    long = "run-" + "Stream_" * 27 + "daq"
    for end in "ab":
        dataset(catalog, long + end)
    generator.turn()
    assert defined(catalog) == [(long + "a", "chain"), (long + "b", "chain")]
    submit(catalog, Submission("chain", long + "a", {}, again=True))
    with catalog.read() as session:
        made = [info.name for info in datasets.list_datasets(session) if info.derived]
    assert len(set(made)) == 12 and max(map(len, made)) == MAX_NAME
    digests = {name.partition(".chain.v1")[0].rpartition("-")[2] for name in made}
    assert len(digests) == 2, "one for each dataset that they are made of"
    assert sum(name.endswith(".chain.v1.r2.cut.digest") for name in made) == 1


def reasons(catalog: Catalog, name: str) -> tuple[str, str]:
    """What `why` of a dataset and `status` say."""
    with catalog.read() as session:
        found = causes.why_dataset(session, datasets.by_name(session, name))
        told = problems.problems(session)
    return "; ".join(cause.fact for cause in found), "; ".join(one.message for one in told)


def test_why_an_automatic_template_does_not_begin_is_told_until_it_does(
    catalog: Catalog, auto: Auto, generator: Generator, tmp_path: Path
) -> None:
    (tmp_path / "table.txt").write_text("1.0")
    path = tmp_path / "calibrated.cwl"
    default = "inputs:\n  table: {type: File, default: {class: File, location: table.txt}}\n"
    path.write_text(CHAIN.read_text().replace("inputs:\n", default, 1))
    info, _ = template_files.create(catalog, path, mask="run-*[0-9]", auto=True)
    with catalog.write() as session:
        templates.activate(session, info.id)
        session.execute(sa.update(Replica).values(state=ReplicaState.MISSING))
    for name in ("run-1", "run-2"):
        dataset(catalog, name)
    generator.turn()
    assert defined(catalog) == []
    for told in reasons(catalog, "run-1"):
        assert "template calibrated@1 can't be applied to it: file 1" in told
        assert "has no copy that is AVAILABLE" in told
    with catalog.write() as session:
        deletion.mark(session, datasets.by_name(session, "run-2").id, "a test")
    generator._refused.clear()
    generator.turn()
    told = reasons(catalog, "run-1")[1]
    assert "dataset run-1" in told
    assert "dataset run-2" not in told, "it is gone, and needs none"
    with catalog.write() as session:
        session.execute(sa.update(Replica).values(state=ReplicaState.AVAILABLE))
    generator._refused.clear()
    generator.turn()
    assert defined(catalog) == [("run-1", "calibrated")]
    assert "run-1" not in reasons(catalog, "run-1")[1], "that is over"


def test_a_default_that_is_not_used_need_not_be_there(
    catalog: Catalog, auto: Auto, tmp_path: Path
) -> None:
    for name in ("table.txt", "other.txt"):
        (tmp_path / name).write_text(name)
    path = tmp_path / "calibrated.cwl"
    default = "inputs:\n  table: {type: File, default: {class: File, location: table.txt}}\n"
    path.write_text(CHAIN.read_text().replace("inputs:\n", default, 1))
    info, _ = template_files.create(catalog, path, mask="run-*[0-9]")
    with catalog.write() as session:
        templates.activate(session, info.id)
        session.execute(sa.update(Replica).values(state=ReplicaState.MISSING))
    dataset(catalog, "run-1")
    with pytest.raises(Conflict, match="no copy that is AVAILABLE"):
        submit(catalog, Submission("calibrated", "run-1", {}))
    other = {"table": str(tmp_path / "other.txt")}
    assert submit(catalog, Submission("calibrated", "run-1", other))[1]
