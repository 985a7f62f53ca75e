r"""EDM preconditioning as a denoiser (Karras et al., arXiv 2206.00364, table 1).

With the unscaled state ``y = x / alpha`` at noise level ``s`` and data of standard deviation ``sd``,

    D(x, t) = c_skip y + c_out F(c_in y, log(s) / 4),
    c_skip = sd^2 / (s^2 + sd^2),  c_out = s sd / sqrt(s^2 + sd^2),  c_in = 1 / sqrt(s^2 + sd^2),

so input and target of the network ``F`` have unit variance at every noise level. In terms of ``x`` the scalings are
``c_in y = x / q``, ``c_skip y = alpha sd^2 x / q^2`` and ``c_out = sigma sd / q`` with ``q^2 = sigma^2 + (alpha sd)^2``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.processes.denoiser import Denoiser
from isocline.processes.gaussian import GaussianProcess, match
from isocline.processes.parameterisation import Data


class Preconditioned(Denoiser):
    """A raw network ``F`` with EDM's scalings around it; its output is a data prediction.

    Args:
        network: called as ``F(x, c_noise)`` or ``F(x, c_noise, cond)``.
        process: any Gaussian process.
        sigma_data: standard deviation of the data.
    """

    def __init__(self, network: Callable[..., Tensor], process: GaussianProcess, sigma_data: float) -> None:
        require(sigma_data > 0, f"sigma_data must be positive, got {sigma_data}")
        super().__init__(process, Data())
        self.network, self.sigma_data = network, sigma_data

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """Return the data prediction (B, *)."""
        alpha, sigma, lam = self.process.alpha(t), self.process.sigma(t), self.process.half_log_snr(t)
        spread = torch.sqrt(sigma**2 + (alpha * self.sigma_data) ** 2)
        told = (-lam / 4).to(device=x.device, dtype=x.dtype).expand(x.shape[0])
        scaled = match(1 / spread, x) * x
        output = self.network(scaled, told) if cond is None else self.network(scaled, told, cond)
        skip, out = alpha * self.sigma_data**2 / spread**2, sigma * self.sigma_data / spread
        return match(skip, x) * x + match(out, x) * output
