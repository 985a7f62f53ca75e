r"""Laws on finitely many data: the points themselves, or a Gaussian around each of them.

With points ``x_i`` the posterior mean is ``D = sum_i softmax_i(log w_i - |x - alpha x_i|^2 / (2 sigma^2)) x_i``: what a
network that memorises its training set would output.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.processes.exact.mixture import GaussianMixture
from isocline.processes.gaussian import GaussianProcess


class FinitePoints(GaussianMixture):
    """The exact denoiser of a finite set of points.

    Args:
        process: any Gaussian process.
        points: the data (N, *).
        weights: probabilities (N,), equal ones by default.

    Examples:
        >>> from isocline.processes import EDM
        >>> two = FinitePoints(EDM(), torch.tensor([[-1.0], [1.0]]))
        >>> round(float(two.predict(torch.tensor([[0.5]]), 1.0).x0), 4)  # tanh(0.5)
        0.4621
    """

    def __init__(self, process: GaussianProcess, points: Tensor, weights: Tensor | None = None) -> None:
        super().__init__(process, points, torch.zeros(points.shape[0], dtype=torch.float64), weights)


class Empirical(GaussianMixture):
    """The exact denoiser of a kernel density: data blurred by a Gaussian of one bandwidth.

    Args:
        process: any Gaussian process.
        data: (N, *).
        bandwidth: standard deviation of the blur, in units of the data.
    """

    def __init__(self, process: GaussianProcess, data: Tensor, bandwidth: float) -> None:
        require(0 < bandwidth < math.inf, f"the bandwidth must be positive, got {bandwidth}; FinitePoints has none")
        super().__init__(process, data, torch.full((data.shape[0],), bandwidth, dtype=torch.float64))
