"""A packed document gives the plan of what it was packed from."""

import json
from pathlib import Path
from typing import Any

import pytest

from catalog.errors import BadTemplate
from flows.compile import compile_template
from flows.plan import Plan
from tests.documents import TYPED_WORKFLOW, typed

MODE = {"name": "#types.yml/mode", "type": "enum", "symbols": ["#types.yml/mode/fast", "slow"]}
LIB = {
    "name": "#types.yml/lib",
    "type": "record",
    "fields": [
        {"name": "#types.yml/lib/idx", "type": ["null", "int"]},
        {"name": "#types.yml/lib/mode", "type": "#types.yml/mode"},
    ],
}
FORMAT = "http://edamontology.org/format_1930"
PACKED: dict[str, Any] = {
    "cwlVersion": "v1.2",
    "$namespaces": {"edam": "http://edamontology.org/"},
    "$graph": [
        {
            "class": "CommandLineTool",
            "id": "#tool.cwl",
            "$namespaces": {"edam": "http://edamontology.org/"},
            "requirements": [
                {"class": "SchemaDefRequirement", "types": [MODE, LIB], "id": "#types.yml"},
                {"class": "InlineJavascriptRequirement"},
            ],
            "baseCommand": "echo",
            "stdout": "out.txt",
            "arguments": ["$(inputs.lib.idx)", "2024-01-01"],
            "inputs": [
                {"id": "#tool.cwl/file", "type": "File", "format": FORMAT, "inputBinding": {}},
                {"id": "#tool.cwl/lib", "type": "#types.yml/lib"},
            ],
            "outputs": [
                {
                    "id": "#tool.cwl/out",
                    "type": "File",
                    "format": FORMAT,
                    "outputBinding": {"glob": "out.txt"},
                }
            ],
        },
        {
            "class": "Workflow",
            "id": "#main",
            "requirements": [
                {"class": "ScatterFeatureRequirement"},
                {"class": "SubworkflowFeatureRequirement"},
                {
                    "class": "SchemaDefRequirement",
                    "types": [{"$import": "#types.yml/mode"}, {"$import": "#types.yml/lib"}],
                },
            ],
            "hints": [
                {"class": "https://spdf.readthedocs.io/ns#Template", "mask": "run-[0-9]"},
            ],
            "inputs": [
                {
                    "id": "#main/files",
                    "type": {"type": "array", "items": "File"},
                    "format": FORMAT,
                },
                {"id": "#main/lib", "type": "#types.yml/lib"},
            ],
            "outputs": [
                {
                    "id": "#main/o",
                    "type": {"type": "array", "items": "File"},
                    "outputSource": "#main/b/out",
                }
            ],
            "steps": [
                {
                    "id": "#main/a",
                    "run": "#tool.cwl",
                    "scatter": "#main/a/file",
                    "in": [
                        {"id": "#main/a/file", "source": "#main/files"},
                        {"id": "#main/a/lib", "source": "#main/lib"},
                    ],
                    "out": ["#main/a/out"],
                },
                {
                    "id": "#main/b",
                    "scatter": "#main/b/file",
                    "hints": [{"class": "https://spdf.readthedocs.io/ns#Stage", "retry": 5}],
                    "in": [
                        {"id": "#main/b/file", "source": "#main/a/out"},
                        {"id": "#main/b/lib", "source": "#main/lib"},
                    ],
                    "out": ["#main/b/out"],
                    "run": {
                        "class": "Workflow",
                        "inputs": [
                            {"id": "#main/b/run/file", "type": "File"},
                            {"id": "#main/b/run/lib", "type": "#types.yml/lib"},
                        ],
                        "outputs": [
                            {
                                "id": "#main/b/run/out",
                                "type": "File",
                                "outputSource": "#main/b/run/c/out",
                            }
                        ],
                        "steps": [
                            {
                                "id": "#main/b/run/c",
                                "run": "#tool.cwl",
                                "in": [
                                    {"id": "#main/b/run/c/file", "source": "#main/b/run/file"},
                                    {"id": "#main/b/run/c/lib", "source": "#main/b/run/lib"},
                                ],
                                "out": [{"id": "#main/b/run/c/out"}],
                            }
                        ],
                    },
                },
            ],
        },
    ],
}


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """The plan of the documents that `PACKED` was packed from."""
    return compile_template(typed(tmp_path)).plan


def packed(folder: Path, text: str, name: str = "packed.cwl") -> Plan:
    (folder / name).write_text(text)
    return compile_template(folder / name).plan


def test_what_cwltool_packs_gives_the_same_plan(plan: Plan, tmp_path: Path) -> None:
    assert packed(tmp_path, json.dumps(PACKED)) == plan


def test_ids_may_be_absolute_or_bare(plan: Plan, tmp_path: Path) -> None:
    text = json.dumps(PACKED)
    address = (tmp_path / "elsewhere.cwl").as_uri()
    absolute = text.replace('"#main', f'"{address}#main')
    assert packed(tmp_path, absolute) == plan
    bare = text.replace('"id": "#main"', '"id": "main"').replace(
        '"id": "#tool.cwl"', '"id": "tool.cwl"'
    )
    assert packed(tmp_path, bare) == plan


def test_a_whole_requirement_that_both_import_stands_once(plan: Plan, tmp_path: Path) -> None:
    document = json.loads(json.dumps(PACKED))
    document["$graph"][1]["requirements"][2] = {"$import": "#types.yml"}
    assert packed(tmp_path, json.dumps(document)) == plan


def test_the_same_document_in_yaml_with_embedded_namespaces(plan: Plan, tmp_path: Path) -> None:
    tool = json.loads(json.dumps(PACKED["$graph"][0]))
    document = json.loads(json.dumps(PACKED))["$graph"][1]
    document["cwlVersion"] = "v1.2"
    document["requirements"][2]["types"] = [MODE, LIB]
    document["steps"][0]["run"] = document["steps"][1]["run"]["steps"][0]["run"] = tool
    tool["$schemas"] = ["https://edamontology.org/EDAM_1.18.owl"]
    assert packed(tmp_path, json.dumps(document)) == plan


def test_types_of_one_name_from_two_files_are_two_types(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("{name: lib, type: record, fields: {x: int}}")
    (tmp_path / "b.yml").write_text("{name: lib, type: record, fields: {y: string}}")
    text = (
        TYPED_WORKFLOW.replace("{types: [{$import: types.yml}]}",
                         "{types: [{$import: a.yml}, {$import: b.yml}]}")
        .partition("outputs:")[0].replace("lib: types.yml#lib", "one: a.yml#lib\n  two: b.yml#lib")
    )  # fmt: skip
    text += """\
outputs: []
steps:
  a:
    run: {class: CommandLineTool, baseCommand: cat, inputs: {f: File}, outputs: {o: stdout}}
    scatter: f
    in: {f: files}
    out: [o]
"""
    one, two = packed(tmp_path, text).fixed
    assert [one.type["fields"][0]["name"], two.type["fields"][0]["name"]] == ["x", "y"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"$import": "#types.yml/none"}, "which .* does not have"),
        ({"$import": "#main"}, "leads back to itself"),
    ],
)
def test_an_import_of_a_name_that_cannot_be_followed_is_refused(
    change: dict[str, str], reason: str, tmp_path: Path
) -> None:
    document = json.loads(json.dumps(PACKED))
    document["$graph"][1]["requirements"][2]["types"] = [change]
    with pytest.raises(BadTemplate, match=reason) as caught:
        packed(tmp_path, json.dumps(document, indent=1))
    assert caught.value.line is not None


def test_a_graph_without_main_names_what_it_has(tmp_path: Path) -> None:
    text = json.dumps(PACKED).replace("#main", "#chain")
    with pytest.raises(BadTemplate, match=r"no process 'main'.*'tool.cwl', 'chain'"):
        packed(tmp_path, text)


def test_defaults_of_a_steps_inputs_are_typed_and_embedded(tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_text("hello")
    (tmp_path / "tool.cwl").write_text(
        """\
cwlVersion: v1.2
class: CommandLineTool
baseCommand: echo
inputs:
  f: File
  g: File
  h: File[]
  r: {type: {type: record, fields: {n: string, k: int}}}
  q: Any
stdout: o
outputs: {o: stdout}
"""
    )
    text = """\
cwlVersion: v1.2
class: Workflow
requirements: {ScatterFeatureRequirement: {}}
inputs: {files: "File[]"}
outputs: []
steps:
  a:
    scatter: f
    in:
      f: files
      g: {default: {class: File, basename: 010, contents: 1e3}}
      h: {default: [{class: File, location: d.txt, basename: 2024-01-01}]}
      r: {default: {n: 010, k: 010}}
      q: {default: {x: 1e3, y: [010], z: null}}
    out: [o]
    run: tool.cwl
"""
    (stage,) = packed(tmp_path, text).stages
    assert {item.port: item.default for item in stage.step.inputs} == {
        "f": None,
        "g": {"class": "File", "basename": "010", "contents": "1e3"},
        "h": [{"class": "File", "basename": "2024-01-01", "contents": "hello"}],
        "r": {"n": "010", "k": 10},
        "q": {"x": 1000.0, "y": [10], "z": None},
    }
