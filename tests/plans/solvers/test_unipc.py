"""UniPC beyond the contract: the paper's formulas, what the predictor alone is, what B(h) changes, diffusers.

T3 as in test_diffusers: one recorded list of outputs drives both sides, our noise levels are put into the scheduler. Where
diffusers 0.42 meets zero times infinity and returns NaN, noise predictions and bh1 at an end without noise, both end at its
smallest level.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.plans import Plan, grids, solvers
from isocline.plans.grids.span import End
from isocline.processes import EDM, Data, FlowVelocity, GaussianProcess, Noise, RectifiedFlow, VariancePreserving
from tests.plans.helpers import PROCESSES, Replay, normal
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

every_process = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
every_variant = pytest.mark.parametrize("variant", ["bh1", "bh2"])
every_order = pytest.mark.parametrize("order", [1, 2, 3])


def uneven(process: GaussianProcess) -> Tensor:
    """Return times whose noise levels fall by uneven ratios."""
    return process.time_of_noise_level(torch.tensor([9.0, 7.0, 3.0, 1.4, 0.9, 0.25], dtype=torch.float64))


def solve_conditions(ratios: list[float], hh: float, b: float) -> np.ndarray:
    """Solve the paper's order conditions ``sum_k rho_k r_k^(i-1) = i! hh phi_{i+1}(hh) / B``, phi by its recursion."""
    phi, right = math.expm1(hh) / hh, []
    for i in range(1, len(ratios) + 1):
        phi = (phi - 1 / math.factorial(i)) / hh
        right.append(math.factorial(i) * hh * phi / b)
    return np.linalg.solve(np.array([[r**i for r in ratios] for i in range(len(ratios))]), np.array(right))


def paper_step(
    x: Tensor, at: list[tuple[float, float]], i: int, used: dict[int, Tensor], variant: str, data: bool
) -> Tensor:
    """Return the state after step `i` from the outputs `used`, by node, as the paper writes it; `at` holds (alpha, sigma)."""
    lam = [math.log(a / s) for a, s in at]
    (alpha, sigma), (alpha1, sigma1), h = at[i], at[i + 1], lam[i + 1] - lam[i]
    hh, carry, scale = (-h, sigma1 / sigma, alpha1) if data else (h, alpha1 / alpha, sigma1)
    b = hh if variant == "bh1" else math.expm1(hh)
    others = [k for k in sorted(used) if k != i]
    ratios = [(lam[k] - lam[i]) / h for k in others]
    rho = [0.5] if len(others) == 1 else solve_conditions(ratios, hh, b) if others else []
    x = carry * x - scale * math.expm1(hh) * used[i]
    for weight, k, ratio in zip(rho, others, ratios, strict=True):
        x = x - scale * b * weight * (used[k] - used[i]) / ratio
    return x


def paper_unipc(
    process: GaussianProcess, times: Tensor, x: Tensor, outputs: list[Tensor], order: int, variant: str, data: bool
) -> Tensor:
    """Return the end state of UniPC with a falling final order: predict, call, correct, predict."""
    at = list(zip(process.alpha(times).tolist(), process.sigma(times).tolist(), strict=True))
    n = len(outputs)
    orders = [min(order, i + 1, n - i) for i in range(n)]
    start = x
    for i, k in enumerate(orders):
        past = range(i - k + 1, i + 1)
        if i > 0:
            before = range(i - orders[i - 1], i + 1)
            start = paper_step(start, at, i - 1, {j: outputs[j] for j in before}, variant, data)
        x = paper_step(start, at, i, {j: outputs[j] for j in past}, variant, data)
    return x


@every_process
@every_variant
@every_order
@pytest.mark.parametrize("data", [True, False])
def test_it_is_the_method_of_the_paper(process: GaussianProcess, variant: Any, order: int, data: bool) -> None:
    times, x = uneven(process), normal(2, 3)
    outputs = [normal(2, 3, seed=1 + i) for i in range(5)]
    compile = solvers.unipc if data else solvers.unipc_noise
    plan = compile(process, times, order=order, variant=variant, final_order=1)
    found = plan.run(Replay(outputs, process, Data() if data else Noise()), x).x
    expected = paper_unipc(process, times, x, outputs, order, variant, data)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@every_process
def test_predictors_alone_are_multistep_solvers(process: GaussianProcess) -> None:
    times = uneven(process)
    first = [solve(process, times, order=1, corrector=False) for solve in (solvers.unipc, solvers.unipc_noise)]
    assert all(plan.equivalent(solvers.ddim(process, times)) for plan in first)
    assert solvers.unipc(process, times, corrector=False).equivalent(solvers.dpm_solver_pp_2m(process, times))
    data = solvers.unipc(process, times, order=3, corrector=False)
    noise = solvers.unipc_noise(process, times, order=3, corrector=False)
    for plan, adams in ((data, solvers.exponential_adams(process, times)), (noise, solvers.lam_adams(process, times))):
        torch.testing.assert_close(plan.weights[2:], adams.weights[2:], rtol=1e-12, atol=1e-12)
        assert not torch.allclose(plan.weights[1], adams.weights[1], rtol=1e-3)


@pytest.mark.parametrize("solver", [solvers.unipc, solvers.unipc_noise], ids=lambda f: f.__name__)
def test_b_cancels_in_rules_of_three_nodes(solver: Any) -> None:
    """Rules of two nodes predict step 1 and correct step 0: they are in row 1, and in row 2, which replaces the former."""
    one, two = (solver(VariancePreserving(), uneven(VariancePreserving()), order=3, variant=v) for v in ("bh1", "bh2"))
    same = [torch.equal(a, b) for a, b in zip(one.weights, two.weights, strict=True)]
    assert same == [True, False, False, True, True]


def test_the_corrector_is_implicit_in_the_next_row_only() -> None:
    """A correction changes the state by outputs up to the newest; the last step keeps its prediction."""
    plan = solvers.unipc(EDM(), uneven(EDM()), order=1)
    bare = solvers.unipc(EDM(), uneven(EDM()), order=1, corrector=False)
    change = plan.weights - bare.weights
    assert int((change != 0).sum()) == 2 * 4
    for i in range(1, 5):
        half = float(1 - plan.carry[i - 1]) / 2
        np.testing.assert_allclose(change[i, i - 1 : i + 1], [-half * plan.carry[i], half * plan.carry[i]], rtol=1e-12)


@every_order
@pytest.mark.parametrize("end", ["t_min", "zero"])
def test_a_start_without_signal_is_the_limit_of_late_starts(order: int, end: End) -> None:
    """With bh2 the corrector of the first, infinitely long step averages both outputs; later steps do not use its first one.

    The limit is reached as fast as ``1 / lam``, but at once where no later step would use the first output.
    """
    flow = RectifiedFlow()
    times = grids.uniform(flow, 5, end=end)
    at = solvers.unipc(flow, times, order=order)
    gaps = []
    for late in (1e-6, 1e-12):
        near = torch.cat([torch.tensor([1 - late], dtype=torch.float64), times[1:]])
        gaps.append(float((at.weights - solvers.unipc(flow, near, order=order).weights).abs().max()))
    assert gaps[1] < 1e-10 if order == 1 else gaps[1] < 0.7 * gaps[0]
    half = float(at.carry[1]) * float(flow.alpha(times[1])) / 2
    assert float(at.weights[1, 0]) == pytest.approx(-half, rel=1e-12)
    assert bool((at.weights[2:, 0] == 0).all())


def test_the_first_correction_by_bh1_grows_with_the_start_and_is_exact_without_signal() -> None:
    flow = RectifiedFlow()
    times = grids.uniform(flow, 5)
    near = torch.cat([torch.tensor([1 - 1e-13], dtype=torch.float64), times[1:]])
    at, late = (solvers.unipc(flow, t, order=1, variant="bh1") for t in (times, near))
    assert float(late.weights[1].abs().max()) > 2
    gain = float(at.carry[1]) * float(flow.alpha(times[1]))
    own = float(solvers.ddim(flow, times).weights[1, 1])
    np.testing.assert_allclose(at.weights[1, :2], [-gain, own + gain], rtol=1e-12)


def test_another_variant_is_refused() -> None:
    with pytest.raises(InvalidInput, match="variant must be 'bh1' or 'bh2', got 'bh3'"):
        solvers.unipc(EDM(), uneven(EDM()), variant="bh3")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="order must be at least 1, got 0"):
        solvers.unipc_noise(EDM(), uneven(EDM()), order=0)


@every_table
@every_output
@every_order
@pytest.mark.parametrize(("variant", "end"), [("bh1", "sigma_min"), ("bh2", "sigma_min"), ("bh2", "zero")])
def test_diffusers_on_data_predictions(table: str, output: str, variant: Any, order: int, end: str) -> None:
    process, steps = TABLES[table][0], 7
    made = scheduler(
        "UniPCMultistepScheduler", table, output, steps, solver_order=order, solver_type=variant, final_sigmas_type=end
    )
    times = index_times(made.timesteps, 0.0 if end == "zero" else 1 / 1000)
    plan = solvers.unipc(process, times, order=order, variant=variant, final_order=1)
    compare(plan, made, output)


@every_table
@every_output
@every_variant
@every_order
def test_diffusers_on_noise_predictions(table: str, output: str, variant: Any, order: int) -> None:
    process, steps = TABLES[table][0], 7
    settings = {"solver_order": order, "solver_type": variant, "predict_x0": False, "final_sigmas_type": "sigma_min"}
    made = scheduler("UniPCMultistepScheduler", table, output, steps, **settings)
    times = index_times(made.timesteps, 1 / 1000)
    plan = solvers.unipc_noise(process, times, order=order, variant=variant, final_order=1)
    compare(plan, made, output)


@every_order
@pytest.mark.parametrize(("corrector", "final_order"), [(False, 1), (True, None), (False, None)])
def test_diffusers_without_corrector_or_at_full_order(order: int, corrector: bool, final_order: int | None) -> None:
    steps = 6
    settings = {"disable_corrector": [] if corrector else list(range(steps)), "lower_order_final": final_order == 1}
    settings |= {"solver_order": order, "final_sigmas_type": "sigma_min"}
    made = scheduler("UniPCMultistepScheduler", "linear", "epsilon", steps, **settings)
    times = index_times(made.timesteps, 1 / 1000)
    plan = solvers.unipc(TABLES["linear"][0], times, order=order, corrector=corrector, final_order=final_order)
    compare(plan, made, "epsilon")


@every_order
def test_diffusers_on_flows(order: int) -> None:
    """Its flows start at ``sigma = 1 - 1e-6``; its step without noise at the end is ours."""
    flow, steps = RectifiedFlow(), 6
    settings = {"use_flow_sigmas": True, "flow_shift": 3.0, "solver_order": order}
    made = scheduler("UniPCMultistepScheduler", "linear", "flow_prediction", steps, **settings)
    times = made.sigmas.double()
    assert float(times[0]) < 1
    made.sigmas = times
    outputs, x = recorded(steps)
    plan = solvers.unipc(flow, times, order=order, final_order=1)
    found = plan.run(Replay([m.double() for m in outputs], flow, FlowVelocity()), x.double()).x
    agree(found, theirs(made, outputs, x))


def compare(plan: Plan, made: Any, output: str) -> None:
    outputs, x = recorded(plan.calls)
    agree(ours(plan, outputs, x, output), theirs(with_levels(made, plan.process, plan.times), outputs, x))
