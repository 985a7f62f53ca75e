r"""Learning which noise goes with which datum, so that paths are less curved (Lee et al., arXiv 2301.12003).

Where many pairs of datum and noise pass through one state, the velocity there is their average and the path of the ODE bends. An
encoder ``q(z | x) = N(mu(x), diag s(x)^2)`` chooses the noise; it is trained with the velocity by

    L = E |v(x_t, t) - (z - x_0)|^2 + beta KL(q(z | x_0) | N(0, I)) ,      x_t = (1 - t) x_0 + t z ,  z ~ q(z | x_0) .

The gradient reaches the encoder through ``z`` in both places. What is left of the first term when the velocity is optimal is the
variance of ``z - x_0`` given the state, the curvature; the second keeps the aggregate of all ``z`` normal, so samples start from
``N(0, I)`` and the encoder is dropped after training. ``beta -> infinity`` is the independent coupling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline._core.stream import Stream
from isocline.objectives.time_laws import TimeLaw, UniformTime
from isocline.processes import RectifiedFlow
from isocline.processes.gaussian import match

MIN_CURVATURE = Method(
    "min-curvature",
    "Learned coupling of minimal curvature",
    "Minimizing Trajectory Curvature of ODE-based Generative Models",
    "Sangyun Lee, Beomsu Kim, Jong Chul Ye",
    2023,
    "2301.12003",
    room="objectives",
    when="Flows that shall be sampled in few steps, where simulating pairs for reflow costs too much.",
)


class GaussianEncoder(nn.Module):
    """``q(z | x) = N(mu(x), diag s(x)^2)`` from a network that returns mean and log standard deviation side by side.

    Args:
        network: maps data (B, d) to (B, 2 d).
    """

    def __init__(self, network: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean (B, d) and log standard deviation (B, d)."""
        mean, log_std = self.network(x).chunk(2, dim=1)
        return mean, log_std


@MIN_CURVATURE.variant()
@dataclass(frozen=True)
class LearnedCoupling:
    """The joint loss of velocity and encoder, on the straight path.

    Args:
        beta: weight of the KL term, on the mean over entries; the paper takes 10 in two dimensions and 20 for images.
        time_law: at which times.
        process: gives the time range.
    """

    beta: float = 10.0
    time_law: TimeLaw = UniformTime()  # noqa: RUF009 - frozen
    process: RectifiedFlow = RectifiedFlow()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        require(self.beta >= 0, f"beta must not be negative, got {self.beta}")

    def loss(
        self,
        velocity: Callable[[Tensor, Tensor], Tensor],
        encoder: Callable[[Tensor], tuple[Tensor, Tensor]],
        x0: Tensor,
        rng: Stream,
        step: int,
        *,
        first: int = 0,
    ) -> Tensor:
        """Return the loss of one batch `x0` (B, d).

        Args:
            velocity: ``(x, t) -> v``, (B, d).
            encoder: ``x -> (mean, log standard deviation)``, (B, d) each.
            x0: data (B, d).
            rng: stream of times and noise.
            step: number of the update.
            first: index of the first sample in the whole batch.
        """
        mean, log_std = encoder(x0)
        fresh = rng.child("noise").normal(tuple(x0.shape), step=step, first=first, dtype=x0.dtype, device=x0.device)
        z = mean + torch.exp(log_std) * fresh
        t = self.time_law(self.process, x0.shape[0], rng.child("time"), step, first).to(x0)
        x_t = match(1 - t, x0) * x0 + match(t, x0) * z
        bend = (velocity(x_t, t) - (z - x0)).square().mean()
        return bend + self.beta * kl_to_normal(mean, log_std).mean()


def kl_to_normal(mean: Tensor, log_std: Tensor) -> Tensor:
    """Return ``KL(N(mean, std^2) | N(0, 1))`` of each entry."""
    return (mean.square() + torch.exp(2 * log_std) - 1) / 2 - log_std
