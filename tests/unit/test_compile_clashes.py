"""Files that would lie at one path of a work folder in every job are refused with their line."""

from pathlib import Path

import pytest

from catalog.errors import BadTemplate
from flows.compile import compile_template
from flows.plan import StageKind

HEAD = """\
cwlVersion: v1.2
class: Workflow
$namespaces: {spdf: "https://spdf.readthedocs.io/ns#"}
requirements:
  ScatterFeatureRequirement: {}
  StepInputExpressionRequirement: {}
  MultipleInputFeatureRequirement: {}
  InlineJavascriptRequirement: {}
  SubworkflowFeatureRequirement: {}
inputs: {files: "File[]"}
outputs: []
steps:
"""
MAP = """\
  map:
    scatter: file
    in: {file: files}
    out: [sum]
    run:
      class: CommandLineTool
      baseCommand: cat
      inputs: {file: {type: File, inputBinding: {}}}
      stdout: sum.txt
      outputs: {sum: stdout}
"""
MERGE = """\
  merge:
    in: {sums: map/sum}
    out: [all]
    run:
      class: CommandLineTool
      requirements:
        InitialWorkDirRequirement:
          listing:
            - $(inputs.sums) # HERE
      baseCommand: [sh, -c, "cat sum*"]
      inputs: {sums: "File[]"}
      stdout: all.txt
      outputs: {all: stdout}
"""
ENTRY = "- $(inputs.sums) # HERE"
GLOB = "outputs: {sum: {type: File, outputBinding: {glob: %s}}}"
SHORT = "outputs: {sum: stdout}"
WHOLE = "          listing:\n            - $(inputs.sums) # HERE"
SECOND = MAP.replace("  map:", "  next:").replace("files}", "map/sum}")
STEPS = """\
  %s:
    scatter: file
    in: {file: files}
    out: [sum]
    run: {class: CommandLineTool, inputs: {file: File}, baseCommand: %s, stdout: %s, outputs: {sum: stdout}}
"""  # noqa: E501
JOIN = """\
  join:
    scatter: [a, b]
    scatterMethod: dotproduct
    in: {a: one/sum, b: two/sum}
    out: [all]
    run:
      class: CommandLineTool
      requirements:
        InitialWorkDirRequirement:
          listing:
            - $(inputs.a)
            - $(inputs.b) # HERE
      baseCommand: [sh, -c, "cat sum*"]
      inputs: {a: File, b: File}
      stdout: all.txt
      outputs: {all: stdout}
"""
ITEM = "- $(inputs.b)"
TWO = STEPS % ("one", "head", "sum.txt") + STEPS % ("two", "tail", "sum.txt")


def compiled(folder: Path, text: str) -> StageKind:
    """What the last stage of the template is."""
    path = folder / "t.cwl"
    path.write_text(HEAD + text)
    return compile_template(path).plan.stages[-1].kind


def refused(folder: Path, text: str) -> str:
    """Why the template is refused, at the line that is marked."""
    with pytest.raises(BadTemplate) as caught:
        compiled(folder, text)
    lines = [at for at, line in enumerate((HEAD + text).splitlines(), 1) if "HERE" in line]
    assert caught.value.line in lines, caught.value
    return caught.value.reason


@pytest.mark.parametrize(
    "listing",
    [
        ENTRY,
        "- {entry: $(inputs.sums)} # HERE",
        "- {entry: $(inputs.sums), writable: true} # HERE",
        '- $(inputs["sums"]) # HERE',
        "- $([inputs.sums]) # HERE",
        "- $([[inputs.sums, ], ]) # HERE",
        '- "${ return [inputs.sums]; }" # HERE',
    ],
)
def test_a_merge_that_lists_files_of_one_name_is_refused_however_it_says_so(
    tmp_path: Path, listing: str
) -> None:
    reason = refused(tmp_path, MAP + MERGE.replace(ENTRY, listing))
    assert reason.startswith(
        "all files that step 'map' gives as 'sum' are called 'sum.txt', and would lie at one path "
        "in the work folder of step 'merge'; name what step 'map' makes by its input, such as "
        "`$(inputs.file.nameroot).txt`, or"
    )


@pytest.mark.parametrize(
    "listing", ["$(inputs.sums)", "$([inputs.sums])", "${return inputs.sums;}"]
)
def test_a_listing_that_is_one_expression_is_looked_at_too(tmp_path: Path, listing: str) -> None:
    assert "'sum.txt'" in refused(
        tmp_path, MAP + MERGE.replace(WHOLE, f"          listing: {listing!r} # HERE")
    )


@pytest.mark.parametrize(
    ("output", "name"),
    [
        (GLOB % "out/work.dat", "work.dat"),
        (GLOB % "[./work]", "work"),
        (GLOB % "work.d$(inputs.file.nameext.length * 0)", None),
        ("outputs: {sum: stderr}", "map.stderr"),
    ],
)
def test_the_name_is_what_the_map_says_wherever_it_says_so(
    tmp_path: Path, output: str, name: str | None
) -> None:
    text = MAP.replace(SHORT, output) + MERGE
    if name is None:
        assert compiled(tmp_path, text) is StageKind.MERGE
    else:
        assert f"are called {name!r}" in refused(tmp_path, text)


def test_a_name_made_of_one_that_is_always_the_same_is_always_the_same(tmp_path: Path) -> None:
    second = SECOND.replace("sum.txt", "$(inputs.file.nameroot)-2$(inputs.file.nameext)")
    reason = refused(tmp_path, MAP + second + MERGE.replace("map/sum", "next/sum"))
    assert "step 'next' gives as 'sum' are called 'sum-2.txt'" in reason
    assert "what step 'map' makes by its input, such as `$(inputs.file.nameroot).txt`" in reason


def test_groups_and_several_sources_and_subworkflows_are_looked_at(tmp_path: Path) -> None:
    grouped = MERGE.replace("    run:", "    hints: {spdf:Merge: {filesPerJob: 3}}\n    run:")
    assert "'sum.txt'" in refused(tmp_path, MAP + grouped)
    both = "{source: [map/sum, next/sum], linkMerge: merge_flattened}"
    assert "'sum.txt'" in refused(tmp_path, MAP + SECOND + MERGE.replace("map/sum", both))
    inner = MAP.replace("    scatter: file\n", "").replace("files}", "x}").replace("\n", "\n      ")
    outer = (
        "  sub:\n    scatter: x\n    in: {x: files}\n    out: [sum]\n    run:\n"
        "      class: Workflow\n      inputs: {x: File}\n"
        "      outputs: {sum: {type: File, outputSource: map/sum}}\n"
        f"      steps:\n      {inner.rstrip()}\n"
    )
    reason = refused(tmp_path, outer + MERGE.replace("map/sum", "sub/sum"))
    assert "step 'sub.map' gives as 'sum' are called 'sum.txt'" in reason


RUN = "    run:\n      class: CommandLineTool\n      requirements"
FINE = {
    "named by the input": (MAP.replace("sum.txt", "$(inputs.file.nameroot).sum"), MERGE),
    "a pattern": (MAP.replace(SHORT, GLOB % "'*.txt'"), MERGE),
    "renamed by its tool": (
        MAP.replace(
            SHORT,
            "outputs: {sum: {type: File, outputBinding: {glob: sum.txt, outputEval: "
            '"${ self[0].basename = inputs.file.basename; return self[0]; }"}}}',
        ),
        MERGE,
    ),
    "not listed": (MAP, MERGE.replace(ENTRY, "- {entryname: list, entry: $(inputs.sums.length)}")),
    "renamed where it is listed": (
        MAP,
        MERGE.replace(
            ENTRY,
            '- "$(inputs.sums.map(function(f, i) { return {entry: f, entryname: `s${i}`}; }))"',
        ),
    ),
    "one file a job": (
        MAP, MERGE.replace("    run:", "    hints: {spdf:Merge: {filesPerJob: 1}}\n    run:"),
    ),
    "a map that may be left out": (
        MAP.replace("    run:", "    when: $(inputs.file.size > 7)\n    run:"),
        MERGE.replace("map/sum", "{source: map/sum, pickValue: all_non_null}"),
    ),
    "a file that may be missing": (
        MAP.replace(SHORT, GLOB.replace("File", '"File?"') % "sum.txt"),
        MERGE.replace("map/sum", "{source: map/sum, pickValue: all_non_null}"),
    ),
    "renamed on the way": (
        MAP,
        MERGE.replace(
            "map/sum",
            "{source: map/sum, valueFrom: "
            '"${ self.forEach(function(f, i) { f.basename = `${i}`; }); return self; }"}',
        ),
    ),
    "a merge that may be left out": (
        MAP, MERGE.replace("    run:", "    when: $(inputs.sums.length == 1)\n    run:"),
    ),
    "an expression makes it": (
        MAP
        + "  expr:\n    scatter: file\n    in: {file: map/sum}\n    out: [sum]\n    run:\n"
        "      class: ExpressionTool\n      inputs: {file: File}\n      outputs: {sum: File}\n"
        '      expression: "${ return {sum: inputs.file}; }"\n',
        MERGE.replace("map/sum", "expr/sum"),
    ),
    "the dataset itself": ("", MERGE.replace("map/sum", "files")),
    "what a merge of all gives": (
        MAP
        + MERGE.replace("  merge:", "  whole:").replace(ENTRY, "[]").replace("all.txt", "sum.txt"),
        JOIN.replace("    scatter: [a, b]\n    scatterMethod: dotproduct\n", "")
        .replace("one/sum", "whole/all").replace("b: two/sum", "b: {default: null}")
        .replace("b: File", "b: File?"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FINE)
def test_what_a_job_may_name_otherwise_is_left_to_the_job(tmp_path: Path, case: str) -> None:
    compiled(tmp_path, "".join(FINE[case]))


def test_two_inputs_that_steps_call_alike_are_refused_and_both_named(tmp_path: Path) -> None:
    reason = refused(tmp_path, TWO + JOIN)
    assert reason == (
        "the file that step 'one' gives as 'sum' and the file that step 'two' gives as 'sum' would "
        "both lie at 'sum.txt' in the work folder of step 'join'; give one of them another name, "
        "or an `entryname` of its own."
    )
    listed = JOIN.replace("- $(inputs.a)\n            - $(inputs.b)", "- $([inputs.a, inputs.b])")
    assert "'sum.txt'" in refused(tmp_path, TWO + listed)
    gathered = (
        JOIN.replace("a: one/sum, b: two/sum", "a: {source: [one/sum, two/sum]}, b: files")
        .replace("scatter: [a, b]\n    scatterMethod: dotproduct", "scatter: b")
        .replace("a: File", 'a: "File[]"')
        .replace("            - $(inputs.b) # HERE\n", "")
        .replace("$(inputs.a)", "$(inputs.a) # HERE")
    )
    inner = gathered.replace("    scatter: b\n", "").replace("b: files", "b: x")
    steps = (TWO + inner).replace("    scatter: file\n", "").replace("file: files", "file: x")
    sub = "  sub:\n    scatter: x\n    in: {x: files}\n    out: []\n    run:\n"
    sub += "      class: Workflow\n      inputs: {x: File}\n      outputs: []\n      steps:\n"
    sub += "".join(f"      {line}\n" for line in steps.splitlines())
    assert "step 'sub.two' gives as 'sum'" in refused(tmp_path, sub)


@pytest.mark.parametrize(
    "entry",
    [
        "- {entryname: other.txt, entry: $(inputs.b)}",
        "- {entry: $(inputs.a)}",
        "- '$(inputs.b.size > 0 ? null : inputs.b)'",
        "- $(inputs.a, inputs.b)",
    ],
)
def test_what_lies_elsewhere_or_is_the_same_file_is_fine(tmp_path: Path, entry: str) -> None:
    compiled(tmp_path, TWO + JOIN.replace("- $(inputs.b) # HERE", entry))
    same = JOIN.replace("b: two/sum", "b: one/sum")
    compiled(tmp_path, STEPS % ("one", "head", "sum.txt") + same)


@pytest.mark.parametrize(
    ("old", "new", "other"),
    [
        (ITEM, '- {entryname: ./sum.txt, entry: "a text"}', "the text of `entryname: sum.txt`"),
        (ITEM, "- {entryname: sum.txt, entry: $(inputs.b)}", "the file that step 'two' gives"),
        (ITEM, "- {class: File, basename: sum.txt, contents: x}", "the literal 'sum.txt'"),
        ("all.txt", "sum.txt", "what its tool prints"),
    ],
)  # fmt: skip
def test_a_text_or_a_stream_at_the_place_of_a_file_is_refused(
    tmp_path: Path, old: str, new: str, other: str
) -> None:
    steps = STEPS % ("one", "head", "sum.txt") + STEPS % ("two", "tail", "two.txt")
    join = JOIN.replace("- $(inputs.a)", "- $(inputs.a) # HERE") if "all" in old else JOIN
    reason = refused(tmp_path, steps + join.replace(old, new))
    assert "the file that step 'one' gives as 'sum' and" in reason and other in reason
