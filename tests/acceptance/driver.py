"""A site as its users and operators have it: driven by `spdf`, looked at from outside."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import psycopg

from tests.acceptance.machine import Process, processes, until
from tests.servers.island import Bridges

BIN = Path(sys.executable).parent
EXAMPLES = Path(__file__).parents[2] / "examples"
SiteKind = TypeVar("SiteKind", bound="Site")

LEASE_S = 8.0
SLOTS = 4
TIMES = {
    "SPDF_LEASE_S": f"{LEASE_S:g}",
    "SPDF_HEARTBEAT_S": "1",
    "SPDF_WORKFLOW_LEASE_S": f"{LEASE_S:g}",
    "SPDF_WATCHDOG_S": "20",
    "SPDF_DRAIN_S": "5",
    "SPDF_SLOTS": f"{SLOTS}",
}
"""Short times, so that what waits for one of them to run out is seen within a test."""

NAP = """
cwlVersion: v1.2
class: Workflow
requirements: {ScatterFeatureRequirement: {}}
inputs:
  files: "File[]"
  seconds: string
  hold: {type: string, doc: Payloads wait while a file named after their input is in there}
outputs: {out: {type: "File[]", outputSource: nap/out}}
steps:
  nap:
    scatter: file
    in: {file: files, seconds: seconds, hold: hold}
    out: [out]
    run:
      class: CommandLineTool
      inputs:
        file: {type: File, inputBinding: {position: 1}}
        seconds: {type: string, inputBinding: {position: 2}}
        hold: {type: string, inputBinding: {position: 3}}
      baseCommand: [sh, -c]
      arguments:
        - 'while test -e "$2/$(inputs.file.basename)"; do sleep 0.2; done; sleep "$1"; cat "$0"'
      stdout: $(inputs.file.nameroot).out
      outputs: {out: stdout}
"""
"""A payload that waits until it may go on, sleeps, and then copies its input."""

COPY = """
cwlVersion: v1.2
class: Workflow
requirements: {ScatterFeatureRequirement: {}}
inputs: {files: "File[]", seconds: string}
outputs: {out: {type: "File[]", outputSource: nap/out}}
steps:
  nap:
    scatter: file
    in: {file: files, seconds: seconds}
    out: [out]
    run:
      class: CommandLineTool
      inputs:
        file: {type: File, inputBinding: {position: 1}}
        seconds: {type: string, inputBinding: {position: 2}}
      baseCommand: [sh, -c, 'sleep "$1"; cat "$0"']
      stdout: $(inputs.file.nameroot).out
      outputs: {out: stdout}
"""
"""A payload that sleeps and copies its input, for nodes that share no directory."""


def by_basename(value: Any) -> dict[str, bytes]:
    """The bytes of the files in a CWL output object."""
    if isinstance(value, Mapping) and value.get("class") == "File":
        return {value["basename"]: Path(value["path"]).read_bytes()}
    items = value.values() if isinstance(value, Mapping) else value
    found = [by_basename(item) for item in items if isinstance(item, Mapping | list)]
    given = {name: content for files in found for name, content in files.items()}
    assert len(given) == sum(map(len, found)), "two files of one name"
    return given


@dataclass
class Site:
    """One SPDF_HOME, driven as a user drives it and looked at from outside."""

    home: Path
    environment: Mapping[str, str]
    server: dict[str, Any] = field(default_factory=dict)
    """Where the server answers, and its login, as `spdf up` prints them."""

    def run(self, *words: object, limit_s: float = 150.0) -> subprocess.CompletedProcess[str]:
        """The ended `spdf` command."""
        return subprocess.run(
            [BIN / "spdf", *map(str, words)],
            env=self.environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )

    def spdf(self, *words: object, code: int = 0, limit_s: float = 150.0) -> str:
        """Stdout of the `spdf` command, which ends with that exit code."""
        done = self.run(*words, limit_s=limit_s)
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def json(self, *words: object, code: int = 0, limit_s: float = 150.0) -> Any:
        """What `spdf … --json` prints."""
        return json.loads(self.spdf(*words, "--json", code=code, limit_s=limit_s))

    def start(self, *words: object) -> "subprocess.Popen[str]":
        """An `spdf` command that goes on beside the test."""
        return subprocess.Popen(
            [BIN / "spdf", *map(str, words)],
            env=self.environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def write(self, folder: str, files: Mapping[str, bytes]) -> list[Path]:
        """Files in a folder of the input storage."""
        paths = [self.home / "storage" / "input" / folder / name for name in files]
        for path, content in zip(paths, files.values(), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return paths

    def dataset(self, name: str, paths: Sequence[Path]) -> str:
        """A closed dataset of these files."""
        self.spdf("dataset", "create", name)
        self.spdf("dataset", "add", name, *paths)
        self.spdf("dataset", "close", name)
        return name

    def template(self, path: Path, mask: str) -> str:
        """An active template, by its name."""
        self.spdf("template", "create", path, "--mask", mask, "--activate")
        return path.stem

    def nap(self, *held: int, seconds: float = 0.1) -> int:
        """A new workflow of payloads over the 30 files; those with these numbers wait. Its id."""
        folder = self.holds / str(self.one("SELECT 1 + count(*) FROM workflow"))
        folder.mkdir(parents=True)
        for number in held:
            (folder / f"f{number:02d}.dat").touch()
        given = ("--input", f"seconds={seconds:g}", "--input", f"hold={folder}", "--again")
        started = self.json("workflow", "submit", "nap", "nap-files", *given)
        assert started["new"] and str(started["id"]) == folder.name
        return int(started["id"])

    @property
    def holds(self) -> Path:
        """Where files lie that keep payloads waiting, by workflow."""
        return self.home / "holds"

    def release(self, workflow: int) -> None:
        """Let all payloads of a nap go on."""
        for path in (self.holds / str(workflow)).iterdir():
            path.unlink()

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of the catalog, read without any code of ours."""
        place = f"file:{self.home / 'catalog.db'}?mode=ro"
        with closing(sqlite3.connect(place, uri=True, timeout=30)) as connection:
            return connection.execute(query, values).fetchall()

    def one(self, query: str, *values: object) -> Any:
        """The only value of the only row."""
        ((value,),) = self.rows(query, *values)
        return value

    def state(self, workflow: int) -> str:
        """A workflow's state."""
        return str(self.one("SELECT state FROM workflow WHERE id = ?", workflow))

    def jobs(self, workflow: int) -> dict[str, int]:
        """A workflow's jobs counted by state."""
        return dict(
            self.rows(
                "SELECT job.state, count(*) FROM job JOIN task ON task.id = task_id"
                " WHERE workflow_id = ? GROUP BY 1",
                workflow,
            )
        )

    def attempts(self, workflow: int) -> dict[str, int]:
        """A workflow's attempts counted by state."""
        return dict(
            self.rows(
                "SELECT attempt.state, count(*) FROM attempt JOIN job ON job.id = job_id"
                " JOIN task ON task.id = task_id WHERE workflow_id = ? GROUP BY 1",
                workflow,
            )
        )

    def in_progress(self, workflow: int, done: int = 4) -> None:
        """Wait until that many jobs of a workflow are done, and it isn't."""
        until(
            lambda: self.jobs(workflow).get("FINISHED", 0) >= done,
            lambda: f"{done} jobs of workflow {workflow} are done: {self.jobs(workflow)}",
            90,
        )
        assert self.state(workflow) == "IN_PROGRESS"

    def finished(self, workflow: int, limit_s: float = 120.0) -> None:
        """Wait until a workflow is FINISHED."""
        end = until(
            lambda: (s := self.state(workflow)) in ("FINISHED", "FAILED", "CANCELLED") and s,
            lambda: f"workflow {workflow} ended; its jobs are {self.jobs(workflow)}",
            limit_s,
        )
        why = self.one("SELECT reason FROM workflow WHERE id = ?", workflow)
        assert end == "FINISHED", why

    def outputs(self, workflow: int, stage: str, port: str) -> list[tuple[str, str, Path]]:
        """(key, name, path) of every file of an output dataset, in its order."""
        found = self.rows(
            "SELECT m.key, m.name, storage.url, replica.path"
            " FROM dataset d JOIN task ON task.id = d.task_id"
            " JOIN dataset_file m ON m.dataset_id = d.id"
            " JOIN replica ON replica.file_id = m.file_id AND replica.state = 'AVAILABLE'"
            " JOIN storage ON storage.id = replica.storage_id"
            " WHERE workflow_id = ? AND stage = ? AND d.port = ? ORDER BY m.position, m.name",
            workflow, stage, port,
        )  # fmt: skip
        return [(key, name, Path(url) / path) for key, name, url, path in found]

    def whole(self, workflow: int, files: Mapping[str, bytes]) -> None:
        """Every file of a nap is exactly once in the output dataset, which is CLOSED."""
        made = self.outputs(workflow, "nap", "out")
        assert sorted(key for key, _, _ in made) == sorted(files)
        assert {key: path.read_bytes() for key, _, path in made} == dict(files)
        closed = self.rows(
            "SELECT d.state, file_count FROM dataset d JOIN task ON task.id = d.task_id"
            " WHERE workflow_id = ? AND port = 'out'",
            workflow,
        )
        assert closed == [("CLOSED", len(files))]
        assert self.jobs(workflow) == {"FINISHED": len(files)}
        assert self.attempts(workflow)["FINISHED"] == len(files)

    def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """The server's answer."""
        return httpx.request(
            method,
            self.server["api_url"] + path,
            json=body,
            auth=(self.server["user"], self.server["password"]),
            timeout=30,
            trust_env=False,
        )

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """What the server answers to a request that it grants."""
        answer = self.ask(method, path, body)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def flow_run(self, workflow: int) -> str:
        """The flow run that drives a workflow."""
        query = "SELECT flow_run_id FROM workflow WHERE id = ? AND owner IS NOT NULL"
        return str(until(lambda: self.rows(query, workflow), "a flow run drives it")[0][0])

    def flow_runs(self, workflow: int) -> list[dict[str, Any]]:
        """All flow runs that were started for a workflow: its own and its pilots'."""
        body = {"flow_runs": {"tags": {"all_": [f"workflow:{workflow}"]}}, "limit": 200}
        return list(self.api("POST", "/flow_runs/filter", body))

    def run_state(self, flow_run: str) -> str:
        """The type of a flow run's state."""
        return str(self.api("GET", f"/flow_runs/{flow_run}")["state_type"])

    def shown(self, workflow: int) -> dict[str, int]:
        """Task runs under the flow runs of a workflow's pilots, counted by state."""
        pilots = [
            run
            for (run,) in self.rows(
                "SELECT flow_run_id FROM pilot JOIN task ON task.id = task_id"
                " WHERE workflow_id = ?",
                workflow,
            )
        ]
        counts = {}
        for state in ("RUNNING", "COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            body = {
                "flow_runs": {"id": {"any_": pilots}},
                "task_runs": {"state": {"type": {"any_": [state]}}},
            }
            if count := self.api("POST", "/task_runs/count", body):
                counts[state] = count
        return counts

    def shown_as(self, workflow: int, expected: Mapping[str, int]) -> None:
        """Wait until Prefect shows just these task runs of a workflow."""
        until(
            lambda: self.shown(workflow) == expected,
            lambda: f"Prefect shows {dict(expected)}, not {self.shown(workflow)}",
        )

    def mine(self) -> list[Process]:
        """Processes of this home, and payloads at work below it."""
        return [
            p for p in processes() if p.pid != os.getpid() and (self._started(p) or self._in(p))
        ]

    def payloads(self) -> set[int]:
        """Processes that work in a directory of a job."""
        return {p.pid for p in processes() if self._in(p, "work") and not self._started(p)}

    def _started(self, process: Process) -> bool:
        return process.environment.get("SPDF_HOME") == str(self.home)

    def _in(self, process: Process, folder: str = "") -> bool:
        return Path(process.cwd).is_relative_to(self.home / folder)

    def engines(self, flow_run: str) -> list[int]:
        """The processes in which a flow run's code runs."""
        mark = ("PREFECT__FLOW_RUN_ID", flow_run)
        found = [p for p in self.mine() if mark in p.environment.items()]
        return [p.pid for p in found if "prefect.engine" in p.command]

    def service(self, name: str) -> int | None:
        """The pid of a healthy service; None while it isn't."""
        status = json.loads(self.run("status", "--json").stdout)
        found = [s["pid"] for s in status["services"] if s["name"] == name and s["healthy"]]
        return found[0] if found else None


@contextmanager
def running(site: SiteKind) -> Iterator[SiteKind]:
    """A site that is up; at the end it is down and nothing of it runs."""
    try:
        site.server = site.json("up", limit_s=240)
        yield site
    finally:
        site.run("down")
        left = site.mine()
        for process in left:
            os.kill(process.pid, 9)
    assert not left, "processes outlived `spdf down`"


def clean_environment() -> dict[str, str]:
    """This process's environment without settings of ours or of Prefect."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("SPDF_", "PREFECT_"))}


@dataclass
class WholeSite(Site):
    """A site of PostgreSQL and S3, whose payloads run on nodes of their own."""

    catalog_url: str = ""

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of the catalog, read without any code of ours as soon as it is there."""
        end = time.monotonic() + 60
        while True:
            try:
                with psycopg.connect(self.catalog_url, connect_timeout=10) as connection:
                    found = connection.execute(query.replace("?", "%s").encode(), values)
                    return list(found.fetchall())
            except psycopg.OperationalError:
                if time.monotonic() > end:
                    raise
            time.sleep(0.5)

    def copied(self, dataset: str, count: int) -> dict[str, bytes]:
        """A closed dataset of that many files on S3, as content by basename."""
        made = {f"f{i:04d}.dat": f"content {i}\n".encode() * (i % 50 + 1) for i in range(count)}
        folder = self.home / "raw" / dataset
        folder.mkdir(parents=True)
        for name, content in made.items():
            (folder / name).write_bytes(content)
        self.spdf("dataset", "create", dataset)
        self.spdf("dataset", "add", dataset, "--copy-to", "buffer", *sorted(folder.iterdir()))
        self.spdf("dataset", "close", dataset)
        return made

    def copy(self, dataset: str, seconds: float) -> int:
        """A new workflow that copies a dataset's files, each within these seconds; its id."""
        given = ("--input", f"seconds={seconds:g}", "--again")
        return int(self.json("workflow", "submit", "copy", dataset, *given)["id"])

    def came_out(self, workflow: int, files: Mapping[str, bytes], target: Path) -> None:
        """Every file has come out exactly once, in a closed dataset, with its own bytes."""
        assert self.jobs(workflow) == {"FINISHED": len(files)}
        assert self.attempts(workflow)["FINISHED"] == len(files)
        ((name, state, count),) = self.rows(
            "SELECT d.name, d.state, file_count FROM dataset d JOIN task ON task.id = d.task_id"
            " WHERE workflow_id = ? AND port = 'out'",
            workflow,
        )
        assert (state, count) == ("CLOSED", len(files))
        self.spdf("dataset", "get", name, target)
        got = {path.stem: path.read_bytes() for path in target.rglob("*.out")}
        assert got == {Path(name).stem: content for name, content in files.items()}

    def node_state(self, name: str) -> str:
        """What the catalog says of a node."""
        found = self.rows("SELECT state FROM node WHERE name = ?", name)
        return str(found[0][0]) if found else "unknown"

    def online(self, *names: str) -> None:
        """Wait until these nodes have announced themselves."""
        for name in names:
            until(lambda name=name: self.node_state(name) == "ONLINE", f"{name} is online")

    def reaches(self, workflow: int, jobs: Mapping[str, int]) -> None:
        """Wait until a workflow's jobs are just these, by state."""
        until(
            lambda: self.jobs(workflow) == jobs,
            lambda: f"jobs of workflow {workflow} are {jobs}: {self.jobs(workflow)}",
            90,
        )

    def start_node(
        self,
        name: str,
        *words: object,
        bridges: Bridges | None = None,
        pool: str = "cpu",
        **settings: str,
    ) -> "Node":
        """A node with a home and a work directory of its own, which serves a pool."""
        home = self.home / name
        home.mkdir(mode=0o700)
        own = {"SPDF_HOME": str(home), "SPDF_NODE": name, **settings}
        node = Node(name, home, {**self.environment, **self.addresses, **own}, pool)
        node.start(*words, bridges=bridges)
        return node

    @property
    def addresses(self) -> dict[str, str]:
        """What a node must be told of the site: where things are, and the logins."""
        text = (self.home / "spdf.env").read_text().splitlines()
        known = dict(line.partition("=")[::2] for line in text)
        wanted = ("SPDF_CATALOG_URL", "SPDF_S3_URL", "SPDF_S3_ACCESS_KEY", "SPDF_S3_SECRET_KEY")
        login = f"{self.server['user']}:{self.server['password']}"
        site = {"SPDF_API_URL": self.server["api_url"], "SPDF_API_AUTH": login}
        return {**site, **{name: known[name] for name in wanted}}

    @property
    def ports(self) -> list[int]:
        """Where the catalog, the storages and the server listen."""
        places = ("SPDF_CATALOG_URL", "SPDF_S3_URL", "SPDF_API_URL")
        return [port for name in places if (port := urlsplit(self.addresses[name]).port)]


@dataclass
class Node:
    """The worker daemon of a compute node."""

    name: str
    home: Path
    environment: Mapping[str, str]
    pool: str = "cpu"
    process: "subprocess.Popen[bytes] | None" = None

    def start(self, *words: object, bridges: Bridges | None = None) -> None:
        """Serve the pool."""
        command = [str(BIN / "spdf"), "worker", "start", "--pool", self.pool, *map(str, words)]
        log = self.home / "worker.log"
        if bridges is not None:
            self.process = bridges.start(command, self.environment, self.home, log)
            return
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                command,
                env=self.environment,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )

    def stop(self, limit_s: float = 60.0) -> int:
        """Ask it to drain; gives its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(limit_s)

    def mine(self) -> list[Process]:
        """Everything that the node runs, but for the daemon itself."""
        daemon = self.process.pid if self.process else 0
        found = [p for p in processes() if p.environment.get("SPDF_HOME") == str(self.home)]
        return [p for p in found if p.pid != daemon]
