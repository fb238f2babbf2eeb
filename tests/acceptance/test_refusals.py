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

    def requests(self, text: str) -> list[object]:
        """The command that sends requests."""
        path = self.folder / "requests.jsonl"
        path.write_text(text)
        return ["register", path]

    def needing(self) -> list[object]:
        """The command that creates a template with an input that somebody must give."""
        return self.template(HEAD.replace("inputs: {", "inputs: {seconds: int, ") + GOOD)


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
        'bad.cwl:10: duplicate key "copy", which stands in line 9 too',
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
    "half a request": (
        lambda b: b.requests('{"kind": "dataset.close", "key"'),
        "line 1 is no JSON",
    ),
    "a request with a field that it hasn't": (
        lambda b: b.requests(
            '{"kind": "dataset.close", "key": "k", "datasetId": "open-1"}\n'
            '{"kind": "dataset.close", "key": "l", "datasetId": "open-1", "when": "now"}'
        ),
        "line 2: when: Extra inputs are not permitted",
    ),
    "a file of requests that isn't there": (
        lambda b: ["register", b.folder / "nothing.jsonl"],
        "nothing.jsonl is no file",
    ),
    "an unknown request": (lambda _: ["request", "show", "nowhere"], "no request 'nowhere'"),
    "a retry of an unknown request": (
        lambda _: ["request", "retry", "nowhere"],
        "no request 'nowhere'",
    ),
    "a lifetime that is none": (
        lambda _: ["dataset", "create", "run-7", "--lifetime", "soon"],
        "--lifetime 'soon' is no time",
    ),
    "two lifetimes": (
        lambda _: ["dataset", "expire", "open-1", "--lifetime", "1d", "--never"],
        "either --lifetime TIME or --never",
    ),
    "a pin of an unknown dataset": (lambda _: ["dataset", "pin", "nowhere"], "no dataset"),
    "an upload of an OPEN dataset": (
        lambda _: ["dataset", "upload", "open-1", "--to", "output"],
        "only a CLOSED dataset can be",
    ),
    "an upload to an unknown storage": (
        lambda _: ["dataset", "upload", "nap-files", "--to", "nowhere"],
        "no storage 'nowhere'",
    ),
    "an upload that isn't there to be cancelled": (
        lambda _: ["dataset", "upload", "nap-files", "--to", "output", "--cancel"],
        "no upload of dataset 'nap-files'",
    ),
    "an unknown dataset to delete": (lambda _: ["dataset", "delete", "nowhere"], "no dataset"),
    "an unknown dataset to verify": (lambda _: ["dataset", "verify", "nowhere"], "no dataset"),
    "an unknown dataset to explain": (lambda _: ["dataset", "why", "nowhere"], "no dataset"),
    "an unknown file to recover": (lambda _: ["file", "recover", "nowhere"], "no file 'nowhere'"),
    "an unknown file to verify": (lambda _: ["file", "verify", "nowhere"], "no file 'nowhere'"),
    "an unknown file to explain": (lambda _: ["file", "why", "nowhere"], "no file 'nowhere'"),
    "a rule that is no regular expression": (
        lambda _: ["intake", "add", "bad", "--storage", "buffer", "--pattern", "(",
                   "--dataset", "d"],
        "--pattern '(' is no regular expression",
    ),
    "a rule with a group that its pattern hasn't": (
        lambda _: ["intake", "add", "bad", "--storage", "buffer", "--pattern", ".*",
                   "--dataset", "{run}"],
        "the group 'run', which --pattern doesn't have",
    ),
    "an unknown rule": (lambda _: ["intake", "remove", "bad"], "no intake rule 'bad'"),
    "a quota that is none": (
        lambda _: ["buffer", "quota", "output", "much"],
        "'much' is no size",
    ),
    "marks the wrong way round": (
        lambda _: ["buffer", "quota", "output", "1TB", "--high", "50", "--low", "60"],
        "--low 60 must be below --high 50",
    ),
    "an unknown storage to inspect": (
        lambda _: ["inspect", "run", "nowhere"],
        "no storage 'nowhere'",
    ),
    "an unknown storage to settle": (
        lambda _: ["inspect", "settle", "nowhere"],
        "no storage 'nowhere'",
    ),
    "an automatic template that needs an input": (
        lambda b: [*b.needing(), "--auto"],
        "needs its input 'seconds'",
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

    Those are the leases of singletons, the samples of the clock, the pilots, which report
    themselves, and end when idle, and how the sums of what is on storages are parted and sampled;
    the sums themselves are compared.
    """
    beside = {"singleton", "catalog_clock", "pilot"}
    beside |= {"storage_sample", "storage_total", "storage_delta"}
    tables = [
        name
        for (name,) in site.rows("SELECT name FROM sqlite_schema WHERE type = 'table'")
        if name not in beside
    ]
    assert {"dataset", "file", "template", "workflow", "event"} <= set(tables)
    others = {"event": " WHERE entity != 'pilot'"}
    sums = site.rows(
        "SELECT storage_id, sum(files), sum(size_bytes) FROM (SELECT storage_id, files, size_bytes "
        "FROM storage_total UNION ALL SELECT storage_id, files, size_bytes FROM storage_delta) "
        "GROUP BY storage_id ORDER BY storage_id"
    )
    return {"sums": repr([row for row in sums if any(row[1:])])} | {
        name: hashlib.sha256(
            repr(site.rows(f'SELECT * FROM "{name}"{others.get(name, "")}')).encode()
        ).hexdigest()
        for name in tables
    }
