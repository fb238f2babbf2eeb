"""Simulate time slices of a free-running detector: raw files, a calibration table and the truth.

Collisions happen at random times and overlap; no trigger says where an event begins.
Exit codes: 0 done, 2 bad arguments, 74 the folder can't be written.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import detector as det
import numpy as np
import spdio

EVENT_RATE_PER_NS = 0.003
GUARD_NS = 400
"""Quiet time at both ends of a slice, so that no event is cut in two."""
MEAN_TRACKS = 8.0
PT_SCALE = 0.18
ETA_MAX = 1.0
SIGNAL_SHARE = 0.004
JPSI_GEV = 3.0969
HIT_EFFICIENCY = 0.97
NOISE_PER_NS = 0.15

Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Calibration:
    """Per-layer offsets that the readout adds: time [ns], phi [rad], z [cm]."""

    time: np.ndarray
    phi: np.ndarray
    z: np.ndarray

    def text(self) -> str:
        """The table that `decode.py` reads."""
        lines = ["layer,time_ns,phi_mrad,z_cm"]
        for layer in range(det.N_LAYERS):
            row = (self.time[layer], 1000 * self.phi[layer], self.z[layer])
            lines.append(f"{layer}," + ",".join(f"{value:.4f}" for value in row))
        return "\n".join(lines) + "\n"


def make_calibration(seed: int) -> Calibration:
    """Offsets as a detector has them before alignment: tens of ns, tenths of a degree."""
    rng = np.random.default_rng([seed, 1])
    return Calibration(
        time=np.round(rng.uniform(-40, 40, det.N_LAYERS), 1),
        phi=np.round(rng.normal(0, 0.004, det.N_LAYERS), 5),
        z=np.round(rng.normal(0, 0.3, det.N_LAYERS), 3),
    )


def make_tracks(
    rng: np.random.Generator, duration_ns: int, mean_events: float
) -> tuple[Columns, Columns]:
    """The true events and tracks of one slice, as two dictionaries of arrays."""
    n_events = rng.poisson(mean_events)
    events = {
        "time": np.sort(rng.uniform(GUARD_NS, duration_ns - GUARD_NS, n_events)),
        "x": rng.normal(0, det.BEAM_SIGMA_XY, n_events),
        "y": rng.normal(0, det.BEAM_SIGMA_XY, n_events),
        "z": rng.normal(0, det.BEAM_SIGMA_Z, n_events),
        "signal": rng.random(n_events) < SIGNAL_SHARE,
    }
    event = np.repeat(np.arange(n_events), 2 + rng.poisson(MEAN_TRACKS - 2, n_events))
    n = len(event)
    pions = (
        event,
        rng.choice([-1, 1], n),
        rng.gamma(2.0, PT_SCALE, n) + 0.03,
        rng.uniform(-np.pi, np.pi, n),
        np.sinh(rng.uniform(-ETA_MAX, ETA_MAX, n)),
    )
    muons = _decay_muons(rng, np.flatnonzero(events["signal"]))
    columns = [np.concatenate(pair) for pair in zip(pions, muons, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    names = ("event", "charge", "pt", "phi", "cot_theta")
    return events, {name: column[order] for name, column in zip(names, columns, strict=True)}


def _decay_muons(rng: np.random.Generator, event: np.ndarray) -> tuple[np.ndarray, ...]:
    """J/psi -> mu+ mu- in each of these events: two-body decay, boosted to the laboratory."""
    n = len(event)
    pt, phi = rng.gamma(2.0, 0.5, n), rng.uniform(-np.pi, np.pi, n)
    rapidity = rng.normal(0, 0.4, n)
    transverse_mass = np.hypot(JPSI_GEV, pt)
    parent = np.stack(
        [pt * np.cos(phi), pt * np.sin(phi), transverse_mass * np.sinh(rapidity)], axis=1
    )
    energy = transverse_mass * np.cosh(rapidity)
    cos_star, phi_star = rng.uniform(-1, 1, n), rng.uniform(-np.pi, np.pi, n)
    sin_star = np.sqrt(1 - cos_star**2)
    direction = np.stack(
        [sin_star * np.cos(phi_star), sin_star * np.sin(phi_star), cos_star], axis=1
    )
    p_star = np.sqrt((JPSI_GEV / 2) ** 2 - det.MUON_GEV**2)
    pieces = []
    for charge in (1, -1):
        p = charge * p_star * direction
        along = (parent * p).sum(1)
        p = p + parent * ((along / (energy + JPSI_GEV) + JPSI_GEV / 2) / JPSI_GEV)[:, None]
        pt_muon = np.hypot(p[:, 0], p[:, 1])
        angle = np.arctan2(p[:, 1], p[:, 0])
        pieces.append((event, np.full(n, charge), pt_muon, angle, p[:, 2] / pt_muon))
    return tuple(np.concatenate(pair) for pair in zip(*pieces, strict=True))


def make_hits(rng: np.random.Generator, events: Columns, tracks: Columns) -> tuple[np.ndarray, ...]:
    """Where and when the tracks cross the layers: (track, layer, phi, z, time) of each hit."""
    event = tracks["event"]
    x, y = events["x"][event][:, None], events["y"][event][:, None]
    phi, cot = tracks["phi"][:, None], tracks["cot_theta"][:, None]
    # Turning angle per cm of path in the transverse plane; positive tracks turn clockwise.
    kappa = (-tracks["charge"] * det.GEV_CM / tracks["pt"])[:, None]
    centre_x, centre_y = x - np.sin(phi) / kappa, y + np.cos(phi) / kappa
    distance, rho = np.hypot(centre_x, centre_y), 1 / np.abs(kappa)
    cosine = (distance**2 + rho**2 - det.RADII**2) / (2 * distance * rho)
    reached = np.abs(cosine) < 1
    opening = np.arccos(np.clip(cosine, -1, 1))
    begin = np.arctan2(y - centre_y, x - centre_x)
    end = np.arctan2(-centre_y, -centre_x) + np.sign(kappa) * opening
    turned = (np.sign(kappa) * (end - begin) + np.pi) % (2 * np.pi) - np.pi
    path = turned * rho
    hit_phi = np.arctan2(centre_y + rho * np.sin(end), centre_x + rho * np.cos(end))
    hit_z = events["z"][event][:, None] + cot * path

    sin_theta = 1 / np.hypot(1, cot)
    angle = det.scattering_angle(tracks["pt"], tracks["cot_theta"])[:, None]
    lever = np.maximum(det.RADII[None, :] - det.RADII[:, None], 0)
    kick_phi = rng.normal(size=path.shape) * angle / sin_theta
    kick_z = rng.normal(size=path.shape) * angle / sin_theta**2
    hit_phi += (kick_phi @ lever + rng.normal(size=path.shape) * det.SMEAR_RPHI) / det.RADII
    hit_z += kick_z @ lever + rng.normal(size=path.shape) * det.SMEAR_Z
    flight = path / sin_theta / det.LIGHT_CM_NS
    time = events["time"][event][:, None] + flight
    time = time + rng.normal(0, det.SIGMA_TIME, path.shape)

    seen = reached & (np.abs(hit_z) < det.HALF_LENGTHS) & (rng.random(path.shape) < HIT_EFFICIENCY)
    track, layer = np.nonzero(seen)
    return track, layer, hit_phi[seen], hit_z[seen], time[seen]


def make_noise(rng: np.random.Generator, duration_ns: int) -> tuple[np.ndarray, ...]:
    """Random hits, uniform over layers, channels and time."""
    n = rng.poisson(NOISE_PER_NS * (duration_ns - 2 * GUARD_NS))
    layer = rng.integers(0, det.N_LAYERS, n)
    phi = rng.uniform(-np.pi, np.pi, n)
    z = rng.uniform(-1, 1, n) * det.HALF_LENGTHS[layer]
    return np.full(n, -1), layer, phi, z, rng.uniform(GUARD_NS, duration_ns - GUARD_NS, n)


def make_slice(
    seed: int, run: int, number: int, mean_events: float, calibration: Calibration
) -> tuple[bytes, Columns]:
    """One slice: the bytes of its file, and its truth as tables."""
    rng = np.random.default_rng([seed, 2, run, number])
    duration = round(mean_events / EVENT_RATE_PER_NS) + 2 * GUARD_NS
    events, tracks = make_tracks(rng, duration, mean_events)
    parts = zip(make_hits(rng, events, tracks), make_noise(rng, duration), strict=True)
    track, layer, phi, z, time = (np.concatenate(pair) for pair in parts)

    tick = ((time + calibration.time[layer]) / det.TICK_NS).astype(np.int64)
    phi_channel, z_channel = det.channels(
        layer, phi + calibration.phi[layer], z + calibration.z[layer]
    )
    words = det.pack_words(tick, layer, phi_channel, z_channel)
    order = np.argsort(words & np.uint64(0xFFFFFFF), kind="stable")
    header = det.SliceHeader(run, number, (number - 1) * duration, duration)
    truth = {f"event_{name}": column for name, column in events.items()}
    truth |= {f"track_{name}": column for name, column in tracks.items()}
    truth["word_track"] = track[order].astype(np.int32)
    return det.encode_slice(header, words[order]), truth


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--outdir", type=Path, required=True, help="folder for the files")
    parser.add_argument("--files", type=int, default=24, help="number of slices")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--run", type=int, default=42, help="run number")
    parser.add_argument("--events-per-slice", type=float, default=600.0, help="mean number")
    parser.add_argument(
        "--corrupt", type=int, nargs="?", const=1, metavar="N", help="damage slice N (default 1)"
    )
    arguments = parser.parse_args()
    if arguments.files < 1 or arguments.seed < 0:
        parser.error("--files must be at least 1, --seed at least 0.")
    if not 0 <= arguments.run < 2**32:
        parser.error("--run must lie between 0 and 4294967295.")
    if not 1 <= arguments.events_per_slice <= 100_000:
        parser.error("--events-per-slice must lie between 1 and 100000.")
    if arguments.corrupt is not None and not 1 <= arguments.corrupt <= arguments.files:
        parser.error(f"--corrupt must name one of the slices 1 to {arguments.files}.")
    return arguments


def main() -> int:
    """Write `slices/`, `truth/` and `calibration.csv` under the output folder."""
    arguments = parse_arguments()
    calibration = make_calibration(arguments.seed)
    slices, truths = arguments.outdir / "slices", arguments.outdir / "truth"
    try:
        slices.mkdir(parents=True, exist_ok=True)
        truths.mkdir(exist_ok=True)
    except OSError as error:
        raise spdio.FailureError(
            spdio.CANT_WRITE, f"{arguments.outdir} can't be made a folder: {error.strerror}."
        ) from error
    spdio.write_bytes(arguments.outdir / "calibration.csv", calibration.text().encode("ascii"))
    for number in range(1, arguments.files + 1):
        data, truth = make_slice(
            arguments.seed, arguments.run, number, arguments.events_per_slice, calibration
        )
        if number == arguments.corrupt:
            data = data[:-1] + bytes([data[-1] ^ 0x10])
        name = f"run{arguments.run:04d}-{number:05d}"
        spdio.write_bytes(slices / f"{name}.raw", data)
        spdio.write_tables(truths / f"{name}.truth", **truth)
    print(f"{arguments.files} slices in {slices}")
    return 0


if __name__ == "__main__":
    spdio.run(main)
