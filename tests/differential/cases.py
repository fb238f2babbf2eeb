"""Generated cases: a tool and a job order each, out of a seed and a number."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.differential import features
from tests.differential.drawing import Draw, dump

KINDS = {
    "command": features.command,
    "outputs": features.outputs,
    "work": features.work,
    "expression": features.expression,
    "printed": features.printed,
}
"""What the heart of a case's tool is."""


@dataclass(frozen=True)
class Case:
    """One tool with its job order, as files of their own folder."""

    seed: int
    number: int
    kind: str
    folder: Path
    document: dict[str, Any]
    job: dict[str, Any]

    @property
    def tool(self) -> Path:
        """The document's file."""
        return self.folder / "tool.cwl"

    @property
    def order(self) -> Path:
        """The job order's file."""
        return self.folder / "job.json"

    def __str__(self) -> str:
        return f"case {self.number} of seed {self.seed} ({self.kind})"


def generate(seed: int, number: int, root: Path) -> Case:
    """The case of that number, its files written below `root`."""
    rng = random.Random(f"{seed}/{number}")
    folder = root / f"{seed}-{number}"
    folder.mkdir(parents=True)
    draw = Draw(rng, folder)
    kind = rng.choice(list(KINDS))
    document: dict[str, Any] = {
        "cwlVersion": "v1.2", "class": "CommandLineTool", "id": "tool", "inputs": [], "outputs": [],
        "requirements": [],
    }  # fmt: skip
    job: dict[str, Any] = {}
    KINDS[kind](draw, document, job)
    if rng.random() < 0.97:
        document["requirements"].append({"class": "InlineJavascriptRequirement"})
    case = Case(seed, number, kind, folder, document, job)
    case.tool.write_text(dump(document))
    case.order.write_text(dump(job))
    return case
