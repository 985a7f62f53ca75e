r"""The uniform law on a sphere ``S^n`` of radius ``R`` in the first ``n + 1`` coordinates of ``R^d``.

Write ``p`` for those coordinates of ``x``, ``r = |p|`` and ``k = alpha R r / sigma^2``. Given ``x_t = x`` the direction
of the datum has the von Mises-Fisher law of concentration ``k`` around ``p / r``, so

    D = R A(k) p / r,     dD/dx = (alpha R^2 / sigma^2) [ (A / k) (I - u u^T) + A'(k) u u^T ],   u = p / r,
    log p_t(x) = -((r - alpha R)^2 + |x - p|^2) / (2 sigma^2) - (d / 2) log(2 pi sigma^2) + log E(k) - k,

with ``A``, ``E`` as in `isocline.processes.exact.bessel`; for the circle ``A = I_1 / I_0``. The standard case of data
on a submanifold (Lu, Wang and Bal, arXiv 2301.07882).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.stream import Stream, as_stream
from isocline.processes.exact.base import ExactDenoiser, normals
from isocline.processes.exact.bessel import log_mean_exp, mean_over_k, mean_slope
from isocline.processes.gaussian import GaussianProcess


class Sphere(ExactDenoiser):
    """The exact denoiser of the uniform law on a sphere.

    Args:
        process: any Gaussian process.
        dimension: ``d``, of the space.
        intrinsic: ``n``, of the sphere, at least 1 and below ``d``.
        radius: ``R``, in units of the data.
    """

    def __init__(self, process: GaussianProcess, dimension: int, intrinsic: int, radius: float = 1.0) -> None:
        fits = 1 <= intrinsic < dimension
        require(fits, f"a sphere needs 1 <= intrinsic < dimension, got intrinsic={intrinsic}, dimension={dimension}")
        require(0 < radius < math.inf, f"the radius must be positive, got {radius}")
        super().__init__(process, (dimension,))
        self.dimension, self.intrinsic, self.radius = dimension, intrinsic, float(radius)

    def sample(self, n: int, rng: Stream | int, *, first: int = 0) -> Tensor:
        """Return `n` data (n, d) in float64."""
        plane = normals(as_stream(rng, "sphere"), n, self.intrinsic + 1, first)
        return self._lift(self.radius * plane / torch.linalg.vector_norm(plane, dim=-1, keepdim=True))

    def _lift(self, plane: Tensor) -> Tensor:
        return torch.nn.functional.pad(plane, (0, self.dimension - self.intrinsic - 1))

    def _polar(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``p`` (B, n + 1), ``r`` (B, 1) and ``alpha R / sigma^2``."""
        plane = x[:, : self.intrinsic + 1]
        return plane, torch.linalg.vector_norm(plane, dim=-1, keepdim=True), alpha * self.radius / sigma**2

    def _mean(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        plane, r, scale = self._polar(x, alpha, sigma)
        return self._lift(self.radius * scale * mean_over_k(scale * r, self.intrinsic) * plane)

    def _mean_vjp(self, x: Tensor, alpha: Tensor, sigma: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        plane, r, scale = self._polar(x, alpha, sigma)
        k = scale * r
        over_k = mean_over_k(k, self.intrinsic)
        unit, v = plane / r.clamp_min(torch.finfo(x.dtype).tiny), v[:, : self.intrinsic + 1]
        bend = (mean_slope(k, over_k, self.intrinsic) - over_k) * (unit * v).sum(-1, keepdim=True) * unit
        x0, product = (self.radius * scale * part for part in (over_k * plane, over_k * v + bend))
        return self._lift(x0), self._lift(product)

    def _log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        plane, r, scale = self._polar(x, alpha, sigma)
        squared = (r - alpha * self.radius) ** 2 + (x[:, plane.shape[1] :] ** 2).sum(-1, keepdim=True)
        gauss = -0.5 * (squared / sigma**2 + self.dimension * torch.log(2 * math.pi * sigma**2))
        return (gauss + log_mean_exp(scale * r, self.intrinsic)).squeeze(-1)


class Circle(Sphere):
    """The uniform law on a circle in the first two coordinates: a `Sphere` with ``n = 1``.

    Args:
        process: any Gaussian process.
        dimension: ``d``, of the space.
        radius: in units of the data.
    """

    def __init__(self, process: GaussianProcess, dimension: int = 2, radius: float = 1.0) -> None:
        super().__init__(process, dimension, 1, radius)
