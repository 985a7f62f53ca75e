r"""Diagonally implicit Runge-Kutta methods with an explicit first stage and one diagonal entry (ESDIRK).

    k_1 = f(t, y)
    k_i = f(t + c_i h, z_i) ,        z_i = y + h sum_{j < i} a_ij k_j + h gamma k_i ,        i = 2, ..., s

All implicit stages have the same matrix ``I - h gamma J``. The slope of an implicit stage is taken from its increment,
``k_i = w_i / (h gamma)``, not from another evaluation. Each stage starts from what polynomials through earlier slopes
predict. Where the last stage is the solution (stiffly accurate), its slope is the first one of the next step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.integrators.controllers.base import Array, Controller, Flags
from isocline.integrators.dense import Combination, Interpolant, hermite, linear
from isocline.integrators.methods.base import Carry, Step
from isocline.integrators.methods.explicit import combined
from isocline.integrators.methods.tableau import Tableau
from isocline.integrators.solvers.base import Prepared, Rows, Stage, StageSolver, Work
from isocline.integrators.solvers.chord import Chord

M = TypeVar("M", bound="ESDIRK")


@dataclass(frozen=True)
class ESDIRK:
    """A diagonally implicit Runge-Kutta method whose first stage is explicit.

    Args:
        tableau: its coefficients; the diagonal holds 0 first and then one number.
        solver: of the implicit stages.
    """

    tableau: Tableau
    solver: StageSolver = field(default_factory=Chord)

    filtered: ClassVar[bool] = False

    def __post_init__(self) -> None:
        table = self.tableau
        diagonal = np.diag(table.matrix)
        one = diagonal[0] == 0 and diagonal[-1] > 0 and bool((diagonal[1:] == diagonal[-1]).all())
        require(one, f"{table.name}: the diagonal is 0 and then one positive number, got {diagonal.tolist()}")
        require(table.last_is_solution, f"{table.name}: the last stage must be the solution (stiffly accurate)")

    @property
    def order(self) -> int:
        """Order of accuracy."""
        return self.tableau.order

    @property
    def error_order(self) -> int:
        """Power of h in the error estimate: one more than the lower of both orders."""
        return min(self.tableau.embedded_order, self.tableau.order) + 1 if self.tableau.error else 0

    @property
    def dense_order(self) -> int:
        """Order of accuracy inside a step; never above that of the step itself."""
        return min(self.tableau.order, self.tableau.dense_order)

    @property
    def gamma(self) -> float:
        """The diagonal entry."""
        return float(self.tableau.matrix[-1, -1])

    @cached_property
    def predictor(self) -> tuple[tuple[float, ...], ...]:
        """For each implicit stage the weights of earlier slopes whose sum is its first guess."""
        c = self.tableau.abscissae
        return tuple(_extrapolation(c[:i], c[i]) for i in range(1, len(c)))

    def measured(self: M, controller: Controller) -> M:
        """Return the method with the tolerance of a controller, for its solver."""
        return replace(self, solver=self.solver.measured(controller))

    def start(self, terms: Any, t: Tensor, y: Tensor, f: Tensor | None) -> Carry:
        """Return the first stage where it is known already."""
        return () if f is None else (f,)

    def step(self, terms: Any, t: Tensor, h: Tensor, y: Tensor, state: Carry) -> Step:
        """Return one step, its error and its interpolant."""
        work, rows = Work(terms.vf, terms), Rows.of(y, terms)
        first = state[0] if state else work(t, y)
        ready = self.solver.prepare(work, rows, t, h * self.gamma, y, state[1:])
        ready, run = settled(ready, lambda ready: self._stages(ready, t, h, y, first))
        return self._step(ready, run, h, y, work.evaluations)

    def _stages(self, ready: Prepared, t: Tensor, h: Tensor, y: Tensor, first: Tensor) -> Stages:
        table, scale = self.tableau, h * self.gamma
        k, z = [first], y
        run = Stages.none(samples(y, h))
        for c, row, guess in zip(table.abscissae[1:], table.matrix[1:], self.predictor, strict=True):
            base = torch.addcmul(y, combined(row[: len(k)].tolist(), k), h)
            with torch.no_grad():
                start = scale * combined(guess, k)
            found = ready.solve(Stage(t + c * h, base, scale, start), run.eta)
            run = run.joined(found.failed, found.theta, found.eta)
            z = base + found.w
            k.append(found.w / scale)
            if run.failed.all():
                break
        return replace(run, k=k, y=z)

    def _step(self, ready: Prepared, run: Stages, h: Tensor, y: Tensor, evaluations: int) -> Step:
        again = (run.k[0], *ready.again())
        failed = failed_samples(run, y)
        if run.failed.all():
            return unsolved(y, again, evaluations, failed)
        error = h * combined(self.tableau.error, run.k) if self.tableau.error else None
        if error is not None and self.filtered:
            error = ready.smoothed(error.detach())
        ending = (run.k[-1], *ready.memory(run.theta))
        return Step(run.y, error, self._dense(h, y, run), ending, again, evaluations, failed)

    def _dense(self, h: Tensor, y: Tensor, run: Stages) -> Interpolant:
        if self.tableau.powers:
            return Combination(y, h, self.tableau.powers, run.k)
        return hermite(y, run.y, h, run.k[0], run.k[-1])


@dataclass(frozen=True)
class Stages:
    """The stages of a step so far: which samples failed, the slowest contraction, the last ``eta``, the slopes, the last state."""

    failed: Flags
    theta: Array
    eta: Array
    k: Sequence[Tensor] = ()
    y: Tensor = field(default_factory=lambda: torch.zeros(()))

    @classmethod
    def none(cls, shape: tuple[int, ...]) -> Stages:
        """Return what is known before the first implicit stage."""
        return cls(np.zeros(shape, bool), np.zeros(shape), np.full(shape, np.inf))

    def joined(self, failed: Flags, theta: Array, eta: Array) -> Stages:
        """Return this with another stage."""
        return Stages(self.failed | failed, np.fmax(self.theta, theta), eta)


def settled(ready: Prepared, stages: Callable[[Prepared], Stages]) -> tuple[Prepared, Stages]:
    """Return the stages, tried again with better preparations as long as some fail and there is one."""
    run = stages(ready)
    while run.failed.any():
        better = ready.refreshed(run.failed)
        if better is None:
            break
        ready, run = better, stages(better)
    return ready, run


def samples(y: Tensor, h: Tensor) -> tuple[int, ...]:
    """Return () where the whole state shares its step and (B,) where every sample has its own."""
    return (y.shape[0],) if h.ndim else ()


def unsolved(y: Tensor, again: Carry, evaluations: int, failed: Tensor | None) -> Step:
    """Return a step without a result; its state is not a number where the field is not."""
    y1 = y * torch.nan if failed is None else y
    return Step(y1, torch.zeros_like(y), linear(y, y), again, again, evaluations, failed)


def failed_samples(run: Stages, y: Tensor) -> Tensor | None:
    """Return the flags of failed samples; None where none failed, or where the field is not finite at the start."""
    if not run.failed.any() or not bool(run.k[0].isfinite().all()):
        return None
    return torch.as_tensor(run.failed, device=y.device)


def _extrapolation(known: Sequence[float], c: float) -> tuple[float, ...]:
    """Return the weights of earlier slopes: the latest one at the same time, else a line through the two nearest times."""
    weights = [0.0] * len(known)
    same = [i for i, x in enumerate(known) if abs(x - c) < 1e-9]
    if same:
        weights[same[-1]] = 1.0
        return tuple(weights)
    nearest = sorted(range(len(known)), key=lambda i: abs(known[i] - c))
    i = nearest[0]
    j = next((j for j in nearest[1:] if abs(known[j] - known[i]) > 0.05), None)
    if j is None:
        weights[i] = 1.0
        return tuple(weights)
    weights[i], weights[j] = (c - known[j]) / (known[i] - known[j]), (c - known[i]) / (known[j] - known[i])
    return tuple(weights)
