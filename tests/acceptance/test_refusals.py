"""Bad input: one clear sentence, an exit code of at least 2, and nothing is changed."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.driver import Site

pytestmark = pytest.mark.xdist_group("server")

HEAD = """\
cwlVersion: v1.2
class: Workflow
requirements:
  ScatterFeatureRequirement: {}
  InlineJavascriptRequirement: {}
inputs: {files: "File[]"}
outputs: []
steps:
"""
GOOD = "  copy: {run: copy.cwl, scatter: file, in: {file: files}, out: [out]}\n"
COPY = """\
cwlVersion: v1.2
class: CommandLineTool
baseCommand: cat
inputs: {file: {type: File, inputBinding: {}}}
stdout: copy.txt
outputs: {out: stdout}
"""
MAYBE = COPY.replace("{out: stdout}", '{out: {type: "File?", outputBinding: {glob: "*.x"}}}')
BOTH = COPY.replace("inputs: {", "inputs: {other: File, ")
OUTSIDE = COPY.replace("{out: stdout}", '{out: {type: File, outputBinding: {glob: "../*.txt"}}}')
NOTHING = "0" * 32


@dataclass(frozen=True)
class Bench:
    """Where bad input is tried: an OPEN dataset `open-1`, a file, and documents in a folder."""

    site: Site
    folder: Path
    file: Path

    def template(self, text: str, mask: str = "run-[0-9]") -> list[object]:
        """The command that creates a template of this text."""
        path = self.folder / "bad.cwl"
        path.write_text(text)
        return ["template", "create", path, "--mask", mask]

    def steps(self, text: str, mask: str = "run-[0-9]") -> list[object]:
        """The same, of a workflow with these steps."""
        return self.template(HEAD + text, mask)


@pytest.fixture(scope="module")
def bench(site: Site) -> Bench:
    folder = site.home / "bad"
    folder.mkdir()
    for name, text in (("copy", COPY), ("maybe", MAYBE), ("both", BOTH), ("outside", OUTSIDE)):
        (folder / f"{name}.cwl").write_text(text)
    site.spdf("dataset", "create", "open-1")
    (file,) = site.write("open-1", {"a.dat": b"some bytes"})
    return Bench(site, folder, file)


ROWS: dict[str, tuple[Callable[[Bench], list[object]], str]] = {
    "a template that is no CWL": (
        lambda b: b.template("To be, or not to be: that is the question.\n"),
        "bad.cwl:1: there is no cwlVersion",
    ),
    "a template that is no YAML": (
        lambda b: b.template("a: [1, 2\nb: {\n"),
        "bad.cwl:2: not valid YAML",
    ),
    "a step that names a missing source": (
        lambda b: b.steps(GOOD.replace("file: files", "file: nofiles")),
        "bad.cwl:9: ",
    ),
    "a mask that is none": (lambda b: b.steps(GOOD, "run-["), "run-["),
    "a mask that fits the template's own outputs": (
        lambda b: b.steps(GOOD, "run-*"),
        "fits the template's own outputs",
    ),
    "an unknown dataset": (
        lambda _: ["workflow", "submit", "nap", "nowhere", "--input", "seconds=0",
                   "--input", "hold=/none"],
        "no dataset 'nowhere'",
    ),
    "an unknown template": (
        lambda _: ["workflow", "submit", "nothing", "nap-files"],
        "no template 'nothing'",
    ),
    "an input that the template needs": (
        lambda _: ["workflow", "submit", "nap", "nap-files", "--input", "seconds=0"],
        "'hold'",
    ),
    "an input that the template hasn't": (
        lambda _: ["workflow", "submit", "nap", "nap-files", "--input", "seconds=0",
                   "--input", "hold=/none", "--input", "spoon=1"],
        "'spoon'",
    ),
    "a file that doesn't exist": (
        lambda b: ["dataset", "add", "open-1", b.file, b.file.with_name("b.dat")],
        "b.dat",
    ),
    "a file that lies on no storage": (
        lambda b: ["dataset", "add", "open-1", b.folder / "copy.cwl"],
        "lies on no storage",
    ),
    "another size": (
        lambda b: ["dataset", "add", "open-1", b.file, "--size", "11"],
        "has 10 bytes, not the 11 given",
    ),
    "another checksum": (
        lambda b: ["dataset", "add", "open-1", b.file, "--checksum", f"md5:{NOTHING}"],
        f"not the md5:{NOTHING} given",
    ),
    "a checksum that is none": (
        lambda b: ["dataset", "add", "open-1", b.file, "--checksum", "md5:12"],
        "md5:12",
    ),
    "a file for a closed dataset": (
        lambda b: ["dataset", "add", "nap-files", b.file],
        "'nap-files' is CLOSED",
    ),
    "a join across a filter without its guard": (
        lambda b: b.steps(
            "  f: {run: maybe.cwl, scatter: file, in: {file: files}, out: [out]}\n"
            "  j: {run: both.cwl, scatter: [file, other], scatterMethod: dotproduct,"
            " in: {file: files, other: f/out}, out: [out]}\n"
        ),
        "may be null",
    ),
    "an output glob with `..`": (
        lambda b: b.steps(GOOD.replace("copy.cwl", "outside.cwl")),
        "outside.cwl:",
    ),
    "duplicate step names": (
        lambda b: b.steps(GOOD + GOOD),
        'bad.cwl:10: not valid YAML: found duplicate key "copy"',
    ),
    "a dataset name with `..`": (lambda _: ["dataset", "create", "run-..-1"], "'run-..-1'"),
    "a storage name with `..`": (
        lambda b: ["storage", "add", "../x", b.folder, "--role", "input"],
        "'../x'",
    ),
    "a template name with `..`": (
        lambda b: [*b.steps(GOOD), "--name", "a..b"],
        "'a..b'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_bad_input_is_refused_in_a_sentence_and_changes_nothing(
    bench: Bench, nap_files: dict[str, bytes], row: str
) -> None:
    words, said = ROWS[row]
    command = words(bench)
    before = content(bench.site)
    done = bench.site.run(*command)
    assert done.returncode >= 2, done.stdout
    assert done.returncode != 70, done.stderr
    (sentence,) = done.stderr.splitlines()
    assert said in sentence
    assert sentence.startswith("spdf: ") and len(sentence) < 500, sentence
    assert "Traceback" not in sentence and "Error" not in sentence
    assert done.stdout == ""
    assert content(bench.site) == before


def content(site: Site) -> dict[str, str]:
    """A digest of every table's rows, but for what services change beside any command.

    Those are the leases of singletons, the sums of what is on storages, and the pilots, which
    report themselves, and end when idle.
    """
    tables = [
        name
        for (name,) in site.rows("SELECT name FROM sqlite_schema WHERE type = 'table'")
        if name not in {"singleton", "pilot", "storage_sample", "storage_total", "storage_delta"}
    ]
    assert {"dataset", "file", "template", "workflow", "event"} <= set(tables)
    others = {"event": " WHERE entity != 'pilot'"}
    return {
        name: hashlib.sha256(
            repr(site.rows(f'SELECT * FROM "{name}"{others.get(name, "")}')).encode()
        ).hexdigest()
        for name in tables
    }
