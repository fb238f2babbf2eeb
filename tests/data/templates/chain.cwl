cwlVersion: v1.2
class: Workflow
label: A chain
doc: [First line., Second line.]
$namespaces:
  spdf: https://spdf.readthedocs.io/ns#
requirements:
  ScatterFeatureRequirement: {}
  EnvVarRequirement: {envDef: {MODE: workflow, KEEP: "1"}}
hints:
  spdf:Template: {mask: "run-[0-9]*[0-9]", rank: 3, derived: true, dataset: raw}
  ResourceRequirement: {ramMin: 100, coresMin: 2}
inputs:
  raw: File[]
  more:
    type: File[]
    default: []
    doc: Files for each job
  word: string
outputs:
  merged: {type: File, outputSource: merge/out}
  kept:
    type: File[]
    outputSource: keep/kept
    pickValue: all_non_null
steps:
  merge:
    run: cat.cwl
    in:
      files: {source: keep/kept, pickValue: all_non_null}
    out: [out]
    hints:
      spdf:Merge: {filesPerJob: 3}
      spdf:Stage: {rank: 1, barrier: true, maxPilots: 2, goal: 99%}
  mark:
    run: one.cwl
    scatter: file
    in: {file: raw}
    out: [out]
    hints:
      spdf:Stage: {device: GPU, retry: 0, goal: 0.5}
    requirements:
      EnvVarRequirement: {envDef: {MODE: step}}
      ResourceRequirement: {ramMin: 200}
  keep:
    run: filter.cwl
    scatter: [file]
    in: {file: mark/out, word: word}
    out: [kept]
  after:
    run: one.cwl
    in: {file: merge/out}
    out: [out]
