cwlVersion: v1.2
class: CommandLineTool
doc: Copies its input, after a prefix.
requirements:
  InlineJavascriptRequirement: {}
baseCommand: [sed]
arguments: ["s/^/$(inputs.prefix)/"]
stdin: $(inputs.file.path)
stdout: $(inputs.file.nameroot).out
inputs:
  file: File
  prefix: {type: string, default: ">"}
outputs:
  out: stdout
