"""Integrals of Lagrange polynomials over a step, by Gauss-Legendre quadrature with 20 points."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

POINTS, SHARES = (torch.from_numpy(part / 2) for part in np.polynomial.legendre.leggauss(20))  # on [-1/2, 1/2]


def lagrange(nodes: Tensor, q: Tensor) -> list[Tensor]:
    """Return the Lagrange polynomials of `nodes` (k,), each evaluated at `q` (points,)."""
    bases = []
    for j in range(len(nodes)):
        factors = [(q - nodes[m]) / (nodes[j] - nodes[m]) for m in range(len(nodes)) if m != j]
        bases.append(torch.stack(factors).prod(0))
    return bases


def exponential_weights(nodes: Tensor, start: Tensor, end: Tensor) -> list[Tensor]:
    """Return ``int exp(u - end) L_j(u) du`` from `start` to `end` for the Lagrange polynomials of `nodes` (k,)."""
    u = start + (end - start) * (POINTS + 0.5)
    measure = torch.exp(u - end) * (end - start) * SHARES
    return [(basis * measure).sum() for basis in lagrange(nodes, u)]
