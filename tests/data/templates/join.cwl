cwlVersion: v1.2
class: Workflow
requirements:
  ScatterFeatureRequirement: {}
  InlineJavascriptRequirement: {}
inputs:
  raw: File[]
  word: {type: string, default: a}
outputs:
  pairs:
    type: File[]
    outputSource: pair/both
    pickValue: all_non_null
steps:
  keep:
    run: filter.cwl
    scatter: file
    in: {file: raw, word: word}
    out: [kept]
  pair:
    run:
      class: CommandLineTool
      baseCommand: cat
      stdout: both.txt
      inputs:
        first: {type: File, inputBinding: {}}
        second: {type: File, inputBinding: {}}
      outputs: {both: stdout}
    scatter: [first, second]
    scatterMethod: dotproduct
    when: $(inputs.second !== null)
    in: {first: raw, second: keep/kept}
    out: [both]
