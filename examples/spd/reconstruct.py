"""Unscramble a slice: time clusters, tracks, and events as the vertices of tracks.

Exit codes: 0 done, 2 bad arguments, 66 the input can't be used,
74 the output can't be written.
"""

import argparse
from pathlib import Path

import detector as det
import numpy as np
import spdio
from helix import Helices, Hits
from tracking import find_tracks

BIN_NS = 5.0
WINDOW_BINS = 8
MIN_HITS_IN_WINDOW = 17
"""Hits in WINDOW_BINS that noise alone hardly ever reaches, two tracks always."""
MARGIN_NS = 2.5 * det.SIGMA_TIME
VERTEX_GAP_CM = 1.0
VERTEX_GAP_NS = 15.0


def time_clusters(time: np.ndarray, duration_ns: float) -> np.ndarray:
    """The time cluster of each hit, -1 for hits outside all clusters."""
    n_bins = int(duration_ns / BIN_NS) + 1
    counts = np.bincount(np.clip(time / BIN_NS, 0, n_bins - 1).astype(np.int64), minlength=n_bins)
    dense = np.convolve(counts, np.ones(WINDOW_BINS), "same") >= MIN_HITS_IN_WINDOW
    margin = int(MARGIN_NS / BIN_NS)
    busy = np.convolve(dense, np.ones(2 * margin + 1), "same") > 0.5
    number = np.cumsum(busy & ~np.concatenate([[False], busy[:-1]])) - 1
    return np.where(busy, number, -1)[np.clip(time / BIN_NS, 0, n_bins - 1).astype(np.int64)]


def split(groups: np.ndarray, values: np.ndarray, gap: float) -> np.ndarray:
    """Finer group numbers: each group cut where its sorted values leave a gap."""
    if not len(groups):
        return groups
    order = np.lexsort((values, groups))
    jump = np.diff(groups[order], prepend=groups[order[0]]) != 0
    jump |= np.diff(values[order], prepend=values[order[0]]) > gap
    fine = np.empty(len(groups), np.int64)
    fine[order] = np.cumsum(jump)
    return fine


def track_table(helices: Helices, hits: np.ndarray) -> np.ndarray:
    """The track table of fitted helices; `hits` is the hit table of the slice."""
    table = np.zeros(len(helices.phi), spdio.TRACK)
    table["charge"] = np.where(helices.kappa < 0, 1, -1)
    table["n_hits"] = helices.n_hits
    for name, column in (("pt", helices.pt), ("phi", helices.phi), ("cot_theta", helices.cot)):
        table[name] = column
    for name in ("d0", "z0", "chi2", "hits"):
        table[name] = getattr(helices, name)
    present = helices.hits >= 0
    flight = det.RADII * np.hypot(1, helices.cot)[:, None] / det.LIGHT_CM_NS
    start = np.where(present, hits["time"][helices.hits].astype(np.float64) - flight, 0.0)
    table["time"] = start.sum(axis=1) / present.sum(axis=1)
    return table


def find_events(
    tracks: np.ndarray, cluster: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number the vertices: sets the tracks' `event`, returns (time, z, cluster) of each event."""
    time, z0 = tracks["time"].astype(np.float64), tracks["z0"].astype(np.float64)
    vertex = split(split(cluster, z0, VERTEX_GAP_CM), time, VERTEX_GAP_NS)
    size = np.bincount(vertex, minlength=1)
    number = np.where(size > 1, np.cumsum(size > 1) - 1, -1)
    tracks["event"] = number[vertex] if len(vertex) else -1
    inside = tracks["event"] >= 0
    event, n = tracks["event"][inside], int((size > 1).sum())
    weight = tracks["pt"][inside].astype(np.float64) ** 2
    total = np.bincount(event, weight, n)
    z = np.bincount(event, weight * z0[inside], n) / total
    mean_time = np.bincount(event, time[inside], n) / np.bincount(event, minlength=n)
    home = np.zeros(n, np.int64)
    home[event] = cluster[inside]
    return mean_time, z, home


def event_table(
    slices: np.ndarray,
    tracks: np.ndarray,
    time: np.ndarray,
    z: np.ndarray,
    first_word: np.ndarray,
    n_words: np.ndarray,
) -> np.ndarray:
    """The event table; `tracks` must be sorted by event."""
    table = np.zeros(len(time), spdio.EVENT)
    numbers = np.arange(len(time))
    table["run"], table["slice"], table["number"] = slices["run"], slices["slice"], numbers
    table["time"], table["z"] = time, z
    begin = np.searchsorted(tracks["event"], numbers)
    table["first_track"] = begin
    table["n_tracks"] = np.searchsorted(tracks["event"], numbers, "right") - begin
    table["first_word"], table["n_words"] = first_word, n_words
    return table


def reconstruct(slices: np.ndarray, hits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The (events, tracks, words) of one slice; words are those of the time clusters."""
    cluster = time_clusters(hits["time"], float(slices["duration_ns"][0]))
    index = np.flatnonzero(cluster >= 0)
    index = index[np.argsort(cluster[index], kind="stable")]
    phi, z, time = (hits[name][index].astype(np.float64) for name in ("phi", "z", "time"))
    layer = hits["layer"][index].astype(np.int64)
    helices = find_tracks(Hits(cluster[index], layer, phi, z, time, index))
    tracks = track_table(helices, hits)
    event_time, event_z, home = find_events(tracks, helices.cluster)
    tracks = tracks[np.lexsort((-tracks["pt"], tracks["event"]))]
    numbers = np.arange(cluster.max(initial=-1) + 1)
    begin = np.searchsorted(cluster[index], numbers)
    end = np.searchsorted(cluster[index], numbers, "right")
    events = event_table(slices, tracks, event_time, event_z, begin[home], (end - begin)[home])
    return events, tracks, hits["word"][index]


def main() -> int:
    """Read hits, write events."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("hits", type=Path, help="hit file of decode.py")
    parser.add_argument("--output", type=Path, required=True, help="event file to write")
    arguments = parser.parse_args()
    slices, hits = spdio.read_tables(arguments.hits, "slices", "hits")
    events, tracks, words = reconstruct(slices, hits)
    spdio.write_tables(arguments.output, slices=slices, events=events, tracks=tracks, words=words)
    print(f"{len(hits)} hits: {len(tracks)} tracks in {len(events)} events")
    return 0


if __name__ == "__main__":
    spdio.run(main)
