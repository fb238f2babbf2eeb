"""Secondary files of a dataset's files: staged beside them, taken where they are there."""

from pathlib import Path

import pytest

from catalog import datasets, intake, jobfiles, jobs, ownership, storages, templates
from catalog.db import Catalog
from catalog.errors import BadTemplate
from catalog.models import StorageKind, StorageRole
from catalog.states import JobState
from flows.advance import advance, load
from flows.compile import compile_template
from flows.plan import Companion, plan_to_json
from flows.submit import Submission, submit
from flows.trial import Trial, from_file

HEAD = """\
cwlVersion: v1.2
class: Workflow
requirements: {ScatterFeatureRequirement: {}}
outputs: {o: {type: "File[]", outputSource: s/o}}
inputs:
  bams: {type: "File[]", secondaryFiles: PATTERNS}
steps:
"""
MAP = """\
  s:
    scatter: b
    in: {b: bams}
    out: [o]
    run:
      class: CommandLineTool
      baseCommand: [sh, -c, 'cat "$(dirname "$0")"/*']
      inputs: {b: {type: File, inputBinding: {position: 1}}}
      stdout: o
      outputs: {o: stdout}
"""
MERGE = """\
  m:
    in: {all: bams}
    out: [o]
    run:
      class: CommandLineTool
      baseCommand: "true"
      inputs: {all: "File[]"}
      stdout: o
      outputs: {o: stdout}
"""
OPTIONAL = "[{pattern: .bai, required: false}]"


def template(folder: Path, patterns: str, steps: str = MAP) -> Path:
    path = folder / "t.cwl"
    text = (HEAD + steps).replace("PATTERNS", patterns)
    if "  m:\n" in text:
        text = text.replace(
            '{type: "File[]", outputSource: s/o}', "{type: File, outputSource: m/o}"
        )
    path.write_text(text)
    return path


def lay(folder: Path, names: list[str]) -> list[Path]:
    paths = [folder / "data" / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{path.name}\n")
    return paths


def defined(
    catalog: Catalog, folder: Path, path: Path, names: list[str]
) -> dict[str, tuple[JobState, str | None, dict[str, list[tuple[str, list[str]]]]]]:
    """By key, the state, reason and files of the first stage's jobs over a dataset of `names`."""
    files = lay(folder, names)
    plan = compile_template(path)
    with catalog.write() as session:
        known = [
            storages.add(session, role, StorageKind.LOCAL, StorageRole(role), str(folder / place))
            for role, place in (("input", "data"), ("internal", "int"), ("output", "out"))
        ]
    measured = intake.measure(files, known[:1])
    with catalog.write() as session:
        dataset = datasets.create(session, "reads")
        intake.add(session, dataset, measured)
        made = templates.create(
            session, "t", "reads", plan.document, plan_to_json(plan.plan), digest="t"
        )
        templates.activate(session, made.id)
    workflow, _ = submit(catalog, Submission("t", "reads", {}))
    with catalog.write() as session:
        epoch = ownership.claim(session, workflow, "me", 60.0, None)
    assert epoch is not None
    chain = load(catalog, workflow, epoch, 60.0)
    advance(chain)
    task = chain.task_ids[plan.plan.stages[0].name]
    with catalog.read() as session:
        assert jobs.list_jobs(session, task_id=task) == [], "the last companion may yet come"
    with catalog.write() as session:
        datasets.close(session, dataset)
    advance(chain)
    with catalog.read() as session:
        found = jobs.list_jobs(session, task_id=task)
        refs = jobfiles.inputs(session, [job.id for job in found])
    return {
        job.key: (
            job.state,
            job.reason,
            {
                port: [(ref.name, [other.name for other in ref.secondary]) for ref in files]
                for port, files in refs[job.id].items()
            },
        )
        for job in found
    }


def test_companions_that_are_there_go_with_their_file(catalog: Catalog, tmp_path: Path) -> None:
    names = ["a.bam.bai", "a.bam", "sub/b.bam", "sub/b.bam.bai", "c.bam", "lone.bai"]
    found = defined(catalog, tmp_path, template(tmp_path, OPTIONAL), names)
    ready = JobState.READY
    assert found == {
        "a.bam": (ready, None, {"b": [("a.bam", ["a.bam.bai"])]}),
        "sub/b.bam": (ready, None, {"b": [("sub/b.bam", ["sub/b.bam.bai"])]}),
        "c.bam": (ready, None, {"b": [("c.bam", [])]}),
        "lone.bai": (ready, None, {"b": [("lone.bai", [])]}),
    }


def test_a_pattern_that_replaces_the_extension_may_be_shared(
    catalog: Catalog, tmp_path: Path
) -> None:
    names = ["v1.0/a.bam", "v1.0/a.cram", "v1.0/a.bai", "b.bam", "b.bam.md5"]
    found = defined(catalog, tmp_path, template(tmp_path, '[^.bai?, ".md5?"]'), names)
    assert {key: files["b"][0][1] for key, (_, _, files) in found.items()} == {
        "v1.0/a.bam": ["v1.0/a.bai"],
        "v1.0/a.cram": ["v1.0/a.bai"],
        "b.bam": ["b.bam.md5"],
    }


def test_a_file_without_its_required_companion_fails_and_no_other(
    catalog: Catalog, tmp_path: Path
) -> None:
    found = defined(
        catalog, tmp_path, template(tmp_path, "[.bai]"), ["a.bam", "b.bam", "b.bam.bai"]
    )
    assert found["b.bam"][0] is JobState.READY
    state, reason, _ = found["a.bam"]
    assert state is JobState.FAILED
    assert reason == "its secondary file 'a.bam.bai' is not in the dataset"


def test_a_merge_takes_each_file_with_its_own(catalog: Catalog, tmp_path: Path) -> None:
    names = ["a.bam", "b.bam.bai", "b.bam", "c.bam"]
    (found,) = defined(catalog, tmp_path, template(tmp_path, OPTIONAL, MERGE), names).values()
    assert found[2] == {"all": [("a.bam", []), ("b.bam", ["b.bam.bai"]), ("c.bam", [])]}


@pytest.mark.parametrize(("there", "text"), [(True, "x.bam\nx.bam.bai\n"), (False, "x.bam\n")])
def test_a_trial_takes_what_lies_beside_its_file(there: bool, text: str, tmp_path: Path) -> None:
    file, *_ = lay(tmp_path, ["x.bam", "x.bam.bai", "x.bam.other"] if there else ["x.bam"])
    path = template(tmp_path, OPTIONAL)
    with Trial(from_file(path), file, {}) as trial:
        (found,) = trial.stages()
        ((_, _, made, _),) = found.files
        assert made.read_text() == (text if there else "x.bam\n")


def test_the_plan_says_what_accompanies_the_datasets_files(tmp_path: Path) -> None:
    plan = compile_template(template(tmp_path, "[.bai?, ^.idx]")).plan
    assert plan.companions == (Companion(".bai", required=False), Companion("^.idx"))


@pytest.mark.parametrize("pattern", ["$(self.basename).bai", "sub/.bai", "^"])
def test_a_pattern_that_names_cannot_tell_is_refused(pattern: str, tmp_path: Path) -> None:
    with pytest.raises(BadTemplate, match=r"write an ending such as `.idx`") as caught:
        compile_template(template(tmp_path, f"['{pattern}']"))
    assert caught.value.line is not None


def test_a_step_that_needs_what_may_be_missing_is_warned_of(tmp_path: Path) -> None:
    steps = MAP.replace("b: {type: File,", "b: {type: File, secondaryFiles: [.bai],")
    warned = compile_template(template(tmp_path, OPTIONAL, steps)).warnings
    assert any("needs the secondary file .bai, which its source may lack" in one for one in warned)
    assert not compile_template(template(tmp_path, "[.bai]", steps)).warnings
