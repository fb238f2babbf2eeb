"""What a pilot's committer does before the ends of jobs are registered."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from catalog.drivers.local import LocalDriver
from catalog.errors import ErrorCode
from catalog.refs import JobResult, NewFile, Outcome
from catalog.states import Phase
from flows.shift.committer import Committer
from flows.shift.hand import Hand


def end(job: int, *paths: str) -> JobResult:
    files = tuple(
        NewFile("out", i, path, 1, "adler32:1", 7, path, 1) for i, path in enumerate(paths)
    )
    return JobResult(job, job, 1, Outcome.FINISHED, files=files, values={"n": 1})


def test_a_job_whose_file_is_not_on_the_disk_fails_alone(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)
    place, scratch = LocalDriver("disk", tmp_path), tmp_path.parent
    node: Any = SimpleNamespace(storages={7: place}, directory=scratch)
    nowhere: Any = None
    committer = Committer(nowhere, node, Hand(), 1, retry=0, most=10, wait_s=0.1)
    good, lost, other = committer._stored([end(1, "a"), end(2, "b", "gone"), end(3, "c")])
    assert (good, other) == (end(1, "a"), end(3, "c"))
    assert (lost.outcome, lost.error) == (Outcome.FAILED, ErrorCode.OUTPUT_UNWRITABLE)
    assert (lost.storage_id, lost.phase) == (7, Phase.STAGE_OUT), "the storage itself is well"
    assert not lost.files and not lost.values and lost.message and "gone" in lost.message
    assert {path.name for path in tmp_path.iterdir()} == {"a", "c"}, "the rest of it is removed"
