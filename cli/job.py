"""`spdf job`: the units of work, their attempts and logs."""

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalog.counts import count_of
from catalog.errors import BadInput, Conflict, NotFound
from catalog.states import JobState
from cli.copies import Reader, Wanted
from cli.home import open_catalog
from cli.jobtable import show_jobs
from cli.many import From, all_or_none, ids_of
from cli.output import (
    Json,
    Size,
    note,
    plain,
    print_fields,
    print_json,
    print_table,
    say,
    show_causes,
    size,
)
from cli.parameters import MOST_SHORT

if TYPE_CHECKING:
    from catalog.db import Catalog
    from catalog.jobs import AttemptInfo, JobInfo
    from catalog.refs import FileRef

app = typer.Typer(name="job", help="Units of work: one file (or group) each.", no_args_is_help=True)

Id = Annotated[int, typer.Argument(min=1, metavar="JOB", help="Id of the job.", show_default=False)]


@app.command("list")
def list_all(
    workflow: Annotated[
        int | None, typer.Option(min=1, help="Only those of this workflow.")
    ] = None,
    task: Annotated[int | None, typer.Option(min=1, help="Only those of this task.")] = None,
    state: Annotated[list[JobState] | None, typer.Option(help="Only in these states.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    as_json: Json = False,
) -> None:
    """List jobs by task and order."""
    from catalog import jobs, tasks, workflows

    with open_catalog().read() as session:
        if workflow is not None:
            workflows.get(session, workflow)
        if task is not None:
            tasks.get(session, task)
        found = jobs.list_jobs(
            session, task_id=task, workflow_id=workflow, states=state, limit=limit
        )
    show_jobs(found, as_json, limit)


@app.command()
def release(
    jobs: Annotated[
        list[int] | None, typer.Argument(min=1, metavar="[JOB]...", help="Ids of jobs.")
    ] = None,
    workflow: Annotated[int | None, typer.Option(min=1, help="All of this workflow.")] = None,
    task: Annotated[int | None, typer.Option(min=1, help="All of this task.")] = None,
    source: From = None,
    as_json: Json = False,
) -> None:
    """Let HELD jobs go on once what held them is mended: they are READY again."""
    from catalog import holding, tasks, workflows
    from catalog import jobs as catalog_jobs

    if not jobs and source is None and workflow is None and task is None:
        raise BadInput("name the jobs, or all of a --task or a --workflow.")
    chosen = ids_of(jobs, source, "JOB") if jobs or source is not None else []
    with open_catalog().write() as session:
        all_or_none(chosen, lambda job: catalog_jobs.get(session, job))
        if workflow is not None:
            workflows.get(session, workflow)
        if task is not None:
            tasks.get(session, task)
        count = holding.release(session, job_ids=chosen, task_id=task, workflow_id=workflow)
        if not count:
            raise Conflict("none of these jobs is HELD; `spdf job list --state HELD` names those.")
    if as_json:
        print_json({"released": count})
        return
    say(f"{count_of(count, 'job')} released")


@app.command()
def show(job: Id, as_json: Json = False) -> None:
    """Show one job: what it read and made, and each of its attempts."""
    from catalog import jobfiles, jobs

    with open_catalog().read() as session:
        info = jobs.get(session, job)
        attempts = jobs.attempts(session, [job])[job]
        inputs = jobfiles.inputs(session, [job])[job]
        outputs = _outputs(session, info)
    if as_json:
        print_json({**plain(info), "inputs": inputs, "outputs": outputs, "attempts": attempts})
        return
    print_fields(
        {
            "job": info.id,
            "key": info.key,
            "stage": f"{info.stage} (task {info.task_id} of workflow {info.workflow_id})",
            "state": info.state,
            "error": info.error,
            "exit code": info.exit_code,
            "why": info.reason,
            "failures": info.failures,
            "losses": info.losses,
            "created": info.created_at,
            "ended": info.ended_at,
        }
    )
    rows = [*_file_rows("in", inputs), *_file_rows("out", outputs)]
    if rows:
        print_table(rows, "files")
    for attempt in attempts:
        _show_attempt(attempt)


@app.command()
def why(job: Id, as_json: Json = False) -> None:
    """Explain a job's state: what was tried, and what it waits for."""
    from catalog import causes, jobs

    with open_catalog().read() as session:
        found = causes.why_job(session, jobs.get(session, job))
    show_causes(found, as_json)


def _outputs(session: Any, info: "JobInfo") -> "dict[str, Sequence[FileRef]]":
    from catalog import jobfiles, tasks

    ports = tasks.outputs(session, [info.task_id])[info.task_id]
    found = jobfiles.outputs(session, [info.id], ports)
    refs = jobfiles.file_refs(session, [file_id for ids in found.values() for file_id in ids])
    return {port: [refs[file_id] for file_id in ids] for (_, port), ids in found.items()}


def _file_rows(way: str, ports: "dict[str, Any]") -> list[dict[str, Any]]:
    return [
        {"": way, "port": port, "id": f.file_id, "file": f.name, "size": Size(f.size_bytes)}
        for port, files in ports.items()
        for f in files
    ]


def _show_attempt(attempt: "AttemptInfo") -> None:
    say(f"\nattempt {attempt.number}")
    print_fields(
        {
            "id": attempt.id,
            "state": attempt.state,
            "phase": attempt.phase,
            "error": attempt.error,
            "exit code": attempt.exit_code,
            "message": attempt.message,
            "pilot": attempt.pilot_id,
            "node": attempt.node,
            "program": f"spdf {attempt.program}",
            "tool digest": attempt.tool_digest,
            "started": attempt.started_at,
            "ended": attempt.ended_at,
            "wall s": attempt.wall_s,
            "CPU s": attempt.cpu_s,
            "peak memory": size(attempt.peak_rss_bytes or None),
            "read": size(attempt.bytes_in),
            "written": size(attempt.bytes_out),
            "log": f"file {attempt.log_file_id}" if attempt.log_file_id else None,
        }
    )


@app.command()
def log(
    job: Id,
    attempt: Annotated[
        int | None, typer.Option(min=1, max=MOST_SHORT, help="Its number; else the last.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print what the payload of a job printed."""
    from catalog import jobs

    catalog = open_catalog()
    with catalog.read() as session:
        jobs.get(session, job)
        history = jobs.attempts(session, [job])[job]
    chosen = _choose(job, history, attempt)
    if as_json:
        text = _text(catalog, chosen)
        print_json({"job": job, "attempt": chosen.number, "state": chosen.state, "log": text})
        return
    if chosen.log_file_id is not None:
        reader, wanted = _stored(catalog, chosen.log_file_id)
        with reader.open(wanted) as stream:
            sys.stdout.flush()
            shutil.copyfileobj(stream, sys.stdout.buffer)
            sys.stdout.buffer.flush()
    elif chosen.log_tail:
        note("the log itself was not kept; this is its end.")
        typer.echo(chosen.log_tail, nl=not chosen.log_tail.endswith("\n"))
    else:
        note(f"attempt {chosen.number} of job {job} is {chosen.state} and left no log.")


def _choose(job: int, history: "Sequence[AttemptInfo]", number: int | None) -> "AttemptInfo":
    if not history:
        raise BadInput(f"job {job} has not been tried yet, so it has no log.")
    if number is None:
        return history[-1]
    for attempt in history:
        if attempt.number == number:
            return attempt
    raise NotFound("attempt", number, f"job {job} has {len(history)}: `spdf job show {job}`")


def _stored(catalog: "Catalog", file_id: int) -> tuple[Reader, Wanted]:
    from catalog import files

    with catalog.read() as session:
        info = files.by_ids(session, [file_id])[file_id]
        places = files.replicas(session, [file_id])[file_id]
    return Reader(catalog), Wanted(info.ref, info.size_bytes, info.checksum, places)


def _text(catalog: "Catalog", attempt: "AttemptInfo") -> str | None:
    if attempt.log_file_id is None:
        return attempt.log_tail
    reader, wanted = _stored(catalog, attempt.log_file_id)
    with reader.open(wanted) as stream:
        return stream.read().decode("utf-8", "replace")
