"""Several solvers in one run: identities, exactness, order, naive loops, history across stretches, and joining of plans."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, Mismatch
from isocline.plans import Plan, Stretch, Threshold, composite, grids, solvers
from isocline.plans.candidate import Candidate
from isocline.plans.canonical import Canonical
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
from tests.contracts.solvers import SOLVERS, Entry, two_a_step
from tests.plans.helpers import PARAMETERISATIONS, PROCESSES, Told, normal, random_plan
from tests.plans.solvers.test_contract import observed_order

VP = VariancePreserving()
close = torch.testing.assert_close
every_process = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)

# solvers that take extra calls or a block of steps at their start do so again in a second stretch
RESTARTED = ("dpm_solver_fast", "f_pndm", "plms", "s_pndm")
MIXES: dict[str, list[Stretch]] = {
    "heun, then 2M": [Stretch(solvers.heun, 3), Stretch(solvers.dpm_solver_pp_2m)],
    "Adams, then heun": [Stretch(solvers.rho_adams, 4, {"order": 3}), Stretch(solvers.heun)],
    "2M, then Adams": [Stretch(solvers.dpm_solver_pp_2m, 3), Stretch(solvers.rho_adams)],
    "three": [
        Stretch(solvers.ddim, 1),
        Stretch(solvers.heun, 2),
        Stretch(solvers.exponential_adams, None, {"order": 3}),
    ],
}
every_mix = pytest.mark.parametrize("mix", MIXES)


@pytest.mark.parametrize("entry", SOLVERS, ids=str)
@pytest.mark.parametrize("end", ["t_min", "zero"])
def test_one_stretch_is_the_solver_and_two_of_a_multistep_solver_are_too(entry: Entry, end: End) -> None:
    times = grids.karras(VP, 8, end=end)
    whole = entry.compile(VP, times)
    assert composite(VP, times, [Stretch(entry.solver, 8, entry.settings)]).equivalent(whole)
    if entry.solver.__name__ not in RESTARTED:
        parts = [Stretch(entry.solver, 3, entry.settings), Stretch(entry.solver, 5, entry.settings)]
        assert composite(VP, times, parts).equivalent(whole)


@pytest.mark.parametrize("entry", [e for e in SOLVERS if e.from_noise], ids=str)
@pytest.mark.parametrize("first", [1, 2, 4])
def test_history_may_begin_with_pure_noise(entry: Entry, first: int) -> None:
    flow = RectifiedFlow()
    times = grids.uniform(flow, 6)
    stretches = [Stretch(entry.solver, first, entry.settings), Stretch(entry.solver, None, entry.settings)]
    assert composite(flow, times, stretches).equivalent(entry.compile(flow, times))


def test_a_solver_that_needs_a_finite_level_may_take_over_later() -> None:
    """Noise predictions are undefined at the start of a flow, so history begins at the node after it; here by hand."""
    flow = RectifiedFlow()
    times = grids.uniform(flow, 8)
    bed = GaussianMixture.smooth_bed(flow)
    plan = composite(flow, times, [Stretch(solvers.ddim, 3), Stretch(solvers.rho_adams, None, {"order": 3})])
    first, second = solvers.ddim(flow, times), solvers.rho_adams(flow, times[1:], order=3)
    x = start = flow.terminal((4, 8), 0, dtype=torch.float64)
    eps: list[Tensor] = []
    for i in range(8):
        data = bed(x, times[i])
        eps += [(x - flow.alpha(times[i]) * data) / flow.sigma(times[i])] if i > 0 else []
        if i < 3:
            x = first.carry[i] * x + first.weights[i, i] * data
        else:
            x = second.carry[i - 1] * x + sum(second.weights[i - 1, j] * eps[j] for j in range(i))
    close(plan.run(bed, start).x, x, rtol=1e-10, atol=1e-10)
    with pytest.raises(InvalidInput, match="finite noise level"):
        composite(flow, times, [Stretch(solvers.rho_adams, 3), Stretch(solvers.ddim)])


@every_mix
@every_process
@pytest.mark.parametrize("end", ["t_min", "zero"])
def test_constant_data_are_exact(mix: str, process: GaussianProcess, end: End) -> None:
    if end == "zero" and float(process.sigma(0.0)) > 0:
        pytest.skip("this process has noise at time 0")
    times = grids.karras(process, 7, end=end)
    mu, eps = normal(3, 5, seed=1), normal(3, 5, seed=2)
    x = process.alpha(times[0]) * mu + process.sigma(times[0]) * eps
    exact = process.alpha(times[-1]) * mu + process.sigma(times[-1]) * eps
    plan = composite(process, times, MIXES[mix])
    for parameterisation in PARAMETERISATIONS:
        found = plan.run(Told(lambda x, t: mu, process, parameterisation), x).x
        assert (found - exact).abs().max() < 1e-10, parameterisation


def halves(process: GaussianProcess, times: Tensor, first: Stretch, second: Stretch, fresh: bool = False) -> Plan:
    """Return two stretches of equal length, whatever the grid: with history, or the second afresh."""
    half = (len(times) - 1) // 2
    if fresh:
        return first.compile(process, times[: half + 1]).then(second.compile(process, times[half:]))
    return composite(process, times, [replace(first, steps=half), replace(second, steps=None)])


def order_of(first: Stretch, second: Stretch, steps: tuple[int, int], fresh: bool = False) -> float:
    settings = {"first": first, "second": second, "fresh": fresh}
    return observed_order(Entry("halves", halves, 0, settings=settings, steps=steps))


def test_two_solvers_of_one_order_have_it_together() -> None:
    assert abs(order_of(Stretch(solvers.heun), Stretch(solvers.dpm_solver_pp_2m), (80, 160)) - 2) < 0.15


def test_history_keeps_the_order_that_a_fresh_start_loses() -> None:
    """In the middle of the range a step of order 1 costs an error of order 2, which history avoids."""
    first = Stretch(solvers.rho_adams, None, {"order": 3})
    second = Stretch(solvers.exponential_adams, None, {"order": 3})
    assert abs(order_of(first, second, (100, 200)) - 3) < 0.15
    assert order_of(first, second, (100, 200), fresh=True) < 2.6


def heun_then_2m(bed: GaussianMixture, y: Tensor, s: list[float], heun_steps: int) -> Tensor:
    """Run in ``(y, s)`` from the papers' formulas: Heun, then 2M, whose first step uses the last node of Heun as history."""
    old = torch.zeros_like(y)
    for i in range(len(s) - 1):
        data = bed(y, torch.tensor(s[i], dtype=torch.float64))
        if i < heun_steps:
            slope = (y - data) / s[i]
            guess = y + (s[i + 1] - s[i]) * slope
            there = bed(guess, torch.tensor(s[i + 1], dtype=torch.float64))
            y = y + (s[i + 1] - s[i]) / 2 * (slope + (guess - there) / s[i + 1])
        else:
            h, h_old = math.log(s[i] / s[i + 1]), math.log(s[i - 1] / s[i])
            mean = data + h / h_old / 2 * (data - old)
            y = s[i + 1] / s[i] * y + (1 - s[i + 1] / s[i]) * mean
        old = data
    return y


def test_heun_then_2m_agrees_with_a_loop_by_hand() -> None:
    process = EDM()
    bed = GaussianMixture.smooth_bed(process)
    times = grids.karras(process, 9)
    plan = composite(process, times, MIXES["heun, then 2M"])
    x = process.terminal((6, 8), 0, dtype=torch.float64)
    assert plan.calls == 3 * 2 + 6
    close(plan.run(bed, x).x, heun_then_2m(bed, x, times.tolist(), 3), rtol=1e-10, atol=1e-10)


def test_stochastic_then_deterministic_agrees_with_a_loop_by_hand() -> None:
    """Ancestral steps, then 2M with the last ancestral output as history; noise rows stay where they were."""
    process = EDM()
    bed = GaussianMixture.smooth_bed(process)
    times = grids.karras(process, 8)
    plan = composite(process, times, [Stretch(solvers.ddim, 4, {"eta": 1.0}), Stretch(solvers.dpm_solver_pp_2m)])
    noise = [normal(5, 8, seed=20 + i) for i in range(8)]
    y = x = process.terminal((5, 8), 0, dtype=torch.float64)
    s, old = times.tolist(), torch.zeros_like(x)
    for i in range(8):
        data, r = bed(y, times[i]), s[i + 1] / s[i]
        if i < 4:
            y = r**2 * y + (1 - r**2) * data + s[i + 1] * math.sqrt(1 - r**2) * noise[i]
        else:
            mean = data + math.log(s[i] / s[i + 1]) / math.log(s[i - 1] / s[i]) / 2 * (data - old)
            y = r * y + (1 - r) * mean
        old = data
    assert plan.noise.nonzero().flatten().tolist() == [0, 1, 2, 3]
    close(plan.run(bed, x, noise=noise).x, y, rtol=1e-10, atol=1e-10)


def test_a_stretch_with_silent_rows_keeps_them() -> None:
    """Churn lifts the state before a call; 2M finds no output at those nodes and starts afresh."""
    process = EDM()
    times = grids.karras(process, 6)
    churned = solvers.stochastic_heun(process, times[:4], s_churn=2.0)
    plan = composite(
        process, times, [Stretch(solvers.stochastic_heun, 3, {"s_churn": 2.0}), Stretch(solvers.dpm_solver_pp_2m)]
    )
    joined = churned.then(solvers.dpm_solver_pp_2m(process, times[3:]))
    assert plan.evaluate.tolist() == [*churned.evaluate.tolist(), True, True, True]
    assert plan.equivalent(joined)


def test_fresh_noise_cuts_history_off_from_solvers_of_another_kind() -> None:
    times = grids.karras(VP, 8)
    multistep = Stretch(solvers.sde_dpm_solver_pp_2m, 4)
    with pytest.raises(InvalidInput, match=r"cannot be joined: .*earlier noises.*one-step solver such as ddim"):
        composite(VP, times, [multistep, Stretch(solvers.rho_adams)])
    assert composite(VP, times, [multistep, Stretch(solvers.exponential_adams)]).stochastic
    one_step = composite(VP, times, [Stretch(solvers.ddim, 4, {"eta": 1.0}), Stretch(solvers.rho_adams)])
    assert one_step.parameterisation == Noise()


def test_outputs_are_of_the_kind_with_the_fewest_terms() -> None:
    times = grids.karras(VP, 9)
    assert composite(VP, times, MIXES["heun, then 2M"]).parameterisation == Data()
    assert composite(VP, times, MIXES["Adams, then heun"]).parameterisation == Noise()
    dense = composite(VP, times, MIXES["heun, then 2M"]).convert(Noise())
    assert int((dense.weights != 0).sum()) > int((composite(VP, times, MIXES["heun, then 2M"]).weights != 0).sum())


@every_mix
def test_coefficients_are_differentiable_in_the_times(mix: str) -> None:
    weigh = normal(16, 16, seed=5)

    def total(times: Tensor) -> Tensor:
        plan = composite(VP, times, MIXES[mix])
        rows = len(plan.weights)
        return (weigh[:rows, :rows] * plan.canonical().outputs[1:]).sum() + plan.canonical().start.sum()

    times = grids.log_snr(VP, 6, t_max=0.8, t_min=0.1).requires_grad_()
    assert torch.autograd.gradcheck(total, (times,))


@every_process
def test_the_process_does_not_matter_between_equal_noise_levels(process: GaussianProcess) -> None:
    s = torch.tensor([10.0, 6.0, 2.5, 1.0, 0.3, 0.2], dtype=torch.float64)
    y, means = normal(4, 2), normal(3, 2, seed=1)
    results = []
    for kind in (EDM(), process):
        times = kind.time_of_noise_level(s)
        bed = GaussianMixture(kind, means, torch.tensor([0.5, 0.2, 0.9]))
        x = composite(kind, times, MIXES["2M, then Adams"]).run(bed, y * kind.alpha(times[0])).x
        results.append(x / kind.alpha(times[-1]))
    close(results[0], results[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("stretches", "message"),
    [
        ([], "at least one stretch"),
        ([Stretch(solvers.ddim), Stretch(solvers.heun)], "only one stretch may leave its number of steps open"),
        ([Stretch(solvers.ddim, 3), Stretch(solvers.heun, 4)], "the stretches ddim x 3, heun x 4 do not fit a grid of 8 steps"),
        ([Stretch(solvers.ddim, 8), Stretch(solvers.heun)], "ddim x 8, heun x rest do not fit a grid of 8 steps"),
        ([Stretch(solvers.ddim, -1), Stretch(solvers.heun)], "do not fit a grid of 8 steps"),
    ],
)  # fmt: skip
def test_stretches_must_fill_the_grid(stretches: list[Stretch], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        composite(VP, grids.karras(VP, 8), stretches)


def test_the_provenance_lists_the_stretches(tmp_path: Path) -> None:
    plan = composite(EDM(), grids.karras(EDM(), 6), [Stretch(solvers.heun, 2), Stretch(solvers.ddim, 4, {"eta": 0.5})])
    listed = [
        {"solver": "heun", "arxiv": "2206.00364", "steps": 2, "settings": {}},
        {"solver": "ddim", "arxiv": "2010.02502", "steps": 4, "settings": {"eta": 0.5}},
    ]
    assert plan.provenance.settings == {"stretches": listed}
    assert plan.describe().startswith("composite (heun x 2, ddim x 4): 8 calls")
    back = Plan.load(plan.save(tmp_path / "plan.json"))
    assert back == plan
    assert back.provenance == plan.provenance


def test_a_composite_is_a_candidate() -> None:
    stretches = (Stretch(solvers.heun, 2), Stretch(solvers.dpm_solver_pp_2m))
    candidate = Candidate(composite, grids.karras, {"stretches": stretches})
    assert candidate.name == "composite(stretches=[heun x 2, dpm_solver_pp_2m x rest]) on karras"
    plan = candidate.compile(EDM(), calls=9)
    assert (plan.calls, len(plan.nodes)) == (9, 8)


def test_then_takes_the_rows_of_both_plans() -> None:
    """Run one after the other or joined: the same, for any rows."""
    first, second = random_plan(1, 3, noisy=True, silent=True), random_plan(2, 4, noisy=True)
    times = 0.9 * first.times[-1] * second.times / second.times[0]
    times[0] = first.times[-1]
    second = replace(second, times=times, nodes=times)
    joined = first.then(second)
    network = Told(lambda x, t: torch.sin(x) + t, VP)
    x, noise = normal(3, 2), [normal(3, 2, seed=9 + i) for i in range(7)]
    between = first.run(network, x, noise=noise[:3]).x
    close(
        joined.run(network, x, noise=noise).x, second.run(network, between, noise=noise[3:]).x, rtol=1e-11, atol=1e-11
    )
    assert torch.equal(joined.model_times, torch.cat([first.model_times, second.model_times]))
    assert torch.equal(joined.nodes, torch.cat([first.nodes, second.nodes[1:]]))
    assert [s["solver"] for s in joined.provenance.settings["stretches"]] == ["random", "random"]


def test_then_starts_a_multistep_solver_afresh_and_joins_outputs_of_other_kinds() -> None:
    times = grids.karras(VP, 8)
    first, second = solvers.rho_adams(VP, times[:5]), solvers.dpm_solver_pp_2m(VP, times[4:])
    joined = first.then(second).convert(Data())
    close(joined.weights[4:, 4:], second.weights, rtol=1e-9, atol=1e-12)
    assert float(joined.weights[4:, :4].abs().max()) == 0.0
    assert first.then(second.for_guidance(1.0)) == joined


def test_then_keeps_what_both_were_made_for() -> None:
    times = grids.karras(VP, 8)
    first, second = solvers.ddim(VP, times[:5]), solvers.ddim(VP, times[4:])
    set_up: Callable[[Plan], Plan] = lambda plan: plan.for_guidance(3.0).with_threshold(Threshold())  # noqa: E731
    assert set_up(first).then(set_up(second)) == set_up(solvers.ddim(VP, times))


def other(**changes: Any) -> Plan:
    times = changes.pop("times", torch.tensor([0.5, 0.2], dtype=torch.float64))
    return replace(solvers.ddim(changes.pop("process", VP), times), **changes)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (other(process=EDM()), r"a plan for VariancePreserving\(.*\) cannot be followed by one for EDM"),
        (other(guidance=2.0), "one guidance scale and one threshold"),
        (other(threshold=Threshold()), "one guidance scale and one threshold"),
        (other(times=torch.tensor([0.6, 0.2])), r"ends at t = 0.5 but the second starts at t = 0.600000024"),
    ],
)  # fmt: skip
def test_plans_that_do_not_meet_are_refused(second: Plan, message: str) -> None:
    first = solvers.ddim(VP, torch.tensor([0.9, 0.5], dtype=torch.float64))
    with pytest.raises(Mismatch, match=message):
        first.then(second)


def test_a_velocity_network_runs_a_composite_from_pure_noise() -> None:
    """On two points the flow must land on them, with Heun where the path bends most."""
    flow = RectifiedFlow(t_min=1e-3)
    two = GaussianMixture(flow, torch.tensor([[-1.0], [1.0]], dtype=torch.float64), torch.tensor([0.05, 0.05]))
    times = grids.uniform(flow, 24, end="zero")
    plan = composite(flow, times, [Stretch(solvers.dpm_solver_pp_2m, 12), Stretch(solvers.heun)])
    network = Told(lambda x, t: two(x, t), flow, FlowVelocity())
    x = plan.run(network, flow.terminal((256, 1), 0, dtype=torch.float64)).x
    assert float((x.abs() - 1).abs().max()) < 0.25
    assert isinstance(plan.canonical(), Canonical)
    assert plan.calls == 12 + two_a_step(12, "zero")
