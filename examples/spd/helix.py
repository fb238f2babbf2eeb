"""Helices through the layers: where they cross, and their least-squares fit.

Candidates are rows, the ten layers are columns. The fit takes measurement errors and multiple
scattering into account.
"""

from dataclasses import dataclass, replace

import detector as det
import numpy as np


@dataclass(frozen=True)
class Hits:
    """Hits of time clusters. `index` is the hit's number in the slice."""

    cluster: np.ndarray
    layer: np.ndarray
    phi: np.ndarray
    z: np.ndarray
    time: np.ndarray
    index: np.ndarray

    def take(self, choice: np.ndarray) -> "Hits":
        """The hits that an index array or mask chooses."""
        return Hits(*(getattr(self, name)[choice] for name in self.__dataclass_fields__))

    @property
    def block(self) -> np.ndarray:
        """A number for each (cluster, layer)."""
        return np.asarray(self.cluster * det.N_LAYERS + self.layer)


@dataclass(frozen=True)
class Helices:
    """Track candidates: `hits` holds row numbers of `Hits` per layer, -1 where there is none.

    `kappa` is the turning angle per cm (negative for positive charge), `phi` the direction and
    `d0` the signed distance at the point nearest to the beam line, `chi2` per degree of freedom.
    """

    cluster: np.ndarray
    kappa: np.ndarray
    phi: np.ndarray
    d0: np.ndarray
    z0: np.ndarray
    cot: np.ndarray
    time: np.ndarray
    hits: np.ndarray
    chi2: np.ndarray

    def take(self, choice: np.ndarray) -> "Helices":
        """The candidates that an index array or mask chooses."""
        return Helices(*(getattr(self, name)[choice] for name in self.__dataclass_fields__))

    @classmethod
    def joined(cls, parts: "list[Helices]") -> "Helices":
        """The candidates of all parts."""
        return cls(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in cls.__dataclass_fields__
            )
        )

    @property
    def n_hits(self) -> np.ndarray:
        """Number of hits of each candidate."""
        return np.asarray((self.hits >= 0).sum(axis=1))

    @property
    def pt(self) -> np.ndarray:
        """Transverse momentum in GeV."""
        return np.asarray(det.GEV_CM / np.maximum(np.abs(self.kappa), 1e-9))


def crossings(helices: Helices, radii: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where helices cross cylinders: (phi, transverse path, z); NaN where they turn before."""
    kappa, d0 = helices.kappa[:, None], helices.d0[:, None]
    stretch = 1 + kappa * d0
    with np.errstate(invalid="ignore"):
        turn = np.arcsin((kappa * radii / 2 + (1 + kappa * d0 / 2) * d0 / radii) / stretch)
        chord = np.sqrt((radii**2 - d0**2) / stretch)
        half = kappa * chord / 2
        path = chord * np.where(np.abs(half) < 1e-6, 1.0, np.arcsin(half) / half)
    z = helices.z0[:, None] + helices.cot[:, None] * path
    return helices.phi[:, None] + turn, path, z


def fit(hits: Hits, helices: Helices) -> Helices:
    """Least-squares fit of circle and line; two iterations from the candidate's parameters."""
    if not len(helices.phi):
        return helices
    present = helices.hits >= 0
    phi_hit = hits.phi[helices.hits]
    z_hit = hits.z[helices.hits]
    radii, sin = det.RADII, 1 / np.hypot(1, helices.cot)
    scatter = det.scattering_angle(helices.pt, helices.cot)
    weight_phi = _weights(present, det.SIGMA_RPHI, scatter / sin)
    weight_z = _weights(present, det.SIGMA_Z, scatter / sin**2)
    for _ in range(2):
        phi, path, z = crossings(helices, radii)
        ok = present & np.isfinite(phi)
        turn = np.where(ok, phi - helices.phi[:, None], 0.0)
        slope = 1 / np.cos(turn)
        off = np.where(ok, (phi_hit - phi + np.pi) % (2 * np.pi) - np.pi, 0.0) * radii
        design = np.stack([np.ones_like(slope), slope * radii / 2, slope / radii], axis=2)
        design *= (radii * ok)[:, :, None]
        step, chi2_phi = _least_squares(design, off, weight_phi)
        path = np.where(ok, path, 0.0)
        line = np.stack([ok * 1.0, path], axis=2)
        step_z, chi2_z = _least_squares(line, np.where(ok, z_hit - z, 0.0), weight_z)
        helices = replace(
            helices,
            phi=helices.phi + step[:, 0],
            kappa=helices.kappa + step[:, 1],
            d0=np.clip(helices.d0 + step[:, 2], -2.0, 2.0),
            z0=helices.z0 + step_z[:, 0],
            cot=helices.cot + step_z[:, 1],
        )
    freedom = np.maximum(2 * present.sum(axis=1) - 5, 1)
    return replace(
        helices,
        chi2=(chi2_phi + chi2_z) / freedom,
        phi=(helices.phi + np.pi) % (2 * np.pi) - np.pi,
    )


_LEVER = np.maximum(det.RADII[:, None] - det.RADII[None, :], 0)
_SCATTER = _LEVER @ _LEVER.T
"""Covariance of the layers' displacements for a scattering angle of 1 in each layer."""


def _weights(present: np.ndarray, sigma: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Inverse covariance per candidate (n, layer, layer); layers without a hit weigh nothing."""
    covariance = angle[:, None, None] ** 2 * _SCATTER
    diagonal = np.where(present, sigma**2, 1e9)
    covariance[:, np.arange(det.N_LAYERS), np.arange(det.N_LAYERS)] += diagonal
    weight = np.linalg.inv(covariance)
    return np.asarray(weight * present[:, :, None] * present[:, None, :])


def _least_squares(
    design: np.ndarray, residual: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The (parameter step, chi2 after the step) of a linear fit per row."""
    weighted = weight @ design
    normal = np.swapaxes(design, 1, 2) @ weighted
    normal += 1e-12 * np.eye(normal.shape[1])
    right = np.swapaxes(weighted, 1, 2) @ residual[:, :, None]
    step = np.linalg.solve(normal, right)
    left = residual - (design @ step)[:, :, 0]
    chi2 = (left * (weight @ left[:, :, None])[:, :, 0]).sum(axis=1)
    return step[:, :, 0], chi2


def pulls(hits: Hits, helices: Helices) -> np.ndarray:
    """Distance of each hit from its helix in units of its error, 0 where there is no hit."""
    phi, _, z = crossings(helices, det.RADII)
    reach = det.scattering_angle(helices.pt, helices.cot)[:, None] * np.sqrt(np.diag(_SCATTER))
    sin = 1 / np.hypot(1, helices.cot)[:, None]
    off_phi = (hits.phi[helices.hits] - phi + np.pi) % (2 * np.pi) - np.pi
    pull = (off_phi * det.RADII) ** 2 / (det.SIGMA_RPHI**2 + (reach / sin) ** 2)
    pull += (hits.z[helices.hits] - z) ** 2 / (det.SIGMA_Z**2 + (reach / sin**2) ** 2)
    return np.sqrt(np.where((helices.hits >= 0) & np.isfinite(pull), pull, 0.0))
