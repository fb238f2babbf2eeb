"""Payloads that behave badly: what they leave, remove, replace or print harms nobody else."""

import time
from contextlib import suppress
from pathlib import Path

import psutil

from catalog import jobs
from catalog.states import JobState, WorkflowState
from tests.integration.test_chain import Site
from tests.integration.test_chain import site as site

TOOL = """
cwlVersion: v1.2
class: Workflow
$namespaces: {spdf: "https://spdf.readthedocs.io/ns#"}
requirements: {ScatterFeatureRequirement: {}}
hints: {"spdf:Stage": {retry: 0}}
inputs: {files: "File[]", precious: string}
outputs: {all: {type: "File[]", outputSource: run/made}}
steps:
  run:
    scatter: script
    in: {script: files, precious: precious}
    out: [made]
    run:
      class: CommandLineTool
      baseCommand: [bash]
      inputs:
        script: {type: File, inputBinding: {position: 1}}
        precious: {type: string, inputBinding: {position: 2}}
      outputs: {made: {type: File, outputBinding: {glob: out}}}
"""

DAEMON = """
python3 - <<'P'
import os, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 4096)
        os.execvp("sleep", ["sleep", "7772"])
    os._exit(0)
P
echo done > out
"""

GOOD = {
    "01-large-stdout": "head -c 20000000 /dev/zero | tr '\\0' 'x'; echo done > out",
    "02-binary-stdout": r"printf '\377\376\000\033[31mred \200\n'; printf 'caf\351\n' >&2;"
    " head -c 20000 /dev/urandom; echo done > out",
    "04-daemon-setsid": "setsid sleep 7771 & sleep 0.2; echo done > out",
    "05-daemon-closed": DAEMON,
    "06-writes-on-later": "setsid bash -c 'for i in $(seq 300); do echo later $i >> out;"
    " sleep 0.05; done' & sleep 0.3; echo done >> out",
    "08-tmpdir-link": 'rmdir "$TMPDIR"; ln -s "$1" "$TMPDIR"; ln -s "$1" ./link; echo done > out',
    "11-removes-input": 'rm -f "$0"; echo done > out',
    "12-closed-streams": "echo done > out; exec 1>&- 2>&-; sleep 0.2",
    "13-stopped": "setsid bash -c 'kill -STOP $$; sleep 7773' & sleep 0.2; echo done > out",
    "14-plain": 'sleep 1; test -z "$(ls -A .)" && echo done > out',
    "15-deep": 'python3 -c \'import os\nfor _ in range(1500): os.mkdir("d"); os.chdir("d")\';'
    " echo done > out",
    "16-socket": "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"s\")';"
    " mkfifo p; echo done > out",
}
BAD = {
    "03-binary-stdout-fails": (
        r"head -c 20000 /dev/urandom; printf '\nlast words caf\351 \000 \033[2J end\n' >&2; exit 3",
        "PAYLOAD_FAILED",
    ),
    "07-removes-its-outdir": ('d=$PWD; cd /; rm -rf "$d"; true', "OUTPUT_MISSING"),
    "09-outdir-link": (
        'd=$PWD; cd /; rm -rf "$d"; ln -s "$1" "$d"; echo done > "$d/../beside"; true',
        "OUTPUT_INVALID",
    ),
    "10-overwrites-input": ('chmod u+w "$0"; echo more >> "$0"; echo done > out', "INPUT_MODIFIED"),
}


def left() -> list[str]:
    """What payloads of these tests have left running on this machine."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            line = " ".join(process.cmdline())
            dead = process.status() == psutil.STATUS_ZOMBIE
            if not dead and any(word in line for word in ("sleep 777", "echo later")):
                found.append(line)
    return found


def test_rude_payloads_leave_nothing_running_and_their_neighbours_unharmed(
    site: Site, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    (precious / "sub").mkdir(parents=True)
    (precious / "sub" / "f").write_text("keep")
    path = tmp_path / "rude.cwl"
    path.write_text(TOOL)
    scripts = GOOD | {name: script for name, (script, _) in BAD.items()}
    site.dataset("run-1", {name: script.encode() for name, script in scripts.items()})
    chain = site.submit(site.template(path, "run-[0-9]"), "run-1", precious=str(precious))
    state = site.run(chain, rounds=60)
    assert not left()
    assert (precious / "sub" / "f").read_text() == "keep"
    with site.catalog.read() as session:
        rows = {row.key.rpartition("/")[2]: row for row in jobs.list_jobs(
            session, workflow_id=chain.workflow_id, limit=100)}  # fmt: skip
    ends = {name: (row.state, row.error) for name, row in rows.items()}
    assert {name: ends[name] for name in GOOD} == dict.fromkeys(GOOD, (JobState.FINISHED, None))
    assert {name: ends[name][1] for name in BAD} == {name: code for name, (_, code) in BAD.items()}
    assert state is WorkflowState.FAILED


def test_what_is_stored_stays_what_was_registered(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "rude.cwl"
    path.write_text(TOOL)
    names = ("04-daemon-setsid", "05-daemon-closed", "06-writes-on-later")
    site.dataset("run-1", {name: GOOD[name].encode() for name in names})
    chain = site.submit(site.template(path, "run-[0-9]"), "run-1", precious=str(tmp_path))
    assert site.run(chain) is WorkflowState.FINISHED
    before = site.contents("run-1.rude.v1.run.made")
    assert len(before) == 3
    time.sleep(0.3)
    assert site.contents("run-1.rude.v1.run.made") == before
    assert before["run-1/06-writes-on-later/out"].endswith(b"done\n")
