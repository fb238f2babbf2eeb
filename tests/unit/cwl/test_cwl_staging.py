"""Inputs in the stage directory: each in a place of its own, with what belongs beside it."""

from pathlib import Path
from typing import Any

import pytest

from catalog.errors import ErrorCode
from workers.cwl import ToolFailure

JS = {"InlineJavascriptRequirement": {}}


def folder(bench: Any, name: str, *files: str) -> dict[str, Any]:
    for one in files:
        bench.file(f"{name}/{one}", f"{name}/{one}")
    return {"class": "Directory", "path": str(bench.root / "data" / name)}


def test_files_of_one_name_lie_in_places_of_their_own(bench: Any) -> None:
    files = [bench.file(f"{n}/sum.txt", f"{n}\n") for n in range(3)]
    # A place's own name is no other's, whatever an input is called.
    files += [bench.file("1.d", "d\n"), bench.file("x/2.d", "e\n")]
    bench.run(
        {"files": files}, baseCommand="cat",
        inputs={"files": {"type": "File[]", "inputBinding": {}}},
    )  # fmt: skip
    assert bench.log == "0\n1\n2\nd\ne\n"


def test_a_file_called_as_a_place_of_ours_comes_after_it(bench: Any) -> None:
    files = [bench.file("a/x", "1"), bench.file("b/x", "2"), bench.file("1.d", "3")]
    inputs = {"files": {"type": "File[]", "inputBinding": {}}}
    bench.run({"files": files}, baseCommand="cat", inputs=inputs)
    assert bench.log == "123"


def test_secondary_files_of_one_name_are_refused_and_named(bench: Any) -> None:
    extra = [bench.file("1/x.idx"), bench.file("2/x.idx")]
    file = {**bench.file("x"), "secondaryFiles": extra}
    with pytest.raises(ToolFailure) as caught:
        bench.run({"f": file}, inputs={"f": "File"}, baseCommand="true")
    assert caught.value.code is ErrorCode.BAD_JOB_INPUT
    assert all(one["path"] in str(caught.value) for one in extra)


def test_a_secondary_file_that_is_listed_twice_is_one(bench: Any) -> None:
    extra = bench.file("x.idx", "index")
    file = {**bench.file("x"), "secondaryFiles": [extra, dict(extra)]}
    tool = {"inputs": {"f": "File"}, "arguments": ["$(inputs.f.secondaryFiles[1].path)"]}
    bench.run({"f": file}, baseCommand="cat", **tool)
    assert bench.log == "index"


def test_secondary_files_of_secondary_files_lie_beside_them(bench: Any) -> None:
    index = {**bench.file("i/x.idx"), "secondaryFiles": [bench.file("j/x.idx.md5", "sum")]}
    file = {**bench.file("x"), "secondaryFiles": [index]}
    bench.run(
        {"f": file}, inputs={"f": "File"}, baseCommand="cat",
        arguments=["$(inputs.f.path).idx.md5"],
    )  # fmt: skip
    assert bench.log == "sum"


def test_a_directory_literal_holds_the_secondary_files_of_what_it_lists(bench: Any) -> None:
    file = {**bench.file("1/x.bam", "B"), "secondaryFiles": [bench.file("2/x.bam.bai", "I")]}
    literal = {"class": "Directory", "basename": "d", "listing": [file]}
    bench.run(
        {"d": literal}, inputs={"d": "Directory"}, baseCommand=["sh", "-c", "cd $0; cat *"],
        arguments=["$(inputs.d.path)"],
    )  # fmt: skip
    assert bench.log == "BI"


def test_a_directory_literal_of_an_expression_holds_them_too(bench: Any) -> None:
    file = {**bench.file("1/x.bam", "B"), "secondaryFiles": [bench.file("2/x.bam.bai", "I")]}
    listing = "$([{class: 'Directory', basename: 'd', listing: [inputs.f]}])"
    bench.run(
        {"f": file}, inputs={"f": "File"}, baseCommand=["sh", "-c", "cd d; cat *"],
        requirements={**JS, "InitialWorkDirRequirement": {"listing": listing}},
    )  # fmt: skip
    assert bench.log == "BI"


@pytest.mark.parametrize("secondary", [False, True])
def test_a_directory_literal_with_two_of_one_name_is_refused(bench: Any, secondary: bool) -> None:
    one, two = bench.file("1/x", "1"), bench.file("2/x", "2")
    listing = [one, {**bench.file("y"), "secondaryFiles": [two]} if secondary else two]
    literal = {"class": "Directory", "basename": "d", "listing": listing}
    with pytest.raises(ToolFailure) as caught:
        bench.run({"d": literal}, inputs={"d": "Directory"}, baseCommand="true")
    assert caught.value.code is ErrorCode.BAD_JOB_INPUT
    assert one["path"] in str(caught.value) and two["path"] in str(caught.value)


def test_what_is_listed_beside_its_primary_is_one_with_its_secondary_file(bench: Any) -> None:
    index = bench.file("x.bai", "I")
    file = {**bench.file("x", "B"), "secondaryFiles": [index]}
    literal = {"class": "Directory", "basename": "d", "listing": [file, index]}
    bench.run(
        {"d": literal}, inputs={"d": "Directory"}, baseCommand=["sh", "-c", "cat $0/*"],
        arguments=["$(inputs.d.path)"],
    )  # fmt: skip
    assert bench.log == "BI"


def expressed(bench: Any, job: dict[str, Any], body: str, kind: str = "Directory") -> Any:
    """What an ExpressionTool gives on its port `o`."""
    made = bench.run(
        job,
        **{
            "class": "ExpressionTool", "requirements": JS, "expression": body,
            "inputs": dict.fromkeys(job, "Any"), "outputs": {"o": kind},
        },
    )  # fmt: skip
    return made.outputs["o"]


def test_an_expression_tool_passes_a_directory_on(bench: Any) -> None:
    made = expressed(bench, {"d": folder(bench, "d", "x", "s/y")}, "$({o: inputs.d})")
    assert made["path"] == str(bench.root / "data" / "d")
    assert [one["basename"] for one in made["listing"]] == ["s", "x"]


def test_an_expression_tool_passes_on_a_part_of_a_directory(bench: Any) -> None:
    body = "${ var d = inputs.d; return {o: {class: 'Directory', path: d.path + '/s'}}; }"
    made = expressed(bench, {"d": folder(bench, "d", "x", "s/y")}, body)
    assert made["basename"] == "s" and [one["basename"] for one in made["listing"]] == ["y"]


def test_an_expression_tool_passes_a_directory_literal_on(bench: Any) -> None:
    literal = {"class": "Directory", "basename": "d", "listing": [bench.file("a/x", "X")]}
    made = expressed(bench, {"d": literal}, "$({o: inputs.d})")
    assert made["basename"] == "d"
    assert Path(made["listing"][0]["path"]).read_text() == "X"


def test_a_directory_passed_on_keeps_the_formats_of_its_files(bench: Any) -> None:
    file = {**bench.file("a/x", "X"), "format": "x:f"}
    literal = {"class": "Directory", "basename": "d", "listing": [file, bench.file("a/y")]}
    made = expressed(bench, {"d": literal}, "$({o: inputs.d})")
    assert [one.get("format") for one in made["listing"]] == ["x:f", None]


def test_an_expression_tool_makes_a_directory_of_inputs(bench: Any) -> None:
    file = {**bench.file("a/x", "X"), "secondaryFiles": [bench.file("b/x.i", "I")]}
    body = "$({o: {class: 'Directory', basename: 'made', listing: [inputs.f, inputs.d]}})"
    made = expressed(bench, {"f": file, "d": folder(bench, "d", "y")}, body)
    assert made["basename"] == "made"
    assert [one["basename"] for one in made["listing"]] == ["d", "x", "x.i"]


@pytest.mark.parametrize("name", ["x", "../../x"])
def test_a_made_directory_lists_each_name_once_and_none_elsewhere(bench: Any, name: str) -> None:
    job = {"f": bench.file("a/x"), "g": bench.file("b/y")}
    body = f"""${{ inputs.g.basename = '{name}';
      return {{o: {{class: 'Directory', basename: 'm', listing: [inputs.f, inputs.g]}}}}; }}"""
    with pytest.raises(ToolFailure) as caught:
        expressed(bench, job, body)
    assert caught.value.code is ErrorCode.OUTPUT_INVALID
    if name == "x":
        assert "/a/x" in str(caught.value) and "/b/y" in str(caught.value)
