"""Bespoke solvers: order, bound, true path, gradients, and what tuning gains.

The flow of ``N(0, c^2)`` has the closed form ``u(tau) = u(1) sqrt((1 - tau)^2 c^2 + tau^2)``, as every quantile keeps its rank.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.plans import Plan, Provenance, grids, solvers
from isocline.plans.grids.span import End
from isocline.plans.threshold import Threshold
from isocline.plans.tuners import Calibration, NoiseSet, draw_noises, measure
from isocline.plans.tuners.bespoke import (
    Bespoke,
    FreeTransform,
    ScaleTime,
    TruePath,
    _Fitted,
    bespoke_plan,
    flow_velocity,
    tau_of,
    true_path,
)
from isocline.plans.tuners.paths import refined
from isocline.processes import EDM, Data, Denoiser, GaussianProcess, RectifiedFlow, VariancePreserving
from isocline.processes.exact import GaussianMixture

FLOW = RectifiedFlow()
CASES: list[tuple[GaussianProcess, End]] = [
    (FLOW, "t_min"),
    (FLOW, "zero"),
    (EDM(), "t_min"),
    (EDM(), "zero"),
    (VariancePreserving(), "t_min"),
]


def gaussian(process: GaussianProcess, std: float) -> GaussianMixture:
    return GaussianMixture(process, torch.zeros(1, 1, dtype=torch.float64), torch.tensor([std]))


def quantile(std: float, tau: Tensor) -> Tensor:
    """Return ``u(tau) / u(1)`` of the flow of ``N(0, std^2)``."""
    return torch.sqrt((1 - tau) ** 2 * std**2 + tau**2)


def steepest(std: float) -> float:
    """Return the largest slope of the velocity in the state."""
    tau = torch.linspace(0.001, 1, 10_000, dtype=torch.float64)
    return float(((tau - (1 - tau) * std**2) / quantile(std, tau) ** 2).abs().max())


def disturbed(tau: Tensor, stages: int, seed: int, size: float = 0.3) -> ScaleTime:
    """Return a transform with random parameters."""
    model = FreeTransform(tau, stages)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        return model()


def smooth_transform(n: int, stages: int, wrong: float = 1.0) -> ScaleTime:
    """Return values of smooth functions of ``r``; `wrong` multiplies the rate of ``tau``."""
    r = torch.linspace(0, 1, stages * n + 1, dtype=torch.float64)
    tau = 0.98 - 0.96 * (r + 0.1 * torch.sin(math.pi * r))
    tau_rate = -0.96 * (1 + 0.1 * math.pi * torch.cos(math.pi * r))
    scale = torch.exp(0.5 * torch.sin(3 * r))
    return ScaleTime(stages, tau, wrong * tau_rate[:-1], scale, (1.5 * torch.cos(3 * r) * scale)[:-1])


def calibrate(
    model: GaussianMixture, grid: Callable[..., Tensor], seed: int, sizes: tuple[int, int, int], steps: int = 300
) -> Calibration:
    teacher = solvers.flow_heun(model.process, grid(model.process, steps))
    return draw_noises(teacher, model, model.event, sizes, Stream(seed), batch=512, dtype=torch.float64)


@pytest.fixture(scope="module")
def flow_bed() -> GaussianMixture:
    return GaussianMixture.smooth_bed(FLOW)


@pytest.fixture(scope="module")
def edm_bed() -> GaussianMixture:
    return GaussianMixture.smooth_bed(EDM())


@pytest.mark.parametrize(("process", "end"), CASES)
def test_zero_parameters_are_euler_and_the_midpoint_rule(process: GaussianProcess, end: End) -> None:
    times = grids.uniform(process, 5, end=end)
    ends, tau = times[[0, -1]], tau_of(process, times)
    euler = bespoke_plan(process, FreeTransform(tau, 1)(), ends, Provenance("test"))
    assert euler.equivalent(solvers.flow_euler(process, times), tolerance=1e-8)
    halves = torch.cat([torch.stack([tau[:-1], (tau[:-1] + tau[1:]) / 2], 1).flatten(), tau[-1:]])
    midpoint = bespoke_plan(process, FreeTransform(halves, 2)(), ends, Provenance("test"))
    assert midpoint.equivalent(solvers.flow_midpoint(process, times), tolerance=1e-8)
    assert torch.equal(midpoint.times[[0, -1]], ends)


def test_the_transform_has_as_many_parameters_as_the_paper_counts() -> None:
    for n in (1, 4, 10):
        for stages, count in ((1, 4 * n - 1), (2, 8 * n - 1)):
            model = FreeTransform(torch.linspace(1, 0.1, stages * n + 1, dtype=torch.float64), stages)
            assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize(("stages", "n", "order"), [(1, 320, 1), (2, 40, 2)])
def test_smooth_transforms_keep_the_order_and_inconsistent_ones_lose_it(
    flow_bed: GaussianMixture, stages: int, n: int, order: int
) -> None:
    x = Stream(0).normal((32, 8), dtype=torch.float64)
    exact = solvers.flow_heun(FLOW, torch.linspace(0.98, 0.02, 401, dtype=torch.float64)).run(flow_bed, x).x

    @torch.no_grad()
    def error(n: int, wrong: float) -> float:
        transform, u = smooth_transform(n, stages, wrong), x
        for i in range(n):
            u = transform.step(i, u, lambda u, k: flow_velocity(flow_bed, u, transform.tau[k]))
        return float((u - exact).square().mean().sqrt())

    assert math.log2(error(n, 1.0) / error(2 * n, 1.0)) == pytest.approx(order, abs=0.15)
    assert math.log2(error(n, 1.02) / error(2 * n, 1.02)) < order / 4


@pytest.mark.parametrize("stages", [1, 2])
@pytest.mark.parametrize(("process", "end"), CASES)
def test_the_plan_is_the_runge_kutta_method_on_the_transformed_path(
    process: GaussianProcess, end: End, stages: int
) -> None:
    model, n = GaussianMixture.smooth_bed(process), 3
    times = grids.uniform(process, stages * n, end=end)
    transform = disturbed(tau_of(process, times), stages, 1)
    x = Stream(1).normal((6, 8), dtype=torch.float64) * process.sigma(times[0])
    plan = bespoke_plan(process, transform, times[[0, -1]], Provenance("test"))
    tau, tau_rate, s, s_rate = (
        v.tolist() for v in (transform.tau, transform.tau_rate, transform.scale, transform.scale_rate)
    )

    def slope(z: Tensor, k: int) -> Tensor:
        t = torch.tensor(plan.times[k].item(), dtype=torch.float64)
        total = float(process.alpha(t) + process.sigma(t))
        data = model(z / s[k] * total, t)
        return s_rate[k] / s[k] * z + tau_rate[k] * s[k] * (z / s[k] - data) / tau[k]

    z, h = s[0] * x / float(process.alpha(times[0]) + process.sigma(times[0])), 1 / n
    for i in range(n):
        z = z + h * (slope(z, i) if stages == 1 else slope(z + h / 2 * slope(z, 2 * i), 2 * i + 1))
    result = z / s[-1] * float(process.alpha(times[-1]) + process.sigma(times[-1]))
    torch.testing.assert_close(plan.run(model, x).x, result, rtol=1e-8, atol=1e-8)
    assert plan.calls == stages * n
    assert len(plan.nodes) == n + 1


@pytest.mark.parametrize(("process", "end"), CASES)
def test_the_plan_is_differentiable_in_every_parameter(process: GaussianProcess, end: End) -> None:
    times = grids.uniform(process, 4, end=end)
    model = FreeTransform(tau_of(process, times), 2)
    plan = bespoke_plan(process, model(), times[[0, -1]], Provenance("test"))
    (plan.times.sum() + plan.carry.sum() + (plan.weights**2).sum()).backward()
    for name, parameter in model.named_parameters():
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert bool((parameter.grad != 0).any()), name


def test_growth_is_the_formula_of_the_paper() -> None:
    transform, bound, h = disturbed(torch.linspace(1, 0.1, 9, dtype=torch.float64), 2, 3), 1.7, 1 / 4
    local = transform.scale_rate.abs() / transform.scale[:-1] + bound * transform.tau_rate.abs()
    steps = [
        transform.scale[2 * i] / transform.scale[2 * i + 2] * (1 + h * local[2 * i + 1] * (1 + h / 2 * local[2 * i]))
        for i in range(4)
    ]
    torch.testing.assert_close(transform.growth(bound), torch.stack(steps))
    later = torch.stack([math.prod(steps[i + 1 :], start=torch.ones(())).double() for i in range(4)])
    torch.testing.assert_close(transform.later_growth(bound), later)


def fitted_to(model: Denoiser, times: Tensor, stages: int = 2, **settings: Any) -> _Fitted:
    base = solvers.flow_euler(model.process, times)
    return _Fitted(Bespoke(stages=stages, **settings), base, model)


def closed_path(std: float, tau: Tensor, start: Tensor) -> TruePath:
    """Return the flow of ``N(0, std^2)`` from states `start` (B, 1) at ``tau = 1``."""
    grown = quantile(std, tau)
    slope = (tau - (1 - tau) * std**2) / grown
    return TruePath(tau, grown[:, None, None] * start, slope[:, None, None] * start)


def test_the_loss_bounds_the_error() -> None:
    std = 5.0
    model, times = gaussian(FLOW, std), grids.uniform(FLOW, 8)
    fitted = fitted_to(model, times, lipschitz=steepest(std))
    start = Stream(0).normal((64, 1), dtype=torch.float64)
    path = closed_path(std, torch.linspace(1, 1e-3, 2001, dtype=torch.float64), start)
    for seed in range(20):
        transform = disturbed(tau_of(FLOW, times), 2, seed, size=0.1)
        terms = torch.stack([fitted.term(transform, i, path, None) for i in range(4)])
        error = (fitted.plan(transform).run(model, start).x - path.states[-1]).abs().squeeze(1)
        assert bool((terms.sum(0) >= error).all()), seed


def test_steps_weighed_by_the_growth_before_them_would_not_bound_the_error() -> None:
    """One wrong step at the start of a flow that spreads: what comes after it enlarges its error."""
    std = 5.0
    model, times = gaussian(FLOW, std), grids.uniform(FLOW, 80)
    fitted = fitted_to(model, times, lipschitz=steepest(std))
    start = Stream(0).normal((64, 1), dtype=torch.float64)
    path = closed_path(std, torch.linspace(1, 1e-3, 2001, dtype=torch.float64), start)
    transform = FreeTransform(tau_of(FLOW, times), 2)().__dict__
    transform["tau_rate"] = torch.cat([3 * transform["tau_rate"][:2], transform["tau_rate"][2:]]).detach()
    broken = ScaleTime(**{key: value if key == "stages" else value.detach() for key, value in transform.items()})
    later, growth = broken.later_growth(steepest(std)), broken.growth(steepest(std))
    local = torch.stack([fitted.term(broken, i, path, None) for i in range(40)]) / later[:, None]
    error = (fitted.plan(broken).run(model, start).x - path.states[-1]).abs().squeeze(1)
    earlier = torch.cat([growth.new_ones(1), growth.cumprod(0)[:-1]])
    assert bool(((later[:, None] * local).sum(0) >= error).all())
    assert bool(((earlier[:, None] * local).sum(0) < error).all())


@pytest.mark.parametrize(("process", "end"), CASES)
def test_the_true_path_is_the_flow_of_a_gaussian(process: GaussianProcess, end: End) -> None:
    std = 0.5
    times = grids.uniform(process, 4, end=end)
    x = Stream(0).normal((5, 1), dtype=torch.float64) * process.sigma(times[0])
    path = true_path(gaussian(process, std), x, None, refined(process, float(times[0]), float(times[-1]), 60))
    tau = tau_of(process, times[0] + (times[-1] - times[0]) * torch.linspace(0, 1, 33, dtype=torch.float64))
    tau[0], tau[-1] = path.tau[0], path.tau[-1]
    grown = quantile(std, tau) / quantile(std, tau[0])
    torch.testing.assert_close(path.at(tau), grown[:, None, None] * path.states[0], rtol=3e-4, atol=3e-4)


def test_the_true_path_has_order_three_and_its_derivative_is_the_velocity() -> None:
    std, x = 0.5, Stream(0).normal((5, 1), dtype=torch.float64)
    model = gaussian(FLOW, std)

    def error(steps: int) -> float:
        path = true_path(model, x, None, torch.linspace(1, 0.2, steps + 1, dtype=torch.float64))
        return float((path.states[-1] - quantile(std, path.tau[-1]) * x).abs().max())

    assert math.log2(error(80) / error(160)) == pytest.approx(3, abs=0.15)
    path = true_path(model, x, None, torch.linspace(1, 0.2, 81, dtype=torch.float64))
    tau = torch.tensor([0.7123, 0.4321], dtype=torch.float64, requires_grad=True)
    for k in range(5):
        (rate,) = torch.autograd.grad(path.at(tau)[:, k].sum(), tau)
        states = path.at(tau)
        exact = torch.stack([flow_velocity(model, states[i], tau[i])[k, 0] for i in range(2)])
        torch.testing.assert_close(rate, exact, rtol=1e-4, atol=1e-4)


def test_gradients_go_through_the_true_path(flow_bed: GaussianMixture) -> None:
    times = grids.uniform(FLOW, 4)
    x = Stream(2).normal((4, 8), dtype=torch.float64)
    path = true_path(flow_bed, x, None, refined(FLOW, 1.0, float(times[-1]), 60))
    fitted = fitted_to(flow_bed, times)
    model = FreeTransform(tau_of(FLOW, times), 2)

    def gradient_of(frozen: bool) -> Tensor:
        transform = model()
        along = _Frozen(**vars(path)) if frozen else path
        terms = [fitted.term(transform, i, along, None).mean() for i in range(2)]
        return torch.autograd.grad(sum(terms, torch.zeros(())), model.gap)[0]

    def loss() -> float:
        with torch.no_grad():
            transform = model()
            return sum(fitted.term(transform, i, path, None).mean().item() for i in range(2))

    found = []
    for k in range(3):
        ends = []
        for shift in (1e-5, -1e-5):
            with torch.no_grad():
                model.gap[k] += shift
                ends.append(loss())
                model.gap[k] -= shift
        found.append((ends[0] - ends[1]) / 2e-5)
    numeric = torch.tensor(found, dtype=torch.float64)
    torch.testing.assert_close(gradient_of(frozen=False), numeric, rtol=1e-4, atol=1e-7)
    assert float((gradient_of(frozen=True) - numeric).norm()) > 0.3 * float(numeric.norm())


class _Frozen(TruePath):
    """A path without a derivative: what is left if the true path's dependence on time is skipped."""

    def at(self, tau: Tensor) -> Tensor:
        return super().at(tau.detach())


class _Watched(Denoiser):
    """A denoiser that knows how many of its outputs are still held."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__(inner.process, inner.parameterisation)
        self.inner, self.held, self.most = inner, list[weakref.ref[Tensor]](), 0

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        output = self.inner(x, t, cond)
        self.held = [ref for ref in self.held if ref() is not None] + [weakref.ref(output)]
        self.most = max(self.most, len(self.held))
        return output


def test_a_gradient_holds_the_outputs_of_one_step_only_and_is_that_of_the_whole_loss(flow_bed: GaussianMixture) -> None:
    watched, times = _Watched(flow_bed), grids.uniform(FLOW, 12)
    x = Stream(2).normal((4, 8), dtype=torch.float64)
    path = true_path(flow_bed, x, None, refined(FLOW, 1.0, float(times[-1]), 20))
    model, fitted = FreeTransform(tau_of(FLOW, times), 2), fitted_to(watched, times, power=1.0)
    loss = fitted.backward(model(), path, None)
    assert watched.most <= 2
    transform = model()
    whole = torch.stack([fitted.term(transform, i, path, None).mean() for i in range(6)]).sum()
    assert loss == pytest.approx(whole.item(), rel=1e-12)
    for parameter, gradient in zip(
        model.parameters(), torch.autograd.grad(whole, list(model.parameters())), strict=True
    ):
        torch.testing.assert_close(parameter.grad, gradient)


def test_conditions_stay_with_their_noises() -> None:
    """With a constant data prediction every step is exact, if it is the right constant."""
    times = grids.uniform(FLOW, 4)
    target = Stream(1).normal((32, 2), dtype=torch.float64)
    x = Stream(2).normal((32, 2), dtype=torch.float64)
    noises = NoiseSet(x, target, target + float(times[-1]) * (x - target))
    base = solvers.flow_euler(FLOW, times)
    tuner = Bespoke(steps=3, batch=8, rate=1e-9, check_every=1)
    tuned = tuner.fit(base, _Shown(), Calibration(noises, noises, noises, base), 0)
    assert tuned.history[-1][1] < 1e-6


class _Shown(Denoiser):
    """A denoiser that returns its condition, and refuses another sample's."""

    def __init__(self) -> None:
        super().__init__(FLOW, Data())

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        assert cond.shape == x.shape
        return cond + 0 * x


def test_tuning_gains_in_five_of_five_seeds(edm_bed: GaussianMixture) -> None:
    """A few steps of training; the figures of a full run are in the slow test."""
    base = solvers.flow_midpoint(EDM(), grids.karras(EDM(), 2))
    for seed in range(5):
        calibration = calibrate(edm_bed, grids.karras, seed, (32, 16, 128), steps=100)
        tuned = Bespoke(steps=30, path_steps=15).fit(base, edm_bed, calibration, seed)
        before, after = (measure(plan, edm_bed, calibration.held_out) for plan in (base, tuned.plan))
        assert after.rms() < 0.7 * before.rms(), seed
        assert after.median().value < 0.6 * before.median().value, seed
        assert tuned.plan.calls == base.calls == 4


def test_the_loss_bounds_the_error_on_held_out_noises_before_and_after_training(edm_bed: GaussianMixture) -> None:
    calibration = calibrate(edm_bed, grids.karras, 0, (16, 4, 256), steps=100)
    base = solvers.flow_midpoint(EDM(), grids.karras(EDM(), 3))
    tuner = Bespoke()
    model, fitted = FreeTransform(tuner._points(base), 2), _Fitted(tuner, base, edm_bed)
    path, fresh = (
        true_path(edm_bed, noises.x, None, refined(EDM(), 80.0, 0.002, 40))
        for noises in (calibration.train, calibration.held_out)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    errors = []
    for _ in range(2):
        with torch.no_grad():
            transform = model()
            bound = sum(fitted.term(transform, i, fresh, None).square().mean().sqrt().item() for i in range(3))
        errors.append(measure(fitted.plan(transform), edm_bed, calibration.held_out).rms())
        assert bound > errors[-1]
        for _ in range(30):
            optimizer.zero_grad()
            fitted.backward(model(), path, None)
            optimizer.step()
    assert errors[1] < 0.8 * errors[0]


def test_held_out_noises_are_never_looked_at(flow_bed: GaussianMixture) -> None:
    calibration = calibrate(flow_bed, grids.uniform, 0, (8, 8, 8), steps=30)
    poison = torch.full_like(calibration.held_out.x, math.nan)
    blind = replace(calibration, held_out=NoiseSet(poison, None, poison))
    base = solvers.flow_midpoint(FLOW, grids.uniform(FLOW, 2))
    tuner = Bespoke(steps=4, batch=4, check_every=2, path_steps=8)
    assert tuner.fit(base, flow_bed, blind, 0).plan == tuner.fit(base, flow_bed, calibration, 0).plan


def test_the_result_is_never_worse_than_the_base_on_validation(flow_bed: GaussianMixture) -> None:
    calibration = calibrate(flow_bed, grids.uniform, 0, (8, 8, 8), steps=60)
    strong = solvers.flow_adams(FLOW, grids.uniform(FLOW, 40), order=2)
    tuned = Bespoke(steps=2, batch=8, rate=1.0, path_steps=8).fit(strong, flow_bed, calibration, 0)
    assert tuned.plan == strong
    assert tuned.history[-1][1] > tuned.history[0][1]


def test_a_budget_of_seconds_ends_the_run(flow_bed: GaussianMixture) -> None:
    calibration = calibrate(flow_bed, grids.uniform, 0, (64, 8, 8), steps=30)
    base = solvers.flow_midpoint(FLOW, grids.uniform(FLOW, 2))
    tuned = Bespoke(steps=100_000, batch=4, path_steps=8).fit(base, flow_bed, calibration, 0, seconds=0.2)
    assert 0 < tuned.history[-1][0] < 100_000
    hurried = Bespoke(steps=100_000, batch=4, path_steps=8).fit(base, flow_bed, calibration, 0, seconds=0.0)
    assert [step for step, _ in hurried.history] == [0, 1]


def test_the_tuned_plan_survives_a_file_and_keeps_guidance_and_threshold(
    flow_bed: GaussianMixture, tmp_path: Any
) -> None:
    calibration = calibrate(flow_bed, grids.uniform, 0, (8, 8, 8), steps=30)
    base = replace(solvers.flow_midpoint(FLOW, grids.uniform(FLOW, 2)), threshold=Threshold(), guidance=1.0)
    tuner = Bespoke(steps=6, batch=4, check_every=2, path_steps=8)
    tuned = tuner.fit(base, flow_bed, calibration, 0).plan
    assert tuned.provenance.method == "Bespoke"
    loaded = Plan.load(tuned.save(tmp_path / "plan.json"))
    assert torch.equal(tuned.run(flow_bed, calibration.held_out.x).x, loaded.run(flow_bed, calibration.held_out.x).x)
    assert loaded.threshold == base.threshold
    assert loaded.provenance.settings == {"base": "flow_midpoint", **asdict(tuner)}


def test_the_tuner_counts_its_calls_and_repeats_itself(flow_bed: GaussianMixture) -> None:
    calibration = calibrate(flow_bed, grids.uniform, 0, (8, 8, 8), steps=30)
    base = solvers.flow_midpoint(FLOW, grids.uniform(FLOW, 2))
    tuner = Bespoke(steps=4, batch=4, check_every=2, path_steps=5)
    first, second = (tuner.fit(base, flow_bed, calibration, 3) for _ in range(2))
    paths, steps, validations = 2 * 3 * 5, 4 * 4, 3 * 4
    assert first.cost.calls == paths + steps + validations
    assert torch.equal(first.plan.weights, second.plan.weights)


def test_what_cannot_be_tuned_is_refused(flow_bed: GaussianMixture) -> None:
    calibration = calibrate(flow_bed, grids.uniform, 0, (4, 4, 4), steps=30)
    times = grids.uniform(FLOW, 3)
    with pytest.raises(InvalidInput, match="cannot use 3 calls; start from a base with 4"):
        Bespoke().fit(solvers.ddim(FLOW, times), flow_bed, calibration, 0)
    with pytest.raises(InvalidInput, match="deterministic"):
        Bespoke(stages=1).fit(solvers.ddim(FLOW, times, eta=1.0), flow_bed, calibration, 0)
    with pytest.raises(InvalidInput, match="same ends"):
        Bespoke(stages=1).fit(solvers.ddim(FLOW, grids.uniform(FLOW, 3, t_min=0.1)), flow_bed, calibration, 0)
    with pytest.raises(InvalidInput, match="1 or 2 stages"):
        Bespoke(stages=3)
    good = smooth_transform(2, 2)
    for change, message in (
        ({"tau": good.tau.flip(0)}, "strictly decreasing"),
        ({"tau_rate": -good.tau_rate}, "must be negative"),
        ({"scale": -good.scale}, "must be positive"),
        ({"scale_rate": good.scale_rate[:-1]}, r"scale_rate of shape \(4,\)"),
        ({"stages": 3}, "1 or 2 stages"),
    ):
        with pytest.raises(InvalidInput, match=message):
            replace(good, **change)


@pytest.mark.slow
def test_the_midpoint_rule_on_the_mixtures_flow(flow_bed: GaussianMixture) -> None:
    """The bar of the method: at most 0.6 of the midpoint rule, and no worse than it on the best of three grids."""
    ratios = []
    for n in (4, 5):
        for seed in range(5):
            calibration = calibrate(flow_bed, grids.uniform, seed, (64, 64, 256), steps=500)
            spots = [grid(FLOW, n) for grid in (grids.uniform, grids.quadratic, grids.exponential)]
            plans = [solvers.flow_midpoint(FLOW, times) for times in spots]
            fixed = [measure(plan, flow_bed, calibration.held_out, batch=256).rms() for plan in plans]
            tuned = Bespoke().fit(plans[0], flow_bed, calibration, seed)
            found = measure(tuned.plan, flow_bed, calibration.held_out, batch=256).rms()
            assert found <= min(fixed), (n, seed)
            ratios.append(found / fixed[0])
    assert torch.tensor(ratios).median() <= 0.6
