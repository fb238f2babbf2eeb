"""Names and paths that are let in, and those that are refused with a reason."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog import names
from catalog.errors import BadName
from catalog.names import MAX_NAME, MAX_PATH, check_name, check_path


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
