"""The plots of docs/explanation/performance.md, drawn from benchmarks/results.

Needs matplotlib (the extra `bench`). A plot whose results aren't there is left as it is.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

from benchmarks.results import RESULTS

mpl.use("svg")
# Without these a drawing of the same numbers is another file each time.
mpl.rcParams["svg.hashsalt"] = "spdf"
META = {"Date": None, "Creator": None}

from matplotlib import pyplot  # noqa: E402

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#9c755f", "#76b7b2")


def main() -> int:
    """Draw what there are results for."""
    for name, draw in (("chain", _costs), ("peers", _peers), ("age", _age)):
        path = RESULTS / f"{name}.json"
        if path.exists():
            draw(json.loads(path.read_text()))
            print(IMAGES / f"bench-{name}.svg")
    return 0


def _costs(result: dict[str, Any]) -> None:
    """CPU per job by part, beside what xargs takes in all."""
    figure, axes = pyplot.subplots(figsize=(7, 2.2))
    left = 0.0
    for colour, (part, cost) in zip(
        COLOURS, result["spdf"]["cpu_ms_per_job"].items(), strict=False
    ):
        axes.barh("spdf", cost, left=left, color=colour, label=f"{part} {cost:.2f}")
        left += cost
    axes.barh("xargs", result["limit"]["cpu_ms_per_job"], color="#bab0ac")
    axes.set_xlabel("CPU milliseconds per job")
    axes.legend(fontsize=7, ncols=3, loc="upper center", bbox_to_anchor=(0.45, 1.45))
    _save(figure, "chain")


def _peers(result: dict[str, Any]) -> None:
    """What several engines reach of the limit, and we."""
    rows = [(name, row["ratio"]) for name, row in result["peers"].items() if "ratio" in row]
    figure, axes = pyplot.subplots(figsize=(7, 2.2))
    for name, ratio in sorted(rows, key=lambda row: row[1]):
        bar = axes.barh(name, ratio, color=COLOURS[0] if name.startswith("spdf") else "#bab0ac")
        axes.bar_label(bar, fmt="%.2f", padding=3, fontsize=8)
    axes.margins(x=0.1)
    axes.set_xlabel("jobs per second, of what xargs reaches right before and after")
    _save(figure, "peers")


def _age(result: dict[str, Any]) -> None:
    """Database CPU per job, empty and old, small and large."""
    figure, axes = pyplot.subplots(figsize=(7, 2.2))
    for line in reversed(result["lines"]):
        name, cost = f"{line['name']}, {line['files']:,} files", line["server_ms_per_job"]["first"]
        axes.bar_label(axes.barh(name, cost, color=COLOURS[0]), fmt="%.2f", padding=3, fontsize=8)
    axes.set_xlabel("database CPU milliseconds per job")
    _save(figure, "age")


def _save(figure: Any, name: str) -> None:
    IMAGES.mkdir(exist_ok=True)
    figure.savefig(IMAGES / f"bench-{name}.svg", bbox_inches="tight", metadata=META)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
