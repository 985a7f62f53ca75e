r"""Exact gradients of the discrete sampler: every operation recorded, or every call made again.

Both differentiate the numbers that the plan computes, so they agree to rounding and their error is only the sampler's own.
`Direct` holds the activations of all network calls, `Checkpointed` (gradient checkpointing; Chen et al., arXiv 1604.06174) the
states and the activations of one call, for twice the calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from isocline.plans.gradients.run import Run
from isocline.plans.runner import unroll
from isocline.processes import Checkpointed as CheckpointedDenoiser


@dataclass(frozen=True)
class Direct:
    """Backpropagation through all rows. The fastest where memory allows: it grows with the calls."""

    exact = True

    def sample(self, run: Run, report: Any = None) -> Tensor:
        """Return the samples (B, *); autograd has recorded every row."""
        return unroll(run.plan, run.denoiser, run.x, cond=run.cond, noise=run.recorded_noise())[-1]


@dataclass(frozen=True)
class Checkpointed:
    """Backpropagation that makes every network call again; memory of the states and of one call. Exact; the default."""

    exact = True

    def sample(self, run: Run, report: Any = None) -> Tensor:
        """Return the samples (B, *); of each call autograd has recorded the inputs."""
        cheap = CheckpointedDenoiser(run.denoiser)
        return unroll(run.plan, cheap, run.x, cond=run.cond, noise=run.recorded_noise())[-1]
