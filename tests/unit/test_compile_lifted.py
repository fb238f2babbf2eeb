"""What CWL allows and a template may have: lists that one job makes, unused ports, loose ends."""

from pathlib import Path

import pytest

from catalog.errors import BadTemplate
from catalog.states import JobState
from flows.compile import compile_template
from flows.plan import Link, Source
from flows.trial import Trial, from_file

HEAD = """\
cwlVersion: v1.2
class: Workflow
requirements:
  ScatterFeatureRequirement: {}
  SubworkflowFeatureRequirement: {}
  MultipleInputFeatureRequirement: {}
  InlineJavascriptRequirement: {}
"""
SPLIT = """\
{class: CommandLineTool, baseCommand: [sh, -c, "for p in $0; do echo $p > $p.part; done"],
 arguments: [$(inputs.parts)], inputs: {file: File, parts: string},
 outputs: {out: {type: "File[]", outputBinding: {glob: "*.part"}}}}"""
COUNT = """\
{class: CommandLineTool, baseCommand: [sh, -c, 'echo $# "$@" | sed "s,/[^ ]*/,,g"', x],
 inputs: {list: {type: "File[]?", inputBinding: {position: 1}}}, stdout: out.txt,
 outputs: {out: stdout}}"""
CAT = """\
{class: CommandLineTool, baseCommand: cat, inputs: {file: {type: File, inputBinding: {}}},
 stdout: out.txt, outputs: {out: stdout}}"""


def write(folder: Path, text: str) -> Path:
    path = folder / "t.cwl"
    path.write_text(HEAD + text)
    return path


def lists(extra: str = "", guard: str = "") -> str:
    return f"""\
inputs: {{files: "File[]", parts: {{type: string, default: "a b"}}}}
outputs: []
steps:
  l: {{run: {SPLIT}, scatter: file, in: {{file: files, parts: parts}}, out: [out]{extra}}}
  c: {{run: {COUNT}, scatter: list, in: {{list: l/out}}, out: [out]{guard}}}
"""


def last(path: Path, inputs: dict[str, str]) -> tuple[JobState | None, str]:
    """The state of the last stage on one file, and what it made."""
    file = path.parent / "raw.dat"
    file.write_text("raw\n")
    with Trial(from_file(path), file, inputs) as trial:
        state, text = None, ""
        for found in trial.stages():
            state = found.state
            text = "".join(made.read_text() for _, _, made, _ in found.files)
        return state, text


@pytest.mark.parametrize(
    ("parts", "text"),
    [("a b c", "3 a.part b.part c.part\n"), ("one", "1 one.part\n"), ("", "0\n")],
)
def test_a_list_that_one_job_made_is_one_jobs_input(parts: str, text: str, tmp_path: Path) -> None:
    assert last(write(tmp_path, lists()), {"parts": parts}) == (JobState.FINISHED, text)


def test_a_list_that_was_not_made_is_null(tmp_path: Path) -> None:
    never = ", when: $(inputs.file.size > 99)"
    guarded = write(tmp_path, lists(never, ", when: $(inputs.list !== null)"))
    assert last(guarded, {}) == (JobState.SKIPPED, "")
    assert last(write(tmp_path, lists(never)), {}) == (JobState.FINISHED, "0\n")


def test_the_plan_tells_a_list_from_a_file(tmp_path: Path) -> None:
    link = compile_template(write(tmp_path, lists())).plan.stage("c").links[0]
    assert link == Link("list", (Source("l", "out"),), kind="File[]")


def sub(step_in: str, inputs: str, outputs: str, after: str = "") -> str:
    scatter = "scatter: file, " if "[]" in outputs else ""
    return f"""\
inputs: {{files: "File[]", number: {{type: int, default: 5}}}}
outputs: []
steps:
  s:
    {step_in}
    out: [out, same]
    run:
      class: Workflow
      inputs: {inputs}
      outputs:
        out: {{type: {outputs}, outputSource: a/out}}
        same: {{type: int, outputSource: n}}
      steps:
        a: {{run: {CAT}, {scatter}in: {{file: x}}, out: [out]}}
{after}"""


def test_an_input_that_a_subworkflow_passes_on_is_that_input(tmp_path: Path) -> None:
    text = sub(
        "in: {x: files, n: number}",
        '{x: "File[]", n: int}',
        '"File[]"',
        f"  b: {{run: {CAT.replace('inputs: {', 'inputs: {k: int, ')}, scatter: file, "
        "in: {file: s/out, k: s/same}, out: [out]}\n",
    )
    stage = compile_template(write(tmp_path, text)).plan.stage("b")
    assert [(link.port, link.input) for link in stage.fixed] == [("k", "number")]


def test_an_input_that_a_scattered_subworkflow_passes_on_is_refused(tmp_path: Path) -> None:
    text = sub("scatter: x\n    in: {x: files, n: number}", "{x: File, n: int}", "File")
    with pytest.raises(BadTemplate, match="connect what takes it to that input itself"):
        compile_template(write(tmp_path, text))


def test_a_port_that_a_subworkflow_does_not_have_is_warned_of(tmp_path: Path) -> None:
    text = sub("in: {x: files, n: number, m: number}", '{x: "File[]", n: int}', '"File[]"')
    assert any(
        "has the port 'm'" in one for one in compile_template(write(tmp_path, text)).warnings
    )


def test_contents_of_the_datasets_files_may_be_loaded(tmp_path: Path) -> None:
    text = """\
inputs: {files: {type: "File[]", loadContents: true, default: []}}
outputs: []
steps:
  a:
    scatter: file
    in: {file: files}
    out: [out]
    run:
      class: CommandLineTool
      arguments: [echo, -n, $(inputs.file.contents)]
      inputs: {file: File}
      stdout: out.txt
      outputs: {out: stdout}
"""
    path = write(tmp_path, text)
    assert last(path, {}) == (JobState.FINISHED, "raw\n")
    warnings = compile_template(path).warnings
    assert any("has a default, which is never used" in one for one in warnings)


def test_an_output_of_the_workflow_may_gather_what_has_no_keys_in_common(tmp_path: Path) -> None:
    merge = CAT.replace("inputs: {file: {type: File,", 'inputs: {file: {type: "File[]",')
    text = f"""\
inputs: {{files: "File[]"}}
outputs: {{all: {{type: "File[]", outputSource: [m/out, a/out], linkMerge: merge_flattened}}}}
steps:
  a: {{run: {CAT}, scatter: file, in: {{file: files}}, out: [out]}}
  m: {{run: {merge}, in: {{file: a/out}}, out: [out]}}
"""
    plan = compile_template(write(tmp_path, text)).plan
    assert [stage.is_output for stage in plan.stages] == [("out",), ("out",)]
    with pytest.raises(BadTemplate, match="'a/uot', which does not exist"):
        compile_template(write(tmp_path, text.replace("m/out, a/out", "m/out, a/uot")))


def test_a_step_may_have_no_outputs(tmp_path: Path) -> None:
    text = """\
inputs: {files: "File[]"}
outputs: []
steps:
  tell:
    run: {class: CommandLineTool, baseCommand: [test, -s], outputs: [],
          inputs: {file: {type: File, inputBinding: {}}}}
    scatter: file
    in: {file: {source: files, loadListing: no_listing}}
    out: []
"""
    assert last(write(tmp_path, text), {}) == (JobState.FINISHED, "")
    inside = """\
inputs: {files: "File[]"}
outputs: []
steps:
  s:
    scatter: x
    in: {x: files}
    out: []
    run:
      class: Workflow
      inputs: {x: File}
      outputs: []
      steps:
        tell:
          run: {class: CommandLineTool, baseCommand: [test, -d], outputs: [],
                inputs: {file: {type: File, inputBinding: {}}}}
          in: {file: x}
          out: []
"""
    assert last(write(tmp_path, inside), {}) == (JobState.FAILED, "")
