"""What paths are to a rule, by its patterns; most are asked for at each look."""

from dataclasses import replace

import pytest

from catalog.errors import BadInput
from catalog.refs import StorageInfo, StorageKind, StorageRole
from flows.intake import roles
from flows.intake.roles import Errand, Role, Roles, roles_of

PLACE = StorageInfo(1, "buffer", StorageKind.LOCAL, StorageRole.INPUT, "/buffer")
ERRAND = Errand(PLACE, "", r"(?P<run>[^/]+)/f.*", "{run}", r"(?P<run>[^/]+)/END", (r"[^/]+/OVER",))
PATHS = {
    "run-1/f1": Role("run-1", False),
    "run-1/END": Role("run-1", True),
    "run-1/OVER": None,
    "run-1/.f1": None,
    ".run/f1": None,
    "f1": None,
}


def test_a_path_is_a_file_a_marker_or_nothing_to_the_rule() -> None:
    known = Roles(ERRAND)
    for _ in range(2):
        assert {path: known.of(path) for path in PATHS} == PATHS


def test_what_jobs_make_is_nothing_that_arrived_but_on_an_input_storage_spdf_makes_nothing() -> (
    None
):
    made = "run-1.out/000001/17.a1/f1", "run-1.out/000001/17.g2.a1.f1"
    for role in StorageRole:
        place = replace(PLACE, role=role)
        known = Roles(Errand(place, "", r".*/(f.*|.*\.f1)", "runs", None))
        arrived = [path for path in (*made, "run-1/f1") if known.of(path) is not None]
        assert arrived == ([*made, "run-1/f1"] if role is StorageRole.INPUT else ["run-1/f1"])


@pytest.mark.parametrize(
    ("path", "dataset"),
    [("x" * 300 + "/f1", None), ("run-1/f\n1", "run-1"), ("run-1/f\udcff", "run-1")],
)
def test_a_name_that_can_not_be_used_has_a_fault_and_a_dataset_where_one_is_told(
    path: str, dataset: str | None
) -> None:
    known = Roles(ERRAND)
    role = known.of(path)
    assert role is not None and role.dataset == dataset and role.fault
    assert known.of(path) == role


def test_of_more_paths_than_are_remembered_each_is_judged_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(roles, "_REMEMBERED", 3)
    known = Roles(ERRAND)
    for _ in range(3):
        for path, role in PATHS.items():
            assert known.of(path) == role
            assert len(known._known) <= 3


def test_another_pattern_has_roles_of_its_own() -> None:
    other = Errand(PLACE, "", r"(?P<run>[^/]+)/g.*", "{run}", None)
    assert roles_of(ERRAND).of("run-1/f1") == Role("run-1", False)
    assert roles_of(other).of("run-1/f1") is None
    assert roles_of(other).of("run-1/g1") == Role("run-1", False)


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(BadInput, match="--pattern"):
        roles_of(Errand(PLACE, "", "(", "{run}", None))
