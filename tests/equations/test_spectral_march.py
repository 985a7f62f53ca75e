import math

import pytest
import torch

from isocline._core.errors import NotFinite
from isocline.equations.classical.spectral_march import SpectralMarch, Torus, random_waves
from isocline.equations.classical.vorticity import velocity, vorticity_march

TWO_PI = torch.full((2,), 2 * math.pi, dtype=torch.float64)


def grid(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    line = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n
    x, y = torch.meshgrid(line, line, indexing="ij")
    return x, y


def start(n: int = 32, seed: int = 0) -> tuple[Torus, torch.Tensor]:
    torus = Torus((n, n), TWO_PI)
    draws = torch.randn(2, 2, 5, 10, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torus, torus.coefficients(random_waves(draws, torus, lambda k2: 0.3 / (1 + k2))) * torus.kept()


def test_derivatives_of_waves() -> None:
    torus = Torus((16, 12), TWO_PI)
    x = torch.arange(16, dtype=torch.float64) * 2 * math.pi / 16
    y = torch.arange(12, dtype=torch.float64) * 2 * math.pi / 12
    u = torch.sin(3 * x)[:, None] * torch.cos(2 * y)
    c = torus.coefficients(u)
    torch.testing.assert_close(torus.values(torus.wave(0) * c), 3 * torch.cos(3 * x)[:, None] * torch.cos(2 * y))
    torch.testing.assert_close(torus.values(torus.wave(1) * c), -2 * torch.sin(3 * x)[:, None] * torch.sin(2 * y))
    torch.testing.assert_close(torus.values(torus.laplacian() * c), -13 * u)


def test_taylor_green_decays_exactly() -> None:
    torus, (x, y) = Torus((32, 32), TWO_PI), grid(32)
    w = 2 * torch.cos(x) * torch.cos(y)
    nu = torch.tensor([0.1, 0.03], dtype=torch.float64)
    march = vorticity_march(torus, nu, 0.01)
    found = torus.values(march.advance(torus.coefficients(w).expand(2, -1, -1), 100))
    expected = w * torch.exp(-2 * nu)[:, None, None]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_velocity_has_the_vorticity_and_no_divergence() -> None:
    torus, c = start()
    u, v = velocity(c, torus)
    curl = torus.wave(0) * v - torus.wave(1) * u
    torch.testing.assert_close(torus.values(curl), torus.values(c))
    assert float(torus.values(torus.wave(0) * u + torus.wave(1) * v).abs().max()) < 1e-12


def test_energy_and_enstrophy_are_kept_without_viscosity() -> None:
    torus, c = start(48)
    march = vorticity_march(torus, torch.zeros(2, dtype=torch.float64), 0.01)

    def energy(c: torch.Tensor) -> torch.Tensor:
        return torch.stack([torus.values(part).square() for part in velocity(c, torus)]).sum(0).mean((1, 2)) / 2

    later = march.advance(c, 100)
    torch.testing.assert_close(energy(later), energy(c), rtol=1e-8, atol=0)
    both = [torus.values(w).square().mean((1, 2)) for w in (c, later)]
    torch.testing.assert_close(both[1], both[0], rtol=1e-8, atol=0)
    assert not torch.allclose(later, c)


def test_energy_balance_with_forcing_viscosity_and_drag() -> None:
    """``d/dt mean(w^2) / 2 = -nu mean |grad w|^2 - drag mean(w^2) + mean(f w)``, by Simpson's rule in time."""
    torus, c = start(32)
    nu, drag, h, steps = torch.tensor([0.02, 0.05], dtype=torch.float64), 0.1, 0.0025, 40
    f = -4 * torch.cos(4 * grid(32)[1])
    march = vorticity_march(torus, nu, h, drag=drag, forcing=f)

    def rate(c: torch.Tensor) -> torch.Tensor:
        w = torus.values(c)
        slope = sum(torus.values(torus.wave(a) * c).square() for a in (0, 1))
        return -nu * slope.mean((1, 2)) - drag * w.square().mean((1, 2)) + (f * w).mean((1, 2))

    def half_square(c: torch.Tensor) -> torch.Tensor:
        return torus.values(c).square().mean((1, 2)) / 2

    first, rates = half_square(c), [rate(c)]
    for _ in range(steps):
        c = march.advance(c, 1)
        rates.append(rate(c))
    weights = torch.tensor([1, *[4, 2] * (steps // 2 - 1), 4, 1], dtype=torch.float64) * h / 3
    change = torch.einsum("t,tn->n", weights, torch.stack(rates))
    torch.testing.assert_close(half_square(c) - first, change, rtol=1e-8, atol=1e-8)


def test_fourth_order_in_time() -> None:
    torus, c = start(32)
    nu = torch.tensor([0.02, 0.05], dtype=torch.float64)

    def at_one(steps: int) -> torch.Tensor:
        return vorticity_march(torus, nu, 1 / steps).advance(3 * c, steps)

    exact = at_one(320)
    errors = [float((at_one(n) - exact).abs().max()) for n in (20, 40)]
    assert math.log2(errors[0] / errors[1]) > 3.7


def test_cases_do_not_see_each_other() -> None:
    torus, c = start(16)
    nu = torch.tensor([0.02, 0.05], dtype=torch.float64)
    both = vorticity_march(torus, nu, 0.05).advance(c, 5)
    torch.testing.assert_close(
        vorticity_march(torus, nu[1:], 0.05).advance(c[1:], 5)[0], both[1], rtol=1e-12, atol=1e-12
    )


def test_a_step_has_the_right_gradient() -> None:
    torus = Torus((8,), torch.ones(1, dtype=torch.float64))
    k, kept = torus.wave(0), torus.kept()

    def end(u: torch.Tensor, nu: torch.Tensor) -> torch.Tensor:
        def rest(t: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
            return -0.5 * k * kept * torus.coefficients(torus.values(w).square())

        return torus.values(SpectralMarch(nu * torus.laplacian(), rest, 0.01).advance(torus.coefficients(u), 2))

    u = torch.randn(1, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    nu = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(end, (u, nu))


def test_random_fields_are_the_same_functions_on_all_grids_and_have_their_variance() -> None:
    draws = torch.randn(2000, 2, 4, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fields = [
        random_waves(draws, Torus((n, n), torch.ones(2, dtype=torch.float64)), lambda k2: 1 / (1 + k2))
        for n in (16, 32)
    ]
    torch.testing.assert_close(fields[1][:, ::2, ::2], fields[0])
    k = torch.arange(-4, 5, dtype=torch.float64) * 2 * math.pi
    k2 = k[:, None] ** 2 + k**2
    inside = (k[:, None] > 0) & (k > -25.2) & (k < 25.1) | (k[:, None] == 0) & (k > 0)  # one of each pair, as drawn
    expected = float((2 / (1 + k2) ** 2)[inside].sum())
    assert float(fields[0].square().mean()) == pytest.approx(expected, rel=0.05)


def test_a_case_that_blows_up_is_named() -> None:
    torus = Torus((8,), torch.ones(1, dtype=torch.float64))
    march = SpectralMarch(torch.zeros(1), lambda t, w: w.abs() ** 2 * w, 1.0)
    with pytest.raises(NotFinite, match="case 1 of the batch blew up before t = "):
        march.advance(torch.stack([torch.zeros(5), torch.full((5,), 10.0)]).to(torch.complex128), 30)
    assert torus.sizes == (8,)
