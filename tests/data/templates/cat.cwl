cwlVersion: v1.2
class: CommandLineTool
baseCommand: cat
stdout: all.txt
inputs:
  files:
    type: File[]
    inputBinding: {}
outputs:
  out: stdout
