"""`spdf template try` on chains whose results could go wrong without a word."""

from pathlib import Path
from typing import Any

import pytest

HEAD = """\
cwlVersion: v1.2
class: Workflow
requirements:
  ScatterFeatureRequirement: {}
  InlineJavascriptRequirement: {}
  StepInputExpressionRequirement: {}
inputs:
  files: File[]
  x: {type: double, default: 1e3}
  rec:
    type: {type: record, fields: {name: string, suffix: string?}}
    default: {name: r}
outputs: []
steps:
"""
INDEX = """\
  index:
    scatter: file
    in: {file: files}
    out: [dat]
    run:
      class: CommandLineTool
      baseCommand: [sh, -c, 'echo d > work.dat; echo i > work.dat.idx; echo s > work.sum']
      inputs: {file: File}
      outputs:
        dat:
          type: File
          secondaryFiles: [.idx, ^.sum, {pattern: .bai, required: false}]
          outputBinding: {glob: work.dat}
  use:
    scatter: dat
    in: {dat: index/dat}
    out: [all]
    run:
      class: CommandLineTool
      baseCommand: [sh, -c, 'cd $(dirname $0); cat work.dat work.dat.idx work.sum']
      inputs:
        dat: {type: File, secondaryFiles: [.idx, ^.sum], inputBinding: {}}
      stdout: all.txt
      outputs: {all: stdout}
"""
TWICE = """\
  one:
    scatter: file
    in: {file: files}
    out: [sum]
    run: &cut
      class: CommandLineTool
      baseCommand: echo
      inputs: {file: {type: File, inputBinding: {}}}
      stdout: sum.txt
      outputs: {sum: stdout}
  two: {scatter: file, in: {file: files}, out: [sum], run: *cut}
  join:
    scatter: [a, b]
    scatterMethod: dotproduct
    in: {a: one/sum, b: two/sum}
    out: [all]
    run:
      class: CommandLineTool
      requirements: {InitialWorkDirRequirement: {listing: "$([inputs.a].concat(inputs.b))"}}
      baseCommand: [sh, -c, "cat sum*"]
      inputs: {a: File, b: File}
      stdout: all.txt
      outputs: {all: stdout}
"""
NUMBERS = """\
  measure:
    scatter: file
    in: {file: files, x: x}
    out: [y, pair]
    run:
      class: ExpressionTool
      inputs: {file: File, x: double}
      outputs:
        y: double
        pair: {type: {type: record, fields: {large: double, small: double, n: long}}}
      expression: "$({y: inputs.x, pair: {large: 1e23, small: 1.5e-7, n: 12}})"
  show:
    scatter: [file, y, pair]
    scatterMethod: dotproduct
    in: {file: files, y: measure/y, pair: measure/pair, x: x}
    out: [said]
    run:
      class: CommandLineTool
      baseCommand: echo
      arguments: ["$(inputs.pair.large)", "$(inputs.pair.small)", "$(inputs.pair.n)", "$(inputs.x)"]
      inputs:
        file: File
        x: double
        y: {type: double, inputBinding: {position: 1}}
        pair: {type: {type: record, fields: {large: double, small: double, n: long}}}
      stdout: said.txt
      outputs: {said: stdout}
"""
WHEN = """\
  show:
    scatter: file
    in: {file: files, x: x}
    when: $(inputs.y > 1)
    out: [said]
    run: &echo
      class: CommandLineTool
      baseCommand: echo
      inputs: {file: File}
      stdout: said.txt
      outputs: {said: stdout}
"""
VALUE_FROM = """\
  show:
    scatter: file
    in: {file: files, word: {valueFrom: "$('n' + inputs.file.nameroots)"}}
    out: [said]
    run:
      class: CommandLineTool
      baseCommand: echo
      inputs: {file: File, word: string}
      stdout: said.txt
      outputs: {said: stdout}
"""
RECORDS = """\
  make:
    scatter: file
    in:
      file: files
      rec: rec
      own: {default: {name: o}}
      word: {valueFrom: "$('w' + inputs.rec.suffix + inputs.own.suffix)"}
    out: [pair]
    run:
      class: CommandLineTool
      baseCommand: [sh, -c, 'echo $0; echo "{\\"pair\\": {\\"name\\": \\"p\\"}}" > cwl.output.json']
      inputs: {file: File, word: {type: string, inputBinding: {}}, rec: &pair %s, own: *pair}
      outputs: {pair: *pair}
  show:
    scatter: [file, pair]
    scatterMethod: dotproduct
    in: {file: files, pair: make/pair, rec: rec}
    out: [said]
    run:
      class: CommandLineTool
      baseCommand: echo
      arguments: ["$('x' + inputs.pair.%s + inputs.rec.suffix)"]
      inputs: {file: File, pair: *pair, rec: *pair}
      stdout: said.txt
      outputs: {said: stdout}
"""
SHARED = """\
  make:
    scatter: file
    in: {file: files}
    out: [main, all, said, raw, index]
    run:
      class: CommandLineTool
      requirements: {InitialWorkDirRequirement: {listing: [$(inputs.file)]}}
      baseCommand: [sh, -c, 'echo r > result.dat; echo i > result.dat.idx; echo said']
      inputs: {file: File}
      stdout: said.txt
      outputs:
        main: {type: File, secondaryFiles: [.idx], outputBinding: {glob: result.dat}}
        all: {type: "File[]", outputBinding: {glob: "*"}}
        said: stdout
        raw: {type: File, outputBinding: {outputEval: $(inputs.file)}}
        index: {type: File, outputBinding: {glob: "*.idx"}}
  use:
    scatter: [main, all, raw]
    scatterMethod: dotproduct
    in: {main: make/main, all: make/all, raw: make/raw}
    out: [sizes]
    run:
      class: CommandLineTool
      baseCommand: [sh, -c, 'cat "$@" | sort', x]
      inputs:
        main: {type: File, secondaryFiles: [.idx], inputBinding: {position: 1}}
        raw: {type: File, inputBinding: {position: 2}}
        all: {type: "File[]", inputBinding: {position: 3}}
      stdout: sizes.txt
      outputs: {sizes: stdout}
"""
PAIR = "{type: {type: record, fields: {name: string, suffix: string?}}}"


def tried(spdf: Any, folder: Path, steps: str, *options: object) -> Any:
    """What `template try` says, as JSON."""
    template, file = folder / "t.cwl", folder / "f.raw"
    template.write_text(HEAD + steps)
    file.write_text("raw\n")
    return spdf("template", "try", template, file, "--json", *options)


def test_secondary_files_are_kept_with_their_file(ok: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stages = tried(ok, tmp_path, INDEX, "--outdir", out).json["stages"]
    names = {"work.dat": "d\n", "work.dat.idx": "i\n", "work.sum": "s\n"}
    kept = {path.name: path.read_text() for path in (out / "index" / "dat").iterdir()}
    assert kept == names
    assert {Path(one["file"]).name for one in stages[0]["outputs"]} == set(names)
    assert (out / "use" / "all" / "all.txt").read_text() == "d\ni\ns\n"


def test_a_file_that_several_ports_name_is_an_output_of_each(ok: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tried(ok, tmp_path, SHARED, "--outdir", out)
    kept = {port.name: {} for port in (out / "make").iterdir()}
    for path in (out / "make").glob("*/*"):
        kept[path.parent.name][path.name] = path.read_text()
    result, index, raw, said = (
        {"result.dat": "r\n"}, {"result.dat.idx": "i\n"}, {"f.raw": "raw\n"},
        {"said.txt": "said\n"},
    )  # fmt: skip
    assert kept == {
        "main": {**result, **index}, "all": {**result, **index, **raw, **said}, "said": said,
        "raw": raw, "index": index,
    }  # fmt: skip
    lines = ["i", "r", "r", "raw", "raw", "said"]
    assert (out / "use" / "sizes" / "sizes.txt").read_text().splitlines() == lines
    assert (tmp_path / "f.raw").read_text() == "raw\n"


def test_two_inputs_of_one_name_fail_their_stage_and_are_named(spdf: Any, tmp_path: Path) -> None:
    done = tried(spdf, tmp_path, TWICE)
    join = done.json["stages"][2]
    assert done.code == 1 and join["error"] == "BAD_JOB_INPUT"
    assert join["reason"].count("sum.txt") >= 3
    assert "would both lie at 'sum.txt'" in join["reason"]


def test_numbers_go_through_a_chain_as_they_are(ok: Any, tmp_path: Path) -> None:
    for spelt in ("1000", "1000.0", "1e3"):
        out = tmp_path / spelt
        stages = tried(ok, tmp_path, NUMBERS, "--input", f"x={spelt}", "--outdir", out).json
        values = stages["stages"][0]["values"]
        assert values == {"y": 1000.0, "pair": {"large": 1e23, "small": 1.5e-7, "n": 12}}
        assert isinstance(values["y"], float) and isinstance(values["pair"]["n"], int)
        said = (out / "show" / "said" / "said.txt").read_text()
        assert said == f"1{'0' * 23} 0.00000015 12 1000 1000\n"


@pytest.mark.parametrize("number", ["1e400", "-1e999", f"1{'0' * 400}", "NaN"], ids=lambda n: n[:6])
def test_a_number_beyond_range_is_refused_where_it_is_given(
    spdf: Any, tmp_path: Path, number: str
) -> None:
    done = tried(spdf, tmp_path, NUMBERS, "--input", f"x={number}")
    assert done.code == 2 and "input 'x'" in done.err


@pytest.mark.parametrize(
    ("steps", "expression", "place"),
    [
        (WHEN, "$(inputs.y > 1)", "when"),
        (VALUE_FROM, "$('n' + inputs.file.nameroots)", "valueFrom of the step's input 'word'"),
    ],
)
def test_a_misspelt_name_of_a_step_fails_its_stage(
    spdf: Any, tmp_path: Path, steps: str, expression: str, place: str
) -> None:
    done = tried(spdf, tmp_path, steps)
    (stage,) = done.json["stages"]
    assert done.code == 1 and stage["error"] == "EXPRESSION_FAILED"
    assert expression in stage["reason"] and place in stage["reason"]


@pytest.mark.parametrize("given", [(), ("--input", 'rec={"name": "g"}')])
def test_a_field_that_a_record_leaves_out_is_null_wherever_it_comes_from(
    ok: Any, tmp_path: Path, given: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    tried(ok, tmp_path, RECORDS % (PAIR, "suffix"), "--outdir", out, *given)
    assert (out / "show" / "said" / "said.txt").read_text() == "xnullnull\n"


def test_a_misspelt_field_of_a_record_of_the_stage_before_fails(spdf: Any, tmp_path: Path) -> None:
    done = tried(spdf, tmp_path, RECORDS % (PAIR, "sufix"))
    show = done.json["stages"][1]
    assert done.code == 1 and show["error"] == "EXPRESSION_FAILED"
    assert "inputs.pair has no 'sufix'" in show["reason"] and "argument" in show["reason"]


QUIET = """\
  make:
    scatter: file
    in: {file: files}
    out: [made]
    run:
      class: CommandLineTool
      baseCommand: [sh, -c, "exit 3"]
      inputs: {file: File}
      stdout: %s
      outputs: {made: stdout}
"""


def test_nothing_is_said_to_be_where_nothing_is(spdf: Any, tmp_path: Path) -> None:
    template, file, out = tmp_path / "t.cwl", tmp_path / "f.raw", tmp_path / "out"
    template.write_text(HEAD + QUIET % "made.txt")
    file.write_text("raw\n")
    done = spdf("template", "try", template, file, "--outdir", out)
    assert done.code == 1
    assert "the payload ended with exit code 3\nit left no log.\n" in done.out
    assert done.out.endswith(f"nothing to keep came to {out}\n")


def test_a_name_made_of_the_inputs_that_is_too_long_is_told_of(spdf: Any, tmp_path: Path) -> None:
    template, file = tmp_path / "t.cwl", tmp_path / ("f" * 255)
    template.write_text(HEAD + QUIET % "$(inputs.file.basename).txt")
    file.write_text("raw\n")
    (stage,) = spdf("template", "try", template, file, "--json").json["stages"]
    assert stage["error"] == "OUTPUT_INVALID"
    name = f"{file.name}.txt"
    assert stage["reason"] == (
        f"stdout gives a name that is too long for a file (it may have 255 bytes): {name!r}; have "
        "the tool make a shorter one"
    )
