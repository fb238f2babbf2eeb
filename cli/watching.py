"""Watching a workflow until it ends, from the catalog alone."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer

from catalog.counts import count_of
from catalog.states import DatasetState, JobState, TaskState, WorkflowState, is_final
from cli.faults import INTERRUPTED
from cli.home import SERVER_DOWN, server_answers
from cli.jobtable import job_row
from cli.output import console, note, plain, print_table, say, size, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from catalog.db import Catalog
    from catalog.jobs import JobInfo
    from catalog.stranded import Leavings
    from catalog.tasks import Progress
    from catalog.workflows import WorkflowInfo

EXIT_CODES = {WorkflowState.FINISHED: 0, WorkflowState.FAILED: 1, WorkflowState.CANCELLED: 6}
"""Exit codes of a wait, by the state that the workflow ended in."""

_SHOWN = 10
LIVE_S = 1.0
LINE_S = 5.0


@dataclass(frozen=True)
class Ended:
    """How a workflow ended: its stages, the first of its failed jobs, and what it leaves OPEN."""

    workflow: "WorkflowInfo"
    left: "Leavings"
    stages: list[dict[str, Any]] = field(default_factory=list)
    failed_jobs: "Sequence[JobInfo]" = ()

    @property
    def exit_code(self) -> int:
        """The exit code of the command that waited."""
        return EXIT_CODES[self.workflow.state]


def watch(catalog: "Catalog", workflow_id: int, *, silent: bool = False) -> Ended:
    """Wait for a workflow's end and show its stages meanwhile, on stderr.

    Ctrl-C ends the watching, not the workflow.
    """
    if _ended(catalog, workflow_id):
        return ended(catalog, workflow_id)
    if not silent and not server_answers():
        note(SERVER_DOWN + " Until then nothing moves.")
    try:
        if silent:
            _wait(catalog, workflow_id)
        elif console(err=True).is_terminal:
            _watch_live(catalog, workflow_id)
        else:
            _watch_lines(catalog, workflow_id)
    except KeyboardInterrupt:
        note(f"\nworkflow {workflow_id} goes on; `spdf workflow watch {workflow_id}` looks again.")
        raise typer.Exit(INTERRUPTED) from None
    return ended(catalog, workflow_id)


def ended(catalog: "Catalog", workflow_id: int) -> Ended:
    """A workflow with its stages and failed jobs, as they are now."""
    from catalog import stranded, workflows
    from flows.summary import failed_jobs, summary_rows

    with catalog.read() as session:
        info = workflows.get(session, workflow_id)
        left = stranded.of_workflow(session, workflow_id)
    return Ended(info, left, summary_rows(catalog, workflow_id), failed_jobs(catalog, workflow_id))


def _read(catalog: "Catalog", workflow_id: int) -> "tuple[WorkflowInfo, list[Progress], list[str]]":
    """A workflow, its stages, and what they wait for."""
    from catalog import tasks, waits, workflows

    with catalog.read() as session:
        return (
            workflows.get(session, workflow_id),
            tasks.progress(session, workflow_id),
            waits.of_workflow(session, workflow_id),
        )


def _ended(catalog: "Catalog", workflow_id: int) -> bool:
    return is_final(_read(catalog, workflow_id)[0].state)


def _wait(catalog: "Catalog", workflow_id: int) -> None:
    while not _ended(catalog, workflow_id):
        time.sleep(LIVE_S)


def _watch_live(catalog: "Catalog", workflow_id: int) -> None:
    from rich.console import Group
    from rich.live import Live

    with Live(console=console(err=True), auto_refresh=False, transient=True) as live:
        while True:
            info, rows, waiting = _read(catalog, workflow_id)
            live.update(Group(_board(info, rows), *waiting), refresh=True)
            if is_final(info.state):
                return
            time.sleep(LIVE_S)


def _board(info: "WorkflowInfo", rows: "Sequence[Progress]") -> "RenderableType":
    stages = [
        {
            "stage": row.task.stage,
            "state": row.task.state,
            "jobs": row.total,
            "ready": row.jobs.get(JobState.READY, 0),
            "running": row.jobs.get(JobState.RUNNING, 0),
            "finished": row.jobs.get(JobState.FINISHED, 0),
            "skipped": row.jobs.get(JobState.SKIPPED, 0),
            "failed": row.jobs.get(JobState.FAILED, 0),
            "held": row.jobs.get(JobState.HELD, 0),
        }
        for row in rows
    ]
    return table(stages, f"workflow {info.id} · {info.label} · {info.state}")


def _watch_lines(catalog: "Catalog", workflow_id: int) -> None:
    shown, said_at, told = "", 0.0, set[str]()
    while True:
        info, rows, waiting = _read(catalog, workflow_id)
        # What a look found last may change its words, not what is out.
        new = {line.partition(" since ")[0]: line for line in waiting}
        for line in (line for about, line in new.items() if about not in told):
            note(line)
        told = set(new)
        final = is_final(info.state)
        line = _line(info, rows)
        if line != shown and (final or time.monotonic() - said_at >= LINE_S):
            note(f"{time.strftime('%H:%M:%S', time.gmtime())}Z {line}")
            shown, said_at = line, time.monotonic()
        if final:
            return
        time.sleep(LIVE_S)


def _line(info: "WorkflowInfo", rows: "Sequence[Progress]") -> str:
    stages = ", ".join(f"{row.task.stage} {row.done}/{row.total}{_faults(row)}" for row in rows)
    return f"workflow {info.id} {info.state}: {stages}"


def _faults(row: "Progress") -> str:
    words = [
        f"{row.jobs[state]} {state}"
        for state in (JobState.FAILED, JobState.HELD)
        if row.jobs.get(state)
    ]
    return f" ({', '.join(words)})" if words else ""


def stage_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The stages of a summary as a table that fits a terminal of 80 columns."""
    return [
        {
            "stage": row["stage"],
            "state": TaskState(row["state"]),
            "jobs": row["jobs"],
            "done": row["finished"],
            "skip": row["skipped"],
            "fail": row["failed"],
            "files": row["files out"],
            "wall s": row["wall s"],
            "CPU s": row["CPU s"],
            "written": size(row["bytes out"]),
        }
        for row in rows
    ]


def stage_values(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The stages of a summary for JSON: keys without spaces, bytes and seconds as numbers."""
    return [{key.lower().replace(" ", "_"): value for key, value in row.items()} for row in rows]


def show_end(end: Ended) -> None:
    """The stages, and where it failed the reason, the first such jobs and where to look on."""
    info = end.workflow
    print_table(stage_rows(end.stages))
    say(f"workflow {info.id} ({info.label}) is {info.state}")
    if info.reason:
        say(info.reason)
    if end.failed_jobs:
        print_table([job_row(job) for job in end.failed_jobs])
        say(f"`spdf job log {end.failed_jobs[0].id}` shows what the first of them printed.")
        if info.state is WorkflowState.FAILED:
            say(f"`spdf workflow retry {info.id}` tries the failed ones again.")
    if end.left.open:
        tell_left(info.id, end.left)


def json_end(end: Ended) -> dict[str, Any]:
    """The same as JSON values."""
    return {
        "workflow": plain(end.workflow),
        "stages": stage_values(end.stages),
        "failed_jobs": plain(list(end.failed_jobs)),
        "leaves": plain(end.left.datasets),
        "waiting": plain(end.left.readers),
    }


def tell_left(workflow_id: int, left: "Leavings") -> None:
    """Say what stays of a workflow that has ended, who waits for it, and what can be done."""
    from catalog import stranded

    for state in (DatasetState.OPEN, DatasetState.CLOSED):
        mine = [one for one in left.datasets if one.state is state]
        if mine:
            lacks = ", incomplete" if state is DatasetState.OPEN else ""
            names = first([f"{one.dataset} ({count_of(one.files, 'file')})" for one in mine])
            note(f"workflow {workflow_id} leaves, {state}{lacks}: {names}")
    if waiting := stranded.waiting(left):
        note(waiting)
    if ways := stranded.ways_on(left):
        remove = f"`spdf workflow cancel {workflow_id} --discard` removes what stays"
        note(f"{ways}; {remove}")


def first(names: Sequence[str]) -> str:
    """The first few of names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
