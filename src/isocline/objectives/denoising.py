r"""Denoising regression: ``E_t E P(w(t) |D(x_t, t) - x_0|^2)``, with ``P`` the identity unless said otherwise.

Weight, time law and penalty are separate objects; the network's output and its preconditioning belong to the denoiser, the noise
to the process, and which noise goes with which datum, the coupling, to the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from isocline._core.errors import require
from isocline._core.stream import Stream
from isocline.objectives.penalties import Penalty, squared
from isocline.processes import Denoiser, GaussianProcess
from isocline.processes.gaussian import match


@dataclass(frozen=True)
class DenoisingObjective:
    """Weighted squared error of the data prediction, averaged over the batch and the datum's entries.

    Args:
        weight: ``(process, t) -> w`` of the shape of `t`.
        time_law: ``(process, batch, rng, step, first) -> t`` (B,).
        penalty: ``(process, t, error) -> loss``, on the weighted error of each sample.
    """

    weight: Callable[[GaussianProcess, Tensor], Tensor]
    time_law: Callable[[GaussianProcess, int, Stream, int, int], Tensor]
    penalty: Penalty = squared

    def loss(
        self,
        denoiser: Denoiser,
        x0: Tensor,
        rng: Stream,
        step: int,
        cond: Any = None,
        *,
        noise: Tensor | None = None,
        first: int = 0,
    ) -> Tensor:
        """Return the loss of one batch, or of a part of it that begins with sample `first`.

        All draws depend on (`rng`, `step`, sample) alone.

        Args:
            denoiser: what is trained.
            x0: data (B, *).
            rng: stream of times and noise.
            step: number of the update.
            cond: passed to the denoiser.
            noise: (B, *) the noise that goes with each datum, for pairs; drawn independently where it is None.
            first: index of the first sample in the whole batch.
        """
        process = denoiser.process
        t = self.time_law(process, x0.shape[0], rng.child("time"), step, first).to(x0.device)
        if noise is None:
            x_t, _ = process.perturb(x0, t, rng.child("noise"), step=step, first=first)
        else:
            require(noise.shape == x0.shape, f"noise {tuple(noise.shape)} does not pair with data {tuple(x0.shape)}")
            x_t = match(process.alpha(t), x0) * x0 + match(process.sigma(t), x0) * noise
        return self.per_sample(denoiser, x0, x_t, t, cond).mean()

    def per_sample(self, denoiser: Denoiser, x0: Tensor, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """Return the loss (B,) of states `x_t` (B, *) made from `x0` (B, *) at times `t` (B,)."""
        mean_square = (denoiser.predict(x_t, t, cond).x0 - x0).flatten(1).square().mean(1)
        weighted = self.weight(denoiser.process, t).to(mean_square.dtype) * mean_square
        return self.penalty(denoiser.process, t, weighted)
