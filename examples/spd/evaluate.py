"""Compare reconstructed tracks with the simulated truth, and count what the filter saved.

Exit codes: 0 done, 2 bad arguments, 66 an input can't be used.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import spdio

MIN_PT = 0.2
"""Findable: a true track with this pT [GeV] and this many layers hit."""
MIN_LAYERS = 7
MATCH_SHARE = 0.7
"""A track is matched to the true track that made at least this share of its hits."""
VERTEX_CM = 0.5
VERTEX_NS = 20.0

_TRUTH = ("track_event", "track_pt", "track_charge", "word_track", "event_time", "event_z")


def match_tracks(tracks: np.ndarray, word_track: np.ndarray) -> np.ndarray:
    """The true track of each reconstructed one, -1 where it is a fake."""
    hits = tracks["hits"]
    origin = np.where(hits >= 0, word_track[hits], -1)
    votes = (origin[:, :, None] == origin[:, None, :]).sum(axis=2) * (origin >= 0)
    best = votes.argmax(axis=1)
    rows = np.arange(len(tracks))
    sure = votes[rows, best] >= MATCH_SHARE * tracks["n_hits"]
    return np.where(sure, origin[rows, best], -1)


def found_events(truth: dict[str, np.ndarray], seen: np.ndarray, events: np.ndarray) -> int:
    """How many of the true events that were seen have a reconstructed vertex where they were."""
    by_time = np.sort(events, order="time")
    found = 0
    for time, z in zip(truth["event_time"][seen], truth["event_z"][seen], strict=True):
        window = np.searchsorted(by_time["time"], [time - VERTEX_NS, time + VERTEX_NS])
        found += bool((np.abs(by_time["z"][slice(*window)] - z) < VERTEX_CM).any())
    return found


def compare_slice(
    truth: dict[str, np.ndarray], tracks: np.ndarray, events: np.ndarray
) -> tuple[dict[str, int], np.ndarray]:
    """Counts of one slice, and the relative pT residuals of its matched tracks."""
    origin, pt, event = truth["word_track"], truth["track_pt"], truth["track_event"]
    hits = np.bincount(origin[origin >= 0], minlength=len(pt))
    findable = (pt > MIN_PT) & (hits >= MIN_LAYERS)
    match = match_tracks(tracks, origin)
    good = match >= 0
    times_found = np.bincount(match[good], minlength=len(pt))
    found = findable & (times_found > 0)
    seen = np.bincount(event[found], minlength=len(truth["event_time"])) >= 2

    hard = tracks[good][pt[match[good]] > MIN_PT]
    partner = match[good][pt[match[good]] > MIN_PT]
    counts = {
        "findable": int(findable.sum()),
        "found": int(found.sum()),
        "tracks": len(tracks),
        "matched": int(good.sum()),
        "clones": int((times_found - 1).clip(0).sum()),
        "wrong_charge": int((hard["charge"] != truth["track_charge"][partner]).sum()),
        "true_events": int(seen.sum()),
        "found_events": found_events(truth, seen, events),
    }
    return counts, hard["pt"] / pt[partner] - 1


def reduction(slices: np.ndarray, kept_files: list[Path]) -> dict[int, dict[str, Any]]:
    """Per run: raw bytes of these slices, bytes kept of them, and the share that was dropped.

    Of a file with events of several runs, each run bears its share of the events.
    """
    runs: dict[int, dict[str, Any]] = {
        int(run): {
            "raw_bytes": int(slices["raw_bytes"][slices["run"] == run].sum()),
            "kept_bytes": 0,
        }
        for run in np.unique(slices["run"])
    }
    for path in kept_files:
        (events,) = spdio.read_tables(path, "events")
        numbers, counts = np.unique(events["run"], return_counts=True)
        for run, count in zip(numbers, counts, strict=True):
            if int(run) in runs:
                share = path.stat().st_size * int(count) // len(events)
                runs[int(run)]["kept_bytes"] += share
    for row in runs.values():
        row["dropped"] = 1 - row["kept_bytes"] / row["raw_bytes"]
    return runs


def evaluate(
    truth_dir: Path, tracks_files: list[Path], kept_files: Sequence[Path] = ()
) -> dict[str, Any]:
    """Efficiency, purity, resolution and data reduction, as a dictionary of JSON values.

    `tracks_files` are event files of `reconstruct.py`; the truth of `NAME.events` is
    `truth_dir/NAME.truth`. `kept_files` are selected or merged files of the same runs.
    """
    total: Counter[str] = Counter()
    residuals, rows = [], []
    for path in map(Path, tracks_files):
        names = ("slices", "events", "tracks")
        slices, events, tracks = spdio.read_tables(path, *names)
        values = spdio.read_tables(Path(truth_dir) / f"{path.stem}.truth", *_TRUTH)
        truth = dict(zip(_TRUTH, values, strict=True))
        if tracks["hits"].max(initial=-1) >= len(truth["word_track"]):
            raise spdio.FailureError(
                spdio.BAD_INPUT, f"{path} was not made from the slice of that name in {truth_dir}."
            )
        counts, residual = compare_slice(truth, tracks, events)
        total.update(counts)
        residuals.append(residual)
        rows.append(slices)
    if not rows:
        raise spdio.FailureError(spdio.BAD_INPUT, "There are no event files to evaluate.")
    spread = np.abs(np.concatenate(residuals))
    result: dict[str, Any] = {
        "slices": len(rows),
        **total,
        "efficiency": _share(total["found"], total["findable"]),
        "purity": _share(total["matched"], total["tracks"]),
        "clone_rate": _share(total["clones"], total["tracks"]),
        "event_efficiency": _share(total["found_events"], total["true_events"]),
        "pt_resolution": float(np.quantile(spread, 0.68)) if len(spread) else None,
    }
    if kept_files:
        result |= kept(np.concatenate(rows), [Path(path) for path in kept_files])
    return result


def kept(slices: np.ndarray, kept_files: list[Path]) -> dict[str, Any]:
    """What the filter kept of these slices: bytes, events and the mass of their pairs."""
    tables = [spdio.read_tables(path, "events")[0] for path in kept_files]
    mass = np.concatenate([table["mass"] for table in tables])
    raw_bytes = int(slices["raw_bytes"].sum())
    kept_bytes = sum(path.stat().st_size for path in kept_files)
    return {
        "raw_bytes": raw_bytes,
        "kept_bytes": kept_bytes,
        "dropped": 1 - kept_bytes / raw_bytes,
        "runs": reduction(slices, kept_files),
        "selected_events": len(mass),
        "median_mass_gev": float(np.median(mass)) if len(mass) else None,
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def text(result: dict[str, Any]) -> str:
    """The result for people."""
    lines = [
        f"slices            {result['slices']}",
        f"efficiency        {_percent(result['efficiency'])}  "
        f"({result['found']} of {result['findable']} findable tracks, pT > {MIN_PT} GeV)",
        f"purity            {_percent(result['purity'])}  "
        f"({result['matched']} of {result['tracks']} tracks, {result['clones']} found twice)",
        f"event efficiency  {_percent(result['event_efficiency'])}  "
        f"({result['found_events']} of {result['true_events']} vertices)",
        f"pT resolution     {_percent(result['pt_resolution'])}",
    ]
    for run, row in result.get("runs", {}).items():
        lines.append(
            f"run {run}: {row['raw_bytes']} bytes raw, {row['kept_bytes']} kept, "
            f"{_percent(row['dropped'])} dropped"
        )
    if result.get("selected_events"):
        lines.append(
            f"selected events   {result['selected_events']}, median mass of the pair "
            f"{result['median_mass_gev']:.3f} GeV"
        )
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{100 * value:.2f} %"


def main() -> int:
    """Print how well the chain did."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tracks", type=Path, nargs="+", help="event files of reconstruct.py")
    parser.add_argument("--truth", type=Path, required=True, help="folder of truth files")
    parser.add_argument("--kept", type=Path, nargs="*", default=[], help="selected or merged files")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    result = evaluate(arguments.truth, arguments.tracks, arguments.kept)
    print(json.dumps(result) if arguments.json else text(result))
    return 0


if __name__ == "__main__":
    spdio.run(main)
