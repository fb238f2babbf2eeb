"""What can't run is refused with the line (marked `HERE` below), the reason and the mend."""

import textwrap
from pathlib import Path

import pytest

from catalog.errors import BadTemplate
from flows.compile import compile_template

HEAD = """\
cwlVersion: v1.2
class: Workflow
$namespaces: {spdf: "https://spdf.readthedocs.io/ns#"}
requirements:
  ScatterFeatureRequirement: {}
  SubworkflowFeatureRequirement: {}
  MultipleInputFeatureRequirement: {}
  StepInputExpressionRequirement: {}
  InlineJavascriptRequirement: {}
"""
INPUTS = """\
inputs:
  files: File[]
  number: int
outputs: []
"""
FILE_TOOL = """\
cwlVersion: v1.2
class: CommandLineTool
baseCommand: cat
stdout: out.txt
inputs: {file: {type: File, inputBinding: {}}}
outputs: {out: stdout}
"""
TWO_TOOL = FILE_TOOL.replace("inputs: {", "inputs: {other: File, ")
LIST_TOOL = FILE_TOOL.replace("type: File,", 'type: "File[]",')
MAYBE_TOOL = FILE_TOOL.replace(
    "{out: stdout}", '{out: {type: "File?", outputBinding: {glob: "*.x"}}}'
)
LISTS_TOOL = FILE_TOOL.replace(
    "{out: stdout}", '{out: {type: "File[]", outputBinding: {glob: "*.x"}}}'
)
VALUE_TOOL = """\
cwlVersion: v1.2
class: ExpressionTool
requirements: {InlineJavascriptRequirement: {}}
inputs: {file: File}
outputs: {out: int}
expression: "${ return {out: 1}; }"
"""
MAYBES_TOOL = LISTS_TOOL.replace('"File[]"', '"File[]?"')
TOOLS = {
    "maybes": MAYBES_TOOL,
    "file": FILE_TOOL,
    "two": TWO_TOOL,
    "list": LIST_TOOL,
    "maybe": MAYBE_TOOL,
    "lists": LISTS_TOOL,
    "value": VALUE_TOOL,
}
SINGLE = "a: {run: file.cwl, scatter: file, in: {file: files}, out: [out]}\n"
FILTER = "f: {run: maybe.cwl, scatter: file, in: {file: files}, out: [out]}\n"
MERGE = "m: {run: list.cwl, in: {file: files}, out: [out]}\n"


def refused(folder: Path, text: str) -> BadTemplate:
    for name, tool in TOOLS.items():
        (folder / f"{name}.cwl").write_text(tool)
    path = folder / "template.cwl"
    path.write_text(text)
    with pytest.raises(BadTemplate) as caught:
        compile_template(path)
    lines = [number for number, line in enumerate(text.split("\n"), 1) if "HERE" in line]
    if lines:
        assert (caught.value.source, caught.value.line) == (str(path), lines[0]), caught.value
    assert "\n" not in caught.value.reason
    return caught.value


def steps(text: str, inputs: str = INPUTS) -> str:
    return HEAD + inputs + "steps:\n" + textwrap.indent(textwrap.dedent(text), "  ")


STEPS = {
    "missing source": (
        "a: {run: file.cwl, scatter: file, in: {file: nofiles}, out: [out]} # HERE",
        r"source 'nofiles', which does not exist; there are files, number",
    ),
    "missing port of a step": (
        SINGLE + "b: {run: file.cwl, scatter: file, in: {file: a/uot}, out: [out]} # HERE",
        r"'a/uot', which does not exist; step 'a' gives out",
    ),
    "missing step": (
        SINGLE + "b: {run: file.cwl, scatter: file, in: {file: c/out}, out: [out]} # HERE",
        r"'c/out', which does not exist",
    ),
    "duplicate keys": (SINGLE + SINGLE.replace("}\n", "} # HERE\n", 1), r'duplicate key "a"'),
    "circle": (
        """\
        a: {run: file.cwl, scatter: file, in: {file: b/out}, out: [out]} # HERE
        b: {run: file.cwl, scatter: file, in: {file: a/out}, out: [out]}
        """,
        r"a, b wait for each other in a circle",
    ),
    "no scatter": (
        "a: {run: file.cwl, in: {file: files}, out: [out]} # HERE",
        r"gets File\[\], but its input is File; `scatter` over",
    ),
    "scatter over a list tool": (
        "a: {run: list.cwl, scatter: file, in: {file: files}, out: [out]} # HERE",
        r"gets File, but its input is File\[\]; remove the port from `scatter`",
    ),
    "wrong type": (
        """\
        v: {run: value.cwl, scatter: file, in: {file: files}, out: [out]}
        a: {run: file.cwl, scatter: file, in: {file: v/out}, out: [out]} # HERE
        """,
        r"gets int, but its input is File",
    ),
    "crossproduct": (
        """\
        a:
          run: two.cwl
          scatter: [file, other]
          scatterMethod: flat_crossproduct # HERE
          in: {file: files, other: files}
          out: [out]
        """,
        r"flat_crossproduct, which makes a job of each pair",
    ),
    "no scatterMethod": (
        """\
        a:
          run: two.cwl
          scatter: [file, other] # HERE
          in: {file: files, other: files}
          out: [out]
        """,
        r"write `scatterMethod: dotproduct`",
    ),
    "scatter over another name": (
        """\
        a:
          run: file.cwl
          scatter: fiel # HERE
          in: {file: files}
          out: [out]
        """,
        r"scatters over 'fiel', which is not in its `in`",
    ),
    "nothing from the dataset": (
        "a: {run: value.cwl, in: {file: {default: {class: File, basename: x, contents: y}}}, "
        "out: [out]} # HERE\n",
        r"takes nothing from the dataset",
    ),
    "input without value": (
        "a: {run: two.cwl, scatter: file, in: {file: files}, out: [out]} # HERE",
        r"gives nothing to the input 'other'",
    ),
    "port without source": (
        """\
        a:
          run: two.cwl
          scatter: file
          in:
            file: files
            other: {} # HERE
          out: [out]
        """,
        r"neither `source` nor `default` nor `valueFrom`",
    ),
    "unguarded filter": (
        FILTER + "a: {run: file.cwl, scatter: file, in: {file: f/out}, out: [out]} # HERE",
        r"may be null \(null f/out\), and nothing guards the step; write `pickValue",
    ),
    "unguarded join": (
        FILTER
        + "a: {run: two.cwl, scatter: [file, other], scatterMethod: dotproduct, "
        + "in: {file: files, other: f/out}, out: [out]} # HERE",
        r"port 'other'.*nothing guards.*when: \$\(inputs.other !== null\)",
    ),
    "unguarded when": (
        """\
        w:
          run: file.cwl
          scatter: file
          when: $(inputs.file.size > 3)
          in: {file: files}
          out: [out]
        a: {run: file.cwl, scatter: file, in: {file: w/out}, out: [out]} # HERE
        """,
        r"may be null \(when w\)",
    ),
    "join of a filtered list": (
        FILTER
        + """\
a:
  run: two.cwl
  scatter: [file, other] # HERE
  scatterMethod: dotproduct
  in: {file: files, other: {source: f/out, pickValue: all_non_null}}
  out: [out]
""",
        r"lengths differ",
    ),
    "merge behind a filter": (
        FILTER + "m: {run: list.cwl, in: {file: f/out}, out: [out]} # HERE",
        r"leaves nulls; write `pickValue: all_non_null`",
    ),
    "pick the first of all": (
        FILTER
        + """\
a:
  run: file.cwl
  in:
    file:
      source: f/out
      pickValue: first_non_null # HERE
  out: [out]
""",
        r"only `all_non_null`",
    ),
    "two descents scattered": (
        MERGE
        + "n: {run: lists.cwl, in: {file: m/out}, out: [out]}\n"
        + "a: {run: two.cwl, scatter: file, in: {file: files, other: m/out}, out: [out]} # HERE",
        r"scatters over some ports and takes files as a whole",
    ),
    "two descents joined": (
        MERGE
        + "n: {run: list.cwl, in: {file: files}, out: [out]}\n"
        + "a: {run: two.cwl, in: {file: m/out, other: n/out}, out: [out]} # HERE",
        r"different descent \(of 'm' and of 'n'\)",
    ),
    "scatter over a merged file": (
        MERGE + "a: {run: file.cwl, scatter: file, in: {file: m/out}, out: [out]} # HERE",
        r"a single File here; remove `scatter`",
    ),
    "list that may be null made by one job": (
        "l: {run: maybes.cwl, scatter: file, in: {file: files}, out: [out]}\n"
        "a: {run: list.cwl, scatter: file, when: $(inputs.file !== null), in: {file: l/out}, "
        "out: [out]} # HERE",
        r"takes File\[\]\? of each job; give its source the type `File\[\]`",
    ),
    "lists made by jobs merged": (
        "l: {run: lists.cwl, scatter: file, in: {file: files}, out: [out]}\n"
        "a: {run: {class: CommandLineTool, baseCommand: x, outputs: {o: stdout}, inputs: {l: Any}},"
        " in: {l: l/out}, out: [o]} # HERE",
        r"only single files are merged",
    ),
    "list of values": (
        """\
        v: {run: value.cwl, scatter: file, in: {file: files}, out: [out]}
        m:
          run: {class: ExpressionTool, inputs: {n: "int[]"}, outputs: {out: int},
                expression: "${ return {out: 1}; }"}
          in: {n: v/out} # HERE
          out: [out]
        """,
        r"only single files are merged",
    ),
    "nested list": (
        SINGLE + "m: {run: list.cwl, in: {file: [a/out, files]}, out: [out]} # HERE",
        r"`linkMerge: merge_flattened`",
    ),
    "dataset merged with its results": (
        SINGLE
        + "m: {run: list.cwl, out: [out],\n"
        + "    in: {file: {source: [a/out, files], linkMerge: merge_flattened}}} # HERE",
        r"merge each in its own step",
    ),
    "container": (
        """\
        a:
          run: file.cwl
          scatter: file
          in: {file: files}
          out: [out]
          requirements:
            DockerRequirement: {dockerFile: "FROM x", dockerImageId: x} # HERE
        """,
        r"`dockerFile`, and nodes build no images; build it once",
    ),
    "scatter over several lists": (
        SINGLE
        + "b: {run: file.cwl, scatter: file, out: [out], # HERE\n"
        + "    in: {file: {source: [a/out, files], linkMerge: merge_flattened}}}",
        r"in which a key may stand twice",
    ),
    "out missing": (
        "a: {run: file.cwl, scatter: file, in: {file: files}} # HERE",
        r"missing required field `out`",
    ),
    "unknown out": (
        "a: {run: file.cwl, scatter: file, in: {file: files}, out: [out, uot]} # HERE",
        r"passes on 'uot', which its tool does not give; it gives out",
    ),
    "bad step name": (
        "'a+ b': {run: file.cwl, scatter: file, in: {file: files}, out: [out]} # HERE",
        r"step name 'a\+ b' can't be used",
    ),
    "step name of two dots": (
        "a..b: {run: file.cwl, scatter: file, in: {file: files}, out: [out]} # HERE",
        r"step name 'a..b' can't be used",
    ),
    "step name of a repetition": (
        "r2: {run: file.cwl, scatter: file, in: {file: files}, out: [out]} # HERE",
        r"'r2' stands for the repetition",
    ),
    "missing tool": (
        "a: {run: nix.cwl, scatter: file, in: {file: files}, out: [out]} # HERE",
        r"there is no file '.*nix.cwl' to run",
    ),
    "remote tool": (
        "a: {run: 'https://example.org/x', scatter: file, in: {file: files}, out: [out]} # HERE",
        r"nothing is fetched; save it beside",
    ),
    "unknown field of a hint": (
        """\
        a:
          run: file.cwl
          scatter: file
          in: {file: files}
          out: [out]
          hints:
            spdf:Stage:
              retry: 1
              retries: 3 # HERE
        """,
        r"spdf:Stage has no field 'retries'; it has device, retry",
    ),
    "hint among requirements": (
        """\
        a:
          run: file.cwl
          scatter: file
          in: {file: files}
          out: [out]
          requirements:
            - class: spdf:Stage # HERE
        """,
        r"move it to `hints`",
    ),
    "merge hint on a map": (
        """\
        a:
          run: file.cwl
          scatter: file
          in: {file: files}
          out: [out]
          hints:
            spdf:Merge: {filesPerJob: 2} # HERE
        """,
        r"takes its files one by one",
    ),
    "unknown hint of ours": (
        """\
        a:
          run: file.cwl
          scatter: file
          in: {file: files}
          out: [out]
          hints:
            spdf:Stag: {} # HERE
        """,
        r"there is no hint spdf:Stag",
    ),
    "in place": (
        """\
        a:
          run: file.cwl
          scatter: file
          in: {file: files}
          out: [out]
          requirements:
            InplaceUpdateRequirement: {inplaceUpdate: true} # HERE
        """,
        r"can't be changed in place",
    ),
    "unknown requirement": (
        """\
        a:
          run: file.cwl
          scatter: file
          in: {file: files}
          out: [out]
          requirements:
            - class: Unheard # HERE
        """,
        r"Unheard",
    ),
    "resources by expression": (
        """\
        a:
          run: file.cwl
          scatter: file
          in: {file: files}
          out: [out]
          requirements:
            ResourceRequirement:
              coresMin: 1
              ramMin: $(inputs.file.size) # HERE
        """,
        r"`ramMin` is '\$\(inputs.file.size\)'; nodes reserve before",
    ),
    "broken expression": (
        """\
        a:
          run: file.cwl
          scatter: file
          when: $(inputs.file.size >) # HERE
          in: {file: files}
          out: [out]
        """,
        r"no valid JavaScript",
    ),
    "endless expression": (
        """\
        a:
          run: file.cwl
          scatter: file
          in:
            file: {source: files, valueFrom: "$(self"} # HERE
          out: [out]
        """,
        r"`valueFrom`: expression",
    ),
    "two entries of one name": (
        """\
        a:
          scatter: file
          in: {file: files}
          out: [out]
          run:
            class: CommandLineTool
            requirements:
              InitialWorkDirRequirement:
                listing:
                  - {entryname: run.sh, entry: "echo one"}
                  - {entryname: ./run.sh, entry: "echo $(inputs.file.path)"} # HERE
            baseCommand: [sh, run.sh]
            stdout: out.txt
            inputs: {file: File}
            outputs: {out: stdout}
        """,
        r"'./run.sh' would be two things in one work directory",
    ),
    "stdout over an entry": (
        """\
        a:
          scatter: file
          in: {file: files}
          out: [out]
          run:
            class: CommandLineTool
            requirements:
              InitialWorkDirRequirement:
                listing: [{entryname: list, entry: "$(inputs.file.path)\\n"}] # HERE
            baseCommand: [sort, list]
            stdout: list/sorted
            inputs: {file: File}
            outputs: {out: stdout}
        """,
        r"'list/sorted' would lie below 'list'",
    ),
    "operation": (
        """\
        a:
          run: # HERE
            class: Operation
            inputs: {file: File}
            outputs: {out: File}
          scatter: file
          in: {file: files}
          out: [out]
        """,
        r"runs the class Operation",
    ),
}


@pytest.mark.parametrize("case", STEPS)
def test_step_is_refused_at_its_line(case, tmp_path):
    text, reason = STEPS[case]
    assert refused(tmp_path, steps(text)).reason  # the line is compared inside
    with pytest.raises(BadTemplate, match=reason):
        compile_template(tmp_path / "template.cwl")


HINTS = {
    "device: TPU": "CPU or GPU",
    "retry: -1": "at least 0",
    "retry: yes": "whole number",
    "goal: 120%": "share such as",
    "goal: 0": "share such as",
    "goal: much": "share such as",
    "maxPilots: 0": "at least 1",
    "barrier: 1": "true or false",
    "rank: high": "whole number",
}


@pytest.mark.parametrize("value", HINTS)
def test_bad_value_of_a_stage_hint_is_refused(value, tmp_path):
    text = steps(
        f"""\
        a:
          run: file.cwl
          scatter: file
          in: {{file: files}}
          out: [out]
          hints:
            spdf:Stage:
              {value} # HERE
        """
    )
    assert HINTS[value] in refused(tmp_path, text).reason


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("out: {type: File, outputBinding: {glob: ../x}}", "leaves the job's folder"),
        ("out: {type: File, outputBinding: {glob: [a, /tmp/x]}}", "leaves the job's folder"),
        ("out: {type: Directory, outputBinding: {glob: x}}", "only files are stored"),
        ("log: {type: File, outputBinding: {glob: x}}", "can't be called `log`"),
        ("out: {type: Any, outputBinding: {glob: x}}", "a File, a File[]"),
    ],
)
def test_output_that_cannot_be_kept_is_refused(output, reason, tmp_path):
    name = output.partition(":")[0]
    text = steps(
        f"""\
        a:
          run:
            class: CommandLineTool
            baseCommand: "true"
            inputs: {{file: File}}
            outputs:
              {output} # HERE
          scatter: file
          in: {{file: files}}
          out: [{name}]
        """
    )
    assert reason in refused(tmp_path, text).reason


INPUT_CASES = {
    "inputs: {number: int} # HERE\noutputs: []\n": "no input of type File[]",
    "inputs:\n  files: File[]\n  more: File[] # HERE\noutputs: []\n": "say which is the dataset",
    "inputs:\n  files: File[]\n  number: int\n  where: Directory # HERE\noutputs: []\n": "tar -cf",
    "inputs:\n  files: {type: 'File[]', secondaryFiles: a/.i} # HERE\noutputs: []\n": "secondary",
    "inputs:\n  files: File[]\n  number: itn # HERE\noutputs: []\n": "itn",
}


@pytest.mark.parametrize("inputs", INPUT_CASES)
def test_workflow_input_is_refused(inputs, tmp_path):
    assert INPUT_CASES[inputs] in refused(tmp_path, steps(SINGLE, inputs)).reason


DOCUMENTS = {
    "": "is empty",
    "just a text\n": "mapping",
    "a: [1, 2\nb: 3\n": "YAML",
    "class: Workflow\n": "cwlVersion",
    "cwlVersion: v3.0\nclass: Workflow\n": "cwlVersion",
    "cwlVersion: v1.2\nclass: Workflow # HERE\ninputs: []\noutputs: []\nsteps: []\n": "",
    FILE_TOOL.replace("class: CommandLineTool", "class: CommandLineTool # HERE"): "is a Workflow",
}


@pytest.mark.parametrize("text", DOCUMENTS)
def test_document_that_is_no_workflow_is_refused(text, tmp_path):
    if text.startswith("cwlVersion: v1.2\nclass: Workflow"):
        text = text.replace(" # HERE", "").replace("inputs: []", "inputs: [] # HERE")
    assert DOCUMENTS.get(text, "File[]") in refused(tmp_path, text).reason


def test_a_dataset_of_directories_is_refused_with_the_mend(tmp_path):
    text = steps(SINGLE, "inputs:\n  files: Directory[] # HERE\n  number: int\noutputs: []\n")
    assert "pack each folder into one file" in refused(tmp_path, text).reason


def test_file_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(BadTemplate, match=r"nix\.cwl"):
        compile_template(tmp_path / "nix.cwl")


def test_duplicate_steps_of_a_list_are_refused(tmp_path):
    step = "run: file.cwl, scatter: file, in: {file: files}, out: [out]}"
    text = steps(f"- {{id: a, {step}\n- {{id: a, {step} # HERE\n")
    assert "two steps 'a'" in refused(tmp_path, text).reason


@pytest.mark.parametrize(
    "requirement",
    [
        "ScatterFeatureRequirement",
        "StepInputExpressionRequirement",
        "InlineJavascriptRequirement",
    ],
)
def test_feature_needs_its_requirement(requirement, tmp_path):
    text = steps(
        "a: {run: file.cwl, scatter: file, out: [out], "
        'in: {file: {source: files, valueFrom: "$(self.size > 1)"}}}\n'
    ).replace(f"  {requirement}: {{}}\n", "")
    assert requirement in refused(tmp_path, text).reason


def test_undeclared_namespace_is_refused(tmp_path):
    text = steps(SINGLE).replace("$namespaces: {spdf:", "$namespaces: {spd:")
    text = text.replace("inputs:\n", "hints:\n  spdf:Template: {mask: a} # HERE\ninputs:\n")
    assert "$namespaces" in refused(tmp_path, text).reason


def test_mask_of_the_hint_is_checked(tmp_path):
    text = steps(SINGLE).replace(
        "inputs:\n", 'hints:\n  spdf:Template:\n    mask: "run-[" # HERE\ninputs:\n'
    )
    assert "doesn't close" in refused(tmp_path, text).reason


def test_recursive_workflow_is_refused(tmp_path):
    text = steps("a: {run: template.cwl, in: {files: files, number: number}, out: [out]}\n")
    assert "itself" in refused(tmp_path, text).reason


SUBWORKFLOWS = {
    "when": (
        """\
        s:
          run: {class: Workflow, inputs: {x: File},
                outputs: {out: {type: File, outputSource: a/out}},
                steps: {a: {run: file.cwl, in: {file: x}, out: [out]}}}
          scatter: x
          when: $(inputs.x.size > 1) # HERE
          in: {x: files}
          out: [out]
        """,
        "put the `when` on the steps inside",
    ),
    "whole list inside": (
        """\
        s:
          scatter: x
          in: {x: files, all: files}
          out: [out]
          run:
            class: Workflow
            inputs: {x: File, all: "File[]"}
            outputs: {out: {type: File, outputSource: m/out}}
            steps:
              m: {run: list.cwl, in: {file: all}, out: [out]} # HERE
        """,
        "Merge outside",
    ),
    "null inside": (
        """\
        s:
          scatter: x
          in: {x: files}
          out: [out]
          run:
            class: Workflow
            inputs: {x: File}
            outputs: {out: {type: File, outputSource: b/out}}
            steps:
              a: {run: maybe.cwl, in: {file: x}, out: [out]}
              b: {run: file.cwl, in: {file: a/out}, out: [out]} # HERE
        """,
        "write `when: $(inputs.file !== null)`",
    ),
    "list of lists of one job": (
        """\
        s:
          scatter: x
          in: {x: files}
          out: [out]
          run:
            class: Workflow
            inputs: {x: File}
            outputs: {out: {type: File, outputSource: c/out}}
            steps:
              a: {run: file.cwl, in: {file: x}, out: [out]}
              b:
                run:
                  class: Workflow
                  inputs: {l: "File[]", y: File}
                  outputs: {out: {type: File, outputSource: d/out}}
                  steps:
                    d: {run: list.cwl, in: {file: [l, y]}, out: [out]} # HERE
                in: {l: [a/out, x], y: x}
                out: [out]
              c: {run: file.cwl, in: {file: b/out}, out: [out]}
        """,
        "combines what is itself combined",
    ),
}


@pytest.mark.parametrize("case", SUBWORKFLOWS)
def test_subworkflow_is_refused(case, tmp_path):
    text, reason = SUBWORKFLOWS[case]
    assert reason in refused(tmp_path, steps(text)).reason
