"""CWL documents of several tests."""

from pathlib import Path

_COPYING = """
cwlVersion: v1.2
class: Workflow
requirements: {ScatterFeatureRequirement: {}}
inputs: {files: "File[]"}
outputs: {out: {type: "File[]", outputSource: copy/out}}
steps:
  copy:
    scatter: file
    in: {file: files}
    out: [out]
    run:
      class: CommandLineTool
      inputs: {file: {type: File, inputBinding: {position: 1}}}
      baseCommand: [COMMAND]
      arguments: [ARGUMENTS]
      stdout: copy.dat
      outputs: {out: stdout}
"""


def copying(command: str = "cat", arguments: str = "") -> str:
    """A workflow of one stage `copy`, which makes `copy.dat` of each file."""
    return _COPYING.replace("COMMAND", command).replace("ARGUMENTS", arguments)


TYPED_TOOL = """\
cwlVersion: v1.2
class: CommandLineTool
$namespaces: {edam: "http://edamontology.org/"}
requirements:
  SchemaDefRequirement: {types: [{$import: types.yml}]}
  InlineJavascriptRequirement: {}
baseCommand: echo
stdout: out.txt
arguments: ["$(inputs.lib.idx)", 2024-01-01]
inputs:
  file: {type: File, format: "edam:format_1930", inputBinding: {}}
  lib: {type: "types.yml#lib"}
outputs: {out: {type: File, format: "edam:format_1930", outputBinding: {glob: out.txt}}}
"""
TYPES = """\
- {name: mode, type: enum, symbols: [fast, slow]}
- {name: lib, type: record, fields: {idx: "int?", mode: mode}}
"""
TYPED_WORKFLOW = """\
cwlVersion: v1.2
class: Workflow
$namespaces: {spdf: "https://spdf.readthedocs.io/ns#", edam: "http://edamontology.org/"}
requirements:
  ScatterFeatureRequirement: {}
  SubworkflowFeatureRequirement: {}
  SchemaDefRequirement: {types: [{$import: types.yml}]}
hints:
  "spdf:Template": {mask: "run-[0-9]"}
inputs:
  files: {type: "File[]", format: "edam:format_1930"}
  lib: types.yml#lib
outputs: {o: {type: "File[]", outputSource: b/out}}
steps:
  a: {run: tool.cwl, scatter: file, in: {file: files, lib: lib}, out: [out]}
  b:
    scatter: file
    in: {file: a/out, lib: lib}
    out: [out]
    hints: {"spdf:Stage": {retry: 5}}
    run:
      class: Workflow
      inputs: {file: File, lib: "types.yml#lib"}
      outputs: {out: {type: File, outputSource: c/out}}
      steps: {c: {run: tool.cwl, in: {file: file, lib: lib}, out: [out]}}
"""


def typed(folder: Path, workflow: str = TYPED_WORKFLOW, tool: str = TYPED_TOOL) -> Path:
    """The workflow with its tool beside it, and the types that both import."""
    for name, text in (("types.yml", TYPES), ("tool.cwl", tool), ("chain.cwl", workflow)):
        (folder / name).write_text(text)
    return folder / "chain.cwl"
