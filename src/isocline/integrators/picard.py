r"""Parallel in time: Picard iteration on a sliding window (Shih, Belkhale, Ermon, Sadigh, Anari, arXiv 2305.16317).

A fixed grid gives a chain of one-step maps whose expensive part is a function of the state alone,

    y_{k+1} = Phi_k(y_k, m_k) ,      m_k = F_k(y_k) .

Of a window of ``P`` guessed states all ``m_k`` are evaluated at once; then the cheap ``Phi_k`` are rolled out from the first
state, which is known, to give the next guess. For Euler's method this is ``y_{k+1} = y_0 + h sum_{i <= k} f_i``, Picard's
iteration. After each roll-out the window slides past every step whose state changed by no more than its tolerance, and past one
more, whose ``m`` was evaluated at a state that had settled; so past at least one. New places are copies of the last roll-out.

One *round* is one evaluation of the window: the unit of sequential work. At most as many rounds as steps are needed, whatever
the tolerance. With tolerance 0 the result is the sequential one: bit for bit where ``F`` gives a state the same bits whatever
else is in the batch (elementwise fields), to rounding where it does not (matrix products choose their order of summation by the
size of the batch).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, NotFinite, require
from isocline._core.registry import Method as Registered
from isocline.integrators.controllers.constant import Steps
from isocline.integrators.methods.base import Method
from isocline.integrators.packing import Packing
from isocline.integrators.terms import ODE, Counter, bound, restricted

METHOD = Registered(
    "paradigms",
    "Picard, parallel in time",
    "Parallel Sampling of Diffusion Models",
    "Andy Shih, Suneel Belkhale, Stefano Ermon, Dorsa Sadigh, Nima Anari",
    2023,
    "2305.16317",
    room="integrators",
    when="Many steps, and hardware that evaluates a window of states in little more time than one.",
)

Outputs = Mapping[int, Tensor]


@dataclass(frozen=True)
class Rounds:
    """The states of a chain and what they cost.

    Args:
        states: n+1 states, the first one included.
        rounds: evaluations of a window: the sequential work.
        evaluations: states that were evaluated in all of them.
    """

    states: list[Tensor]
    rounds: int
    evaluations: int


def settle(
    evaluate: Callable[[Sequence[int], Tensor], Tensor],
    advance: Callable[[int, Tensor, Outputs], Tensor],
    y: Tensor,
    steps: int,
    *,
    window: int,
    tolerances: Sequence[float],
) -> Rounds:
    """Return the chain ``y_{k+1} = advance(k, y_k, outputs)`` by Picard iteration on a sliding window.

    Args:
        evaluate: ``(places, states (p, *)) -> outputs (p, *)``: ``F`` for several places at once.
        advance: ``(k, y_k, outputs) -> y_{k+1}``: the cheap part; reads ``outputs[j]`` of places ``j <= k``.
        y: the first state.
        steps: length of the chain.
        window: number of places ``P`` that are evaluated at once.
        tolerances: for each place the change (`largest_change`) of the state it leads to at which that counts as settled; read once
            a round, for the whole window.
    """
    require(window >= 1, f"the window needs at least one place, got {window}")
    states, outputs, first, rounds, evaluations = [y] * (steps + 1), dict[int, Tensor](), 0, 0, 0
    while first < steps:
        last = min(first + window, steps)
        found = evaluate(range(first, last), torch.stack(states[first:last]))
        outputs.update(zip(range(first, last), found, strict=True))
        rounds, evaluations = rounds + 1, evaluations + last - first
        changes = []
        for k in range(first, last):
            new = advance(k, states[k], outputs)
            changes.append(largest_change(new, states[k + 1]))
            states[k + 1] = new
        states[last + 1 :] = [states[last]] * (steps - last)
        kept = zip(range(first, last), torch.stack(changes).tolist(), strict=True)
        first = next((k + 1 for k, moved in kept if not moved <= tolerances[k]), last)
    return Rounds(states, rounds, evaluations)


@dataclass(frozen=True)
class PicardSolution:
    """What `picard` returns.

    Args:
        ts: the grid, float64, shape (n+1,).
        ys: states (n+1, B, *), in the structure of ``y0``.
        rounds: windows of steps, one after the other; a sequential run has n.
        evaluations: steps that were computed in all of them.
        nfe: calls of the field, one after the other: those of a step, for each round.
    """

    ts: Tensor
    ys: Any
    rounds: int
    evaluations: int
    nfe: int


@METHOD.variant()
@torch.no_grad()
def picard(
    terms: ODE | Callable[..., Any],
    y0: Any,
    times: Tensor | Sequence[float],
    *,
    method: Method,
    window: int = 32,
    tolerance: float = 1e-6,
    args: Any = None,
) -> PicardSolution:
    """Integrate on a fixed grid, a window of steps at once; the result is that of `method` step by step, to the tolerance.

    Increments of all steps of a window are computed in one call for each stage, with states joined along the batch axis, and
    summed. For methods that carry nothing from step to step. Without gradients. The number of rounds grows with the Lipschitz
    constant of the field times the span of the window: damped equations need few, chaotic ones (Lorenz) nearly as many as steps.

    Args:
        terms: ``f(t, y)`` or ``f(t, y, args)``, or an `ODE`; called with ``t`` of shape (N, 1, ..., 1) and states (N, *).
        y0: first states, tensors (B, *).
        times: (n+1,) grid, increasing or decreasing.
        method: a one-step method such as `Dopri5`.
        window: steps that are evaluated at once.
        tolerance: change of a state, root mean square over a sample's coordinates and the largest of all samples, at which it
            counts as settled; the unit of the state.
        args: given to the field; rows that belong to samples are marked with `Each`.

    Raises:
        NotFinite: the state became NaN or infinite.

    Examples:
        >>> from isocline.integrators import Dopri5
        >>> decay = picard(lambda t, y: -y, torch.ones(1, 1, dtype=torch.float64), torch.linspace(0, 1, 11), method=Dopri5())
        >>> round(float(decay.ys[-1, 0, 0]), 4), decay.rounds  # of 10 steps
        (0.3679, 8)
    """
    grid = torch.tensor(Steps(times).times, dtype=torch.float64)
    require(len(grid) >= 2, f"the grid needs at least two times, got {len(grid)}")
    require(tolerance >= 0, f"the tolerance must not be negative, got {tolerance}")
    packing, counter = Packing.of(y0, batched=True), Counter()
    y = packing.pack(y0)
    batch, axes, h = len(y), [1] * (y.ndim - 1), grid.diff()
    equation = bound(terms if isinstance(terms, ODE) else ODE(_callable(terms)), args, packing, counter)
    rows = torch.arange(batch, device=y.device)

    def spread(column: Tensor, places: Sequence[int]) -> Tensor:
        return column[list(places)].to(y).repeat_interleave(batch).reshape(-1, *axes)

    def increments(places: Sequence[int], states: Tensor) -> Tensor:
        joined, t, size = states.flatten(0, 1), spread(grid, places), spread(h, places)
        field = restricted(equation, rows.repeat(len(places)))
        step = method.step(field, t, size, joined, method.start(field, t, joined, None))
        return (step.y - joined).reshape(states.shape)

    chain = settle(
        increments,
        lambda k, state, outputs: state + outputs[k],
        y,
        len(h),
        window=window,
        tolerances=[tolerance] * len(h),
    )
    if not bool(torch.isfinite(chain.states[-1]).all()):
        bad = next(k for k, state in enumerate(chain.states) if not bool(torch.isfinite(state).all()))
        raise NotFinite(f"the state became NaN or infinite at t = {float(grid[bad]):.6g}; take smaller steps")
    ys = packing.unpack(torch.stack(chain.states))
    return PicardSolution(grid, ys, chain.rounds, chain.evaluations, counter.evaluations)


def largest_change(new: Tensor, old: Tensor) -> Tensor:
    """Return the root mean square of ``new - old`` over a sample's coordinates, the largest of all samples."""
    return (new - old).abs().square().flatten(1).mean(1).sqrt().max()


def _callable(terms: Any) -> Callable[..., Any]:
    if not callable(terms):
        raise InvalidInput(f"the equation must be a function f(t, y) or ODE(f), got {type(terms).__name__}")
    return terms
