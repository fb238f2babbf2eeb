"""Names and paths that are let in, and those that are refused with a reason."""

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog import names
from catalog.errors import BadName
from catalog.names import (
    MAX_COMPONENT,
    MAX_NAME,
    MAX_PATH,
    below,
    beside,
    check_name,
    check_path,
    output_dataset,
)


@pytest.mark.parametrize("name", ["a", "run-0042", "x.y.v1", "A@b=c+d_e", "0", "n" * MAX_NAME])
def test_plain_names_are_let_in(name: str) -> None:
    assert check_name("dataset", name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a..b", "-a", ".a", "a/b", "a b", "a\n", "é", "a:b", "a" * 201, "a*"]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(BadName, match="dataset name"):
        check_name("dataset", name)


@pytest.mark.parametrize("path", ["a", "a/b.c", "..a/b", "a b", "é/ü", "-x", ".hidden"])
def test_relative_paths_are_let_in(path: str) -> None:
    assert check_path("path", path) == path


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("", "empty"),
        ("/etc/passwd", "absolute"),
        ("../a", "`..`"),
        ("a/../b", "`..`"),
        ("a//b", "empty or `.`"),
        ("./a", "empty or `.`"),
        ("a/", "empty or `.`"),
        ("a\nb", "control"),
        ("a\x00", "control"),
        ("a\tb", "control"),
        ("a\x7f", "control"),
        ("\udc80", "invalid"),
        ("é" * (MAX_PATH // 2 + 1), "longer"),
    ],
)
def test_other_paths_are_refused_with_the_reason(path: str, why: str) -> None:
    with pytest.raises(BadName, match=why):
        check_path("path", path)


@given(st.text(alphabet="a._-/é\n", max_size=8))
def test_the_look_at_usual_paths_lets_none_in_that_the_rules_refuse(path: str) -> None:
    if names._USUAL.match(path):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(names, "_USUAL", re.compile("(?!)"))
            assert names.is_path(path)


@given(st.text())
def test_an_accepted_path_stays_below_its_folder(path: str) -> None:
    try:
        check_path("path", path)
    except BadName:
        return
    assert not path.startswith("/")
    assert not {"", ".", ".."} & set(path.split("/"))
    assert path.isprintable() or not any(ord(c) < 32 for c in path)


def test_what_is_made_of_a_long_name_keeps_its_ending_and_is_told_from_others() -> None:
    tail = ".reco.v1.r2.hits.log"
    assert output_dataset("run-1", tail) == "run-1" + tail
    given = "data26." + "Stream_" * 27
    made, other = output_dataset(given + "a", tail), output_dataset(given + "b", tail)
    assert len(made) == MAX_NAME and made != other
    assert made.startswith("data26.Stream_") and made.endswith(tail)
    again = output_dataset(made, ".later.v3.sum.all")
    assert len(check_name("dataset", again)) == MAX_NAME, "and so on, stage by stage"
    longest = output_dataset("run-1", f".t.v1.{'s' * 150}.{'p' * 100}")
    assert len(longest) == MAX_NAME and longest.startswith("run-1.t.v1.sss")


@pytest.mark.parametrize(
    "key",
    [
        "/".join(["x" * 100] * 8),
        "/".join(["ü" * 50] * 9)[:440],
        f"{'p' * 111}{'/' * 0}" + f"/{'y' * 255}" * 3,
    ],
)
def test_what_is_made_of_a_long_path_is_a_path(key: str) -> None:
    key += "/end of it.raw" * 6
    made = below(key, "out.root")
    assert len(os.fsencode(check_path("file name", made))) <= MAX_PATH
    assert made.rpartition("/")[2] == "out.root"
    assert max(len(os.fsencode(one)) for one in made.split("/")) <= MAX_COMPONENT
    assert below(key[:-1] + "z", "out.root") != made
    assert below("run/a.raw", "out.root") == "run/a.raw/out.root"


def test_a_path_beside_another_is_as_long_as_a_name_can_be() -> None:
    assert beside("d/a.raw", "~1") == "d/a.raw~1"
    assert len(beside(f"d/{'a' * 255}", "~1")) == 257
