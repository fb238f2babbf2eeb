cwlVersion: v1.2
class: Workflow
$namespaces: {spdf: "https://spdf.readthedocs.io/ns#"}
hints:
  spdf:Template: {dataset: files}
requirements:
  ScatterFeatureRequirement: {}
inputs:
  files: File[]
  count: {type: int, doc: How many, default: 3}
  size: long
  share: double?
  flag: boolean
  text: {type: string?, label: A text}
  table: File
  tables: File[]?
  level: {type: {type: enum, symbols: [low, high]}, default: low}
  cuts: {type: "int[]", default: [1, 2]}
  either: [int, string]
  pair:
    type:
      type: record
      fields: {x: int, y: string?}
outputs:
  out: {type: "File[]", outputSource: use/out}
steps:
  use:
    run: one.cwl
    scatter: file
    in:
      file: files
      count: count
      table: table
    out: [out]
