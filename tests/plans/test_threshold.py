"""Dynamic thresholding: the formula, where a run applies it, what it means for conversion, files and equality, and diffusers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from isocline._core.errors import BadFile, InvalidInput
from isocline.plans import Plan, StepContext, Threshold, grids, solvers, unroll
from isocline.plans.runner import compiled
from isocline.plans.tuners.free import Free, FreePlan
from isocline.processes import EDM, Data, GaussianMixture, Noise, Parameterisation, VariancePreserving
from tests.plans.helpers import PARAMETERISATIONS, Replay, Told, normal, random_plan

VP = VariancePreserving()
TIGHT = Threshold(quantile=0.6, floor=0.5)
close = torch.testing.assert_close


def naive(data: Tensor, quantile: float, floor: float, cap: float | None) -> Tensor:
    """Threshold entry by entry, with NumPy's quantile."""
    result = np.empty(data.shape)
    for b, sample in enumerate(data.double().numpy()):
        q = max(float(np.quantile(np.abs(sample), quantile)), floor)
        q = q if cap is None else min(q, cap)
        for place, value in np.ndenumerate(sample):
            result[(b, *place)] = max(-q, min(q, float(value))) * floor / q
    return torch.from_numpy(result)


def moved(x: Tensor, t: Tensor) -> Tensor:
    return 2 * torch.sin(x) + 0.3 * t.to(x.dtype)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    event=st.sampled_from([(), (1,), (7,), (3, 4, 5)]),
    quantile=st.floats(0.05, 1.0),
    floor=st.floats(0.1, 3.0),
    room=st.none() | st.floats(1.0, 3.0),
    scale=st.floats(0.1, 20.0),
)
def test_the_formula_agrees_with_a_loop_over_entries(
    seed: int, event: tuple[int, ...], quantile: float, floor: float, room: float | None, scale: float
) -> None:
    cap = None if room is None else floor * room
    data = scale * normal(3, *event, seed=seed)
    threshold = Threshold(quantile, floor, cap)
    found = threshold(data)
    close(found, naive(data, quantile, floor, cap), rtol=1e-12, atol=1e-12)
    assert float(found.abs().max()) <= floor * (1 + 1e-12)


def test_what_lies_in_range_is_not_touched() -> None:
    data = normal(5, 40, seed=1, dtype=torch.float32)
    data = data / data.abs().amax(1, keepdim=True)
    assert torch.equal(Threshold()(data), data)


def test_a_sample_does_not_see_its_batch() -> None:
    data = 3 * normal(6, 10, seed=2)
    whole = TIGHT(data)
    for b in range(6):
        assert torch.equal(TIGHT(data[b : b + 1]), whole[b : b + 1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_precision_stays(dtype: torch.dtype) -> None:
    data = 3 * normal(4, 33, seed=3)
    found = Threshold()(data.to(dtype))
    assert found.dtype == dtype
    close(found.double(), Threshold()(data.to(dtype).double()), rtol=2 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"quantile": 0.0}, r"quantile must lie in \(0, 1\], got 0"),
        ({"quantile": 1.5}, r"quantile must lie in \(0, 1\], got 1.5"),
        ({"quantile": float("nan")}, "quantile must be a finite number, got nan"),
        ({"floor": 0.0}, "floor must be positive, got 0"),
        ({"floor": float("inf")}, "floor must be a finite number"),
        ({"floor": "one"}, "floor must be a finite number, got 'one'"),
        ({"floor": 2.0, "cap": 1.0}, "cap must be at least its floor 2.0, got 1.0"),
        ({"cap": float("inf")}, "cap must be a finite number"),
    ],
)
def test_a_threshold_proves_itself(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Threshold(**given)


def test_a_plan_refuses_what_is_no_threshold() -> None:
    with pytest.raises(InvalidInput, match=r"threshold must be a Threshold or None, got 0\.995"):
        random_plan(0).with_threshold(0.995)  # type: ignore[arg-type]


@pytest.mark.parametrize("network_output", PARAMETERISATIONS, ids=str)
@pytest.mark.parametrize("solver", [solvers.dpm_solver_pp_2m, solvers.rho_adams, solvers.heun])
def test_a_run_equals_one_whose_network_thresholds(solver: Any, network_output: Parameterisation) -> None:
    """Whatever plan and network work with; `convert` and `unroll` too."""
    plan = solver(VP, grids.log_snr(VP, 6)).with_threshold(TIGHT)
    x = normal(5, 4)
    expected = solver(VP, grids.log_snr(VP, 6)).run(Told(lambda x, t: TIGHT(moved(x, t)), VP), x).x
    network = Told(moved, VP, network_output)
    close(plan.run(network, x).x, expected, rtol=1e-9, atol=1e-9)
    close(unroll(plan, network, x)[-1], expected, rtol=1e-9, atol=1e-9)
    converted = plan.convert(network_output)
    assert converted.threshold == TIGHT
    close(converted.run(network, x).x, expected, rtol=1e-8, atol=1e-8)
    assert float((plan.with_threshold(None).run(network, x).x - expected).abs().max()) > 0.1


@pytest.mark.parametrize("parameterisation", [Data(), Noise()], ids=str)
def test_run_and_unroll_agree_on_noisy_and_silent_rows(parameterisation: Parameterisation) -> None:
    plan = random_plan(5, 5, parameterisation=parameterisation, noisy=True, silent=True).with_threshold(TIGHT)
    x, noise = normal(3, 4), [normal(3, 4, seed=9 + i) for i in range(5)]
    for output in PARAMETERISATIONS:
        network = Told(moved, VP, output)
        found = plan.run(network, x, noise=noise, record=True)
        assert found.trajectory is not None
        close(found.trajectory, torch.stack(unroll(plan, network, x, noise=noise)), rtol=1e-10, atol=1e-10)


def test_transforms_see_the_thresholded_prediction() -> None:
    plan = solvers.ddim(VP, grids.log_snr(VP, 4)).with_threshold(TIGHT)
    x, seen = normal(3, 4), []

    def add(step: StepContext, x0: Tensor) -> Tensor:
        seen.append(float(x0.abs().max()))
        return x0 + 1

    found = plan.run(Told(moved, VP), x, transforms=[add]).x
    assert max(seen) <= 0.5 + 1e-12
    expected = plan.with_threshold(None).run(Told(lambda x, t: TIGHT(moved(x, t)) + 1, VP), x).x
    close(found, expected, rtol=1e-12, atol=1e-12)


def test_unroll_is_differentiable_through_the_threshold() -> None:
    base, x = random_plan(3, 3, parameterisation=Noise()).with_threshold(TIGHT), normal(2, 6)
    network = Told(moved, VP)

    def end(x: Tensor, weights: Tensor, times: Tensor) -> Tensor:
        plan = replace(base, weights=torch.tril(weights), times=times, model_times=times[:-1])
        return unroll(plan, network, x)[-1]

    free = tuple(v.clone().requires_grad_() for v in (x, base.weights, base.times))
    assert torch.autograd.gradcheck(end, free)


def test_a_tuned_plan_keeps_the_threshold_of_its_base() -> None:
    base = solvers.dpm_solver_pp_2m(VP, grids.log_snr(VP, 4)).with_threshold(TIGHT)
    assert FreePlan(base, Free())().threshold == TIGHT


def test_the_threshold_is_part_of_equality() -> None:
    plan = random_plan(1, 3)
    assert plan.with_threshold(TIGHT) == plan.with_threshold(Threshold(0.6, 0.5))
    assert plan != plan.with_threshold(TIGHT)
    assert plan.with_threshold(TIGHT) != plan.with_threshold(Threshold(0.7, 0.5))
    assert not plan.equivalent(plan.with_threshold(TIGHT))


def test_the_text_names_the_threshold() -> None:
    plan = random_plan(1, 3)
    assert "guidance 1, threshold at quantile 0.6, floor 0.5, cap 2" in replace(
        plan, threshold=Threshold(0.6, 0.5, 2.0)
    ).describe()  # fmt: skip
    assert "threshold" not in plan.describe()


@pytest.mark.parametrize("threshold", [None, Threshold(), Threshold(0.9, 0.25, 4.0)])
def test_files_keep_the_threshold(threshold: Threshold | None, tmp_path: Path) -> None:
    plan = random_plan(1, 3).with_threshold(threshold)
    back = Plan.load(plan.save(tmp_path / "plan.json"))
    assert back.threshold == threshold
    assert back == plan


def test_files_from_before_thresholds_load(tmp_path: Path) -> None:
    path = random_plan(1, 3).save(tmp_path / "plan.json")
    stored = json.loads(path.read_text())
    del stored["threshold"]
    path.write_text(json.dumps(stored))
    assert Plan.load(path) == random_plan(1, 3)


@pytest.mark.parametrize("stored", [0.995, {"quantile": 2.0}, {"percentile": 0.9}, {"floor": None}])
def test_a_damaged_threshold_is_refused(stored: Any, tmp_path: Path) -> None:
    path = random_plan(1, 3).save(tmp_path / "plan.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"threshold": stored}))
    with pytest.raises(BadFile, match="not a usable plan"):
        Plan.load(path)


def test_guidance_cannot_push_data_out_of_their_range() -> None:
    """Two points at +-1 in each coordinate, extrapolated as by guidance: without a threshold samples leave [-1, 1]."""
    process = EDM()
    means = torch.tensor([[-1.0, -1.0, 1.0], [1.0, 1.0, -1.0]], dtype=torch.float64)
    both = GaussianMixture(process, means, torch.full((2,), 0.05))
    one = GaussianMixture(process, means[1:], torch.full((1,), 0.05))
    guided = Told(lambda x, t: both(x, t) + 3 * (one(x, t) - both(x, t)), process)
    plan = solvers.dpm_solver_pp_2m(process, grids.karras(process, 10, end="zero"))
    x = process.terminal((64, 3), 0, dtype=torch.float64)
    assert float(plan.run(guided, x).x.abs().max()) > 1.05
    assert float(plan.with_threshold(Threshold()).run(guided, x).x.abs().max()) <= 1


def test_plans_without_a_threshold_run_the_rows_they_always_ran() -> None:
    """No transform is added, so conversions stay folded into the coefficients."""
    plan = solvers.ddim(VP, grids.log_snr(VP, 4))
    plan.run(Told(moved, VP, Noise()), normal(2, 3))
    assert list(plan._rows) == [(Noise(), True)]
    assert all(row.change is None for row in compiled(plan, Noise()))


@pytest.mark.parametrize("output", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(("ratio", "cap"), [(0.995, 1.0), (0.9, 3.0), (0.7, 1e6)])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_diffusers_thresholds_alike(output: str, ratio: float, cap: float, order: int) -> None:
    """T3: recorded outputs drive `DPMSolverMultistepScheduler(thresholding=True)` and our plan; see test_diffusers.py."""
    pytest.importorskip("diffusers", minversion="0.42")
    from tests.plans.solvers.test_diffusers import OUTPUTS, TABLES, agree, index_times, multistep, theirs, with_levels
    from tests.plans.solvers.test_diffusers import scheduler as made_scheduler

    process = TABLES["linear"][0]
    scheduler = made_scheduler(
        "DPMSolverMultistepScheduler", "linear", output, 8, solver_order=order,
        thresholding=True, dynamic_thresholding_ratio=ratio, sample_max_value=cap,
    )  # fmt: skip
    outputs = [normal(2, 5, 4, seed=10 + i, dtype=torch.float32) for i in range(8)]
    x = normal(2, 5, 4, dtype=torch.float32)
    times = index_times(scheduler.timesteps, 0.0)
    plan = multistep(order, process, times, 1).with_threshold(Threshold(ratio, 1.0, cap))
    network = Replay([m.double() for m in outputs], process, OUTPUTS[output])
    found = plan.run(network, x.double()).x
    agree(found, theirs(with_levels(scheduler, process, times), outputs, x))
    assert float(found.abs().max()) <= 1 + 1e-12
