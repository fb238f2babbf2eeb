cwlVersion: v1.2
class: Workflow
requirements:
  ScatterFeatureRequirement: {}
  SubworkflowFeatureRequirement: {}
  MultipleInputFeatureRequirement: {}
  StepInputExpressionRequirement: {}
  InlineJavascriptRequirement:
    expressionLib: ["function big(file) { return file.size > 3; }"]
inputs:
  files: File[]
outputs:
  joined: {type: "File[]", outputSource: each/joined}
  all: {type: File, outputSource: gather/out}
steps:
  each:
    scatter: file
    in: {file: files}
    out: [joined]
    run:
      class: Workflow
      inputs:
        file: File
        mark: {type: string, default: "#"}
      outputs:
        joined:
          type: File
          outputSource: [large/out, small/out]
          pickValue: first_non_null
      steps:
        size:
          run:
            class: ExpressionTool
            inputs: {file: File}
            outputs: {bytes: int}
            expression: "${ return {bytes: inputs.file.size}; }"
          in: {file: file}
          out: [bytes]
        large:
          run: one.cwl
          when: $(big(inputs.file))
          in:
            file: file
            bytes: size/bytes
            prefix: {valueFrom: large }
          out: [out]
        small:
          run: one.cwl
          when: $(inputs.bytes <= 3)
          in: {file: file, bytes: size/bytes, prefix: mark}
          out: [out]
  gather:
    run: cat.cwl
    in: {files: each/joined}
    out: [out]
