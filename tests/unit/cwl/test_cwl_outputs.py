"""Outputs: globs, types, outputEval, secondary files, cwl.output.json, and what stays inside."""

import json
from pathlib import Path
from typing import Any

import pytest

from catalog.errors import ErrorCode
from workers.cwl import ToolFailure, load_tool, run_tool
from workers.spec import ToolRun

JS = {"InlineJavascriptRequirement": {}}


def sh(script: str) -> dict[str, Any]:
    return {"baseCommand": ["sh", "-c", script]}


def output(kind: Any, glob: Any = None, **fields: Any) -> dict[str, Any]:
    """One output `o` with a glob and other fields of its binding, or (`_x`) of its own."""
    own = {key[1:]: value for key, value in fields.items() if key.startswith("_")}
    binding = {key: value for key, value in fields.items() if not key.startswith("_")}
    if glob is not None:
        binding["glob"] = glob
    return {"outputs": {"o": {"type": kind, "outputBinding": binding, **own}}}


def names(value: Any) -> list[str]:
    return [one["basename"] for one in value]


def failure(bench: Any, **fields: Any) -> ToolFailure:
    with pytest.raises(ToolFailure) as caught:
        bench.run(**fields)
    return caught.value


def test_a_file_is_described(bench: Any) -> None:
    got = bench.run(**sh("printf 12345 > a.txt"), **output("File", "*.txt")).outputs["o"]
    path = bench.out / "a.txt"
    assert got == {
        "class": "File", "location": path.as_uri(), "path": str(path), "basename": "a.txt",
        "nameroot": "a", "nameext": ".txt", "size": 5,
    }  # fmt: skip


def test_globs_are_sorted_by_bytes_each_pattern_in_its_turn(bench: Any) -> None:
    make = sh("touch b a B .hidden c.log; mkdir d; touch d/x")
    assert names(bench.run(**make, **output("File[]", ["c*", "[!dc]*", "a"])).outputs["o"]) == [
        "c.log", "B", "a", "b",
    ]  # fmt: skip
    assert names(bench.run(**make, **output("File[]", "d/*")).outputs["o"]) == ["x"]


def test_globs_may_be_expressions_and_below_the_outdir_absolute(bench: Any) -> None:
    fields = {**sh("touch a b"), "requirements": JS}
    assert names(bench.run(**fields, **output("File[]", "$(['a', 'b'])")).outputs["o"]) == [
        "a",
        "b",
    ]
    assert names(bench.run(**fields, **output("File[]", "$(runtime.outdir)/b")).outputs["o"]) == [
        "b"
    ]


@pytest.mark.parametrize("pattern", ["../*", "a/../../x", "/etc/passwd", "/etc/*"])
def test_a_glob_can_not_leave_the_output_directory(bench: Any, pattern: str) -> None:
    fault = failure(
        bench, **sh("true"), **output("File?", "$(inputs.p)"),
        inputs={"p": {"type": "string", "default": pattern}},
    )  # fmt: skip
    assert fault.code is ErrorCode.OUTPUT_INVALID
    assert "leads out" in str(fault)


@pytest.mark.parametrize(
    ("script", "pattern"),
    [
        ("ln -s /etc/hostname x", "x"),
        ("ln -s /etc d", "d/hostname"),
        ("mkdir d; ln -s /etc/hostname d/x", "d"),
        ("ln -s / d", "d"),
    ],
)
def test_a_link_can_not_lead_out_either(bench: Any, script: str, pattern: str) -> None:
    fault = failure(bench, **sh(script), **output("Any", pattern))
    assert fault.code is ErrorCode.OUTPUT_INVALID
    assert "outside the output directory" in str(fault)


def test_links_within_and_to_inputs_are_fine(bench: Any) -> None:
    job = {"f": bench.file("in", "data")}
    script = {"baseCommand": ["sh", "-c", 'echo 1 > a; ln -s a b; ln -s "$0" c']}
    bound = {"f": {"type": "File", "inputBinding": {}}}
    got = bench.run(job, **script, inputs=bound, **output("File[]", ["b", "c"])).outputs["o"]
    assert [Path(one["path"]).read_text() for one in got] == ["1\n", "data"]


def test_a_link_to_nothing_and_a_pipe_are_refused(bench: Any) -> None:
    assert "link to nothing" in str(failure(bench, **sh("ln -s no x"), **output("File", "x")))
    assert "neither a file" in str(failure(bench, **sh("mkfifo x"), **output("File", "x")))


def test_missing_outputs(bench: Any) -> None:
    fault = failure(bench, **sh("true"), **output("File", "none.*"))
    assert fault.code is ErrorCode.OUTPUT_MISSING
    assert "none.*" in str(fault)
    assert bench.run(**sh("true"), **output("File?", "none.*")).outputs == {"o": None}
    assert bench.run(**sh("true"), **output("File[]", "none.*")).outputs == {"o": []}
    assert bench.run(**sh("true"), **output("File[]?", "none.*")).outputs == {"o": None}


@pytest.mark.parametrize(
    ("script", "fields"),
    [
        ("touch a b", output("File", "*")),
        ("mkdir a", output("File", "a")),
        ("touch a", output("Directory", "a")),
        ("true", output("int", outputEval="text")),
        ("touch a", output("string", "a")),
    ],
)
def test_outputs_that_do_not_fit(bench: Any, script: str, fields: dict[str, Any]) -> None:
    assert failure(bench, **sh(script), **fields).code is ErrorCode.OUTPUT_INVALID


def test_output_eval_sees_the_files_their_contents_and_the_exit_code(bench: Any) -> None:
    got = bench.run(
        **sh("echo 41 > n; exit 3"), successCodes=[3], requirements=JS,
        **output(
            "int", "n", loadContents=True,
            outputEval="$(parseInt(self[0].contents) + runtime.exitCode - 2)",
        ),
    )  # fmt: skip
    assert got.outputs == {"o": 42}


def test_a_failing_output_expression_is_named(bench: Any) -> None:
    fault = failure(bench, **sh("true"), requirements=JS, **output("int", outputEval="$(a.b)"))
    assert fault.code is ErrorCode.EXPRESSION_FAILED
    assert "a.b" in str(fault)


def test_output_secondary_files_and_format(bench: Any) -> None:
    secondary = [".idx", {"pattern": "^.dict", "required": True}, {"pattern": "$(self.nameroot).q"}]
    fields = output("File", "a.fa", _secondaryFiles=secondary, _format="x:$(self.nameroot)")
    got = bench.run(**sh("touch a.fa a.dict a.q"), **fields).outputs["o"]
    assert names(got["secondaryFiles"]) == ["a.dict", "a.q"]
    assert got["format"] == "x:a"
    fault = failure(bench, **sh("touch a.fa a.fa.idx"), **fields)
    assert fault.code is ErrorCode.OUTPUT_MISSING
    assert "a.dict" in str(fault)


def test_directories_are_listed_whole(bench: Any) -> None:
    got = bench.run(**sh("mkdir -p d/e; touch d/e/x d/a"), **output("Directory", "d")).outputs["o"]
    assert names(got["listing"]) == ["a", "e"]
    assert names(got["listing"][1]["listing"]) == ["x"]


def test_records_are_collected_field_by_field(bench: Any) -> None:
    field = {"type": "File", "outputBinding": {"glob": "a"}}
    record = {"type": "record", "fields": [{"name": "f", **field}]}
    got = bench.run(**sh("touch a"), outputs={"o": {"type": record}}).outputs
    assert got["o"]["f"]["basename"] == "a"


PAIR = {
    "type": "record",
    "fields": [
        {"name": name, "type": "File", "outputBinding": {"glob": name}} for name in ("a", "b")
    ],
}


@pytest.mark.parametrize(
    ("kind", "script", "made"),
    [
        (["null", PAIR], "true", None),
        (["null", PAIR], "touch a b", {"a", "b"}),
        (["null", {**PAIR, "fields": [{**PAIR["fields"][0], "type": "File?"}]}], "true", {"a"}),
        ({"type": "record", "fields": [{"name": "r", "type": ["null", PAIR]}]}, "true", {"r"}),
    ],
)
def test_an_optional_record_of_which_nothing_was_made_is_null(
    bench: Any, kind: Any, script: str, made: set[str] | None
) -> None:
    got = bench.run(**sh(script), outputs={"o": {"type": kind}}).outputs["o"]
    assert got is None if made is None else set(got) == made


@pytest.mark.parametrize(
    ("kind", "script"), [(["null", PAIR], "touch a"), (PAIR, "true"), (PAIR, "touch a")]
)
def test_a_record_of_which_a_part_was_made_is_none(bench: Any, kind: Any, script: str) -> None:
    with pytest.raises(ToolFailure, match="output 'o'"):
        bench.run(**sh(script), outputs={"o": {"type": kind}})


def test_a_secondary_file_of_an_output_is_optional_where_required_gives_null(bench: Any) -> None:
    field = {"type": "File", "outputBinding": {"glob": "a"}}
    extra = {"secondaryFiles": [{"pattern": ".idx", "required": "$(inputs.w)"}]}
    fields = {"inputs": {"w": "boolean?"}, "outputs": {"o": {**field, **extra}}}
    assert bench.run({}, **sh("touch a"), **fields).outputs["o"]["basename"] == "a"
    with pytest.raises(ToolFailure, match="secondary"):
        bench.run({"w": True}, **sh("touch a"), **fields)


def test_checksums_only_when_asked(bench: Any, tmp_path: Path) -> None:
    tool = load_tool(
        {
            "class": "CommandLineTool", "cwlVersion": "v1.2", "inputs": [],
            **sh("printf abc > a"), **output("File", "a"),
        }
    )  # fmt: skip
    for name in ("out", "tmp", "stage"):
        (tmp_path / name).mkdir()
    run = ToolRun({}, tmp_path / "out", tmp_path / "tmp", tmp_path / "stage", tmp_path / "log")
    got = run_tool(tool, run, reapers=bench.reapers, checksums=True).outputs["o"]
    assert got["checksum"] == "sha1$a9993e364706816aba3e25717850c26c9cd0d89d"


def written(bench: Any, value: Any, **fields: Any) -> Any:
    """The outputs of a payload that writes `value` as its cwl.output.json, and a file `a`."""
    text = value if isinstance(value, str) else json.dumps(value)
    script = 'touch a; printf %s "$0" > cwl.output.json'
    return bench.run(baseCommand=["sh", "-c", script, text], **fields)


@pytest.mark.parametrize("place", [{"path": "a"}, {"location": "a"}])
def test_an_output_object_of_the_payloads_own(bench: Any, place: dict[str, str]) -> None:
    fields = {"outputs": {"f": "File", "n": "int", "none": "string?"}}
    got = written(bench, {"f": {"class": "File", **place}, "n": 3, "x": 1}, **fields).outputs
    assert (got["f"]["path"], got["n"], got["none"]) == (str(bench.out / "a"), 3, None)
    assert set(got) == {"f", "n", "none"}


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ({"location": "d/a%20b%231%2520.bam"}, "a b#1%20.bam"),
        ({"path": "d/a%20b"}, "a%20b"),
        ({"location": "d/a b#1%2520.bam"}, "a b#1%20.bam"),
    ],
)
def test_a_relative_location_is_an_iri_and_a_path_is_none(
    bench: Any, place: dict[str, str], name: str
) -> None:
    value = {"f": {"class": "File", **place}}
    script = 'mkdir d; touch "d/a b#1%20.bam" d/a%20b; printf %s "$0" > cwl.output.json'
    argv = ["sh", "-c", script, json.dumps(value)]
    got = bench.run(baseCommand=argv, outputs={"f": "File"}).outputs["f"]
    assert (got["basename"], got["path"]) == (name, str(bench.out / "d" / name))


@pytest.mark.parametrize(
    "value",
    [
        "no json", "[1]", {"f": 3}, {"f": {"class": "File", "path": "none"}},
        {"f": {"class": "File", "path": "/etc/hostname"}},
        {"f": {"class": "File", "path": "../../data/x"}},
        {"f": {"class": "File", "location": "https://example.org/x"}},
        {"f": {"class": "File", "path": "a", "basename": "../b"}},
    ],
)  # fmt: skip
def test_a_wrong_output_object_is_refused(bench: Any, value: Any) -> None:
    bench.file("x")
    with pytest.raises(ToolFailure) as caught:
        written(bench, value, outputs={"f": "File"})
    assert caught.value.code is ErrorCode.OUTPUT_INVALID


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_what_json_has_no_number_for_is_refused(bench: Any, word: str) -> None:
    with pytest.raises(ToolFailure, match=f"{word} is not JSON") as caught:
        written(bench, f'{{"x": {word}}}', outputs={"x": "float"})
    assert caught.value.code is ErrorCode.OUTPUT_INVALID


def test_literals_are_written_out(bench: Any) -> None:
    folder = {"class": "Directory", "basename": "d", "listing": [
        {"class": "File", "basename": "lit", "contents": "text"}, {"class": "File", "path": "a"},
    ]}  # fmt: skip
    got = written(bench, {"d": folder}, outputs={"d": "Directory"}).outputs["d"]
    assert sorted(one.name for one in Path(got["path"]).iterdir()) == ["a", "lit"]
    assert (Path(got["path"]) / "lit").read_text() == "text"


def expression_tool(expression: str, outputs: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "class": "ExpressionTool", "expression": expression, "outputs": outputs,
        "requirements": JS, **fields,
    }  # fmt: skip


def test_an_expression_tool(bench: Any) -> None:
    tool = expression_tool(
        "${ var l = {class: 'File', basename: 'x', contents: 'y'};"
        " return {n: inputs.n + 1, f: inputs.f, l: l}; }",
        {"n": "int", "f": "File", "l": "File"},
        inputs={"n": "int", "f": "File"},
    )
    file = bench.file("in", "data")
    got = bench.run({"n": 1, "f": file}, **tool)
    assert got.exit_code is None
    assert got.outputs["n"] == 2
    assert got.outputs["f"]["path"] == file["path"]
    assert Path(got.outputs["l"]["path"]).read_text() == "y"


def test_an_expression_tool_must_give_what_it_declares(bench: Any) -> None:
    assert "not 3" in str(failure(bench, **expression_tool("$(3)", {})))
    fault = failure(bench, **expression_tool("$({n: 'x'})", {"n": "int"}))
    assert fault.code is ErrorCode.OUTPUT_INVALID


@pytest.mark.parametrize(
    "place", ["file://[::1/y", "file://[x", "file:///a%00b", "file://elsewhere/y", "http://[x"]
)
@pytest.mark.parametrize("kind", ["payload", "expression", "listed", "secondary"])
def test_a_location_that_is_no_path_here_is_an_output_that_is_none(
    bench: Any, place: str, kind: str
) -> None:
    made: dict[str, Any] = {"class": "File", "location": place}
    if kind == "listed":
        made = {"class": "Directory", "basename": "d", "listing": [made]}
    if kind == "secondary":
        made = {"class": "File", "basename": "x", "contents": "", "secondaryFiles": [made]}
    if kind == "expression":
        fault = failure(bench, **expression_tool(f"$({json.dumps({'o': made})})", {"o": "Any"}))
    else:
        with pytest.raises(ToolFailure) as caught:
            written(bench, {"o": made}, outputs={"o": "Any"})
        fault = caught.value
    assert fault.code is ErrorCode.OUTPUT_INVALID
    assert place in str(fault)


def test_the_local_host_is_this_machine(bench: Any) -> None:
    place = f"file://localhost{bench.root}/run-1/out/a"
    got = written(bench, {"o": {"class": "File", "location": place}}, outputs={"o": "File"})
    assert got.outputs["o"]["basename"] == "a"


def test_an_expression_tool_that_names_an_output_wrongly_is_told_of(bench: Any) -> None:
    tool = expression_tool("$({god: null, n: 1})", {"good": "File?", "n": "int"})
    fault = failure(bench, **tool)
    assert fault.code is ErrorCode.EXPRESSION_FAILED
    assert "'god' is no output of 't', which has: good, n" in str(fault)


def test_more_in_an_output_object_of_a_payload_is_left_out_and_logged(
    bench: Any, caplog: pytest.LogCaptureFixture
) -> None:
    got = written(bench, {"n": 1, "m": 2}, outputs={"n": "int"})
    assert got.outputs == {"n": 1}
    (record,) = [one for one in caplog.records if one.name == "workers.cwl.outputs"]
    assert record.__dict__["keys"] == ["'m'"]


BRACKETS = sh("echo pattern > x1.txt; echo literal > 'x[1].txt'")


def contents(value: Any) -> list[str]:
    return [Path(one["path"]).read_text().strip() for one in value]


def test_a_pattern_is_one_also_where_a_file_is_called_like_it(bench: Any) -> None:
    got = bench.run(**BRACKETS, **output("File[]", "x[1].txt")).outputs["o"]
    assert contents(got) == ["pattern"]
    got = bench.run(**BRACKETS, **output("File[]", "x\\[1\\].txt")).outputs["o"]
    assert contents(got) == ["literal"]


def test_a_pattern_that_finds_nothing_is_a_name_only_where_an_expression_made_it(
    bench: Any,
) -> None:
    made = sh("echo literal > 'y[1].txt'")
    assert bench.run(**made, **output("File[]", "y[1].txt")).outputs["o"] == []
    got = bench.run(
        {"n": "y[1]"}, **made, **output("File[]", "$(inputs.n).txt"), inputs={"n": "string"}
    )
    assert contents(got.outputs["o"]) == ["literal"]


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_streams_file_is_found_by_its_name(bench: Any, stream: str) -> None:
    redirect = "" if stream == "stdout" else " >&2"
    got = bench.run(
        **sh(f"echo wrong > x1.txt; echo right{redirect}"),
        **{stream: "x[1].txt"},
        outputs={"o": stream},
    )
    assert contents([got.outputs["o"]]) == ["right"]


def test_patterns_see_the_names_of_what_an_expression_gives(bench: Any) -> None:
    got = bench.run(
        **sh("touch a.dat a.idx a.dat.md5"),
        **output(
            "File",
            outputEval="$({class: 'File', path: runtime.outdir + '/a.dat'})",
            _secondaryFiles=["$(self.nameroot).idx", "$(self.basename).md5", ".md5"],
        ),
        requirements=JS,
    ).outputs["o"]
    assert names(got["secondaryFiles"]) == ["a.idx", "a.dat.md5"]


def test_a_literal_of_an_expression_needs_no_name(bench: Any) -> None:
    literal = "$({class: 'File', contents: 'text'})"
    got = bench.run(
        **sh("true"),
        **output(
            "File",
            outputEval=literal,
            _secondaryFiles=[
                "$({class: 'File', basename: self.nameroot + '.i', contents: self.basename})"
            ],
        ),
        requirements=JS,
    ).outputs["o"]
    assert contents([got]) == ["text"]
    assert names(got["secondaryFiles"]) == [f"{got['nameroot']}.i"]
    assert contents(got["secondaryFiles"]) == [got["basename"]]


@pytest.mark.parametrize(
    "value",
    [
        {"class": "File", "path": 5},
        {"class": "File", "path": "a", "secondaryFiles": "a.idx"},
        {"class": "File", "path": "a", "secondaryFiles": ["a.idx"]},
        {"class": "File", "contents": "x", "basename": ["y"]},
        {"class": "File", "path": "a\0b"},
        {"class": "Directory", "basename": "d", "listing": ["a"]},
        {"class": "Directory", "basename": "d", "listing": [[{"class": "File", "path": "a"}]]},
        {"class": "Directory", "basename": "d", "listing": {"class": "File", "path": "a"}},
    ],
)
def test_a_file_object_that_is_none_is_refused_and_told(bench: Any, value: Any) -> None:
    expression = f"$({json.dumps(value)})"
    fault = failure(bench, **sh("touch a"), **output("Any", outputEval=expression), requirements=JS)
    assert fault.code is ErrorCode.OUTPUT_INVALID
    with pytest.raises(ToolFailure) as caught:
        bench.run({"x": value}, inputs={"x": "Any"}, **sh("true"))
    assert caught.value.code in (ErrorCode.BAD_JOB_INPUT, ErrorCode.INPUT_MISSING)


def test_an_output_of_any_type_has_all_that_a_glob_finds(bench: Any) -> None:
    make = sh("touch a b")
    assert names(bench.run(**make, **output("Any", "a")).outputs["o"]) == ["a"]
    assert bench.run(**make, **output("Any", "none")).outputs["o"] == []


def test_secondary_files_of_a_record_field_are_optional_as_all_of_outputs(bench: Any) -> None:
    field = {"name": "f", "type": "File", "outputBinding": {"glob": "a"}}
    record = {"type": "record", "fields": [{**field, "secondaryFiles": [".idx", "^a"]}]}
    got = bench.run(**sh("touch a"), outputs={"o": {"type": record}}).outputs["o"]
    # The last pattern names the file itself.
    assert got["f"].get("secondaryFiles") == []


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"secondaryFiles": ["$(self.size)"]}, "secondaryFiles of output 'o'"),
        ({"secondaryFiles": ["$([''])"]}, "secondaryFiles of output 'o'"),
        ({"secondaryFiles": [{"pattern": ".i", "required": "$(1)"}]}, "secondaryFiles"),
        ({"format": "$(null)"}, "format of output 'o'"),
        ({"format": "$(self.nope)"}, "format of output 'o'"),
    ],
)
def test_what_an_expression_gives_must_fit_its_place(bench: Any, fields: Any, place: str) -> None:
    kept = {f"_{key}": value for key, value in fields.items()}
    fault = failure(bench, **sh("touch a"), **output("File", "a", **kept), requirements=JS)
    assert fault.code is ErrorCode.EXPRESSION_FAILED and place in str(fault)
    inputs = {"f": {"type": "File", **fields}}
    with pytest.raises(ToolFailure) as caught:
        bench.run({"f": bench.file("a")}, inputs=inputs, requirements=JS, **sh("true"))
    if "secondaryFiles" in fields:
        assert caught.value.code is ErrorCode.EXPRESSION_FAILED
