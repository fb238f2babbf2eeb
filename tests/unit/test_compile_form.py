"""The inputs of a template as a form, and what users type into it."""

from pathlib import Path

import jsonschema
import pytest

from catalog.errors import BadInput
from flows.compile import compile_template, parameter_schema, parse_input

TEMPLATES = Path(__file__).parents[1] / "data/templates"
PLAN = compile_template(TEMPLATES / "inputs.cwl").plan
FILE = TEMPLATES / "script.sh"


def test_schema_has_a_typed_field_for_each_fixed_input():
    schema = parameter_schema(PLAN, "decoding")
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["title"] == "decoding"
    assert schema["required"] == ["dataset", "inputs"]
    fields = schema["properties"]["inputs"]["properties"]
    assert "files" not in fields
    assert fields["count"] == {
        "title": "count", "type": "integer", "description": "How many", "default": 3, "position": 0,
    }  # fmt: skip
    types = {name: field.get("type") for name, field in fields.items()}
    assert types == {
        "count": "integer",
        "size": "integer",
        "share": "number",
        "flag": "boolean",
        "text": "string",
        "table": "string",
        "tables": "array",
        "level": "string",
        "cuts": "array",
        "either": None,
        "pair": "object",
    }
    assert fields["level"]["enum"] == ["low", "high"]
    assert fields["text"]["description"] == "A text"
    assert schema["properties"]["inputs"]["required"] == [
        "size", "flag", "table", "either", "pair",
    ]  # fmt: skip


def test_schema_accepts_what_fits_and_refuses_what_does_not():
    validator = jsonschema.Draft202012Validator(parameter_schema(PLAN, "decoding"))
    inputs = {"size": 5, "flag": True, "table": "t", "either": "x", "pair": {"x": 1}}
    assert validator.is_valid({"dataset": "run-1", "inputs": inputs, "rank": 2})
    for change in ({"size": "five"}, {"level": "mid"}, {"unheard": 1}, {"pair": {}}):
        assert not validator.is_valid({"dataset": "run-1", "inputs": {**inputs, **change}})
    assert not validator.is_valid({"dataset": "run-1"})


def test_template_without_inputs_needs_only_a_dataset():
    plan = compile_template(TEMPLATES / "branches.cwl").plan
    schema = parameter_schema(plan, "b")
    assert schema["required"] == ["dataset"]
    jsonschema.validate({"dataset": "run-1"}, schema)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("count", "4", 4),
        ("size", "-5000000000", -5000000000),
        ("share", "0.5", 0.5),
        ("share", "2", 2.0),
        ("share", "1e3", 1000.0),
        ("share", "1e-3", 1e-3),
        ("flag", "true", True),
        ("text", "5", "5"),
        ("text", "", ""),
        ("level", "high", "high"),
        ("cuts", "[3, 4]", [3, 4]),
        ("cuts", "[]", []),
        ("either", "7", 7),
        ("either", "seven", "seven"),
        ("pair", '{"x": 1}', {"x": 1, "y": None}),
        ("table", str(FILE), {"class": "File", "path": str(FILE)}),
        ("tables", f'["{FILE}"]', [{"class": "File", "path": str(FILE)}]),
    ],
)
def test_text_becomes_a_value_of_the_inputs_type(name, text, value):
    found = parse_input(PLAN, name, text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("count", "4.5", "must be int"),
        ("count", "true", "must be int"),
        ("count", "3000000000", "must be int"),
        ("count", "", "must be int"),
        ("flag", "1", "must be boolean"),
        ("share", "NaN", "must be double"),
        ("level", "mid", "enum of low/high"),
        ("cuts", "3", "JSON list"),
        ("cuts", "[3, x]", "JSON list"),
        ("cuts", '[3, "x"]', r"'cuts\[1\]' is 'x'"),
        ("pair", '{"y": "a"}', r"'pair.x' is None"),
        ("pair", '{"x": 1, "z": 2}', "no field 'z'; it has x, y"),
        ("pair", '{"x": 1, "x": 2}', "'x' stands twice in one JSON object"),
        ("pair", '{"x": ' * 5000, "nested too deeply"),
        ("cuts", "[1e400]", "must be"),
        ("count", "9" * 5000, r"9…, but must be int"),
        ("table", "/nix/nix", "there is no file '/nix/nix'"),
        ("table", str(TEMPLATES), "there is no file"),
        ("table", "~nobody-here/x", "nobody's home"),
        ("nix", "1", "no input 'nix'; it has count, size"),
        ("files", "1", "is the dataset"),
    ],
)
def test_text_that_does_not_fit_is_refused(name, text, reason):
    with pytest.raises(BadInput, match=reason):
        parse_input(PLAN, name, text)


def test_values_of_the_web_form_are_taken_as_they_are():
    assert parse_input(PLAN, "count", 4) == 4
    assert parse_input(PLAN, "tables", [str(FILE)]) == [{"class": "File", "path": str(FILE)}]
    assert parse_input(PLAN, "text", None) is None
    with pytest.raises(BadInput, match="must be int"):
        parse_input(PLAN, "count", 4.5)


def test_what_a_file_object_says_of_itself_is_kept(tmp_path):
    file = tmp_path / "a b"
    file.touch()
    said = {"basename": "b", "format": "http://x/y", "size": 0, "checksum": "sha1$0"}
    value = {"class": "File", "location": file.as_uri(), "contents": "", **said}
    expected = {"class": "File", "path": str(file), **said}
    assert parse_input(PLAN, "table", value) == expected
    with pytest.raises(BadInput, match="give a path"):
        parse_input(PLAN, "table", {"class": "File", "location": "https://example.org/x"})


def test_relative_path_becomes_absolute(monkeypatch):
    monkeypatch.chdir(TEMPLATES)
    assert parse_input(PLAN, "table", "script.sh") == {"class": "File", "path": str(FILE)}
