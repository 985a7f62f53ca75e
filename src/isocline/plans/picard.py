r"""Sampling plans parallel in time: Picard iteration on a window of rows (Shih et al., arXiv 2305.16317).

The network is the expensive part of a row, and a row is linear in its outputs, so the window of
`isocline.integrators.picard` is rolled out by the rows themselves,

    x_{i+1} = a_i x_i + sum_{j <= i} b_ij m_j + c_i z_i + k_i ,      m_j = network(x_j of the round before, tau_j) :

only outputs lag behind, the linear part is exact in every round, and multistep and multi-stage rows need nothing of their own.
The noises are those of `Plan.run`: functions of the row.

A state counts as settled where its change, root mean square over a sample's coordinates, is at most the tolerance times the
standard deviation of the noise that ancestral sampling would add in that step, ``sigma' sqrt(1 - (s'/s)^2)``: the paper's
measure. A row between equal noise levels has the ``sigma`` of its state.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from isocline._core.errors import NotFinite, require
from isocline._core.estimate import Cost
from isocline._core.stream import Stream
from isocline.integrators.picard import METHOD, Outputs, settle
from isocline.plans.plan import Plan
from isocline.plans.recorded import recorded_noise
from isocline.plans.runner import compiled
from isocline.processes import Denoiser


class ParallelSampled(NamedTuple):
    """The result of a parallel run.

    Attributes:
        x: (B, *) samples.
        rounds: network calls one after the other; `Plan.run` makes ``plan.calls``.
        evaluations: network calls for one batch that they amount to.
        cost: network calls (each of a whole window) and seconds.
        trajectory: (n+1, B, *) all states.
    """

    x: Tensor
    rounds: int
    evaluations: int
    cost: Cost
    trajectory: Tensor


@METHOD.variant()
@torch.no_grad()
def picard(
    plan: Plan,
    denoiser: Denoiser,
    x: Tensor,
    *,
    window: int = 32,
    tolerance: float = 0.01,
    cond: Any = None,
    rng: Stream | int | None = None,
    noise: Sequence[Tensor] | None = None,
) -> ParallelSampled:
    """Sample as ``plan.run``, a window of rows at once; with tolerance 0 to rounding.

    All samples share the window, so their number of rounds is that of the slowest of them.

    Args:
        plan: any plan without a threshold.
        denoiser: a denoiser of the plan's process and guidance scale; it is called with times (N,) and N samples, N up to
            ``window * B``.
        x: start states (B, *) at the plan's first time; not changed.
        window: rows that are evaluated at once.
        tolerance: change at which a state counts as settled, in units of the noise of its step.
        cond: passed to the denoiser; of any structure, tensors with a first axis of length B are repeated along it.
        rng: stream or seed of the noise of stochastic rows.
        noise: recorded noises, one (B, *) tensor a row, instead of `rng`.

    Raises:
        Mismatch: the denoiser is for another process or guidance scale.
        NotFinite: a row gave NaN or infinity.

    Examples:
        >>> from isocline.plans import grids, solvers
        >>> from isocline.processes import EDM, GaussianMixture
        >>> model = GaussianMixture.smooth_bed(EDM())
        >>> plan = solvers.ddim(EDM(), grids.log_snr(EDM(), 100))
        >>> x = plan.start((4, 8), 0, dtype=torch.float64)
        >>> run = picard(plan, model, x, window=100)
        >>> run.rounds, bool((run.x - plan.run(model, x).x).abs().max() < 0.01)
        (20, True)
    """
    plan.check_fits(denoiser)
    require(plan.threshold is None, "picard runs plans without a threshold: pass plan.with_threshold(None)")
    require(tolerance >= 0, f"the tolerance must not be negative, got {tolerance}")
    calls, begun, batch = denoiser.calls, time.perf_counter(), len(x)
    rows = compiled(plan, denoiser.parameterisation, True, x)
    noises = recorded_noise(plan, x, rng, noise)

    def outputs(places: Sequence[int], states: Tensor) -> Tensor:
        called = [k for k in places if rows[k].evaluate]
        found = torch.zeros_like(states)
        if called:
            chosen = [k - places[0] for k in called]
            told = torch.stack([rows[k].told for k in called]).repeat_interleave(batch).to(x.device)
            joined = denoiser(states[chosen].flatten(0, 1), told, repeated(cond, batch, len(called)))
            found[chosen] = joined.reshape(-1, *x.shape)
        for k in called:
            change = rows[k].change
            if change is not None:
                i = k - places[0]
                found[i] = found[i].mul(change[1]).add_(states[i], alpha=change[0])
        return found

    def advance(k: int, state: Tensor, found: Outputs) -> Tensor:
        row = rows[k]
        out = state.mul(row.carry)
        for j, b in row.terms:
            add(out, found[j], b)
        if noises is not None:
            add(out, noises[k], row.noise)
        if isinstance(row.constant, Tensor) or row.constant:
            out.add_(row.constant)
        return out

    chain = settle(
        outputs,
        advance,
        x,
        len(rows),
        window=window,
        tolerances=(tolerance * _noise_of_steps(plan)).tolist(),
    )
    trajectory = torch.stack(chain.states)
    if not bool(torch.isfinite(trajectory[-1]).all()):
        plan.run(denoiser, x, cond=cond, rng=rng, noise=noise)  # names the row, if a sequential run fails too
        raise NotFinite("the samples of the parallel run hold NaN or infinity: use a smaller window or tolerance")
    cost = Cost(calls=denoiser.calls - calls, seconds=time.perf_counter() - begun)
    return ParallelSampled(trajectory[-1], chain.rounds, chain.evaluations, cost, trajectory)


def add(out: Tensor, x: Tensor, weight: Tensor | float) -> None:
    """Add ``weight * x`` in place, by the operations of `Plan.run`, so that the bits agree."""
    if isinstance(weight, Tensor):
        out.addcmul_(x, weight)
    elif weight:
        out.add_(x, alpha=weight)


def repeated(cond: Any, batch: int, count: int) -> Any:
    """Return a condition for `count` copies of a batch: tensors with a first axis of its length are repeated along it."""

    def more(leaf: Any) -> Any:
        belongs = isinstance(leaf, Tensor) and leaf.ndim >= 1 and leaf.shape[0] == batch
        return leaf.repeat(count, *[1] * (leaf.ndim - 1)) if belongs else leaf

    return pytree.tree_map(more, cond)


def _noise_of_steps(plan: Plan) -> Tensor:
    """Return (n,) the standard deviation of the noise that ancestral sampling adds on the way of each row."""
    s, sigma = plan.process.noise_level(plan.times).detach(), plan.process.sigma(plan.times).detach()
    shrunk = torch.minimum(s[1:], s[:-1]) / torch.maximum(s[1:], s[:-1])
    fresh = torch.where(shrunk < 1, 1 - shrunk.nan_to_num(0.0) ** 2, 1.0)
    return sigma[1:] * torch.sqrt(fresh)
