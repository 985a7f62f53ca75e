"""T3 for the solvers that draw noise: the same samplers as diffusers 0.42, as plans, driven by recorded outputs and noises.

As in `test_diffusers`, with one more list: whatever a scheduler draws comes from recorded noise too. Differences that stay:

- DDPM's variances come from ``1 - abar`` in float32, which costs up to 3e-4 of them between neighbouring indices; steps are
  long here.
- The third order of "sde-dpmsolver++" has a sign error in its last weight. With ``H = 2 h`` it multiplies the second difference by
  ``(1 - e^-H - H) / H^2 - 1/2``, which tends to -1 for short steps where ``(1 - e^-H - H) / H^2 + 1/2`` tends to 0; the other
  sign is in the same file's ODE solver and in k-diffusion's ``sample_dpmpp_3m_sde``. It costs the scheme an order. The test adds
  the error to our weights, shows that they then agree, and measures the order on both sides.
- Euler's churn tells the network the level before the lift, where the paper and our plans tell the one after it; it also converts
  a v-prediction at that level, so only noise predictions compare.
- The Langevin corrector measures norms. Its outputs and noises are scaled here to the norms that our plan expects.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from isocline.plans import Plan, grids, solvers
from isocline.plans.solvers.rows import Levels
from isocline.processes import EDM, Score, VarianceExploding
from tests.plans.helpers import Replay, normal
from tests.plans.solvers.test_stochastic import marginal, moments

diffusers = pytest.importorskip("diffusers", minversion="0.42")

from tests.plans.solvers.test_diffusers import (  # noqa: E402
    TABLES,
    agree,
    every_output,
    every_table,
    index_times,
    level_times,
    ours,
    recorded,
    scheduler,
    theirs,
    with_levels,
)

Patch = Callable[[str, list[Tensor]], None]


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> Patch:
    """Make a scheduler's module draw recorded noises in turn."""

    def patch(module: str, noises: list[Tensor]) -> None:
        left = iter(noises)
        place = f"diffusers.schedulers.{module}.randn_tensor"
        monkeypatch.setattr(place, lambda *args, **options: next(left))

    return patch


def fresh(n: int) -> list[Tensor]:
    return [normal(2, 3, seed=50 + i, dtype=torch.float32) for i in range(n)]


def doubled(noises: list[Tensor]) -> list[Tensor]:
    return [z.double() for z in noises]


def in_silent_rows(plan: Plan, noises: list[Tensor]) -> list[Tensor]:
    """Return one noise a row, those given in the rows without a call."""
    left = iter(doubled(noises))
    return [torch.zeros(2, 3, dtype=torch.float64) if called else next(left) for called in plan.evaluate.tolist()]


@every_table
@every_output
@pytest.mark.parametrize(("variance", "v"), [("fixed_small", 0.0), ("fixed_large", 1.0)])
def test_ddpm(table: str, output: str, variance: str, v: float, draws: Patch) -> None:
    process, steps = TABLES[table][0], 10
    made = scheduler("DDPMScheduler", table, output, steps, variance_type=variance, clip_sample=False)
    (outputs, x), noises = recorded(steps), fresh(steps)
    draws("scheduling_ddpm", noises)
    plan = solvers.ancestral(process, index_times(made.timesteps, 0.0), v=v)
    agree(ours(plan, outputs, x, output, doubled(noises)), theirs(made, outputs, x))


@every_table
@pytest.mark.parametrize("output", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
def test_euler_ancestral(table: str, output: str, spacing: str, draws: Patch) -> None:
    process, steps = TABLES[table][0], 9
    made = scheduler("EulerAncestralDiscreteScheduler", table, output, steps, timestep_spacing=spacing)
    (outputs, y), noises = recorded(steps), fresh(steps)
    draws("scheduling_euler_ancestral_discrete", noises)
    times = level_times(process, made.sigmas)
    plan = solvers.ancestral(process, times)
    found = ours(plan, outputs, y.double() * process.alpha(times[0]), output, doubled(noises))
    agree(found, theirs(made, outputs, y))


@every_table
@pytest.mark.parametrize("eta", [0.2, 1.0])
def test_ddim_with_noise(table: str, eta: float) -> None:
    process, steps = TABLES[table][0], 8
    made = scheduler("DDIMScheduler", table, "epsilon", steps, clip_sample=False)
    (outputs, x), noises = recorded(steps), fresh(steps)
    times = index_times(made.timesteps, 0.0)
    expected = theirs(made, outputs, x, lambda i: {"eta": eta, "variance_noise": noises[i]})
    agree(ours(solvers.ddim(process, times, eta=eta), outputs, x, "epsilon", doubled(noises)), expected)
    if eta == 1.0:
        agree(ours(solvers.ancestral(process, times), outputs, x, "epsilon", doubled(noises)), expected)


@every_table
@pytest.mark.parametrize("window", [{}, {"s_min": 0.5, "s_max": 8.0}])
def test_euler_with_churn(table: str, window: dict[str, float], draws: Patch) -> None:
    process, steps, output = TABLES[table][0], 8, "epsilon"
    made = scheduler("EulerDiscreteScheduler", table, output, steps, timestep_spacing="linspace")
    times = level_times(process, made.sigmas)
    plan = solvers.stochastic_euler(process, times, s_churn=3.0, s_noise=1.05, **window)
    (outputs, y), noises = recorded(steps), fresh(int((~plan.evaluate).sum()))
    inside = [window.get("s_min", 0) <= s <= window.get("s_max", math.inf) for s in made.sigmas[:-1].tolist()]
    assert len(noises) == sum(inside)
    assert (len(noises) < steps) == bool(window)
    draws("scheduling_euler_discrete", noises)
    given = {"s_churn": 3.0, "s_noise": 1.05, **{key.replace("s_", "s_t"): value for key, value in window.items()}}
    expected = theirs(made, outputs, y, lambda i: given)
    x = y.double() * process.alpha(times[0])
    agree(ours(plan, outputs, x, output, in_silent_rows(plan, noises)), expected)


@every_table
@every_output
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(("steps", "final_order"), [(10, 1), (16, None)])
@pytest.mark.parametrize("end", ["zero", "sigma_min"])
def test_sde_dpm_solver_pp(table: str, output: str, order: int, steps: int, final_order: int | None, end: str) -> None:
    found, expected = both_sde(table, output, order, steps, final_order, end)
    agree(found, expected)


@every_table
@pytest.mark.parametrize(("steps", "final_order"), [(10, 1), (16, None)])
@pytest.mark.parametrize("end", ["zero", "sigma_min"])
def test_sde_dpm_solver_pp_of_third_order_but_for_its_sign(
    table: str, steps: int, final_order: int | None, end: str
) -> None:
    found, expected = both_sde(table, "epsilon", 3, steps, final_order, end)
    assert float((found - expected).abs().max()) > 0.05 * float(expected.abs().max())
    found, expected = both_sde(table, "epsilon", 3, steps, final_order, end, with_their_sign)
    agree(found, expected)


def both_sde(
    table: str,
    output: str,
    order: int,
    steps: int,
    final_order: int | None,
    end: str,
    change: Callable[[Plan], Plan] = lambda plan: plan,
) -> tuple[Tensor, Tensor]:
    """Return our end state and theirs."""
    process = TABLES[table][0]
    settings: dict[str, Any] = {"algorithm_type": "sde-dpmsolver++", "solver_order": order, "final_sigmas_type": end}
    made = scheduler("DPMSolverMultistepScheduler", table, output, steps, **settings)
    (outputs, x), noises = recorded(steps), fresh(steps)
    times = index_times(made.timesteps, 0.0 if end == "zero" else 1 / 1000)
    lowered = {} if order == 1 else {"final_order": final_order}
    solver = getattr(solvers, "sde_dpm_solver_pp_1" if order == 1 else f"sde_dpm_solver_pp_{order}m")
    plan = change(solver(process, times, **lowered))
    expected = theirs(with_levels(made, process, times), outputs, x, lambda i: {"variance_noise": noises[i]})
    return ours(plan, outputs, x, output, doubled(noises)), expected.double()


def with_their_sign(plan: Plan) -> Plan:
    """Return the plan with -1 more on the second difference of each row that uses three outputs."""
    levels, weights = Levels(plan.process, plan.nodes), plan.weights.clone()
    for i in range(2, len(weights)):
        if weights[i, i - 2] == 0:
            continue
        r0, r1 = levels.h[i - 1] / levels.h[i], levels.h[i - 2] / levels.h[i]
        newest, oldest = 1 / (r0 * (r0 + r1)), 1 / (r1 * (r0 + r1))
        change = torch.stack([oldest, -newest - oldest, newest])
        weights[i, i - 2 : i + 1] -= levels.alpha[i + 1] * change
    return replace(plan, weights=weights)


def test_their_sign_costs_an_order() -> None:
    def error(steps: int, change: Callable[[Plan], Plan]) -> float:
        plan = change(solvers.sde_dpm_solver_pp_3m(EDM(), grids.log_snr(EDM(), steps, t_max=50.0, t_min=0.1)))
        return abs(moments(plan, 0.0, 0.6)[1] - marginal(EDM(), plan.times[-1], 0.0, 0.6)[1])

    def order(change: Callable[[Plan], Plan]) -> float:
        return math.log2(error(160, change) / error(320, change))

    assert order(with_their_sign) < 1.15 < 1.85 < order(lambda plan: plan)


@pytest.mark.parametrize("corrections", [0, 1, 2])
def test_predictor_and_corrector_of_the_score_sde(corrections: int, draws: Patch, monkeypatch: Any) -> None:
    """ScoreSdeVe on its 8 levels; its last step leads to noise level 0, as ours does where the times end there."""
    n, low, high, snr = 8, 0.01, 40.0, 0.16
    made = diffusers.ScoreSdeVeScheduler(num_train_timesteps=n, snr=snr, sigma_min=low, sigma_max=high)
    made.set_timesteps(n, sampling_eps=0.0)
    made.set_sigmas(n, low, high, 0.0)
    levels = made.discrete_sigmas.double().flip(0)
    process = EDM(t_max=50.0)
    times = torch.cat([levels, torch.zeros(1, dtype=torch.float64)])
    plan = (
        solvers.predictor_corrector(process, times, snr=snr, corrections=corrections)
        if corrections
        else solvers.reverse_diffusion(process, times)
    )
    scores, x = recorded(plan.calls)
    noises = fresh(plan.calls)
    for row, level in enumerate(plan.times[:-1].tolist()):
        if row % (1 + corrections):
            scores[row] = of_norm(scores[row], math.sqrt(3) / level)
            noises[row] = of_norm(noises[row], math.sqrt(3))
    draws("scheduling_sde_ve", noises)
    state, row = x, 0
    for i, t in enumerate(torch.linspace(1, 0, n).tolist()):
        made_step = made.step_pred(scores[row], t + 1e-6, state)
        state, row = made_step.prev_sample if i < n - 1 else made_step.prev_sample_mean, row + 1
        for _ in range(corrections if i < n - 1 else 0):
            state, row = made.step_correct(scores[row], state).prev_sample, row + 1
    assert row == plan.calls
    network = Replay([m.double() for m in scores], process, Score())
    agree(plan.run(network, x.double(), noise=doubled(noises)).x, state)


def of_norm(x: Tensor, norm: float) -> Tensor:
    """Return `x` scaled so that the mean of its rows' norms is `norm`."""
    return x * (norm / float(x.norm(dim=1).mean()))


def test_reverse_diffusion_is_the_same_on_ve_and_edm() -> None:
    ve = VarianceExploding()
    levels = torch.tensor([40.0, 9.0, 2.0, 0.3], dtype=torch.float64)
    on_ve, on_edm = (solvers.reverse_diffusion(p, p.time_of_noise_level(levels)) for p in (ve, EDM()))
    for name in ("carry", "weights", "noise"):
        torch.testing.assert_close(getattr(on_ve, name), getattr(on_edm, name), rtol=1e-9, atol=1e-9)
