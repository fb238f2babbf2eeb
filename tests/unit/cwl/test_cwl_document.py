"""Reading CWL documents: one packed form out of many ways to write it."""

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from catalog.errors import BadInput, BadTemplate
from workers.cwl import load_tool
from workers.cwl.document import line_of, load_document, resolve
from workers.cwl.runner import load_job


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


TOOL = """\
    cwlVersion: v1.2
    class: CommandLineTool
    baseCommand: cat
    inputs:
      one: File
      many: string[]?
      more:
        type: File
        format: edam:format_1
        secondaryFiles: [.a, ^.b?]
        default: {class: File, location: data/x.txt}
    outputs:
      out: stdout
    $namespaces: {edam: "http://edam/"}
    $schemas: [kinds.ttl]
    """


def test_the_packed_form_of_a_tool(tmp_path: Path) -> None:
    got = load_document(write(tmp_path, "t.cwl", TOOL))
    types = {one["id"]: one["type"] for one in got["inputs"]}
    assert types == {
        "one": "File", "many": ["null", {"type": "array", "items": "string"}], "more": "File",
    }  # fmt: skip
    more = got["inputs"][2]
    assert more["format"] == "http://edam/format_1"
    assert more["secondaryFiles"] == [
        {"pattern": ".a", "required": None}, {"pattern": "^.b", "required": False},
    ]  # fmt: skip
    assert more["default"]["location"] == (tmp_path / "data/x.txt").as_uri()
    assert got["$schemas"] == [(tmp_path / "kinds.ttl").as_uri()]
    assert (got["id"], got["requirements"], got["hints"]) == ("t.cwl", [], [])


def test_packing_what_is_packed_changes_nothing(tmp_path: Path) -> None:
    packed = load_document(write(tmp_path, "t.cwl", TOOL))
    again = write(tmp_path, "again.cwl", "")
    again.write_text(json.dumps(packed))
    assert load_document(again) == packed
    assert load_tool(packed).name == "t.cwl"


def test_imports_includes_and_mixins(tmp_path: Path) -> None:
    write(tmp_path, "parts/types.yml", "- {name: Pair, type: record, fields: {l: int, r: 'File?'}}")
    write(tmp_path, "parts/script.js", "function f() { return 1; }")
    write(tmp_path, "parts/input.yml", "type: File\ndefault: {class: File, location: near.txt}\n")
    path = write(
        tmp_path,
        "t.cwl",
        """\
        cwlVersion: v1.2
        class: CommandLineTool
        requirements:
          - class: SchemaDefRequirement
            types: [{$import: parts/types.yml}]
          - class: InlineJavascriptRequirement
            expressionLib: [{$include: parts/script.js}]
        baseCommand: [cat]
        inputs:
          - {id: p, type: "parts/types.yml#Pair"}
          - {id: m, $mixin: parts/input.yml}
        outputs: []
        """,
    )
    got = load_document(path)
    assert [one["class"] for one in got["requirements"]] == ["InlineJavascriptRequirement"]
    assert got["requirements"][0]["expressionLib"] == ["function f() { return 1; }"]
    pair, mixed = got["inputs"]
    assert [(one["name"], one["type"]) for one in pair["type"]["fields"]] == [
        ("l", "int"), ("r", ["null", "File"]),
    ]  # fmt: skip
    assert mixed["default"]["location"] == (tmp_path / "parts/near.txt").as_uri()


WORKFLOW = """\
    cwlVersion: v1.2
    $graph:
      - id: tool
        class: CommandLineTool
        baseCommand: cat
        inputs: {x: File}
        outputs: {o: stdout}
      - id: main
        class: Workflow
        inputs: {files: "File[]"}
        outputs:
          all: {type: "File[]", outputSource: last/o}
        requirements: {ScatterFeatureRequirement: {}}
        steps:
          first: {run: "#tool", in: {x: files}, out: [o], scatter: x}
          last:
            run: sub/tool.cwl
            in:
              x: {source: first/o}
            out: [{id: o}]
            scatter: [x]
    """


def test_a_workflow_with_its_runs(tmp_path: Path) -> None:
    write(tmp_path, "sub/tool.cwl", TOOL.replace("one: File", "x: File"))
    path = write(tmp_path, "wf.cwl", WORKFLOW)
    got = resolve(path)
    assert [one["run"] for one in got["steps"]] == [
        f"{path.as_uri()}#tool", (tmp_path / "sub/tool.cwl").as_uri(),
    ]  # fmt: skip
    packed = load_document(path)
    first, last = packed["steps"]
    assert first["run"]["baseCommand"] == "cat" and last["run"]["inputs"][0]["id"] == "x"
    assert (first["scatter"], first["out"], last["out"]) == (["x"], ["o"], ["o"])
    assert last["in"] == [{"id": "x", "source": "first/o"}]
    assert packed["outputs"][0]["outputSource"] == "last/o"
    assert load_document(f"{path}#tool")["class"] == "CommandLineTool"


def test_nodes_know_their_lines(tmp_path: Path) -> None:
    write(tmp_path, "sub/tool.cwl", TOOL)
    got = resolve(write(tmp_path, "wf.cwl", WORKFLOW))
    lines = WORKFLOW.splitlines()

    def text_at(node: Any, key: str | None = None) -> str:
        line = line_of(node, key)
        assert line is not None
        return lines[line - 1].strip()

    assert text_at(got["steps"][1]).startswith(("last:", "run: sub"))
    assert text_at(got["steps"][1], "run") == "run: sub/tool.cwl"
    assert text_at(got["steps"][1]["in"][0], "source") == "x: {source: first/o}"
    assert text_at(got["outputs"][0], "outputSource").startswith("all:")


def test_older_versions_get_what_they_implied(tmp_path: Path) -> None:
    text = TOOL.replace("v1.2", "v1.0").replace("^.b?", "^.b")
    got = load_document(write(tmp_path, "t.cwl", text))
    assert got["cwlVersion"] == "v1.2"
    assert load_tool(got).load_listing == "deep_listing"


@pytest.mark.parametrize(
    ("text", "reason", "line"),
    [
        ("a: [", "not valid YAML", 1),
        ("- 1", "no mapping .*; write `cwlVersion: v1.2`", None),
        ("class: CommandLineTool", "there is no cwlVersion", 1),
        ("cwlVersion: v9.9\nclass: CommandLineTool", "'v9.9'", 1),
        ("cwlVersion: v1.2\nclass: Sorcery", "not valid CWL", None),
        ("cwlVersion: v1.2\nclass: CommandLineTool\ninputs: []\noutputs: []\nbogus: 1", "bogus", 5),
        ("cwlVersion: v1.2\nclass: CommandLineTool\ninputs: {x: Feil}\noutputs: []", "Feil", 3),
        ("$import: t.cwl", "leads back", None),
        ("cwlVersion: v1.2\n$graph: []", "no process 'main'", None),
    ],
)
def test_bad_documents(tmp_path: Path, text: str, reason: str, line: int | None) -> None:
    path = tmp_path / "t.cwl"
    path.write_text(text)
    with pytest.raises(BadTemplate, match=reason.replace("$", r"\$")) as caught:
        load_document(path)
    assert caught.value.source == str(path)
    if line is not None:
        assert caught.value.line == line


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("$schemas: ['file://[x']", 6),
        ("inputs: {f: {type: File, default: {class: File, location: 'file://[x'}}}", 6),
        ("hints: [{$import: 'file://[x'}]", 6),
        ("hints: [{$import: '//[x'}]", 6),
        ("doc: {$include: 'file://[x'}", 6),
        ("hints: {$mixin: 'http://[x'}", 6),
    ],
)
def test_an_address_that_is_none_is_named_with_its_line(
    tmp_path: Path, field: str, line: int
) -> None:
    text = "cwlVersion: v1.2\nclass: CommandLineTool\nbaseCommand: a\nid: x\noutputs: []\n"
    rest = "" if field.startswith("inputs") else "\ninputs: []\n"
    path = tmp_path / "t.cwl"
    path.write_text(f"{text}{field}{rest}")
    with pytest.raises(BadTemplate, match=r"\[x") as caught:
        load_document(path)
    assert caught.value.line == line


@pytest.mark.parametrize("path", ["file://[x", "//[x"])
def test_a_document_at_an_address_that_is_none(path: str) -> None:
    with pytest.raises(BadTemplate, match=r"\[x' is no address"):
        load_document(path)


@pytest.mark.parametrize("place", ["file://[x", "file://[$(x)"])
def test_a_job_order_with_a_location_that_is_none(tmp_path: Path, place: str) -> None:
    job = write(tmp_path, "job.yml", f"f: [{{class: File, location: '{place}'}}]")
    with pytest.raises(BadInput, match=re.escape(f"{place!r} is no address")):
        load_job(job, {"inputs": []})


def test_ontologies_stay_with_a_document_whose_names_are_addresses(tmp_path: Path) -> None:
    path = write(tmp_path, "t.cwl", TOOL)
    path.write_text(f"id: file:///elsewhere/t.cwl#main\n{path.read_text()}")
    assert load_document(path)["$schemas"] == [(tmp_path / "kinds.ttl").as_uri()]


def test_a_document_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadTemplate, match="can't be read"):
        load_document(tmp_path / "none.cwl")
    with pytest.raises(BadTemplate, match="not fetched"):
        load_document("https://example.org/tool.cwl")


def test_a_workflow_that_runs_itself_is_refused(tmp_path: Path) -> None:
    text = WORKFLOW.replace("sub/tool.cwl", "wf.cwl#main")
    with pytest.raises(BadTemplate, match="which runs this step"):
        load_document(write(tmp_path, "wf.cwl", text))


SYMBOLS = """\
    cwlVersion: v1.2
    class: CommandLineTool
    requirements: {SchemaDefRequirement: {types: [{name: mode, type: enum, symbols: [N/A, on]}]}}
    baseCommand: echo
    inputs:
      a: {type: {type: enum, symbols: [low, N/A, image/png]}, default: N/A}
      b: {type: {type: enum, name: kind, symbols: [N/A, a/b/c]}}
      c: mode
      d: {type: {type: record, fields: {e: {type: {type: enum, symbols: [x/y]}}}}}
      e: {type: {type: array, items: {type: enum, symbols: [x/y]}}}
      f: {type: ["null", {type: enum, symbols: [http://x/y]}]}
    outputs: []
"""


def symbols(value: Any) -> list[list[str]]:
    """The symbols of all enums in a document's inputs."""
    if isinstance(value, dict):
        found = [value["symbols"]] if value.get("type") == "enum" else []
        return found + [each for one in value.values() for each in symbols(one)]
    return [each for one in value for each in symbols(one)] if isinstance(value, list) else []


EXPECTED = [["low", "N/A", "image/png"], ["N/A", "a/b/c"], ["N/A", "on"], ["x/y"], ["x/y"]]


def test_symbols_are_kept_as_they_are_written(tmp_path: Path) -> None:
    text = SYMBOLS.replace("a/b/c", '"a/b#c"')
    got = load_document(write(tmp_path, "t.cwl", text))
    expected = [[one.replace("a/b/c", "a/b#c") for one in each] for each in EXPECTED]
    assert symbols(got["inputs"]) == [*expected, ["http://x/y"]]


def test_symbols_of_a_packed_document_are_those_of_what_was_packed(tmp_path: Path) -> None:
    path = write(tmp_path, "t.cwl", SYMBOLS)
    packing = [sys.executable, "-m", "cwltool", "--pack", str(path)]
    packed = subprocess.run(packing, capture_output=True, text=True, check=True).stdout
    assert "#main/a/N/A" in packed
    got = load_document(write(tmp_path, "packed.cwl", packed))
    assert symbols(got["inputs"])[:5] == EXPECTED
