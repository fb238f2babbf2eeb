"""The command line: positions, prefixes, arrays, records, unions, quoting."""

from typing import Any

import pytest

from catalog.errors import BadTemplate, ErrorCode
from workers.cwl import ToolFailure, load_tool

JS = {"InlineJavascriptRequirement": {}}


def array(items: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **fields}


def bound(kind: Any, **binding: Any) -> dict[str, Any]:
    return {"type": kind, "inputBinding": binding}


def test_arguments_sort_by_position_then_kind_then_name(bench: Any) -> None:
    got = bench.arguments(
        {"a": "a", "b": "b", "c": "c", "n": -1},
        inputs={
            "b": bound("string", position=1), "a": bound("string", position=1),
            "c": bound("string", position="$(inputs.n)"), "n": "int",
        },
        arguments=["zero", {"valueFrom": "one", "position": 1}],
    )  # fmt: skip
    assert got == ["c", "zero", "one", "a", "b"]


@pytest.mark.parametrize(
    ("kind", "binding", "value", "expected"),
    [
        ("string", {"prefix": "-x"}, "v", ["-x", "v"]),
        ("string", {"prefix": "-x=", "separate": False}, "v", ["-x=v"]),
        ("boolean", {"prefix": "-x"}, True, ["-x"]),
        ("boolean", {"prefix": "-x"}, False, []),
        ("boolean", {}, True, []),
        ("int?", {"prefix": "-x"}, None, []),
        ("double", {}, 1e-05, ["0.00001"]),
        ("string[]", {"prefix": "-x"}, ["p", "q"], ["-x", "p", "q"]),
        ("string[]", {"prefix": "-x", "itemSeparator": ","}, ["p", "q"], ["-x", "p,q"]),
        ("string[]", {"prefix": "-x", "itemSeparator": ","}, [], []),
        ("string[]", {"prefix": "-x"}, [], []),
        (array("string", inputBinding={"prefix": "-i"}), {}, ["p", "q"], ["-i", "p", "-i", "q"]),
        (array(array("int")), {"prefix": "-x"}, [[1, 2], [3]], ["-x", "1", "2", "3"]),
        ("string?", {"valueFrom": "got $(self)"}, "v", ["got v"]),
        ("string?", {"valueFrom": "got $(self)"}, None, []),
        (["int", array("int", inputBinding={"prefix": "-i"})], {}, [1], ["-i", "1"]),
        ({"type": "enum", "symbols": ["u", "v"]}, {"prefix": "-e"}, "v", ["-e", "v"]),
    ],
)
def test_bindings(bench: Any, kind: Any, binding: Any, value: Any, expected: list[str]) -> None:
    assert bench.arguments({"x": value}, inputs={"x": bound(kind, **binding)}) == expected


def test_fields_of_a_record_follow_its_own_position(bench: Any) -> None:
    record = {
        "type": "record",
        "name": "r",
        "fields": [
            {"name": "p", **bound("string", position=2)},
            {"name": "q", **bound("File", position=1, prefix="-q")},
        ],
    }
    file = bench.file("data.txt")
    got = bench.arguments(
        {"r": {"p": "P", "q": file}, "last": "L"},
        inputs={"r": bound(record, prefix="-r", position=1), "last": bound("string", position=2)},
    )
    assert got == ["-r", "-q", str(bench.last / "stage" / "data.txt"), "P", "L"]


def test_the_record_that_fits_is_taken_from_a_union(bench: Any) -> None:
    def record(name: str) -> dict[str, Any]:
        field = {"name": name, **bound("string", prefix=f"--{name}")}
        return {"type": "record", "fields": [field]}

    tool = {"inputs": {"u": {"type": [record("left"), record("right")]}}}
    assert bench.arguments({"u": {"right": "R"}}, **tool) == ["--right", "R"]


def test_without_a_shell_nothing_is_interpreted(bench: Any) -> None:
    assert bench.arguments(arguments=["$HOME; ls", "a b", "*"]) == ["$HOME; ls", "a b", "*"]


def test_with_a_shell_only_what_says_so_is_left_unquoted(bench: Any) -> None:
    bench.run(
        {"x": "it's; $HOME"},
        inputs={"x": bound("string", position=1)},
        requirements={"ShellCommandRequirement": {}},
        baseCommand=["printf", "%s|"],
        arguments=[{"valueFrom": "&& echo done", "shellQuote": False, "position": 2}],
    )
    assert bench.log == "it's; $HOME|done\n"


@pytest.mark.parametrize("value", ["text", None, [1], {"class": "File"}])
def test_a_value_that_does_not_fit_is_refused(bench: Any, value: Any) -> None:
    with pytest.raises(ToolFailure, match="'x' of 't' must be int") as caught:
        bench.run({"x": value}, inputs={"x": "int"}, baseCommand="true")
    assert caught.value.code is ErrorCode.BAD_JOB_INPUT


def test_defaults_stand_in_for_null(bench: Any) -> None:
    tool = {"inputs": {"x": {"default": 0, **bound("int")}}}
    assert bench.arguments({}, **tool) == ["0"]
    assert bench.arguments({"x": None}, **tool) == ["0"]
    assert bench.arguments({"x": 5}, **tool) == ["5"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"class": "Workflow", "steps": []}, "only a CommandLineTool"),
        ({"class": "Operation"}, "only a CommandLineTool"),
        ({"requirements": [{"class": "Sorcery"}]}, "requires Sorcery"),
        ({"inputs": {"x": "Feil"}}, "'Feil' is not defined"),
        ({"inputs": [{"id": "x", "type": "int"}, {"id": "x", "type": "int"}]}, "twice"),
        ({"inputs": 3}, "a list or a map"),
        ({"outputs": {"o": {"type": "File", "outputBinding": {"glob": "../x"}}}}, r"`\.\.`"),
        ({"arguments": ["$(1+1)"]}, "InlineJavascriptRequirement"),
    ],
)
def test_nonsense_is_refused_when_the_tool_is_loaded(change: Any, reason: str) -> None:
    tool = {"class": "CommandLineTool", "cwlVersion": "v1.2", "inputs": {}, "outputs": {}}
    with pytest.raises(BadTemplate, match=reason):
        load_tool({**tool, **change})


def test_an_unknown_hint_is_ignored(bench: Any) -> None:
    bench.run(baseCommand="true", hints=[{"class": "Sorcery"}, {"class": "DockerRequirement"}])


def test_a_required_container_says_that_there_is_none(bench: Any) -> None:
    with pytest.raises(ToolFailure, match="requires a container") as caught:
        bench.run(baseCommand="true", requirements={"DockerRequirement": {"dockerPull": "x"}})
    assert caught.value.code is ErrorCode.CONTAINER_ENGINE_MISSING
