"""Running a compiled tool: inputs, command, payload, outputs."""

import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from catalog.errors import ErrorCode
from catalog.names import MAX_COMPONENT
from catalog.states import Phase
from workers.cwl.command import command_line
from workers.cwl.containers import Confines, Containers, Mount, input_mounts
from workers.cwl.expressions import Expression, Scope
from workers.cwl.failures import ToolFailure, bad_input, bad_output, no_engine
from workers.cwl.faults import code_of, told
from workers.cwl.files import leads_out
from workers.cwl.findings import Findings
from workers.cwl.images import Image
from workers.cwl.inputs import prepare_inputs
from workers.cwl.left import is_straight
from workers.cwl.numbers import is_double
from workers.cwl.outputs import collect_outputs, expression_outputs
from workers.cwl.process import Command, Ended, run_command
from workers.cwl.resources import evaluate_resources
from workers.cwl.staging import Stager
from workers.cwl.tool import Tool
from workers.cwl.workdir import lay_out
from workers.reapers import Reapers
from workers.spec import ToolOutcome, ToolRun

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run_tool(
    tool: Tool,
    run: ToolRun,
    *,
    reapers: Reapers,
    stop: threading.Event | None = None,
    discover_secondary: bool = False,
    checksums: bool = False,
    containers: Containers | None = None,
) -> ToolOutcome:
    """Run one job of a tool in the directories of `run`, which exist and are empty.

    The payload runs below one of `reapers`; setting `stop` ends it. `discover_secondary` looks for
    undeclared secondary files beside inputs; `checksums` adds a sha1 to output Files; `containers`
    runs what requires one, whose image is there.
    Outputs lie in `run.outdir`, or are inputs, named by their own path. Raises `ToolFailure`
    and `ToolStopped`.
    """
    if tool.container is not None and containers is None:
        raise no_engine("this node has no engine")
    outdir = str(run.outdir)
    stager = Stager(str(run.stagedir))
    inputs = prepare_inputs(tool, run.inputs, stager, discover=discover_secondary)
    inside = (tool.container and tool.container.outdir) or outdir
    scope = Scope(inputs, _runtime(tool, run, inside, inputs))
    findings = Findings(outdir, stager.sources, checksums, inside)
    if tool.expression is not None:
        given = _given(tool.expression, scope)
        outputs = _collected(lambda: expression_outputs(tool, scope, findings, given))
        return ToolOutcome(outputs, None, 0.0, 0)
    mounts: list[Mount] = []
    scope = lay_out(tool, scope, outdir, stager, None if tool.container is None else mounts)
    command = _command(tool, run, scope, outdir)
    if containers is None or tool.container is None:
        ended = run_command(command, reapers, stop)
    else:
        confines = _confines(tool, tool.container, run, scope, outdir, stager, mounts)
        ended = containers.run(confines, command, reapers, stop)
    try:
        _check_exit(tool, ended, str(run.log))
        after = Scope(scope.inputs, {**scope.runtime, "exitCode": ended.exit_code})
        outputs = _collected(lambda: collect_outputs(tool, after, findings))
    except ToolFailure as fault:
        fault.exit_code, fault.cpu_s = ended.exit_code, ended.cpu_s
        fault.peak_rss_bytes = ended.peak_rss_bytes
        raise
    return ToolOutcome(outputs, ended.exit_code, ended.cpu_s, ended.peak_rss_bytes)


def _collected(collect: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The outputs; what can't even be looked at is the payload's doing, unless it is the node's."""
    try:
        return collect()
    except (OSError, UnicodeError, RecursionError, MemoryError) as error:
        code = code_of(error, Phase.STAGE_OUT)
        raise ToolFailure(code, f"the outputs can't be collected: {told(error)}") from error


def _runtime(tool: Tool, run: ToolRun, outdir: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The `runtime` of expressions: cores are whole numbers, sizes are MiB."""
    reserved = evaluate_resources(tool, Scope(inputs))
    return {
        "outdir": outdir,
        "tmpdir": str(run.tmpdir),
        "cores": math.ceil(run.cores),
        "ram": run.ram_mib,
        "outdirSize": reserved.outdir_mib,
        "tmpdirSize": reserved.tmpdir_mib,
    }


def _given(expression: Expression, scope: Scope) -> Mapping[str, Any]:
    """The object that an ExpressionTool makes."""
    given = expression.within(scope)
    if not isinstance(given, Mapping):
        raise expression.fault(f"an ExpressionTool gives an object, not {given!r}")
    return given


def _command(tool: Tool, run: ToolRun, scope: Scope, outdir: str) -> Command:
    streams = tool.streams
    return Command(
        argv=command_line(tool, scope),
        environment=_environment(tool, run, scope),
        cwd=outdir,
        log=str(run.log),
        stdin=None if streams.stdin is None else _stdin(streams.stdin, scope, outdir),
        stdout=None if streams.stdout is None else _redirect(streams.stdout, scope, outdir),
        stderr=None if streams.stderr is None else _redirect(streams.stderr, scope, outdir),
        time_limit_s=_time_limit(tool, run, scope),
        keep=run.keep,
    )


def _confines(
    tool: Tool,
    image: Image,
    run: ToolRun,
    scope: Scope,
    outdir: str,
    stager: Stager,
    mounts: Sequence[Mount],
) -> Confines:
    """What a payload sees of the node: its own directories, and its inputs as they are there."""
    inside, tmpdir = str(scope.runtime["outdir"]), str(scope.runtime["tmpdir"])
    own = [
        Mount(outdir, outdir, writable=True),
        Mount(tmpdir, tmpdir, writable=True),
        Mount(stager.root, stager.root),
    ]
    if inside != outdir:
        own.append(Mount(outdir, inside, writable=True))
    targets = {mount.target for mount in mounts}
    sources = [one for one in stager.sources.values() if one not in targets]
    folders = (outdir, tmpdir, stager.root)
    return Confines(
        image=image,
        workdir=inside,
        mounts=[*own, *input_mounts(sources, folders, writable=tool.inplace), *mounts],
        cores=run.cores,
        memory_mib=run.ram_mib,
        network=_network(tool, scope),
        devices=run.devices,
    )


def _network(tool: Tool, scope: Scope) -> bool:
    if tool.network is None:
        return False
    value = tool.network.within(scope)
    if not isinstance(value, bool):
        raise tool.network.fault(f"networkAccess is true or false, not {value!r}")
    return value


def _environment(tool: Tool, run: ToolRun, scope: Scope) -> dict[str, str]:
    """What CWL says, and nothing else of this process's environment but the PATH.

    A container has a PATH of its own, and counts the devices that it has from 0.
    """
    environment = {"HOME": str(scope.runtime["outdir"]), "TMPDIR": str(scope.runtime["tmpdir"])}
    devices: Sequence[int] = run.devices
    if tool.container is None:
        environment["PATH"] = os.environ.get("PATH") or _PATH
    else:
        devices = range(len(devices))
    if devices:
        # CUDA's own order is by speed; the numbers are NVML's.
        environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(str(n) for n in devices)
    environment.update(run.environment)
    for name, expression in tool.environment:
        value = expression.within(scope)
        if not isinstance(value, str):
            raise expression.fault(
                f"an environment variable is a string, not {value!r}; for its text put the "
                "expression into a text, or end it with .toString()"
            )
        environment[name] = value
    return environment


def _stdin(expression: Expression, scope: Scope, outdir: str) -> str | None:
    """The path of what the payload reads; null is none, as where the field isn't there."""
    path = expression.within(scope)
    if path is None:
        return None
    if not isinstance(path, str):
        raise expression.fault(f"stdin is a path, not {path!r}")
    full = os.path.join(outdir, path)  # noqa: PTH118 - strings throughout
    if not os.path.isfile(full):  # noqa: PTH113
        raise bad_input(f"stdin: there is no file {path!r}")
    return full


def _redirect(expression: Expression, scope: Scope, outdir: str) -> str:
    """Where a stream goes: to a file of the payload's own, never to what was staged."""
    name = expression.within(scope)
    if not isinstance(name, str) or not name:
        raise expression.fault(f"a stream's name is a string, not {name!r}")
    if max(len(os.fsencode(part)) for part in name.split("/")) > MAX_COMPONENT:
        raise bad_output(
            f"{expression.place} gives a name that is too long for a file (it may have "
            f"{MAX_COMPONENT} bytes): {name!r}; have the tool make a shorter one"
        )
    if leads_out(name):
        raise bad_input(f"stream name {name!r} leads out of the output directory")
    path = os.path.normpath(f"{outdir}/{name}")
    folder = os.path.realpath(os.path.dirname(path))  # noqa: PTH120
    if os.path.lexists(path) or not f"{folder}/".startswith(f"{outdir}/"):
        raise bad_input(
            f"{expression.place} {name!r} would be written over what the initial work directory "
            f"has there ({os.path.realpath(path)!r}); give one of the two another name"
        )
    return path


def _time_limit(tool: Tool, run: ToolRun, scope: Scope) -> float | None:
    """The smaller of the tool's limit, of which 0 is none, and ours."""
    limits = [] if run.time_limit_s is None else [run.time_limit_s]
    if tool.time_limit is not None:
        value = tool.time_limit.within(scope)
        if not is_double(value) or value < 0:
            raise tool.time_limit.fault(f"a time limit is seconds, 0 or more, not {value!r}")
        if value > 0:
            limits.append(float(value))
    return min(limits, default=None)


def _check_exit(tool: Tool, ended: Ended, log: str) -> None:
    code = ended.exit_code
    if code in tool.success_codes:
        return
    if ended.out_of_memory and code != 0:
        raise ToolFailure(
            ErrorCode.MEMORY_LIMIT,
            "the payload used more memory than its stage reserves and was killed; raise `ramMin` "
            "in its ResourceRequirement",
        )
    if code in tool.temporary_codes:
        raise _ended_badly(
            ErrorCode.PAYLOAD_TEMPORARY, f"exit code {code}, which is temporary", log
        )
    if code in tool.permanent_codes:
        raise _ended_badly(
            ErrorCode.PAYLOAD_PERMANENT, f"exit code {code}, which is permanent", log
        )
    if code < 0:
        raise _ended_badly(ErrorCode.PAYLOAD_KILLED, f"signal {-code}", log)
    if code > 0:
        raise _ended_badly(ErrorCode.PAYLOAD_FAILED, f"exit code {code}", log)


def _ended_badly(code: ErrorCode, how: str, log: str) -> ToolFailure:
    return ToolFailure(code, f"the payload ended with {how}{_of_log(log)}")


def _of_log(log: str) -> str:
    """What is to be said of a payload's log, which it may have replaced."""
    if not os.path.lexists(log):
        return ""
    if not is_straight(log) or not os.path.isfile(log):  # noqa: PTH113
        return "; its log is no file any more, so nothing of it is kept"
    return "; its log tells more" if os.path.getsize(log) > 0 else ""  # noqa: PTH202
