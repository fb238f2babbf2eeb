cwlVersion: v1.2
class: CommandLineTool
doc: Keeps a file that has a line with the word, else gives nothing.
baseCommand: [sh, -c, 'if grep -q "$1" "$2"; then cp "$2" kept.txt; fi', filter]
inputs:
  word: {type: string, inputBinding: {position: 1}}
  file: {type: File, inputBinding: {position: 2}}
outputs:
  kept:
    type: File?
    outputBinding: {glob: kept.txt}
