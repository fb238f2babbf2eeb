"""A port of several sources: each job makes one value of its own, as CWL says."""

from pathlib import Path
from typing import Any

import pytest

from catalog.errors import BadTemplate
from catalog.states import JobState
from flows.compile import compile_template
from flows.plan import FixedLink, Source
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
"""
SHOW = """\
        class: CommandLineTool
        requirements: {InlineJavascriptRequirement: {}}
        baseCommand: [echo, -n]
        arguments: ["$(JSON.stringify(inputs.got))"]
        stdout: got.txt
        outputs: {out: stdout}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "t.cwl"
    path.write_text(HEAD + text)
    return path


def tried(path: Path, inputs: dict[str, Any] | None = None) -> list[Trialled]:
    """Each stage of the template, run on one file."""
    file = path.parent / "raw.dat"
    file.write_text("raw")
    with Trial(from_file(path), file, inputs or {}) as trial:
        return [
            Trialled(found.stage, found.state, found.reason, values=texts(found))
            for found in trial.stages()
        ]


def texts(found: Trialled) -> dict[str, str]:
    return {port: path.read_text() for port, _, path, _ in found.files}


def fixed_ports(port: str) -> str:
    return f"""\
inputs:
  files: File[]
  one: {{type: "int?", default: 1}}
  two: {{type: "int?"}}
  many: {{type: "int[]", default: [7, 8]}}
outputs: []
steps:
  a:
    scatter: file
    in:
      file: files
      got: {port}
    out: [out]
    run:
{SHOW}        inputs: {{file: File, got: Any}}
"""


@pytest.mark.parametrize(
    ("port", "given", "value"),
    [
        ("{source: [one, two]}", {"two": "2"}, "[1,2]"),
        ("{source: [one, many]}", {}, "[1,[7,8]]"),
        ("{source: [one, many], linkMerge: merge_nested}", {}, "[1,[7,8]]"),
        ("{source: [one, many], linkMerge: merge_flattened}", {}, "[1,7,8]"),
        ("{source: many, linkMerge: merge_nested}", {}, "[[7,8]]"),
        ("{source: one, linkMerge: merge_flattened}", {}, "[1]"),
        ("{source: [two, one]}", {}, "[null,1]"),
        ("{source: [two, one], pickValue: first_non_null}", {}, "1"),
        ("{source: [two, one], pickValue: first_non_null}", {"two": "2"}, "2"),
        ("{source: [two, one], pickValue: the_only_non_null}", {}, "1"),
        ("{source: [two, one], pickValue: all_non_null}", {}, "[1]"),
        ("{source: many, pickValue: first_non_null}", {}, "7"),
        ('{source: [one, two], valueFrom: "$(self[0] + self[1])"}', {"two": "2"}, "3"),
        ('{source: [one, two], valueFrom: "$(Object.keys(inputs).sort().join())"}', {},
         '"file,got"'),
        ('{source: [file, one], valueFrom: "$(self[0].basename + self[1])"}', {}, None),
    ],
)  # fmt: skip
def test_fixed_sources_are_one_value(
    port: str, given: dict[str, str], value: str | None, tmp_path: Path
) -> None:
    if value is None:
        port, value = port.replace("[file,", "[files,"), ""
        with pytest.raises(BadTemplate, match="combines the list over all files with single"):
            compile_template(write(tmp_path, fixed_ports(port)))
        return
    (found,) = tried(write(tmp_path, fixed_ports(port)), given)
    assert (found.state, found.values) == (JobState.FINISHED, {"out": value}), found.reason


def test_more_than_the_only_value_fails_the_job(tmp_path: Path) -> None:
    text = fixed_ports("{source: [two, one], pickValue: the_only_non_null}")
    (found,) = tried(write(tmp_path, text), {"two": "2"})
    assert found.state is JobState.FAILED
    assert found.reason is not None and "the_only_non_null" in found.reason


def test_the_plan_names_each_source(tmp_path: Path) -> None:
    text = fixed_ports('{source: [one, two], valueFrom: "$(self[0])"}')
    (stage,) = compile_template(write(tmp_path, text)).plan.stages
    assert stage.fixed == (FixedLink("got/0", "one"), FixedLink("got/1", "two"))
    made = {item.port: item for item in stage.step.inputs}["got"]
    assert (made.gather, made.flattened, made.pick) == (("got/0", "got/1"), False, None)


INSIDE = f"""\
inputs: {{files: "File[]", number: {{type: int, default: 5}}}}
outputs: {{o: {{type: "File[]", outputSource: s/out}}}}
steps:
  s:
    scatter: x
    in: {{x: files, number: number}}
    out: [out]
    run:
      class: Workflow
      inputs: {{x: File, number: int}}
      outputs: {{out: {{type: File, outputSource: c/out}}}}
      steps:
        a:
          in: {{file: x, got: {{default: left}}}}
          out: [out]
          run:
{SHOW}            inputs: {{file: File, got: string}}
        b:
          in: {{file: x, got: {{default: right}}}}
          out: [out]
          run:
{SHOW}            inputs: {{file: File, got: string}}
        c:
          in:
            got: PORT
          out: [out]
          run:
{SHOW}            inputs: {{got: Any}}
""".replace("\n        class", "\n            class").replace(
    "\n        requirements: {Inl", "\n            requirements: {Inl"
)


def inside(port: str) -> str:
    text = INSIDE.replace("PORT", port)
    for line in ("baseCommand: [echo", "arguments: [", "stdout: got", "outputs: {out: stdout}"):
        text = text.replace(f"\n        {line}", f"\n            {line}")
    return text


@pytest.mark.parametrize(
    ("port", "value"),
    [
        ('{source: [a/out, b/out], valueFrom: "$(self.map(function(f) { return f.size; }))"}',
         "[6,7]"),
        ('{source: [x, number, b/out], valueFrom: "$([self[0].basename, self[1], self[2].size])"}',
         '["raw.dat",5,7]'),
        ('{source: [a/out, b/out], pickValue: all_non_null, valueFrom: "$(self.length)"}', "2"),
    ],
)  # fmt: skip
def test_values_of_one_file_are_a_list_inside_of_a_scattered_subworkflow(
    port: str, value: str, tmp_path: Path
) -> None:
    *_, found = tried(write(tmp_path, inside(port)))
    assert (found.state, found.values) == (JobState.FINISHED, {"out": value}), found.reason


def test_branches_of_one_file_are_links_of_their_own(tmp_path: Path) -> None:
    plan = compile_template(write(tmp_path, inside("[a/out, b/out]"))).plan
    links = {link.port: link.sources for link in plan.stage("s.c").links}
    assert links == {"got/0": (Source("s.a", "out"),), "got/1": (Source("s.b", "out"),)}


def test_a_list_of_one_job_is_not_a_workflows_output(tmp_path: Path) -> None:
    text = inside("a/out").replace("outputSource: c/out", "outputSource: [a/out, b/out]")
    with pytest.raises(BadTemplate, match="combines several values of one job into a list"):
        compile_template(write(tmp_path, text))


def test_a_type_that_the_list_does_not_fit_is_refused(tmp_path: Path) -> None:
    text = fixed_ports("[one, two]").replace("got: Any", "got: int")
    with pytest.raises(BadTemplate, match=r"gets int\?\[\], but its input is int"):
        compile_template(write(tmp_path, text))
