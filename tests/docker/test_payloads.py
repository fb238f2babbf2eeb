"""Payloads with a DockerRequirement, in containers of a real Docker daemon and of podman."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from catalog.errors import ErrorCode
from tests.servers.busybox import import_busybox
from tests.servers.dockerd import Dockerd
from tests.servers.podman import Podman
from workers.cwl import ToolFailure, ToolStopped, load_tool, run_tool
from workers.cwl.containers import Containers
from workers.cwl.failures import NotEnded
from workers.cwl.images import Image
from workers.orphans import clean_dead
from workers.reapers import Reapers
from workers.spec import ToolOutcome, ToolRun

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]

ROOT = Path(__file__).parents[2]
USER = 1234
UNIFIED = Path("/sys/fs/cgroup/cgroup.controllers")


@dataclass
class Box:
    """Runs shell scripts in containers, each in directories of its own below `root`."""

    root: Path
    image: str
    engine: Dockerd | Podman
    containers: Containers
    runs: int = 0
    last: Path = field(default_factory=Path)
    reapers: Reapers = field(default_factory=Reapers)

    def run(
        self,
        script: str,
        job: dict[str, Any] | None = None,
        /,
        *,
        requirements: dict[str, Any] | None = None,
        stop: threading.Event | None = None,
        options: dict[str, Any] | None = None,
        image: dict[str, Any] | None = None,
        **fields: Any,
    ) -> ToolOutcome:
        """Run a tool that is a shell script, as a file on the node's disk."""
        docker = {"dockerPull": self.image, **(image or {})}
        tool = {
            "class": "CommandLineTool", "cwlVersion": "v1.2", "id": "t", "inputs": {},
            "outputs": {}, "baseCommand": ["sh", "-c", script], **fields,
            "requirements": {"DockerRequirement": docker, **(requirements or {})},
        }  # fmt: skip
        self.runs += 1
        self.last = self.root / f"run-{self.runs}"
        for name in ("out", "tmp", "stage"):
            (self.last / name).mkdir(parents=True)
        run = ToolRun(
            inputs=job or {},
            outdir=self.last / "out",
            tmpdir=self.last / "tmp",
            stagedir=self.last / "stage",
            log=self.last / "log",
            **(options or {}),
        )
        return run_tool(
            load_tool(tool), run, reapers=self.reapers, stop=stop, containers=self.containers
        )

    @property
    def log(self) -> str:
        return (self.last / "log").read_text()

    def left(self) -> list[str]:
        """All containers that the engine still knows."""
        return self.engine.run("ps", "--all", "--quiet").split()


@pytest.fixture(scope="module", params=["docker", "podman"])
def name(request: pytest.FixtureRequest) -> str:
    """The engines that every test runs on, one after the other."""
    return str(request.param)


@pytest.fixture(scope="module")
def engine(name: str, request: pytest.FixtureRequest) -> Dockerd | Podman:
    found: Dockerd | Podman = request.getfixturevalue("dockerd" if name == "docker" else name)
    return found


@pytest.fixture(scope="module")
def image(engine: Dockerd | Podman) -> str:
    return import_busybox(engine)


@pytest.fixture
def box(
    name: str,
    engine: Dockerd | Podman,
    image: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Box]:
    for key, value in engine.environment.items():
        if key.startswith(("DOCKER_", "CONTAINERS_")):
            monkeypatch.setenv(key, value)
    made = Box(tmp_path, image, engine, Containers(name))
    yield made
    made.reapers.close()
    assert made.left() == []


def file(path: Path, text: str) -> dict[str, Any]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return {"class": "File", "path": str(path)}


def test_a_payload_reads_its_inputs_and_its_outputs_are_collected(box: Box, tmp_path: Path) -> None:
    odd = file(tmp_path / "far, away" / 'a "b"', "hits\n")
    outcome = box.run(
        'cat "$1"; echo seen >&2; exit 125',
        {"x": odd},
        inputs={"x": {"type": "File", "inputBinding": {"position": 1}}},
        arguments=["sh"],
        outputs={"y": {"type": "stdout"}},
        stdout="y.txt",
        successCodes=[125],
    )
    assert Path(outcome.outputs["y"]["path"]).read_text() == "hits\n"
    assert box.log == "seen\n"
    assert outcome.exit_code == 125, "the payload's own, though the engine has one like it"


def test_the_image_is_another_world_with_only_what_cwl_says(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPDF_CATALOG_URL", "secret")
    box.run("env | sort; ls /; ls /sys/class/net; pwd", options={"devices": ()})
    assert "secret" not in box.log
    assert "PATH=/usr/local/sbin" in box.log
    words = box.log.split()
    assert f"HOME={box.last}/out" in words
    assert f"TMPDIR={box.last}/tmp" in words
    assert words[-1] == f"{box.last}/out"
    assert "lib" not in words, "not the node's own /"
    assert "lo" in words
    assert not [word for word in words if word.startswith("eth")]


@pytest.mark.parametrize("many", [1, 70])
def test_inputs_can_be_read_but_not_written(box: Box, tmp_path: Path, many: int) -> None:
    files = [file(tmp_path / "storage" / f"f{n}", f"{n}\n") for n in range(many)]
    box.run(
        'cat "$@" | wc -l; for f in "$@"; do echo > "$f" && exit 1; rm -f "$f" && exit 1; done;'
        " exit 0",
        {"x": files},
        inputs={"x": {"type": "File[]", "inputBinding": {"position": 1}}},
        arguments=["sh"],
        stdout="count",
    )
    assert (box.last / "out" / "count").read_text().split() == [str(many)]
    assert [Path(one["path"]).read_text() for one in files] == [f"{n}\n" for n in range(many)]


def test_a_linked_input_is_there(box: Box, tmp_path: Path) -> None:
    real = file(tmp_path / "storage" / "real", "yes\n")
    link = tmp_path / "in" / "name"
    link.parent.mkdir()
    link.symlink_to(real["path"])
    box.run(
        'cat "$1" copy/in',
        {"x": {"class": "File", "path": str(link)}},
        inputs={"x": {"type": "File", "inputBinding": {"position": 1}}},
        arguments=["sh"],
        requirements={
            "InitialWorkDirRequirement": {
                "listing": [{"entryname": "copy/in", "entry": "$(inputs.x)"}]
            }
        },
    )
    assert box.log == "yes\nyes\n"


def test_the_output_directory_may_be_elsewhere(box: Box) -> None:
    outcome = box.run(
        'pwd; echo 1 > /there/one; echo \'{"y": {"class": "File", "path": "/there/one"}}\''
        " > cwl.output.json",
        image={"dockerOutputDirectory": "/there"},
        outputs={"y": "File"},
    )
    assert box.log == "/there\n"
    assert outcome.outputs["y"]["path"] == str(box.last / "out" / "one")
    outcome = box.run(
        "touch $HOME/two",
        image={"dockerOutputDirectory": "/there"},
        outputs={"y": {"type": "File", "outputBinding": {"glob": "$(runtime.outdir)/two"}}},
    )
    assert outcome.outputs["y"]["path"] == str(box.last / "out" / "two")


def test_a_payload_that_takes_too_much_memory_is_told_so(box: Box, name: str) -> None:
    if name == "podman" and not UNIFIED.exists():
        pytest.skip("podman tells it only with control groups of version 2")
    with pytest.raises(ToolFailure) as caught:
        box.run("tail /dev/zero", options={"ram_mib": 32})
    assert caught.value.code is ErrorCode.MEMORY_LIMIT
    assert "ramMin" in caught.value.message


def test_cores_are_a_limit(box: Box) -> None:
    groups = "/sys/fs/cgroup/cpu.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us"
    box.run(f"cat {groups}", options={"cores": 0.5}, successCodes=[1])
    assert "50000" in box.log


def test_what_a_payload_used_is_told(box: Box) -> None:
    script = "x=$(head -c 30000000 /dev/zero | tr '\\0' a); i=0; "
    script += "while [ $i -lt 1000000 ]; do i=$((i+1)); done; sleep 1; echo ${#x}"
    outcome = box.run(script)
    assert outcome.cpu_s > 0
    assert outcome.peak_rss_bytes > 30_000_000


def test_a_stop_leaves_no_container(box: Box) -> None:
    stop, fault = threading.Event(), []

    def payload() -> None:
        try:
            box.run("echo begun > begun; sleep 600", stop=stop)
        except ToolStopped as error:
            fault.append(error)

    thread = threading.Thread(target=payload)
    thread.start()
    while not (box.last / "out" / "begun").exists():
        assert thread.is_alive()
    stop.set()
    thread.join()
    assert len(fault) == 1
    assert box.left() == []


def processes(words: str) -> list[int]:
    """Processes of this machine, in any container, that were started with these words."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if words in line:
            found.append(int(path.parent.name))
    return found


def test_what_a_payload_leaves_in_its_container_ends_with_it(box: Box) -> None:
    daemon = "setsid sh -c 'while true; do echo later >> out; sleep 0.1; done # left behind' &"
    box.run(f"{daemon} sleep 1; echo done")
    assert box.left() == []
    assert not processes("# left behind")
    before = (box.last / "out" / "out").read_bytes()
    time.sleep(0.3)
    assert (box.last / "out" / "out").read_bytes() == before


def test_a_container_that_can_not_be_removed_fails_its_job(
    box: Box, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.which(name)
    engine = tmp_path / name
    engine.write_text(
        f'#!/bin/sh\n[ "$1" = rm ] && {{ echo busy >&2; exit 1; }}\nexec {real} "$@"\n'
    )
    engine.chmod(0o755)
    monkeypatch.setattr(box, "containers", Containers(str(engine)))
    with pytest.raises(NotEnded, match="may still run") as caught:
        box.run("true")
    assert caught.value.code is ErrorCode.CONTAINER_FAILED
    for one in box.left():
        Containers(name)._remove(one)


def test_a_time_limit_ends_the_container(box: Box) -> None:
    with pytest.raises(ToolFailure) as caught:
        box.run("sleep 600", options={"time_limit_s": 1.0})
    assert caught.value.code is ErrorCode.TIME_LIMIT


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"baseCommand": ["nosuch"]}, ErrorCode.PROGRAM_NOT_FOUND, "nosuch"),
        ({"baseCommand": ["/tmp"]}, ErrorCode.PROGRAM_NOT_FOUND, "/tmp"),
        ({"image": {"dockerPull": "spdf-nosuch:1"}}, ErrorCode.CONTAINER_IMAGE_MISSING, "nosuch"),
        ({"image": {"dockerOutputDirectory": "/proc/x"}}, ErrorCode.CONTAINER_FAILED, "proc"),
    ],
)
def test_what_the_engine_can_not_do_has_codes_of_its_own(
    box: Box, fields: dict[str, Any], code: ErrorCode, words: str
) -> None:
    with pytest.raises(ToolFailure, match=words) as caught:
        box.run("true", **fields)
    assert caught.value.code is code


def test_an_image_that_can_not_be_had_says_how_to_get_it(box: Box) -> None:
    box.containers.ensure(Image(box.image))
    with pytest.raises(ToolFailure, match=r"`(docker|podman) pull`") as caught:
        box.containers.ensure(Image("spdf-nosuch:1"))
    assert caught.value.code is ErrorCode.CONTAINER_IMAGE_MISSING


def test_an_image_is_loaded_from_an_archive(box: Box, tmp_path: Path) -> None:
    archive, name = tmp_path / "image.tar", "spdf-test-loaded:1"
    box.engine.run("tag", box.image, name)
    box.engine.run("save", "--output", str(archive), name)
    box.engine.run("rmi", name)
    box.containers.ensure(Image(name, load=str(archive)))
    box.run("echo loaded", image={"dockerImageId": name, "dockerLoad": str(archive)})
    assert box.log == "loaded\n"


def test_a_daemon_that_is_away_is_no_fault_of_the_image(
    dockerd: Dockerd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing")
    with pytest.raises(ToolFailure) as caught:
        Containers("docker").ensure(Image("any"))
    assert caught.value.code is ErrorCode.CONTAINER_FAILED


PILOT = """
import sys
from pathlib import Path
from workers.cwl import load_tool, run_tool
from workers.cwl.containers import Containers
from workers.orphans import PayloadLedger
from workers.reapers import Reapers
from workers.spec import ToolRun
root, image, engine = Path(sys.argv[1]), *sys.argv[2:]
ledger = PayloadLedger(root, 7)
ledger.uses(engine)
for name in ("out", "tmp", "stage"):
    (ledger.directory / name).mkdir()
tool = load_tool({
    "class": "CommandLineTool", "cwlVersion": "v1.2", "id": "t", "inputs": {}, "outputs": {},
    "baseCommand": ["sh", "-c", "touch begun; sleep 600"],
    "requirements": {"DockerRequirement": {"dockerPull": image}},
})
here = ledger.directory
run = ToolRun({}, here / "out", here / "tmp", here / "stage", here / "log", keep=(ledger.held,))
run_tool(tool, run, reapers=Reapers(ledger.started), containers=Containers(engine, str(here)))
"""


def test_the_container_of_a_dead_pilot_is_removed(box: Box, name: str, tmp_path: Path) -> None:
    words = [sys.executable, "-c", PILOT, tmp_path, box.image, name]
    pilot = subprocess.Popen(words, cwd=ROOT)
    try:
        while not (tmp_path / "pilot-7" / "out" / "begun").exists():
            assert pilot.poll() is None
        assert clean_dead(tmp_path) == 0, "it lives"
    finally:
        pilot.kill()
        pilot.wait()
    assert len(box.left()) == 1
    assert clean_dead(tmp_path) == 1
    assert box.left() == []
    assert not (tmp_path / "pilot-7").exists()


@pytest.fixture
def open_place(dockerd: Dockerd) -> Iterator[Path]:
    """A directory of another user's, who may talk to the daemon meanwhile."""
    place = Path(tempfile.mkdtemp(prefix="spdf-user-"))
    os.chown(place, USER, USER)
    before = dockerd.directory.stat().st_mode
    dockerd.directory.chmod(0o711)
    (dockerd.directory / "socket").chmod(0o666)
    yield place
    (dockerd.directory / "socket").chmod(0o660)
    dockerd.directory.chmod(before)
    shutil.rmtree(place)


def test_a_payload_is_the_calling_user(dockerd: Dockerd, busybox: str, open_place: Path) -> None:
    docker = {"class": "DockerRequirement", "dockerPull": busybox}
    tool = {
        "class": "CommandLineTool", "cwlVersion": "v1.2", "inputs": {},
        "baseCommand": ["sh", "-c", "id -u; id -g; touch made"], "stdout": "id",
        "outputs": {"y": {"type": "File", "outputBinding": {"glob": "made"}},
                    "id": {"type": "File", "outputBinding": {"glob": "id"}}},
        "requirements": [docker],
    }  # fmt: skip
    document = open_place / "tool.cwl"
    document.write_text(json.dumps(tool))
    out = open_place / "out"
    become = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    done = subprocess.run(
        [*become, sys.executable, "-m", "workers.cwl", f"--outdir={out}", str(document)],
        cwd=ROOT,
        env={**dockerd.environment, "SPDF_CONTAINER_ENGINE": "docker", "HOME": str(open_place),
             "SPDF_HOME": str(open_place / "home"), "TMPDIR": str(open_place)},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (out / "id").read_text().split() == [str(USER), str(USER)]
    assert (out / "made").stat().st_uid == USER
