r"""The loss of a problem whose Laplacian has too many terms: it is estimated in random directions, new ones at every step.

With R independent estimates L_k of the Laplacian in the residual r, the square is replaced by products of different ones,

    r(x)^2   ->   1 / (R (R - 1)) sum_{k != l} r(x; L_k) r(x; L_l) ,

whose mean is r(x)^2 where r is linear in the Laplacian; the square of one estimate has its variance on top (Shi, Hu, Lin and
Kawaguchi, arXiv 2412.00088). It can be negative, and so can the loss of a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.stream import Stream
from isocline.derivatives import (
    DenseLaplacian,
    SparseLaplacian,
    Spec,
    Unknown,
    coordinates,
    directional,
    jet,
    taylor,
    traced,
    unbiased_square,
)
from isocline.derivatives.jet import Backend
from isocline.derivatives.spec import Index
from isocline.equations import Problem, Values
from isocline.objectives.residuals import INSIDE, Batch, Block, Field, ResidualLoss, Residuals, columns, shares
from isocline.optimizers import Evaluation
from isocline.points import Uniform

DIRECTIONS = "directions"


@dataclass(frozen=True)
class EstimatedLaplacian:
    """How ``laplacian(u)`` in a residual is had: from a few random directions, at a cost that does not grow with the dimension.

    Args:
        operator: `DenseLaplacian` (random signs) or `SparseLaplacian` (random axes).
        samples: directions in each estimate.
        replicas: independent estimates, at least two.
        backend: how the other derivatives are had.

    Examples:
        >>> EstimatedLaplacian(SparseLaplacian(), samples=4).replicas
        2
    """

    operator: DenseLaplacian | SparseLaplacian = field(default_factory=DenseLaplacian)
    samples: int = 16
    replicas: int = 2
    backend: Backend = taylor

    def __post_init__(self) -> None:
        require(self.samples >= 1, f"an estimate needs at least one direction, got samples={self.samples}")
        require(
            self.replicas >= 2,
            f"the square of one estimate is biased by its variance: replicas is at least 2, got {self.replicas}",
        )

    def directions(self, x: Tensor, axes: tuple[int, ...], rng: Stream) -> Tensor:
        """Return directions (replicas * samples, d); second derivatives along those of a replica add up to its estimate."""
        drawn = self.operator.draw(x[:, list(axes)], self.samples, self.replicas, rng, 0)
        found = x.new_zeros(len(drawn.degrees), x.shape[1])
        found[:, list(axes)] = drawn.directions * torch.tensor(drawn.weights).to(x).sqrt()[:, None]
        return found


class EstimatedLoss(ResidualLoss):
    """The loss of a problem with an estimated Laplacian, as a function of a field and of points with `directed` ones.

    Args:
        problem: its residual calls ``laplacian(u)`` on one set of coordinates, and is linear in it.
        weights: as for `ResidualLoss`.
        how: the estimate.

    Raises:
        InvalidInput: the residual has no Laplacian, one of a derivative, or several; or it is not linear in it.
    """

    noisy = True

    def __init__(
        self, problem: Problem, weights: Mapping[str, float] | None = None, how: EstimatedLaplacian | None = None
    ) -> None:
        self.how = how or EstimatedLaplacian()
        super().__init__(problem, weights, backend=self.how.backend)
        self.rest, self.axes = laplacian_of(problem)

    def directed(self, points: Batch, rng: Stream) -> Batch:
        """Return the points with directions for one step; the same stream gives the same ones."""
        if INSIDE not in points:
            return points
        block = points[INSIDE]
        return {**points, INSIDE: {**block, DIRECTIONS: self.how.directions(block["x"], self.axes, rng)}}

    def blocks(self, field: Field, points: Batch, values: Values | None = None) -> Residuals:
        """Return the residuals (N,) of every block; those of the equation once for each replica, all of an equation together."""
        p = self.problem.values() if values is None else values
        found = super().blocks(field, {name: block for name, block in points.items() if name != INSIDE}, p)
        if INSIDE in self.wanted(points):
            found[INSIDE] = self._estimated(field, points[INSIDE], p)
        return {name: found[name] for name in points if name in found}

    def gathered(self, found: Residuals, points: Batch) -> Evaluation:
        """Return the loss of residuals that `blocks` gave for the same points.

        Raises:
            NotFinite: a residual is NaN or infinite; names the points.
        """
        loss = self.total(found, points)
        self._check_finite(loss, found, points)
        return Evaluation(loss)

    def total(self, found: Residuals, points: Batch) -> Tensor:
        """Return the loss alone, without a look at its value."""
        others = {name: several for name, several in found.items() if name != INSIDE}
        parts = [super().total(others, points)] if others else []
        if INSIDE in found:
            squares = [unbiased_square(torch.stack(r)) for r in self._by_equation(found[INSIDE])]
            parts += [self.weights[INSIDE] * (shares(points[INSIDE], s) * s).sum() for s in squares]
        return torch.stack(parts).sum()

    def mean_squares(self, found: Residuals, points: Batch) -> dict[str, list[Tensor]]:
        """Return the mean square of every residual; those of the equation are estimates."""
        others = super().mean_squares({name: r for name, r in found.items() if name != INSIDE}, points)
        squares = [unbiased_square(torch.stack(r)) for r in self._by_equation(found[INSIDE])]
        return {INSIDE: [(shares(points[INSIDE], s) * s).sum() for s in squares], **others}

    def _by_equation(self, several: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
        count = self.how.replicas
        return [several[k : k + count] for k in range(0, len(several), count)]

    def _estimated(self, field: Field, block: Block, p: Values) -> tuple[Tensor, ...]:
        """Return the residuals of the equations, for each its replicas."""
        x, names = block["x"], self.problem.names
        value, (_, second) = directional(field, x, block[DIRECTIONS], [2] * len(block[DIRECTIONS]))
        estimates = second.unflatten(0, (self.how.replicas, self.how.samples)).sum(1)
        known: Mapping[Index, Tensor] = {(): value}
        if self.rest.order > 0:
            known = dict(jet(field, x, self.rest, self.backend).items())
        q = coordinates(x, names)
        rows = [
            columns(self.problem.residual(_unknowns(known, estimate, names), q, p), len(x)) for estimate in estimates
        ]
        return tuple(r for replicas in zip(*rows, strict=True) for r in replicas)


def _unknowns(known: Mapping[Index, Tensor], estimate: Tensor, names: tuple[str, ...]) -> Any:
    """Return the unknowns of a field whose Laplacian is (N, c)."""

    def one(c: int) -> Unknown:
        return Unknown(lambda index: known[index][..., c], names, (), lambda index, axes: estimate[..., c])

    every = tuple(one(c) for c in range(estimate.shape[-1]))
    return every[0] if len(every) == 1 else every


def laplacian_of(problem: Problem) -> tuple[Spec, tuple[int, ...]]:
    """Return the derivatives that a residual uses beside its Laplacian, and the axes of that.

    Raises:
        InvalidInput: there is no Laplacian, it is of a derivative, there are several, or the residual is not linear in it.
    """
    asked: set[tuple[Index, tuple[int, ...]]] = set()
    x = Uniform(1).draw(problem.domain, Stream(0, "traced")).x
    q, p = coordinates(x, problem.names), problem.values()

    def run(value: float) -> tuple[Spec, Tensor]:
        kept: list[Any] = []

        def summed(index: Index, axes: tuple[int, ...]) -> Tensor:
            asked.add((index, axes))
            return torch.full((2,), value, dtype=torch.get_default_dtype())

        def residual(u: Any) -> Any:
            kept.append(problem.residual(u, q, p))
            return kept[-1]

        spec = traced(residual, problem.names, components=problem.components, summed=summed)
        return spec, torch.stack([row.double().detach() for row in columns(kept[-1], 2)])

    (spec, zero), one, two = run(0.0), run(1.0)[1], run(2.0)[1]
    name = problem.name
    require(bool(asked), f"the residual of {name} has no laplacian(u) that could be estimated")
    require(len(asked) == 1, f"the residual of {name} has several Laplacians; only one of u can be estimated")
    ((index, axes),) = asked
    require(index == (), f"the residual of {name} has the Laplacian of a derivative; only that of u can be estimated")
    bent = float((two - 2 * one + zero).abs().max()) > 1e-4 * float(1 + (two - zero).abs().max())
    require(not bent, f"the residual of {name} is not linear in its Laplacian: an estimate would be biased")
    return spec, axes
