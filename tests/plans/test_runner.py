"""Running a plan: against its naive form, against the definition of a row, and what a run must not do."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from isocline._core.errors import InvalidInput, Mismatch, NotFinite
from isocline._core.stream import Stream
from isocline.plans import Plan, StepContext, grids, solvers, unroll
from isocline.plans.runner import compiled
from isocline.processes import (
    EDM,
    Data,
    Denoiser,
    GaussianMixture,
    Noise,
    Parameterisation,
    RectifiedFlow,
    VariancePreserving,
    wrap,
)
from tests.plans.helpers import PARAMETERISATIONS, Replay, Told, normal, random_plan, simulate

VP = VariancePreserving()
seeds = st.integers(0, 10**6)
close = torch.testing.assert_close


def wavy(x: Tensor, t: Tensor) -> Tensor:
    return torch.sin(x) + 0.3 * t.to(x.dtype)


def hand_loop(plan: Plan, network: Denoiser, x: Tensor, noise: list[Tensor]) -> Tensor:
    """Run a plan by its definition, converting each output to the plan's own when it is made."""
    outputs: list[Tensor] = []
    for i in range(len(plan.carry)):
        m = torch.zeros_like(x)
        if plan.evaluate[i]:
            cx, cm = network.parameterisation.to_data(plan.process, plan.times[i])
            dx, dm = plan.parameterisation.from_data(plan.process, plan.times[i])
            m = dx * x + dm * (cx * x + cm * network(x, plan.model_times[i]))
        outputs.append(m)
        x = simulate_row(plan, i, x, outputs, noise)
    return x


def simulate_row(plan: Plan, i: int, x: Tensor, outputs: list[Tensor], noise: list[Tensor]) -> Tensor:
    new = float(plan.carry[i]) * x + float(plan.noise[i]) * noise[i]
    for j, m in enumerate(outputs):
        new = new + float(plan.weights[i, j]) * m
    return new


@settings(max_examples=60, deadline=None)
@given(
    seed=seeds,
    rows=st.integers(1, 6),
    plan_output=st.sampled_from(PARAMETERISATIONS),
    network_output=st.sampled_from(PARAMETERISATIONS),
    noisy=st.booleans(),
    silent=st.booleans(),
)
def test_run_unroll_and_a_hand_written_loop_agree(
    seed: int,
    rows: int,
    plan_output: Parameterisation,
    network_output: Parameterisation,
    noisy: bool,
    silent: bool,
) -> None:
    plan = random_plan(seed, rows, parameterisation=plan_output, noisy=noisy, silent=silent)
    network = Told(wavy, VP, network_output)
    x, noise = normal(3, 2, seed=seed), [normal(3, 2, seed=seed + 1 + i) for i in range(rows)]
    found = plan.run(network, x, noise=noise, record=True)
    scale = float(found.trajectory.abs().max())
    tolerances: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-9 * scale}
    close(found.x, hand_loop(plan, network, x, noise), **tolerances)
    close(found.trajectory, torch.stack(unroll(plan, network, x, noise=noise)), **tolerances)
    assert found.cost.calls == plan.calls
    assert torch.equal(found.trajectory[0], x)
    assert torch.equal(found.trajectory[-1], found.x)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, rows=st.integers(1, 6), noisy=st.booleans(), silent=st.booleans())
def test_iterate_yields_what_run_records(seed: int, rows: int, noisy: bool, silent: bool) -> None:
    plan = random_plan(seed, rows, noisy=noisy, silent=silent)
    network = Told(wavy, VP)
    x, grad = normal(2, 2), torch.is_grad_enabled()
    steps = []
    for step in plan.iterate(network, x, rng=1):
        assert torch.is_grad_enabled() == grad
        steps.append((step.row, step.time, step.next_time, step.output is None, step.x.clone()))
    recorded = plan.run(network, x, rng=1, record=True).trajectory
    assert [s[0] for s in steps] == list(range(rows))
    assert [s[1] for s in steps] == plan.times[:-1].tolist()
    assert [s[2] for s in steps] == plan.times[1:].tolist()
    assert [s[3] for s in steps] == (~plan.evaluate).tolist()
    assert torch.equal(torch.stack([s[4] for s in steps]), recorded[1:])


def test_the_network_is_told_the_model_times_in_their_full_precision() -> None:
    plan = random_plan(3, 5, silent=True)
    network = Replay([normal(2, 2)] * 4, VP, Data())
    plan.run(network, normal(2, 2))
    assert network.told == plan.model_times[plan.evaluate].tolist()


@pytest.mark.parametrize("event", [(), (3,), (1, 8, 8)])
@pytest.mark.parametrize("noisy", [False, True])
def test_a_batch_is_its_samples(event: tuple[int, ...], noisy: bool) -> None:
    plan = random_plan(5, 4, noisy=noisy)
    x = normal(4, *event)
    whole = plan.run(Told(wavy, VP), x, rng=7).x
    noise = [VP.draw_noise(x.shape, Stream(7).child("row noise"), step=i, dtype=x.dtype) for i in range(4)]
    for b in range(4):
        alone = plan.run(Told(wavy, VP), x[b : b + 1], noise=[z[b : b + 1] for z in noise]).x
        assert torch.equal(alone, whole[b : b + 1])
    assert torch.equal(plan.run(Told(wavy, VP), x[:2], rng=7).x, whole[:2])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_states_keep_their_precision(dtype: torch.dtype) -> None:
    """Coefficients are rounded once, to the precision of the state; nothing promotes."""
    plan = random_plan(11, 4, noisy=True, parameterisation=Noise())
    x, noise = normal(2, 3), [normal(2, 3, seed=i) for i in range(4)]
    seen: set[torch.dtype] = set()

    def look(x: Tensor, t: Tensor) -> Tensor:
        seen.add(x.dtype)
        return wavy(x, t)

    found = plan.run(Told(look, VP), x.to(dtype), noise=[z.to(dtype) for z in noise]).x
    exact = plan.run(Told(wavy, VP), x, noise=noise).x
    assert seen == {dtype}
    assert found.dtype == dtype
    close(found.double(), exact, rtol=0, atol=40 * torch.finfo(dtype).eps * float(exact.abs().max()))
    drawn = plan.run(Told(look, VP), x.to(dtype), rng=0).x
    assert drawn.dtype == dtype


def test_integer_states_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"floating point.*int64"):
        random_plan(0).run(Told(wavy, VP), torch.ones(2, 3, dtype=torch.int64))


@pytest.mark.parametrize("returned", ["itself", "a view", "a part of a larger buffer"])
def test_a_network_may_return_its_input(returned: str) -> None:
    """The state is updated in place, so an output that lives in it must be kept apart."""
    plan = random_plan(2, 5)
    assert bool((torch.tril(plan.weights, -1) != 0).any())
    views: dict[str, Callable[[Tensor], Tensor]] = {
        "itself": lambda x: x,
        "a view": lambda x: x.view(-1).view(x.shape),
        "a part of a larger buffer": lambda x: x.as_strided(x.shape, x.stride()),
    }

    class Alias(Denoiser):
        def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
            return views[returned](x)

    x = normal(3, 2)
    close(plan.run(Alias(VP, Data()), x).x, plan.run(Told(lambda x, t: x.clone(), VP), x).x, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("with_hook", [False, True])
def test_the_start_is_not_changed(with_hook: bool) -> None:
    x = normal(3, 2)
    before = x.clone()
    hooks = [lambda step, x: x.clamp_(-1, 1)] if with_hook else []
    random_plan(1, 4, noisy=True).run(Told(wavy, VP), x, rng=0, hooks=hooks)
    assert torch.equal(x, before)


def test_recorded_outputs_are_not_changed() -> None:
    """A stored output belongs to the network; a run may scale only copies."""
    outputs = [normal(2, 3, seed=i) for i in range(4)]
    copies = [m.clone() for m in outputs]
    for parameterisation in PARAMETERISATIONS:
        random_plan(4, 4).run(Replay(outputs, VP, parameterisation), normal(2, 3))
    assert all(torch.equal(a, b) for a, b in zip(outputs, copies, strict=True))


def test_transforms_see_the_data_prediction_and_replace_it() -> None:
    """Clipping in every parameterisation of plan and network equals a network whose data prediction is clipped."""
    bed = GaussianMixture(VP, 3 * normal(3, 2, seed=1), torch.tensor([0.5, 0.2, 0.9]))
    times = grids.log_snr(VP, 6)
    x = normal(5, 2)
    clipped = Told(lambda x, t: bed(x, t).clamp(-1, 1), VP)
    for compile in (solvers.dpm_solver_pp_2m, solvers.rho_adams, solvers.heun):
        plan = compile(VP, times)
        exact = plan.run(clipped, x).x
        for parameterisation in PARAMETERISATIONS:
            network = Told(lambda x, t: bed(x, t), VP, parameterisation)
            found = plan.run(network, x, transforms=[lambda step, x0: x0.clamp(-1, 1)]).x
            close(found, exact, rtol=1e-8, atol=1e-8)
    assert float((plan.run(bed, x).x - exact).abs().max()) > 0.1


def test_an_identity_transform_changes_nothing_and_two_act_in_turn() -> None:
    plan = random_plan(8, 4, noisy=True, silent=True)
    plan = replace(plan, model_times=plan.times[:-1])
    x, contexts = normal(2, 2), []

    def look(step: StepContext, x0: Tensor) -> Tensor:
        contexts.append((step.row, step.x.clone()))
        return x0

    network = Told(wavy, VP, Noise())
    plain = plan.run(network, x, rng=0, record=True)
    close(plan.run(network, x, rng=0, transforms=[look]).x, plain.x, rtol=1e-10, atol=1e-10)
    assert [row for row, _ in contexts] == [0, 2, 3]  # no call, no prediction, no transform
    for row, state in contexts:
        close(state, plain.trajectory[row], rtol=1e-10, atol=1e-10)
    doubled = [lambda step, x0: x0 + 1, lambda step, x0: 2 * x0]
    expected = plan.run(Told(lambda x, t: 2 * (wavy(x, t) + 1), VP), x, rng=0).x
    close(plan.run(network, x, rng=0, transforms=doubled).x, expected, rtol=1e-9, atol=1e-9)


def test_hooks_replace_the_state_after_each_row() -> None:
    """Known pixels put back after every row, as in inpainting: the run equals a hand loop that does the same."""
    plan, network = random_plan(9, 4, noisy=True), Told(wavy, VP)
    x, known = normal(2, 1, 4, 4), normal(2, 1, 4, 4, seed=1)
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[:2] = True
    rows, noise = [], [normal(2, 1, 4, 4, seed=10 + i) for i in range(4)]

    def put_back(step: StepContext, x: Tensor) -> Tensor:
        assert step.x is x
        rows.append(step.row)
        return torch.where(mask, known * step.next_time, x)

    found = plan.run(network, x, noise=noise, hooks=[put_back]).x
    state, outputs = x, []
    for i in range(4):
        outputs.append(wavy(state, plan.model_times[i]))
        state = torch.where(mask, known * plan.times[i + 1], simulate_row(plan, i, state, outputs, noise))
    close(found, state, rtol=1e-10, atol=1e-10)
    assert rows == [0, 1, 2, 3]


def test_a_hook_may_keep_the_states_it_is_given() -> None:
    plan, kept = random_plan(9, 4), []

    def keep(step: StepContext, x: Tensor) -> Tensor:
        kept.append(x)
        return x

    x = normal(2, 3)
    trajectory = plan.run(Told(wavy, VP), x, hooks=[keep], record=True).trajectory
    assert torch.equal(torch.stack(kept), trajectory[1:])


def test_only_outputs_that_are_needed_later_are_kept() -> None:
    """A two-step method holds two outputs at a time, however long the run and whatever the network outputs."""
    plan = solvers.dpm_solver_pp_2m(VP, grids.log_snr(VP, 8))
    for parameterisation in (Data(), Noise()):
        alive: list[weakref.ref[Tensor]] = []
        counts = []

        def data(x: Tensor, t: Tensor, alive: list[weakref.ref[Tensor]] = alive) -> Tensor:
            return torch.sin(x)

        class Watched(Told):
            def forward(self, x: Tensor, t: Tensor, cond: Any = None, alive: list[Any] = alive) -> Tensor:
                m = super().forward(x, t, cond)
                alive.append(weakref.ref(m))
                return m

        for _ in plan.iterate(Watched(data, VP, parameterisation), normal(2, 3)):
            counts.append(sum(ref() is not None for ref in alive))
        assert max(counts) <= 2, (parameterisation, counts)


def test_what_a_row_uses_alone_is_converted_in_the_coefficients() -> None:
    """One-step methods pay nothing for another output: as many terms as before, no kept conversion."""
    for parameterisation in PARAMETERISATIONS:
        rows = compiled(solvers.ddim(VP, grids.log_snr(VP, 5)), parameterisation)
        assert [len(row.terms) for row in rows] == [1] * 5
        assert all(row.change is None for row in rows)


def test_stochastic_plans_need_a_source_of_noise() -> None:
    plan, network, x = random_plan(1, 3, noisy=True), Told(wavy, VP), normal(2, 2)
    with pytest.raises(InvalidInput, match=r"draws noise: pass rng=SEED, or noise="):
        plan.run(network, x)
    with pytest.raises(InvalidInput, match=r"one tensor a row \(3\)"):
        plan.run(network, x, noise=[x, x])
    with pytest.raises(InvalidInput, match=r"recorded noise .*\(2, 2\).*row 1 has \(1, 2\)"):
        plan.run(network, x, noise=[x, x[:1], x])
    with pytest.raises(InvalidInput, match=r"rng must be a Stream or an int seed"):
        plan.run(network, x, rng=0.5)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="needs recorded noise"):
        unroll(plan, network, x)


def test_noise_is_a_function_of_seed_and_row() -> None:
    plan, network, x = random_plan(1, 4, noisy=True), Told(wavy, VP), normal(2, 2)
    noise = [VP.draw_noise((2, 2), Stream(5).child("row noise"), step=i, dtype=x.dtype) for i in range(4)]
    found = plan.run(network, x, rng=5).x
    assert torch.equal(found, plan.run(network, x, noise=noise).x)
    assert torch.equal(found, plan.run(network, x, rng=5).x)
    assert not torch.equal(found, plan.run(network, x, rng=6).x)


def test_a_deterministic_plan_ignores_rng() -> None:
    plan, network, x = random_plan(1, 4), Told(wavy, VP), normal(2, 2)
    assert torch.equal(plan.run(network, x).x, plan.run(network, x, rng=5).x)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_network_that_fails_names_the_row(bad: float) -> None:
    plan = solvers.ddim(VP, torch.tensor([0.9, 0.6, 0.3, 0.1], dtype=torch.float64))

    def fail(x: Tensor, t: Tensor) -> Tensor:
        return torch.full_like(x, bad) if float(t) == 0.3 else x

    with pytest.raises(NotFinite, match=r"the model's output became NaN or infinite in row 2 \(t = 0.3\)"):
        plan.run(Told(fail, VP), normal(2, 2))


def test_a_state_that_overflows_names_the_row() -> None:
    plan = solvers.ddim(VP, torch.tensor([0.9, 0.6, 0.3, 0.1], dtype=torch.float64))
    hook = lambda step, x: x * float("inf") if step.row == 1 else x  # noqa: E731
    with pytest.raises(NotFinite, match=r"the state became NaN or infinite in row 1 \(t = 0.6\)"):
        plan.run(Told(lambda x, t: x, VP), normal(2, 2), hooks=[hook])


def test_a_start_that_is_not_finite_is_blamed_itself() -> None:
    with pytest.raises(InvalidInput, match="start states hold NaN or infinity"):
        random_plan(0).run(Told(wavy, VP), torch.full((2, 2), float("nan")))


def test_a_failure_that_does_not_repeat_is_called_that() -> None:
    calls = []

    def flaky(x: Tensor, t: Tensor) -> Tensor:
        calls.append(0)
        return x * float("nan") if len(calls) == 1 else x

    with pytest.raises(NotFinite, match="not deterministic"):
        random_plan(0).run(Told(flaky, VP), normal(2, 2))


def test_large_but_finite_half_precision_results_are_not_called_infinite() -> None:
    """The quick check sums the state; a sum that overflows is not a state that did."""
    plan = solvers.ddim(VP, torch.tensor([0.9, 0.5], dtype=torch.float64))
    big = torch.full((4, 64), 6e4, dtype=torch.float16)
    found = plan.run(Replay([big], VP, Data()), torch.zeros_like(big)).x
    assert bool(torch.isfinite(found).all())
    assert not bool(torch.isfinite(found.sum()))


def test_a_network_of_another_shape_names_the_row() -> None:
    plan = random_plan(0, 3)
    outputs = [normal(2, 3), normal(2, 4), normal(2, 3)]
    message = (
        rf"in row 1 \(t = {float(plan.times[1]):.4g}\) the model returned shape \(2, 4\) for states of shape \(2, 3\)"
    )
    with pytest.raises(Mismatch, match=message):
        plan.run(Replay(outputs, VP, Data()), normal(2, 3))


def test_mismatches_name_both_sides() -> None:
    plan = random_plan(0)
    with pytest.raises(Mismatch, match=r"made for VariancePreserving\(.*\) but the denoiser is EDM\(.*tune or compile"):
        plan.run(Told(wavy, EDM()), normal(2, 2))
    guided = Told(wavy, VP)
    guided.guidance = 7.5
    for use in (plan.run, plan.iterate, lambda *a: unroll(plan, *a)):
        with pytest.raises(Mismatch, match=r"guidance scale 1 but the denoiser applies 7.5.*for_guidance"):
            use(guided, normal(2, 2))
    assert torch.equal(plan.for_guidance(7.5).run(guided, normal(2, 2)).x, plan.run(Told(wavy, VP), normal(2, 2)).x)


def test_start_draws_noise_of_the_first_level() -> None:
    plan = solvers.ddim(EDM(), torch.tensor([8.0, 1.0], dtype=torch.float64))
    x = plan.start((20_000, 2), 3, dtype=torch.float64)
    assert float(x.std()) == pytest.approx(8.0, rel=0.02)
    assert torch.equal(x, 8.0 * EDM().draw_noise((20_000, 2), 3, dtype=torch.float64))


def test_conditions_reach_the_network() -> None:
    plan = solvers.ddim(VP, torch.tensor([0.9, 0.5], dtype=torch.float64))
    network = wrap(lambda x, t, cond: x * 0 + cond, VP, Data())
    x = torch.zeros(2, 3)
    alpha, sigma = VP.alpha(plan.times), VP.sigma(plan.times)
    expected = 4.0 * float(alpha[1] - alpha[0] * sigma[1] / sigma[0])
    close(plan.run(network, x, cond=4.0).x, torch.full((2, 3), expected))


def test_no_graph_is_kept_by_a_run_and_one_by_unroll() -> None:
    weight = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    network = Told(lambda x, t: weight * torch.sin(x), VP)
    plan, x = random_plan(3, 4), normal(2, 2)
    assert not plan.run(network, x).x.requires_grad
    assert torch.autograd.gradcheck(lambda x: unroll(plan, network, x)[-1], (x.clone().requires_grad_(),))
    unroll(plan, network, x)[-1].sum().backward()
    assert weight.grad is not None
    assert float(weight.grad.abs()) > 0


@pytest.mark.parametrize("parameterisation", [Data(), Noise()], ids=str)
def test_unroll_is_differentiable_in_the_plan(parameterisation: Parameterisation) -> None:
    base, x = random_plan(3, 3), normal(2, 2)
    network = Told(wavy, VP, parameterisation)

    def end(carry: Tensor, weights: Tensor, times: Tensor) -> Tensor:
        plan = replace(base, carry=carry, weights=torch.tril(weights), times=times, model_times=times[:-1])
        return unroll(plan, network, x)[-1]

    free = tuple(v.clone().requires_grad_() for v in (base.carry, base.weights, base.times))
    assert torch.autograd.gradcheck(end, free)


def test_a_plan_of_a_flow_runs_from_pure_noise() -> None:
    """On two points the flow from ``t = 1`` must land on them: D is exact, and 40 steps of order 2 suffice."""
    flow = RectifiedFlow()
    two = GaussianMixture(flow, torch.tensor([[-1.0], [1.0]], dtype=torch.float64), torch.tensor([0.05, 0.05]))
    plan = solvers.dpm_solver_pp_2m(flow, grids.uniform(flow, 40, end="zero"))
    x = plan.run(two, flow.terminal((512, 1), 0, dtype=torch.float64)).x
    assert float((x.abs() - 1).abs().max()) < 0.25
    assert 0.4 < float((x > 0).double().mean()) < 0.6


def test_simulation_of_recorded_outputs_is_the_definition() -> None:
    plan = random_plan(6, 5, noisy=True)
    outputs, noise = [normal(2, 2, seed=i) for i in range(5)], [normal(2, 2, seed=20 + i) for i in range(5)]
    x = normal(2, 2, seed=40)
    found = plan.run(Replay(outputs, VP, Data()), x, noise=noise, record=True).trajectory
    close(found, torch.stack(simulate(plan, outputs, x, noise)), rtol=1e-12, atol=1e-12)


def test_compiled_rows_follow_the_plan() -> None:
    """Rows are compiled once for each kind of network, and anew for a plan that was made from another."""
    plan = random_plan(6, 4)
    assert compiled(plan, Noise()) is compiled(plan, Noise())
    assert compiled(plan, Noise()) is not compiled(plan, Data())
    old = compiled(plan, Noise())
    plan = replace(plan, carry=plan.carry * 0.99)
    assert compiled(plan, Noise()) is not old
    x = normal(2, 2)
    close(plan.run(Told(wavy, VP), x).x, unroll(plan, Told(wavy, VP), x)[-1], rtol=1e-12, atol=1e-12)
