r"""Coefficients by least squares, one step after the other: what the closed-form tuners share.

A step keeps its base row and adds multiples of known tensors, the features, each a combination of the state and of the data
predictions so far,

    x_{i+1} = a_i x_i + sum_j b_ij D_j + sum_k c_k f_k ,      (G + ridge diag G) c = g ,

with ``G_kl = <f_k, f_l>``, ``g_k = <f_k, target - base step>`` and the inner product over all training noises and coordinates. No
gradient is needed. Once a row has its coefficients the states move on with it, and the next is fitted from where they then are, so
that it knows the states it will meet. The ridge is relative, hence free of a feature's units. Of a step with stages only the row
that ends it changes.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.estimate import Cost
from isocline._core.progress import Progress
from isocline._core.stream import Stream
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance
from isocline.plans.tuners.best import Best
from isocline.plans.tuners.calibration import Calibration, NoiseSet
from isocline.plans.tuners.tuned import Tuned
from isocline.processes import Data, Denoiser


class Feature(NamedTuple):
    """The tensor ``carry x_i + sum_j weights_j D_j`` (N, *) in row ``i``, with `weights` (n,)."""

    carry: float
    weights: Tensor


class Student:
    """The training noises on their way through a plan whose later rows may still change.

    Args:
        plan: a deterministic plan.
        denoiser: the model.
        noises: start states and conditions; the targets are not used.
        batch: samples in each network call.

    Attributes:
        states: states (N, *) so far; the last is the one that the current row reads.
        outputs: the plan's outputs (N, *) so far, zeros for rows without a call.
    """

    def __init__(self, plan: Plan, denoiser: Denoiser, noises: NoiseSet, batch: int) -> None:
        require(not plan.stochastic, "only deterministic plans can be tuned against a teacher's states")
        self.plan, self.denoiser, self.noises, self.batch = plan, denoiser, noises, batch
        self.states: list[Tensor] = [noises.x]
        self.outputs: list[Tensor] = []

    @property
    def row(self) -> int:
        """Index of the current row."""
        return len(self.states) - 1

    def rows(self) -> Iterator[int]:
        """Yield each row once its output is there, and take it afterwards as the plan then has it."""
        for row in range(len(self.plan.carry)):
            self.outputs.append(self.call(self.states[-1], row))
            yield row
            self.states.append(self.next())

    def call(self, x: Tensor, row: int) -> Tensor:
        """Return the plan's outputs (N, *) for states `x` (N, *) in `row`."""
        return self.batched(lambda part, cond: self._output(part, row, cond), x)

    def next(self) -> Tensor:
        """Return the states (N, *) after the current row."""
        return self.combined(float(self.plan.carry[self.row]), self.plan.weights[self.row])

    def combined(self, carry: float, weights: Tensor) -> Tensor:
        """Return ``carry x_i + sum_j weights_j m_j`` (N, *) in the current row, for `weights` (n,)."""
        x = carry * self.states[-1]
        for weight, output in zip(weights.tolist(), self.outputs, strict=False):
            x = x.add_(output, alpha=weight)
        return x

    def add(self, feature: Feature) -> None:
        """Add `feature` to the current row."""
        carry, weights = self.plan.carry.clone(), self.plan.weights.clone()
        carry[self.row] += feature.carry
        weights[self.row] += feature.weights
        self.plan = replace(self.plan, carry=carry, weights=weights)

    def batched(self, function: Callable[[Tensor, Tensor | None], Tensor], x: Tensor) -> Tensor:
        """Return ``function(states, conditions)`` of all states `x` (N, *), batch by batch."""
        spans = [slice(first, first + self.batch) for first in range(0, len(x), self.batch)]
        return torch.cat([function(x[span], self.noises.take(span).cond) for span in spans])

    def _output(self, x: Tensor, row: int, cond: Tensor | None) -> Tensor:
        plan, native = self.plan, self.denoiser.parameterisation
        if not bool(plan.evaluate[row]):
            return torch.zeros_like(x)
        m = self.denoiser(x, plan.model_times[row], cond)
        if plan.threshold is None and plan.parameterisation == native:
            return m
        at = plan.times[row]
        (cx, cm), (dx, dm) = native.to_data(plan.process, at), plan.parameterisation.from_data(plan.process, at)
        x0 = float(cx) * x + float(cm) * m
        return float(dx) * x + float(dm) * (x0 if plan.threshold is None else plan.threshold(x0))


@dataclass(frozen=True, kw_only=True)
class LeastSquares(ABC):
    """Base of the tuners that fit each step in closed form.

    Args:
        ridge: relative penalty on the coefficients.
        batch: noises in each network call.
    """

    ridge: float = 0.01
    batch: int = 64
    arxiv: ClassVar[str]

    def __post_init__(self) -> None:
        require(self.ridge >= 0 and self.batch >= 1, f"a fit needs ridge >= 0 and batch >= 1, got {self}")

    @abstractmethod
    def features(self, plan: Plan, first: int, row: int) -> list[Feature]:
        """Return what may be added to `row`, which ends the step that starts in row `first`; none to leave it."""

    @abstractmethod
    def targets(self, base: Plan, student: Student) -> Callable[[int], Tensor]:
        """Return ``first -> states (N, *)`` to which the student's current row should lead from the step's row `first`."""

    @torch.no_grad()
    def fit(
        self,
        base: Plan,
        denoiser: Denoiser,
        calibration: Calibration,
        rng: Stream | int,
        *,
        seconds: float | None = None,
        bar: Progress | None = None,
    ) -> Tuned:
        """Return the fitted plan, on data predictions, or the base where that is better on the validation noises.

        Args:
            base: a deterministic plan; same ends as the teacher.
            denoiser: the model.
            calibration: train and validation noises; held-out noises are not looked at.
            rng: not used, as nothing is drawn.
            seconds: after so much wall time the steps that are left stay those of the base.
            bar: progress to advance by one for each row.

        Raises:
            InvalidInput: the base is stochastic, or has other ends than the teacher.
        """
        calibration.check_comparable(base)
        start, calls = time.monotonic(), denoiser.calls
        student = Student(base.convert(Data()), denoiser, calibration.train, self.batch)
        best = Best(base, denoiser, calibration.validation)
        target, fitted = self.targets(base, student), 0
        for row in student.rows():
            if seconds is not None and time.monotonic() - start > seconds:
                break
            fitted += self._improve(student, target)
            if bar is not None:
                bar.advance(1, f"row {row + 1}")
        best.offer(fitted, student.plan)
        settings = {"base": base.provenance.method, **asdict(self)}
        plan = replace(best.plan, provenance=Provenance(type(self).__name__, self.arxiv, settings))
        return Tuned(plan, best.history, Cost(denoiser.calls - calls, 0, time.monotonic() - start))

    def _improve(self, student: Student, target: Callable[[int], Tensor]) -> bool:
        first = step_start(student.plan, student.row)
        found = [] if first is None else self.features(student.plan, first, student.row)
        if first is None or not found:
            return False
        shares = solve([student.combined(*part) for part in found], target(first) - student.next(), self.ridge)
        for share, part in zip(shares.tolist(), found, strict=True):
            student.add(Feature(share * part.carry, share * part.weights))
        return True


def step_start(plan: Plan, row: int) -> int | None:
    """Return the row in which the step that `row` ends starts, or None where `row` is an inner stage."""
    times, nodes = plan.times, plan.nodes
    end, again = times[row + 1], row + 2 < len(times) and bool(times[row + 2] == times[row + 1])
    if again or not bool((nodes == end).any()):
        return None
    return max(j for j in range(row + 1) if bool(times[j] > end) and bool((nodes == times[j]).any()))


def differences(plan: Plan, row: int) -> list[Feature]:
    """Return ``D_j - D_k`` for the row's output and each neighbouring pair before it, newest first."""
    unit = torch.eye(len(plan.carry), dtype=torch.float64)
    called = [j for j in range(row, -1, -1) if bool(plan.evaluate[j])]
    return [Feature(0.0, unit[new] - unit[old]) for new, old in pairwise(called)]


def solve(features: list[Tensor], target: Tensor, ridge: float) -> Tensor:
    """Return the coefficients (k,) of `features` (k tensors of one shape) that come nearest to `target`, in float64.

    Args:
        features: what is combined; a feature that is zero, or one too many, gets the least coefficient that does as well.
        target: what is wanted, the same shape.
        ridge: penalty on ``|c_k f_k|^2`` relative to the squared error.

    Examples:
        >>> solve([torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])], torch.tensor([3.0, 4.0]), ridge=0.0)
        tensor([3., 2.], dtype=torch.float64)
    """
    gram = torch.tensor([[_dot(f, g) for g in features] for f in features], dtype=torch.float64)
    along = torch.tensor([_dot(f, target) for f in features], dtype=torch.float64)
    size = gram.diagonal().sqrt()
    size = torch.where(size > 0, size, 1.0)
    scaled = gram / size / size[:, None] + ridge * torch.eye(len(features), dtype=torch.float64)
    return torch.linalg.lstsq(scaled, (along / size)[:, None], driver="gelsd").solution[:, 0] / size


def _dot(a: Tensor, b: Tensor) -> float:
    return float((a.double() * b.double()).sum())
