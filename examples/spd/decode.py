"""Decode a slice file into calibrated hits.

Exit codes: 0 done, 2 bad arguments, 65 the slice is corrupt, 66 an input can't be used,
74 the output can't be written.
"""

import argparse
import csv
from pathlib import Path

import detector as det
import numpy as np
import spdio


def read_calibration(path: Path) -> np.ndarray:
    """The per-layer offsets as an array (layer, 3): time [ns], phi [rad], z [cm]."""
    try:
        rows = list(csv.DictReader(spdio.read_bytes(path).decode("ascii").splitlines()))
        found = {int(row["layer"]): row for row in rows}
        table = np.array(
            [
                [float(found[layer][name]) for name in ("time_ns", "phi_mrad", "z_cm")]
                for layer in range(det.N_LAYERS)
            ]
        )
    except (ValueError, KeyError, TypeError) as error:
        raise spdio.FailureError(
            spdio.BAD_INPUT,
            f"{path} is no calibration table; it needs the columns layer, time_ns, phi_mrad, "
            f"z_cm and a row for each of the {det.N_LAYERS} layers.",
        ) from error
    return table * [1.0, 0.001, 1.0]


def calibrated_hits(words: np.ndarray, calibration: np.ndarray) -> np.ndarray:
    """The hit table of these words."""
    tick, layer, phi_channel, z_channel, _ = det.unpack_words(words)
    phi, z = det.coordinates(layer, phi_channel, z_channel)
    offset = calibration[layer]
    hits = np.zeros(len(words), spdio.HIT)
    hits["time"] = (tick + 0.5) * det.TICK_NS - offset[:, 0]
    hits["phi"] = (phi - offset[:, 1] + np.pi) % (2 * np.pi) - np.pi
    hits["z"] = z - offset[:, 2]
    hits["layer"] = layer
    hits["word"] = words
    return hits


def main() -> int:
    """Read, verify, calibrate, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slice", type=Path, help="raw slice file")
    parser.add_argument("--calibration", type=Path, required=True, help="table of offsets")
    parser.add_argument("--output", type=Path, required=True, help="hit file to write")
    arguments = parser.parse_args()
    calibration = read_calibration(arguments.calibration)
    data = spdio.read_bytes(arguments.slice)
    try:
        header, words = det.decode_slice(data)
    except det.CorruptSliceError as error:
        raise spdio.FailureError(
            spdio.CORRUPT_SLICE, f"{arguments.slice.name} is corrupt: {error}."
        ) from error
    row = (header.run, header.number, len(data), header.start_ns, header.duration_ns)
    spdio.write_tables(
        arguments.output,
        slices=np.array([row], spdio.SLICE),
        hits=calibrated_hits(words, calibration),
    )
    print(f"run {header.run} slice {header.number}: {len(words)} hits")
    return 0


if __name__ == "__main__":
    spdio.run(main)
