"""`spdf template` and `spdf cwl`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Spdf = Callable[..., Any]

SPD = Path(__file__).parents[3] / "examples" / "spd"

FILTER = """
cwlVersion: v1.2
class: Workflow
$namespaces: {spdf: "https://spdf.readthedocs.io/ns#"}
requirements: {ScatterFeatureRequirement: {}}
hints: {"spdf:Template": {mask: "run-?"}}
inputs:
  files: "File[]"
  words: {type: File, default: {class: File, location: words.txt}}
outputs: {all: {type: File, outputSource: join/all}}
steps:
  pick:
    scatter: file
    in: {file: files, words: words}
    out: [picked]
    run:
      class: CommandLineTool
      baseCommand: [sh, -c, 'grep -f "$1" "$0" > picked.txt || rm picked.txt']
      inputs:
        file: {type: File, inputBinding: {position: 1}}
        words: {type: File, inputBinding: {position: 2}}
      outputs: {picked: {type: "File?", outputBinding: {glob: picked.txt}}}
  shout:
    scatter: file
    in: {file: {source: pick/picked, pickValue: all_non_null}}
    out: [loud]
    run:
      class: CommandLineTool
      baseCommand: [tr, a-z, A-Z]
      inputs: {file: File}
      stdin: $(inputs.file.path)
      stdout: loud.txt
      outputs: {loud: stdout}
  join:
    in: {files: {source: shout/loud, pickValue: all_non_null}}
    out: [all]
    run:
      class: CommandLineTool
      baseCommand: [cat, /dev/null]
      inputs: {files: {type: "File[]", inputBinding: {position: 1}}}
      stdout: all.txt
      outputs: {all: stdout}
"""


@pytest.fixture
def picking(tmp_path: Path) -> Path:
    """A template with a filter, a merge and a fixed file of its own."""
    (tmp_path / "words.txt").write_text("needle\n")
    path = tmp_path / "picking.cwl"
    path.write_text(FILTER)
    return path


def test_a_template_from_draft_to_archived(ok: Spdf, spdf: Spdf, home: Path, cut: Path) -> None:
    made = ok("template", "create", cut, "--mask", "run-?", "--json").json
    assert (made["ref"], made["state"], made["shown"]) == ("cut@1", "DRAFT", None)
    assert ok("template", "create", cut, "--mask", "run-?", "--json").json["ref"] == "cut@1"
    activated = ok("template", "activate", "cut", "--json").json
    assert (activated["state"], activated["shown"]) == ("ACTUAL", False)
    cut.write_text(cut.read_text().replace("default: 4", "default: 5"))
    assert ok("template", "create", cut, "--mask", "run-?", "--json").json["ref"] == "cut@2"
    assert ok("template", "activate", "cut", "--json").json["ref"] == "cut@2"
    states = {t["version"]: t["state"] for t in ok("template", "list", "--json").json}
    assert states == {1: "ARCHIVED", 2: "ACTUAL"}
    assert ok("template", "archive", "cut", "--json").json["state"] == "ARCHIVED"
    assert ok("template", "list", "--state", "ACTUAL", "--json").json == []
    assert spdf("template", "activate", "cut@1").code == 4


def test_activating_without_a_server_says_when_it_is_shown(ok: Spdf, home: Path, cut: Path) -> None:
    done = ok("template", "create", cut, "--mask", "run-?", "--activate")
    assert "the web page shows it after the next `spdf up`" in done.err


def test_show_validate_and_graph_agree(ok: Spdf, home: Path, cut: Path) -> None:
    valid = ok("template", "validate", cut, "--mask", "run-?", "--json").json
    assert [stage["name"] for stage in valid["stages"]] == ["cut"]
    drawn = ok("template", "graph", cut).out
    assert drawn.startswith("flowchart TD") and "cut<br/>map, CPU" in drawn
    ok("template", "create", cut, "--mask", "run-?")
    assert ok("template", "graph", "cut").out == drawn
    shown = ok("template", "show", "cut", "--json").json
    assert (shown["mask"], shown["digest"]) == ("run-?", valid["digest"])
    assert shown["fixed"][0]["name"] == "count"
    assert "Bytes to keep" in ok("template", "show", "cut").out
    document = json.loads(ok("template", "show", "cut", "--document").out)
    assert document["class"] == "Workflow"


def test_a_bad_template_is_refused_with_its_line_and_stores_nothing(
    spdf: Spdf, ok: Spdf, home: Path, cut: Path
) -> None:
    cut.write_text(cut.read_text().replace("file: files", "file: nothing"))
    done = spdf("template", "create", cut, "--mask", "run-?")
    line = next(i for i, text in enumerate(cut.read_text().splitlines(), 1) if "nothing" in text)
    assert done.code == 2 and f"{cut}:{line}: " in done.err
    done = spdf("template", "validate", cut)
    assert done.code == 2
    assert ok("template", "list", "--json").json == []


@pytest.mark.parametrize("mask", ["*", "run[", ""])
def test_a_bad_mask_is_refused(spdf: Spdf, ok: Spdf, home: Path, cut: Path, mask: str) -> None:
    assert spdf("template", "create", cut, "--mask", mask).code == 2
    assert ok("template", "list", "--json").json == []


def test_try_runs_every_stage_on_one_file(ok: Spdf, picking: Path, tmp_path: Path) -> None:
    hay = tmp_path / "hay.txt"
    hay.write_text("hay\na needle\n")
    out = tmp_path / "out"
    tried = ok("template", "try", picking, hay, "--outdir", out, "--json").json
    assert [(s["stage"], s["state"], s["exit_code"]) for s in tried["stages"]] == [
        ("pick", "FINISHED", 0),
        ("shout", "FINISHED", 0),
        ("join", "FINISHED", 0),
    ]
    assert (out / "pick" / "picked" / "picked.txt").read_text() == "a needle\n"
    assert (out / "join" / "all" / "all.txt").read_text() == "A NEEDLE\n"


def test_try_shows_what_a_filter_drops(ok: Spdf, picking: Path, tmp_path: Path) -> None:
    hay = tmp_path / "hay.txt"
    hay.write_text("only hay\n")
    tried = ok("template", "try", picking, hay, "--json").json
    states = {stage["stage"]: stage["state"] for stage in tried["stages"]}
    assert states["pick"] == "FINISHED"
    assert states["shout"] == "SKIPPED"
    assert tried["stages"][0]["outputs"] == []
    assert "stage shout was skipped" in ok("template", "try", picking, hay).out


def test_try_of_a_stored_template_has_its_files_though_the_originals_are_gone(
    ok: Spdf, home: Path, picking: Path, tmp_path: Path
) -> None:
    ok("template", "create", picking)
    picking.unlink()
    (tmp_path / "words.txt").unlink()
    hay = tmp_path / "hay.txt"
    hay.write_text("needle\n")
    tried = ok("template", "try", "picking", hay, "--json").json
    assert [stage["state"] for stage in tried["stages"]] == ["FINISHED"] * 3
    assert ok("dataset", "list", "--json").json == []


def test_try_shows_the_log_of_the_stage_that_fails(spdf: Spdf, cut: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.txt"
    bad.write_text("bad")
    done = spdf("template", "try", cut, bad, "--input", "count=2")
    assert done.code == 1
    assert "PAYLOAD_FAILED" in done.out and "cutting bad.txt" in done.out
    tried = spdf("template", "try", cut, bad, "--json").json
    (stage,) = tried["stages"]
    assert (stage["failed"], stage["exit_code"], stage["log"]) == (True, 9, "cutting bad.txt\n")


def test_try_gives_up_on_a_program_that_is_not_there(spdf: Spdf, cut: Path, tmp_path: Path) -> None:
    cut.write_text(cut.read_text().replace("[sh, -c]", "[no-such-program]"))
    good = tmp_path / "good.txt"
    good.write_text("good")
    done = spdf("template", "try", cut, good)
    assert done.code == 1 and "PROGRAM_NOT_FOUND" in done.out


def test_try_replaces_nothing_and_checks_its_inputs(spdf: Spdf, cut: Path, tmp_path: Path) -> None:
    good = tmp_path / "good.txt"
    good.write_text("good")
    assert spdf("template", "try", cut, good, "--outdir", tmp_path).code == 4
    done = spdf("template", "try", cut, good, "--input", "nothing=1")
    assert done.code == 2 and "no input 'nothing'" in done.err
    done = spdf("template", "try", cut, good, "--input", "count=many")
    assert done.code == 2 and "count" in done.err


def test_try_leaves_the_home_alone(ok: Spdf, bare_home: Path, cut: Path, tmp_path: Path) -> None:
    good = tmp_path / "good.txt"
    good.write_text("good")
    ok("template", "try", cut, good)
    assert not bare_home.exists()


TOOL = """
cwlVersion: v1.2
class: CommandLineTool
{requirements}
baseCommand: [sh, -c, 'echo "$0"; echo told >&2; exit {code}']
inputs: {{word: {{type: string, inputBinding: {{position: 1}}}}}}
stdout: word.txt
outputs: {{out: stdout}}
"""


def _tool(folder: Path, code: int = 0, requirements: str = "") -> Path:
    path = folder / "tool.cwl"
    path.write_text(TOOL.format(code=code, requirements=requirements))
    (folder / "job.yml").write_text("word: hello\n")
    return path


def test_cwl_run_gives_the_output_object(ok: Spdf, tmp_path: Path) -> None:
    done = ok("cwl", "run", _tool(tmp_path), tmp_path / "job.yml", "--outdir", tmp_path / "out")
    made = done.json["out"]
    assert (made["basename"], made["size"]) == ("word.txt", 6)
    assert (tmp_path / "out" / "word.txt").read_text() == "hello\n"
    assert "told" in done.err


def test_cwl_run_tells_failure_from_what_is_unsupported(spdf: Spdf, tmp_path: Path) -> None:
    job = tmp_path / "job.yml"
    assert spdf("cwl", "run", _tool(tmp_path, code=3), job, "--outdir", tmp_path).code == 1
    docker = "requirements: {DockerRequirement: {dockerPull: debian}}"
    tool = _tool(tmp_path, requirements=docker)
    assert spdf("cwl", "run", tool, job, "--outdir", tmp_path).code == 33
    assert spdf("cwl", "run", SPD / "chain.cwl", job, "--outdir", tmp_path).code == 2


GENERATED = """
cwlVersion: v1.2
class: Workflow
id: Prod_1
label: Prod#1
$namespaces: {spdf: "https://spdf.readthedocs.io/ns#"}
requirements:
- class: InlineJavascriptRequirement
- class: SubworkflowFeatureRequirement
- class: StepInputExpressionRequirement
- class: MultipleInputFeatureRequirement
- class: ScatterFeatureRequirement
hints:
- {class: "spdf:Template", mask: "prod-[0-9]*[0-9]"}
inputs:
- {id: prod-id, type: int, default: 12}
- {id: job-id, type: int, default: 345}
- {id: input-data, type: "File[]"}
outputs:
- {id: tuple, type: "File[]", outputSource: tr1/tuple}
steps:
- id: tr1
  scatter: one
  in:
  - {id: one, source: input-data}
  - {id: prod-id, source: prod-id}
  - {id: job-id, source: job-id}
  out: [{id: tuple}]
  run:
    class: Workflow
    inputs: [{id: one, type: File}, {id: prod-id, type: int}, {id: job-id, type: int}]
    outputs: [{id: tuple, type: File, outputSource: fit/tuple}]
    steps:
    - id: fit
      in:
      - {id: one, source: one}
      - id: prefix
        source: [prod-id, job-id]
        valueFrom: '$(self[0].toString().padStart(8, "0"))_$(self[1].toString().padStart(8, "0"))'
      out: [{id: tuple}]
      run:
        class: CommandLineTool
        requirements:
        - class: InitialWorkDirRequirement
          listing:
          - {entryname: conf.json, entry: '{"use": ["$OPTS/a.py"], "prefix": "$(inputs.prefix)"}'}
        baseCommand: [sh, -c, 'cat conf.json "$1" > "$2.root"', x]
        inputs:
        - {id: one, type: File, inputBinding: {position: 1}}
        - {id: prefix, type: string, inputBinding: {position: 2}}
        outputs: [{id: tuple, type: File, outputBinding: {glob: "*.root"}}]
"""


def test_a_generated_production_with_signs_in_its_names_is_tried(
    spdf: Spdf, home: Path, tmp_path: Path
) -> None:
    document, data = tmp_path / "Prod#1#MagDown.cwl", tmp_path / "in #1%20.mdst"
    document.write_text(GENERATED)
    data.write_text("raw")
    assert spdf("template", "validate", document).code == 0
    refused = spdf("template", "create", document)
    assert refused.code == 2
    assert "give another with --name" in refused.err
    outdir = tmp_path / "kept"
    tried = spdf("template", "try", document, data, "--input", "job-id=7", "--outdir", outdir)
    assert tried.code == 0, tried.err
    made = outdir / "tr1.fit" / "tuple" / "00000012_00000007.root"
    assert made.read_text() == '{"use": ["$OPTS/a.py"], "prefix": "00000012_00000007"}raw'


FEATURES = """
cwlVersion: v1.2
class: Workflow
$namespaces: {spdf: "https://spdf.readthedocs.io/ns#", edam: "http://edamontology.org/"}
$schemas: ["http://edamontology.org/EDAM_1.18.owl"]
requirements:
  SchemaDefRequirement: {types: [{$import: types.yml}]}
  ScatterFeatureRequirement: {}
  SubworkflowFeatureRequirement: {}
  InlineJavascriptRequirement: {}
hints: {spdf:Template: {mask: "run-[0-9]*[0-9]", dataset: reads}}
inputs:
  reads: {type: "File[]", format: edam:format_1930}
  libs: {type: "types.yml#lib[]", default: [{idx: 1, kind: 010}, {idx: 2}]}
  limit: int?
  extra: File?
outputs:
  total: {type: File, outputSource: all/total}
steps:
  each:
    scatter: read
    in: {read: reads, libs: libs, limit: limit, extra: extra}
    out: [sum]
    run:
      class: Workflow
      inputs:
        read: {type: File, format: edam:format_1930}
        libs: types.yml#lib[]
        limit: int?
        extra: File?
      outputs: {sum: {type: File, outputSource: use/sum}}
      steps:
        index:
          in: {read: read}
          out: [indexed]
          run:
            class: CommandLineTool
            requirements:
              InitialWorkDirRequirement:
                listing: [{entry: $(inputs.read), entryname: work.dat, writable: true}]
            baseCommand: [sh, -c, 'echo more >> work.dat && wc -c < work.dat > work.dat.idx']
            inputs: {read: {type: File, format: edam:format_1930}}
            outputs:
              indexed:
                type: File
                format: edam:format_1930
                secondaryFiles: [.idx, {pattern: ^.bai, required: false}]
                outputBinding: {glob: work.dat}
        use:
          in: {indexed: index/indexed, libs: libs, limit: limit, extra: extra}
          out: [sum]
          run:
            class: CommandLineTool
            baseCommand: [sh, -c, 'cat "$(dirname "$1")"/work.dat.idx; shift; echo "$@"', x]
            inputs:
              indexed:
                type: File
                format: edam:format_1930
                secondaryFiles: [.idx]
                inputBinding: {position: 1}
              libs:
                type: types.yml#lib[]
                inputBinding:
                  position: 2
                  valueFrom: '$(self.map(function(r) { return r.idx + ":" + r.kind; }))'
              limit: {type: "int?", inputBinding: {position: 3, prefix: --limit}}
              extra: {type: "File?", inputBinding: {position: 4, valueFrom: $(self.basename)}}
            stdout: sum.txt
            outputs: {sum: stdout}
  all:
    in: {sums: each/sum}
    out: [total]
    run:
      class: CommandLineTool
      baseCommand: cat
      inputs: {sums: {type: "File[]", inputBinding: {position: 1}}}
      stdout: total.txt
      outputs: {total: stdout}
"""


def test_features_of_real_pipelines_work_together(spdf: Spdf, home: Path, tmp_path: Path) -> None:
    (tmp_path / "types.yml").write_text(
        "- {name: lib, type: record, fields: {idx: int?, kind: string?, cal: File?}}"
    )
    document, data, extra = (tmp_path / name for name in ("f.cwl", "r 1#.fq", "cal.txt"))
    document.write_text(FEATURES.replace("types.yml#lib[]", "types.yml#rec[]"))
    refused = spdf("template", "validate", document)
    assert refused.code == 2 and "types.yml#rec" in refused.err
    (tmp_path / "types.yml").write_text(
        "- {name: lib, type: record, fields: {idx: int?, kind: string?}}"
    )
    document.write_text(FEATURES)
    data.write_text("abc")
    extra.write_text("cal\n")
    outdir = tmp_path / "kept"
    given = ["--input", "limit=5", "--input", f"extra={extra}"]
    tried = spdf("template", "try", document, data, *given, "--outdir", outdir)
    assert tried.code == 0, tried.err
    made = (outdir / "all" / "total" / "total.txt").read_text()
    assert made == "8\n1:010 2:null --limit 5 cal.txt\n"


def test_another_groups_template_of_the_same_name_does_not_end_the_first(
    ok: Spdf, spdf: Spdf, home: Path, cut: Path
) -> None:
    ok("template", "create", cut, "--mask", "trk-[0-9]", "--auto", "--activate")
    for name in ("trk-1", "cal-1"):
        ok("dataset", "create", name)
    other = ("template", "create", cut, "--mask", "cal-[0-9]", "--auto", "--activate")
    done = spdf(*other)
    assert done.code != 0 and len(done.err.splitlines()) == 1
    assert "template cut@1 is for datasets like trk-[0-9]" in done.err
    assert "--name" in done.err and "--replace" in done.err
    assert [t["version"] for t in ok("template", "list", "--json").json] == [1], "nothing changed"
    assert "no template is for it" not in ok("dataset", "why", "trk-1").out

    done = ok(*other, "--replace")
    assert "cut@2 takes the place of cut@1 (for trk-[0-9])" in done.err
    assert "nothing follows 1 dataset by itself that cut@1 was for: trk-1" in done.err
    told = ok("dataset", "why", "trk-1").out
    assert "cut@1 was, until cut@2 took its place" in told
    assert "`spdf workflow submit cut@1 DATASET`" in told
    assert "no template is for it" not in ok("dataset", "why", "cal-1").out
    problems = spdf("status", "--json").json["problems"]
    assert any("since cut@2 took the place of cut@1: trk-1" in one for one in problems)

    ok("template", "create", cut, "--mask", "trk-?", "--name", "track", "--auto", "--activate")
    assert "no template is for it" not in ok("dataset", "why", "trk-1").out
    problems = spdf("status", "--json").json["problems"]
    assert not any("took the place" in one for one in problems)


def test_a_draft_that_would_end_another_is_refused_when_it_is_activated(
    ok: Spdf, spdf: Spdf, home: Path, cut: Path
) -> None:
    ok("template", "create", cut, "--mask", "trk-[0-9]", "--activate")
    ok("template", "create", cut, "--mask", "cal-[0-9]")
    assert "--replace" in spdf("template", "activate", "cut@2").err
    states = {t["version"]: t["state"] for t in ok("template", "list", "--json").json}
    assert states == {1: "ACTUAL", 2: "DRAFT"}
    ok("template", "activate", "cut@2", "--replace")
    # The same names, and more: nothing is lost.
    ok("template", "create", cut, "--mask", "cal-?")
    assert "takes the place of cut@2" in ok("template", "activate", "cut@3").err
