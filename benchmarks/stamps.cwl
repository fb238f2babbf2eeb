cwlVersion: v1.2
class: Workflow
label: three stamps
doc: Three short stages per file; each adds a line with the time at which its payload began.
$namespaces:
  spdf: https://spdf.readthedocs.io/ns#
requirements:
  ScatterFeatureRequirement: {}
hints:
  spdf:Template: {mask: "latency-*[0-9]"}
inputs:
  files:
    type: File[]
    doc: Any small files
steps:
  first:
    scatter: file
    in: {file: files}
    out: [stamps]
    run: &stamp
      class: CommandLineTool
      baseCommand: [sh, -c, 'now=$(date +%s.%N); cat "$0"; echo "$now"']
      inputs:
        file:
          type: File
          inputBinding: {position: 1}
      stdout: stamps
      outputs:
        stamps: stdout
  second:
    scatter: file
    in: {file: first/stamps}
    out: [stamps]
    run: *stamp
  third:
    scatter: file
    in: {file: second/stamps}
    out: [stamps]
    run: *stamp
outputs:
  stamps:
    type: File[]
    outputSource: third/stamps
