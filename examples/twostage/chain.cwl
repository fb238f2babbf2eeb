cwlVersion: v1.2
class: Workflow
label: md5sum, then cut
doc: Two short stages per file, to measure the cost of a job with.
$namespaces:
  spdf: https://spdf.readthedocs.io/ns#
requirements:
  ScatterFeatureRequirement: {}
hints:
  spdf:Template: {mask: "bench-*[0-9]"}
inputs:
  files:
    type: File[]
    doc: Any files
steps:
  md5sum:
    scatter: file
    in: {file: files}
    out: [line]
    run:
      class: CommandLineTool
      baseCommand: md5sum
      inputs:
        file: File
      stdin: $(inputs.file.path)
      stdout: $(inputs.file.basename).md5
      outputs:
        line: stdout
  cut:
    scatter: line
    in: {line: md5sum/line}
    out: [digest]
    run:
      class: CommandLineTool
      baseCommand: [cut, -c1-32]
      inputs:
        line:
          type: File
          inputBinding: {position: 1}
      stdout: $(inputs.line.nameroot).digest
      outputs:
        digest: stdout
outputs:
  digests:
    type: File[]
    outputSource: cut/digest
