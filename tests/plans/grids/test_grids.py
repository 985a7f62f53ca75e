"""Grids: ends, order, spacing in the variable that defines them, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.plans import grids
from isocline.plans.grids.span import End, Grid
from isocline.processes import (
    EDM,
    CosineVariancePreserving,
    GaussianProcess,
    RectifiedFlow,
    SubVariancePreserving,
    Tabulated,
    VarianceExploding,
    VariancePreserving,
)

PROCESSES: tuple[GaussianProcess, ...] = (
    EDM(),
    VariancePreserving(),
    CosineVariancePreserving(),
    SubVariancePreserving(),
    VarianceExploding(t_min=1e-3),
    RectifiedFlow(t_max=0.999),
    Tabulated.linear_betas(),
)
VARIABLES: dict[Grid, Callable[[GaussianProcess, Tensor], Tensor]] = {
    grids.uniform: lambda p, t: t,
    grids.quadratic: lambda p, t: t.sqrt(),
    grids.exponential: lambda p, t: t.log(),
    grids.log_snr: lambda p, t: p.half_log_snr(t),
    grids.karras: lambda p, t: p.noise_level(t) ** (1 / 7),
}
every_grid = pytest.mark.parametrize("grid", VARIABLES, ids=lambda g: g.__name__)
every_process = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)


def test_every_public_grid_is_tested() -> None:
    elsewhere = {"log_snr_blocks"}  # equal in no variable: tests/plans/solvers/test_dpm_solver.py
    assert {grid.__name__ for grid in VARIABLES} | elsewhere == set(grids.__all__)


@every_grid
@every_process
@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 400), end=st.sampled_from(["t_min", "zero"]))
def test_ends_are_exact_and_times_fall(grid: Grid, process: GaussianProcess, n: int, end: End) -> None:
    if end == "zero" and float(process.sigma(0.0)) > 0:
        end = "t_min"
    times = grid(process, n, end=end)
    assert times.shape == (n + 1,)
    assert times.dtype == torch.float64
    assert bool((times.diff() < 0).all())
    assert float(times[0]) == process.t_max
    assert float(times[-1]) == (process.t_min if end == "t_min" else 0.0)
    if end == "zero" and n > 1:
        assert float(times[-2]) == process.t_min
        assert torch.equal(times[:-1], grid(process, n - 1))


@every_grid
@every_process
def test_steps_are_equal_in_the_defining_variable(grid: Grid, process: GaussianProcess) -> None:
    steps = VARIABLES[grid](process, grid(process, 37)).diff()
    torch.testing.assert_close(steps, steps.mean().expand(37), rtol=1e-7, atol=0)


@every_grid
@every_process
def test_ends_can_be_chosen(grid: Grid, process: GaussianProcess) -> None:
    high, low = 0.7 * process.t_max, 0.3 * process.t_max
    times = grid(process, 5, t_max=high, t_min=low)
    assert (float(times[0]), float(times[-1])) == (high, low)
    u = VARIABLES[grid](process, torch.tensor([high, low], dtype=torch.float64))
    middle = VARIABLES[grid](process, grid(process, 2, t_max=high, t_min=low))[1]
    assert float(middle) == pytest.approx(float(u.mean()), rel=1e-8)


@pytest.mark.parametrize("rho", [1.0, 3.0, 7.0])
def test_karras_spaces_its_root_equally(rho: float) -> None:
    process = VariancePreserving()
    steps = (process.noise_level(grids.karras(process, 20, rho=rho)) ** (1 / rho)).diff()
    torch.testing.assert_close(steps, steps.mean().expand(20), rtol=1e-8, atol=0)


def test_karras_tends_to_log_snr() -> None:
    process = VariancePreserving()
    gaps = [float((grids.karras(process, 9, rho=r) - grids.log_snr(process, 9)).abs().max()) for r in (1e2, 1e3)]
    assert gaps[0] / gaps[1] == pytest.approx(10, rel=0.1)


def test_exponential_and_log_snr_are_one_on_edm() -> None:
    torch.testing.assert_close(grids.exponential(EDM(), 9), grids.log_snr(EDM(), 9), rtol=1e-12, atol=0)


@every_grid
@pytest.mark.parametrize("n", [0, -1, 2.0])
def test_a_grid_needs_a_step(grid: Grid, n: int) -> None:
    with pytest.raises(InvalidInput, match=f"at least one step, got {n}"):
        grid(EDM(), n)


@every_grid
@pytest.mark.parametrize(
    ("t_max", "t_min"), [(1.0, 2.0), (1.0, 1.0), (81.0, None), (None, -0.1), (math.nan, None), (None, math.nan)]
)
def test_ends_outside_the_process_are_refused(grid: Grid, t_max: float | None, t_min: float | None) -> None:
    with pytest.raises(InvalidInput, match=r"0 <= t_min < t_max <= 80.0, got"):
        grid(EDM(), 3, t_max=t_max, t_min=t_min)


@every_grid
def test_an_unknown_end_is_refused(grid: Grid) -> None:
    with pytest.raises(InvalidInput, match="ends at 't_min' or at 'zero', got 'none'"):
        grid(EDM(), 3, end="none")


@every_grid
def test_a_process_with_noise_at_time_0_cannot_end_there(grid: Grid) -> None:
    with pytest.raises(InvalidInput, match=r"VarianceExploding\(.*\) has noise at time 0; end its grids at 't_min'"):
        grid(VarianceExploding(), 3, end="zero")


@pytest.mark.parametrize("grid", [grids.log_snr, grids.karras], ids=lambda g: g.__name__)
def test_infinite_noise_levels_are_refused_with_the_way_out(grid: Grid) -> None:
    with pytest.raises(InvalidInput, match=r"finite noise levels.*RectifiedFlow.*pass t_max or t_min"):
        grid(RectifiedFlow(), 3)
    assert float(grid(RectifiedFlow(), 3, t_max=0.99)[0]) == 0.99


def test_a_grid_that_reaches_zero_by_itself_has_no_second_zero() -> None:
    process = EDM(t_min=0.0, t_max=1.0)
    assert grids.uniform(process, 2, end="zero").tolist() == [1.0, 0.5, 0.0]


@pytest.mark.parametrize("rho", [0.0, -1.0])
def test_karras_needs_a_positive_root(rho: float) -> None:
    with pytest.raises(InvalidInput, match="rho must be positive"):
        grids.karras(EDM(), 3, rho=rho)
