"""Find and fit helices among the hits of many time clusters at once.

A candidate begins as two hits and the beam line, which fix a circle; it is followed to the other
layers and fitted. Every step works on whole arrays.
"""

from dataclasses import replace

import detector as det
import numpy as np
from helix import Helices, Hits, crossings, fit, pulls

MIN_HITS = 6
MIN_PT = 0.15
MAX_CHI2 = 4.0
MAX_Z0 = 5 * det.BEAM_SIGMA_Z
MAX_COT = 1.4
SEED_LAYERS = ((3, 8, 5), (4, 7, 6), (2, 9, 5), (3, 6, 4))
"""Inner, outer and confirming layer of each pass; the passes share no fate of a missing hit."""

_TURN = 8.0
"""Length of one (cluster, layer) block on the search axis; more than 2 pi plus the margins."""
_WRAP = 0.5


def find_tracks(hits: Hits) -> Helices:
    """The fitted tracks among these hits, best first, no hit used twice."""
    order = np.argsort(hits.block * _TURN + hits.phi, kind="stable")
    hits = hits.take(order)
    unused = np.ones(len(hits.phi), bool)
    found = []
    for inner, outer, middle in SEED_LAYERS:
        rows = np.flatnonzero(unused)
        finder = HitFinder(hits.take(rows), rows)
        candidates = pair_seeds(finder.hits, inner, outer)
        candidates = follow(finder, candidates, np.array([middle]))
        candidates = candidates.take(candidates.n_hits == 1)
        candidates = follow(finder, candidates, np.arange(det.N_LAYERS))
        candidates = candidates.take(candidates.n_hits >= MIN_HITS)
        candidates = drop_outliers(hits, fit(hits, candidates))
        tracks = resolve(candidates, len(hits.phi))
        unused[tracks.hits[tracks.hits >= 0]] = False
        found.append(tracks)
    tracks = Helices.joined(found)
    index = np.where(tracks.hits >= 0, hits.index[tracks.hits], -1)
    return replace(tracks, hits=index)


def pair_seeds(hits: Hits, inner: int, outer: int) -> Helices:
    """Candidates through the beam line and a hit on each of two layers of one cluster."""
    block = hits.block
    first = np.flatnonzero(hits.layer == inner)
    partner = hits.cluster[first] * det.N_LAYERS + outer
    begin, end = np.searchsorted(block, partner), np.searchsorted(block, partner, "right")
    count = end - begin
    i = np.repeat(first, count)
    j = np.repeat(begin - np.concatenate([[0], np.cumsum(count)[:-1]]), count) + np.arange(len(i))

    r_i, r_j = det.RADII[inner], det.RADII[outer]
    delta = (hits.phi[j] - hits.phi[i] + np.pi) % (2 * np.pi) - np.pi
    kappa = 2 * np.sin(delta) / np.sqrt(r_i**2 + r_j**2 - 2 * r_i * r_j * np.cos(delta))
    keep = (np.abs(kappa) < det.GEV_CM / MIN_PT) & (np.abs(delta) < np.pi / 2)
    keep &= np.abs(hits.time[j] - hits.time[i]) < 6 * det.SIGMA_TIME
    i, j, kappa = i[keep], j[keep], kappa[keep]

    zero = np.zeros(len(i))
    through = Helices(hits.cluster[i], kappa, *(zero,) * 5, np.empty((len(i), 0)), zero)
    turn, path, _ = crossings(through, np.array([r_i, r_j]))
    cot = (hits.z[j] - hits.z[i]) / (path[:, 1] - path[:, 0])
    seeds = replace(
        through,
        phi=hits.phi[i] - turn[:, 0],
        cot=cot,
        z0=hits.z[i] - cot * path[:, 0],
        time=(hits.time[i] + hits.time[j]) / 2,
    )
    return seeds.take((np.abs(seeds.z0) < MAX_Z0) & (np.abs(cot) < MAX_COT))


class HitFinder:
    """Finds the hit nearest to a point on a layer, for many points at once.

    `rows` numbers these hits in a larger table; answers are in its numbers.
    """

    def __init__(self, hits: Hits, rows: np.ndarray) -> None:
        self.hits = hits
        low = np.flatnonzero(hits.phi < -np.pi + _WRAP)
        high = np.flatnonzero(hits.phi > np.pi - _WRAP)
        source = np.concatenate([np.arange(len(hits.phi)), low, high])
        shift = np.repeat([0.0, 2 * np.pi, -2 * np.pi], [len(hits.phi), len(low), len(high)])
        phi = hits.phi[source] + shift
        order = np.argsort(hits.block[source] * _TURN + phi, kind="stable")
        source = source[order]
        self._block, self._phi = hits.block[source], phi[order]
        self._axis = self._block * _TURN + self._phi
        self._z, self._time, self._row = hits.z[source], hits.time[source], rows[source]

    def nearest(
        self,
        block: np.ndarray,
        phi: np.ndarray,
        z: np.ndarray,
        time: np.ndarray,
        window_phi: np.ndarray,
        window_z: np.ndarray,
    ) -> np.ndarray:
        """Row of the best hit inside each window, -1 where there is none."""
        phi = (phi + np.pi) % (2 * np.pi) - np.pi
        place = np.searchsorted(self._axis, block * _TURN + phi)
        best, row = np.full(phi.shape, 3.0), np.full(phi.shape, -1)
        for step in (-2, -1, 0, 1):
            at = np.clip(place + step, 0, len(self._axis) - 1)
            off = ((self._phi[at] - phi) / window_phi) ** 2 + ((self._z[at] - z) / window_z) ** 2
            off += ((self._time[at] - time) / (5 * det.SIGMA_TIME)) ** 2
            better = (self._block[at] == block) & (off < best)
            best = np.where(better, off, best)
            row = np.where(better, self._row[at], row)
        return row


def follow(finder: HitFinder, helices: Helices, layers: np.ndarray) -> Helices:
    """The candidates with the hits found on these layers (and only those)."""
    if not len(helices.phi):
        return replace(helices, hits=np.empty((0, len(layers)), np.int64))
    radii = det.RADII[layers]
    phi, _, z = crossings(helices, radii)
    reached = np.isfinite(phi)
    softness = 0.08 / helices.pt[:, None]
    window_phi = (0.12 + 4 * det.SIGMA_RPHI[layers] + softness) / radii
    window_z = 0.2 + 5 * det.SIGMA_Z[layers] + 2 * softness
    block = helices.cluster[:, None] * det.N_LAYERS + layers
    phi, z = np.where(reached, phi, 0.0), np.where(reached, z, 1e6)
    rows = finder.nearest(block, phi, z, helices.time[:, None], window_phi, window_z)
    return replace(helices, hits=rows)


def drop_outliers(hits: Hits, helices: Helices) -> Helices:
    """The candidates that fit, where needed without their worst hit."""
    good = helices.chi2 < MAX_CHI2
    doubtful = helices.take(~good & (helices.n_hits > MIN_HITS))
    if len(doubtful.phi):
        worst = pulls(hits, doubtful).argmax(axis=1)
        fewer = doubtful.hits.copy()
        fewer[np.arange(len(worst)), worst] = -1
        doubtful = fit(hits, replace(doubtful, hits=fewer))
    return Helices.joined([helices.take(good), doubtful.take(doubtful.chi2 < MAX_CHI2)])


def resolve(helices: Helices, n_hits: int) -> Helices:
    """Of candidates that share hits the best: most hits first, then the smaller chi2."""
    helices = helices.take(np.lexsort((helices.chi2, -helices.n_hits)))
    accepted = []
    alive = np.arange(len(helices.phi))
    while len(alive):
        hits = helices.hits[alive]
        present = hits >= 0
        owner = np.full(n_hits, len(helices.phi))
        np.minimum.at(owner, hits[present], np.repeat(alive, present.sum(axis=1)))
        free = ~(present & (owner[hits] != alive[:, None])).any(axis=1)
        accepted.append(alive[free])
        taken = np.zeros(n_hits, bool)
        chosen = helices.hits[alive[free]]
        taken[chosen[chosen >= 0]] = True
        alive = alive[~(present & taken[hits]).any(axis=1)]
    return helices.take(np.concatenate([*accepted, np.empty(0, np.int64)]).astype(np.int64))
