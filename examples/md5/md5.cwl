cwlVersion: v1.2
class: Workflow
label: MD5 of every file
doc: The smallest template, one stage and one job per file.
$namespaces:
  spdf: https://spdf.readthedocs.io/ns#
requirements:
  ScatterFeatureRequirement: {}
hints:
  spdf:Template: {mask: "files-*[0-9]"}
inputs:
  files:
    type: File[]
    doc: Any files
steps:
  md5sum:
    scatter: file
    in: {file: files}
    out: [digest]
    run:
      class: CommandLineTool
      doc: Gives the line that `md5sum FILE` prints in the file's own folder.
      requirements:
        InitialWorkDirRequirement:
          listing: [$(inputs.file)]
      baseCommand: [md5sum, --]
      inputs:
        file:
          type: File
          inputBinding: {valueFrom: $(self.basename)}
      stdout: $(inputs.file.basename).md5
      outputs:
        digest: stdout
outputs:
  digests:
    type: File[]
    outputSource: md5sum/digest
