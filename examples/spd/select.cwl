cwlVersion: v1.2
class: CommandLineTool
label: The filter
doc: Keeps events with a pair of opposite charge. Without any there is no output file.
requirements:
  InitialWorkDirRequirement:
    listing:
      - {entryname: select_events.py, entry: {$include: select_events.py}}
      - {entryname: detector.py, entry: {$include: detector.py}}
      - {entryname: spdio.py, entry: {$include: spdio.py}}
  EnvVarRequirement:
    envDef: {OPENBLAS_NUM_THREADS: "1"}
hints:
  ResourceRequirement: {coresMin: 1, ramMin: 256}
  ToolTimeLimit: {timelimit: 300}
baseCommand: [python3, -B, select_events.py]
temporaryFailCodes: [74]
permanentFailCodes: [66]
inputs:
  events:
    type: File
    inputBinding: {position: 1}
  min_pt:
    type: float
    inputBinding: {prefix: --min-pt}
  min_tracks:
    type: int
    inputBinding: {prefix: --min-tracks}
arguments:
  - prefix: --output
    valueFrom: $(inputs.events.nameroot).selected
outputs:
  selected:
    type: File?
    outputBinding: {glob: $(inputs.events.nameroot).selected}
