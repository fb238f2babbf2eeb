"""Words that YAML takes for something else are what CWL says; what is no document is told so."""

import json
from pathlib import Path
from typing import Any

import pytest

from catalog.errors import BadTemplate
from workers.cwl.document import load_document
from workers.cwl.runner import run_document

WORDS = [
    *("010", "0o10", "0x1F", "0b11", "1_000", "+5", "1e3", ".5", "1.10", ".inf", ".nan", "1e400"),
    *("12:30:00", "2024-01-01", "2001-12-14t21:59:43.10-05:00", "="),
    *("yes", "no", "on", "off", "y", "n", "Yes", "NO", "true", "False"),
]
VALUES = {
    "010": 10, "0o10": 8, "0x1F": 31, "1_000": 1000, "+5": 5, "-0": 0, "1e3": 1000.0,
    ".5": 0.5, "1.10": 1.1, "true": True, "False": False,
}  # fmt: skip
TOOL = "cwlVersion: v1.2\nclass: CommandLineTool\nbaseCommand: echo\n"


def tool(folder: Path, text: str, head: str = TOOL) -> dict[str, Any]:
    path = folder / "t.cwl"
    path.write_text(head + text)
    return load_document(path)


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_what_was_written_wherever_a_string_is_asked_for(
    word: str, tmp_path: Path
) -> None:
    head = f"cwlVersion: v1.2\nclass: CommandLineTool\nbaseCommand: [echo, {word}]\n"
    got = tool(
        tmp_path,
        f"""\
label: {word}
doc: [{word}, b]
arguments: [{word}, {{prefix: {word}, valueFrom: {word}}}]
requirements:
  EnvVarRequirement: {{envDef: {{{word}: {word}, B: {{envValue: {word}}}}}}}
  InitialWorkDirRequirement: {{listing: [{{entryname: {word}, entry: {word}}}]}}
hints:
  SoftwareRequirement: {{packages: {{root: [{word}]}}}}
  spdf:Template: {{mask: {word}}}
inputs:
  {word}: {{type: string, inputBinding: {{prefix: {word}, itemSeparator: {word}}}}}
  e: {{type: {{type: enum, symbols: [{word}, other]}}}}
outputs:
  o: {{type: File, outputBinding: {{glob: [{word}]}}}}
stdout: {word}
""",
        head,
    )
    work, variables = got["requirements"][1], got["requirements"][0]
    assert got["baseCommand"] == ["echo", word]
    assert got["doc"] == [word, "b"]
    assert got["arguments"][0] == word
    assert got["inputs"][0]["id"] == word
    assert got["inputs"][1]["type"]["symbols"] == [word, "other"]
    assert got["outputs"][0]["outputBinding"]["glob"] == [word]
    assert got["hints"][0]["packages"]["root"] == [word]
    assert got["label"] == got["stdout"] == got["hints"][1]["mask"] == word
    assert got["arguments"][1] == {"prefix": word, "valueFrom": word}
    assert got["inputs"][0]["inputBinding"] == {"prefix": word, "itemSeparator": word}
    assert work["listing"] == [{"entryname": word, "entry": word}]
    assert variables["envDef"][word] == word and variables["envDef"]["B"] == {"envValue": word}


@pytest.mark.parametrize("word", ["null", "~"])
def test_a_null_is_nothing_but_in_a_list_of_strings(word: str, tmp_path: Path) -> None:
    got = tool(
        tmp_path,
        f"""\
label: {word}
stdout: {word}
arguments: [a, {word}]
outputs: []
inputs: {{a: {{type: {{type: enum, symbols: [{word}]}}, default: {word}}}, {word}: int}}
""",
    )
    assert got["label"] is None and got["stdout"] is None
    assert got["arguments"] == ["a", word]
    assert got["inputs"][0]["type"]["symbols"] == [word]
    assert got["inputs"][0]["default"] is None
    assert got["inputs"][1]["id"] == word


def test_the_sign_of_a_merge_is_a_string_where_it_merges_nothing(tmp_path: Path) -> None:
    assert tool(tmp_path, "label: <<\ninputs: []\noutputs: []\n")["label"] == "<<"


@pytest.mark.parametrize("word", WORDS)
def test_a_default_of_a_string_is_what_was_written(word: str, tmp_path: Path) -> None:
    got = tool(
        tmp_path,
        f"""\
outputs: []
inputs:
  a: {{type: string, default: {word}}}
  b: {{type: "string[]?", default: [{word}, x]}}
  c: {{type: {{type: record, fields: {{n: string}}}}, default: {{n: {word}}}}}
  d: {{type: {{type: enum, symbols: [{word}]}}, default: {word}}}
  e: {{type: File, default: {{class: File, basename: {word}, contents: {word}}}}}
""",
    )
    assert [one["default"] for one in got["inputs"]] == [
        word, [word, "x"], {"n": word}, word,
        {"class": "File", "basename": word, "contents": word},
    ]  # fmt: skip


@pytest.mark.parametrize("word", VALUES)
def test_a_word_elsewhere_is_its_value_and_keeps_its_type(word: str, tmp_path: Path) -> None:
    got = tool(tmp_path, f"outputs: []\ninputs: {{a: {{type: Any, default: [{word}]}}}}\n")
    (found,) = got["inputs"][0]["default"]
    assert (found, type(found)) == (VALUES[word], type(VALUES[word]))


@pytest.mark.parametrize("word", [*VALUES, "2024-01-01", "yes", "12:30:00"])
def test_an_input_of_a_job_is_what_its_type_says(word: str, tmp_path: Path) -> None:
    path = tmp_path / "t.cwl"
    path.write_text(
        """\
cwlVersion: v1.2
class: ExpressionTool
requirements: {InlineJavascriptRequirement: {}}
inputs: {text: string, some: "string[]", both: [int, double, boolean, string]}
outputs: {text: string, some: "string[]", both: Any}
expression: "$({text: inputs.text, some: inputs.some, both: inputs.both})"
"""
    )
    job = tmp_path / "job.yml"
    job.write_text(f"text: {word}\nsome: [{word}]\nboth: {word}\n")
    got = run_document(path, job, tmp_path / "out")
    assert got == {"text": word, "some": [word], "both": VALUES.get(word, word)}


def test_a_default_in_a_step_is_what_the_type_of_its_tool_says(tmp_path: Path) -> None:
    (tmp_path / "tool.cwl").write_text(TOOL + "inputs: {a: string, n: int}\noutputs: []\n")
    got = tool(
        tmp_path,
        """\
inputs: []
outputs: []
steps:
  s: {run: tool.cwl, out: [], in: {a: {default: 010}, n: {default: 010}}}
  t:
    run: {class: CommandLineTool, baseCommand: echo, inputs: {a: "string[]"}, outputs: []}
    out: []
    in: {a: {default: [2024-01-01, 1e3]}}
""",
        "cwlVersion: v1.2\nclass: Workflow\n",
    )
    first, second = got["steps"]
    assert [one["default"] for one in first["in"]] == ["010", 10]
    assert second["in"][0]["default"] == ["2024-01-01", "1e3"]


def test_types_are_named_by_words_that_yaml_takes_for_null(tmp_path: Path) -> None:
    got = tool(tmp_path, "outputs: []\ninputs: {a: {type: [null, int]}, b: null}\n")
    assert [one["type"] for one in got["inputs"]] == [["null", "int"], "null"]


def test_imported_and_included_texts_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "command.yml").write_text("[echo, 010, 2024-01-01]")
    (tmp_path / "date.txt").write_text("2024-01-01")
    head = "cwlVersion: v1.2\nclass: CommandLineTool\nbaseCommand: {$import: command.yml}\n"
    got = tool(tmp_path, "label: {$include: date.txt}\ninputs: []\noutputs: []\n", head)
    assert got["baseCommand"] == ["echo", "010", "2024-01-01"]
    assert got["label"] == "2024-01-01"


def test_a_document_in_json_is_taken_as_json(tmp_path: Path) -> None:
    document = {
        "cwlVersion": "v1.2", "class": "CommandLineTool", "baseCommand": ["echo", "π 😀"],
        "inputs": [], "outputs": [], "stdout": None,
    }  # fmt: skip
    path = tmp_path / "t.cwl"
    path.write_text(json.dumps(document, indent="\t"))
    assert load_document(path)["baseCommand"] == ["echo", "π 😀"]


@pytest.mark.parametrize("text", ["\ufeff" + TOOL, TOOL.replace("\n", "\r\n"), f"---\n{TOOL}"])
def test_marks_of_editors_do_not_matter(text: str, tmp_path: Path) -> None:
    got = tool(tmp_path, "inputs: []\noutputs: []\n...\n", text)
    assert got["baseCommand"] == "echo"


def test_aliases_and_merge_keys_are_copies(tmp_path: Path) -> None:
    got = tool(
        tmp_path,
        """\
outputs: []
inputs:
  a: &one {type: string, doc: first, inputBinding: &bound {prefix: -a, position: 1}}
  b: {<<: *one, doc: second}
  c: {type: int, inputBinding: {<<: [{prefix: -c}, *bound]}}
""",
    )
    first, second, third = got["inputs"]
    assert (second["type"], second["doc"]) == ("string", "second")
    assert second["inputBinding"] == first["inputBinding"]
    assert third["inputBinding"] == {"prefix": "-c", "position": 1}


_LAUGH = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)
_END = "inputs: []\noutputs: []\n"


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (_LAUGH, None, "aliases stand for more than"),
        ("a: &a [1, *a]", 1, "inside of what it names"),
        ("a: &a\n  b: {<<: *a}", 1, "inside of what it names"),
        ("a: {<<: 1}", 1, "`<<` takes in a mapping"),
        ("a: *b", 1, "undefined alias 'b'"),
        (f"{TOOL}label: a\ndoc: b\nlabel: c\n", 6, '"label", which stands in line 4 too'),
        (f"{TOOL}successCodes: [1]\n'successCodes': [2]\n", 5, "stands in line 4 too"),
        (f"{TOOL}inputs:\n\ta: int\n", 5, "indent by spaces"),
        (f"{TOOL}{_END}---\n{TOOL}{_END}", 6, "a second document"),
        ("", None, "is empty"),
        ("# nothing\n", None, "is empty"),
        ("[" * 3000 + "]" * 3000, None, "more than 100 levels"),
        ("\n".join(" " * n + "a:" for n in range(150)), 101, "more than 100 levels"),
        (f"{TOOL}label: !x y\n", 4, "the tag '!x'"),
        (f"{TOOL}label: !!binary aGVsbG8=\n", 4, "means nothing in CWL"),
        ("? [a]\n: b\n", 1, "keys are names"),
        (f"{TOOL}label: a\x01b\n", 4, "special characters"),
        (f'{TOOL}label: "\\ud83d"\n', 4, "one half of a character"),
        ("%YAML 1.3\n---\n" + TOOL, 1, "not valid YAML"),
        (f"{TOOL}successCodes: [99999999999999999999]\n{_END}", 4, "64 bits"),
        (f"{TOOL}successCodes: [{'9' * 5000}]\n{_END}", 4, "64 bits"),
        (f"{TOOL}outputs: []\ninputs: {{a: {{type: double, default: 1e400}}}}", 5, "finite"),
        (f"{TOOL}outputs: []\ninputs: {{a: {{type: Any, default: [.nan]}}}}", 5, "finite"),
        (f"{TOOL}{_END}requirements:\n  NetworkAccess: {{networkAccess: yes}}", 7, "true or false"),
        (f"{TOOL}{_END}requirements: {{ToolTimeLimit: {{timelimit: 0:30}}}}", 6, "a number or an"),
        (f"{TOOL}outputs: []\ninputs: {{a: {{type: int, inputBinding: {{position: 1.2.3}}}}}}", 5,
         "`position` is '1.2.3'"),
        (f"{TOOL}outputs: []\ninputs: {{a: {{type: int, inputBinding: {{separate: off}}}}}}", 5,
         "not valid CWL"),
        (f"{TOOL}{_END}$namespaces: 5\n", 6, "`$namespaces` is a mapping"),
        (f"{TOOL}{_END}$namespaces: {{a: [b]}}\n", 6, "`$namespaces` is a mapping"),
        (f"{TOOL}{_END}id: [a]\n", 6, "`id` is a list; it is a name"),
        (f"{TOOL}{_END}hints: [{{class: {{}}}}]\n", 6, "`class` is a mapping; it is a name"),
        (f"{TOOL}{_END}hints: {{$import: a.yml, b: c}}\n", 6, "`$import` stands alone"),
        (f"{TOOL}{_END}hints:\n  - $import: none.yml\n", 7, "$import of 'none.yml'"),
        ("cwlVersion: v1.2\n$graph: [5]\n", 2, "`$graph` is no list of processes"),
    ],
)  # fmt: skip
def test_what_is_no_document_is_refused_at_its_line(
    text: str, line: int | None, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "t.cwl"
    path.write_text(text)
    with pytest.raises(BadTemplate) as caught:
        load_document(path)
    assert reason in caught.value.reason
    assert caught.value.source == str(path)
    assert line is None or caught.value.line == line
    assert "\n" not in caught.value.reason


def test_a_document_beyond_any_size_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "t.cwl"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BadTemplate, match="more than 16 MiB"):
        load_document(path)


def test_a_document_may_be_called_as_the_file_system_allows(tmp_path: Path) -> None:
    path = tmp_path / "p#1" / "run:2 %20?.cwl"
    path.parent.mkdir()
    path.write_text(TOOL + _END)
    assert load_document(path)["baseCommand"] == "echo"
    assert load_document(path.as_uri())["baseCommand"] == "echo"
