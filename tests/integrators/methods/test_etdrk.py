from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.integrators import (
    ETDRK1,
    ETDRK2,
    ETDRK3,
    ETDRK4,
    ODE,
    PID,
    HochbruckOstermann4,
    KenCarp5,
    Krogstad4,
    Semilinear,
    integrate,
)
from isocline.integrators.methods.phi import matrix_phi, phi

METHODS = [ETDRK1(), ETDRK2(), ETDRK3(), ETDRK4(), Krogstad4(), HochbruckOstermann4()]
ALL = pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)


def contour(z: complex, k: int) -> complex:
    """phi_k as Kassam and Trefethen have it: the mean over a circle around z, where nothing cancels."""
    around = z + 2.0 * np.exp(2j * np.pi * (np.arange(128) + 0.5) / 128)
    found = np.exp(around)
    for j in range(k):
        found = (found - 1 / math.factorial(j)) / around
    return complex(found.mean())


@pytest.mark.parametrize("z", [0.0, 1e-12, -1e-5, 0.3, -0.99, 1.01, -7.0, 2.5, 0.2 + 0.9j, -30.0 + 4j, 1e-3j])
def test_phi_is_the_contour_integral(z: complex) -> None:
    for k, value in enumerate(phi(torch.tensor(z, dtype=torch.complex128), 3)):
        scale = max(1.0, abs(np.exp(z)))
        assert abs(complex(value) - contour(z, k)) < 1e-13 * scale


def test_phi_of_a_matrix_is_phi_of_its_eigenvalues() -> None:
    values = torch.tensor([-1e3, -2.0, -1e-8, 0.5], dtype=torch.float64)
    basis = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    matrices = torch.stack([basis * values @ basis.mT, torch.diag(values)])
    for k, found in enumerate(matrix_phi(matrices, 3)):
        torch.testing.assert_close(found[1], torch.diag(phi(values, 3)[k]), rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(found[0], basis * phi(values, 3)[k] @ basis.mT, rtol=1e-10, atol=1e-11)


def test_phi_has_gradients_across_the_seam() -> None:
    z = torch.tensor([0.0, 1e-9, -0.999, -1.001, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: torch.stack(phi(z, 3)), z)


@ALL
def test_constant_nonlinear_parts_are_exact_in_one_step(method: Any) -> None:
    rates = torch.tensor([0.0, -1.0, -1e3, 0.7], dtype=torch.float64)
    y0 = torch.tensor([1.0, 2.0, 3.0, -1.0], dtype=torch.float64)
    exact = torch.exp(rates) * y0 + 2.0 * phi(rates, 1)[1]
    for terms in (
        Semilinear(rates, lambda t, y: torch.full_like(y, 2.0)),
        Semilinear(torch.diag(rates), lambda t, y: torch.full_like(y, 2.0), dense=True),
    ):
        found = integrate(terms, y0, 0.0, 1.0, method=method, dt0=1.0)
        torch.testing.assert_close(found.y1, exact, rtol=1e-11, atol=1e-12)


def test_a_wrong_coefficient_is_refused() -> None:
    table = ETDRK2().table
    with pytest.raises(InvalidInput, match="constant N"):
        replace(table, b=({(1, 1.0): 1.0, (2, 1.0): -1.1}, {(2, 1.0): 1.0}))
    with pytest.raises(InvalidInput, match="order condition"):
        replace(table, b=({(1, 1.0): 0.9}, {(1, 1.0): 0.1}))


def kuramoto_sivashinsky(points: int = 32, length: float = 22.0) -> tuple[Semilinear, Tensor]:
    """u_t = -u u_x - u_xx - u_xxxx on a circle, as Fourier coefficients; a start of a few waves."""
    k = torch.fft.rfftfreq(points, 1 / points).double() * 2 * math.pi / length
    kept = k < k.max() * 2 / 3

    def rest(t: Tensor, v: Tensor) -> Tensor:
        u = torch.fft.irfft(v, n=points)
        return torch.where(kept, -0.5j * k * torch.fft.rfft(u * u), 0.0)

    x = torch.arange(points, dtype=torch.float64) * 2 * math.pi / points
    return Semilinear((k**2 - k**4).to(torch.complex128), rest), torch.fft.rfft(torch.cos(x) * (1 + torch.sin(x)))


def test_order_four_on_kuramoto_sivashinsky() -> None:
    terms, v0 = kuramoto_sivashinsky()
    reference = integrate(terms, v0, 0.0, 2.0, method=HochbruckOstermann4(), dt0=2 / 640).y1
    for method in (ETDRK4(), Krogstad4(), HochbruckOstermann4()):
        errors = [
            float((integrate(terms, v0, 0.0, 2.0, method=method, dt0=2 / n).y1 - reference).norm()) for n in (80, 160)
        ]
        assert math.log2(errors[0] / errors[1]) == pytest.approx(4.0, abs=0.35)
        assert errors[1] < 1e-6 * float(reference.norm())
    additive = integrate(terms, v0, 0.0, 2.0, method=KenCarp5(), controller=PID(1e-7, 1e-7)).y1
    torch.testing.assert_close(additive, reference, rtol=1e-5, atol=1e-6)


def test_stiff_order_on_the_example_of_hochbruck_and_ostermann() -> None:
    """u_t = u_xx + 1 / (1 + u^2) + Phi, u = 0 at both ends, solution x (1 - x) e^t: their example 6.1."""
    n = 60
    x = torch.arange(1, n + 1, dtype=torch.float64) / (n + 1)
    matrix = (n + 1) ** 2 * (
        torch.diag(torch.ones(n - 1), 1) + torch.diag(torch.ones(n - 1), -1) - 2 * torch.eye(n)
    ).double()

    def exact(t: Tensor) -> Tensor:
        return x * (1 - x) * torch.exp(t)

    def rest(t: Tensor, u: Tensor) -> Tensor:
        return 1 / (1 + u**2) + exact(t) + 2 * torch.exp(t) - 1 / (1 + exact(t) ** 2)

    def observed(method: Any) -> float:
        zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
        terms = Semilinear(matrix, rest, dense=True)
        errors = [
            float((integrate(terms, exact(zero), 0.0, 1.0, method=method, dt0=1 / m).y1 - exact(one)).abs().max())
            for m in (10, 20)
        ]
        return math.log2(errors[0] / errors[1])

    assert observed(ETDRK4()) == pytest.approx(2.0, abs=0.3)
    assert observed(HochbruckOstermann4()) == pytest.approx(4.0, abs=0.3)
    assert observed(Krogstad4()) > 2.8


def test_coefficients_are_made_once_for_one_step_size(monkeypatch: pytest.MonkeyPatch) -> None:
    from isocline.integrators.methods import etdrk

    calls = []

    def counted(z: Tensor, count: int) -> list[Tensor]:
        calls.append(z)
        return phi(z, count)

    monkeypatch.setattr(etdrk, "phi", counted)
    terms = Semilinear(torch.tensor([-1.0, -50.0]), lambda t, y: torch.sin(y))
    integrate(terms, torch.ones(2), 0.0, 1.0, method=ETDRK4(), dt0=0.125)
    assert len(calls) == 2  # at z and z / 2, not in each of the eight steps


def test_gradients_of_the_linear_part() -> None:
    y0 = torch.tensor([1.0, -0.5], dtype=torch.float64)

    def run(linear: Tensor, y0: Tensor) -> Tensor:
        return integrate(Semilinear(linear, lambda t, y: torch.sin(y)), y0, 0.0, 0.5, method=ETDRK4(), dt0=0.25).y1

    rates = torch.tensor([-0.3, -9.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (rates, y0.requires_grad_()))


def test_terms_without_a_linear_part_are_refused() -> None:
    with pytest.raises(InvalidInput, match="ETDRK4 integrates Semilinear terms, got ODE"):
        integrate(ODE(lambda t, y: -y), torch.ones(1), 0.0, 1.0, method=ETDRK4(), dt0=0.1)
