r"""Predictions that satisfy a conservation law (Hansen, Maddix, Alizadeh, Gupta, Mahoney, arXiv 2302.11002).

A prediction has mean mu and covariance Sigma at N points. With quadrature weights in the rows of G, the law is ``G u = b``, where b
is the mass at the start plus what has come through the boundary. Observing ``b = G u + noise`` gives the Gaussian

    mu' = mu - Sigma G' S^{-1} (G mu - b) ,     Sigma' = Sigma - Sigma G' S^{-1} G Sigma ,     S = sigma^2 I + G Sigma G'

With ``sigma = 0`` the law holds up to rounding. The correction goes where the variance is large; the Euclidean projection is the
same with ``Sigma = I``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.registry import Method

METHOD = Method(
    "probconserv",
    "ProbConserv",
    "Learning Physical Models that Can Respect Conservation Laws",
    "Hansen, Maddix, Alizadeh, Gupta, Mahoney",
    2023,
    "2302.11002",
    room="operators",
    when="Predictions with a variance, whose integrals are known.",
)


@METHOD.variant()
def conserved(mean: Tensor, covariance: Tensor, G: Tensor, b: Tensor, sigma: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return the mean (N,) and the covariance ``(N, N)`` that know the law, in float64.

    Args:
        mean: prediction, (N,).
        covariance: its covariance ``(N, N)``, or its variances (N,).
        G: one row of quadrature weights for each law, ``(K, N)``.
        b: the known integrals, (K,).
        sigma: standard deviation of the noise on b, in the unit of b.

    Raises:
        InvalidInput: shapes that do not fit, a negative sigma, or laws that the prediction's covariance cannot meet.
    """
    n = len(mean)
    require(G.ndim == 2 and G.shape[1] == n and b.shape == G.shape[:1], f"G must be (K, {n}) and b (K,)")
    require(covariance.shape in ((n,), (n, n)), f"covariance must be ({n},) or ({n}, {n})")
    require(sigma >= 0, f"sigma must not be negative, got {sigma}")
    mean, covariance, G, b = (part.double() for part in (mean, covariance, G, b))
    covariance = torch.diag(covariance) if covariance.ndim == 1 else covariance
    spread = covariance @ G.T
    schur = G @ spread + sigma**2 * torch.eye(len(b), dtype=G.dtype, device=G.device)
    factor, failed = torch.linalg.cholesky_ex(schur)
    require(not bool(failed), "G Sigma G' is singular: give laws that are independent, variances that are not all zero")
    gain = torch.cholesky_solve(spread.T, factor).T
    return mean - gain @ (G @ mean - b), covariance - gain @ spread.T


def projected(mean: Tensor, G: Tensor, b: Tensor) -> Tensor:
    """Return the nearest values (N,) with ``G u = b``, in float64: the Euclidean projection, without variances.

    Args:
        mean: prediction, (N,).
        G: one row of quadrature weights for each law, ``(K, N)``.
        b: the known integrals, (K,).

    Raises:
        InvalidInput: as `conserved`.
    """
    return conserved(mean, torch.ones_like(mean), G, b)[0]
