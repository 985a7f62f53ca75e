r"""Additive Runge-Kutta methods: an explicit and a diagonally implicit tableau in one step (IMEX).

    dy = (f(t, y) + g(t, y)) dt ,       f not stiff, g stiff
    z_i = y + h sum_{j < i} (a^E_ij f_j + a^I_ij g_j) + h gamma g_i ,        f_i = f(t + c_i h, z_i) ,   g_i = g(t + c_i h, z_i)
    y_{n+1} = y + h sum_i b_i (f_i + g_i)

Both tableaux share the abscissae, the weights, the error weights and the interpolant. The order conditions are those of
rooted trees whose nodes have two colours (Kennedy and Carpenter, Appl. Numer. Math. 44 (2003) 139); a pair checks all
of them when it is made. Which terms are split, and how:

    Split        f and g as given; g is solved by the method's solver
    Semilinear   f = N(t, y), g = L y, solved exactly
    others       f = 0: the implicit tableau alone

A split step begins with ``g`` at the solution, which amplifies what the iterations left over by the stiffness. Where
``g`` is nonlinear and very stiff, leave less: ``KenCarp4(solver=Chord(kappa=1e-4))``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.integrators.dense import Combination
from isocline.integrators.methods.base import Carry, Step
from isocline.integrators.methods.esdirk import ESDIRK, Stages, failed_samples, samples, settled, unsolved
from isocline.integrators.methods.explicit import combined
from isocline.integrators.methods.tableau import Array, Tableau, Tree, density, trees
from isocline.integrators.solvers.base import Prepared, Rows, Stage, Work
from isocline.integrators.solvers.linear import Exact
from isocline.integrators.split import Split
from isocline.integrators.terms import Semilinear


def coloured_weights(parts: tuple[Array, ...], tree: Tree) -> Iterator[Array]:
    """Yield the elementary weights of a tree for every choice of a tableau for each of its edges."""
    if not tree:
        yield np.ones(len(parts[0]))
        return
    for rest in coloured_weights(parts, tree[1:]):
        for branch in coloured_weights(parts, tree[0]):
            for a in parts:
                yield rest * (a @ branch)


def coupling_defect(parts: tuple[Array, ...], weights: Array, order: int, theta: float = 1.0) -> float:
    """Return the largest violation of a coupling condition by weights that all parts share, up to `order`."""
    return max(
        abs(float(weights @ phi) - theta**n / density(tree))
        for n in range(1, order + 1)
        for tree in trees(n)
        for phi in coloured_weights(parts, tree)
    )


@dataclass(frozen=True)
class Additive(ESDIRK):
    """A pair of an explicit and a diagonally implicit tableau.

    Args:
        tableau: the implicit one.
        solver: of the implicit stages.
        explicit: the explicit one, with the same abscissae and weights.
    """

    explicit: Tableau = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        implicit, explicit = self.tableau, self.explicit
        same = tuple(implicit.b) == tuple(explicit.b) and tuple(implicit.abscissae) == tuple(explicit.abscissae)
        require(same, f"{implicit.name}: both parts need the same c and b")
        require(bool(implicit.powers), f"{implicit.name}: an additive pair needs an interpolant for both parts")
        parts, b = (explicit.matrix, implicit.matrix), np.array(implicit.b)
        worst = max(
            coupling_defect(parts, b, implicit.order),
            coupling_defect(parts, b - np.array(implicit.error), implicit.embedded_order) if implicit.error else 0.0,
        )
        require(worst < 1e-12, f"{implicit.name}: a coupling condition is violated by {worst:.1e}")

    def start(self, terms: Any, t: Tensor, y: Tensor, f: Tensor | None) -> Carry:
        """Return the first stage where it is known already and not split."""
        return () if isinstance(terms, Split | Semilinear) else super().start(terms, t, y, f)

    def step(self, terms: Any, t: Tensor, h: Tensor, y: Tensor, state: Carry) -> Step:
        """Return one step, its error and its interpolant."""
        if not isinstance(terms, Split | Semilinear):
            return super().step(terms, t, h, y, state)
        slow, fast = _parts(terms)
        first = (state[0], state[1]) if state else (slow(t, y), fast(t, y))
        scale = h * self.gamma
        ready: Prepared = (
            Exact.of(terms, scale, y)
            if isinstance(terms, Semilinear)
            else self.solver.prepare(fast, Rows.of(y, terms), t, scale, y, state[2:])
        )
        ready, run = settled(ready, lambda ready: self._both(ready, slow, t, h, y, first))
        counted = slow.evaluations + (fast.evaluations if isinstance(terms, Split) else 0)
        again, failed = (*first, *ready.again()), failed_samples(run, y)
        if run.failed.all():
            return unsolved(y, again, counted, failed)
        y1 = torch.addcmul(y, combined(self.tableau.b, run.k), h)
        error = h * combined(self.tableau.error, run.k) if self.tableau.error else None
        return Step(y1, error, Combination(y, h, self.tableau.powers, run.k), (), again, counted, failed)

    def _both(
        self, ready: Prepared, slow: Work, t: Tensor, h: Tensor, y: Tensor, first: tuple[Tensor, Tensor]
    ) -> Stages:
        """Return the stages; their slopes are the sums of both parts."""
        scale, f, k = h * self.gamma, [first[0]], [first[1]]
        run = Stages.none(samples(y, h))
        for i, guess in enumerate(self.predictor, start=1):
            time = t + self.tableau.abscissae[i] * h
            earlier = combined(self.tableau.matrix[i, :i].tolist(), k) + combined(
                self.explicit.matrix[i, :i].tolist(), f
            )
            base = torch.addcmul(y, earlier, h)
            with torch.no_grad():
                begin = scale * combined(guess, k)
            found = ready.solve(Stage(time, base, scale, begin), run.eta)
            run = run.joined(found.failed, found.theta, found.eta)
            k.append(found.w / scale)
            if run.failed.all():
                break
            f.append(slow(time, base + found.w))
        return replace(run, k=[a + b for a, b in zip(f, k, strict=False)])


def _parts(terms: Split | Semilinear) -> tuple[Work, Work]:
    """Return the explicit and the implicit part."""
    if isinstance(terms, Split):
        return Work(terms.slow, terms), Work(terms.fast, terms)
    return Work(terms.rest, terms), Work(lambda t, y: terms.apply(y), terms)
