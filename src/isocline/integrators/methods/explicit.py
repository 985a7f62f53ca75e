r"""Explicit Runge-Kutta methods: one step from a tableau.

    k_i = f(t + c_i h, y + h sum_{j < i} a_ij k_j)

The sums are accumulated in place, one fused multiply-add for each weight; coefficients are Python floats. Where the last
stage is evaluated at the solution (FSAL), it is the first stage of the next step; otherwise the first stage is kept
for the repetition of a rejected step.

Where the last two stages g, g' are both evaluated at the end of the step, ``|f(g') - f(g)| / |g' - g|`` estimates the
size of the Jacobian, and ``h`` times it tells how near the step is to the limit of stability (Shampine 1977; Hairer
and Wanner II, chapter IV.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from isocline.integrators.dense import Combination, Interpolant, hermite
from isocline.integrators.methods.base import Carry, Step
from isocline.integrators.methods.late import Late
from isocline.integrators.methods.tableau import Tableau
from isocline.integrators.terms import ODE


@dataclass(frozen=True)
class ExplicitRungeKutta:
    """An explicit Runge-Kutta method.

    Args:
        tableau: its coefficients.
    """

    tableau: Tableau

    @property
    def order(self) -> int:
        """Order of accuracy."""
        return self.tableau.order

    @property
    def error_order(self) -> int:
        """Power of h in the error estimate: one more than the lower order of both solutions."""
        return min(self.tableau.order, self.tableau.embedded_order) + 1 if self.tableau.error else 0

    @property
    def dense_order(self) -> int:
        """Order of accuracy inside a step; never above that of the step itself."""
        return min(self.tableau.order, self.tableau.dense_order)

    def start(self, terms: ODE, t: Tensor, y: Tensor, f: Tensor | None) -> Carry:
        """Return the first stage where it is known already."""
        return () if f is None else (f,)

    def step(self, terms: ODE, t: Tensor, h: Tensor, y: Tensor, state: Carry) -> Step:
        """Return one step, its error and its interpolant."""
        table = self.tableau
        k = [state[0] if state else terms.vf(t, y)]
        if _small(h, y):
            return self._at_once(terms, t, h, y, k, len(state))
        z = stages(table, terms, t, h, y, k, table.stages - table.late)
        y1 = z if table.last_is_solution else torch.addcmul(y, combined(table.b, k), h)
        ending = (k[-1],) if table.last_is_solution else ()
        return Step(y1, self.error(h, k), self._dense(terms, t, h, y, y1, k), ending, (k[0],), len(k) - len(state))

    def _at_once(self, terms: ODE, t: Tensor, h: Tensor, y: Tensor, k: list[Tensor], known: int) -> Step:
        """Make the same step for a small state without gradients: a stage is added to all sums that read it in one operation."""
        table, size = self.tableau, h.item()
        count = table.stages - table.late
        starts, columns, times, (last, rest) = _columns(table, y.ndim, y.dtype, t.dtype, y.device)
        sums = starts * y
        rows, moments = sums.unbind(0), torch.add(t, times, alpha=size).unbind(0)
        first = sums.data_ptr()
        behind = first + sums.nbytes
        for i in range(1, count):
            sums.addcmul_(columns[i - 1], k[-1], value=size)
            slope = terms.vf(moments[i - 1], rows[i - 1])
            shared = first <= slope.data_ptr() < behind  # a field may return what it was given
            k.append(slope.clone() if shared else slope)
        y1 = rows[count - 2].clone() if table.last_is_solution else torch.add(rows[count - 1], k[-1], alpha=last * size)
        error = torch.add(rows[-1], k[-1], alpha=rest * size) if self.plain_error else self.error(h, k)
        ending = (k[-1],) if table.last_is_solution else ()
        return Step(y1, error, self._dense(terms, t, h, y, y1, k), ending, (k[0],), len(k) - known)

    @property
    def plain_error(self) -> bool:
        """Whether the error estimate is the sum of stages that the tableau gives."""
        return bool(self.tableau.error)

    def error(self, h: Tensor, k: Sequence[Tensor]) -> Tensor | None:
        """Return the estimate of the local error from the stages, shape (*), or None where the tableau has none."""
        return h * combined(self.tableau.error, k) if self.tableau.error else None

    def stiffness(self, step: Step) -> Tensor | None:
        """Return an estimate of the size of the Jacobian, shape () or (B,); None where the stages do not give one."""
        rows = self.tableau.twice_at_end
        if not rows or step.dense is None:
            return None
        h, k = _size_and_stages(step.dense)
        apart = _length(h * combined(rows, k), h)
        met = apart > 0
        return torch.where(met, _length(k[-1] - k[-2], h) / torch.where(met, apart, 1.0), 0.0)

    def _dense(self, terms: ODE, t: Tensor, h: Tensor, y: Tensor, y1: Tensor, k: list[Tensor]) -> Interpolant:
        if self.tableau.powers and not self.tableau.late:
            return Combination(y, h, self.tableau.powers, k)
        return LateStages(terms, t, h, y, y1, self.tableau, k)


@dataclass(frozen=True)
class LateStages(Late):
    """An interpolant that needs more stages than the step did; without one in the tableau, the cubic with the slope at the end.

    Args:
        tableau: of the step.
        k: its stages.
    """

    tableau: Tableau
    k: list[Tensor]

    def make(self) -> Combination:
        """Return the interpolant; evaluates what it needs."""
        k = list(self.k)
        if self.tableau.powers:
            stages(self.tableau, self.terms, self.t, self.h, self.y, k, self.tableau.stages)
            return Combination(self.y, self.h, self.tableau.powers, k)
        f1 = k[-1] if self.tableau.last_is_solution else self.terms.vf(self.t + self.h, self.y1)
        return hermite(self.y, self.y1, self.h, k[0], f1)


def stages(table: Tableau, terms: ODE, t: Tensor, h: Tensor, y: Tensor, k: list[Tensor], count: int) -> Tensor:
    """Append stages to `k` until there are `count`; return the state at which the last one was evaluated."""
    z = y
    for i in range(len(k), count):
        z = torch.addcmul(y, combined(table.a[i - 1], k), h)
        k.append(terms.vf(torch.add(t, h, alpha=table.abscissae[i]), z))
    return z


SMALL = 1 << 14  # numbers in a state up to which an operation costs more than what it does


def _small(h: Tensor, y: Tensor) -> bool:
    free = (
        not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch._C._functorch.peek_interpreter_stack()
    )
    return free and h.ndim == 0 and 0 < y.numel() <= SMALL


@lru_cache(maxsize=256)
def _columns(
    table: Tableau, dims: int, dtype: torch.dtype, real: torch.dtype, device: torch.device
) -> tuple[Tensor, tuple[Tensor, ...], Tensor, tuple[float, float]]:
    """Return what a step sums: for each stage but the first, the solution and the error.

    First whether the sum starts at y, shape (n, 1, ..., 1); then, for each stage but the last, its weights in all sums, of the same
    shape; the times of the stages but the first, in steps; and the weights of the last stage in the solution and in the error.
    """
    count = table.stages - table.late
    rows = [*table.matrix[1:count, :count].tolist()]
    rows += [list(table.b[:count])] if not table.last_is_solution else []
    starts = [1.0] * len(rows)
    rows += [list(table.error[:count]) if table.error else [0.0] * count]
    shape = (-1, *[1] * dims)
    weights = torch.tensor(rows, dtype=dtype, device=device)
    first = torch.tensor([*starts, 0.0], dtype=dtype, device=device).reshape(shape)
    columns = tuple(column.reshape(shape) for column in weights.unbind(1)[:-1])
    times = torch.tensor(table.abscissae[1:count], dtype=real, device=device)
    return first, columns, times, (rows[-2][-1] if len(rows) > 1 else 0.0, rows[-1][-1])


def combined(weights: Sequence[float], vectors: Sequence[Tensor]) -> Tensor:
    """Return ``sum_i weights[i] vectors[i]``; zero weights cost nothing."""
    chosen = _nonzero.__wrapped__ if torch.compiler.is_compiling() else _nonzero  # compilers do not look into caches
    (i, weight), *rest = chosen(tuple(weights))
    total = vectors[i] * weight
    for i, weight in rest:
        total.add_(vectors[i], alpha=weight)
    return total


@lru_cache(maxsize=1024)
def _nonzero(weights: tuple[float, ...]) -> tuple[tuple[int, float], ...]:
    """Return the nonzero weights with their places; the first one where all are zero."""
    return tuple((i, w) for i, w in enumerate(weights) if w != 0.0) or ((0, 0.0),)


def _size_and_stages(inside: Interpolant) -> tuple[Tensor, Sequence[Tensor]]:
    if isinstance(inside, LateStages):
        return inside.h, inside.k
    assert isinstance(inside, Combination)
    assert isinstance(inside.scale, Tensor)
    return inside.scale, inside.vectors


def _length(x: Tensor, h: Tensor) -> Tensor:
    """Return the Euclidean norm, of each sample where samples have steps of their own."""
    axes = tuple(range(1 if h.ndim else 0, x.ndim))
    return torch.linalg.vector_norm(x, dim=axes) if axes else x.abs()
