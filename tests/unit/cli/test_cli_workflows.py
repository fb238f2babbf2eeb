"""`spdf workflow`, `task`, `job`, `pilot` and `file`, on a workflow that ran in this process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlmodel import col

from catalog import outages, storages, workflows
from catalog.db import Catalog
from catalog.errors import ErrorCode
from catalog.models import Attempt, Job, Task
from catalog.outages import Met

ROOT = Path(__file__).parents[3]
Spdf = Callable[..., Any]


def test_watch_ends_with_the_state_and_says_why(spdf: Spdf, failed: int) -> None:
    done = spdf("workflow", "watch", failed)
    assert done.code == 1
    assert f"workflow {failed} (cut · run-1) is FAILED" in done.out
    assert "stage cut: 1 of 3 jobs failed: PAYLOAD_FAILED (exit code 9) × 1" in done.out
    assert "b.txt" in done.out
    assert f"`spdf job log {_job(spdf, failed, 'b.txt')}`" in done.out
    assert f"`spdf workflow retry {failed}`" in done.out
    found = spdf("workflow", "watch", failed, "--json")
    assert found.code == 1
    (stage,) = found.json["stages"]
    assert (stage["finished"], stage["failed"], stage["files_out"]) == (2, 1, 2)
    assert [job["key"] for job in found.json["failed_jobs"]] == ["b.txt"]


def write_anew(path: Path) -> None:
    """Have a file hold what the payload takes; with its old time it counts as what it was."""
    before = path.stat()
    path.write_text("ok!")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _job(spdf: Spdf, workflow: int, key: str) -> int:
    rows = spdf("job", "list", "--workflow", workflow, "--json").json
    return int(next(row["id"] for row in rows if row["key"] == key))


def test_a_retried_workflow_runs_what_failed_and_exits_0(
    spdf: Spdf, bench: Any, catalog: Catalog, failed: int, buffer: Path
) -> None:
    with catalog.write() as session:
        workflows.retry(session, failed)
    write_anew(buffer / "b.txt")
    bench.finish(failed)
    assert spdf("workflow", "watch", failed).code == 0
    counts = {
        row["key"]: row["attempt"]
        for row in spdf("job", "list", "--workflow", failed, "--json").json
    }
    assert counts["a.txt"] == counts["c.txt"] == 1
    assert counts["b.txt"] > 1


def test_cancel_needs_no_server_and_watch_then_gives_6(
    ok: Spdf, spdf: Spdf, catalog: Catalog, failed: int
) -> None:
    done = ok("workflow", "cancel", failed, "--reason", "wrong run", "--json").json
    assert (done["state"], done["reason"], done["new"]) == ("CANCELLED", "wrong run", True)
    assert ok("workflow", "cancel", failed, "--json").json["new"] is False
    assert spdf("workflow", "watch", failed).code == 6
    listed = ok("workflow", "list", "--state", "CANCELLED", "--json").json
    assert [row["id"] for row in listed] == [failed]
    assert ok("workflow", "list", "--state", "FINISHED", "--json").json == []


def test_a_memory_that_was_not_measured_is_not_told(
    ok: Spdf, catalog: Catalog, failed: int
) -> None:
    job = _job(ok, failed, "b.txt")
    with catalog.write() as session:
        session.execute(sa.update(Attempt).values(peak_rss_bytes=0))
    assert "peak memory  –" in ok("job", "show", job).out


def test_show_tells_all_of_a_workflow(ok: Spdf, failed: int) -> None:
    shown = ok("workflow", "show", failed, "--json").json
    assert shown["inputs"] == {"count": 2}
    assert {(out["dataset"], out["state"], out["files"]) for out in shown["outputs"]} == {
        ("run-1.cut.v1.cut.head", "OPEN", 2),
        ("run-1.cut.v1.cut.log", "OPEN", 5),
    }
    assert [event["after"] for event in shown["history"]] == ["DEFINED", "IN_PROGRESS", "FAILED"]
    assert "run-1.cut.v1.cut.head" in ok("workflow", "show", failed).out


def test_jobs_their_attempts_and_logs(ok: Spdf, spdf: Spdf, failed: int) -> None:
    (row,) = ok("job", "list", "--workflow", failed, "--state", "FAILED", "--json").json
    assert (row["key"], row["error"], row["exit_code"]) == ("b.txt", "PAYLOAD_FAILED", 9)
    shown = ok("job", "show", row["id"], "--json").json
    numbers = [attempt["number"] for attempt in shown["attempts"]]
    assert numbers == [1, 2, 3]
    assert [file["name"] for file in shown["inputs"]["file"]] == ["b.txt"]
    assert shown["outputs"] == {}
    assert "exit code    9" in ok("job", "show", row["id"]).out

    assert ok("job", "log", row["id"]).out == "cutting b.txt\n"
    first = ok("job", "log", row["id"], "--attempt", 1, "--json").json
    assert (first["attempt"], first["state"], first["log"]) == (1, "FAILED", "cutting b.txt\n")
    done = spdf("job", "log", row["id"], "--attempt", 9)
    assert done.code == 3 and "no attempt 9" in done.err


def test_a_log_whose_bytes_are_gone_is_a_sentence(
    ok: Spdf, spdf: Spdf, catalog: Catalog, failed: int
) -> None:
    (row,) = ok("job", "list", "--workflow", failed, "--state", "FAILED", "--json").json
    with catalog.read() as session:
        place = Path(storages.by_name(session, "internal").url)
    for path in place.glob("*.log/*/*.log"):
        path.unlink()
    done = spdf("job", "log", row["id"])
    assert done.code == 5 and "the bytes are not there" in done.err


def test_tasks_and_pilots(ok: Spdf, failed: int) -> None:
    (task,) = ok("task", "list", "--workflow", failed, "--json").json
    assert (task["stage"], task["state"]) == ("cut", "FAILED")
    assert ok("task", "list", "--state", "FINISHED", "--json").json == []
    shown = ok("task", "show", task["id"], "--json").json
    assert shown["jobs"] == {"FINISHED": 2, "FAILED": 1}
    assert shown["failures"] == [{"error": "PAYLOAD_FAILED", "exit_code": 9, "jobs": 1}]
    assert shown["outputs"]["head"]["name"] == "run-1.cut.v1.cut.head"
    jobs = ok("task", "jobs", task["id"], "--state", "FINISHED", "--json").json
    assert [job["key"] for job in jobs] == ["a.txt", "c.txt"]
    pilots = ok("pilot", "list", "--workflow", failed, "--json").json
    assert pilots and all(pilot["state"] == "DONE" for pilot in pilots)
    assert ok("pilot", "list", "--live", "--json").json == []


def test_a_file_with_its_lineage_and_its_bytes(ok: Spdf, failed: int, tmp_path: Path) -> None:
    (made, _) = ok("dataset", "files", "run-1.cut.v1.cut.head", "--json").json
    shown = ok("file", "show", made["id"], "--json").json
    assert shown["name"] == "a.txt/a.head"
    assert [step["file"]["name"] for step in shown["lineage"]] == ["a.txt/a.head", "a.txt"]
    assert shown["lineage"][0]["made_by"]["stage"] == "cut"
    assert [file["name"] for file in shown["raw"]] == ["a.txt"]
    assert "raw: buffer:a.txt" in ok("file", "show", made["id"]).out
    raw = ok("file", "show", "buffer:a.txt", "--json").json
    assert [job["stage"] for job in raw["read_by"]] == ["cut"]

    ok("file", "get", made["id"], tmp_path / "x")
    assert (tmp_path / "x").read_text() == "al"
    (tmp_path / "folder").mkdir()
    ok("file", "get", made["id"], tmp_path / "folder")
    assert (tmp_path / "folder" / "a.head").read_text() == "al"


def test_a_derived_dataset_names_its_maker(ok: Spdf, failed: int) -> None:
    origin = ok("dataset", "show", "run-1.cut.v1.cut.head", "--json").json["origin"]
    assert (origin["workflow"], origin["stage"], origin["port"]) == (failed, "cut", "head")


def test_the_overview_counts_what_is_at_work(spdf: Spdf, catalog: Catalog, failed: int) -> None:
    counted = spdf("status", "--json").json
    assert (counted["workflows"], counted["jobs"], counted["live_pilots"]) == ({}, {}, 0)
    with catalog.write() as session:
        workflows.retry(session, failed)
    counted = spdf("status", "--json").json
    assert counted["workflows"] == {"IN_PROGRESS": 1}
    assert counted["jobs"] == {"READY": 1}


def test_only_its_workflow_fills_and_closes_an_output_dataset(
    spdf: Spdf, ok: Spdf, failed: int, home: Path, tmp_path: Path, catalog: Catalog
) -> None:
    name = "run-1.cut.v1.cut.head"
    path = tmp_path / "mine.raw"
    path.write_text("mine")
    done = spdf("dataset", "add", name, path, "--copy-to", "buffer")
    assert done.code == 4 and "made by a workflow" in done.err
    with catalog.write() as session:
        workflows.retry(session, failed)
    done = spdf("dataset", "close", name)
    assert done.code == 4 and f"made by workflow {failed}, which is IN_PROGRESS" in done.err
    assert ok("dataset", "show", name, "--json").json["state"] == "OPEN"
    assert not list(home.rglob("mine.raw")), "nothing was copied"


def test_ctrl_c_ends_the_watching_and_not_the_workflow(
    ok: Spdf, catalog: Catalog, failed: int
) -> None:
    with catalog.write() as session:
        workflows.retry(session, failed)
    # A shell starts what it sends to the background with SIGINT ignored, and so would this be.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", "workflow", "watch", str(failed)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        try:
            assert process.stderr is not None
            assert "the server is not up" in process.stderr.readline()
            assert f"workflow {failed} IN_PROGRESS: cut 2/3" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130
    assert f"`spdf workflow watch {failed}` looks again" in told
    assert ok("workflow", "show", failed, "--json").json["state"] == "IN_PROGRESS"


def test_held_jobs_are_released_by_name_task_or_workflow(
    ok: Spdf, spdf: Spdf, catalog: Catalog, failed: int
) -> None:
    (job,) = ok("job", "list", "--workflow", failed, "--state", "FAILED", "--json").json
    done = spdf("job", "release", job["id"])
    assert (done.code, "none of these jobs is HELD" in done.err) == (4, True)
    assert spdf("job", "release").code == 2
    assert spdf("job", "release", 999).code == 3
    for words in ((job["id"],), ("--task", job["task_id"]), ("--workflow", failed)):
        with catalog.write() as session:
            session.execute(sa.update(Task).values(state="IN_PROGRESS"))
            session.execute(sa.update(Job).where(col(Job.id) == job["id"]).values(state="HELD"))
        assert ok("job", "release", *words, "--json").json == {"released": 1}
        shown = ok("job", "show", job["id"], "--json").json
        assert (shown["state"], shown["error"]) == ("READY", None)


def test_what_a_workflow_waits_for_is_told_wherever_one_looks(
    ok: Spdf, catalog: Catalog, failed: int
) -> None:
    with catalog.write() as session:
        workflows.retry(session, failed)
        place = storages.by_name(session, "output")
        (task,) = session.scalars(sa.select(col(Task.id)))
        message = "no space left"
        full = Met(task, "n", ErrorCode.STORAGE_FULL, message, place.id, writing=True)
        outages.note(session, [full])
    job = ok("job", "list", "--workflow", failed, "--state", "READY", "--json").json[0]["id"]
    for words in (("workflow", "show", failed), ("job", "why", job)):
        assert "storage output is full since" in ok(*words).out, words
    assert "storage output is full" in ok("workflow", "show", failed, "--json").json["waits"][0]
    assert "storage output is full" in ok("job", "why", job, "--json").out


def test_a_wait_says_once_what_it_waits_for(
    spdf: Spdf, bench: Any, catalog: Catalog, failed: int, buffer: Path
) -> None:
    with catalog.write() as session:
        workflows.retry(session, failed)
        place = storages.by_name(session, "output")
        (task,) = session.scalars(sa.select(col(Task.id)))
        full = Met(task, "n", ErrorCode.STORAGE_FULL, "x", place.id, writing=True)
        outages.note(session, [full])
    write_anew(buffer / "b.txt")

    def mend() -> None:
        time.sleep(2.5)
        with catalog.write() as session:
            for outage in outages.current(session):
                outages.still(session, outage, "y")
        time.sleep(1.5)
        with catalog.write() as session:
            for outage in outages.current(session):
                outages.end(session, outage)
        bench.finish(failed)

    with ThreadPoolExecutor(1) as pool:
        mended = pool.submit(mend)
        done = spdf("workflow", "watch", failed)
        mended.result()
    assert done.code == 0
    assert done.err.count("storage output is full since") == 1
