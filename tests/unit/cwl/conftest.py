"""A way to run a tool given as a few fields, in directories of the test's own."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from workers.cwl import load_tool, run_tool
from workers.reapers import Reapers
from workers.spec import ToolOutcome, ToolRun


@dataclass
class Bench:
    """Runs tools below `root`; each run has its own directory."""

    root: Path
    runs: int = 0
    last: Path = field(default_factory=Path)
    reapers: Reapers = field(default_factory=Reapers)

    def file(self, name: str, text: str = "") -> dict[str, Any]:
        """A File object of a new file."""
        path = self.root / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return {"class": "File", "path": str(path)}

    def run(
        self,
        job: dict[str, Any] | None = None,
        /,
        *,
        stop: threading.Event | None = None,
        options: dict[str, Any] | None = None,
        **fields: Any,
    ) -> ToolOutcome:
        """Run a CommandLineTool made of `fields`."""
        tool = {
            "class": "CommandLineTool", "cwlVersion": "v1.2", "id": "t",
            "inputs": {}, "outputs": {}, **fields,
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
        return run_tool(load_tool(tool), run, reapers=self.reapers, stop=stop)

    @property
    def log(self) -> str:
        """What the last payload printed."""
        return (self.last / "log").read_text()

    @property
    def out(self) -> Path:
        """The output directory of the last run."""
        return self.last / "out"

    def arguments(self, job: dict[str, Any] | None = None, /, **fields: Any) -> list[str]:
        """The arguments that a payload of these fields is started with."""
        script = "import json, sys; print(json.dumps(sys.argv[1:]))"
        self.run(job, **{"baseCommand": ["python3", "-c", script], **fields})
        got: list[str] = json.loads(self.log)
        return got


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Runs tools in this test's directory."""
    made = Bench(tmp_path)
    yield made
    made.reapers.close()
