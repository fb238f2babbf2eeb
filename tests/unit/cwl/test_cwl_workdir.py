"""InitialWorkDirRequirement: what lies in the output directory before the payload starts."""

from pathlib import Path
from typing import Any

import pytest

from catalog.errors import BadTemplate, ErrorCode
from workers.cwl import ToolFailure


def laid_out(bench: Any, listing: Any, job: dict[str, Any] | None = None, **fields: Any) -> Path:
    """The output directory after `listing` was laid out and the payload (`true`) ran."""
    requirements = {
        "InitialWorkDirRequirement": {"listing": listing},
        "InlineJavascriptRequirement": {},
        **fields.pop("requirements", {}),
    }
    bench.run(job, **{"baseCommand": "true", "requirements": requirements, **fields})
    out: Path = bench.out
    return out


def entries(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def dirent(entry: str, name: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"entry": entry, **({} if name is None else {"entryname": name}), **fields}


def literal(name: str, text: str) -> dict[str, Any]:
    return {"class": "File", "basename": name, "contents": text}


def folder(name: str, *listed: Any) -> dict[str, Any]:
    return {"class": "Directory", "basename": name, "listing": list(listed)}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("plain $5 text\n", "plain $5 text\n"),
        ("n is $(inputs.n)\n", "n is 3\n"),
        ("$(inputs.n)", "3"),
        ("${ return {b: [1], a: 'x'}; }", '{"a": "x", "b": [1]}'),
        ("$([])", "[]"),
        ("\\$(inputs.n) $('x')", "$(inputs.n) x"),
    ],
)
def test_texts_become_files(bench: Any, entry: str, expected: str) -> None:
    out = laid_out(bench, [dirent(entry, "f-$(inputs.n)")], {"n": 3}, inputs={"n": "int"})
    assert (out / "f-3").read_text() == expected


def test_inputs_are_linked_and_their_paths_follow(bench: Any) -> None:
    file = bench.file("a.txt", "data")
    out = laid_out(
        bench, [dirent("$(inputs.f)", "sub/b.dat"), "$(inputs.g)", dirent("$(null)", "x")],
        {"f": file, "g": [bench.file("c")]}, inputs={"f": "File", "g": "File[]"},
        baseCommand="echo", arguments=["$(inputs.f.path) $(inputs.f.nameext) $(inputs.g[0].path)"],
    )  # fmt: skip
    assert bench.log == f"{out}/sub/b.dat .dat {out}/c\n"
    assert (out / "sub/b.dat").samefile(file["path"])
    assert entries(out) == ["c", "sub"]


def test_what_is_writable_is_a_copy(bench: Any) -> None:
    file = bench.file("a", "old")
    Path(file["path"]).chmod(0o444)
    out = laid_out(
        bench, [dirent("$(inputs.f)", writable=True)], {"f": file}, inputs={"f": "File"},
        baseCommand=["sh", "-c", "echo new > a"],
    )  # fmt: skip
    assert (out / "a").read_text() == "new\n"
    assert Path(file["path"]).read_text() == "old"


def test_a_writable_directory_is_copied_with_all_in_it(bench: Any) -> None:
    bench.file("d/s/x", "old")
    folder = {"class": "Directory", "path": str(bench.root / "data" / "d")}
    out = laid_out(
        bench, [dirent("$(inputs.d)", "copy", writable=True)], {"d": folder},
        inputs={"d": "Directory"}, baseCommand=["sh", "-c", "echo new > copy/s/x"],
    )  # fmt: skip
    assert (out / "copy/s/x").read_text() == "new\n"
    assert (bench.root / "data/d/s/x").read_text() == "old"


def test_an_inplace_update_changes_the_input(bench: Any) -> None:
    file = bench.file("a", "old")
    laid_out(
        bench, [dirent("$(inputs.f)", writable=True)], {"f": file}, inputs={"f": "File"},
        baseCommand=["sh", "-c", "echo new > a"],
        requirements={"InplaceUpdateRequirement": {"inplaceUpdate": True}},
    )  # fmt: skip
    assert Path(file["path"]).read_text() == "new\n"


def test_a_file_put_into_a_linked_directory_does_not_reach_the_input(bench: Any) -> None:
    bench.file("d/x")
    folder = {"class": "Directory", "path": str(bench.root / "data" / "d")}
    out = laid_out(
        bench, [dirent("$(inputs.d)", "d"), dirent("text", "d/new")], {"d": folder},
        inputs={"d": "Directory"},
    )  # fmt: skip
    assert entries(out / "d") == ["new", "x"]
    assert entries(bench.root / "data" / "d") == ["x"]


def test_a_listing_may_be_one_expression(bench: Any) -> None:
    listing = """${ return [
      inputs.f, {entryname: "t", entry: "text"}, null,
      {class: "Directory", basename: "d", listing: [inputs.f]} ]; }"""
    out = laid_out(bench, listing, {"f": bench.file("a", "A")}, inputs={"f": "File"})
    assert entries(out) == ["a", "d", "t"]
    assert (out / "d/a").read_text() == "A"


def test_secondary_files_come_along(bench: Any) -> None:
    file = {**bench.file("a.fa"), "secondaryFiles": [bench.file("a.fa.idx")]}
    out = laid_out(bench, ["$(inputs.f)"], {"f": file}, inputs={"f": "File"})
    assert entries(out) == ["a.fa", "a.fa.idx"]


def test_an_empty_writable_directory(bench: Any) -> None:
    literal = '$({class: "Directory", listing: []})'
    out = laid_out(bench, [dirent(literal, "empty", writable=True)])
    assert (out / "empty").is_dir() and not (out / "empty").is_symlink()


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/../../x", "."])
def test_an_entry_can_not_leave_the_output_directory(bench: Any, name: str) -> None:
    with pytest.raises(ToolFailure, match="leads out"):
        laid_out(bench, [dirent("text", name)])


@pytest.mark.parametrize("entry", ["$(3)", "$('text')", "$([1])"])
def test_an_entry_that_is_no_file_is_refused(bench: Any, entry: str) -> None:
    with pytest.raises(ToolFailure, match="can't hold"):
        laid_out(bench, [entry])


def test_a_staged_input_can_be_an_output(bench: Any) -> None:
    listing = {"listing": ["$(inputs.f)"]}
    got = bench.run(
        {"f": bench.file("a", "A")}, inputs={"f": "File"}, baseCommand="true",
        requirements={"InitialWorkDirRequirement": listing},
        outputs={"o": {"type": "File", "outputBinding": {"glob": "a"}}},
    )  # fmt: skip
    assert Path(got.outputs["o"]["path"]).read_text() == "A"


def clash(bench: Any, listing: Any, job: dict[str, Any] | None = None, **fields: Any) -> str:
    """What is said of a listing that can't be laid out."""
    with pytest.raises(ToolFailure) as caught:
        laid_out(bench, listing, job, **fields)
    assert caught.value.code is ErrorCode.BAD_JOB_INPUT
    return str(caught.value)


TWO = {"f": "File", "g": "File"}


def two_of_one_name(bench: Any) -> dict[str, Any]:
    return {"f": bench.file("1/sum.txt", "one"), "g": bench.file("2/sum.txt", "two")}


@pytest.mark.parametrize(
    "listing",
    [
        ["$(inputs.f)", "$(inputs.g)"],
        ["$([inputs.f, inputs.g])"],
        [dirent("$([inputs.f, inputs.g])", writable=True)],
        "$([inputs.f, inputs.g])",
        [dirent("$(inputs.f)", "x"), dirent("$(inputs.g)", "./x", writable=True)],
        [dirent("$(inputs.f)", "x"), dirent("$(inputs.g)", "x/y")],
        [dirent("$(inputs.g)", "a/x/y"), dirent("$(inputs.f)", "a/x")],
        ["$({class: 'Directory', basename: 'd', listing: [inputs.f, inputs.g]})"],
        [dirent("$(inputs.f)", "d/sum.txt"),
         "$({class: 'Directory', basename: 'd', listing: [inputs.g]})"],
    ],
)  # fmt: skip
def test_two_files_at_one_path_are_refused_and_named(bench: Any, listing: Any) -> None:
    said = clash(bench, listing, two_of_one_name(bench), inputs=TWO)
    assert "/data/1/sum.txt" in said and "/data/2/sum.txt" in said


def test_a_list_of_files_of_one_name_is_refused(bench: Any) -> None:
    files = list(two_of_one_name(bench).values())
    said = clash(bench, ["$(inputs.sums)"], {"sums": files}, inputs={"sums": "File[]"})
    assert "/data/1/sum.txt" in said and "/data/2/sum.txt" in said


def test_a_text_does_not_go_over_a_file(bench: Any) -> None:
    listing = ["$(inputs.f)", dirent("n=$(inputs.f.size)", "sum.txt")]
    said = clash(bench, listing, {"f": bench.file("sum.txt")}, inputs={"f": "File"})
    assert "/data/sum.txt" in said and "n=0" in said


def test_a_secondary_file_does_not_go_over_another(bench: Any) -> None:
    job = {
        name: {**bench.file(f"{name}/{name}"), "secondaryFiles": [bench.file(f"{name}/index")]}
        for name in TWO
    }
    said = clash(bench, ["$(inputs.f)", "$(inputs.g)"], job, inputs=TWO)
    assert "/data/f/index" in said and "/data/g/index" in said


@pytest.mark.parametrize("writable", [False, True])
@pytest.mark.parametrize("name", ["d/x", "d/x/y"])
def test_nothing_goes_over_what_a_directory_holds(bench: Any, writable: bool, name: str) -> None:
    bench.file("d/x", "old")
    folder = {"class": "Directory", "path": str(bench.root / "data" / "d")}
    listing = [dirent("text", name), dirent("$(inputs.d)", "d", writable=writable)]
    said = clash(bench, listing, {"d": folder}, inputs={"d": "Directory"})
    assert "'text'" in said and "/data/d" in said
    assert (bench.root / "data/d/x").read_text() == "old"


def test_an_entry_of_a_directory_may_come_before_it(bench: Any) -> None:
    bench.file("d/x", "old")
    folder = {"class": "Directory", "path": str(bench.root / "data" / "d")}
    listing = [dirent("text", "d/s/new"), dirent("$(inputs.d)", "d")]
    out = laid_out(bench, listing, {"d": folder}, inputs={"d": "Directory"})
    assert (out / "d/s/new").read_text() == "text" and (out / "d/x").read_text() == "old"
    assert entries(bench.root / "data" / "d") == ["x"]


def test_one_file_by_two_mentions_is_one(bench: Any) -> None:
    file = bench.file("a", "A")
    out = laid_out(
        bench, ["$(inputs.f)", dirent("$(inputs.g)", writable=True)], {"f": file, "g": file},
        inputs=TWO, baseCommand=["sh", "-c", "echo new >> a; cat $0 $1"],
        arguments=["$(inputs.f.path)", "$(inputs.g.path)"],
    )  # fmt: skip
    assert bench.log == "Anew\n" * 2
    assert entries(out) == ["a"] and Path(file["path"]).read_text() == "A"


@pytest.mark.parametrize(
    ("listing", "stdout"),
    [
        ([dirent("one", "x"), dirent("two $(inputs.n)", "x")], None),
        ([dirent("one", "x"), dirent("$(inputs.n) two", "./x/y")], None),
        ([dirent("one", "out.txt")], "out.txt"),
        ([literal("x", "one"), literal("x", "two")], None),
        ([literal("x", "one"), dirent("two", "./x")], None),
        ([literal("x", "one"), dirent("two", "x/y")], None),
        ([literal("out.txt", "one")], "./out.txt"),
        ([folder("x", literal("a", "one")), dirent("two", "x/a")], None),
        ([folder("x"), folder("x", literal("a", "one"))], None),
        ([folder("x"), literal("x", "")], None),
        ([{"class": "File", "location": "file:///d/x"}, literal("x", "")], None),
        ([{**literal("y", ""), "secondaryFiles": [literal("x", "1")]}, literal("x", "2")], None),
    ],
)
def test_what_clashes_in_every_job_is_refused_with_the_template(
    bench: Any, listing: Any, stdout: str | None
) -> None:
    with pytest.raises(BadTemplate, match=r"x|out\.txt"):
        laid_out(bench, listing, {"n": 1}, inputs={"n": "int"}, stdout=stdout)


def test_literals_that_are_alike_or_lie_apart_are_fine(bench: Any) -> None:
    listing = [
        literal("x", "one"), literal("x", "one"), dirent("one", "x"),
        folder("d", literal("x", "two")), dirent("three", "d/y"),
    ]  # fmt: skip
    out = laid_out(bench, listing, {})
    texts = [(out / name).read_text() for name in ("x", "d/x", "d/y")]
    assert texts == ["one", "two", "three"]


def test_entries_of_which_one_is_null_may_share_a_name(bench: Any) -> None:
    listing = [dirent("$(inputs.f)", "x"), dirent("$(inputs.g)", "x")]
    optional = {"f": "File?", "g": "File?"}
    out = laid_out(bench, listing, {"g": bench.file("a", "A")}, inputs=optional)
    assert (out / "x").read_text() == "A"


def test_a_streams_log_may_be_both_of_stdout_and_stderr(bench: Any) -> None:
    bench.run(
        baseCommand=["sh", "-c", "echo a; echo b >&2"], stdout="log", stderr="./log",
    )  # fmt: skip
    assert (bench.out / "log").read_text() == "a\nb\n"
