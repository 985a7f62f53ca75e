"""What single solvers owe beyond the contract: identities, published coefficients, exact moments of stochastic rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.plans import Plan, grids, solvers
from isocline.plans.grids.span import End
from isocline.plans.solvers.rows import Levels, ramp
from isocline.processes import EDM, GaussianMixture, GaussianProcess, Noise, RectifiedFlow, VariancePreserving
from tests.contracts.solvers import SOLVERS
from tests.plans.helpers import PROCESSES, normal
from tests.plans.solvers.test_contract import observed_order

every_process = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)


def uneven(process: GaussianProcess) -> Tensor:
    """Return times whose noise levels fall by uneven ratios."""
    return process.time_of_noise_level(torch.tensor([9.0, 7.0, 3.0, 1.4, 0.9, 0.25], dtype=torch.float64))


@every_process
def test_first_order_solvers_are_one(process: GaussianProcess) -> None:
    times = uneven(process)
    ddim = solvers.ddim(process, times)
    first = [solvers.dpm_solver_pp_1(process, times), solvers.euler(process, times)]
    adams = (solvers.exponential_adams, solvers.rho_adams, solvers.t_adams, solvers.lam_adams)
    assert all(ddim.equivalent(other) for other in [*first, *(solve(process, times, order=1) for solve in adams)])


def test_time_and_noise_level_are_one_variable_on_edm() -> None:
    times = uneven(EDM())
    assert solvers.t_adams(EDM(), times).equivalent(solvers.rho_adams(EDM(), times))
    assert not solvers.lam_adams(EDM(), times).equivalent(solvers.rho_adams(EDM(), times))


def test_adams_weights_on_equal_steps_are_the_classical_ones() -> None:
    times = torch.linspace(9.0, 1.0, 9, dtype=torch.float64)
    for k, classical in {
        2: [3 / 2, -1 / 2],
        3: [23 / 12, -16 / 12, 5 / 12],
        4: [55 / 24, -59 / 24, 37 / 24, -9 / 24],
    }.items():
        last = solvers.rho_adams(EDM(), times, order=k).weights[-1, -k:].flip(0)
        torch.testing.assert_close(last, -torch.tensor(classical, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("solver", [solvers.rho_adams, solvers.lam_adams, solvers.t_adams])
def test_noise_weights_agree_with_adaptive_quadrature(solver: Callable[..., Plan]) -> None:
    process = VariancePreserving()
    levels = Levels(process, uneven(process))
    found = solver(process, levels.times, order=3).weights[-1, -3:] / levels.alpha[-1]
    variable = {
        "rho_adams": lambda s: float(s),
        "lam_adams": lambda s: -math.log(s),
        "t_adams": lambda s: float(process.time_of_noise_level(float(s))),
    }[solver.__name__]
    at = [variable(float(s)) for s in levels.s[-4:-1]]

    def basis(j: int, s: float) -> float:
        return math.prod((variable(s) - at[m]) / (at[j] - at[m]) for m in range(3) if m != j)

    ends = [float(levels.s[-2]), float(levels.s[-1])]
    for j in range(3):
        exact = quad(partial(basis, j), *ends, epsabs=0, epsrel=1e-12)[0]
        assert abs(float(found[j]) - exact) < 1e-10


def test_exponential_weights_agree_with_adaptive_quadrature() -> None:
    levels = Levels(EDM(), uneven(EDM()))
    found = solvers.exponential_adams(EDM(), levels.times, order=4).weights[-1, -4:]
    lam = [float(v) for v in levels.lam]
    at, ends = lam[-5:-1], (lam[-2], lam[-1])

    def integrand(j: int, u: float) -> float:
        return math.exp(u - ends[1]) * math.prod((u - at[m]) / (at[j] - at[m]) for m in range(4) if m != j)

    for j in range(4):
        exact = quad(partial(integrand, j), *ends, epsabs=0, epsrel=1e-12)[0]
        assert abs(float(found[j]) - exact) < 1e-10


def test_second_order_data_weights_are_those_of_the_paper() -> None:
    levels = Levels(EDM(), uneven(EDM()))
    h, previous = float(levels.h[-1]), float(levels.h[-2])
    gain = 1 - math.exp(-h)
    expected = [-gain * h / (2 * previous), gain * (1 + h / (2 * previous))]
    plan = solvers.dpm_solver_pp_2m(EDM(), levels.times)
    np.testing.assert_allclose(plan.weights[-1, -2:], expected, rtol=1e-13)
    np.testing.assert_allclose(plan.carry[-1], math.exp(-h), rtol=1e-13)


def test_the_bend_of_3m_has_half_of_taylors_weight() -> None:
    """The p-th derivative of the data prediction is to be weighted by ``int_0^h exp(u - h) u^p / p! du``; 3M halves the second."""
    h = 0.1
    levels = torch.exp(-h * torch.arange(5.0, dtype=torch.float64))
    first = -math.expm1(-h)
    taylor = [first, h - first, h**2 / 2 - (h - first)]

    def weights_of_derivatives(plan: Plan) -> list[float]:
        lag = -h * torch.arange(3.0, dtype=torch.float64)
        return [float((plan.weights[-1, -3:].flip(0) * lag**p).sum() / math.factorial(p)) for p in range(3)]

    np.testing.assert_allclose(weights_of_derivatives(solvers.exponential_adams(EDM(), levels)), taylor, rtol=1e-10)
    published = weights_of_derivatives(solvers.dpm_solver_pp_3m(EDM(), levels))
    np.testing.assert_allclose(published, [taylor[0], taylor[1], taylor[2] / 2], rtol=1e-10)


def test_3m_is_not_of_order_3() -> None:
    entry = next(e for e in SOLVERS if e.name == "dpm_solver_pp_3m")
    exact = next(e for e in SOLVERS if e.name == "exponential_adams_3")
    steps = (160, 320)
    assert observed_order(replace(entry, steps=steps)) < 2.3 < 2.8 < observed_order(replace(exact, steps=steps))


@pytest.mark.parametrize("name", ["dpm_solver_pp_2m", "dpm_solver_pp_3m"])
@pytest.mark.parametrize("end", ["t_min", "zero"])
def test_a_falling_final_order_changes_only_the_last_rows(name: str, end: End) -> None:
    process = VariancePreserving()
    compile = getattr(solvers, name)
    times = grids.log_snr(process, 7, end=end)
    plain, lowered = compile(process, times), compile(process, times, final_order=1)
    order = int(name[-2])
    assert torch.equal(plain.weights[: 8 - order], lowered.weights[: 8 - order])
    assert torch.equal(lowered.weights[-1], solvers.ddim(process, times).weights[-1])
    assert torch.equal(plain.weights[-1], lowered.weights[-1]) == (end == "zero")


def test_ramp_refuses_an_order_below_one() -> None:
    with pytest.raises(InvalidInput, match="order must be at least 1, got 0"):
        solvers.rho_adams(EDM(), uneven(EDM()), order=0)
    assert ramp(3, 4) == [1, 2, 3]


def test_a_start_without_signal_is_the_limit_of_late_starts() -> None:
    """At ``t = 1`` a flow has no signal. Its rows are the limits of late starts, approached with ``1 / lam``: the first step is
    infinitely long beside the second, so the second step uses one output only."""
    inside = torch.tensor([0.8, 0.5, 0.2], dtype=torch.float64)
    first = solvers.ddim(RectifiedFlow(), torch.cat([torch.ones(1, dtype=torch.float64), inside]))
    for entry in SOLVERS:
        if not entry.from_noise or not entry.starts_as_ddim:
            continue
        at, near = (
            entry.compile(RectifiedFlow(), torch.cat([torch.tensor([t], dtype=torch.float64), inside]))
            for t in (1.0, 1 - 1e-12)
        )
        torch.testing.assert_close(at.weights[:2], first.weights[:2], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(at.weights, near.weights, rtol=0, atol=0.05 if entry.order > 1 else 1e-9)
        torch.testing.assert_close(at.carry, near.carry, rtol=1e-9, atol=0)


@every_process
def test_heun_is_two_euler_stages_averaged(process: GaussianProcess) -> None:
    times = uneven(process)
    bed = GaussianMixture(process, normal(3, 2, seed=1), torch.tensor([0.5, 0.2, 0.9]))
    x = normal(4, 2, seed=2)
    y, s = x / process.alpha(times[0]), process.noise_level(times)

    def slope(y: Tensor, i: int) -> Tensor:
        return (y - bed(y * process.alpha(times[i]), times[i])) / s[i]

    for i in range(len(times) - 1):
        first, step = slope(y, i), s[i + 1] - s[i]
        y = y + step / 2 * (first + slope(y + step * first, i + 1))
    found = solvers.heun(process, times).run(bed, x).x
    torch.testing.assert_close(found, y * process.alpha(times[-1]), rtol=1e-10, atol=1e-10)


def test_heun_in_its_own_form_uses_two_outputs_a_row() -> None:
    """Rounding must not fill the table: a row that averages two slopes keeps two, whatever the process scales."""
    for process in PROCESSES:
        plan = solvers.heun(process, grids.karras(process, 10))
        assert int((plan.weights != 0).sum(1).max()) == 2, process


@pytest.mark.parametrize("eta", [0.3, 1.0])
@every_process
def test_ddim_eta_keeps_the_marginals_of_point_data(process: GaussianProcess, eta: float) -> None:
    """If all data are one point, the state stays ``N(alpha mu, sigma^2)`` after every row, exactly."""
    times = uneven(process)
    plan = solvers.ddim(process, times, eta=eta)
    mean, variance, mu = float(process.alpha(times[0])) * 1.7, float(process.sigma(times[0])) ** 2, 1.7
    for i in range(len(plan.carry)):
        mean = float(plan.carry[i]) * mean + float(plan.weights[i, i]) * mu
        variance = float(plan.carry[i]) ** 2 * variance + float(plan.noise[i]) ** 2
        assert mean == pytest.approx(float(process.alpha(times[i + 1])) * mu, rel=1e-12)
        assert variance == pytest.approx(float(process.sigma(times[i + 1])) ** 2, rel=1e-12)


def gaussian_moments(process: GaussianProcess, times: Tensor, eta: float, std: float, mu: float) -> tuple[float, float]:
    """Return mean and variance of DDIM-eta on ``N(mu, std^2)`` data, from the formulas of the paper rather than from a plan.

    The posterior is linear, so moments close: ``x' = alpha' D + sqrt(sigma'^2 - v) eps + sqrt(v) z``.
    """
    alpha, sigma = process.alpha(times).tolist(), process.sigma(times).tolist()
    mean, variance = alpha[0] * mu, (alpha[0] * std) ** 2 + sigma[0] ** 2
    for i in range(len(times) - 1):
        a, s, a1, s1 = alpha[i], sigma[i], alpha[i + 1], sigma[i + 1]
        gain = a * std**2 / ((a * std) ** 2 + s**2)  # D = mu + gain (x - a mu)
        v = (eta * s1 / s) ** 2 * (s**2 - (a / a1 * s1) ** 2)
        slope = a1 * gain + math.sqrt(s1**2 - v) * (1 - a * gain) / s
        mean, variance = a1 * mu + slope * (mean - a * mu), slope**2 * variance + v
    return mean, variance


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@every_process
def test_ddim_eta_has_the_exact_moments_of_gaussian_data(process: GaussianProcess, eta: float) -> None:
    """The plan's canonical form gives mean and variance without sampling; the recursion of the paper must agree."""
    times, std, mu = uneven(process), 0.6, 1.3
    plan = solvers.ddim(process, times, eta=eta)
    weight = torch.diagonal(plan.weights)
    alpha, sigma = process.alpha(times), process.sigma(times)
    gain = (alpha * std**2 / ((alpha * std) ** 2 + sigma**2))[:-1]
    carry, shift = plan.carry + weight * gain, weight * (1 - gain * alpha[:-1]) * mu
    mean, variance = alpha[0] * mu, (alpha[0] * std) ** 2 + sigma[0] ** 2
    for a, b, c in zip(carry, shift, plan.noise, strict=True):
        mean, variance = a * mean + b, a**2 * variance + c**2
    expected = gaussian_moments(process, times, eta, std, mu)
    assert (float(mean), float(variance)) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_ddim_eta_samples_have_the_exact_moments(eta: float) -> None:
    process = VariancePreserving()
    times, std, mu, n = uneven(process), 0.6, 1.3, 200_000
    bed = GaussianMixture(process, torch.full((1, 1), mu, dtype=torch.float64), torch.tensor([std]))
    x = process.perturb(bed.sample(n, 1), times[0], Stream(2))[0]
    found = solvers.ddim(process, times, eta=eta).run(bed, x, rng=3).x
    mean, variance = gaussian_moments(process, times, eta, std, mu)
    assert abs(float(found.mean()) - mean) < 5 * math.sqrt(variance / n)
    assert abs(float(found.var()) - variance) < 5 * variance * math.sqrt(2 / n)


def test_ancestral_sampling_converges_to_the_data_law_and_fresh_noise_forgets() -> None:
    """With eta = 1 and many steps variance tends to that of the noised data; the error falls with the step."""
    process, std = VariancePreserving(), 0.6
    gaps = []
    for n in (100, 200, 400):
        times = grids.log_snr(process, n)
        variance = gaussian_moments(process, times, 1.0, std, 0.0)[1]
        alpha, sigma = float(process.alpha(times[-1])), float(process.sigma(times[-1]))
        gaps.append(abs(variance - (alpha * std) ** 2 - sigma**2))
    assert 0.9 < math.log2(gaps[0] / gaps[1]) < 1.1
    assert 0.9 < math.log2(gaps[1] / gaps[2]) < 1.1


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_eta_outside_its_range_is_refused(eta: float) -> None:
    with pytest.raises(InvalidInput, match=r"eta must lie in \[0, 1\]"):
        solvers.ddim(EDM(), uneven(EDM()), eta=eta)


def test_single_step_noise_converts_and_keeps_its_size() -> None:
    plan = solvers.ddim(VariancePreserving(), uneven(VariancePreserving()), eta=1.0)
    assert torch.allclose(plan.convert(Noise()).noise, plan.noise, rtol=1e-12)


@pytest.mark.parametrize("solver", [solvers.rho_adams, solvers.t_adams])
def test_a_step_to_time_0_may_keep_its_order(solver: Callable[..., Plan]) -> None:
    """Outputs that are a quadratic in the variable are integrated exactly, down to no noise."""
    process = VariancePreserving()
    times = grids.log_snr(process, 5, end="zero")
    levels = Levels(process, times)
    plan = solver(process, times, order=3, clean_order=3)
    q = levels.s if solver is solvers.rho_adams else times
    weights = plan.weights[-1, -3:] / levels.alpha[-1]
    s = float(levels.s[-2])
    for power in range(3):
        if solver is solvers.rho_adams:
            exact = -(s ** (power + 1)) / (power + 1)
        else:
            exact = -quad(lambda u: float(process.time_of_noise_level(u)) ** power, 0, s, epsabs=0, epsrel=1e-12)[0]  # noqa: B023
        assert abs(float((weights * q[-4:-1] ** power).sum()) - exact) < 1e-9 * abs(exact)
    assert solver(process, times, order=3).equivalent(solver(process, times, order=3, clean_order=1))
