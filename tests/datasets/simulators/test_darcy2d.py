"""Random media: what is drawn, what is solved, and that neither depends on the grid or the batch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.datasets.covariance import Covariance
from isocline.datasets.fields import Batch, side_by_side, taken_apart
from isocline.datasets.simulators.base import Cases, Simulator
from isocline.datasets.simulators.darcy2d import Darcy2D, DarcyTensor2D
from isocline.equations.classical.darcy import solve_darcy

KINDS: dict[str, Simulator] = {
    "threshold": Darcy2D(24),
    "lognormal": Darcy2D(24, levels=None),
    "tensor": DarcyTensor2D(24),
}


def solved(simulator: Simulator, cases: Cases, n: int | None = None) -> Tensor:
    (frame,) = simulator.simulate(cases, resolution=None if n is None else (n, n))
    return frame.fields["u"]


@pytest.mark.parametrize("name", KINDS)
def test_frames_are_what_the_description_says(name: str) -> None:
    simulator = KINDS[name]
    spec, cases = simulator.spec, simulator.sample(3, 0)
    (frame,) = simulator.simulate(cases)
    assert (spec.times, spec.dt) == (1, 0.0)
    assert frame.channels(spec).shape == (3, 24, 24, 1)
    given = simulator.constants(cases)
    assert {f.name: tuple(given[f.name].shape) for f in spec.constant} == {
        f.name: (3, 24, 24, *(2,) * f.order) for f in spec.constant
    }
    assert all(value.dtype == torch.float64 and bool(value.isfinite().all()) for value in given.values())
    assert simulator.equation.steady
    grid = simulator.coordinates(cases, (24, 24))
    assert abs(float(grid[0, 0, 0]) - 0.5 / 24) < 1e-15


@pytest.mark.parametrize("name", KINDS)
def test_a_case_does_not_depend_on_its_batch(name: str) -> None:
    simulator = KINDS[name]
    whole, part = simulator.sample(8, 5), simulator.sample(3, 5, first=3)
    torch.testing.assert_close(solved(simulator, part), solved(simulator, whole)[3:6], rtol=1e-12, atol=1e-14)
    for field, value in simulator.constants(part).items():
        torch.testing.assert_close(value, simulator.constants(whole)[field][3:6], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", KINDS)
def test_coefficients_on_a_grid_of_thrice_as_many_cells_are_the_same_where_middles_meet(name: str) -> None:
    simulator = KINDS[name]
    cases = simulator.sample(4, 1)
    coarse, fine = (simulator.constants(cases, resolution=(n, n)) for n in (8, 24))
    for field, value in coarse.items():
        torch.testing.assert_close(value, fine[field][:, 1::3, 1::3], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("name", "order"), [("tensor", 1.8), ("lognormal", 1.8), ("threshold", 0.8)])
def test_solutions_converge(name: str, order: float) -> None:
    """The second order of the solver where a is smooth; about the first where it jumps and cells cannot follow."""
    simulator = KINDS[name]
    cases = simulator.sample(3, 2)
    fine = solved(simulator, cases, 135)
    gaps = []
    for n in (15, 45):
        u, k = solved(simulator, cases, n), 135 // n
        gaps.append(float((u - fine[:, k // 2 :: k, k // 2 :: k]).norm() / u.norm()))
    assert math.log(gaps[0] / gaps[1], 3) > order, gaps


def test_the_threshold_has_two_levels_and_the_pressure_of_their_bounds() -> None:
    """The work of the source, the mean of u, falls where a grows: it lies between those of the constant media 12 and 3."""
    simulator = Darcy2D(32)
    cases = simulator.sample(16, 3)
    a = simulator.constants(cases)["a"]
    assert set(a.unique().tolist()) == {3.0, 12.0}
    assert 0.35 < float((a == 12).double().mean()) < 0.65
    u = solved(simulator, cases)
    work = u.mean((1, 2))
    odd = torch.arange(1, 400, 2, dtype=torch.float64).square()  # the mean of u for a = 1, by its sine series
    exact = float((1 / (odd[:, None] * odd * (odd[:, None] + odd))).sum()) * 64 / math.pi**6
    plain = solve_darcy(torch.ones(1, 96, 96, dtype=torch.float64), torch.ones(96, 96)).mean()
    assert abs(float(plain) / exact - 1) < 1e-3
    assert bool((work > exact / 12).all() and (work < exact / 3).all())


def test_the_fields_have_the_stated_covariance() -> None:
    """Coefficients of log a on the first cosines, over many cases: independent, with ratios 1 / (pi^2 |k|^2 + 9)."""
    simulator = Darcy2D(16, levels=None, spread=0.7)
    g = torch.log(simulator.constants(simulator.sample(4000, 4))["a"]) / 0.7
    assert abs(float(g.square().mean()) - 1) < 0.05
    line = (torch.arange(16, dtype=torch.float64) + 0.5) / 16
    waves = torch.stack([torch.cos(math.pi * k * line) * (2**0.5 if k else 1.0) for k in range(3)])
    found = torch.einsum("nxy,jx,ky->njk", g, waves, waves) / 256
    sizes = found.square().mean(0).sqrt()
    k2 = torch.arange(3, dtype=torch.float64).square()
    expected = 1 / (math.pi**2 * (k2[:, None] + k2) + 9)
    ratio = (sizes / expected).flatten()[1:]
    torch.testing.assert_close(ratio / ratio.mean(), torch.ones(8, dtype=torch.float64), rtol=0.06, atol=0)
    assert float(sizes[0, 0]) < 1e-2  # no mean
    pairs = torch.corrcoef(found.flatten(1)[:, 1:].T) - torch.eye(8, dtype=torch.float64)
    assert float(pairs.abs().max()) < 0.08


def test_the_tensor_is_the_exponential_of_the_drawn_matrix() -> None:
    simulator = DarcyTensor2D(10, spread=0.8)
    a = simulator.constants(simulator.sample(3, 6))["a"]
    values, vectors = torch.linalg.eigh(a)
    assert float(values.min()) > 0
    logs = vectors @ torch.diag_embed(values.log()) @ vectors.mT
    torch.testing.assert_close(torch.linalg.matrix_exp(logs), a)
    double = DarcyTensor2D(10, spread=1.6)  # exp(2 S) = exp(S)^2
    torch.testing.assert_close(double.constants(double.sample(3, 6))["a"], a @ a)
    flat = DarcyTensor2D(6, spread=0.0)
    assert torch.equal(flat.constants(flat.sample(1, 0))["a"][0, 0, 0], torch.eye(2, dtype=torch.float64))


def test_covariance_gives_solved_cases() -> None:
    """Solving for the coefficients in new coordinates gives the solution in new coordinates, to the second order."""
    simulator, errors = DarcyTensor2D(), []
    cases = simulator.sample(3, 7)
    for n in (16, 32, 64):
        spec = simulator.spec.at((n, n))
        given, u = simulator.constants(cases, resolution=(n, n)), solved(simulator, cases, n)[:, None, ..., None]
        grid, zeros = simulator.coordinates(cases, (n, n)), torch.zeros(3, 1, dtype=torch.float64)
        constants = side_by_side(given, spec.constant, 2)
        batch = Batch(spec, u[:, :0], u, zeros, zeros[:, 0], torch.zeros(3, 0), grid, constants)
        moved = Covariance("a", source="f", strength=0.3)(batch, 8)
        assert moved.constants is not None
        changed = taken_apart(moved.constants, spec.constant, 2)
        again = solve_darcy(changed["a"], changed["f"])
        errors.append(float((again - moved.target[:, 0, ..., 0]).norm() / again.norm()))
    assert errors[-1] < 5e-3
    assert math.log2(errors[1] / errors[2]) > 1.8, errors


def test_bad_settings() -> None:
    with pytest.raises(InvalidInput, match="levels of a must be positive"):
        Darcy2D(levels=(0.0, 3.0))
    with pytest.raises(InvalidInput, match="spread"):
        DarcyTensor2D(spread=-1.0)
