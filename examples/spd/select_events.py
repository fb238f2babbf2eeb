"""The filter: keep events with a pair of opposite charge from one vertex, such as J/psi -> mu mu.

An event is kept with its tracks and the raw words of its time window; everything else of the
slice is dropped. Where no event passes, no file is written.
Exit codes: 0 done (with or without a file), 2 bad arguments, 66 the input can't be
used, 74 the output can't be written.
"""

import argparse
from pathlib import Path

import detector as det
import numpy as np
import spdio


def pair_mass(first: np.void, second: np.void) -> float:
    """Invariant mass of two tracks taken as muons, in GeV."""
    energy, px, py, pz = 0.0, 0.0, 0.0, 0.0
    for track in (first, second):
        pt, phi = float(track["pt"]), float(track["phi"])
        z = pt * float(track["cot_theta"])
        energy += np.sqrt(pt**2 + z**2 + det.MUON_GEV**2)
        px, py, pz = px + pt * np.cos(phi), py + pt * np.sin(phi), pz + z
    return float(np.sqrt(max(energy**2 - px**2 - py**2 - pz**2, 0.0)))


def best_mass(tracks: np.ndarray, min_pt: float, low: float, high: float) -> float | None:
    """Mass of the hardest pair that passes, None where none does; tracks are sorted by pT."""
    hard = tracks[tracks["pt"] > min_pt]
    for j in range(1, len(hard)):
        for i in range(j):
            if hard["charge"][i] != hard["charge"][j]:
                mass = pair_mass(hard[i], hard[j])
                if low <= mass <= high:
                    return mass
    return None


def select(
    events: np.ndarray,
    tracks: np.ndarray,
    min_pt: float,
    min_tracks: int,
    mass_range: tuple[float, float],
) -> np.ndarray:
    """The rows of events that pass, with their `mass` filled in."""
    chosen = []
    for row in np.flatnonzero(events["n_tracks"] >= min_tracks):
        event = events[row]
        begin = event["first_track"]
        own = tracks[begin : begin + event["n_tracks"]]
        mass = best_mass(own, min_pt, *mass_range)
        if mass is not None:
            chosen.append(event.copy())
            chosen[-1]["mass"] = mass
    return np.array(chosen, spdio.EVENT)


def main() -> int:
    """Read events, write those selected."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("events", type=Path, help="event file of reconstruct.py")
    parser.add_argument("--output", type=Path, required=True, help="file of selected events")
    parser.add_argument("--min-pt", type=float, default=1.0, help="of each of the pair, GeV")
    parser.add_argument("--min-tracks", type=int, default=2, help="of the event")
    parser.add_argument("--mass", type=float, nargs=2, default=(2.7, 3.5), metavar=("LOW", "HIGH"))
    arguments = parser.parse_args()
    if arguments.min_tracks < 2 or arguments.min_pt < 0 or arguments.mass[0] > arguments.mass[1]:
        parser.error("--min-tracks must be at least 2, --min-pt at least 0, LOW not above HIGH.")
    slices, events, tracks, words = spdio.read_tables(
        arguments.events, "slices", "events", "tracks", "words"
    )
    chosen = select(events, tracks, arguments.min_pt, arguments.min_tracks, arguments.mass)
    print(f"{len(chosen)} of {len(events)} events selected")
    if len(chosen):
        part = spdio.take_events(chosen, tracks, words)
        spdio.write_tables(arguments.output, slices=slices, **part)
    return 0


if __name__ == "__main__":
    spdio.run(main)
