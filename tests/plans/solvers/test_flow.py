"""Velocity solvers beyond the contract: textbook weights on flows, naive loops on every process, pure noise, diffusers."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from isocline.plans import grids, solvers
from isocline.plans.grids.span import End
from isocline.processes import (
    EDM,
    Data,
    FlowVelocity,
    GaussianMixture,
    GaussianProcess,
    Noise,
    RectifiedFlow,
    VariancePreserving,
)
from tests.plans.helpers import PROCESSES, Replay, normal
from tests.plans.solvers.test_diffusers import agree, recorded

diffusers = pytest.importorskip("diffusers", minversion="0.42")

FLOW = RectifiedFlow()
every_process = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
ends = pytest.mark.parametrize("end", ["t_min", "zero"])
Velocity = Callable[[Tensor, float], Tensor]


def uneven(process: GaussianProcess) -> Tensor:
    """Return times whose noise levels fall by uneven ratios."""
    return process.time_of_noise_level(torch.tensor([9.0, 7.0, 3.0, 1.4, 0.9, 0.25], dtype=torch.float64))


def small_bed(process: GaussianProcess) -> GaussianMixture:
    return GaussianMixture(process, normal(3, 2, seed=1), torch.tensor([0.5, 0.2, 0.9]))


@every_process
def test_euler_is_ddim(process: GaussianProcess) -> None:
    for times in (uneven(process), grids.karras(process, 6, end="t_min")):
        assert solvers.flow_euler(process, times).equivalent(solvers.ddim(process, times))


@ends
def test_euler_is_ddim_from_pure_noise(end: End) -> None:
    times = grids.uniform(FLOW, 6, end=end)
    assert solvers.flow_euler(FLOW, times).convert(Data()).equivalent(solvers.ddim(FLOW, times))


def test_plans_for_flows_hold_the_textbook_weights() -> None:
    times = torch.linspace(1.0, 0.0, 9, dtype=torch.float64)
    dt = -1 / 8
    for k, classical in {
        1: [1.0],
        2: [3 / 2, -1 / 2],
        3: [23 / 12, -16 / 12, 5 / 12],
        4: [55 / 24, -59 / 24, 37 / 24, -9 / 24],
    }.items():
        plan = solvers.flow_adams(FLOW, times, order=k)
        assert plan.parameterisation == FlowVelocity()
        torch.testing.assert_close(plan.carry, torch.ones(8, dtype=torch.float64), rtol=0, atol=1e-14)
        for i in range(k - 1, 8):
            np.testing.assert_allclose(plan.weights[i, i - k + 1 : i + 1].flip(0), dt * np.array(classical), rtol=1e-12)
        assert bool((plan.weights.tril(-k) == 0).all())  # rounding must not fill the table
    heun, midpoint = solvers.flow_heun(FLOW, times), solvers.flow_midpoint(FLOW, times)
    np.testing.assert_allclose(heun.weights[1, :2], [-dt / 2, dt / 2], rtol=1e-12)
    np.testing.assert_allclose(midpoint.weights[1, :2], [-dt / 2, dt], rtol=1e-12)
    for plan in (heun, midpoint):
        assert int((plan.weights != 0).sum(1).max()) == 2
        assert torch.equal(plan.nodes, times)


def straight(process: GaussianProcess, bed: GaussianMixture) -> Velocity:
    """Return ``v(u, tau)`` of the straight path, found through the process at the same noise level."""

    def velocity(u: Tensor, tau: float) -> Tensor:
        if tau == 1.0:  # no signal: the noise is the state, the prediction the mean of the data
            mean = bed(torch.zeros_like(u), torch.tensor(1.0, dtype=torch.float64))
            return u - mean
        t = process.time_of_noise_level(tau / (1 - tau))
        data = bed((process.alpha(t) + process.sigma(t)) * u, t)
        return (u - (1 - tau) * data) / tau - data

    return velocity


def naive_heun(v: Velocity, u: Tensor, taus: list[float]) -> Tensor:
    for a, b in pairwise(taus):
        first = v(u, a)
        u = u + (b - a) * (first if b == 0 else (first + v(u + (b - a) * first, b)) / 2)
    return u


def naive_midpoint(v: Velocity, u: Tensor, taus: list[float]) -> Tensor:
    for a, b in pairwise(taus):
        u = u + (b - a) * v(u + (b - a) / 2 * v(u, a), (a + b) / 2)
    return u


def naive_adams(order: int) -> Callable[[Velocity, Tensor, list[float]], Tensor]:
    """Return Adams-Bashforth with weights from the moments ``sum_j w_j tau_j^k = (b^(k+1) - a^(k+1)) / (k + 1)``."""

    def run(v: Velocity, u: Tensor, taus: list[float]) -> Tensor:
        past: list[Tensor] = []
        for i, (a, b) in enumerate(pairwise(taus)):
            past.append(v(u, a))
            k = min(order, i + 1)
            nodes = np.array(taus[i - k + 1 : i + 1])
            powers = np.arange(k)
            moments = (b ** (powers + 1) - a ** (powers + 1)) / (powers + 1)
            weights = np.linalg.solve(nodes[None, :] ** powers[:, None], moments)
            u = u + sum(float(w) * m for w, m in zip(weights, past[-k:], strict=True))
        return u

    return run


METHODS: list[tuple[Any, dict[str, int], Any]] = [
    (solvers.flow_heun, {}, naive_heun),
    (solvers.flow_midpoint, {}, naive_midpoint),
    *[(solvers.flow_adams, {"order": k}, naive_adams(k)) for k in (1, 2, 3, 4)],
]
every_method = pytest.mark.parametrize(
    ("solver", "settings", "naive"), METHODS, ids=lambda v: getattr(v, "__name__", None) or str(v)
)


@every_process
@every_method
@ends
def test_the_method_is_the_textbook_one_on_the_straight_path(
    process: GaussianProcess, solver: Any, settings: dict[str, int], naive: Any, end: End
) -> None:
    times = uneven(process)
    if end == "zero":
        if float(process.sigma(0.0)) > 0:
            pytest.skip("this process has noise at time 0")
        times = torch.cat([times, torch.zeros(1, dtype=torch.float64)])
    bed, x = small_bed(process), normal(4, 2, seed=2)
    s = process.noise_level(times)
    scale = process.alpha(times) + process.sigma(times)
    found = solver(process, times, **settings).run(bed, x).x
    expected = naive(straight(process, bed), x / scale[0], (s / (1 + s)).tolist()) * scale[-1]
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


@every_method
@ends
def test_pure_noise_is_an_ordinary_start(solver: Any, settings: dict[str, int], naive: Any, end: End) -> None:
    bed, x, times = small_bed(FLOW), normal(4, 2, seed=2), grids.uniform(FLOW, 5, end=end)
    plan = solver(FLOW, times, **settings)
    expected = naive(straight(FLOW, bed), x, times.tolist())
    torch.testing.assert_close(plan.run(bed, x).x, expected, rtol=1e-10, atol=1e-10)
    near = solver(FLOW, torch.cat([torch.tensor([1 - 1e-9], dtype=torch.float64), times[1:]]), **settings)
    torch.testing.assert_close(plan.weights, near.weights, rtol=0, atol=1e-7)


@ends
def test_other_processes_start_without_signal_too(end: End) -> None:
    """A rectified flow in disguise: the same levels, but not the class whose plans hold velocities."""

    class Disguised(GaussianProcess):
        t_min, t_max = FLOW.t_min, FLOW.t_max
        alpha, sigma, rates, describe = FLOW.alpha, FLOW.sigma, FLOW.rates, FLOW.describe
        half_log_snr, time_of = FLOW.half_log_snr, FLOW.time_of

    times, x = grids.uniform(FLOW, 5, end=end), normal(4, 2, seed=2)
    for solver, settings, _ in METHODS:
        plan = solver(Disguised(), times, **settings)
        assert plan.parameterisation == Data()
        found = plan.run(small_bed(plan.process), x).x
        torch.testing.assert_close(
            found, solver(FLOW, times, **settings).run(small_bed(FLOW), x).x, rtol=1e-9, atol=1e-9
        )


def runge_kutta(v: Velocity, u: Tensor, taus: list[float]) -> Tensor:
    """Integrate with the classical method of order 4."""
    for a, b in pairwise(taus):
        k1 = v(u, a)
        k2 = v(u + (b - a) / 2 * k1, (a + b) / 2)
        k3 = v(u + (b - a) / 2 * k2, (a + b) / 2)
        u = u + (b - a) / 6 * (k1 + 2 * k2 + 2 * k3 + v(u + (b - a) * k3, b))
    return u


@cache
def flow_reference() -> tuple[Tensor, Tensor]:
    """Return starts (5, 16, 8) of the smooth mixture's flow from pure noise, and their ends; by midpoints where ``v`` ends."""
    x, v = normal(80, 8), straight(FLOW, GaussianMixture.smooth_bed(FLOW))
    near = runge_kutta(v, x, np.linspace(1, 0.01, 150).tolist())
    return x.reshape(5, 16, 8), naive_midpoint(v, near, np.linspace(0.01, 0, 20).tolist()).reshape(5, 16, 8)


def flow_errors(solver: Any, n: int, **settings: Any) -> Tensor:
    """Return the errors of five batches after `n` uniform steps from ``t = 1`` to ``t = 0``."""
    (x, exact), plan = flow_reference(), solver(FLOW, grids.uniform(FLOW, n, end="zero"), **settings)
    bed = GaussianMixture.smooth_bed(FLOW)
    return torch.stack([(plan.run(bed, a).x - b).square().mean().sqrt() for a, b in zip(x, exact, strict=True)])


@pytest.mark.parametrize(
    ("solver", "settings"),
    [(solvers.flow_heun, {}), (solvers.flow_midpoint, {}), (solvers.flow_adams, {"order": 2})],
    ids=["heun", "midpoint", "adams"],
)
def test_order_2_holds_on_flows_from_noise_to_data(solver: Any, settings: dict[str, int]) -> None:
    """On uniform steps; the last one of Heun is one of Euler."""
    errors = [float(flow_errors(solver, n, **settings).mean()) for n in (80, 160)]
    assert abs(math.log2(errors[0] / errors[1]) - 2) < 0.15


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("name", ["FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"])
def test_diffusers(name: str, shift: float) -> None:
    made = getattr(diffusers, name)(shift=shift)
    made.set_timesteps(6)
    sigmas = made.sigmas.double()
    times = sigmas if name.startswith("FlowMatchEuler") else torch.cat([sigmas[:1], sigmas[1::2]])
    plan = (solvers.flow_euler if name.startswith("FlowMatchEuler") else solvers.flow_heun)(FLOW, times)
    assert float(times[0]) == 1.0
    assert float(times[-1]) == 0.0
    outputs, x = recorded(plan.calls)
    found = plan.run(Replay([m.double() for m in outputs], FLOW, FlowVelocity()), x.double()).x
    for i, t in enumerate(made.timesteps):
        x = made.step(outputs[i], t, x).prev_sample
    agree(found, x)


def test_few_calls_near_pure_noise() -> None:
    """Eight uniform steps of a flow from pure noise: polynomials in ``tau`` bear it, those in log-SNR do not."""
    own = flow_errors(solvers.flow_adams, 8)
    for solver in (solvers.ddim, solvers.dpm_solver_pp_2m, solvers.unipc, solvers.exponential_adams):
        assert bool((own < 0.5 * flow_errors(solver, 8)).all()), solver


def test_noise_networks_run_where_there_is_signal() -> None:
    process = VariancePreserving()
    plan = solvers.flow_adams(process, grids.log_snr(process, 5))
    outputs = [normal(2, 3, seed=i) for i in range(5)]
    once = plan.run(Replay(outputs, process, Noise()), normal(2, 3, seed=9)).x
    again = plan.convert(Noise()).run(Replay(outputs, process, Noise()), normal(2, 3, seed=9)).x
    torch.testing.assert_close(once, again, rtol=1e-9, atol=1e-9)


def test_a_final_order_can_be_had() -> None:
    times = uneven(EDM())
    lowered = solvers.flow_adams(EDM(), times, final_order=1)
    assert torch.equal(lowered.weights[:3], solvers.flow_adams(EDM(), times).weights[:3])
    assert not torch.allclose(lowered.weights[4], solvers.flow_adams(EDM(), times).weights[4])
