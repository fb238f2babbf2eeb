"""Expressions: references, JavaScript, interpolation, and their limits."""

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from catalog.errors import BadTemplate, ErrorCode
from catalog.settings import get_settings
from workers.cwl import ToolFailure, compile_expression

INPUTS = {"list": [10, 20], "file": {"class": "File", "basename": "a.txt"}, "a b": {"c'd": 7}}


def value(text: str, *, js: bool = False, lib: tuple[str, ...] = (), self_: Any = None) -> Any:
    return compile_expression(text, js, list(lib)).evaluate(INPUTS, self_, {"cores": 2})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(inputs.list[1])", 20),
        ("$(inputs.list.length)", 2),
        ("$(inputs['a b']['c\\'d'])", 7),
        ('$(inputs["file"].basename)', "a.txt"),
        ("$(runtime.cores)", 2),
        ("$(self)", "me"),
        ("$(null)", None),
        ("x-$(inputs.list)-$(null)", "x-[10, 20]-null"),
        ("\\$(inputs.list) $(self)", "$(inputs.list) me"),
        ("\\\\$(self) \\n", "\\me \\n"),
        ("no \\$ expression", "no \\$ expression"),
        ("  $(self)\n", "me"),
    ],
)
def test_references_and_interpolation(text: str, expected: Any) -> None:
    assert value(text, self_="me") == expected


def test_blanks_stay_where_the_caller_wants_them() -> None:
    assert compile_expression("$(self)\n", strip=False).evaluate({}, 1) == "1\n"


@pytest.mark.parametrize(
    "text",
    [
        "$(inputs.none)", "$(inputs.list[2])", "$(inputs.list.size)", "$(self.x)",
        "$(inputs.file.basename.length)", "$(inputs.list.length.x)",
    ],
)  # fmt: skip
def test_a_reference_to_nothing_fails_and_is_named(text: str) -> None:
    with pytest.raises(ToolFailure) as caught:
        value(text)
    assert caught.value.code is ErrorCode.EXPRESSION_FAILED
    assert text in str(caught.value)


@pytest.mark.parametrize("text", ["$(1 + 1)", "${return 1;}", "$(inputs.a + 1)", "$(other.x)"])
def test_javascript_needs_its_requirement(text: str) -> None:
    with pytest.raises(BadTemplate, match="InlineJavascriptRequirement"):
        compile_expression(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(inputs.list.map(function(x) { return x / 10; }))", [1, 2]),
        ("${ // don't stop here )\n return {a: 1, b: undefined}; }", {"a": 1}),
        ("$(inputs.nothing)", None),
        ("$(/[)}\"']+/.test('a\"'))", True),
        ("$(`${1 + 1})`)", "2)"),
        ("n=$(1/4), s=$('q')", "n=0.25, s=q"),
        ("$(1 // one\n)", 1),
    ],
)
def test_javascript(text: str, expected: Any) -> None:
    assert value(text, js=True) == expected


def test_the_library_is_there_and_sees_the_inputs() -> None:
    lib = ("function first() { return inputs.list[0]; }", "var two = 2;")
    assert value("$(first() * two)", js=True, lib=lib) == 20


def test_nothing_is_left_over_from_one_evaluation_to_the_next() -> None:
    counting = compile_expression("$(next())", True, ["var n = 0; function next() { return ++n; }"])
    assert [counting.evaluate({}), counting.evaluate({})] == [1, 1]
    with pytest.raises(ToolFailure, match="ReferenceError"):
        value("${ leak = 1; return leak; }", js=True)


@pytest.mark.parametrize("text", ["$(", "$(inputs.x", "${ return '}'", "$(a[)"])
def test_what_has_no_end_is_refused(text: str) -> None:
    with pytest.raises(BadTemplate):
        compile_expression(text, True)


def test_broken_javascript_is_refused_when_it_is_compiled() -> None:
    with pytest.raises(BadTemplate, match="no valid JavaScript"):
        compile_expression("${ return 1 +; }", True)


@pytest.fixture
def _tight(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SPDF_EXPRESSION_S", "0.2")
    monkeypatch.setenv("SPDF_EXPRESSION_BYTES", str(8 * 2**20))
    get_settings.cache_clear()
    yield
    monkeypatch.undo()
    get_settings.cache_clear()


def in_a_new_thread(text: str) -> list[Any]:
    """What an expression gives in a thread (so, an engine) of its own, and `1 + 1` after it."""
    found: list[Any] = []

    def work() -> None:
        for one in (text, "$(1 + 1)"):
            try:
                found.append(compile_expression(one, True).evaluate({}))
            except ToolFailure as fault:
                found.append(fault.message)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return found


@pytest.mark.usefixtures("_tight")
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("${ while (true) {} }", "longer than 0.2 s"),
        ("${ var a = []; while (true) a.push(new Array(1000).fill(a.length)); }", "bytes"),
        ("${ function f() { return f() + 1; } return f(); }", "call stack"),
    ],
)
def test_time_memory_and_depth_are_bounded_and_the_engine_goes_on(text: str, reason: str) -> None:
    message, after = in_a_new_thread(text)
    assert reason in message
    assert after == 2


def test_scripts_reach_neither_files_nor_processes() -> None:
    names = value("$(Object.getOwnPropertyNames(globalThis))", js=True)
    assert not {"require", "process", "std", "os", "fetch", "print", "console"} & set(names)
    assert str(os.getpid()) not in names
