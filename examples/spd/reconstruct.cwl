cwlVersion: v1.2
class: CommandLineTool
label: Hits to tracks and events
doc: Cuts the slice into time clusters, finds and fits tracks, and joins them to events.
requirements:
  InitialWorkDirRequirement:
    listing:
      - {entryname: reconstruct.py, entry: {$include: reconstruct.py}}
      - {entryname: tracking.py, entry: {$include: tracking.py}}
      - {entryname: helix.py, entry: {$include: helix.py}}
      - {entryname: detector.py, entry: {$include: detector.py}}
      - {entryname: spdio.py, entry: {$include: spdio.py}}
  EnvVarRequirement:
    envDef: {OPENBLAS_NUM_THREADS: "1"}
hints:
  ResourceRequirement: {coresMin: 1, ramMin: 512}
  ToolTimeLimit: {timelimit: 600}
baseCommand: [python3, -B, reconstruct.py]
temporaryFailCodes: [74]
permanentFailCodes: [66]
inputs:
  hits:
    type: File
    inputBinding: {position: 1}
arguments:
  - prefix: --output
    valueFrom: $(inputs.hits.nameroot).events
outputs:
  events:
    type: File
    outputBinding: {glob: $(inputs.hits.nameroot).events}
