r"""The loss of a field that shall solve a problem: weighted squares of residuals.

With points x_i and weights w_i for each equation b (the differential equation, every part of the boundary, the observations),

    L(theta) = sum_b lambda_b sum_i (w_i / sum_j w_j) r_b(x_i; theta)^2 .

With quadrature weights each inner sum is the mean square of a residual over its domain. It is what is minimised; it is not the
error of the solution, which is measured against a reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from isocline._core.errors import NotFinite, nearest, require
from isocline._core.stream import Stream
from isocline.derivatives import Jet, Spec, coordinates, jet, taylor
from isocline.derivatives.jet import Backend
from isocline.equations import Problem, Values
from isocline.equations.conditions import located
from isocline.equations.problem import rows
from isocline.optimizers import Evaluation

INSIDE = "equation"
OBSERVED = "observations"

Block = dict[str, Tensor]
Batch = dict[str, Block]
Residuals = dict[str, tuple[Tensor, ...]]
Field = Callable[[Tensor], Tensor]


class ResidualLoss:
    """The loss of a problem, as a function of a field and of points.

    Args:
        problem: what shall hold.
        weights: lambda of each block by its name (``"equation"``, the labels of the parts, ``"observations"``); ``"conditions"``
            stands for all parts without one of their own. 1 by default; a block with 0 is left out, for example one that an
            ansatz fulfils exactly.
        backend: how derivatives are had; `isocline.derivatives.taylor` by default.

    Raises:
        InvalidInput: a weight is negative or names no block.

    Examples:
        >>> import isocline.equations as eq
        >>> poisson = eq.Problem(eq.Box(x=(0, 1)), lambda u, q, p: u.xx + 2.0, [eq.Dirichlet("x")])
        >>> loss = ResidualLoss(poisson, {"conditions": 10.0})
        >>> points = {"equation": {"x": torch.rand(8, 1)}, "x=0": {"x": torch.zeros(1, 1)}, "x=1": {"x": torch.ones(1, 1)}}
        >>> float(loss(lambda x: x * (1 - x), points).loss)
        0.0
    """

    noisy = False  # whether two calls at the same points differ

    def __init__(
        self, problem: Problem, weights: Mapping[str, float] | None = None, *, backend: Backend = taylor
    ) -> None:
        self.problem, self.backend = problem, backend
        self.parts = {part.label: part for part in problem.parts}
        labels = list(self.parts)
        known = [INSIDE, "conditions", OBSERVED, *labels]
        given = dict(weights or {})
        for name, value in given.items():
            require(name in known, f"there is no block {name!r} to weight. {nearest(name, known)}")
            require(value >= 0, f"the weight of {name} is not negative, got {value}")
        every = given.pop("conditions", 1.0)
        self.weights = {INSIDE: 1.0, **dict.fromkeys(labels, every), OBSERVED: 1.0, **given}
        require(any(self.weights.values()), "all weights are 0: nothing is left to minimise")

    def __call__(self, field: Field, points: Batch, values: Values | None = None) -> Evaluation:
        """Return the loss with its residuals and weights, both (M,).

        Args:
            field: maps points (N, d) to (N, c).
            points: for each block its points ``x`` (N, d), and where there are such its weights ``w`` (N,), a ``gate`` (N,)
                that multiplies its residuals, and on faces of a ball or the like ``normals`` (N, d).
            values: the parameters; those of the problem by default.

        Raises:
            NotFinite: a residual is NaN or infinite; names the points.
        """
        return self.gathered(self.blocks(field, points, values), points)

    def gathered(self, found: Residuals, points: Batch) -> Evaluation:
        """Return the loss of residuals that `blocks` gave for the same points.

        Raises:
            NotFinite: a residual is NaN or infinite; names the points.
        """
        r = torch.cat([r for several in found.values() for r in several])
        w = torch.cat(
            [self.weights[name] * shares(points[name], r) for name, several in found.items() for r in several]
        )
        loss = (w * r.square()).sum()
        self._check_finite(loss, found, points)
        return Evaluation(loss, r, w)

    def _check_finite(self, loss: Tensor, found: Residuals, points: Batch) -> None:
        if not bool(loss.isfinite()):
            refuse_not_finite(found, points, self.problem.names)

    def total(self, found: Residuals, points: Batch) -> Tensor:
        """Return the loss alone, without a look at its value."""
        r, w = self._stacked(found, points)
        return (w * r.square()).sum()

    def mean_squares(self, found: Residuals, points: Batch) -> dict[str, list[Tensor]]:
        """Return the weighted mean square of the residual of every equation of every block."""
        return {
            name: [(shares(points[name], r) * r.square()).sum() for r in several] for name, several in found.items()
        }

    def directed(self, points: Batch, rng: Stream) -> Batch:
        """Return the points with all that a loss draws for one step: nothing here."""
        return points

    def _stacked(self, found: Residuals, points: Batch) -> tuple[Tensor, Tensor]:
        """Return all residuals and their weights, (M,)."""
        shared = [self.weights[name] * shares(points[name], r) for name, several in found.items() for r in several]
        return torch.cat([r for several in found.values() for r in several]), torch.cat(shared)

    def blocks(self, field: Field, points: Batch, values: Values | None = None) -> Residuals:
        """Return the residuals (N,) of every equation of every block; blocks that need the same derivatives share a pass."""
        p = self.problem.values() if values is None else values
        groups: dict[Spec, list[str]] = {}
        for name in self.wanted(points):
            groups.setdefault(self.spec(name), []).append(name)
        found: Residuals = {}
        for spec, names in groups.items():
            places = [self._places(name, points[name]) for name in names]
            whole = jet(field, torch.cat(places), spec, self.backend)
            self._check_components(whole)
            start = 0
            for name, x in zip(names, places, strict=True):
                part = Jet({i: v[start : start + len(x)] for i, v in whole.items()}, whole.names)
                found[name] = self._rows(name, part, points[name], p)
                start += len(x)
        return {name: found[name] for name in points if name in found}

    def block(self, field: Field, name: str, given: Block, values: Values) -> tuple[Tensor, ...]:
        """Return the residuals (N,) of the equations of one block; each depends on its own point alone."""
        found = jet(field, self._places(name, given), self.spec(name), self.backend)
        return self._rows(name, found, given, values)

    def wanted(self, points: Batch) -> list[str]:
        """Return the names of the blocks that have points and a weight."""
        return [name for name in points if self.weights.get(name, 0.0) > 0]

    def spec(self, name: str) -> Spec:
        """Return the derivatives that a block uses."""
        if name == OBSERVED:
            return Spec(frozenset({()}), self.problem.names)
        return self.problem.spec if name == INSIDE else self.problem.part_specs[name]

    def _check_components(self, found: Jet) -> None:
        width = next(iter(found.values())).shape[-1]
        count = self.problem.components
        require(width == count, f"the field has {width} outputs, {self.problem.name} has {count} unknowns")

    def _places(self, name: str, block: Block) -> Tensor:
        """Return where the field is read, (N, d), or (2 N, d) where two points are compared."""
        x, part = block["x"], self.parts.get(name)
        return x if part is None or part.shift is None else torch.cat([x, x + part.shift.to(x)])

    def _rows(self, name: str, found: Jet, block: Block, p: Values) -> tuple[Tensor, ...]:
        x, names = block["x"], self.problem.names
        if name == OBSERVED:
            component = block["component"].long()[:, None]
            return (found[()].gather(1, component)[:, 0] - block["values"],)
        if name == INSIDE:
            return columns(self.problem.residual(_unknowns(found), coordinates(x, names), p), len(x))
        part = self.parts[name]
        q = located(x, names, block.get("normals", part.normal))
        if part.shift is None:
            return columns(part.equation(_unknowns(found), q, p), len(x))
        halves = ({i: v[a:b] for i, v in found.items()} for a, b in ((0, len(x)), (len(x), 2 * len(x))))
        ends = tuple(_unknowns(Jet(half, found.names)) for half in halves)
        return columns(part.equation(ends, q, p), len(x))


def shares(block: Block, residual: Tensor) -> Tensor:
    """Return weights (N,) that add up to 1, those of the points or equal ones, times the squared gate where there is one."""
    w = block.get("w")
    share = residual.new_full((len(residual),), 1 / len(residual)) if w is None else w.to(residual) / w.sum()
    return share * block["gate"].to(residual).square() if "gate" in block else share


def refuse_not_finite(found: Residuals, points: Batch, names: tuple[str, ...]) -> None:
    """Raise `NotFinite` with the block and up to three of the points where a residual is NaN or infinite."""
    for name, several in found.items():
        bad = ~torch.stack([r.detach().isfinite() for r in several]).all(0)
        if bool(bad.any()):
            places = [
                "(" + ", ".join(f"{n}={v:.6g}" for n, v in zip(names, row, strict=True)) + ")"
                for row in points[name]["x"][bad][:3].tolist()
            ]
            raise NotFinite(
                f"the residual of {name} is NaN or infinite at {int(bad.sum())} of {len(bad)} points, "
                f"for example at {', '.join(places)}; check the equation there"
            )
    raise NotFinite("the squares of the residuals overflow: lower the learning rate, or scale the equation")


def _unknowns(found: Jet) -> Any:
    every = found.unknowns()
    return every[0] if len(every) == 1 else every


def columns(found: Any, n: int) -> tuple[Tensor, ...]:
    """Return what a residual gave as tensors (n,), one for each equation."""
    values = tuple(getattr(row, "value", row) for row in rows(found))
    for row in values:
        require(
            row.shape == (n,), f"a residual returns one number a point; for {n} points it has shape {tuple(row.shape)}"
        )
    return values
