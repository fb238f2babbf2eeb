"""The parts of the detector example: words, helices, unscrambling, the decay."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

SPD = Path(__file__).parents[2] / "examples" / "spd"
Columns = dict[str, np.ndarray]
MODULES = [
    "detector",
    "spdio",
    "helix",
    "tracking",
    "simulate",
    "decode",
    "reconstruct",
    "select_events",
    "evaluate",
]


@pytest.fixture(scope="module")
def spd() -> Iterator[SimpleNamespace]:
    """The example's modules, imported as its programs import them."""
    sys.path.insert(0, str(SPD))
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
    sys.path.remove(str(SPD))
    for name in MODULES:
        del sys.modules[name]


def _decoded(
    spd: SimpleNamespace, events: Columns, tracks: Columns, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(hit table, true track per hit) of perfect calibration for these true tracks."""
    track, layer, phi, z, time = spd.simulate.make_hits(rng, events, tracks)
    order = np.argsort(time, kind="stable")
    phi_channel, z_channel = spd.detector.channels(layer, phi, z)
    words = spd.detector.pack_words(time.astype(np.int64), layer, phi_channel, z_channel)[order]
    hits = spd.decode.calibrated_hits(words, np.zeros((spd.detector.N_LAYERS, 3)))
    return hits, track[order]


def _slices(spd: SimpleNamespace) -> np.ndarray:
    return np.array([(1, 1, 0, 0, 3000)], spd.spdio.SLICE)


def _event(time: float, z: float) -> Columns:
    columns = {"time": time, "x": 0.0, "y": 0.0, "z": z}
    return {name: np.array([value]) for name, value in columns.items()}


def test_words_come_back_as_they_were_packed(spd: SimpleNamespace) -> None:
    tick, layer = np.array([0, 2**28 - 1, 77]), np.array([0, 9, 4])
    phi, z = np.array([0, 65535, 31]), np.array([0, 16383, 8])
    words = spd.detector.pack_words(tick, layer, phi, z)
    for found, expected in zip(
        spd.detector.unpack_words(words), (tick, layer, phi, z), strict=False
    ):
        assert found.tolist() == expected.tolist()


def test_a_channel_lies_where_its_hit_was_to_half_a_pitch(spd: SimpleNamespace) -> None:
    det, rng = spd.detector, np.random.default_rng(3)
    layer = np.repeat(np.arange(det.N_LAYERS), 500)
    phi = rng.uniform(-np.pi, np.pi, len(layer))
    z = rng.uniform(-1, 1, len(layer)) * det.HALF_LENGTHS[layer] * 0.99
    found_phi, found_z = det.coordinates(layer, *det.channels(layer, phi, z))
    off = ((found_phi - phi + np.pi) % (2 * np.pi) - np.pi) * det.RADII[layer]
    assert (np.abs(off) <= 0.51 * det.PITCH_RPHI[layer]).all()
    assert (np.abs(found_z - z) <= 0.51 * det.PITCH_Z[layer]).all()


def test_radius_of_curvature_is_that_of_the_momentum_in_the_field(spd: SimpleNamespace) -> None:
    """pT [GeV] = 0.3 B [T] R [m]: 0.3 GeV in 1 T turns on a circle of one metre."""
    radius_cm = 0.3 / spd.detector.GEV_CM
    assert radius_cm == pytest.approx(100.0, rel=1e-3)


@pytest.mark.parametrize("charge", [-1, 1])
def test_fit_finds_momentum_charge_and_direction(spd: SimpleNamespace, charge: int) -> None:
    n, rng = 400, np.random.default_rng(5)
    pulls = []
    for pt, resolution in ((0.3, 0.02), (1.0, 0.03), (3.0, 0.06)):
        tracks = {
            "event": np.zeros(n, int),
            "charge": np.full(n, charge),
            "pt": np.full(n, pt),
            "phi": rng.uniform(-np.pi, np.pi, n),
            "cot_theta": rng.uniform(-0.8, 0.8, n),
        }
        for i in range(0, n, 8):
            part = {name: column[i : i + 8] for name, column in tracks.items()}
            hits, origin = _decoded(spd, _event(1000.0, 4.0), part, rng)
            _, found, _ = spd.reconstruct.reconstruct(_slices(spd), hits)
            match = spd.evaluate.match_tracks(found, origin)
            found, match = found[match >= 0], match[match >= 0]
            assert (found["charge"] == charge).all()
            turn = found["phi"] - part["phi"][match]
            assert (np.abs((turn + np.pi) % (2 * np.pi) - np.pi) < 0.05).all()
            assert (np.abs(found["cot_theta"] - part["cot_theta"][match]) < 0.1).all()
            pulls += ((1 / found["pt"] - 1 / pt) * pt / resolution).tolist()
    assert len(pulls) > 0.95 * 3 * n
    assert np.abs(np.mean(pulls)) < 0.1
    assert np.quantile(np.abs(pulls), 0.68) < 1.0


def test_two_events_at_one_time_are_told_apart_by_their_vertices(spd: SimpleNamespace) -> None:
    rng = np.random.default_rng(8)
    events = {
        "time": np.array([1000.0, 1010.0]),
        "x": np.zeros(2),
        "y": np.zeros(2),
        "z": np.array([-6.0, 9.0]),
    }
    n = 12
    tracks = {
        "event": np.repeat([0, 1], n // 2),
        "charge": rng.choice([-1, 1], n),
        "pt": rng.uniform(0.3, 2.0, n),
        "phi": rng.uniform(-np.pi, np.pi, n),
        "cot_theta": rng.uniform(-0.8, 0.8, n),
    }
    hits, origin = _decoded(spd, events, tracks, rng)
    found_events, found, _ = spd.reconstruct.reconstruct(_slices(spd), hits)
    assert len(set(spd.reconstruct.time_clusters(hits["time"], 3000.0)) - {-1}) == 1
    assert sorted(found_events["z"]) == pytest.approx([-6.0, 9.0], abs=0.3)
    home = tracks["event"][spd.evaluate.match_tracks(found, origin)]
    for number in range(2):
        assert len(set(home[found["event"] == number])) == 1


def test_noise_alone_makes_next_to_no_tracks(spd: SimpleNamespace) -> None:
    rng = np.random.default_rng(9)
    _, layer, phi, z, time = spd.simulate.make_noise(rng, 100_000)
    words = spd.detector.pack_words(time, layer, *spd.detector.channels(layer, phi, z))
    hits = spd.decode.calibrated_hits(words, np.zeros((spd.detector.N_LAYERS, 3)))
    slices = _slices(spd)
    slices["duration_ns"] = 100_000
    assert len(hits) > 10_000
    assert len(spd.reconstruct.reconstruct(slices, hits)[1]) <= 2


def test_decay_muons_have_the_mass_of_their_parent(spd: SimpleNamespace) -> None:
    n = 50
    _, charge, pt, phi, cot = spd.simulate._decay_muons(np.random.default_rng(2), np.arange(n))
    muons = np.zeros(2 * n, spd.spdio.TRACK)
    muons["pt"], muons["phi"], muons["cot_theta"], muons["charge"] = pt, phi, cot, charge
    for i in range(n):
        mass = spd.select_events.pair_mass(muons[i], muons[n + i])
        assert mass == pytest.approx(spd.simulate.JPSI_GEV, rel=1e-4)


@pytest.mark.parametrize(
    ("pts", "charges", "selected"),
    [
        ((1.6, 1.5), (1, -1), True),
        ((1.6, 1.5), (1, 1), False),
        ((1.6, 0.9), (1, -1), False),
        ((1.1, 1.05), (1, -1), False),
    ],
    ids=["pair", "same charge", "one soft", "mass too low"],
)
def test_filter_wants_a_hard_pair_of_opposite_charge(
    spd: SimpleNamespace, pts: tuple[float, float], charges: tuple[int, int], selected: bool
) -> None:
    tracks = np.zeros(2, spd.spdio.TRACK)
    tracks["pt"], tracks["charge"], tracks["phi"] = pts, charges, (0.0, np.pi)
    mass = spd.select_events.best_mass(tracks, 1.0, 2.7, 3.5)
    assert (mass is not None) == selected
