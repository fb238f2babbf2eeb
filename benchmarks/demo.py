"""`spdf demo --down` in a new home: how long it takes, and which part of it takes how long."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_NOTES = (
    ("waiting for", "up"),
    ("simulating", "simulate"),
    ("dataset ", "register and submit"),
)
"""How a line of the demo begins, and what begins with it."""


def run(home: Path) -> tuple[dict[str, float], list[str]]:
    """Run it; gives seconds by part, in order, with their `total`, and faults."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SPDF_", "PREFECT_"))}
    begun = time.time()
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "demo", "--down", "--json"],
        env={**env, "SPDF_HOME": str(home), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    marks = {"interpreter": begun}
    for line in process.stderr:
        for words, part in _NOTES:
            if line.startswith(words):
                marks.setdefault(part, time.time())
    printed = process.stdout.read()
    code, ended = process.wait(), time.time()
    if code != 0:
        return {"total": round(ended - begun, 2)}, [f"the demo ended with {code}"]
    marks |= _from_catalog(home, json.loads(printed)["workflow"])
    return _parts(marks, ended), []


def _from_catalog(home: Path, workflow: Mapping[str, Any]) -> dict[str, float]:
    """When the flow run, the pilots and the stages began, and when the workflow ended."""
    from catalog import pilots, tasks, workflows
    from catalog.db import Catalog

    catalog = Catalog(f"sqlite:///{home / 'catalog.db'}")
    try:
        with catalog.read() as session:
            info = workflows.get(session, workflow["id"])
            first = min(p.started_at for p in pilots.list_pilots(session, workflow_id=info.id))
            ends = {t.stage: t.ended_at for t in tasks.of_workflow(session, info.id)}
    finally:
        catalog.close()
    assert info.started_at is not None and info.ended_at is not None
    found = {
        "start of the flow run": info.created_at.timestamp(),
        "start of the first pilot": info.started_at.timestamp(),
    }
    before = first.timestamp()
    for stage, ended in ends.items():
        found[f"to the end of {stage}"] = before
        before = ended.timestamp() if ended else before
    return {**found, "recorded, judged and down": info.ended_at.timestamp()}


def _parts(marks: Mapping[str, float], ended: float) -> dict[str, float]:
    names, times = list(marks), [*marks.values(), ended]
    parts = {name: round(times[i + 1] - times[i], 2) for i, name in enumerate(names)}
    return {**parts, "total": round(ended - times[0], 2)}
