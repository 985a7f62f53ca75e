r"""Mixture of isotropic Gaussians: ``x_0 ~ sum_k w_k N(mu_k, std_k^2 I)``.

    p_t(x) = sum_k w_k N(x; alpha mu_k, var_k I),       var_k = alpha^2 std_k^2 + sigma^2,
    r_k    = softmax_k( log w_k - |x - alpha mu_k|^2 / (2 var_k) - (d / 2) log var_k ),
    D      = sum_k r_k (c_k x + (sigma^2 / var_k) mu_k),    c_k = alpha std_k^2 / var_k.

Distances are had from one matrix product, so nothing of size B x K x d is ever built.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.stream import Stream, as_stream
from isocline.processes.exact.base import ExactDenoiser, normals
from isocline.processes.gaussian import GaussianProcess


class GaussianMixture(ExactDenoiser):
    """The exact denoiser of a Gaussian mixture.

    Args:
        process: any Gaussian process.
        means: centres (K, *).
        stds: standard deviations (K,); zero makes a component a point.
        weights: probabilities (K,), equal ones by default.

    Examples:
        >>> from isocline.processes import EDM
        >>> one = GaussianMixture(EDM(), torch.zeros(1, 2), torch.ones(1))
        >>> one.predict(torch.full((1, 2), 4.0), 1.0).x0
        tensor([[2., 2.]])
    """

    def __init__(self, process: GaussianProcess, means: Tensor, stds: Tensor, weights: Tensor | None = None) -> None:
        super().__init__(process, tuple(means.shape[1:]))
        count = means.shape[0]
        weights = torch.full((count,), 1 / count, dtype=torch.float64) if weights is None else weights.double()
        require(means.ndim > 1 and count > 0, f"means must have shape (K, *), got {tuple(means.shape)}")
        for name, part in (("stds", stds), ("weights", weights)):
            require(part.shape == (count,), f"{name} must have shape ({count},), got {tuple(part.shape)}")
        require(bool((stds >= 0).all()), "stds must not be negative")
        normal = bool((weights > 0).all()) and abs(float(weights.sum()) - 1) < 1e-6
        require(normal, "weights must be positive and sum to 1; divide them by their sum")
        self.means, self.stds, self.weights = means.flatten(1), stds.double(), weights / weights.sum()

    @classmethod
    def smooth_bed(cls, process: GaussianProcess, seed: int = 0) -> GaussianMixture:
        """Return the smooth test bed: 8 dimensions, 6 overlapping components of random widths and weights."""
        stream = Stream(seed, "smooth bed")
        stds = 0.3 * torch.exp(0.3 * stream.child("stds").normal((6,), dtype=torch.float64))
        return cls(process, 0.6 * normals(stream.child("means"), 6, 8, 0), stds, _dirichlet(stream))

    @classmethod
    def sharp_bed(cls, process: GaussianProcess, seed: int = 0) -> GaussianMixture:
        """Return the sharp test bed: as the smooth one but separated components of std 0.1."""
        stream = Stream(seed, "sharp bed")
        stds = torch.full((6,), 0.1, dtype=torch.float64)
        return cls(process, normals(stream.child("means"), 6, 8, 0), stds, _dirichlet(stream))

    @classmethod
    def circle_bed(
        cls, process: GaussianProcess, d: int = 16, components: int = 512, radius: float = 1.0, std: float = 0.01
    ) -> GaussianMixture:
        """Return narrow Gaussians evenly on a circle in the first two of `d` coordinates."""
        angle = 2 * math.pi * torch.arange(components, dtype=torch.float64) / components
        means = torch.zeros(components, d, dtype=torch.float64)
        means[:, 0], means[:, 1] = radius * torch.cos(angle), radius * torch.sin(angle)
        return cls(process, means, torch.full((components,), std, dtype=torch.float64))

    def sample(self, n: int, rng: Stream | int, *, first: int = 0) -> Tensor:
        """Return `n` data (n, *) in float64."""
        stream = as_stream(rng, "mixture")
        edges = torch.cumsum(self.weights, 0)[:-1]
        which = torch.searchsorted(edges, stream.child("which").uniform((n,), first=first, dtype=torch.float64))
        noise = normals(stream.child("noise"), n, self.means.shape[1], first)
        return (self.means[which].double() + self.stds[which, None] * noise).reshape(n, *self.event)

    def responsibilities(self, x: Tensor, t: Tensor | float) -> Tensor:
        """Return the posterior probability (B, K) of each component."""
        return self._posterior(*self._flat(x, t, None))[0]

    def score(self, x: Tensor, t: Tensor | float) -> Tensor:
        """Return ``grad log p_t`` (B, *), without the division by ``sigma^2`` that a data prediction needs."""
        flat, alpha, sigma = self._flat(x, t, None)
        share, var = self._posterior(flat, alpha, sigma)
        pull = share / var
        return (alpha * pull @ self.means.to(x) - pull.sum(-1, keepdim=True) * flat).reshape(x.shape)

    def _joint(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log joint density of state and component (B, K), and ``var_k``."""
        means = self.means.to(x)
        var = alpha**2 * self.stds.to(x) ** 2 + sigma**2
        cross = x @ means.T
        squared = (x**2).sum(-1, keepdim=True) - 2 * alpha * cross + alpha**2 * (means**2).sum(-1)
        return torch.log(self.weights).to(x) - 0.5 * (squared / var + x.shape[1] * torch.log(2 * math.pi * var)), var

    def _posterior(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        joint, var = self._joint(x, alpha, sigma)
        return torch.softmax(joint, -1), var

    def _log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return torch.logsumexp(self._joint(x, alpha, sigma)[0], -1)

    def _mean(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        share, var = self._posterior(x, alpha, sigma)
        gain = alpha * self.stds.to(x) ** 2 / var
        return (share * gain).sum(-1, keepdim=True) * x + (share * (sigma**2 / var)) @ self.means.to(x)

    def _mean_vjp(self, x: Tensor, alpha: Tensor, sigma: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        share, var = self._posterior(x, alpha, sigma)
        means, gain, rest = self.means.to(x), alpha * self.stds.to(x) ** 2 / var, sigma**2 / var
        slope = (share * gain).sum(-1, keepdim=True)
        x0 = slope * x + (share * rest) @ means
        # d r_k / dx = r_k (g_k - sum_j r_j g_j) with g_k = (alpha mu_k - x) / var_k; v . (mean of component k) = along
        along = gain * (v * x).sum(-1, keepdim=True) + rest * (v @ means.T)
        lean = share * (along - (v * x0).sum(-1, keepdim=True)) / var
        return x0, slope * v + alpha * lean @ means - lean.sum(-1, keepdim=True) * x


def _dirichlet(stream: Stream, count: int = 6) -> Tensor:
    """Return weights from Dirichlet(3, ..., 3): normalised sums of three exponentials."""
    gamma = -torch.log(stream.child("weights").uniform((count, 3), dtype=torch.float64)).sum(-1)
    return gamma / gamma.sum()
