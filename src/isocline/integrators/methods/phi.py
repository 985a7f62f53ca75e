r"""The phi functions of exponential integrators.

    phi_0(z) = e^z ,        phi_{k+1}(z) = (phi_k(z) - 1/k!) / z ,        phi_k(0) = 1 / k!

The recurrence cancels near zero. Numbers below 1 in size use the Taylor series, others the recurrence, which then loses
at most a few units in the last place. Matrices use one exponential of a block matrix (Sidje; Al-Mohy and Higham, SIAM
J. Sci. Comput. 33 (2011) 488), with

    exp [[Z, I, 0], [0, 0, I], [0, 0, 0]] = [[e^Z, phi_1(Z), phi_2(Z)], ...]
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

TERMS = 22


def phi(z: Tensor, count: int) -> list[Tensor]:
    """Return ``phi_0`` to ``phi_count`` of every entry of `z`, real or complex.

    >>> [round(float(p), 6) for p in phi(torch.tensor(1e-9, dtype=torch.float64), 3)]
    [1.0, 1.0, 0.5, 0.166667]
    """
    small = z.abs() < 1.0
    near, far = torch.where(small, z, 0.0), torch.where(small, 1.0, z)
    found, last = [torch.exp(z)], torch.exp(far)
    for k in range(1, count + 1):
        last = (last - 1 / math.factorial(k - 1)) / far
        found.append(torch.where(small, _taylor(near, k), last))
    return found


def _taylor(z: Tensor, k: int) -> Tensor:
    """Return ``sum_j z^j / (j + k)!``."""
    total = torch.full_like(z, 1 / math.factorial(TERMS + k))
    for j in reversed(range(TERMS)):
        total = total * z + 1 / math.factorial(j + k)
    return total


def matrix_phi(z: Tensor, count: int) -> list[Tensor]:
    """Return ``phi_0`` to ``phi_count`` of square matrices, shape (..., n, n)."""
    n = z.shape[-1]
    wide = z.new_zeros((*z.shape[:-2], (count + 1) * n, (count + 1) * n))
    wide[..., :n, :n] = z
    for k in range(count):
        wide[..., k * n : (k + 1) * n, (k + 1) * n : (k + 2) * n] = torch.eye(n, dtype=z.dtype, device=z.device)
    whole = torch.linalg.matrix_exp(wide)
    return [whole[..., :n, k * n : (k + 1) * n] for k in range(count + 1)]
