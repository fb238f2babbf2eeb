cwlVersion: v1.2
class: CommandLineTool
label: Selected events of many slices in one file
requirements:
  InitialWorkDirRequirement:
    listing:
      - {entryname: merge.py, entry: {$include: merge.py}}
      - {entryname: spdio.py, entry: {$include: spdio.py}}
  EnvVarRequirement:
    envDef: {OPENBLAS_NUM_THREADS: "1"}
hints:
  ResourceRequirement: {coresMin: 1, ramMin: 256}
  ToolTimeLimit: {timelimit: 600}
baseCommand: [python3, -B, merge.py]
temporaryFailCodes: [74]
permanentFailCodes: [66]
inputs:
  selected:
    type: File[]
    inputBinding: {position: 1}
arguments:
  - prefix: --output
    valueFrom: merged.selected
outputs:
  merged:
    type: File
    outputBinding: {glob: merged.selected}
