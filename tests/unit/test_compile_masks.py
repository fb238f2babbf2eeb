"""Masks: what is none, and which ones fit the datasets that their own template makes."""

import fnmatch
import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import BadInput, BadName
from catalog.names import check_name
from flows.compile import check_mask, compile_template
from flows.compile.mask import check_syntax, fits_outputs, in_common, output_tail

PLAN = compile_template(Path(__file__).parents[1] / "data/templates/chain.cwl").plan


@pytest.mark.parametrize(
    "mask", ["run-????", "run-*[0-9]", "*.raw", "run-0042", "run-[!.]", "[a-z]*-2026", "a*b", "*G"]
)
def test_mask_that_fits_no_output_is_taken(mask):
    check_mask("decoding", 1, PLAN, mask)


@pytest.mark.parametrize(
    "mask",
    [
        "*",
        "run-*",
        "run-[0-9]*",
        "*.log",
        "*.decoding.v1.keep.kept",
        "*g",
        "?*.out",
        "run.*.v1.*",
        "*.r[0-9].after.out",
        "*[!0-9]",
    ],
)
def test_mask_that_fits_an_output_is_refused_with_an_example(mask):
    with pytest.raises(BadInput, match="own outputs, such as"):
        check_mask("decoding", 1, PLAN, mask)


def test_only_outputs_of_fitting_inputs_count():
    # `x.log` is an output's ending, but its input would have to begin with `b` and end with `c`.
    check_mask("decoding", 1, PLAN, "b*c")
    # The name of the template itself lies between the input's name and the step's.
    with pytest.raises(BadInput):
        check_mask("decoding", 1, PLAN, "*decoding*")
    check_mask("decoding", 2, PLAN, "*decoding.v1.*[0-9]")


def test_length_of_names_counts():
    with pytest.raises(BadInput):
        check_mask("d", 1, PLAN, "*" + "?" * 150)
    # A name of 190 characters has no room for the ending within the 200 that a name may have.
    check_mask("d", 1, PLAN, "*" + "?" * 190)


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        ("", "empty"),
        ("a/b", "`/`"),
        ("a\nb", "control"),
        ("a\x7f", "control"),
        ("run-[0-9", "doesn't close"),
        ("run-[!]", "doesn't close"),
        ("run 1*", "fits no name"),
        ("-*", "fits no name"),
        ("a..*", "fits no name"),
        ("run-[é]", "fits no name"),
        ("x" * 201, "longer than"),
    ],
)
def test_what_is_no_mask_is_refused(mask, reason):
    with pytest.raises(BadInput, match=reason):
        check_syntax(mask)


@pytest.mark.parametrize("mask", ["[]x]a", "[!]x]a", "[a-c]*", "[[]a*", "a[-x]", "*[!.]"])
def test_brackets_mean_what_fnmatch_says(mask):
    try:
        glob = check_syntax(mask)
    except BadInput:
        assert mask == "[[]a*"  # no name begins with a bracket
        return
    for length in (1, 2, 3):
        for letters in itertools.product("abx.-_3", repeat=length):
            name = "".join(letters)
            positions = {0}
            for letter in name:
                positions = {new for at in positions for new in glob.step(at, letter)}
            assert any(map(glob.accepts, positions)) == fnmatch.fnmatchcase(name, mask), name


TAILS = ("s.p", "s.log")


def outputs_of(name):
    for middle in ("", ".r2", ".r10"):
        for tail in TAILS:
            yield f"{name}.t.v1{middle}.{tail}"


def is_name(name):
    try:
        check_name("dataset", name)
    except BadName:
        return False
    return True


NAMES = [
    name
    for length in (1, 2, 3)
    for name in map("".join, itertools.product("at.g1", repeat=length))
    if is_name(name) and not name.endswith(".")
]


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="at.g1sp*?", min_size=1, max_size=7))
def test_decision_agrees_with_trying_names(mask):
    try:
        glob = check_syntax(mask)
    except BadInput:
        assert not any(fnmatch.fnmatchcase(name, mask) for name in NAMES)
        return
    found = fits_outputs(glob, output_tail("t", 1, TAILS))
    tried = next(
        (
            out
            for name in NAMES
            if fnmatch.fnmatchcase(name, mask)
            for out in outputs_of(name)
            if fnmatch.fnmatchcase(out, mask)
        ),
        None,
    )
    if tried is not None:
        assert found is not None
    if found is not None:
        assert is_name(found) and fnmatch.fnmatchcase(found, mask)
        assert any(found.endswith(f".{tail}") for tail in TAILS) and ".t.v1." in found


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("trk-[0-9][0-9]", "cal-[0-9][0-9]", False),
        ("run-*", "*-17", True),
        ("run-?", "run-??", False),
        ("run-*", "run-2026-*", True),
        ("a*b", "*c", False),
        ("[a-m]*", "[n-z]*", False),
        ("*", "x", True),
    ],
)
def test_whether_two_masks_have_a_name_in_common(one: str, other: str, both: bool) -> None:
    for pair in ((one, other), (other, one)):
        found = in_common(*pair)
        assert (found is not None) == both
        if found is not None:
            check_name("dataset", found)
            assert all(fnmatch.fnmatchcase(found, mask) for mask in pair)


@settings(max_examples=200, deadline=None)
@given(st.text("ab*?", min_size=1, max_size=5), st.text("ab*?", min_size=1, max_size=5))
def test_a_common_name_is_found_where_there_is_one(one: str, other: str) -> None:
    names = ("".join(n) for size in range(1, 7) for n in itertools.product("abx", repeat=size))
    fit = any(fnmatch.fnmatchcase(n, one) and fnmatch.fnmatchcase(n, other) for n in names)
    found = in_common(one, other)
    assert (found is not None) == fit
