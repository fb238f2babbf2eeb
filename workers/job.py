"""One attempt of one job on a node: stage-in, payload, stage-out, and always a result."""

import errno
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catalog.errors import ERRORS, ErrorClass, ErrorCode, SpdfError, StorageError
from catalog.states import Phase
from workers.cwl import ToolFailure, ToolStopped, run_tool
from workers.cwl.failures import NotEnded
from workers.cwl.faults import InputModified, code_of, of_node, told
from workers.cwl.left import end_of, is_straight
from workers.node import Node
from workers.prepare import PreparedTask
from workers.probe import check_disk, fills
from workers.slots import Grant
from workers.spec import (
    JobResult,
    JobSpec,
    NewFile,
    Outcome,
    ReplicaRef,
    ToolOutcome,
    ToolRun,
    Usage,
)
from workers.stagein import StageIn, StageInError
from workers.stageout import StageOut, discard
from workers.workspace import Workspace

log = logging.getLogger(__name__)

_AT_END = frozenset(
    {
        ErrorCode.PAYLOAD_FAILED, ErrorCode.PAYLOAD_TEMPORARY, ErrorCode.PAYLOAD_PERMANENT,
        ErrorCode.PAYLOAD_KILLED, ErrorCode.OUTPUT_MISSING, ErrorCode.OUTPUT_INVALID,
    }
)  # fmt: skip
"""Failures of a payload that a full disk can bring about."""

TAIL_BYTES = 4096
"""How much of the end of a failed attempt's log goes into the catalog."""


@dataclass
class RunningJob:
    """A job in hand: where it is, and the way to stop it."""

    spec: JobSpec
    stop: threading.Event = field(default_factory=threading.Event)
    phase: Phase | None = None
    on_phase: Callable[[Phase], None] | None = None
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

    def enter(self, phase: Phase) -> None:
        """It has come so far."""
        self.phase = phase
        if self.on_phase is not None:
            self.on_phase(phase)

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


@dataclass
class _Attempt:
    """What is known of an attempt so far, whatever happens next."""

    node: Node
    task: PreparedTask
    running: RunningJob
    work: Workspace
    begun: float = field(default_factory=time.monotonic)
    stage: StageIn | None = None
    out: StageOut | None = None
    uploaded: list[NewFile] = field(default_factory=list)
    cpu_s: float = 0.0
    peak_rss_bytes: int = 0

    def result(
        self, outcome: Outcome, *, bad: Sequence[ReplicaRef] = (), **fields: Any
    ) -> JobResult:
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
            bad_inputs=(*(self.stage.bad if self.stage else ()), *bad),
            stamped=(*(self.stage.told() if self.stage else ()), *self.task.stage.told()),
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


def untold(node: Node, result: JobResult, error: OSError) -> JobResult:
    """The result of an attempt whose own can't be told, for the node's sake: nothing is kept."""
    _discard(node, [*result.files, *([result.log] if result.log else [])])
    return JobResult(
        result.job_id,
        result.attempt_id,
        result.number,
        Outcome.FAILED,
        usage=result.usage,
        error=code_of(error, None),
        message=f"its end could not be told to its pilot: {told(error)}",
        phase=Phase.STAGE_OUT,
    )


def lost(running: RunningJob, how: str, phase: Phase | None) -> JobResult:
    """The result of an attempt whose process died; `phase` where it was to blame perhaps."""
    spec, code = running.spec, ErrorCode.PROCESS_LOST
    message = f"the process that ran it {how}"
    return JobResult(
        spec.job_id,
        spec.attempt_id,
        spec.number,
        Outcome.LOST,
        error=code,
        message=message,
        phase=phase,
    )


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
        error=code_of(error, None),
        message=told(error),
        phase=Phase.STAGE_IN,
        storage_id=error.storage_id if isinstance(error, StorageError) else None,
    )


def _run(attempt: _Attempt) -> JobResult:
    running, task = attempt.running, attempt.task
    running.enter(Phase.STAGE_IN)
    attempt.stage = StageIn(attempt.node, Path(attempt.work.inputs), running.stop)
    inputs = task.step_inputs(_given(task, running.spec, attempt.stage))
    if task.when is not None and not _wanted(task, inputs):
        return attempt.result(Outcome.SKIPPED)
    with attempt.node.slots.take(task.spec.resources, running.stop) as grant:
        if grant is None:
            raise ToolStopped
        running.enter(Phase.PAYLOAD)
        outcome = _payload(attempt, inputs, grant)
    running.enter(Phase.STAGE_OUT)
    return _stage_out(attempt, outcome)


def _given(task: PreparedTask, spec: JobSpec, stage: StageIn) -> dict[str, Any]:
    values: dict[str, Any] = {**{port: [] for port in task.spec.lists}, **spec.values}
    for port, refs in spec.files.items():
        files = [stage.cwl_file(ref) for ref in refs]
        values[port] = files if port in task.spec.lists else files[0]
    return values


def _wanted(task: PreparedTask, inputs: dict[str, Any]) -> bool:
    assert task.when is not None
    value = task.when.evaluate(inputs)
    if not isinstance(value, bool):
        raise task.when.fault(f"it gives {value!r}, not true or false")
    return value


def _payload(attempt: _Attempt, inputs: dict[str, Any], grant: Grant) -> ToolOutcome:
    work, task = attempt.work, attempt.task
    node = attempt.node
    run = ToolRun(
        inputs=inputs,
        outdir=work.out,
        tmpdir=work.tmp,
        stagedir=work.stage,
        log=work.log,
        cores=task.spec.resources.cores,
        ram_mib=task.spec.resources.ram_mib,
        devices=grant.devices,
        keep=(*grant.descriptors, node.ledger.held),
    )
    try:
        outcome = run_tool(
            task.tool,
            run,
            reapers=node.reapers,
            stop=attempt.running.stop,
            containers=node.containers,
        )
    except NotEnded:
        work.spoil()
        raise
    attempt.cpu_s, attempt.peak_rss_bytes = outcome.cpu_s, outcome.peak_rss_bytes
    _check_unchanged(attempt)
    return outcome


def _check_unchanged(attempt: _Attempt) -> None:
    assert attempt.stage is not None
    staged = [*attempt.stage.staged.values(), *attempt.task.stage.staged.values()]
    changed = [item for item in staged if item.linked and item.changed()]
    if changed:
        raise InputModified(
            [item.path.name for item in changed], tuple(item.copy for item in changed)
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
    attempt.out = stage
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
    _discard(attempt.node, attempt.uploaded)
    attempt.uploaded.clear()
    if isinstance(error, ToolFailure | ToolStopped):
        attempt.cpu_s, attempt.peak_rss_bytes = error.cpu_s, error.peak_rss_bytes
    if isinstance(error, ToolStopped):
        if not running.draining:
            return attempt.result(Outcome.STOPPED)
        return attempt.result(
            Outcome.FAILED, error=ErrorCode.PILOT_STOPPED, message="the pilot had to stop"
        )
    bad = error.copies if isinstance(error, InputModified) else ()
    if isinstance(error, StageInError) and error.bad is not None:
        bad = (error.bad,)
    fault = _own_doing(attempt, _whose(attempt, error))
    code = code_of(fault, running.phase)
    if code is ErrorCode.INTERNAL:
        log.exception("defect while running a job", extra={"job": running.spec.job_id})
    return attempt.result(
        Outcome.FAILED,
        error=code,
        message=attempt.work.without_paths(told(fault)),
        exit_code=getattr(error, "exit_code", None) if isinstance(error, ToolFailure) else None,
        bad=bad,
        storage_id=fault.storage_id if isinstance(fault, StorageError) else None,
        needed_bytes=attempt.out.putting_bytes if attempt.out is not None else 0,
        log_tail=_tail(attempt.work.log),
        log=_upload_log(attempt) if _keeps_log(error, code) else None,
    )


def _keeps_log(error: Exception, code: ErrorCode) -> bool:
    """Whether the log may be stored; what can't be ended may still write to it."""
    return ERRORS[code].error_class is not ErrorClass.OUTAGE and not isinstance(error, NotEnded)


def _discard(node: Node, files: list[NewFile]) -> None:
    try:
        discard(node, files)
    except StorageError as left:
        log.warning("uploaded outputs stay as dark data", extra={"fault": str(left)})


def _whose(attempt: _Attempt, error: Exception) -> Exception:
    """What is to blame: a payload that fails is not, where the node's disk is full or was."""
    last = attempt.node.last_full
    if isinstance(error, OSError) and of_node(error) is ErrorCode.NODE_DISK_FULL:
        last.now()
    if not isinstance(error, ToolFailure) or error.code not in _AT_END:
        return error
    try:
        check_disk(attempt.work.root, said=_tail(attempt.work.log) or "")
    except OSError as fault:
        if (code := of_node(fault)) is ErrorCode.NODE_DISK_FULL:
            last.now()
        if code is not None:
            return fault
    if last.within(time.monotonic() - attempt.begun):
        full = "the disk of the node was full while the payload ran"
        return OSError(errno.ENOSPC, f"{full} ({error})")
    return error


def _own_doing(attempt: _Attempt, fault: Exception) -> Exception:
    """A disk that the job itself has filled is no outage of its node: it would be at every try."""
    if code_of(fault, attempt.running.phase) is not ErrorCode.NODE_DISK_FULL:
        return fault
    if not fills(attempt.work.root):
        return fault
    return ToolFailure(
        ErrorCode.WORK_DISK_FULL,
        "what the job has in its work directory takes more than half of the node's work disk, "
        f"which has no room left ({told(fault)}); have it write less, or give its nodes more room",
    )


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
        data = end_of(path, TAIL_BYTES) if is_straight(path) else b""
    except OSError:
        return None
    if len(data) == TAIL_BYTES:
        data = data.partition(b"\n")[2] or data
    return data.decode("utf-8", "replace").replace("\x00", "\ufffd") or None
