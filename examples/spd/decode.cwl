cwlVersion: v1.2
class: CommandLineTool
label: Raw slice to calibrated hits
doc: Verifies header, counts and checksum of a slice. A corrupt slice ends with 65 for good.
requirements:
  InitialWorkDirRequirement:
    listing:
      - {entryname: decode.py, entry: {$include: decode.py}}
      - {entryname: detector.py, entry: {$include: detector.py}}
      - {entryname: spdio.py, entry: {$include: spdio.py}}
  EnvVarRequirement:
    envDef: {OPENBLAS_NUM_THREADS: "1"}
hints:
  ResourceRequirement: {coresMin: 1, ramMin: 256}
  ToolTimeLimit: {timelimit: 300}
baseCommand: [python3, -B, decode.py]
temporaryFailCodes: [74]
permanentFailCodes: [65, 66]
inputs:
  raw:
    type: File
    inputBinding: {position: 1}
  calibration:
    type: File
    inputBinding: {prefix: --calibration}
arguments:
  - prefix: --output
    valueFrom: $(inputs.raw.nameroot).hits
outputs:
  hits:
    type: File
    outputBinding: {glob: $(inputs.raw.nameroot).hits}
