"""What a template becomes: stages, links, filters, branches, merges, hints, requirements."""

import json
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from flows.compile import check_mask, compile_document, compile_template, graph
from flows.plan import Pick, Source, StageKind, plan_from_json, plan_to_json

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "tests/data/templates"
EXAMPLES = sorted(
    path for path in (ROOT / "examples").glob("*/*.cwl") if "class: Workflow" in path.read_text()
)
VALID = ["chain", "branches", "join", "graph", "inputs"]


def plan(name):
    return compile_template(TEMPLATES / f"{name}.cwl").plan


def write(folder, text):
    path = folder / "template.cwl"
    path.write_text(textwrap.dedent(text))
    return path


@pytest.mark.parametrize("name", VALID)
def test_packed_document_compiles_to_the_same_plan(name):
    compiled = compile_template(TEMPLATES / f"{name}.cwl")
    stored = json.loads(json.dumps(compiled.document))
    assert compile_document(stored) == compiled.plan
    assert plan_from_json(plan_to_json(compiled.plan)) == compiled.plan


def test_examples_compile_without_warnings():
    assert {"md5.cwl", "chain.cwl"} <= {path.name for path in EXAMPLES}
    for path in EXAMPLES:
        compiled = compile_template(path)
        assert compiled.warnings == ()
        assert compile_document(compiled.document) == compiled.plan


def test_stages_stand_in_topological_order_with_their_descents():
    chain = plan("chain")
    assert [(s.name, s.kind, s.descent) for s in chain.stages] == [
        ("mark", StageKind.MAP, ""),
        ("keep", StageKind.MAP, ""),
        ("merge", StageKind.MERGE, "merge"),
        ("after", StageKind.MAP, "merge"),
    ]
    assert chain.stage("after").links[0].sources == (Source("merge", "out"),)
    assert chain.stage("mark").links[0].sources == (Source(None, "raw"),)


def test_template_hint_and_texts_are_read():
    chain = plan("chain")
    assert (chain.dataset_input, chain.mask, chain.rank, chain.derived) == (
        "raw", "run-[0-9]*[0-9]", 3, True,
    )  # fmt: skip
    assert (chain.label, chain.doc) == ("A chain", "First line.\nSecond line.")


def test_stage_and_merge_hints_are_read():
    merge, mark = plan("chain").stage("merge"), plan("chain").stage("mark")
    assert (merge.files_per_job, merge.rank, merge.barrier, merge.max_pilots, merge.goal) == (
        3, 1, True, 2, 0.99,
    )  # fmt: skip
    assert (mark.device, mark.pool, mark.retry, mark.goal) == ("GPU", "gpu", 0, 0.5)
    assert mark.resources.devices == 1


def test_innermost_requirement_counts_and_a_requirement_beats_hints():
    chain = plan("chain")
    mark, keep = chain.stage("mark"), chain.stage("keep")
    assert (mark.resources.ram_mib, mark.resources.cores) == (200, 1.0)
    assert (keep.resources.ram_mib, keep.resources.cores) == (100, 2)
    environment = {
        stage.name: [
            entry["envDef"]
            for entry in stage.step.tool["requirements"]
            if entry["class"] == "EnvVarRequirement"
        ]
        for stage in (mark, keep)
    }
    assert environment["mark"] == [{"MODE": "step"}]
    assert environment["keep"] == [{"MODE": "workflow", "KEEP": "1"}]


def test_tools_carry_no_hint_that_the_engine_does_not_know():
    for stage in plan("chain").stages:
        classes = {
            e["class"] for e in (*stage.step.tool["requirements"], *stage.step.tool["hints"])
        }
        assert not any(name.startswith(("spdf:", "cwltool:")) for name in classes)


def test_filter_is_an_optional_output_and_what_follows_skips_null():
    chain = plan("chain")
    (port,) = chain.stage("keep").step.outputs
    assert (port.kind, port.optional) == ("File", True)
    assert chain.stage("merge").links[0].null_skips is True


def test_join_across_a_filter_hands_null_to_its_guard():
    pair = plan("join").stage("pair")
    assert {link.port: link.null_skips for link in pair.links} == {"first": True, "second": False}
    assert pair.step.when == "$(inputs.second !== null)"


def test_branches_meet_per_key_in_a_scattered_subworkflow():
    branches = plan("branches")
    assert [s.name for s in branches.stages] == ["each.size", "each.large", "each.small", "gather"]
    (link,) = branches.stage("gather").links
    assert link.sources == (Source("each.large", "out"), Source("each.small", "out"))
    assert link.pick is Pick.FIRST_NON_NULL
    assert branches.stage("each.large").is_output == ("out",)


def test_values_flow_per_key():
    branches = plan("branches")
    (port,) = branches.stage("each.size").step.outputs
    assert port.kind == "value"
    link = next(one for one in branches.stage("each.small").links if one.port == "bytes")
    assert (link.kind, link.sources) == ("value", (Source("each.size", "bytes"),))


def test_default_of_a_subworkflow_reaches_the_step_inside():
    small = plan("branches").stage("each.small")
    assert next(i for i in small.step.inputs if i.port == "prefix").default == "#"
    large = plan("branches").stage("each.large")
    assert next(i for i in large.step.inputs if i.port == "prefix").value_from == "large"


def test_step_expressions_find_the_workflows_library_in_the_tool():
    large = plan("branches").stage("each.large")
    (javascript,) = [
        entry
        for entry in large.step.tool["requirements"]
        if entry["class"] == "InlineJavascriptRequirement"
    ]
    assert "function big" in javascript["expressionLib"][0]


def test_graph_imports_and_script_are_packed():
    compiled = compile_template(TEMPLATES / "graph.cwl")
    text = json.dumps(compiled.document)
    assert str(TEMPLATES) not in text
    tool = compiled.plan.stage("use").step.tool
    script = next(port for port in tool["inputs"] if port["id"] == "script")
    assert script["default"]["basename"] == "script.sh"
    assert script["default"]["contents"] == (TEMPLATES / "script.sh").read_text()
    level = next(port for port in tool["inputs"] if port["id"] == "level")
    assert level["type"]["symbols"] == ["low", "high"]


def test_template_no_longer_depends_on_its_files(tmp_path):
    for name in ("graph.cwl", "types.yml", "script.sh"):
        (tmp_path / name).write_bytes((TEMPLATES / name).read_bytes())
    compiled = compile_template(tmp_path / "graph.cwl")
    for path in tmp_path.iterdir():
        path.unlink()
    assert compile_document(compiled.document) == compiled.plan


def test_digest_is_that_of_the_content(tmp_path):
    text = (TEMPLATES / "join.cwl").read_text()
    (tmp_path / "filter.cwl").write_bytes((TEMPLATES / "filter.cwl").read_bytes())
    same, other = tmp_path / "same.cwl", tmp_path / "other.cwl"
    same.write_text("# a comment\n" + text)
    other.write_text(text.replace("default: a", "default: b"))
    digest = compile_template(TEMPLATES / "join.cwl").digest
    assert compile_template(same).digest == digest
    assert compile_template(other).digest != digest


def test_cuda_requirement_is_understood(tmp_path):
    path = write(
        tmp_path,
        """
        cwlVersion: v1.2
        class: Workflow
        $namespaces: {cwltool: "http://commonwl.org/cwltool#"}
        requirements: {ScatterFeatureRequirement: {}}
        inputs: {files: "File[]"}
        outputs: {out: {type: "File[]", outputSource: gpu/out}}
        steps:
          gpu:
            run:
              class: CommandLineTool
              baseCommand: nvidia-smi
              inputs: {file: File}
              outputs: {out: stdout}
            scatter: file
            in: {file: files}
            out: [out]
            hints:
              cwltool:CUDARequirement:
                cudaVersionMin: "11.0"
                cudaComputeCapability: "3.0"
                cudaDeviceCountMin: 2
        """,
    )
    stage = compile_template(path).plan.stage("gpu")
    assert (stage.device, stage.resources.devices) == ("GPU", 2)


def test_lists_of_one_descent_merge_flattened(tmp_path):
    path = write(
        tmp_path,
        f"""
        cwlVersion: v1.2
        class: Workflow
        requirements: {{ScatterFeatureRequirement: {{}}, MultipleInputFeatureRequirement: {{}}}}
        inputs: {{files: "File[]"}}
        outputs: {{out: {{type: File, outputSource: all/out}}}}
        steps:
          a:
            run: {TEMPLATES}/one.cwl
            scatter: file
            in: {{file: files}}
            out: [out]
          b: {{run: {TEMPLATES}/one.cwl, scatter: file, in: {{file: files}}, out: [out]}}
          all:
            run: {TEMPLATES}/cat.cwl
            in: {{files: {{source: [a/out, b/out], linkMerge: merge_flattened}}}}
            out: [out]
        """,
    )
    stage = compile_template(path).plan.stage("all")
    assert stage.kind is StageKind.MERGE
    assert stage.links[0].sources == (Source("a", "out"), Source("b", "out"))
    assert stage.links[0].pick is Pick.ALL_NON_NULL


def test_unknown_hint_is_reported_and_has_no_effect(tmp_path):
    text = (
        (TEMPLATES / "join.cwl")
        .read_text()
        .replace("inputs:\n  raw", "hints:\n  Unheard: {}\ninputs:\n  raw")
    )
    (tmp_path / "filter.cwl").write_bytes((TEMPLATES / "filter.cwl").read_bytes())
    path = write(tmp_path, text)
    compiled = compile_template(path)
    assert compiled.plan == plan("join")
    assert any("Unheard" in warning for warning in compiled.warnings)


def test_graph_text_names_all_stages_and_their_links():
    text = graph(plan("branches"))
    assert text.startswith("flowchart")
    for name in ("each.size", "each.large", "each.small", "gather"):
        assert name in text
    assert text.count("-->") == 7
    assert "merge of all" in text and "when" in text


def test_nothing_is_looked_for_on_the_network(monkeypatch):
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **_: asked.append(args) or [])
    compile_template(TEMPLATES / "chain.cwl")
    assert asked == []


@pytest.mark.cwltool
@pytest.mark.parametrize("name", ["branches", "graph"])
def test_packed_document_gives_the_same_in_cwltool(name, tmp_path):
    files = []
    for index, text in enumerate(["a\n", "abc\ndd\n", "xyzzy\n"]):
        (tmp_path / f"{index}.txt").write_text(text)
        files.append({"class": "File", "path": str(tmp_path / f"{index}.txt")})
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"raw": files, "files": files, "word": "a", "level": "low"}))
    packed = tmp_path / "packed.cwl"
    packed.write_text(json.dumps(compile_template(TEMPLATES / f"{name}.cwl").document))

    def run(document):
        command = [sys.executable, "-m", "cwltool", "--quiet", "--outdir", str(tmp_path / "out")]
        done = subprocess.run(
            [*command, str(document), str(job)], capture_output=True, text=True, check=True
        )
        values = json.loads(done.stdout)
        return {
            port: [file["checksum"] for file in (value if isinstance(value, list) else [value])]
            for port, value in values.items()
        }

    assert run(packed) == run(TEMPLATES / f"{name}.cwl")


def test_example_of_the_how_to_compiles(tmp_path):
    page = (ROOT / "docs/howto/templates.md").read_text()
    text = next(block for block in page.split("```") if block.startswith("yaml\ncwlVersion"))
    compiled = compile_template(write(tmp_path, text.removeprefix("yaml\n")))
    assert compiled.warnings == ()
    check_mask("md5", 1, compiled.plan, compiled.plan.mask)
