"""Gradients of samples: exact modes against the definition, adjoint modes against the truth of the equation."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.sampler_gradients import METHODS, memory, path_errors, slope, three, truth
from isocline._core.errors import InvalidInput, Mismatch
from isocline.integrators import PID
from isocline.integrators.methods.dopri5 import Dopri5
from isocline.integrators.methods.dopri8 import Dopri8
from isocline.integrators.methods.euler import Euler
from isocline.integrators.methods.heun import Heun
from isocline.integrators.methods.rk4 import RK4
from isocline.plans import Plan, Threshold, grids, solvers
from isocline.plans.gradients import (
    AdjointDEIS,
    AdjointDPM,
    AdjointODE,
    Checkpointed,
    Direct,
    PeakBytes,
    PlanGradient,
    Report,
    differentiable,
    parameters_of,
    plan_gradient,
    rho_runge_kutta,
)
from isocline.plans.solvers import Restart
from isocline.processes import (
    EDM,
    Denoiser,
    GaussianMixture,
    Guided,
    Noise,
    VariancePreserving,
    wrap,
)
from isocline.processes import (
    Checkpointed as CheckpointedDenoiser,
)
from tests.plans.helpers import normal

VP = VariancePreserving(t_min=1e-3)
START = torch.tensor([[0.7]], dtype=torch.float64)
TRUE_GRADIENT = 1.2021801  # of the flow in one dimension, for START
ADJOINTS = [AdjointDEIS(1), AdjointDEIS(2, stored=False), AdjointDPM(), AdjointDPM(Euler(), stored=True), AdjointODE()]


class Net(torch.nn.Module):
    """A small conditional network of noise predictions."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = torch.nn.Linear(6, 16), torch.nn.Linear(16, 3)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        told = x.new_zeros(len(x), 2) if cond is None else cond.expand(len(x), 2)
        hidden = torch.tanh(self.inner(torch.cat([x, t[:, None], told], -1)))
        return 0.5 * x + self.outer(hidden)


def guided() -> Denoiser:
    torch.manual_seed(0)
    return Guided(wrap(Net().double(), VP, Noise()), 2.0)


def condition() -> Tensor:
    return torch.tensor([0.3, -0.8], dtype=torch.float64, requires_grad=True)


def error(plan: Plan, gradient: PlanGradient) -> float:
    found = plan_gradient(plan, three(), START, lambda x: x.sum(), gradient=gradient).x
    return abs(float(found) / TRUE_GRADIENT - 1)


def order(errors: list[float]) -> float:
    return math.log2(errors[-2] / errors[-1])


def test_the_truth_is_the_stated_number_and_agrees_with_a_difference_quotient() -> None:
    (_, gradient), h = truth(three(), START), 1e-4
    above, below = (truth(three(), START + k * h)[0] for k in (1, -1))
    assert abs(float(gradient) - TRUE_GRADIENT) < 1e-7
    assert abs(float(above - below) / (2 * h) - TRUE_GRADIENT) < 1e-6


# ------------------------------------------------------------------------------------------------ exact modes


@pytest.mark.parametrize("solver", [solvers.ddim, solvers.dpm_solver_pp_2m, solvers.heun])
def test_exact_modes_agree_for_start_condition_and_parameters(solver: Any) -> None:
    model, plan = guided(), solver(VP, grids.log_snr(VP, 6)).for_guidance(2.0)
    both = [
        plan_gradient(plan, model, normal(5, 3), lambda x: x.square().sum(), gradient=mode, cond=condition())
        for mode in (Direct(), Checkpointed())
    ]
    for a, b in zip(
        (both[0].x, both[0].cond, *both[0].parameters), (both[1].x, both[1].cond, *both[1].parameters), strict=True
    ):
        assert float(a.abs().max()) > 0
        assert torch.equal(a, b)
    assert both[0].loss == both[1].loss
    assert (both[0].calls, both[1].calls) == (2 * plan.calls, 4 * plan.calls)  # guidance makes two calls


def test_exact_gradients_are_difference_quotients() -> None:
    model, plan, x, h = guided(), solvers.ddim(VP, grids.log_snr(VP, 6)).for_guidance(2.0), normal(2, 3), 1e-6
    found = plan_gradient(plan, model, x, lambda x: x.square().sum(), cond=condition())
    for name, gradient in (("x", found.x[1, 2]), ("cond", found.cond[1])):
        values = []
        for sign in (1, -1):
            start, cond = x.clone(), condition().detach()
            (start[1] if name == "x" else cond)[2 if name == "x" else 1] += sign * h
            values.append(float(plan.run(model, start, cond=cond).x.square().sum()))
        assert abs((values[0] - values[1]) / (2 * h) - float(gradient)) < 1e-6 * (1 + abs(float(gradient)))


def test_a_plan_with_noise_uses_the_noises_of_its_run() -> None:
    bed, plan = GaussianMixture.smooth_bed(VP), solvers.ancestral(VP, grids.log_snr(VP, 12))
    for mode in (Direct(), Checkpointed(), AdjointDEIS(1, eta=1.0)):
        found = differentiable(plan, bed, normal(4, 8).requires_grad_(), gradient=mode, rng=7)
        torch.testing.assert_close(found.detach(), plan.run(bed, normal(4, 8), rng=7).x, rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------------------------------------ AdjointDEIS


@pytest.mark.slow
def test_adjoint_deis_has_the_errors_of_the_card() -> None:
    """Measured independently before: 0.98, 0.42, 0.12 and 2.5, 0.085, 0.0047 at 20, 80 and 320 steps; 3e-3 for the stall."""
    times = {n: grids.log_snr(VP, n) for n in (20, 80, 320)}
    heun = [solvers.heun(VP, t) for t in times.values()]
    for found, stated in zip([error(p, AdjointDEIS(1)) for p in heun], (0.98, 0.42, 0.12), strict=True):
        assert abs(found / stated - 1) < 0.05
    for found, stated in zip([error(p, AdjointDEIS(2)) for p in heun], (2.5, 0.085, 0.0047), strict=True):
        assert abs(found / stated - 1) < 0.05
    for n, stated in zip(times, (0.17, 0.046, 0.012), strict=True):
        assert abs(error(solvers.ddim(VP, times[n]), Checkpointed()) / stated - 1) < 0.05
    assert abs(error(solvers.ddim(VP, times[320]), AdjointDEIS(2)) / 3e-3 - 1) < 0.05


def test_adjoint_deis_has_its_orders() -> None:
    plans = [solvers.heun(VP, grids.log_snr(VP, n)) for n in (80, 160)]
    assert abs(order([error(plan, AdjointDEIS(1)) for plan in plans]) - 1) < 0.15
    assert abs(order([error(plan, AdjointDEIS(2)) for plan in plans]) - 2) < 0.2


@pytest.mark.slow
def test_the_second_order_stalls_on_states_of_the_first() -> None:
    stalled = [error(solvers.ddim(VP, grids.log_snr(VP, n)), AdjointDEIS(2)) for n in (320, 640)]
    assert stalled[1] > 0.5 * stalled[0]  # below order 1; the states' own error has taken over


@pytest.mark.parametrize("second", [False, True])
def test_adjoint_deis_is_the_formula_of_the_paper(second: bool) -> None:
    """Written once more in ``x`` and ``lam``, as the paper has it, with products from autograd."""
    bed, x, w = GaussianMixture.smooth_bed(VP), normal(3, 8), normal(3, 8, seed=1)
    plan = solvers.dpm_solver_pp_2m(VP, grids.karras(VP, 12))
    states = plan.run(bed, x, record=True).trajectory
    assert states is not None
    lam, alpha, sigma = VP.half_log_snr(plan.nodes), VP.alpha(plan.nodes), VP.sigma(plan.nodes)
    a, previous = w, None
    for t in range(12, 0, -1):
        s = t - 1
        state = states[t].clone().requires_grad_()
        (pull,) = torch.autograd.grad(bed.predict(state, plan.nodes[t]).eps, state, a)
        v, h = alpha[t] ** 2 * pull, lam[s] - lam[t]
        gain = sigma[s] * torch.expm1(h) / alpha[s] ** 2
        a = alpha[t] / alpha[s] * a + gain * v
        if second and previous is not None:
            a = a + gain * (v - previous) / (2 * (lam[t] - lam[t + 1]) / h)
        previous = v
    found = plan_gradient(plan, bed, x, lambda out: (out * w).sum(), gradient=AdjointDEIS(2 if second else 1)).x
    torch.testing.assert_close(found, a, rtol=1e-10, atol=1e-12)


def test_adjoint_deis_of_order_1_is_adjoint_dpm_with_euler() -> None:
    bed, x = GaussianMixture.smooth_bed(VP), normal(3, 8)
    plan = solvers.ddim(VP, grids.karras(VP, 12))
    for stored in (True, False):
        one, two = (
            plan_gradient(plan, bed, x, lambda v: v.square().sum(), gradient=mode)
            for mode in (AdjointDEIS(1, stored=stored), AdjointDPM(Euler(), stored=stored))
        )
        torch.testing.assert_close(one.x, two.x, rtol=1e-9, atol=1e-12)
        assert (one.drift is None) == (two.drift is None) == stored
        if one.drift is not None and two.drift is not None:
            assert abs(one.drift - two.drift) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_adjoint_deis_follows_every_path_of_noise_to_first_order(seed: int) -> None:
    assert abs(slope(path_errors([512, 1024, 2048], seed, samples=16)) - 1) < 0.2


def test_the_factor_of_the_noise_is_two() -> None:
    """Linear data: one Gaussian. The pathwise gradient of ancestral sampling is known, and the factor of the ODE gives another."""
    bed = GaussianMixture(VP, torch.zeros(1, 1, dtype=torch.float64), torch.tensor([0.5]))
    plan = solvers.ancestral(VP, grids.log_snr(VP, 500, t_max=0.5))
    t0, t1 = plan.times[0], plan.times[-1]
    top, low = 0.25 + VP.noise_level(t0) ** 2, 0.25 + VP.noise_level(t1) ** 2
    exact = float(
        low / top * VP.alpha(t1) / VP.alpha(t0)
    )  # dy/ds = 2 s y / (0.25 + s^2): the ODE gives the square root
    found = plan_gradient(plan, bed, START, lambda v: v.sum(), gradient=AdjointDEIS(1, eta=1.0), rng=0)
    assert abs(float(found.x) / exact - 1) < 0.05


# ------------------------------------------------------------------------------------------------ AdjointDPM


@pytest.mark.parametrize(("name", "claimed"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_adjoint_dpm_has_the_order_of_its_method_in_one_dimension(name: str, claimed: int) -> None:
    method = METHODS[name]
    steps = {1: (80, 160), 2: (80, 160), 4: (40, 80)}[claimed]
    plans = [rho_runge_kutta(VP, grids.log_snr(VP, n), method) for n in steps]
    assert abs(order([error(plan, AdjointDPM(method, stored=claimed == 2)) for plan in plans]) - claimed) < 0.2


@pytest.mark.slow
@pytest.mark.parametrize(("name", "claimed"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_adjoint_dpm_has_the_order_of_its_method_in_eight_dimensions(name: str, claimed: int) -> None:
    method, bed, x = METHODS[name], GaussianMixture.smooth_bed(VP), normal(1, 8)
    true, errors = truth(bed, x)[1], []
    for n in {1: (160, 320), 2: (80, 160), 4: (40, 80)}[claimed]:
        plan = rho_runge_kutta(VP, grids.karras(VP, n), method)
        found = plan_gradient(plan, bed, x, lambda v: v.sum(), gradient=AdjointDPM(method)).x
        errors.append(float((found - true).norm() / true.norm()))
    assert abs(order(errors) - claimed) < 0.2


@pytest.mark.parametrize("mode", [AdjointDPM, AdjointODE])
def test_a_tolerance_chooses_the_steps(mode: type[AdjointDPM]) -> None:
    plan = rho_runge_kutta(VP, grids.log_snr(VP, 80), RK4())
    errors = [error(plan, mode(Dopri5(), controller=PID(tol, tol))) for tol in (1e-3, 1e-6)]
    assert errors[1] < 1e-5
    assert errors[1] < errors[0]


@pytest.mark.slow
def test_without_the_change_of_variables_the_order_is_the_same() -> None:
    plan = rho_runge_kutta(VP, grids.log_snr(VP, 150), RK4())
    errors = [error(plan, AdjointODE(RK4(), n, grids.uniform)) for n in (20, 40)]
    assert errors[0] < 1e-3
    assert abs(order(errors) - 4) < 1.0


def test_on_a_process_without_scale_both_adjoints_are_one() -> None:
    bed, x = GaussianMixture.smooth_bed(EDM()), EDM().terminal((2, 8), 0, dtype=torch.float64)
    plan = solvers.ddim(EDM(), grids.karras(EDM(), 12))
    one, two = (
        plan_gradient(plan, bed, x, lambda v: v.sum(), gradient=g).x
        for g in (AdjointDPM(RK4(), 20), AdjointODE(RK4(), 20))
    )
    torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mode", [AdjointDPM, AdjointODE, AdjointDEIS])
def test_condition_and_parameters_get_the_gradient_of_the_equation(mode: type) -> None:
    """Guided, so that both branches count; against backpropagation through a fine sampler of order 4."""
    model, x, cond = guided(), normal(3, 3), condition()

    def found(plan: Plan, gradient: PlanGradient) -> list[Tensor]:
        plan = plan.for_guidance(2.0)
        got = plan_gradient(plan, model, x, lambda v: v.square().sum(), gradient=gradient, cond=cond)
        return [got.x, got.cond, *got.parameters]

    true = found(rho_runge_kutta(VP, grids.log_snr(VP, 40), RK4()), Checkpointed())
    second = mode is AdjointDEIS
    plan = solvers.heun(VP, grids.log_snr(VP, 200)) if second else rho_runge_kutta(VP, grids.log_snr(VP, 40), RK4())
    for a, b in zip(found(plan, mode(order=2) if second else mode()), true, strict=True):
        assert float((a - b).norm() / b.norm()) < (2e-2 if second else 1e-3)


def test_the_drift_of_the_re_solved_start_is_reported() -> None:
    drifts = {}
    for name, method in METHODS.items():
        report, x = Report(), START.clone().requires_grad_()
        plan = rho_runge_kutta(VP, grids.karras(VP, 40), method)
        out = differentiable(plan, three(), x, gradient=AdjointDPM(method), report=report)
        assert report.drift is None
        out.sum().backward()
        drifts[name] = report.drift or 0.0
        assert report.evaluations == 40 * method.tableau.stages
    assert drifts["euler"] > drifts["midpoint"] > drifts["rk4"] > 0


def test_stages_may_go_back_in_time() -> None:
    """The abscissae of Dormand-Prince 8 are not sorted; the path is one nevertheless, and its nodes can be stored."""
    plan = rho_runge_kutta(VP, grids.log_snr(VP, 20), Dopri8())
    assert bool((plan.times.diff() > 0).any())
    assert error(plan, AdjointDPM(RK4(), stored=True)) < 0.01


def test_runge_kutta_in_rho_gives_the_known_plans() -> None:
    times = grids.karras(VP, 7)
    assert rho_runge_kutta(VP, times, Euler()).equivalent(solvers.ddim(VP, times))
    assert rho_runge_kutta(VP, times, Heun()).equivalent(solvers.heun(VP, times))
    assert rho_runge_kutta(VP, times, Dopri5()).calls == 6 * 7


# ------------------------------------------------------------------------------------------------ memory and manners


def test_memory_of_a_re_solved_adjoint_does_not_grow_with_the_steps() -> None:
    few, many = (memory(AdjointDPM(Euler()), n)["bytes"] for n in (20, 200))
    assert many <= 1.2 * few
    few, many = (memory(Direct(), n)["bytes"] for n in (10, 100))
    assert many > 5 * few


@pytest.mark.slow
def test_memory_of_re_solved_exponential_steps_does_not_grow_either() -> None:
    for mode in (AdjointDEIS(2, stored=False), AdjointODE(Euler())):
        few, many = (memory(mode, n)["bytes"] for n in (20, 200))
        assert many <= 1.2 * few


def test_the_meter_counts_what_is_alive_at_once() -> None:
    with PeakBytes() as meter:
        x = torch.zeros(1000, dtype=torch.float64)
        views = [x.view(10, 100), x[:10]]
        assert (meter.now, meter.peak) == (8000, 8000)
        y = x + 1
        del x, views
        assert (meter.now, meter.peak) == (8000, 16000)
        y.requires_grad_().exp().sum().backward()
    assert meter.peak >= 24000


@pytest.mark.parametrize("gradient", [Direct(), Checkpointed(), *ADJOINTS], ids=lambda g: type(g).__name__)
def test_inputs_and_their_gradients_are_left_alone(gradient: PlanGradient) -> None:
    model, x, cond = guided(), normal(2, 3).requires_grad_(), condition()
    plan = solvers.heun(VP, grids.karras(VP, 5)).for_guidance(2.0)
    found = plan_gradient(plan, model, x, lambda v: v.sum(), gradient=gradient, cond=cond)
    assert x.grad is None
    assert cond.grad is None
    assert all(p.grad is None for p in parameters_of(model))
    samples = differentiable(plan, model, x, gradient=gradient, cond=cond)
    expected = plan.run(model, x.detach(), cond=cond.detach()).x
    torch.testing.assert_close(samples.detach(), expected, rtol=1e-12, atol=1e-12)
    samples.sum().backward()
    torch.testing.assert_close(x.grad, found.x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(cond.grad, found.cond, rtol=1e-12, atol=1e-12)
    for parameter, gradients in zip(parameters_of(model), found.parameters, strict=True):
        torch.testing.assert_close(parameter.grad, gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gradient", ADJOINTS, ids=lambda g: type(g).__name__)
def test_a_condition_made_by_a_network_gets_its_gradient_through(gradient: PlanGradient) -> None:
    model, embedding = guided(), torch.nn.Linear(1, 2).double()
    plan = solvers.heun(VP, grids.karras(VP, 5)).for_guidance(2.0)
    cond = {"text": embedding(torch.ones(1, dtype=torch.float64)), "scale": 3}

    class Unpacked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = model.inner.network  # type: ignore[attr-defined]

        def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
            return self.net(x, t, None if cond is None else cond["text"])

    wrapped = Guided(wrap(Unpacked(), VP, Noise()), 2.0)
    differentiable(plan, wrapped, normal(2, 3), gradient=gradient, cond=cond).sum().backward()
    flat = plan_gradient(plan, model, normal(2, 3), lambda v: v.sum(), gradient=gradient, cond=cond["text"].detach())
    torch.testing.assert_close(embedding.bias.grad, flat.cond, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gradient", ADJOINTS, ids=lambda g: type(g).__name__)
def test_single_precision_stays_single(gradient: PlanGradient) -> None:
    bed, x = GaussianMixture.smooth_bed(VP), normal(4, 8)
    plan = solvers.heun(VP, grids.karras(VP, 20))
    double, single = (
        plan_gradient(plan, bed, v, lambda v: v.sum(), gradient=gradient).x for v in (x, x.to(torch.float32))
    )
    assert single.dtype == torch.float32
    assert float((single - double).norm() / double.norm()) < 2e-3


def test_parameters_are_found_behind_wrappers_and_named_where_hidden() -> None:
    torch.manual_seed(0)
    net = Net().double()
    assert len(parameters_of(Guided(CheckpointedDenoiser(wrap(net, VP, Noise())), 2.0))) == 4
    net.inner.weight.requires_grad_(False)
    assert len(parameters_of(wrap(net, VP, Noise()))) == 3
    hidden = wrap(lambda x, t: net(x, t), VP, Noise())
    plan, x = solvers.ddim(VP, grids.karras(VP, 4)), normal(2, 3)
    with pytest.raises(InvalidInput, match=r"a parameter of shape .* its denoiser does not hold: pass parameters="):
        plan_gradient(plan, hidden, x, lambda v: v.sum(), gradient=AdjointDEIS(1))
    named = [p for p in net.parameters() if p.requires_grad]
    seen, told = (
        plan_gradient(plan, model, x, lambda v: v.sum(), gradient=AdjointDEIS(1), parameters=p).parameters
        for model, p in ((wrap(net, VP, Noise()), None), (hidden, named))
    )
    assert all(torch.equal(a, b) for a, b in zip(seen, told, strict=True))


def test_plans_that_follow_no_equation_are_refused() -> None:
    bed, x, times = GaussianMixture.smooth_bed(VP), normal(2, 8), grids.karras(VP, 6)
    ddim = solvers.ddim(VP, times)
    refused: list[tuple[Plan, PlanGradient, str]] = [
        (ddim.with_threshold(Threshold()), AdjointDEIS(), "no equation describes a plan's threshold"),
        (solvers.restart(VP, times, [Restart(0.5, 2.0, 2, 1)]), AdjointDEIS(eta=1.0), "the times of this plan rise"),
        (solvers.ddim(VP, grids.karras(VP, 6, end="zero")), AdjointDPM(), r"finite noise level at both ends.* t = 0;"),
        (solvers.ancestral(VP, times), AdjointDEIS(), r"draws noise: pass AdjointDEIS\(eta=1\)"),
        (solvers.ancestral(VP, times), AdjointDPM(), "AdjointDPM is for plans without noise"),
        (ddim, AdjointDEIS(eta=1.0), "this plan draws no noise, but AdjointDEIS was given eta=1"),
    ]
    for plan, gradient, message in refused:
        with pytest.raises(InvalidInput, match=message):
            differentiable(plan, bed, x, gradient=gradient, rng=0)
    with pytest.raises(Mismatch, match="the plan was made for"):
        differentiable(ddim, GaussianMixture.smooth_bed(EDM()), x)
    with pytest.raises(InvalidInput, match="pass rng=SEED"):
        differentiable(solvers.ancestral(VP, times), bed, x)


def test_settings_that_exclude_each_other_are_refused() -> None:
    for make, message in (
        (lambda: AdjointDEIS(3), "orders 1 and 2, got 3"),
        (lambda: AdjointDEIS(1, eta=1.0, stored=False), "must be stored"),
        (lambda: AdjointDPM(steps=10, stored=True), "stored nodes are the steps"),
        (lambda: AdjointDPM(steps=10, controller=PID(1e-3, 1e-3)), "a number of steps or a controller"),
    ):
        with pytest.raises(InvalidInput, match=message):
            make()
