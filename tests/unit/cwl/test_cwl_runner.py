"""What `spdf cwl run` leaves in its output directory."""

from pathlib import Path

from workers.cwl.runner import run_document

TWICE = """\
cwlVersion: v1.2
class: CommandLineTool
requirements: {InlineJavascriptRequirement: {}}
baseCommand: [sh, -c, 'mkdir d; echo r > d/result.dat']
inputs: {}
outputs:
  one: {type: File, outputBinding: {glob: d/result.dat}}
  again: {type: "File[]", outputBinding: {glob: "d/*"}}
  folder: {type: Directory, outputBinding: {glob: d}}
  renamed:
    type: File
    outputBinding:
      glob: d/result.dat
      outputEval: "${ self[0].basename = 'other.dat'; return self[0]; }"
"""


def test_a_file_lies_there_once_for_each_name_that_outputs_give_it(tmp_path: Path) -> None:
    path, out = tmp_path / "t.cwl", tmp_path / "out"
    path.write_text(TWICE)
    got = run_document(path, None, out)
    assert got["one"]["path"] == got["again"][0]["path"] == f"{out}/result.dat"
    assert got["renamed"]["path"] == f"{out}/other.dat"
    assert got["folder"]["path"] == f"{out}/d"
    found = {str(one.relative_to(out)): one.read_text() for one in out.rglob("*") if one.is_file()}
    assert found == dict.fromkeys(("result.dat", "other.dat", "d/result.dat"), "r\n")
