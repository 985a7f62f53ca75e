"""The analytic first step: exact for Gaussian data whatever the solver, one call fewer, a small loss for other data."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.plans import Plan, Threshold, analytic_first_step, grids, solvers
from isocline.plans.solvers import Restart
from isocline.processes import (
    EDM,
    Data,
    GaussianMixture,
    GaussianProcess,
    Noise,
    RectifiedFlow,
    VariancePreserving,
)
from tests.contracts.solvers import SOLVERS, Entry
from tests.plans.helpers import PARAMETERISATIONS, PROCESSES, Replay, Told, normal, random_plan

every_process = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)


def gaussian(process: GaussianProcess, std: float) -> GaussianMixture:
    return GaussianMixture(process, torch.zeros(1, 3, dtype=torch.float64), torch.tensor([std]))


@pytest.mark.parametrize("entry", SOLVERS, ids=str)
def test_nothing_changes_for_gaussian_data_of_that_spread(entry: Entry) -> None:
    """From ``s = 3``, where another spread shows."""
    process, x = VariancePreserving(), normal(4, 3)
    plan = entry.compile(process, process.time_of_noise_level(torch.tensor([3.0, 2.0, 1.0, 0.6, 0.4, 0.25]).double()))
    fewer = analytic_first_step(plan, 0.7)
    exact, found = plan.run(gaussian(process, 0.7), x), fewer.run(gaussian(process, 0.7), x)
    torch.testing.assert_close(found.x, exact.x, rtol=1e-8, atol=1e-8)
    assert fewer.calls == plan.calls - 1 == found.cost.calls
    assert not torch.allclose(fewer.run(gaussian(process, 0.2), x).x, plan.run(gaussian(process, 0.2), x).x, rtol=1e-5)


@every_process
def test_neither_process_nor_parameterisation_matters(process: GaussianProcess) -> None:
    plan = solvers.dpm_solver_pp_2m(process, grids.karras(process, 5))
    bed, x = gaussian(process, 0.4), normal(4, 3)
    exact = plan.run(bed, x).x
    for parameterisation in PARAMETERISATIONS:
        network = Told(lambda x, t: bed(x, t), process, parameterisation)
        for fewer in (
            analytic_first_step(plan, 0.4).convert(parameterisation),
            analytic_first_step(plan.convert(parameterisation), 0.4),
        ):
            torch.testing.assert_close(fewer.run(network, x).x, exact, rtol=1e-8, atol=1e-8)


def test_the_first_row_is_silent_and_the_others_keep_their_outputs() -> None:
    """The plan's other outputs keep their weights in every state; what was ``m_0`` is now in the factors on the state."""
    plan = solvers.exponential_adams(EDM(), grids.karras(EDM(), 5))
    fewer = analytic_first_step(plan, 0.5)
    assert fewer.evaluate.tolist() == [False, True, True, True, True]
    torch.testing.assert_close(
        fewer.canonical().outputs[:, 1:], plan.canonical().outputs[:, 1:], rtol=1e-12, atol=1e-14
    )
    slope = 0.25 / (0.25 + float(plan.times[0]) ** 2)
    expected = plan.canonical().start + slope * plan.canonical().outputs[:, 0]
    torch.testing.assert_close(fewer.canonical().start, expected, rtol=1e-12, atol=0)
    ddim = solvers.ddim(EDM(), grids.karras(EDM(), 5))
    sparse = analytic_first_step(ddim, 0.5)
    assert torch.equal(sparse.weights[1:] != 0, ddim.weights[1:] != 0)
    torch.testing.assert_close(sparse.carry[1:], ddim.carry[1:], rtol=1e-13, atol=0)


def test_point_data_at_the_origin_are_spread_zero() -> None:
    plan = analytic_first_step(solvers.ddim(EDM(), grids.karras(EDM(), 4)), 0.0)
    assert float(plan.carry[0]) == pytest.approx(float(plan.times[1] / plan.times[0]), rel=1e-14)


@pytest.mark.parametrize("end", ["t_min", "zero"])
def test_a_noise_network_may_then_start_without_signal(end: Any) -> None:
    """Without signal the prediction for centred data is 0, whatever their spread."""
    flow = RectifiedFlow()
    x, bed = normal(4, 3), gaussian(flow, 0.7)
    for solver in (solvers.ddim, solvers.dpm_solver_pp_2m, solvers.flow_adams):
        plan = solver(flow, grids.uniform(flow, 5, end=end))
        noise = Told(lambda x, t: bed(x, t), flow, Noise())
        with pytest.raises(InvalidInput, match="Noise outputs are undefined"):
            plan.run(noise, x)
        torch.testing.assert_close(analytic_first_step(plan).run(noise, x).x, plan.run(bed, x).x, rtol=1e-9, atol=1e-9)


def test_stochastic_plans_keep_their_noise() -> None:
    process = VariancePreserving()
    times = grids.log_snr(process, 5)
    x, z, bed = normal(4, 3), [normal(4, 3, seed=i) for i in range(9)], gaussian(process, 0.7)
    interval = Restart(low=0.3, high=2.0, steps=2, repeats=1)
    for plan in (
        solvers.ddim(process, times, eta=1.0),
        solvers.sa_solver(process, times, predictor_order=1, corrector_order=0, tau=0.5),
        solvers.restart(process, times, [interval], order=1),
    ):
        noise = [z[i % 9] for i in range(len(plan.carry))]
        found = analytic_first_step(plan, 0.7).run(bed, x, noise=noise).x
        torch.testing.assert_close(found, plan.run(bed, x, noise=noise).x, rtol=1e-9, atol=1e-10)


def test_a_stochastic_multistep_plan_has_no_row_form() -> None:
    process = VariancePreserving()
    plan = solvers.sa_solver(process, grids.log_snr(process, 5), tau=1.0)
    with pytest.raises(InvalidInput, match="would need earlier noises"):
        analytic_first_step(plan)


def test_what_cannot_be_replaced_is_refused() -> None:
    plan = solvers.ddim(EDM(), grids.karras(EDM(), 3))
    once = analytic_first_step(plan)
    with pytest.raises(InvalidInput, match="first row of this plan makes no call"):
        analytic_first_step(once)
    with pytest.raises(InvalidInput, match="one call"):
        analytic_first_step(solvers.ddim(EDM(), grids.karras(EDM(), 1)))
    with pytest.raises(InvalidInput, match=r"data_std must not be negative, got -1\.0"):
        analytic_first_step(plan, -1.0)


def test_the_plan_says_what_was_done_and_survives_a_file(tmp_path: Path) -> None:
    plan = solvers.unipc(EDM(), grids.karras(EDM(), 4)).with_threshold(Threshold(0.99)).for_guidance(2.0)
    fewer = analytic_first_step(plan, 0.5)
    assert fewer.provenance.method == "unipc"
    assert fewer.provenance.settings == plan.provenance.settings | {"analytic_first_step": 0.5}
    assert (fewer.guidance, fewer.threshold) == (plan.guidance, plan.threshold)
    assert Plan.load(fewer.save(tmp_path / "plan.json")) == fewer


def test_coefficients_are_differentiable() -> None:
    process = VariancePreserving()

    def end(times: Tensor) -> Tensor:
        return analytic_first_step(solvers.dpm_solver_pp_2m(process, times), 0.5).canonical().start

    times = grids.log_snr(process, 4, t_max=0.8, t_min=0.1).requires_grad_()
    assert torch.autograd.gradcheck(end, (times,))


def test_any_plan_of_one_output_a_row() -> None:
    """Whatever the coefficients, the result is that of a network whose first output is the stated multiple of the start."""
    plan = random_plan(3)
    outputs, x = [normal(2, 3, seed=i) for i in range(4)], normal(2, 3, seed=9)
    alpha, sigma = float(plan.process.alpha(plan.times[0])), float(plan.process.sigma(plan.times[0]))
    first = alpha * 0.09 / (alpha**2 * 0.09 + sigma**2) * x
    expected = plan.run(Replay([first, *outputs[1:]], plan.process, Data()), x).x
    found = analytic_first_step(plan, 0.3).run(Replay(outputs[1:], plan.process, Data()), x).x
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@cache
def batches(centred: bool) -> tuple[GaussianMixture, float, Tensor, Tensor]:
    """Return the smooth mixture, its spread about 0, and five batches of starts at ``s = 80`` and exact ends."""
    bed = GaussianMixture.smooth_bed(EDM())
    mean = bed.weights @ bed.means if centred else torch.zeros(8, dtype=torch.float64)
    bed = GaussianMixture(EDM(), bed.means - mean, bed.stds, bed.weights)
    x = 80.0 * normal(5 * 64, 8)
    std = float(bed.sample(10_000, 1).square().mean().sqrt())
    return bed, std, x, solvers.heun(EDM(), grids.log_snr(EDM(), 150)).run(bed, x).x


def errors(centred: bool, solver: Any, n: int, grid: Any) -> Tensor:
    """Return errors (3, 5): of `n` steps, of these without their first call, of one step fewer."""
    bed, std, x, exact = batches(centred)
    full, shorter = (solver(EDM(), grid(EDM(), k)) for k in (n, n - 1))
    runs = [plan.run(bed, x).x for plan in (full, analytic_first_step(full, std), shorter)]
    return torch.stack([(found - exact).square().reshape(5, -1).mean(1).sqrt() for found in runs])


@pytest.mark.parametrize(
    "solver", [solvers.ddim, solvers.dpm_solver_pp_2m, solvers.unipc, solvers.flow_adams, solvers.heun]
)
@pytest.mark.parametrize("grid", [grids.karras, grids.log_snr])
def test_from_high_noise_centred_data_lose_little_and_gain_a_step(solver: Any, grid: Any) -> None:
    """Ten steps of which the first is free: within 1% of ten calls, and better than nine steps, in each of five batches."""
    full, fewer, shorter = errors(True, solver, 10, grid)
    assert bool((fewer < 1.01 * full).all())
    assert bool((fewer < 0.97 * shorter).all())


@pytest.mark.parametrize("grid", [grids.karras, grids.log_snr])
def test_a_mean_of_the_data_costs_much_where_later_rows_extrapolate_the_first_output(grid: Any) -> None:
    """The mixture as it is has means of 0.3 in each coordinate, which the replaced output misses."""
    full, fewer, _ = errors(False, solvers.ddim, 10, grid)
    assert bool((fewer < 1.01 * full).all())
    full, fewer, shorter = errors(False, solvers.flow_adams, 8, grid)
    assert bool((fewer > 1.5 * full).all())
    assert bool((fewer > 1.5 * shorter).all())
