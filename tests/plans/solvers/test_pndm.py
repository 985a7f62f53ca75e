"""PNDM: its transfer, a second implementation in the paper's form, what pseudo weights cost and gain."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.plans import Plan, grids, solvers
from isocline.processes import EDM, GaussianMixture, GaussianProcess, SubVariancePreserving, VariancePreserving
from tests.plans.helpers import normal
from tests.plans.solvers.test_contract import rms

FAMILY = (solvers.s_pndm, solvers.f_pndm, solvers.plms, solvers.ipndm)
Network = Callable[[Tensor, Tensor], Tensor]


def transfer(process: GaussianProcess, x: Tensor, e: Tensor, t: Tensor, end: Tensor) -> Tensor:
    """Return the paper's phi, in ``abar`` as it stands there."""
    a, b = process.alpha(t) ** 2, process.alpha(end) ** 2
    return (b / a).sqrt() * x - (b - a) / (a.sqrt() * (((1 - b) * a).sqrt() + ((1 - a) * b).sqrt())) * e


def test_the_transfer_is_a_straight_step_in_the_noise_level() -> None:
    process = VariancePreserving()
    times = grids.log_snr(process, 5)
    a, sigma = process.alpha(times) ** 2, process.sigma(times)
    gain = -(a[1:] - a[:-1]) / (a[:-1].sqrt() * (((1 - a[1:]) * a[:-1]).sqrt() + ((1 - a[:-1]) * a[1:]).sqrt()))
    torch.testing.assert_close(gain, sigma[1:] - (a[1:] / a[:-1]).sqrt() * sigma[:-1], rtol=1e-9, atol=0)
    plan = solvers.ipndm(process, times, order=1)
    torch.testing.assert_close(torch.diagonal(plan.weights), gain, rtol=1e-9, atol=0)
    assert plan.equivalent(solvers.ddim(process, times))


def naive(process: GaussianProcess, network: Network, times: Tensor, x: Tensor, order: int, start: str) -> Tensor:
    """Return the end state as the paper's algorithm boxes say, on a process with ``alpha^2 + sigma^2 = 1``."""
    weights = {1: [1.0], 2: [1.5, -0.5], 3: [23 / 12, -4 / 3, 5 / 12], 4: [55 / 24, -59 / 24, 37 / 24, -3 / 8]}
    phi = partial(transfer, process)
    past: list[Tensor] = []
    for i in range(len(times) - 1):
        t, end = times[i], times[i + 1]
        e = network(x, t)
        past.append(e)
        if start == "euler" and i == 0:
            mean = (e + network(phi(x, e, t, end), end)) / 2
        elif start == "runge-kutta" and i < 3:
            middle = (t + end) / 2
            e2 = network(phi(x, e, t, middle), middle)
            e3 = network(phi(x, e2, t, middle), middle)
            e4 = network(phi(x, e3, t, end), end)
            mean = (e + 2 * e2 + 2 * e3 + e4) / 6
        else:
            used = weights[min(order, len(past))]
            mean = sum((w * p for w, p in zip(used, reversed(past), strict=False)), torch.zeros_like(e))
        x = phi(x, mean, t, end)
    return x


@pytest.mark.parametrize(
    ("solver", "order", "start"),
    [
        (solvers.s_pndm, 2, "euler"),
        (solvers.plms, 4, "euler"),
        (solvers.f_pndm, 4, "runge-kutta"),
        (solvers.ipndm, 4, "none"),
        (partial(solvers.ipndm, order=3), 3, "none"),
    ],
)
@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_plans_agree_with_a_naive_loop_in_the_form_of_the_paper(
    solver: Callable[..., Plan], order: int, start: str, n: int
) -> None:
    process = VariancePreserving()
    times = grids.quadratic(process, n, t_min=0.01)
    bed = GaussianMixture(process, normal(3, 2, seed=1), torch.tensor([0.5, 0.2, 0.9]))
    x = normal(4, 2, seed=2)
    expected = naive(process, lambda x, t: bed.predict(x, t).eps, times, x, order, start)
    torch.testing.assert_close(solver(process, times).run(bed, x).x, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_short_f_pndm_is_runge_kutta_only(n: int) -> None:
    process = VariancePreserving()
    to_noise, to_zero = (solvers.f_pndm(process, grids.karras(process, n, end=end)) for end in ("t_min", "zero"))
    assert to_noise.calls == n + 3 * min(n, 3)
    assert to_zero.calls == n + 3 * min(n - 1, 3)


def test_stages_of_f_pndm_lie_in_the_middle_of_time() -> None:
    process = SubVariancePreserving()
    times = grids.log_snr(process, 4)
    middle = (times[:-1] + times[1:]) / 2
    expected = [v for i in range(3) for v in (times[i], middle[i], middle[i], times[i + 1])]
    plan = solvers.f_pndm(process, times)
    torch.testing.assert_close(plan.model_times, torch.stack([*expected, times[3]]), rtol=1e-12, atol=0)
    torch.testing.assert_close(plan.nodes, times, rtol=0, atol=0)


@pytest.mark.parametrize("solver", FAMILY)
def test_a_last_step_to_time_zero_is_first_order(solver: Callable[..., Plan]) -> None:
    """It returns the last data prediction itself."""
    process = VariancePreserving()
    plan = solver(process, grids.karras(process, 6, end="zero"))
    bed = GaussianMixture(process, normal(3, 2, seed=1), torch.tensor([0.5, 0.2, 0.9]))
    run = plan.run(bed, normal(4, 2, seed=2), record=True)
    assert run.trajectory is not None
    torch.testing.assert_close(run.x, bed(run.trajectory[-2], plan.times[-2]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("order", [0, 5])
def test_orders_without_weights_are_refused(order: int) -> None:
    with pytest.raises(InvalidInput, match=f"ipndm knows orders 1 to 4, got {order}"):
        solvers.ipndm(EDM(), torch.tensor([2.0, 1.0]), order=order)


def end_of_ode(bed: GaussianMixture, y: Tensor, high: float, low: float, steps: int = 400) -> Tensor:
    """Return the end of the probability-flow ODE on EDM between two noise levels, by RK4 in ``lam``."""
    ladder = torch.linspace(-math.log(high), -math.log(low), steps + 1, dtype=torch.float64)

    def slope(y: Tensor, lam: Tensor) -> Tensor:
        return bed(y, torch.exp(-lam)) - y

    for a, b in pairwise(ladder):
        h = b - a
        k1 = slope(y, a)
        k2 = slope(y + h / 2 * k1, a + h / 2)
        k3 = slope(y + h / 2 * k2, a + h / 2)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(y + h * k3, b))
    return y


def equal_step_order(solver: Callable[..., Plan], steps: tuple[int, int]) -> float:
    """Return the order on equal steps in the noise level, from 3 to 1."""
    bed = GaussianMixture.smooth_bed(EDM())
    x = bed.sample(8, 1) + 3 * normal(8, 8)
    exact, errors = end_of_ode(bed, x, 3.0, 1.0), []
    for n in steps:
        times = torch.linspace(3.0, 1.0, n + 1, dtype=torch.float64)
        errors.append(rms(solver(EDM(), times).run(bed, x).x - exact))
    return math.log2(errors[0] / errors[1])


def test_on_equal_steps_in_the_noise_level_the_classical_orders_return() -> None:
    assert abs(equal_step_order(solvers.f_pndm, (80, 160)) - 4) < 0.15
    assert abs(equal_step_order(solvers.s_pndm, (40, 80)) - 2) < 0.15


def test_on_equal_steps_ipndm_is_adams() -> None:
    times = torch.linspace(9.0, 1.0, 9, dtype=torch.float64)
    for k in (1, 2, 3, 4):
        assert solvers.ipndm(EDM(), times, order=k).equivalent(solvers.rho_adams(EDM(), times, order=k))


SEEDS = range(6)


def bed_errors(make: Callable[[EDM, int], GaussianMixture], seed: int, plans: dict[str, Plan]) -> dict[str, float]:
    """Return the RMSE of each plan from ``s = 80`` to 0.002 against RK4 in ``lam``."""
    bed = make(EDM(), seed)
    start = bed.sample(128, 1 + seed) + 80 * normal(128, 8, seed=100 + seed)
    exact = end_of_ode(bed, start, 80.0, 0.002)
    return {name: rms(plan.run(bed, start).x - exact) for name, plan in plans.items()}


@pytest.mark.slow
def test_pseudo_weights_win_at_ten_calls() -> None:
    """Less than 0.4 of DDIM's error on smooth mixtures; below the Adams method that fits the grid, on sharp ones as well."""
    times = grids.karras(EDM(), 10)
    plans = {
        "ddim": solvers.ddim(EDM(), times),
        "ipndm_3": solvers.ipndm(EDM(), times, order=3),
        "ipndm_4": solvers.ipndm(EDM(), times),
        "rho_adams": solvers.rho_adams(EDM(), times),
    }
    for seed in SEEDS:
        smooth = bed_errors(GaussianMixture.smooth_bed, seed, plans)
        sharp = bed_errors(GaussianMixture.sharp_bed, seed, plans)
        assert smooth["ipndm_3"] < 0.4 * smooth["ddim"], (seed, smooth)
        assert smooth["ipndm_3"] < 0.6 * smooth["rho_adams"], (seed, smooth)
        assert sharp["ipndm_4"] < sharp["rho_adams"], (seed, sharp)
