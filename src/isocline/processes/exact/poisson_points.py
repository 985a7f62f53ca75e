r"""A finite set of points under the Poisson flow: the exact denoiser of PFGM++ (Xu et al., arXiv 2302.04265).

For points ``x_i`` of weights ``w_i`` in ``R^N`` and ``r^2 = sigma^2 D``,

    D(x, sigma) = sum_i q_i x_i ,      q_i = softmax_i( log w_i - (N + D)/2 log(1 + |x - x_i|^2 / r^2) ) ;

as ``D -> inf`` the logarithm becomes ``|x - x_i|^2 / (2 sigma^2)``, the case of `FinitePoints`. With the pulls
``g_i = (N + D) (x_i - x) / (r^2 + |x - x_i|^2)`` the Jacobian is ``dD/dx = sum_i q_i x_i (g_i - sum_j q_j g_j)^T``. Unlike that
of a Gaussian process it is not symmetric: the field is not the gradient of a function of ``x`` alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.stream import Stream
from isocline.processes.exact.base import ExactDenoiser
from isocline.processes.exact.points import FinitePoints
from isocline.processes.poisson_flow import PoissonFlow


class PoissonPoints(ExactDenoiser):
    """The exact denoiser of a finite set of points for a `PoissonFlow`.

    Its ``predict(...).score`` is the field ``(D - x) / sigma^2``, not the gradient of `log_density`.

    Args:
        process: a Poisson flow.
        points: the data (K, *).
        weights: probabilities (K,), equal ones by default.

    Examples:
        >>> two = PoissonPoints(PoissonFlow(D=1), torch.tensor([[-1.0], [1.0]]))
        >>> round(float(two.predict(torch.tensor([[0.5]]), 1.0).x0), 4)  # ratio of weights 3.25 / 1.25
        0.4444
    """

    def __init__(self, process: PoissonFlow, points: Tensor, weights: Tensor | None = None) -> None:
        flows = isinstance(process, PoissonFlow)
        require(flows, f"PoissonPoints needs a PoissonFlow, got {process.describe()}; FinitePoints has Gaussian noise")
        super().__init__(process, tuple(points.shape[1:]))
        self._flow, self._law = process, FinitePoints(process, points, weights)
        self.points, self.weights = self._law.means, self._law.weights

    def sample(self, n: int, rng: Stream | int, *, first: int = 0) -> Tensor:
        """Return `n` data (n, *) in float64."""
        return self._law.sample(n, rng, first=first)

    def _squared(self, x: Tensor) -> Tensor:
        points = self.points.to(x)
        squared = x.square().sum(-1, keepdim=True) - 2 * x @ points.T + points.square().sum(-1)
        return squared.clamp_min(0)  # rounding must not make a distance negative

    def _joint(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return the log weight of each point (B, K), without the constants that all of them share."""
        power = 0.5 * (x.shape[1] + self._flow.D)
        return torch.log(self.weights).to(x) - power * torch.log1p(self._squared(x) / (sigma**2 * self._flow.D))

    def _mean(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return torch.softmax(self._joint(x, sigma), -1) @ self.points.to(x)

    def _mean_vjp(self, x: Tensor, alpha: Tensor, sigma: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        share, points = torch.softmax(self._joint(x, sigma), -1), self.points.to(x)
        x0, along = share @ points, v @ points.T
        centred = along - (share * along).sum(-1, keepdim=True)
        # v^T dD/dx = sum_i c_i (x_i - x), since the centred products annul the mean of the pulls
        c = share * centred * (x.shape[1] + self._flow.D) / (sigma**2 * self._flow.D + self._squared(x))
        return x0, c @ points - c.sum(-1, keepdim=True) * x

    def _log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        n = x.shape[1]
        return torch.logsumexp(self._joint(x, sigma), -1) + self._flow.log_normaliser(n) - n * sigma.log().reshape(-1)
