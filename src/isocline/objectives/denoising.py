r"""Denoising regression: ``E_t w(t) E |D(x_t, t) - x_0|^2``.

Weight and time law are two separate objects; the network's output and its preconditioning belong to the denoiser, the noise
to the process. EDM (Karras et al., arXiv 2206.00364) is ``EDMWeight`` with ``LogNormal`` times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isocline._core.stream import Stream
from isocline.processes import Denoiser, GaussianProcess


@dataclass(frozen=True)
class LogNormal:
    """Noise level ``s`` with ``log s ~ N(mean, std^2)``, clipped to the process's range."""

    mean: float = -1.2
    std: float = 1.2

    def __call__(self, process: GaussianProcess, batch: int, rng: Stream, step: int) -> Tensor:
        """Return times (B,) in float64."""
        level = torch.exp(self.mean + self.std * rng.normal((batch,), step=step, dtype=torch.float64))
        return process.time_of_noise_level(level).clamp(process.t_min, process.t_max)


@dataclass(frozen=True)
class EDMWeight:
    """``(s^2 + sd^2) / (s sd)^2``: unit weight on the output of an EDM-preconditioned network."""

    sigma_data: float

    def __call__(self, process: GaussianProcess, t: Tensor) -> Tensor:
        """Return weights of the shape of `t`."""
        s = process.noise_level(t)
        return (s**2 + self.sigma_data**2) / (s * self.sigma_data) ** 2


@dataclass(frozen=True)
class DenoisingObjective:
    """Weighted squared error of the data prediction, averaged over the batch and the datum's entries.

    Args:
        weight: ``(process, t) -> w`` of the shape of `t`.
        time_law: ``(process, batch, rng, step) -> t`` (B,).
    """

    weight: Callable[[GaussianProcess, Tensor], Tensor]
    time_law: Callable[[GaussianProcess, int, Stream, int], Tensor]

    def loss(self, denoiser: Denoiser, x0: Tensor, rng: Stream, step: int, cond: Any = None) -> Tensor:
        """Return the loss of one batch `x0` (B, *); all draws depend on (`rng`, `step`, sample) alone."""
        process = denoiser.process
        t = self.time_law(process, x0.shape[0], rng.child("time"), step)
        x_t, _ = process.perturb(x0, t, rng.child("noise"), step=step)
        error = denoiser.predict(x_t, t, cond).x0 - x0
        per_sample = error.flatten(1).square().mean(1)
        return (self.weight(process, t).to(per_sample.dtype) * per_sample).mean()
