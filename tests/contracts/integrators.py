"""Every integrator that shares the tests of tests/integrators/methods/test_contract.py. A new method is one more line here.

A method of another kind of equation brings its own `terms` (what turns a field into the terms the method accepts), or its own
problems.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from isocline.integrators import (
    ETDRK1,
    ETDRK2,
    ETDRK3,
    ETDRK4,
    ODE,
    RK4,
    RK38,
    SSPRK3,
    TRBDF2,
    AdamsBashforth,
    AdamsBashforthMoulton,
    Bosh3,
    CashKarp,
    Dopri5,
    Dopri8,
    Euler,
    Fehlberg45,
    Heun,
    HochbruckOstermann4,
    ImplicitEuler,
    KenCarp3,
    KenCarp4,
    KenCarp5,
    Krogstad4,
    Kvaerno3,
    Kvaerno4,
    Kvaerno5,
    Midpoint,
    Ralston,
    Rodas3,
    Rodas4,
    Rodas5P,
    Rosenbrock23,
    Semilinear,
    Split,
    Trapezoid,
    Tsit5,
    Vern7,
)

Field = Callable[..., Tensor]


@dataclass(frozen=True)
class Known:
    """An equation with a closed solution.

    Name; field (t, y) -> dy, which works on the last axis, so that leading axes may count samples; solution t () -> y (d,); span.
    """

    name: str
    field: Field
    exact: Callable[[Tensor], Tensor]
    span: tuple[float, float] = (0.0, 2.0)

    def at(self, t: float) -> Tensor:
        return self.exact(torch.tensor(t, dtype=torch.float64))


ROTATION = torch.tensor([[-0.3, -2.0], [1.0, 0.2]], dtype=torch.float64)
PROJECTION = torch.tensor([[0.2, -1.0, 0.3], [1.0, -0.1, 0.4], [0.5, -0.2, 0.1]], dtype=torch.float64)
FIRST = torch.tensor([1.0, 0.5], dtype=torch.float64)


def product(matrix: Tensor, y: Tensor) -> Tensor:
    """Row by row, with the same rounding whatever the batch (a product of matrices may choose another kernel)."""
    return (matrix.to(y.dtype) * y[..., None, :]).sum(-1)


def rotation(t: Tensor, y: Tensor) -> Tensor:
    """A damped rotation, y' = A y."""
    return product(ROTATION, y)


def rotation_exact(t: Tensor) -> Tensor:
    return torch.linalg.matrix_exp(ROTATION * t[..., None, None]) @ FIRST


def quotients(t: Tensor, y: Tensor) -> Tensor:
    """The quotients y_i = u_i / u_3 of a linear system u' = A u: a quadratic field."""
    slopes = product(PROJECTION, torch.nn.functional.pad(y, (0, 1), value=1.0))
    return slopes[..., :2] - y * slopes[..., 2:]


def quotients_exact(t: Tensor) -> Tensor:
    u = torch.linalg.matrix_exp(PROJECTION * t[..., None, None]) @ torch.nn.functional.pad(FIRST, (0, 1), value=1.0)
    return u[..., :2] / u[..., 2:]


def driven(field: Field) -> Field:
    """The same system in the time t + sin(t) / 10, carried along the path (sin t, cos t)."""

    def moved(t: Tensor, y: Tensor) -> Tensor:
        at = t[..., 0] if t.ndim else t
        path, velocity = torch.stack([at.sin(), at.cos()], -1), torch.stack([at.cos(), -at.sin()], -1)
        return (1 + t.cos() / 10) * field(t, y - path) + velocity

    return moved


def driven_exact(exact: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda t: exact(t + t.sin() / 10) + torch.stack([t.sin(), t.cos()], -1)


LINEAR = (
    Known("linear", rotation, rotation_exact),
    Known("linear driven", driven(rotation), driven_exact(rotation_exact)),
)
QUADRATIC = (
    Known("quadratic", quotients, quotients_exact),
    Known("quadratic driven", driven(quotients), driven_exact(quotients_exact)),
)

# steps at which errors are far from rounding and near their leading term, or, where rounding comes first, above it
STEPS = {1: 40, 2: 40, 3: 40, 4: 40, 5: 48, 6: 60, 7: 12, 8: 6}
HARDER_STEPS = {1: 40, 2: 40, 3: 40, 4: 80, 5: 24, 6: 20, 7: 8, 8: 8}


@dataclass(frozen=True)
class Entry:
    """One method and what it states.

    Name and method; order that must be observed inside steps, where it is not the stated one; what makes terms of a field;
    equations on which the order is observed to 0.15, and others on which it must not be lower (methods whose leading error is
    small show a higher one there, until rounding); steps of the coarser run of the order tests on both; evaluations that a
    step costs more where states inside it are asked for; names of shared tests that make no sense for it.
    """

    name: str
    method: Any
    inside: int | None = None
    terms: Callable[[Field], Any] = ODE
    problems: tuple[Known, ...] = LINEAR
    harder: tuple[Known, ...] = QUADRATIC
    steps: int | None = None
    harder_steps: int | None = None
    inside_cost: int = 0
    without: frozenset[str] = field(default_factory=frozenset)

    @property
    def coarse(self) -> int:
        return self.steps or STEPS[self.method.order]

    @property
    def harder_coarse(self) -> int:
        return self.harder_steps or HARDER_STEPS[self.method.order]

    @property
    def inside_order(self) -> int:
        return self.inside or self.method.dense_order

    def __str__(self) -> str:
        return self.name


def multistep(name: str, method: Any, steps: int | None = None) -> Entry:
    """A method with a history: its single steps say nothing of it."""
    return Entry(name, method, harder=(), steps=steps, without=frozenset({"single step"}))


SHARES = torch.tensor([0.625, 0.375])


def split(function: Field) -> Split:
    """Two parts that do not commute; the weights are exact in every precision."""
    return Split(lambda t, y: SHARES * function(t, y), lambda t, y: (1 - SHARES) * function(t, y))


LINEAR_PART = torch.tensor([-0.5, -1.0])  # every method casts it to the precision of the state
NOT_NESTED = frozenset({"nested states"})
FIXED_PART = frozenset({"nested states", "mirror"})  # the linear part stays when the field is mirrored


def semilinear(function: Field) -> Semilinear:
    """A diagonal linear part and the rest."""
    return Semilinear(LINEAR_PART, lambda t, y: function(t, y) - LINEAR_PART.to(y.dtype) * y)


def exponential(name: str, method: Any, steps: int | None = None) -> Entry:
    """A method for terms with a linear part."""
    return Entry(name, method, terms=semilinear, without=FIXED_PART, inside_cost=1, steps=steps)


INTEGRATORS = [
    Entry("euler", Euler(), inside_cost=1),
    Entry("heun", Heun(), inside_cost=1),
    Entry("midpoint", Midpoint(), inside_cost=1),
    Entry("ralston", Ralston(), inside_cost=1),
    Entry("ssprk3", SSPRK3(), inside_cost=1),
    Entry("bosh3", Bosh3()),
    Entry("rk4", RK4(), inside_cost=1),
    Entry("rk38", RK38(), inside_cost=1),
    Entry("fehlberg45", Fehlberg45(), inside_cost=1),
    Entry("cash_karp", CashKarp(), inside_cost=1),
    Entry("dopri5", Dopri5()),
    Entry("tsit5", Tsit5()),
    # its interpolant misses the conditions of order 7 by 3e-7: more than rounding, less than what the errors of steps show
    Entry("vern7", Vern7(), inside=7, inside_cost=6),
    Entry("dopri8", Dopri8(), inside_cost=3),
    *[multistep(f"adams_bashforth_{k}", AdamsBashforth(k)) for k in (1, 2, 4, 6)],
    *[multistep(f"adams_bashforth_moulton_{k}", AdamsBashforthMoulton(k)) for k in (2, 3, 5)],
    Entry("implicit_euler", ImplicitEuler()),
    Entry("trapezoid", Trapezoid()),
    Entry("tr_bdf2", TRBDF2()),
    Entry("kvaerno3", Kvaerno3()),
    Entry("kvaerno4", Kvaerno4(), without=frozenset({"single step"})),  # smaller steps: see test_esdirk
    Entry("kvaerno5", Kvaerno5()),
    Entry("kencarp3", KenCarp3()),
    Entry("kencarp4", KenCarp4()),
    Entry("kencarp5", KenCarp5()),
    Entry("kencarp3_split", KenCarp3(), terms=split, without=NOT_NESTED, harder_steps=80),
    Entry("kencarp4_split", KenCarp4(), terms=split, without=NOT_NESTED),
    Entry("kencarp5_split", KenCarp5(), terms=split, without=NOT_NESTED, harder_steps=48),
    Entry("kencarp3_linear", KenCarp3(), terms=semilinear, without=FIXED_PART),
    Entry("kencarp4_linear", KenCarp4(), terms=semilinear, without=FIXED_PART),
    Entry("kencarp5_linear", KenCarp5(), terms=semilinear, without=FIXED_PART, harder_steps=48),
    Entry("rosenbrock23", Rosenbrock23()),
    Entry("rodas3", Rodas3(), inside_cost=1, harder_steps=80),
    Entry("rodas4", Rodas4(), steps=80),
    # without time its order is 6 on linear equations; its coefficients are large, see test_rosenbrock for complex states
    Entry("rodas5p", Rodas5P(), problems=(LINEAR[1], LINEAR[1]), without=frozenset({"complex"})),
    *[exponential(f"etdrk{m.order}", m) for m in (ETDRK1(), ETDRK2(), ETDRK3(), ETDRK4())],
    exponential("krogstad4", Krogstad4()),
    exponential("hochbruck_ostermann4", HochbruckOstermann4()),
]
