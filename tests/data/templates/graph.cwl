cwlVersion: v1.2
$graph:
  - id: main
    class: Workflow
    requirements:
      ScatterFeatureRequirement: {}
      SchemaDefRequirement:
        types: [{$import: types.yml}]
    inputs:
      files: File[]
      level: types.yml#Level
    outputs:
      out: {type: "File[]", outputSource: use/out}
    steps:
      - id: use
        run: "#tool"
        scatter: file
        in: {file: files, level: level}
        out: [out]
  - id: tool
    class: CommandLineTool
    requirements:
      SchemaDefRequirement:
        types: [{$import: types.yml}]
    baseCommand: sh
    arguments: [$(inputs.script.path), $(inputs.file.path), $(inputs.level)]
    stdout: out.txt
    inputs:
      file: File
      level: types.yml#Level
      script:
        type: File
        default: {class: File, location: script.sh}
    outputs:
      out: stdout
