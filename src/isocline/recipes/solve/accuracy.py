r"""How wrong a solution is: against a reference where there is one, else by its residuals; on points it was not trained on.

With R independent randomisations of a rule with points x_i and weights w_i,

    relative L2   sqrt( sum_i w_i |u - u*|^2 / sum_i w_i |u*|^2 ) ,      L-infinity   max_i |u - u*|
    residual      sqrt( sum_i w_i r^2 / sum_i w_i )                      of every equation

Each is the mean over the R draws with a Student interval; L-infinity is the largest of all points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from scipy.special import stdtrit
from torch import Tensor

from isocline._core.errors import require
from isocline._core.estimate import Estimate
from isocline._core.stream import Stream
from isocline.equations import Problem, Reference, Values
from isocline.objectives import ResidualLoss
from isocline.objectives.residuals import INSIDE, Field
from isocline.points import PointSet, Sobol
from isocline.recipes.solve.training_points import block_of, dtype_of, rule_for

DRAWS, TEST_POINTS, TEST_FACE = 8, 2048, 256


@dataclass(frozen=True)
class SolutionError:
    """How wrong a solution is, and how that was found.

    Attributes:
        relative_l2: error against the reference, with an interval; None without a reference.
        linf: largest error at a test point, in the unit of the solution; None without a reference.
        how: where the error comes from, in one line.
        floor: bound of the reference's own relative error; None without a reference.
        residuals: root mean square of the residual of each equation on test points, in its unit, with an interval.
    """

    relative_l2: Estimate | None
    linf: float | None
    how: str
    floor: float | None
    residuals: Mapping[str, Estimate]

    def as_dict(self) -> dict[str, Any]:
        """Return plain numbers for JSON."""
        found = self.relative_l2
        return {
            "relative_l2": None if found is None else found.value,
            "linf": self.linf,
            "interval": None if found is None else [found.low, found.high],
            "level": None if found is None else found.level,
            "draws": None if found is None else found.n,
            "how": self.how,
            "reference_error": self.floor,
            "residuals": {name: asdict(value) for name, value in self.residuals.items()},
        }

    def __str__(self) -> str:
        if self.relative_l2 is None:
            return f"not known ({self.how})"
        return f"relative L2 {self.relative_l2}, largest {self.linf:.3g} ({self.how})"


def measure(
    problem: Problem,
    field: Field,
    reference: Reference | None,
    rng: Stream,
    values: Values,
    loss: ResidualLoss | None = None,
) -> SolutionError:
    """Return how wrong a field is on independent test points; `loss` says how residuals are had."""
    residuals = residual_norms(problem, field, rng.child("residuals"), values, loss or ResidualLoss(problem))
    if reference is None:
        return SolutionError(None, None, "no reference: only the residuals are known", None, residuals)
    error, linf = distance(problem, field, reference, rng.child("error"))
    return SolutionError(error, linf, f"reference: {reference.how}", reference.error, residuals)


def distance(
    problem: Problem, field: Field, reference: Callable[[Tensor], Tensor], rng: Stream
) -> tuple[Estimate, float]:
    """Return the relative L2 distance of a field to another, with an interval, and the largest distance."""
    found, largest = [], 0.0
    for draw in range(DRAWS):
        points = fresh_points(problem, rng.child(draw))
        there = reference(points.x)
        gap = (evaluated(field, points.x) - there).square().sum(1)
        size = float(points.integrate(there.square().sum(1))) or 1.0  # the error of a solution that is zero is absolute
        found.append(math.sqrt(float(points.integrate(gap)) / size))
        largest = max(largest, math.sqrt(float(gap.max())))
    return student(found), largest


def residual_norms(
    problem: Problem, field: Field, rng: Stream, values: Values, loss: ResidualLoss
) -> dict[str, Estimate]:
    """Return the root mean square of all residuals on test points; 0 where the estimate of a square is negative."""
    dtype = dtype_of(field)
    found: dict[str, list[float]] = {}
    for draw in range(DRAWS):
        stream = rng.child(draw)
        batch = {INSIDE: block_of(fresh_points(problem, stream.child(INSIDE)), dtype)}
        for part in problem.parts:
            batch[part.label] = block_of(part.face.draw(Sobol(TEST_FACE), stream.child(part.label)), dtype)
        batch = loss.directed(batch, stream.child("directions"))
        squares = loss.mean_squares(loss.blocks(field, batch, values), batch)
        for name, several in squares.items():
            for k, square in enumerate(several):
                label = name if len(several) == 1 else f"{name} [{k}]"
                found.setdefault(label, []).append(math.sqrt(max(0.0, float(square.detach()))))
    return {name: student(several) for name, several in found.items()}


def evaluated(field: Field, x: Tensor) -> Tensor:
    """Return the values (N, c) in float64, without a graph."""
    with torch.no_grad():
        return field(x.to(dtype_of(field))).double()


def fresh_points(problem: Problem, rng: Stream) -> PointSet:
    """Return points with weights that no training saw."""
    found: PointSet = rule_for(problem.domain, TEST_POINTS).draw(problem.domain, rng)
    return found


def student(values: list[float], level: float = 0.95) -> Estimate:
    """Return the mean of independent values with its interval."""
    require(len(values) > 1, "an interval needs two values or more")
    x = torch.tensor(values, dtype=torch.float64)
    half = float(stdtrit(len(values) - 1, (1 + level) / 2)) * float(x.std()) / math.sqrt(len(values))
    mean = float(x.mean())
    return Estimate(mean, max(0.0, mean - half), mean + half, level, len(values))
