r"""Stochastic Heun with a step of its own for each sample (the integrator of Jolicoeur-Martineau et al., arXiv 2105.14080).

For ``dx = a(x, t) dt + b(x, t) dW`` with ``t`` falling from noise to data, a step from ``t`` to ``t - h`` over which the Brownian
path moves by ``dW`` is Euler's, and Heun's with the same noise,

    x' = x - h a(x, t) + b(x, t) dW,      x^ = x - h a(x', t - h) + b(x', t - h) dW,      x'' = (x' + x^) / 2 .

``x''`` is accepted where half the difference is below the tolerance,

    E = |(x^ - x') / (2 delta)| / sqrt(d) <= 1,      delta = max(atol, rtol max(|x'|, |x' of the last accepted step|)),

and the next step is ``min(t - t_end, safety h E^(-exponent))``. Where ``b`` does not depend on ``x``, as in the reverse SDE of a
Gaussian process, Ito and Stratonovich agree; where it does, the limit is Stratonovich's solution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.stream import Stream
from isocline.plans.adaptive.brownian import BrownianPath
from isocline.plans.adaptive.result import StepLimit, not_finite
from isocline.processes.gaussian import match

TINY = 1e-12  # smallest error that a step size is computed from

Field = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Rule:
    """When a step is accepted and how long the next one is.

    Args:
        rtol: tolerance relative to the state's coordinates.
        atol: absolute tolerance in units of the state.
        safety: share of the predicted step that is taken.
        exponent: power of the error in the next step's length, between 0.5 and 1.
        first_step: first step tried, as a share of the whole time.
        max_steps: largest number of steps tried by a sample.
    """

    rtol: float = 0.05
    atol: float = 0.0078
    safety: float = 0.9
    exponent: float = 0.9
    first_step: float = 0.01
    max_steps: int = 10_000

    def __post_init__(self) -> None:
        for name in ("rtol", "atol", "max_steps"):
            require(getattr(self, name) > 0, f"{name} must be positive, got {getattr(self, name)}")
        for name in ("safety", "exponent", "first_step"):
            require(0 < getattr(self, name) <= 1, f"{name} must lie in (0, 1], got {getattr(self, name)}")


class Walk:
    """Samples on their way from time `start` down to `end`, each with a step of its own; those that arrive leave the batch.

    Args:
        field: ``(x (A, *), t (A,), index (A,)) -> (a, b)`` for the samples at `index`; ``a`` is (A, *), ``b`` broadcasts to it.
        x: states (B, *) at time `start`.
        start: the larger time.
        end: the smaller time.
        rule: tolerances and limits.
        path: source of the noise.

    Attributes:
        ends: (B, *) states at `end`, where they are known.
        times: (B,) where each sample stands.
        trace: `times` at the start and after each step tried.
        rejected: (B,) rejected steps.
    """

    def __init__(self, field: Field, x: Tensor, start: float, end: float, rule: Rule, path: BrownianPath) -> None:
        self.field, self.end, self.rule, self.path = field, end, rule, path
        self.ends, self.times = x.clone(), torch.full((len(x),), start, dtype=torch.float64, device=x.device)
        self.trace, self.rejected = [self.times.clone()], torch.zeros_like(self.times, dtype=torch.int64)
        self._index = torch.arange(len(x), device=x.device)
        self._x, self._low, self._h = x, x, torch.full_like(self.times, rule.first_step * (start - end))
        self._drift, self._spread = field(x, self.times, self._index)

    def run(self, rng: Stream) -> None:
        """Go to the end; a sample's noise is a function of `rng`, its index and its number of steps, whatever the batch.

        Raises:
            NotFinite: a step gave NaN or infinity; sample and time are named.
            StepLimit: the rule's steps were not enough.
        """
        for step in range(self.rule.max_steps):
            z = rng.normal(tuple(self.ends.shape), step=step, dtype=self._x.dtype, device=self._x.device)
            moved = self._try(z[self._index])
            if not len(self._index):
                return
            if len(moved):
                drift, spread = self.field(self._x[moved], self.times[self._index[moved]], self._index[moved])
                self._drift, self._spread = (
                    self._drift.index_copy(0, moved, drift),
                    self._spread.index_copy(0, moved, spread),
                )
        slowest = int(self.times.argmax())
        raise StepLimit(
            f"{self.rule.max_steps} steps were not enough for {len(self._index)} of {len(self.ends)} samples; sample {slowest} "
            f"reached t = {float(self.times[slowest]):.4g} on its way to {self.end:g}; raise max_steps, rtol or atol"
        )

    def _try(self, z: Tensor) -> Tensor:
        """Try one step of every sample on its way; return the positions of those that moved and have not arrived."""
        x, h, t = self._x, self._h, self.times[self._index]
        w, length = self.path.step(h, z), match(h, x)
        euler = x - length * self._drift + self._spread * w
        drift, spread = self.field(euler, t - h, self._index)
        other = x - length * drift + spread * w
        error = self._error(euler, other, t)
        good = error <= 1
        self.path.move(h, w, good)
        keep = match(good, x) > 0
        self._x, self._low = torch.where(keep, (euler + other) / 2, x), torch.where(keep, euler, self._low)
        t = torch.where(good, torch.where(h >= t - self.end, self.end, t - h), t)
        factor = self.rule.safety * error.clamp_min(TINY) ** -self.rule.exponent
        self._h = torch.minimum(t - self.end, h * factor)
        self.times[self._index] = t
        self.rejected[self._index] += ~good
        self.trace.append(self.times.clone())
        return self._leave(t <= self.end, good)

    def _error(self, euler: Tensor, other: Tensor, t: Tensor) -> Tensor:
        delta = (self.rule.rtol * torch.maximum(euler.abs(), self._low.abs())).clamp_min(self.rule.atol)
        error = ((other - euler) / (2 * delta)).flatten(1).double().square().mean(1).sqrt()
        bad = (~torch.isfinite(error)).nonzero().flatten()
        if len(bad):
            raise not_finite(f"for sample {int(self._index[bad[0]])} in a step from t = {float(t[bad[0]]):.4g}")
        return error

    def _leave(self, arrived: Tensor, good: Tensor) -> Tensor:
        """Put the samples that arrived aside; return the positions, among the others, of those that moved."""
        if bool(arrived.any()):
            self.ends[self._index[arrived]] = self._x[arrived]
            kept = (~arrived).nonzero().flatten()
            for name in ("_index", "_x", "_low", "_h", "_drift", "_spread"):
                setattr(self, name, getattr(self, name)[kept])
            self.path.take(kept)
            good = good[kept]
        return good.nonzero().flatten()
