"""Numbers keep their value and their type from the document to the command line and back."""

import json
from typing import Any

import pytest

from catalog.errors import ErrorCode
from workers.cwl import ToolFailure

SPELT = [1000, 1000.0, 1e3]
JS = {"InlineJavascriptRequirement": {}}


@pytest.mark.parametrize("number", SPELT)
@pytest.mark.parametrize(
    "binding", [{}, {"valueFrom": "$(self)"}, {"valueFrom": "${return inputs.x;}"}]
)
def test_spellings_of_a_double_give_one_argument(bench: Any, number: Any, binding: Any) -> None:
    tool = {"inputs": {"x": {"type": "double", "inputBinding": binding}}, "requirements": JS}
    assert bench.arguments({"x": number}, **tool) == ["1000"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1e23, "100000000000000000000000"),
        (1.5e-7, "0.00000015"),
        (0.1 + 0.2, "0.30000000000000004"),
        (-2.5, "-2.5"),
        (5e-324, "0." + "0" * 323 + "5"),
        (2**53, "9007199254740992"),
    ],
)
def test_a_double_is_the_shortest_decimal_that_gives_it(bench: Any, number: Any, text: str) -> None:
    tool = {"inputs": {"x": {"type": "double", "inputBinding": {}}}}
    assert bench.arguments({"x": number}, **tool) == [text]
    assert float(text) == number


@pytest.mark.parametrize("number", SPELT)
@pytest.mark.parametrize("kind", ["double", "float?", ["int", "double"]])
def test_an_output_of_type_double_is_one(bench: Any, number: Any, kind: Any) -> None:
    given = bench.run(
        {"x": number},
        baseCommand="true", requirements=JS,
        inputs={"x": "double"},
        outputs={
            "reference": {"type": kind, "outputBinding": {"outputEval": "$(inputs.x)"}},
            "list": {"type": "double[]", "outputBinding": {"outputEval": "$([inputs.x + 0])"}},
            "pair": {
                "type": {"type": "record", "fields": {"x": "double", "y": "int?"}},
                "outputBinding": {"outputEval": "$({x: inputs.x})"},
            },
        },
    ).outputs  # fmt: skip
    assert json.dumps(given) == json.dumps(
        {"reference": 1000.0, "list": [1000.0], "pair": {"x": 1000.0, "y": None}}
    )


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("int", 1000.0), ("int", 1e3), ("int", 2**31), ("long", 2**63), ("long", 5e9),
        ("double", float("inf")), ("float", float("nan")), ("double", 10**400),
        ("Any", [float("inf")]), ("Any", {"x": 10**400}), ("double", True),
    ],
)  # fmt: skip
def test_a_number_of_another_type_or_beyond_range_is_refused(
    bench: Any, kind: str, number: Any
) -> None:
    with pytest.raises(ToolFailure) as caught:
        bench.run({"x": number}, inputs={"x": kind}, baseCommand="true")
    assert caught.value.code is ErrorCode.BAD_JOB_INPUT
    assert "'x'" in str(caught.value)


@pytest.mark.parametrize("text", ["1e400", "[1, -1e999]"])
def test_a_number_beyond_range_in_the_outputs_file_is_refused(bench: Any, text: str) -> None:
    script = f"echo '{{\"x\": {text}}}' > cwl.output.json"
    with pytest.raises(ToolFailure) as caught:
        bench.run(baseCommand=["sh", "-c", script], outputs={"x": "Any"})
    assert caught.value.code is ErrorCode.OUTPUT_INVALID


@pytest.mark.parametrize("name", ["class", "kind"])
def test_a_record_with_a_field_called_class_is_no_file(bench: Any, name: str) -> None:
    tool = {
        "inputs": {"r": {"type": {"type": "record", "fields": {name: "string", "id": "long"}}}},
        "arguments": ["$(inputs.r.id + 0)"],
        "baseCommand": "echo",
        "requirements": JS,
    }
    with pytest.raises(ToolFailure, match="a whole number beyond"):
        bench.run({"r": {name: "muon", "id": 2**53 + 1}}, **tool)


def test_absent_fields_of_a_record_are_null_in_expressions(bench: Any) -> None:
    kind = {"type": "record", "fields": {"a": "int", "b": "string?"}}
    tool = {
        "inputs": {"r": {"type": {"type": "array", "items": kind}}},
        "arguments": ["$(inputs.r[0].b === null)", "b=$(inputs.r[0].b)"],
        "requirements": JS,
    }
    assert bench.arguments({"r": [{"a": 1}]}, **tool) == ["b=null"]


@pytest.mark.parametrize("value", [None, True, 5, 1e23, ["x"]])
def test_an_environment_variable_is_a_string(bench: Any, value: Any) -> None:
    tool = {
        "baseCommand": ["sh", "-c", 'printf %s "$V"'],
        "inputs": {"x": "Any?"},
        "requirements": {"EnvVarRequirement": {"envDef": {"V": "$(inputs.x)"}}},
    }
    with pytest.raises(ToolFailure, match="envValue of V") as caught:
        bench.run({"x": value}, **tool)
    assert caught.value.code is ErrorCode.EXPRESSION_FAILED
    tool["requirements"]["EnvVarRequirement"]["envDef"]["V"] = "v=$(inputs.x)"
    bench.run({"x": value}, **tool)
    words = {None: "null", True: "true", 5: "5", 1e23: "1" + "0" * 23}
    assert bench.log == "v=" + (words[value] if not isinstance(value, list) else '["x"]')


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"arguments": ["$(inputs.nope)"]}, "valueFrom of argument 1"),
        ({"stdout": "$(inputs.nope)"}, "stdout"),
        ({"stdin": "$(inputs.nope)"}, "stdin"),
        ({"outputs": {"o": {"type": "File?", "outputBinding": {"glob": "$(inputs.nope)"}}}},
         "glob of output 'o'"),
        ({"outputs": {"o": {"type": "int?", "outputBinding": {"outputEval": "$(inputs.nope)"}}}},
         "outputEval of output 'o'"),
        ({"requirements": {"EnvVarRequirement": {"envDef": {"V": "$(inputs.nope)"}}}},
         "envValue of V"),
        ({"requirements": {"InitialWorkDirRequirement": {"listing": ["$(inputs.nope)"]}}},
         "listing"),
        ({"requirements": {"ResourceRequirement": {"coresMin": "$(inputs.nope)"}}}, "coresMin"),
        ({"requirements": {"ToolTimeLimit": {"timelimit": "$(inputs.nope)"}}}, "timelimit"),
        ({"inputs": {"x": {"type": "int", "default": 1,
                           "inputBinding": {"valueFrom": "$(inputs.nope)"}}}},
         "valueFrom of input 'x'"),
        ({"inputs": {"x": {"type": "int", "default": 1,
                           "inputBinding": {"position": "$(inputs.nope)"}}}},
         "position of input 'x'"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("js", [False, True])
def test_a_misspelt_name_is_told_with_its_place(
    bench: Any, fields: dict[str, Any], place: str, js: bool
) -> None:
    tool = {"baseCommand": "true", **fields}
    if js:
        tool["requirements"] = {**tool.get("requirements", {}), **JS}
    with pytest.raises(ToolFailure) as caught:
        bench.run(**tool)
    assert caught.value.code is ErrorCode.EXPRESSION_FAILED
    assert "$(inputs.nope)" in str(caught.value) and place in str(caught.value)
