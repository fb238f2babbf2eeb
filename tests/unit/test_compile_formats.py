"""Formats go from step to step with the files, as far as the template tells them."""

from pathlib import Path
from typing import Any

import pytest

from catalog.errors import BadTemplate
from catalog.states import JobState
from flows.compile import compile_template
from flows.plan import plan_from_json, plan_to_json
from flows.trial import Trial, Trialled, from_file

HEAD = """\
cwlVersion: v1.2
class: Workflow
requirements:
  ScatterFeatureRequirement: {}
  SubworkflowFeatureRequirement: {}
  MultipleInputFeatureRequirement: {}
  StepInputExpressionRequirement: {}
  InlineJavascriptRequirement: {}
inputs: {files: {type: "File[]"DATASET}}
outputs: []
steps:
"""
MAKE = """\
  NAME:
    scatter: f
    in: {f: files}
    out: [o]
    run:
      class: CommandLineTool
      baseCommand: [echo, a]
      inputs: {f: File}
      stdout: o.txt
      outputs: {o: {type: File, outputBinding: {glob: o.txt}FORMAT}}
"""
SHOW = """\
  show:
    scatter: f
    in: {f: make/o}
    out: [o]
    run:
      class: CommandLineTool
      baseCommand: [echo, -n]
      arguments: ["$(inputs.f.format)"]
      inputs: {f: File}
      stdout: o.txt
      outputs: {o: stdout}
"""
MERGE = SHOW.replace("    scatter: f\n", "").replace("f: File}", 'f: "File[]"}')
MERGE = MERGE.replace("inputs.f.format", "inputs.f[0].format")
HITS = ", format: http://x/hits"


def made(form: str = "", name: str = "make") -> str:
    return MAKE.replace("FORMAT", form).replace("NAME", name)


def write(folder: Path, steps: str, dataset: str = "") -> Path:
    path = folder / "t.cwl"
    path.write_text(HEAD.replace("DATASET", dataset) + steps)
    return path


def shown(path: Path, stage: str = "show") -> tuple[Trialled, str | None]:
    """How the stage ended for one file, and what it printed."""
    file = path.parent / "raw.dat"
    file.write_text("raw")
    with Trial(from_file(path), file, {}) as trial:
        for found in trial.stages():
            if found.stage == stage:
                return found, next((at.read_text() for _, _, at, _ in found.files), None)
    raise AssertionError(f"no stage {stage}")


@pytest.mark.parametrize(
    ("steps", "dataset", "form"),
    [
        (made(HITS) + SHOW, "", "http://x/hits"),
        (made(HITS) + MERGE, "", "http://x/hits"),
        (made() + SHOW.replace("make/o", "files"), HITS, "http://x/hits"),
        (made(", format: $(inputs.f.format)") + SHOW, HITS, "http://x/hits"),
        (
            made(HITS)
            + SHOW.replace("f: make/o", "f: make/o, g: {source: make/o, valueFrom: $(self.format)}")
            .replace("scatter: f", "scatter: [f, g]\n    scatterMethod: dotproduct")
            .replace("inputs.f.format", "inputs.g")
            .replace("{f: File}", "{f: File, g: string}"),
            "",
            "http://x/hits",
        ),
    ],
)  # fmt: skip
def test_a_step_sees_the_format_that_its_source_declares(
    tmp_path: Path, steps: str, dataset: str, form: str
) -> None:
    found, text = shown(write(tmp_path, steps, dataset))
    assert (found.state, text) == (JobState.FINISHED, form), found.reason


def test_a_guard_by_format_lets_files_of_that_format_through(tmp_path: Path) -> None:
    guard = "    when: $(inputs.f.format == 'http://x/hits')\n    in: {f"
    path = write(tmp_path, made(HITS) + SHOW.replace("    in: {f", guard))
    assert shown(path)[0].state is JobState.FINISHED
    other = write(tmp_path, made(HITS.replace("hits", "raw")) + SHOW.replace("    in: {f", guard))
    assert shown(other)[0].state is JobState.SKIPPED


def test_the_format_that_a_subworkflow_declares_is_assigned_to_what_it_gives(
    tmp_path: Path,
) -> None:
    step = made(HITS).replace("in: {f: files}", "in: {f: f}").replace("    scatter: f\n", "")
    inner = "".join(f"      {line}\n" for line in step.splitlines())
    outer = f"""\
  w:
    scatter: f
    in: {{f: files}}
    out: [o]
    run:
      class: Workflow
      inputs: {{f: File}}
      outputs: {{o: {{type: File, outputSource: make/o, format: "http://x/tracks"}}}}
      steps:
{inner}"""
    found, text = shown(write(tmp_path, outer + SHOW.replace("make/o", "w/o")))
    assert text == "http://x/tracks", found.reason


@pytest.mark.parametrize(
    ("steps", "dataset"),
    [
        (made(", format: $('http://x/' + inputs.f.nameroot)") + SHOW, ""),
        (made() + SHOW.replace("make/o", "files"), ", format: [http://x/a, http://x/b]"),
        (
            made(HITS)
            + made(HITS.replace("hits", "raw"), "other")
            + MERGE.replace(
                "f: make/o",
                "f: {source: [make/o, other/o], linkMerge: merge_flattened}",
            ),
            "",
        ),
        (
            made(", format: $('http://x/' + inputs.f.nameroot)")
            + SHOW.replace("$(inputs.f.format)", "${ var a = inputs; return a.f['format']; }"),
            "",
        ),
        (
            made(", format: $('http://x/' + inputs.f.nameroot)")
            + SHOW.replace("$(inputs.f.format)", "$(fmt(inputs.f))").replace(
                "      baseCommand",
                "      requirements: {InlineJavascriptRequirement: {expressionLib: "
                '["function fmt(f) { return f.format; }"]}}\n      baseCommand',
            ),
            "",
        ),
    ],
)  # fmt: skip
def test_a_format_that_only_jobs_will_know_is_not_read_by_a_step_after_them(
    tmp_path: Path, steps: str, dataset: str
) -> None:
    with pytest.raises(BadTemplate, match="reads the `format` of its input 'f', which can't"):
        compile_template(write(tmp_path, steps, dataset))


@pytest.mark.parametrize("word", ["--format=$(inputs.f.basename)", "$(inputs.f.basename)"])
def test_an_unknown_format_that_nobody_reads_is_no_fault(tmp_path: Path, word: str) -> None:
    steps = made(", format: $('http://x/' + inputs.f.nameroot)") + SHOW
    compiled = compile_template(write(tmp_path, steps.replace("$(inputs.f.format)", word)))
    assert not [one for one in compiled.warnings if "`format` of its input" in one]


def test_reading_a_format_that_nothing_declares_is_a_warning(tmp_path: Path) -> None:
    compiled = compile_template(write(tmp_path, made() + SHOW))
    (warning,) = [one for one in compiled.warnings if "`format`" in one]
    assert "step 'show' reads the `format` of its input 'f', which has none" in warning


def test_a_plan_of_before_has_no_formats(tmp_path: Path) -> None:
    plan = compile_template(write(tmp_path, made(HITS) + SHOW)).plan
    assert plan_from_json(plan_to_json(plan)) == plan
    value: dict[str, Any] = plan_to_json(plan)
    for stage in value["stages"]:
        for one in stage["step"]["inputs"]:
            del one["format"]
    assert [one.format for stage in plan_from_json(value).stages for one in stage.step.inputs] == [
        None,
        None,
    ]
