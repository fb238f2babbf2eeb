"""Templates: versions, masks and which of them fit a dataset."""

from typing import Any

import pytest

from catalog import events, templates
from catalog.db import Catalog
from catalog.errors import BadInput, BadName, NotFound, StateConflict
from catalog.states import TemplateState


def create(catalog: Catalog, name: str = "md5", **changes: Any) -> templates.TemplateInfo:
    values = {
        "mask": "run-*", "document": {"a": [1]}, "plan": {"b": None}, "digest": "d1",
        "derived": False,
    } | changes  # fmt: skip
    with catalog.write() as session:
        return templates.create(session, name, **values)


def activate(catalog: Catalog, template_id: int) -> templates.TemplateInfo:
    with catalog.write() as session:
        return templates.activate(session, template_id)


def test_the_same_template_again_is_the_same_version(catalog: Catalog) -> None:
    first = create(catalog)
    assert create(catalog) == first
    assert (first.version, first.state, first.ref) == (1, TemplateState.DRAFT, "md5@1")
    assert create(catalog, digest="d2").version == 2
    assert create(catalog, digest="d2", mask="x").version == 3
    assert create(catalog, digest="d2", mask="x", derived=True).version == 4
    assert create(catalog).version == 5
    assert create(catalog, name="other").version == 1


def test_document_and_plan_come_back_as_they_were(catalog: Catalog) -> None:
    info = create(catalog)
    with catalog.read() as session:
        found = templates.get(session, "md5@1")
        assert templates.get_by_id(session, info.id) == found
    assert (found.id, found.document, found.plan) == (info.id, {"a": [1]}, {"b": None})


def test_a_new_actual_version_archives_the_one_before(catalog: Catalog) -> None:
    first, second = create(catalog), create(catalog, digest="d2")
    assert activate(catalog, first.id).state is TemplateState.ACTUAL
    assert activate(catalog, first.id).state is TemplateState.ACTUAL
    assert activate(catalog, second.id).state is TemplateState.ACTUAL
    with catalog.read() as session:
        states = {t.version: t.state for t in templates.list_templates(session)}
        history = [(e.before, e.after) for e in events.history(session, "template", first.id)]
    assert states == {1: TemplateState.ARCHIVED, 2: TemplateState.ACTUAL}
    assert history == [(None, "DRAFT"), ("DRAFT", "ACTUAL"), ("ACTUAL", "ARCHIVED")]


def test_an_archived_version_stays_so(catalog: Catalog) -> None:
    info = create(catalog)
    for _ in range(2):
        with catalog.write() as session:
            assert templates.archive(session, info.id).state is TemplateState.ARCHIVED
    with pytest.raises(StateConflict, match="'md5@1' is ARCHIVED and can't become ACTUAL: add it"):
        activate(catalog, info.id)


def test_a_failed_activation_leaves_the_one_before(catalog: Catalog) -> None:
    first, second = create(catalog), create(catalog, digest="d2")
    activate(catalog, first.id)
    with catalog.write() as session:
        templates.archive(session, second.id)
    with pytest.raises(StateConflict):
        activate(catalog, second.id)
    with catalog.read() as session:
        assert templates.get(session, "md5").version == 1


def test_a_name_means_the_actual_version_else_the_newest(catalog: Catalog) -> None:
    first = create(catalog)
    create(catalog, digest="d2")
    with catalog.read() as session:
        assert templates.get(session, "md5").version == 2
    activate(catalog, first.id)
    with catalog.read() as session:
        assert templates.get(session, "md5").version == 1
        assert templates.get(session, "md5@2").version == 2
        for ref in ("nothing", "md5@3", "md5@", "md5@x", "md5@0", "@1", "", "md5@" + "9" * 30):
            with pytest.raises(NotFound):
                templates.get(session, ref)
        with pytest.raises(NotFound):
            templates.get_by_id(session, 99)


def test_actual_templates_match_by_mask_and_case(catalog: Catalog) -> None:
    for name, mask, derived in (
        ("raw", "run-*", False), ("any", "*", True), ("upper", "RUN-*", False),
        ("one", "run-[12]", False),
    ):  # fmt: skip
        activate(catalog, create(catalog, name, mask=mask, derived=derived).id)
    create(catalog, "draft", mask="*")

    def matching(dataset: str, derived: bool) -> list[str]:
        with catalog.read() as session:
            return [t.name for t in templates.matching(session, dataset, derived)]

    assert matching("run-1", False) == ["any", "one", "raw"]
    assert matching("run-3", False) == ["any", "raw"]
    assert matching("run-1.raw.v1.step.out", True) == ["any"]
    assert matching("cosmic", False) == ["any"]


@pytest.mark.parametrize("mask", ["*", "run-*", "run-[0-9]?", "a.b*", "[!x]*", "x[*]y", "[-a]"])
def test_globs_are_masks(mask: str) -> None:
    assert templates.check_mask(mask) == mask


@pytest.mark.parametrize(
    "mask", ["", "a b", "a/b", "run-[", "run-]", "[]", "[!]", "a\n", "..*", "[[a]", "x" * 201, "é"]
)
def test_other_masks_are_refused_and_nothing_is_created(catalog: Catalog, mask: str) -> None:
    with pytest.raises(BadInput, match="mask"):
        create(catalog, mask=mask)
    with catalog.read() as session:
        assert templates.list_templates(session) == []


@pytest.mark.parametrize("name", ["a@1", "../x", "", "a b"])
def test_bad_names_are_refused(catalog: Catalog, name: str) -> None:
    with pytest.raises(BadName):
        create(catalog, name)
