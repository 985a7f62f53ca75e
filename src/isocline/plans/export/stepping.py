r"""A plan taken one network call at a time, by a program that owns the loop and makes the calls.

The rows from one call up to the next are one step of such a program. With ``k`` the row of a call and ``m_k`` its output, turned
into the plan's own kind, the step does (``d`` are the plan's constants, if it has any)

    x <- a_i x + sum_{j <= i} b_ij m_j + c_i z_i + d_i  for i = k and the rows after it that make no call.

Rows before the first call have no output to use; they only scale the start and add noise, so a start drawn from ``N(0, s^2)`` with

    s^2 <- a_i^2 s^2 + c_i^2 ,      s = sigma(t_0) at first,

has the law of the state that the first call reads, and a program starts there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.plans.plan import Plan
from isocline.processes import Parameterisation

Scalars = tuple[float, float]


class Row(NamedTuple):
    """One row as numbers; `terms` are (row of the call, weight), `drop` the calls whose outputs no later row uses."""

    carry: float
    terms: list[tuple[int, float]]
    noise: float
    constant: float
    drop: list[int]


class Stepping:
    """The rows of a plan, grouped by network call, and the outputs that later rows need.

    Args:
        plan: a plan with at least one network call, whose coefficients are the same for all coordinates.
        output: what the network outputs.

    Attributes:
        calls: row of each network call.
        place: number of the next call.

    Raises:
        InvalidInput: the plan is of another kind, or these outputs are undefined at a time of the plan.

    Examples:
        >>> from isocline.plans import grids, solvers
        >>> from isocline.processes import EDM, Data
        >>> steps = Stepping(solvers.ddim(EDM(), grids.karras(EDM(), 2, end="zero")), Data())
        >>> x = torch.full((1, 3), steps.start_sigma)
        >>> for call in range(2):
        ...     x = steps.advance(x, torch.ones(1, 3), torch.randn)
        >>> x
        tensor([[1., 1., 1.]])
    """

    def __init__(self, plan: Plan, output: Parameterisation) -> None:
        require(plan.calls > 0, "this plan makes no network call; there is nothing to step through")
        require(
            plan.carry.ndim == 1, "a plan with coefficients for each coordinate cannot be stepped through; use plan.run"
        )
        self.plan = plan
        rows = _rows(plan)
        self.calls: list[int] = plan.evaluate.nonzero().flatten().tolist()
        self._groups = [rows[a:b] for a, b in pairwise([*self.calls, len(rows)])]
        self._lead = rows[: self.calls[0]]
        require(
            not any(row.constant for row in self._lead), "this plan adds constants before its first call; use plan.run"
        )
        self._own = _scalars(plan.conversion(output), self.calls)
        times = plan.times[:-1].detach()
        self._to_data = _scalars(output.to_data(plan.process, times), self.calls)
        self._from_data = _scalars(plan.parameterisation.from_data(plan.process, times), self.calls)
        thresholded = all(map(_finite, [*self._to_data, *self._from_data])) if plan.threshold is not None else True
        require(
            thresholded,
            f"{output.name} outputs cannot be thresholded at a time of this plan: alpha or sigma is zero there",
        )
        self.restart()

    @property
    def start_sigma(self) -> float:
        """Standard deviation of the state that the first call reads."""
        variance = float(self.plan.process.sigma(self.plan.times[0].detach())) ** 2
        for row in self._lead:
            variance = row.carry**2 * variance + row.noise**2
        return math.sqrt(variance)

    def can_begin(self, place: int) -> bool:
        """Say whether no row from call number `place` on uses an output from before."""
        used = {j for group in self._groups[place:] for row in group for j, _ in row.terms}
        return min(used, default=self.calls[place]) >= self.calls[place]

    def restart(self, place: int = 0) -> None:
        """Forget all outputs and begin with call number `place`.

        Raises:
            InvalidInput: the plan cannot begin there.
        """
        require(0 <= place < len(self.calls), f"this plan makes {len(self.calls)} calls; it has no call number {place}")
        require(
            self.can_begin(place),
            f"this plan cannot begin with call number {place}: from there on it uses outputs of calls before. Begin with its "
            "first call, with a plan whose grid starts where you start, or use a one-step solver such as ddim",
        )
        self.place = place
        self._outputs: dict[int, Tensor] = {}

    def data(self, x: Tensor, output: Tensor) -> Tensor | None:
        """Return the data prediction (B, *) of the next call, thresholded as the plan says; None where it is undefined."""
        if not _finite(self._to_data[self.place]):
            return None
        x0 = _combined(self._to_data[self.place], x, output)
        return x0 if self.plan.threshold is None else self.plan.threshold(x0)

    def advance(self, x: Tensor, output: Tensor, draw: Callable[[torch.Size], Tensor]) -> Tensor:
        """Return the state that the next call reads, or the result after the last call.

        Args:
            x: (B, *) the state that the call read; not changed.
            output: (B, *) what the network said.
            draw: ``shape -> noise`` for rows that add noise.
        """
        require(self.place < len(self.calls), f"all {len(self.calls)} calls of this plan are made; start another run")
        self._outputs[self.calls[self.place]] = self._kept(x, output)
        for row in self._groups[self.place]:
            x = x * row.carry + row.constant if row.constant else x * row.carry
            for j, b in row.terms:
                x.add_(self._outputs[j], alpha=b)
            if row.noise:
                x.add_(draw(x.shape), alpha=row.noise)
            for j in row.drop:
                self._outputs.pop(j, None)
        self.place += 1
        return x

    def _kept(self, x: Tensor, output: Tensor) -> Tensor:
        """Return the network's output as the plan's own kind of output."""
        if self.plan.threshold is None:
            return output if self._own[self.place] == (0.0, 1.0) else _combined(self._own[self.place], x, output)
        x0 = self.plan.threshold(_combined(self._to_data[self.place], x, output))
        return _combined(self._from_data[self.place], x, x0)


def _rows(plan: Plan) -> list[Row]:
    terms = [[(j, b) for j, b in enumerate(row) if b] for row in plan.weights.tolist()]
    last = {j: i for i, row in enumerate(terms) for j, _ in row}
    drop: list[list[int]] = [[] for _ in terms]
    for j in plan.evaluate.nonzero().flatten().tolist():
        drop[last.get(j, j)].append(j)
    constants = [0.0] * len(terms) if plan.constant is None else plan.constant.tolist()
    return list(map(Row, plan.carry.tolist(), terms, plan.noise.tolist(), constants, drop))


def _scalars(columns: tuple[Tensor, Tensor], rows: list[int]) -> list[Scalars]:
    return list(zip(*(column.detach()[rows].tolist() for column in columns), strict=True))


def _finite(scalars: Scalars) -> bool:
    return math.isfinite(scalars[0]) and math.isfinite(scalars[1])


def _combined(scalars: Scalars, x: Tensor, m: Tensor) -> Tensor:
    """Return ``cx x + cm m`` in a tensor of its own."""
    return (m * scalars[1]).add_(x, alpha=scalars[0])
