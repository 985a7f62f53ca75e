from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.integrators import (
    ESDIRK,
    PID,
    TRBDF2,
    Clip,
    ImplicitEuler,
    KenCarp3,
    KenCarp4,
    KenCarp5,
    Kvaerno3,
    Kvaerno4,
    Kvaerno5,
    Rodas3,
    Rodas4,
    Rodas5P,
    Rosenbrock23,
    SaveAt,
    Tableau,
    Trapezoid,
    integrate,
)

DAMPING = [ImplicitEuler(), TRBDF2(), Kvaerno3(), Kvaerno4(), Kvaerno5(), KenCarp3(), KenCarp4(), KenCarp5()]
DAMPING += [Rosenbrock23(), Rodas3(), Rodas4(), Rodas5P()]  # type: ignore[list-item]
ALL = pytest.mark.parametrize("method", [*DAMPING, Trapezoid()], ids=lambda m: type(m).__name__)


def tensor(*x: float) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


def growth(method: Any, z: complex) -> complex:
    """The stability function R(z), from one step of y' = z y."""
    turn = torch.tensor([[z.real, -z.imag], [z.imag, z.real]], dtype=torch.float64)
    y1 = integrate(lambda t, y: turn @ y, tensor(1.0, 0.0), 0.0, 1.0, method=method, dt0=1.0).y1
    return complex(float(y1[0]), float(y1[1]))


@ALL
def test_nothing_on_the_imaginary_axis_grows(method: Any) -> None:
    sizes = [abs(growth(method, 1j * w)) for w in (0.1, 0.7, 2.0, 5.0, 30.0, 1e4)]
    assert max(sizes) <= 1 + 1e-9


@pytest.mark.parametrize("method", DAMPING, ids=lambda m: type(m).__name__)
def test_stiff_parts_vanish_in_large_steps(method: Any) -> None:
    assert abs(growth(method, -1e7 + 0j)) < 2e-5
    found = integrate(
        lambda t, y: -1e6 * (y - torch.cos(t)),
        tensor(2.0),
        0.0,
        2.0,
        method=method,
        dt0=0.1,
        saveat=SaveAt(ts=[0.5, 2.0]),
    )
    bar = 2e-3 if isinstance(method, Rosenbrock23) else 2e-6  # order 2 with its own error in the forcing
    assert float((found.ys[:, 0] - torch.cos(found.ts)).abs().max()) < bar


def test_the_trapezoidal_rule_rings() -> None:
    assert growth(Trapezoid(), -1e7 + 0j).real == pytest.approx(-1.0, abs=1e-5)
    assert abs(growth(Trapezoid(), 3j)) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    ("method", "polynomial"),
    [(Kvaerno3(), (6, -18, 9, -1)), (Kvaerno4(), (24, -96, 72, -16, 1)), (TRBDF2(), (2, -4, 1))],
    ids=["kvaerno3", "kvaerno4", "tr_bdf2"],
)
def test_gamma_is_a_root(method: ESDIRK, polynomial: tuple[int, ...]) -> None:
    assert abs(np.polyval(polynomial, method.gamma)) < 1e-12


def test_one_step_of_kvaerno_is_a_naive_one() -> None:
    """A second implementation: Newton with a Jacobian by hand, to the end, in every stage."""
    table, h, y0 = Kvaerno5().tableau, 0.3, np.array([0.8, -0.3])

    def f(t: float, y: Any) -> Any:
        return np.array([-20 * y[0] ** 3 + y[1] * t, np.cos(y[0]) - 40 * y[1]])

    def j(t: float, y: Any) -> Any:
        return np.array([[-60 * y[0] ** 2, t], [-np.sin(y[0]), -40.0]])

    k: list[Any] = []
    for c, row in zip(table.abscissae, table.matrix, strict=True):
        z = y0.copy()
        for _ in range(50):
            rest = z - y0 - h * sum((row[m] * k[m] for m in range(len(k))), np.zeros(2)) - h * row[len(k)] * f(c * h, z)
            z = z - np.linalg.solve(np.eye(2) - h * row[len(k)] * j(c * h, z), rest)
        k.append(f(c * h, z))

    def field(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack([-20 * y[0] ** 3 + y[1] * t, torch.cos(y[0]) - 40 * y[1]])

    found = integrate(field, torch.tensor(y0), 0.0, h, method=Kvaerno5(), dt0=h)
    expected = y0 + h * sum(b * x for b, x in zip(table.b, k, strict=True))
    np.testing.assert_allclose(found.y1.numpy(), expected, rtol=1e-12, atol=1e-13)


@ALL
def test_tolerances_are_kept_on_a_stiff_problem(method: Any) -> None:
    """Prothero and Robinson: y' = -1e4 (y - sin t) + cos t, solution sin t, from a start that is off."""
    tol = 1e-4 if method.order < 3 else 1e-6
    found = integrate(
        lambda t, y: -1e4 * (y - torch.sin(t)) + torch.cos(t),
        tensor(1.0),
        0.0,
        3.0,
        method=method,
        controller=PID(tol, tol),
    )
    assert found.status.ok
    assert float(found.y1) == pytest.approx(math.sin(3.0), abs=20 * tol)
    assert found.stats.accepted < 500


def test_van_der_pol_costs_what_a_stiff_method_costs() -> None:
    def field(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack([y[1], 1e3 * (1 - y[0] ** 2) * y[1] - y[0]])

    found = integrate(field, tensor(2.0, 0.0), 0.0, 500.0, method=Kvaerno5(), controller=PID(1e-6, 1e-6))
    assert found.status.ok
    assert found.stats.accepted + found.stats.rejected < 60  # an explicit method needs a hundred thousand
    slow = float(found.y1[0])  # on the slow branch log y - y^2 / 2 falls by t / 1000, up to 1e-6
    assert math.log(slow) - slow**2 / 2 - (math.log(2) - 2) == pytest.approx(0.5, abs=1e-3)


def test_the_interpolant_of_kvaerno4_has_order_three() -> None:
    times = [0.22, 0.35, 0.6, 0.77]

    def error(h: float) -> float:
        found = integrate(
            lambda t, y: torch.cos(t) * y,
            tensor(1.0),
            0.0,
            h,
            method=Kvaerno4(),
            dt0=h,
            saveat=SaveAt(ts=[h * x for x in times]),
        )
        return float((found.ys[:, 0] - torch.exp(torch.sin(found.ts))).norm())

    assert math.log2(error(0.02) / error(0.01)) == pytest.approx(4.0, abs=0.15)


def test_clipped_controllers_pass_their_tolerance_on() -> None:
    def field(t: Tensor, y: Tensor) -> Tensor:
        return torch.where(t < 0.5, 1.0, -1.0) - 50 * y

    found = integrate(
        field, tensor(0.0), 0.0, 1.0, method=Kvaerno3(), controller=Clip(PID(1e-6, 1e-8), jump_times=(0.5,)), dt0=0.01
    )
    assert float(found.y1) == pytest.approx(-0.02, abs=1e-6)


def test_what_is_not_an_esdirk_method_is_refused() -> None:
    with pytest.raises(InvalidInput, match="diagonal"):
        ESDIRK(Tableau("midpoint", a=((0.5,),), b=(1.0,), order=2))
    with pytest.raises(InvalidInput, match="stiffly accurate"):
        ESDIRK(Tableau("open", a=((0.0,), (0.5, 0.5)), b=(0.25, 0.75), order=1))
