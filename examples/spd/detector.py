"""The model detector that all programs of this folder share: geometry, field, hit words.

Ten cylinders around the beam line in a solenoid field along z. Lengths are centimetres, times
nanoseconds, momenta GeV/c, angles radians.
"""

import struct
import zlib
from dataclasses import dataclass

import numpy as np

FIELD_T = 1.0
LIGHT_CM_NS = 29.9792458
GEV_CM = 0.00299792458 * FIELD_T
"""pT [GeV] = GEV_CM * radius of curvature [cm], that is 0.3 B R."""

RADII = np.array([5.0, 9.0, 13.0, 20.0, 30.0, 40.0, 50.0, 60.0, 72.0, 85.0])
N_LAYERS = len(RADII)
HALF_LENGTHS = 50.0 + RADII
PITCH_RPHI = np.array([0.01] * 4 + [0.05] * 6)
PITCH_Z = np.array([0.05] * 4 + [1.0] * 6)
SMEAR_RPHI = np.array([0.003] * 4 + [0.015] * 6)
SMEAR_Z = np.array([0.02] * 4 + [0.4] * 6)
SIGMA_RPHI = np.hypot(SMEAR_RPHI, PITCH_RPHI / np.sqrt(12))
SIGMA_Z = np.hypot(SMEAR_Z, PITCH_Z / np.sqrt(12))
SIGMA_TIME = 15.0
TICK_NS = 1.0
RADIATION_LENGTHS = 0.002
"""Thickness of one layer, for multiple scattering."""
BEAM_SIGMA_XY = 0.02
BEAM_SIGMA_Z = 15.0

PHI_CHANNELS = np.round(2 * np.pi * RADII / PITCH_RPHI).astype(np.int64)
Z_CHANNELS = np.ceil(2 * HALF_LENGTHS / PITCH_Z).astype(np.int64)

PION_GEV = 0.13957
MUON_GEV = 0.10566

_HEADER = struct.Struct("<8sHHIIIIIQQ16s")
_MAGIC = b"SPDSLICE"
_VERSION = 1


@dataclass(frozen=True)
class SliceHeader:
    """What stands in the first 64 bytes of a slice file. `start_ns` is since the run began."""

    run: int
    number: int
    start_ns: int
    duration_ns: int


class CorruptSliceError(ValueError):
    """A slice file whose bytes contradict each other."""


def pack_words(
    ticks: np.ndarray, layers: np.ndarray, phi_channels: np.ndarray, z_channels: np.ndarray
) -> np.ndarray:
    """Hit words: bits 0-27 time tick, 28-31 layer, 32-47 phi channel, 48-61 z channel."""
    word = np.asarray(ticks, dtype=np.uint64)
    word = word | np.asarray(layers, dtype=np.uint64) << np.uint64(28)
    word = word | np.asarray(phi_channels, dtype=np.uint64) << np.uint64(32)
    return word | np.asarray(z_channels, dtype=np.uint64) << np.uint64(48)


def unpack_words(words: np.ndarray) -> tuple[np.ndarray, ...]:
    """The (tick, layer, phi channel, z channel, reserved bits) of hit words, as int64 arrays."""
    shifts_and_masks = ((0, 0xFFFFFFF), (28, 0xF), (32, 0xFFFF), (48, 0x3FFF), (62, 0x3))
    return tuple(
        (words >> np.uint64(shift) & np.uint64(mask)).astype(np.int64)
        for shift, mask in shifts_and_masks
    )


def encode_slice(header: SliceHeader, words: np.ndarray) -> bytes:
    """The bytes of a slice file: header, then the words, little-endian."""
    payload = np.ascontiguousarray(words, dtype="<u8").tobytes()
    head = _HEADER.pack(
        _MAGIC,
        _VERSION,
        _HEADER.size,
        header.run,
        header.number,
        len(words),
        zlib.crc32(payload),
        round(TICK_NS * 1000),
        header.start_ns,
        header.duration_ns,
        bytes(16),
    )
    return head + payload


def decode_slice(data: bytes) -> tuple[SliceHeader, np.ndarray]:
    """The (header, words) of a slice file's bytes; `CorruptSliceError` says what is wrong."""
    if len(data) < _HEADER.size:
        raise CorruptSliceError(f"it has {len(data)} bytes, less than a header of {_HEADER.size}")
    magic, version, size, run, number, count, crc, tick_ps, start, duration, _ = (
        _HEADER.unpack_from(data)
    )
    if magic != _MAGIC:
        raise CorruptSliceError(f"it begins with {magic!r} instead of {_MAGIC!r}")
    if version != _VERSION or size != _HEADER.size:
        raise CorruptSliceError(f"its format version is {version}, this program reads {_VERSION}")
    if tick_ps != round(TICK_NS * 1000):
        raise CorruptSliceError(f"its clock tick is {tick_ps} ps, not {TICK_NS * 1000:.0f} ps")
    payload = data[_HEADER.size :]
    if len(payload) != 8 * count:
        raise CorruptSliceError(
            f"its header promises {count} hit words but {len(payload)} bytes follow"
        )
    if zlib.crc32(payload) != crc:
        raise CorruptSliceError("its hit words don't fit the checksum in its header")
    words = np.frombuffer(payload, dtype="<u8")
    _check_words(words, duration)
    return SliceHeader(run, number, start, duration), words


def _check_words(words: np.ndarray, duration_ns: int) -> None:
    tick, layer, phi, z, reserved = unpack_words(words)
    bad = (reserved != 0) | (layer >= N_LAYERS) | (tick * TICK_NS >= duration_ns)
    known = np.minimum(layer, N_LAYERS - 1)
    bad |= (phi >= PHI_CHANNELS[known]) | (z >= Z_CHANNELS[known])
    if bad.any():
        raise CorruptSliceError(
            f"{bad.sum()} hit words name no channel or lie outside the slice's time, "
            f"the first is word {bad.argmax()}"
        )


def channels(layer: np.ndarray, phi: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The (phi channel, z channel) that a hit at these coordinates fires."""
    turn = phi / (2 * np.pi) % 1.0
    phi_channel = (turn * PHI_CHANNELS[layer]).astype(np.int64) % PHI_CHANNELS[layer]
    z_channel = ((z + HALF_LENGTHS[layer]) / PITCH_Z[layer]).astype(np.int64)
    return phi_channel, np.clip(z_channel, 0, Z_CHANNELS[layer] - 1)


def coordinates(
    layer: np.ndarray, phi_channel: np.ndarray, z_channel: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The (phi, z) of a channel's centre; phi lies in [0, 2 pi)."""
    phi = (phi_channel + 0.5) * (2 * np.pi) / PHI_CHANNELS[layer]
    return phi, (z_channel + 0.5) * PITCH_Z[layer] - HALF_LENGTHS[layer]


def scattering_angle(pt: np.ndarray, cot_theta: np.ndarray) -> np.ndarray:
    """Width of the multiple-scattering angle in one layer, for a pion (Highland, no log term)."""
    sin_theta = 1 / np.hypot(1, cot_theta)
    momentum = pt / sin_theta
    beta = momentum / np.hypot(momentum, PION_GEV)
    return np.asarray(0.0136 / (beta * momentum) * np.sqrt(RADIATION_LENGTHS / sin_theta))
