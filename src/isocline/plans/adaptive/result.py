"""What a sampler that chooses its own steps returns, and the error of one that found no end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, IsoclineError, NotFinite, require
from isocline._core.estimate import Cost
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance
from isocline.processes import GaussianProcess


class StepLimit(IsoclineError, RuntimeError):
    """A sampler used up its steps before it reached the end; the text says where it stood."""


@dataclass(frozen=True)
class AdaptiveRun:
    """The result of a run whose steps depended on the data; read like `Sampled`, with its steps.

    Attributes:
        x: (B, *) samples.
        cost: network calls per sample, averaged over the batch, and seconds.
        process: the process that was sampled.
        nodes: (n+1,) accepted times from noise to data, float64, averaged over the batch where each sample has its own.
        calls: (B,) network calls of each sample.
        accepted: (B,) accepted steps of each sample.
        rejected: (B,) rejected steps of each sample.
        origin: the sampler, its paper and its settings.
        solver: the solver whose steps were accepted, ``(process, times) -> Plan``; None where no plan has these steps.
        denoised: whether the samples are data predictions at the last node rather than states.
        guidance: guidance scale of the denoiser.
    """

    x: Tensor
    cost: Cost
    process: GaussianProcess
    nodes: Tensor
    calls: Tensor
    accepted: Tensor
    rejected: Tensor
    origin: Provenance
    solver: Callable[[GaussianProcess, Tensor], Plan] | None = None
    denoised: bool = False
    guidance: float = 1.0


def check_start(x: Tensor) -> None:
    """Refuse start states that are not a batch of finite floating-point numbers."""
    if not x.is_floating_point() or x.ndim < 1 or len(x) < 1:
        raise InvalidInput(f"start states must be floating point (B, *), got {x.dtype} {tuple(x.shape)}")
    require(bool(torch.isfinite(x).all()), "the start states hold NaN or infinity")


def check_ends(process: GaussianProcess, sampler: str) -> None:
    """Refuse a process without signal at its first time or without noise at its last."""
    first, last = process.t_max, process.t_min
    require(
        float(process.alpha(first)) > 0 and float(process.sigma(last)) > 0,
        f"{sampler} needs a finite noise level at both ends, but {process.describe()} has none at t = {first:g} or "
        f"t = {last:g}; give the process a smaller t_max or a larger t_min",
    )


def check_sde(process: GaussianProcess, sampler: str) -> None:
    """Refuse a process without Gaussian increments."""
    require(process.has_sde, f"{sampler} adds noise step by step, but {process.describe()} has no Gaussian increments")


def not_finite(where: str) -> NotFinite:
    """Return the error of a step that gave NaN or infinity."""
    return NotFinite(
        f"the model's output or the state became NaN or infinite {where}; check the model at this time, or its precision"
    )
