"""Inputs: staging, secondary files, literals, contents, listings, formats, resources."""

from pathlib import Path
from typing import Any

import pytest

from catalog.errors import ErrorCode
from workers.cwl import ToolFailure, load_tool, resources
from workers.spec import Resources

JS = {"InlineJavascriptRequirement": {}}


def shown(bench: Any, expression: str, job: dict[str, Any], **fields: Any) -> str:
    """An expression's value, as a payload gets it."""
    requirements = {**JS, **fields.pop("requirements", {})}
    got: list[str] = bench.arguments(
        job, arguments=[expression], requirements=requirements, **fields
    )
    return "".join(got)


def test_files_are_linked_under_their_names(bench: Any) -> None:
    file = bench.file("a.tar.gz", "data")
    fields = ("path", "basename", "nameroot", "nameext", "size")
    text = " ".join(f"$(inputs.f.{one})" for one in fields)
    got = shown(bench, text, {"f": file}, inputs={"f": "File"})
    path = f"{bench.last}/stage/a.tar.gz"
    assert got == f"{path} a.tar.gz a.tar .gz 4"
    assert Path(path).samefile(file["path"])


def test_files_of_one_name_do_not_clash(bench: Any) -> None:
    files = [bench.file(f"{name}/same.txt", name) for name in ("one", "two", "three")]
    bench.run(
        {"f": files},
        inputs={"f": {"type": "File[]", "inputBinding": {}}},
        baseCommand="cat",
    )
    assert bench.log == "onetwothree"


def test_another_basename_is_the_name_it_gets(bench: Any) -> None:
    file = {**bench.file("key.bin", "x"), "basename": "run 1.raw"}
    assert shown(bench, "$(inputs.f.path)", {"f": file}, inputs={"f": "File"}).endswith(
        "/stage/run 1.raw"
    )


@pytest.mark.parametrize("basename", ["../x", "", "..", "a/b"])
def test_a_basename_that_leads_elsewhere_is_refused(bench: Any, basename: str) -> None:
    file = {**bench.file("x"), "basename": basename}
    with pytest.raises(ToolFailure, match="no file name"):
        bench.run({"f": file}, inputs={"f": "File"}, baseCommand="true")


def test_a_missing_file_is_named(bench: Any) -> None:
    file = {"class": "File", "path": "/no/such/file"}
    with pytest.raises(ToolFailure, match="/no/such/file") as caught:
        bench.run({"f": file}, inputs={"f": "File"}, baseCommand="true")
    assert caught.value.code is ErrorCode.INPUT_MISSING


def test_a_directory_is_no_file(bench: Any, tmp_path: Path) -> None:
    with pytest.raises(ToolFailure, match="not a File"):
        bench.run(
            {"f": {"class": "File", "path": str(tmp_path)}},
            inputs={"f": "File"},
            baseCommand="true",
        )


def test_literals_become_files(bench: Any) -> None:
    literal = {"class": "File", "basename": "note", "contents": "text\n"}
    folder = {"class": "Directory", "basename": "d", "listing": [literal, bench.file("real", "r")]}
    bench.run(
        {"f": literal, "d": folder},
        inputs={
            "f": {"type": "File", "inputBinding": {"position": 1}},
            "d": {"type": "Directory", "inputBinding": {"position": 2}},
        },
        baseCommand=["sh", "-c", 'cat "$0"; ls "$1"; cat "$1/real"'],
    )
    assert bench.log == "text\nnote\nreal\nr"


SECONDARY = {"f": {"type": "File", "secondaryFiles": [".idx", "^.dict?"]}}


def test_secondary_files_lie_beside_their_file_and_alone(bench: Any) -> None:
    other = bench.file("other")
    file = {**bench.file("a.fa"), "secondaryFiles": [bench.file("a.fa.idx")]}
    bench.run(
        {"f": file, "g": other},
        inputs={**SECONDARY, "g": "File"},
        baseCommand="ls",
        arguments=["$(inputs.f.dirname)"],
    )
    assert bench.log.split() == ["a.fa", "a.fa.idx"]


def test_a_required_secondary_file_must_come_along(bench: Any) -> None:
    bench.file("a.fa.idx")
    with pytest.raises(ToolFailure, match=r"without its secondary file 'a.fa.idx'") as caught:
        bench.run({"f": bench.file("a.fa")}, inputs=SECONDARY, baseCommand="true")
    assert caught.value.code is ErrorCode.BAD_JOB_INPUT


def test_secondary_patterns_may_be_expressions(bench: Any) -> None:
    file = {**bench.file("a.fa"), "secondaryFiles": [bench.file("a.x"), bench.file("a.y")]}
    pattern = '$([self.nameroot + ".x", self.nameroot + inputs.end])'
    fields = {
        "inputs": {"f": {"type": "File", "secondaryFiles": [pattern]}, "end": "string"},
        "requirements": JS,
        "baseCommand": "true",
    }
    bench.run({"f": file, "end": ".y"}, **fields)
    with pytest.raises(ToolFailure, match=r"'a\.z'"):
        bench.run({"f": file, "end": ".z"}, **fields)


def test_contents_are_loaded_up_to_64_kib(bench: Any) -> None:
    inputs = {"f": {"type": "File", "loadContents": True}}
    fits, too_big = bench.file("fits", "x" * 65536), bench.file("big", "x" * 65537)
    text = "$(inputs.f.contents.length)"
    assert shown(bench, text, {"f": fits}, inputs=inputs) == "65536"
    with pytest.raises(ToolFailure, match="more than 65536 bytes"):
        shown(bench, text, {"f": too_big}, inputs=inputs)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("no_listing", ""), ("shallow_listing", "f,s,"), ("deep_listing", "f,s(g)")],
)
def test_listings(bench: Any, mode: str, expected: str) -> None:
    bench.file("d/s/g")
    folder = str(Path(bench.file("d/f")["path"]).parent)
    show = """${
      return (inputs.d.listing || []).map(function(one) {
        return one.basename + (one.listing ? "(" + one.listing[0].basename + ")" : ",");
      }).join(""); }"""
    got = shown(
        bench, show, {"d": {"class": "Directory", "path": folder}},
        inputs={"d": "Directory"}, requirements={"LoadListingRequirement": {"loadListing": mode}},
    )  # fmt: skip
    assert got == expected


def test_a_format_must_be_one_of_those_declared(bench: Any) -> None:
    fields = {"inputs": {"f": {"type": "File", "format": ["x:a", "x:b"]}}, "baseCommand": "true"}
    bench.run({"f": {**bench.file("f"), "format": "x:b"}}, **fields)
    for given, said in (("x:c", "x:c"), (None, "none")):
        with pytest.raises(ToolFailure, match=f"must have format x:a or x:b; 'f' has {said}"):
            bench.run({"f": {**bench.file("f"), "format": given}}, **fields)


def test_each_file_of_a_list_needs_its_format(bench: Any) -> None:
    fields = {"inputs": {"f": {"type": "File[]", "format": "x:a"}}, "baseCommand": "true"}
    good = {**bench.file("f"), "format": "x:a"}
    bench.run({"f": [good, good]}, **fields)
    with pytest.raises(ToolFailure, match="'g' has none"):
        bench.run({"f": [good, bench.file("g")]}, **fields)


@pytest.mark.parametrize("named", [False, True])
def test_patterns_see_the_names_of_a_literal(bench: Any, named: bool) -> None:
    literal = {"class": "File", "contents": "text", **({"basename": "a.b.c"} if named else {})}
    pattern = "$({class: 'File', contents: 'I', basename: self.nameroot + '.idx'})"
    got = shown(
        bench,
        "$(inputs.f.secondaryFiles[0].basename + ' ' + inputs.f.basename)",
        {"f": literal},
        inputs={"f": {"type": "File", "secondaryFiles": [{"pattern": pattern}]}},
    )
    index, name = got.split()
    assert index == f"{Path(name).stem}.idx"
    assert name == "a.b.c" if named else name.startswith("literal-")


def test_literals_without_a_name_get_one_each(bench: Any) -> None:
    literals = [{"class": "File", "contents": text} for text in ("one\n", "two\n")]
    folder = {"class": "Directory", "listing": literals}
    inputs = {"d": {"type": "Directory", "inputBinding": {}}}
    bench.run({"d": folder}, baseCommand=["sh", "-c", "cat $0/* | sort"], inputs=inputs)
    assert bench.log == "one\ntwo\n"


def test_a_format_may_be_a_kind_of_another_by_an_ontology(bench: Any) -> None:
    ontology = bench.file(
        "kinds.ttl",
        "@prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .\n"
        "<http://x/c> rdfs:subClassOf <http://x/b> . <http://x/b> rdfs:subClassOf <http://x/a> .\n",
    )
    fields = {
        "inputs": {"f": {"type": "File", "format": "http://x/a"}},
        "baseCommand": "true",
        "$schemas": [Path(ontology["path"]).as_uri()],
    }
    bench.run({"f": {**bench.file("f"), "format": "http://x/c"}}, **fields)
    with pytest.raises(ToolFailure, match="must have format"):
        bench.run({"f": {**bench.file("f"), "format": "http://x/d"}}, **fields)


def test_the_job_is_left_as_it_was(bench: Any) -> None:
    file = bench.file("a")
    job = {"f": [dict(file)], "any": {"deep": [dict(file)]}}
    bench.run(
        job, inputs={"f": "File[]", "any": "Any", "d": {"type": "File", "default": dict(file)}},
        baseCommand="true",
    )  # fmt: skip
    assert job == {"f": [file], "any": {"deep": [file]}}


def test_runtime_tells_what_is_reserved(bench: Any) -> None:
    text = "$(runtime.cores) $(runtime.ram) $(runtime.outdirSize) $(runtime.tmpdirSize)"
    got = shown(
        bench, text, {}, options={"cores": 1.5, "ram_mib": 700},
        requirements={"ResourceRequirement": {"outdirMin": 12.5}},
    )  # fmt: skip
    assert got == "2 700 13 1024"
    assert shown(bench, "$(runtime.outdir)", {}) == str(bench.out)


@pytest.mark.parametrize(
    ("requirement", "expected"),
    [
        ({}, Resources()),
        ({"coresMin": 0.5, "ramMin": 100.2}, Resources(cores=0.5, ram_mib=101)),
        ({"coresMin": "$(inputs.n)", "ramMin": "$(inputs.f.size)"}, Resources(cores=4, ram_mib=5)),
        ({"tmpdirMin": 7, "outdirMax": 9}, Resources(tmpdir_mib=7, outdir_mib=9)),
    ],
)
def test_resources(bench: Any, requirement: dict[str, Any], expected: Resources) -> None:
    tool = load_tool(
        {
            "class": "CommandLineTool", "cwlVersion": "v1.2", "baseCommand": "true",
            "inputs": {"n": {"type": "int", "default": 4}, "f": "File"}, "outputs": [],
            "requirements": [{"class": "ResourceRequirement", **requirement}],
        }
    )  # fmt: skip
    assert resources(tool, {"f": bench.file("f", "12345")}) == expected


def test_devices_come_from_a_cuda_requirement_even_as_a_hint() -> None:
    hint = {"class": "cwltool:CUDARequirement", "cudaDeviceCountMin": 2}
    tool = {"class": "CommandLineTool", "cwlVersion": "v1.2", "baseCommand": "true", "inputs": []}
    assert resources(load_tool({**tool, "outputs": [], "hints": [hint]}), {}).devices == 2


def test_a_maximum_below_the_minimum_is_refused() -> None:
    wrong = {"class": "ResourceRequirement", "coresMin": 4, "coresMax": 2}
    tool = {"class": "CommandLineTool", "cwlVersion": "v1.2", "baseCommand": "true", "inputs": []}
    with pytest.raises(ToolFailure, match="coresMax is less than coresMin"):
        resources(load_tool({**tool, "outputs": [], "requirements": [wrong]}), {})
