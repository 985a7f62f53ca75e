"""SA-Solver beyond the contract: what it is at special settings, its weights, its law, diffusers.

T3: one recorded list of outputs and one of noises drive both sides. diffusers draws noise inside its step; the draw is replaced by
the recorded one. Its coefficients always hold the authors' change for rules of two nodes, hence `exact=False` here.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.plans import Plan, grids, solvers
from isocline.plans.grids.span import End
from isocline.plans.solvers.rows import Levels
from isocline.processes import EDM, GaussianMixture, GaussianProcess, RectifiedFlow, VariancePreserving
from tests.plans.helpers import PROCESSES, normal
from tests.plans.solvers.test_diffusers import (
    TABLES,
    agree,
    every_output,
    every_table,
    index_times,
    ours,
    recorded,
    scheduler,
    theirs,
    with_levels,
)
from tests.plans.solvers.test_stochastic import marginal, moments

every_process = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
ORDERS = [(1, 0), (2, 0), (3, 0), (1, 1), (2, 2), (2, 3), (3, 4)]
every_order = pytest.mark.parametrize("orders", ORDERS, ids=lambda o: f"predictor {o[0]}, corrector {o[1]}")


def uneven(process: GaussianProcess) -> Tensor:
    """Return times whose noise levels fall by uneven ratios."""
    return process.time_of_noise_level(torch.tensor([9.0, 7.0, 3.0, 1.4, 0.9, 0.25], dtype=torch.float64))


def compiled(process: GaussianProcess, times: Tensor, orders: tuple[int, int], **settings: Any) -> Plan:
    return solvers.sa_solver(process, times, predictor_order=orders[0], corrector_order=orders[1], **settings)


@every_process
def test_special_settings_are_other_solvers(process: GaussianProcess) -> None:
    times = uneven(process)
    for order in (1, 2, 3, 4):
        predictor = solvers.sa_solver(process, times, predictor_order=order, corrector_order=0)
        assert predictor.equivalent(solvers.exponential_adams(process, times, order=order))
    ancestral = solvers.sa_solver(process, times, predictor_order=1, corrector_order=0, tau=1.0)
    assert ancestral.equivalent(solvers.ddim(process, times, eta=1.0))
    halved = solvers.sa_solver(process, times, corrector_order=0, exact=False)
    assert halved.equivalent(solvers.unipc(process, times, variant="bh1", corrector=False))
    full = solvers.sa_solver(process, times, predictor_order=3, corrector_order=4)
    assert torch.allclose(full.weights[3:], solvers.unipc(process, times, order=3).weights[3:], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("end", ["t_min", "zero"])
def test_without_signal_and_corrector_it_is_exponential_adams(end: End) -> None:
    times = grids.uniform(RectifiedFlow(), 6, end=end)
    for order in (1, 2, 3):
        predictor = solvers.sa_solver(RectifiedFlow(), times, predictor_order=order, corrector_order=0)
        assert predictor.equivalent(solvers.exponential_adams(RectifiedFlow(), times, order=order))


@every_order
@pytest.mark.parametrize("tau", [0.0, 1.0])
def test_a_start_without_signal_is_the_limit_of_late_starts(orders: tuple[int, int], tau: float) -> None:
    """The limit is reached as fast as ``1 / lam``, at once by predictors and correctors of one node."""
    flow = RectifiedFlow()
    times = grids.uniform(flow, 5)
    at = compiled(flow, times, orders, tau=tau)
    gaps = []
    for late in (1e-6, 1e-12):
        near = compiled(flow, torch.cat([torch.tensor([1 - late], dtype=torch.float64), times[1:]]), orders, tau=tau)
        gaps.append(float((at.weights - near.weights).abs().max()))
        torch.testing.assert_close(at.noise, near.noise, rtol=0, atol=1e-5)
    assert gaps[1] < 1e-10 if max(orders) == 1 else gaps[1] < 0.7 * gaps[0]


@pytest.mark.parametrize("tau", [0.0, 0.6, 1.0])
def test_weights_agree_with_adaptive_quadrature(tau: float) -> None:
    """The last row is ``P + a (C - P of the step before)``: its newest three weights are checked against the integrals."""
    levels = Levels(EDM(), uneven(EDM()))
    found = compiled(EDM(), levels.times, (2, 3), tau=tau)
    lam, c = levels.lam.tolist(), 1 + tau**2

    def integral(i: int, nodes: list[int], j: int) -> float:
        others = [lam[m] for m in nodes if m != j]

        def integrand(u: float) -> float:
            return c * math.exp(c * (u - lam[i + 1])) * math.prod((u - v) / (lam[j] - v) for v in others)

        return float(quad(integrand, lam[i], lam[i + 1], epsabs=0, epsrel=1e-12)[0])

    carry = math.exp(-c * (lam[5] - lam[4]))
    for j in (2, 3, 4):
        predicted = integral(4, [3, 4], j) if j in (3, 4) else 0.0
        replaced = integral(3, [2, 3], j) if j in (2, 3) else 0.0
        expected = predicted + carry * (integral(3, [2, 3, 4], j) - replaced)
        assert float(found.weights[4, j]) == pytest.approx(expected, rel=1e-9)
    assert float(found.carry[4]) == pytest.approx(carry, rel=1e-12)


@every_process
@every_order
@pytest.mark.parametrize("tau", [1.0, [0.0, 1.0, 0.3, 0.0, 2.0, 1.0]], ids=["one", "many"])
@pytest.mark.parametrize("end", ["t_min", "zero"])
def test_the_law_of_point_data_is_exact(process: GaussianProcess, orders: tuple[int, int], tau: Any, end: End) -> None:
    if end == "zero" and float(process.sigma(0.0)) > 0:
        pytest.skip("this process has noise at time 0")
    plan = compiled(process, grids.karras(process, 6, end=end), orders, tau=tau)
    assert moments(plan, 1.7, 0.0) == pytest.approx(marginal(process, plan.times[-1], 1.7, 0.0), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("orders", [(1, 0), (2, 0), (3, 0), (2, 3)])
@pytest.mark.parametrize("end", ["t_min", "zero"])
def test_fresh_noise_forgets_a_start_without_signal(orders: tuple[int, int], end: End) -> None:
    """The first step is infinitely long, so with tau > 0 nothing of the start is left after it."""
    flow = RectifiedFlow()
    plan = compiled(flow, grids.uniform(flow, 5, end=end), orders, tau=1.0)
    assert float(plan.carry[0]) == 0.0
    assert moments(plan, 1.7, 0.0) == pytest.approx(marginal(flow, plan.times[-1], 1.7, 0.0), rel=1e-9, abs=1e-12)


def variance_gap(n: int, orders: tuple[int, int], tau: float) -> float:
    """Return the error in the variance of samples of ``N(1.3, 0.6^2)``; their mean is exact."""
    plan = compiled(VariancePreserving(), grids.log_snr(VariancePreserving(), n), orders, tau=tau)
    (mean, variance), expected = moments(plan, 1.3, 0.6), marginal(plan.process, plan.times[-1], 1.3, 0.6)
    assert mean == pytest.approx(expected[0], rel=1e-12)
    return abs(variance - expected[1])


@pytest.mark.parametrize(("orders", "order", "n"), [((1, 0), 1, 50), ((2, 0), 2, 50), ((3, 4), 2, 100)])
@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_the_variance_of_gaussian_data_converges_with_order_2_at_most(
    orders: tuple[int, int], order: int, n: int, tau: float
) -> None:
    assert abs(math.log2(variance_gap(n, orders, tau) / variance_gap(2 * n, orders, tau)) - order) < 0.15


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_the_corrector_brings_the_variance_nearer(tau: float) -> None:
    for n in (50, 100):
        assert variance_gap(n, (2, 2), tau) < variance_gap(n, (2, 0), tau) / 2


def test_samples_have_the_moments_of_the_plan() -> None:
    process, n = VariancePreserving(), 100_000
    bed = GaussianMixture(process, torch.full((1, 1), 1.3, dtype=torch.float64), torch.tensor([0.6]))
    plan = compiled(process, uneven(process), (2, 3), tau=1.0)
    mean, variance = moments(plan, 1.3, 0.6)
    first_mean, first_variance = marginal(process, plan.times[0], 1.3, 0.6)
    found = plan.run(bed, first_mean + math.sqrt(first_variance) * normal(n, 1), rng=3).x
    assert abs(float(found.mean()) - mean) < 4 * math.sqrt(variance / n)
    assert abs(float(found.var()) - variance) < 4 * variance * math.sqrt(2 / n)


def test_bad_settings_are_refused() -> None:
    solve = partial(solvers.sa_solver, EDM(), uneven(EDM()))
    with pytest.raises(InvalidInput, match=r"tau must not be negative, got -0\.1"):
        solve(tau=-0.1)
    with pytest.raises(InvalidInput, match="one for each of 5 steps, got 4"):
        solve(tau=[1.0] * 4)
    with pytest.raises(InvalidInput, match="corrector_order must not be negative, got -1"):
        solve(corrector_order=-1)
    with pytest.raises(InvalidInput, match="order must be at least 1, got 0"):
        solve(predictor_order=0)


@every_table
@every_output
@pytest.mark.parametrize("orders", [(1, 1), (2, 1), (2, 2), (2, 3), (3, 4)], ids=str)
@pytest.mark.parametrize("tau", [0.0, 1.0])
@pytest.mark.parametrize("final_order", [1, None])
def test_diffusers(
    table: str,
    output: str,
    orders: tuple[int, int],
    tau: float,
    final_order: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def strength(t: float) -> float:
        return tau if 200 <= t <= 800 else 0.0

    process, steps = TABLES[table][0], 8
    settings = {"predictor_order": orders[0], "corrector_order": orders[1], "lower_order_final": final_order == 1}
    made = scheduler("SASolverScheduler", table, output, steps, tau_func=strength, **settings)
    times = index_times(made.timesteps, 1 / 1000)
    taus = [strength(float(t)) for t in made.timesteps]
    outputs, x = recorded(steps)
    noise = [normal(2, 3, seed=50 + i, dtype=torch.float32) for i in range(steps)]
    draws = iter(noise)
    monkeypatch.setattr("diffusers.schedulers.scheduling_sasolver.randn_tensor", lambda *a, **k: next(draws))
    plan = compiled(process, times, orders, tau=taus, final_order=final_order, exact=False)
    assert plan.stochastic == (tau > 0)
    found = ours(plan, outputs, x, output, [z.double() for z in noise])
    agree(found, theirs(with_levels(made, process, times), outputs, x))
