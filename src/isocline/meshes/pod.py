r"""Proper orthogonal decomposition in the inner product of a mass matrix, by the method of snapshots.

Snapshots ``a_i`` minus their mean have the Gram matrix ``G_ij = a_i^T M a_j``. With its eigenvectors ``G v_k = l_k v_k`` the modes
``phi_k = sum_i v_ki a_i / sqrt(l_k)`` satisfy ``phi_k^T M phi_l = delta_kl``, and the first of them span the best space for the
snapshots in the norm of M. Source: Sirovich 1987; with M as in Casenave et al. 2023 (arXiv 2305.12871).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy import sparse
from torch import Tensor

from isocline._core.errors import require

LEAST = 1e-12  # modes of less energy, relative to the first, are rounding


@dataclass(frozen=True, eq=False)
class Modes:
    """A basis of fields.

    Attributes:
        mean: mean snapshot, (N,).
        modes: orthonormal in the mass matrix, (K, N).
        dual: mass matrix times modes, (K, N).
        energies: eigenvalues of the Gram matrix, decreasing, one for each snapshot.
    """

    mean: Tensor
    modes: Tensor
    dual: Tensor
    energies: Tensor

    def coefficients(self, fields: Tensor) -> Tensor:
        """Return coefficients (n, K) of fields (n, N)."""
        return (fields - self.mean) @ self.dual.T

    def fields(self, coefficients: Tensor) -> Tensor:
        """Return fields (n, N) of coefficients (n, K)."""
        return self.mean + coefficients @ self.modes


def pod(snapshots: Tensor, mass: sparse.csr_matrix, modes: int) -> Modes:
    """Return the first modes of snapshots (n, N); fewer where the snapshots span less.

    Args:
        snapshots: at least two, float64.
        mass: (N, N), symmetric and positive.
        modes: at most as many as snapshots minus one.

    Raises:
        InvalidInput: fewer than two snapshots, or more modes than they can give.
    """
    n = len(snapshots)
    require(n >= 2 and 1 <= modes <= n - 1, f"{n} snapshots give 1 to {n - 1} modes, not {modes}")
    mean = snapshots.mean(0)
    centred = snapshots - mean
    weighted = torch.from_numpy((mass @ centred.numpy().T).T.copy())
    values, vectors = torch.linalg.eigh(centred @ weighted.T)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    kept = slice(0, max(1, min(modes, int((values > LEAST * values[0]).sum()))))
    mix = vectors[:, kept].T / values[kept].clamp(min=torch.finfo(torch.float64).tiny).sqrt().unsqueeze(1)
    return Modes(mean, mix @ centred, mix @ weighted, values)
