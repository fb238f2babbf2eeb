"""One attempt of one job on a node: stage-in, payload, stage-out, and always a result."""

import errno
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catalog.errors import BadTemplate, ErrorCode, SpdfError, StorageError
from catalog.states import Phase
from workers.cwl import ToolFailure, ToolStopped, run_tool
from workers.node import Node
from workers.prepare import PreparedTask
from workers.slots import Grant
from workers.spec import JobResult, JobSpec, NewFile, Outcome, ToolOutcome, ToolRun, Usage
from workers.stagein import StageIn, StageInError
from workers.stageout import StageOut, discard
from workers.workspace import Workspace

log = logging.getLogger(__name__)

TAIL_BYTES = 4096
"""How much of the end of a failed attempt's log goes into the catalog."""


@dataclass
class RunningJob:
    """A job in hand: where it is, and the way to stop it."""

    spec: JobSpec
    stop: threading.Event = field(default_factory=threading.Event)
    phase: Phase | None = None
    draining: bool = False
    """Stopped for the pilot's sake: the job is to be handed back."""
    on_stop: Callable[[], None] | None = None
    """Tells the process that runs it, where that is another."""
    ended: bool = False
    _fate: str = "waiting"
    _begun: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self) -> bool:
        """Start it, unless it was abandoned."""
        self._begun = time.monotonic()
        return self._decide("started")

    def phase_after(self, least_s: float) -> Phase | None:
        """The phase of a job that began so long ago and hasn't ended; None of others."""
        if self.ended or time.monotonic() - self._begun < least_s:
            return None
        return self.phase

    def abandon(self) -> bool:
        """Give it up, unless it has started."""
        return self._decide("abandoned")

    def halt(self) -> None:
        """Stop it, wherever it is."""
        self.stop.set()
        if self.on_stop is not None:
            self.on_stop()

    def _decide(self, fate: str) -> bool:
        with self._lock:
            if self._fate == "waiting":
                self._fate = fate
            return self._fate == fate


class InputModified(SpdfError):
    """The payload wrote to an input that is linked from a storage."""

    def __init__(self, names: list[str], file_ids: tuple[int, ...]) -> None:
        self.file_ids = file_ids
        super().__init__(f"the payload changed its input {', '.join(names)}")


@dataclass
class _Attempt:
    """What is known of an attempt so far, whatever happens next."""

    node: Node
    task: PreparedTask
    running: RunningJob
    work: Workspace
    begun: float = field(default_factory=time.monotonic)
    stage: StageIn | None = None
    uploaded: list[NewFile] = field(default_factory=list)
    cpu_s: float = 0.0
    peak_rss_bytes: int = 0

    def result(self, outcome: Outcome, **fields: Any) -> JobResult:
        spec = self.running.spec
        return JobResult(
            job_id=spec.job_id,
            attempt_id=spec.attempt_id,
            number=spec.number,
            outcome=outcome,
            phase=self.running.phase,
            usage=Usage(
                wall_s=time.monotonic() - self.begun,
                cpu_s=self.cpu_s,
                peak_rss_bytes=self.peak_rss_bytes,
                bytes_in=self.stage.size_bytes if self.stage else 0,
                bytes_out=sum(file.size_bytes for file in self.uploaded),
            ),
            **fields,
        )


def run_attempt(node: Node, task: PreparedTask, running: RunningJob) -> JobResult:
    """Run an attempt; never raises, and leaves its work directory empty."""
    if not running.begin():
        return stopped(running)
    try:
        with node.workspaces.take() as work:
            attempt = _Attempt(node, task, running, work)
            try:
                return _run(attempt)
            except Exception as error:  # noqa: BLE001 - the job boundary: all ends as a result
                return _failed(attempt, error)
    except OSError as error:
        return _never_ran(running, error)


def unprepared(running: RunningJob, error: Exception) -> JobResult:
    """The result of an attempt whose task could not be made ready on this node."""
    return _never_ran(running, error) if running.begin() else stopped(running)


def stopped(running: RunningJob) -> JobResult:
    """The result of an attempt that was stopped before it began."""
    spec = running.spec
    return JobResult(spec.job_id, spec.attempt_id, spec.number, Outcome.STOPPED)


def _never_ran(running: RunningJob, error: Exception) -> JobResult:
    spec = running.spec
    return JobResult(
        spec.job_id,
        spec.attempt_id,
        spec.number,
        Outcome.FAILED,
        error=code_of(error),
        message=str(error) or type(error).__name__,
        phase=Phase.STAGE_IN,
    )


def _run(attempt: _Attempt) -> JobResult:
    running, task = attempt.running, attempt.task
    running.phase = Phase.STAGE_IN
    attempt.stage = StageIn(attempt.node, Path(attempt.work.inputs), running.stop)
    inputs = task.step_inputs(_given(task, running.spec, attempt.stage))
    if task.when is not None and not _wanted(task, inputs):
        return attempt.result(Outcome.SKIPPED)
    with attempt.node.slots.take(task.spec.resources, running.stop) as grant:
        if grant is None:
            raise ToolStopped
        running.phase = Phase.PAYLOAD
        outcome = _payload(attempt, inputs, grant)
    running.phase = Phase.STAGE_OUT
    return _stage_out(attempt, outcome)


def _given(task: PreparedTask, spec: JobSpec, stage: StageIn) -> dict[str, Any]:
    values: dict[str, Any] = dict(spec.values)
    for port in task.spec.lists:
        values[port] = []
    for port, refs in spec.files.items():
        files = [stage.cwl_file(ref) for ref in refs]
        values[port] = files if port in task.spec.lists else files[0]
    return values


def _wanted(task: PreparedTask, inputs: dict[str, Any]) -> bool:
    assert task.when is not None
    value = task.when.evaluate(inputs)
    if not isinstance(value, bool):
        raise ToolFailure(
            ErrorCode.EXPRESSION_FAILED,
            f"`when` {task.when.text!r} gave {value!r}, not true or false",
        )
    return value


def _payload(attempt: _Attempt, inputs: dict[str, Any], grant: Grant) -> ToolOutcome:
    work, task = attempt.work, attempt.task
    node = attempt.node
    with work.leash() as leash:
        run = ToolRun(
            inputs=inputs,
            outdir=work.out,
            tmpdir=work.tmp,
            stagedir=work.stage,
            log=work.log,
            cores=task.spec.resources.cores,
            ram_mib=task.spec.resources.ram_mib,
            devices=grant.devices,
            keep=(*grant.descriptors, node.ledger.held, leash),
        )
        outcome = run_tool(
            task.tool,
            run,
            started=node.ledger.started,
            stop=attempt.running.stop,
            containers=node.containers,
        )
    attempt.cpu_s, attempt.peak_rss_bytes = outcome.cpu_s, outcome.peak_rss_bytes
    _check_unchanged(attempt)
    return outcome


def _check_unchanged(attempt: _Attempt) -> None:
    assert attempt.stage is not None
    staged = [*attempt.stage.staged.values(), *attempt.task.stage.staged.values()]
    changed = [item for item in staged if item.linked and item.changed()]
    if changed:
        raise InputModified(
            [item.path.name for item in changed], tuple(item.file_id for item in changed)
        )


def _stage_out(attempt: _Attempt, outcome: ToolOutcome) -> JobResult:
    stage = StageOut(
        attempt.node,
        attempt.task.spec,
        attempt.running.spec,
        attempt.work.out,
        attempt.uploaded,
        attempt.running.stop,
    )
    values = stage.outputs(outcome.outputs)
    files = tuple(attempt.uploaded)
    return attempt.result(
        Outcome.FINISHED,
        files=files,
        values=values,
        exit_code=outcome.exit_code,
        log=stage.log(attempt.work.log),
    )


def _failed(attempt: _Attempt, error: Exception) -> JobResult:
    """The result of whatever went wrong; what was uploaded is removed again."""
    running = attempt.running
    try:
        discard(attempt.node, attempt.uploaded)
    except StorageError as fault:
        log.warning("uploaded outputs stay as dark data", extra={"fault": str(fault)})
    attempt.uploaded.clear()
    if isinstance(error, ToolFailure | ToolStopped):
        attempt.cpu_s, attempt.peak_rss_bytes = error.cpu_s, error.peak_rss_bytes
    if isinstance(error, ToolStopped):
        if not running.draining:
            return attempt.result(Outcome.STOPPED)
        return attempt.result(
            Outcome.FAILED, error=ErrorCode.PILOT_STOPPED, message="the pilot had to stop"
        )
    bad = error.file_ids if isinstance(error, InputModified) else ()
    if isinstance(error, StageInError) and error.bad:
        bad = (error.file_id,)
    code = code_of(error)
    if code is ErrorCode.INTERNAL:
        log.exception("defect while running a job", extra={"job": running.spec.job_id})
    return attempt.result(
        Outcome.FAILED,
        error=code,
        message=str(error) or type(error).__name__,
        exit_code=getattr(error, "exit_code", None) if isinstance(error, ToolFailure) else None,
        bad_inputs=bad,
        log_tail=_tail(attempt.work.log),
        log=_upload_log(attempt),
    )


def code_of(error: Exception) -> ErrorCode:
    """What an attempt that ended with this error is said to have failed of."""
    if isinstance(error, ToolFailure | StorageError):
        return error.code
    if isinstance(error, InputModified):
        return ErrorCode.INPUT_MODIFIED
    if isinstance(error, BadTemplate):
        return ErrorCode.BAD_JOB_INPUT
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ErrorCode.NODE_DISK_FULL
    return ErrorCode.INTERNAL


def _upload_log(attempt: _Attempt) -> NewFile | None:
    stage = StageOut(attempt.node, attempt.task.spec, attempt.running.spec, attempt.work.out, [])
    try:
        return stage.log(attempt.work.log)
    except (SpdfError, OSError) as fault:
        log.warning("log of a failed attempt is lost", extra={"fault": str(fault)})
        return None


def _tail(path: str) -> str | None:
    """The end of a log, whole lines, as text that any database takes."""
    try:
        with Path(path).open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            data = file.read()
    except FileNotFoundError:
        return None
    if len(data) == TAIL_BYTES:
        data = data.partition(b"\n")[2] or data
    return data.decode("utf-8", "replace").replace("\x00", "\ufffd") or None
