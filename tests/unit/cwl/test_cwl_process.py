"""The payload's process: environment, streams, limits, exit codes, and its death."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from catalog.errors import ErrorCode
from workers.cwl import ToolFailure, ToolStopped

FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open("pids.tmp", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.rename("pids.tmp", "pids")
"""


def family(then: str) -> dict[str, Any]:
    """A payload with a child, which then does something."""
    return {"baseCommand": ["python3", "-c", FAMILY + then]}


def pids(bench: Any) -> list[int]:
    return [int(word) for word in (bench.out / "pids").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def test_a_time_limit_kills_the_whole_group(bench: Any) -> None:
    with pytest.raises(ToolFailure, match="limit of 1 s") as caught:
        bench.run(**family("time.sleep(600)"), requirements={"ToolTimeLimit": {"timelimit": 1}})
    assert caught.value.code is ErrorCode.TIME_LIMIT
    assert caught.value.exit_code == -signal.SIGKILL
    assert not any(map(is_alive, pids(bench)))


def test_the_smaller_of_two_limits_counts_and_zero_is_none(bench: Any) -> None:
    limit = {"ToolTimeLimit": {"timelimit": "$(inputs.limit)"}}
    fields = {"inputs": {"limit": "int"}, "requirements": limit}
    with pytest.raises(ToolFailure) as caught:
        bench.run(
            {"limit": 600}, **fields, baseCommand=["sleep", "60"], options={"time_limit_s": 0.2}
        )
    assert caught.value.code is ErrorCode.TIME_LIMIT
    bench.run({"limit": 0}, **fields, baseCommand=["sleep", "0.3"])
    with pytest.raises(ToolFailure, match="0 or more"):
        bench.run({"limit": -1}, **fields, baseCommand="true")


def test_a_stop_kills_the_whole_group(bench: Any) -> None:
    stop = threading.Event()

    def stop_when_ready() -> None:
        while not (bench.root / "run-1" / "out" / "pids").exists():
            time.sleep(0.01)
        stop.set()

    threading.Thread(target=stop_when_ready).start()
    with pytest.raises(ToolStopped):
        bench.run(**family("time.sleep(600)"), stop=stop)
    assert not any(map(is_alive, pids(bench)))


def test_nothing_is_started_after_a_stop(bench: Any) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(ToolStopped):
        bench.run(baseCommand=["touch", "x"], stop=stop)
    assert list(bench.out.iterdir()) == []


def test_what_a_payload_leaves_running_is_dead_before_outputs_are_collected(bench: Any) -> None:
    bench.run(**family(""))
    assert not any(map(is_alive, pids(bench)))


def test_the_payload_leads_its_own_group(bench: Any) -> None:
    bench.run(baseCommand=["python3", "-c", "import os; print(os.getpid(), os.getpgrp())"])
    pid, group = map(int, bench.log.split())
    assert group == pid


def test_an_interruption_leaves_no_payload_behind(bench: Any) -> None:
    class Interrupted(threading.Event):
        def is_set(self) -> bool:
            if (bench.root / "run-1" / "out" / "pids").exists():
                raise KeyboardInterrupt
            return False

    with pytest.raises(KeyboardInterrupt):
        bench.run(**family("time.sleep(600)"), stop=Interrupted())
    assert not any(map(is_alive, pids(bench)))


def test_the_environment_holds_what_cwl_says_and_nothing_else(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPDF_CATALOG_URL", "postgresql://user:secret@host/db")
    monkeypatch.setenv("PREFECT_API_KEY", "secret")
    bench.run(
        {"x": 3},
        inputs={"x": "int"},
        baseCommand="env",
        requirements={"EnvVarRequirement": {"envDef": {"A": "x=$(inputs.x)", "DEVICES": "all"}}},
        options={"environment": {"DEVICES": "1"}, "devices": (1,)},
    )
    got = dict(line.split("=", 1) for line in bench.log.splitlines())
    assert got == {
        "HOME": str(bench.out),
        "TMPDIR": str(bench.last / "tmp"),
        "PATH": os.environ["PATH"],
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "1",
        "DEVICES": "all",
        "A": "x=3",
    }


def test_the_payload_inherits_no_open_files(bench: Any, tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as held:
        assert held.fileno() > 2
        bench.run(baseCommand=["ls", "-l", "/proc/self/fd"])
    assert "secret" not in bench.log


def test_streams_are_redirected(bench: Any) -> None:
    outcome = bench.run(
        {"f": bench.file("in.txt", "hello")},
        inputs={"f": "File"},
        baseCommand=["sh", "-c", "cat; echo oops >&2"],
        stdin="$(inputs.f.path)",
        stdout="$(inputs.f.nameroot).out",
        stderr="errors",
        outputs={"o": "stdout", "e": "stderr"},
    )
    assert outcome.outputs["o"]["basename"] == "in.out"
    assert Path(outcome.outputs["o"]["path"]).read_text() == "hello"
    assert Path(outcome.outputs["e"]["path"]).read_text() == "oops\n"
    assert bench.log == ""


def test_stream_types_are_short_for_files_of_some_name(bench: Any) -> None:
    outcome = bench.run(
        {"f": bench.file("in.txt", "hello")},
        inputs={"f": "stdin"},
        outputs={"o": "stdout"},
        baseCommand="cat",
    )
    assert Path(outcome.outputs["o"]["path"]).read_text() == "hello"


def test_a_stdin_that_is_null_is_empty(bench: Any) -> None:
    fields = {"inputs": {"f": "File?"}, "stdin": "$(inputs.f === null ? null : inputs.f.path)"}
    script = {"baseCommand": ["sh", "-c", "cat; echo end"]}
    bench.run({}, requirements=[{"class": "InlineJavascriptRequirement"}], **fields, **script)
    assert bench.log == "end\n"


def test_without_redirection_all_goes_to_the_log_and_stdin_is_empty(bench: Any) -> None:
    bench.run(baseCommand=["sh", "-c", "cat; echo out; echo err >&2"])
    assert bench.log == "out\nerr\n"


def test_stdout_and_stderr_of_one_name_share_a_file(bench: Any) -> None:
    command = ["sh", "-c", "echo out; echo err >&2; echo out"]
    bench.run(baseCommand=command, stdout="both", stderr="both")
    assert (bench.out / "both").read_text() == "out\nerr\nout\n"


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/../../x"])
def test_a_stream_can_not_leave_the_output_directory(bench: Any, name: str) -> None:
    with pytest.raises(ToolFailure, match="leads out"):
        bench.run(baseCommand="true", stdout=name)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("writable", [False, True])
def test_a_stream_does_not_write_over_an_input_of_that_name(
    bench: Any, stream: str, writable: bool
) -> None:
    file = bench.file("data", "precious")
    entry = {"entry": "$(inputs.f)", "writable": writable}
    with pytest.raises(ToolFailure, match=f"{stream} 'data' would be written over"):
        bench.run(
            {"f": file},
            inputs={"f": "File"},
            baseCommand=["echo", "new"],
            requirements={"InitialWorkDirRequirement": {"listing": [entry]}},
            **{stream: "data"},
        )
    assert Path(file["path"]).read_text() == "precious"


def test_a_stream_does_not_go_into_an_input_directory(bench: Any) -> None:
    bench.file("d/x", "precious")
    folder = {"class": "Directory", "path": str(bench.root / "data" / "d")}
    with pytest.raises(ToolFailure, match="would be written over"):
        bench.run(
            {"d": folder},
            inputs={"d": "Directory"},
            baseCommand=["echo", "new"],
            stdout="d/new",
            requirements={"InitialWorkDirRequirement": {"listing": ["$(inputs.d)"]}},
        )
    assert [one.name for one in (bench.root / "data" / "d").iterdir()] == ["x"]


CODES = {"successCodes": [0, 3], "temporaryFailCodes": [4], "permanentFailCodes": [5]}


@pytest.mark.parametrize("exit_code", [0, 3])
def test_success_codes(bench: Any, exit_code: int) -> None:
    command = ["sh", "-c", f"exit {exit_code}"]
    assert bench.run(baseCommand=command, **CODES).exit_code == exit_code


@pytest.mark.parametrize(
    ("command", "code", "exit_code"),
    [
        ("exit 4", ErrorCode.PAYLOAD_TEMPORARY, 4),
        ("exit 5", ErrorCode.PAYLOAD_PERMANENT, 5),
        ("exit 6", ErrorCode.PAYLOAD_FAILED, 6),
        ("kill -9 $$", ErrorCode.PAYLOAD_KILLED, -9),
    ],
)
def test_failing_exits_have_their_codes(
    bench: Any, command: str, code: ErrorCode, exit_code: int
) -> None:
    with pytest.raises(ToolFailure) as caught:
        bench.run(baseCommand=["sh", "-c", command], **CODES)
    assert (caught.value.code, caught.value.exit_code) == (code, exit_code)


def test_zero_may_be_a_failure(bench: Any) -> None:
    with pytest.raises(ToolFailure) as caught:
        bench.run(baseCommand="true", permanentFailCodes=[0])
    assert caught.value.code is ErrorCode.PAYLOAD_PERMANENT


@pytest.mark.parametrize("program", ["no-such-program", "/no/such/program", "./none"])
def test_a_program_that_is_not_there(bench: Any, program: str) -> None:
    with pytest.raises(ToolFailure, match="program") as caught:
        bench.run(baseCommand=program)
    assert caught.value.code is ErrorCode.PROGRAM_NOT_FOUND


def test_usage_is_the_payloads(bench: Any) -> None:
    # It stays long enough to be looked at: this process may itself have grown larger.
    grow = (
        "import time\nx = bytearray(400 * 2**20)\nfor i in range(0, len(x), 4096): x[i] = 1\n"
        "time.sleep(1)"
    )
    outcome = bench.run(baseCommand=["python3", "-c", grow])
    assert outcome.cpu_s > 0
    assert outcome.peak_rss_bytes > 400 * 2**20


def test_a_failure_after_the_payload_still_tells_its_usage(bench: Any) -> None:
    with pytest.raises(ToolFailure) as caught:
        bench.run(
            baseCommand=["python3", "-c", "sum(range(10**6))"],
            outputs={"o": {"type": "File", "outputBinding": {"glob": "none"}}},
        )
    assert caught.value.code is ErrorCode.OUTPUT_MISSING
    assert caught.value.cpu_s > 0
    assert caught.value.exit_code == 0
