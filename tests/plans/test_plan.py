"""Plans as data: what they refuse, conversion, canonical form, equality, files, text and picture."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from isocline._core.errors import BadFile, DataMissing, InvalidInput
from isocline._core.estimate import Estimate
from isocline.plans import Plan, Provenance, grids, solvers
from isocline.plans.canonical import Canonical
from isocline.processes import (
    EDM,
    Data,
    FlowVelocity,
    GaussianProcess,
    Noise,
    Parameterisation,
    PoissonFlow,
    RectifiedFlow,
    Tabulated,
    VariancePreserving,
)
from tests.plans.helpers import PARAMETERISATIONS, PROCESSES, Replay, normal, random_plan, simulate

VP = VariancePreserving()
seeds = st.integers(0, 10**6)
column = torch.tensor
columns = ("times", "nodes", "model_times", "carry", "weights", "noise", "evaluate")


def changed(name: str, change: Callable[[Tensor], Tensor]) -> Plan:
    plan = random_plan(1, 3)
    return replace(plan, **{name: change(getattr(plan, name).clone())})


def put(value: float, *index: int) -> Callable[[Tensor], Tensor]:
    def change(x: Tensor) -> Tensor:
        x[index] = value
        return x

    return change


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("times", lambda x: x[:-1], r"3 rows needs times of shape \(4,\), got \(3,\)"),
        ("model_times", lambda x: x[:-1], r"model_times of shape \(3,\), got \(2,\)"),
        ("weights", lambda x: x[:2], r"weights of shape \(3, 3\), got \(2, 3\)"),
        ("noise", lambda x: x[None], r"noise of shape \(3,\), got \(1, 3\)"),
        ("evaluate", lambda x: x[:1], r"evaluate of shape \(3,\), got \(1,\)"),
        ("carry", lambda x: x[:0], "at least one row"),
        ("carry", lambda x: x[0], "at least one row"),
        ("carry", lambda x: x[:, None], r"weights of shape \(3, 3, 1\), got \(3, 3\)"),
        ("carry", lambda x: x.float(), "carry must be float64, got torch.float32"),
        ("evaluate", lambda x: x.long(), "evaluate must be bool"),
        ("nodes", lambda x: x.flip(0), r"nodes must be strictly decreasing from noise to data, got \["),
        ("nodes", lambda x: x[[0, 1, 1, 2]], "nodes must be strictly decreasing"),
        ("nodes", lambda x: x[:1], "nodes must be strictly decreasing"),
        ("nodes", lambda x: x[None], "nodes must be strictly decreasing"),
        ("weights", put(0.1, 0, 2), "weights must be lower triangular"),
        ("times", put(math.nan, 2), "times must be finite; row 2 is not"),
        ("nodes", put(math.inf, 0), "nodes must be finite; row 0 is not"),
        ("model_times", put(math.nan, 1), "model_times must be finite; row 1 is not"),
        ("carry", put(math.inf, 2), "carry must be finite; row 2 is not"),
        ("weights", put(math.nan, 2, 0), "weights must be finite; row 2 is not"),
        ("noise", put(-math.inf, 1), "noise must be finite; row 1 is not"),
        ("evaluate", put(False, 0), "weights must be zero on rows that make no network call"),
    ],
)
def test_a_plan_proves_itself(name: str, change: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        changed(name, change)


def test_times_may_repeat_or_rise() -> None:
    for times in ([0.9, 0.5, 0.5, 0.1], [0.9, 0.3, 0.6, 0.1]):
        plan = changed("times", lambda x, times=times: column(times, dtype=torch.float64))
        assert plan.times.tolist() == times


@settings(max_examples=60, deadline=None)
@given(seed=seeds, rows=st.integers(1, 6), noisy=st.booleans(), silent=st.booleans())
def test_the_canonical_form_is_what_the_rows_do(seed: int, rows: int, noisy: bool, silent: bool) -> None:
    plan = random_plan(seed, rows, noisy=noisy, silent=silent)
    outputs, noise = (
        [normal(2, seed=seed + i) for i in range(rows)],
        [normal(2, seed=seed + 9 + i) for i in range(rows)],
    )
    x = normal(2, seed=seed + 99)
    form = plan.canonical()
    for i, state in enumerate(simulate(plan, outputs, x, noise)):
        unrolled = form.start[i] * x
        unrolled = unrolled + sum(float(form.outputs[i, j]) * outputs[j] for j in range(rows))
        unrolled = unrolled + sum(float(form.noises[i, j]) * noise[j] for j in range(rows))
        torch.testing.assert_close(unrolled, state, rtol=1e-11, atol=1e-11)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, rows=st.integers(1, 6), noisy=st.booleans(), silent=st.booleans())
def test_rows_come_back_from_the_canonical_form(seed: int, rows: int, noisy: bool, silent: bool) -> None:
    plan = random_plan(seed, rows, noisy=noisy, silent=silent)
    carry, weights, noise = plan.canonical().rows()
    torch.testing.assert_close(carry, plan.carry, rtol=1e-12, atol=0)
    torch.testing.assert_close(weights, plan.weights, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(noise, plan.noise, rtol=1e-10, atol=1e-10)


def test_dropping_rounding_keeps_the_gradient_of_a_zero_entry() -> None:
    """A tuner may start from a weight that is 0: its value stays 0, its derivative must not."""
    plan = random_plan(3, 3)
    weights = plan.weights.clone().requires_grad_()

    def rows(weights: Tensor) -> Tensor:
        return Canonical.of_rows(plan.carry, torch.tril(weights), plan.noise).rows()[1]

    derivative = torch.autograd.functional.jacobian(rows, weights)
    lower = torch.tril(torch.ones(3, 3, dtype=torch.float64))
    torch.testing.assert_close(derivative.reshape(9, 9), torch.diag(lower.flatten()), rtol=1e-10, atol=1e-10)


def test_a_state_that_forgets_the_start_has_no_row_form() -> None:
    form = random_plan(0, 3).canonical()
    with pytest.raises(InvalidInput, match="forgets the start"):
        replace(form, start=form.start * column([1.0, 0.0, 1.0, 1.0])).rows()
    assert len(replace(form, start=form.start * column([1.0, 1.0, 1.0, 0.0])).rows()) == 3


@settings(max_examples=80, deadline=None)
@given(
    seed=seeds,
    rows=st.integers(1, 5),
    process=st.sampled_from(PROCESSES),
    path=st.lists(st.sampled_from(PARAMETERISATIONS), min_size=1, max_size=4),
    silent=st.booleans(),
)
def test_conversion_there_and_back_is_the_same_plan(
    seed: int, rows: int, process: GaussianProcess, path: list[Parameterisation], silent: bool
) -> None:
    plan = random_plan(seed, rows, process=process, silent=silent)
    found = plan
    for parameterisation in path:
        found = found.convert(parameterisation)
        assume(float(found.canonical().start.abs().min()) > 1e-2)
        assume(float(found.canonical().outputs.abs().max()) < 1e3)
    back = found.convert(Data())
    torch.testing.assert_close(back.carry, plan.carry, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(back.weights, plan.weights, rtol=1e-6, atol=1e-6)
    assert torch.equal(back.evaluate, plan.evaluate)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, rows=st.integers(1, 5), process=st.sampled_from(PROCESSES), to=st.sampled_from(PARAMETERISATIONS))
def test_a_converted_plan_does_the_same_with_converted_outputs(
    seed: int, rows: int, process: GaussianProcess, to: Parameterisation
) -> None:
    """The outputs the network would have given in the other form follow from the states of a naive simulation."""
    plan = random_plan(seed, rows, process=process)
    outputs, x = [normal(3, seed=seed + i) for i in range(rows)], normal(3, seed=seed + 50)
    states = simulate(plan, outputs, x)
    dx, dm = to.from_data(process, plan.times[:-1])
    told = [dx[i] * states[i] + dm[i] * outputs[i] for i in range(rows)]
    converted = plan.convert(to)
    assume(float(converted.carry.abs().min()) > 1e-3)
    assume(float(converted.canonical().start.abs().min()) > 1e-3)
    assume(float(converted.weights.abs().max()) < 1e3)
    scale = 1 + max(float(s.abs().max()) for s in states + told)
    for found, state in zip(simulate(converted, told, x), states, strict=True):
        assert float((found - state).abs().max()) < 1e-7 * scale


def test_conversion_where_the_output_is_undefined_is_refused() -> None:
    flow = RectifiedFlow()
    plan = solvers.ddim(flow, grids.uniform(flow, 3))
    with pytest.raises(InvalidInput, match=r"Noise outputs are undefined.*start a little later"):
        plan.convert(Noise())
    assert plan.convert(FlowVelocity()).convert(Data()).equivalent(plan)
    assert plan.convert(Data()) is plan


def test_a_stochastic_multistep_plan_stays_in_its_form_but_runs_with_any_network() -> None:
    plan = random_plan(2, 4, noisy=True)
    with pytest.raises(InvalidInput, match="earlier noises in this parameterisation"):
        plan.convert(Noise())
    outputs, x, noise = (
        [normal(2, seed=i) for i in range(4)],
        normal(2, seed=8),
        [normal(2, seed=20 + i) for i in range(4)],
    )
    states = simulate(plan, outputs, x, noise)
    dx, dm = Noise().from_data(VP, plan.times[:-1])
    told = [dx[i] * states[i] + dm[i] * outputs[i] for i in range(4)]
    found = plan.run(Replay(told, VP, Noise()), x, noise=noise).x
    torch.testing.assert_close(found, states[-1], rtol=1e-9, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, rows=st.integers(1, 5), noisy=st.booleans())
def test_equality_is_sameness_of_effect(seed: int, rows: int, noisy: bool) -> None:
    plan = random_plan(seed, rows, noisy=noisy)
    assert plan == replace(plan, provenance=Provenance("another name"))
    if not noisy:
        assert plan == plan.convert(Noise())
    for name in ("times", "model_times", "carry"):
        other = replace(plan, **{name: getattr(plan, name) * (1 + 1e-6)})
        assert plan != other
        assert not plan.equivalent(other)
        assert plan.equivalent(other, 1e-3)
    assert plan != replace(plan, weights=plan.weights + 1e-6 * torch.eye(rows, dtype=torch.float64))
    assert plan != replace(plan, process=EDM())
    assert plan != plan.for_guidance(2.0)
    assert plan.equivalent(plan.for_guidance(2.0))
    assert plan != random_plan(seed, rows + 1)
    assert plan != "a plan"


def test_plans_are_not_hashable() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(random_plan(0))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=seeds,
    rows=st.integers(1, 6),
    process=st.sampled_from([*PROCESSES, Tabulated.linear_betas(20)]),
    parameterisation=st.sampled_from(PARAMETERISATIONS),
    noisy=st.booleans(),
    silent=st.booleans(),
    guidance=st.floats(-5, 20),
    scale=st.floats(1e-300, 1e300),
)
def test_files_keep_every_bit(
    tmp_path: Path,
    seed: int,
    rows: int,
    process: GaussianProcess,
    parameterisation: Parameterisation,
    noisy: bool,
    silent: bool,
    guidance: float,
    scale: float,
) -> None:
    plan = random_plan(
        seed, rows, process=process, parameterisation=parameterisation, noisy=noisy, silent=silent
    ).for_guidance(guidance)
    plan = replace(plan, weights=plan.weights * scale)
    back = Plan.load(plan.save(tmp_path / "plan.json"))
    for name in columns:
        assert torch.equal(getattr(back, name), getattr(plan, name)), name
    assert (back.process, back.parameterisation, back.guidance) == (process, parameterisation, guidance)
    assert back.provenance == plan.provenance


def test_files_keep_the_provenance(tmp_path: Path) -> None:
    origin = Provenance("tuned", "2405.15506", {"steps": 3}, Estimate(0.5, 0.4, 0.6, n=100), {"calls": 12.0}, "0.0.1")
    plan = replace(random_plan(0), provenance=origin)
    assert Plan.load(plan.save(tmp_path / "plan.json")).provenance == origin


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    path = random_plan(1, 3).save(tmp_path / "plan.json")
    return path, json.loads(path.read_text())


def drop(*keys: str) -> Callable[[dict[str, Any]], Any]:
    def change(d: dict[str, Any]) -> Any:
        target = d
        for key in keys[:-1]:
            target = target[key]
        del target[keys[-1]]
        return d

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: [1, 2], "does not say that it holds an isocline plan"),
        (lambda d: d | {"format": "picture"}, "does not say that it holds an isocline plan"),
        (lambda d: d | {"version": 3}, r"format version 3, this isocline reads up to 2; update isocline"),
        (lambda d: d | {"version": "new"}, "not a usable plan"),
        (drop("version"), "version"),
        (drop("rows"), "rows"),
        (lambda d: d | {"rows": []}, "not a usable plan"),
        (lambda d: d | {"rows": 3}, "not a usable plan"),
        (lambda d: d | {"rows": ["a"]}, "not a usable plan"),
        (
            lambda d: d | {"rows": [{**r, "weights": r["weights"] + [1.0]} for r in d["rows"]]},
            "lower triangular|not a usable",
        ),
        (lambda d: d | {"rows": [{**r, "carry": None} for r in d["rows"]]}, "not a usable plan"),
        (lambda d: d | {"nodes": [0.1, 0.5]}, "strictly decreasing"),
        (lambda d: d | {"nodes": "abc"}, "not a usable plan"),
        (lambda d: d | {"parameterisation": "Nois"}, "Did you mean 'Noise'"),
        (lambda d: d | {"parameterisation": None}, "not a usable plan"),
        (lambda d: d | {"process": {"name": "EDN"}}, "Did you mean 'EDM'"),
        (lambda d: d | {"process": None}, "not a usable plan"),
        (lambda d: d | {"guidance": "strong"}, "not a usable plan"),
        (lambda d: d | {"guidance": None}, "not a usable plan"),
        (lambda d: d | {"provenance": None}, "not a usable plan"),
        (
            lambda d: d | {"provenance": {"method": "x", "error": {"value": 2.0, "low": 3.0, "high": 4.0}}},
            "low <= value",
        ),
    ],
)
def test_files_of_another_kind_are_refused(
    stored: tuple[Path, dict[str, Any]], change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    path, content = stored
    path.write_text(json.dumps(change(content)))
    with pytest.raises(BadFile, match=message) as caught:
        Plan.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_files_with_numbers_that_are_not_finite_are_refused(stored: tuple[Path, Any], number: str) -> None:
    path, content = stored
    text = json.dumps(content).replace(json.dumps(content["rows"][1]["carry"]), number)
    path.write_text(text)
    with pytest.raises(BadFile, match=r"NaN|Infinity|carry must be finite; row 1"):
        Plan.load(path)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.99))
def test_truncated_files_are_refused(stored: tuple[Path, Any], share: float) -> None:
    path, content = stored
    text = json.dumps(content, indent=1)
    path.write_text(text[: int(share * len(text))])
    with pytest.raises(BadFile, match="not a valid JSON file"):
        Plan.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"cannot read .*nothing\.json"):
        Plan.load(tmp_path / "nothing.json")


def test_the_text_says_what_the_plan_is() -> None:
    plan = replace(
        solvers.dpm_solver_pp_2m(EDM(), column([4.0, 2.0, 1.0], dtype=torch.float64)),
        provenance=Provenance("dpm_solver_pp_2m", error=Estimate(0.01, 0.009, 0.011)),
    )
    head, titles, first, second, end = plan.describe().splitlines()
    assert head == (
        "dpm_solver_pp_2m: 2 calls, Data, EDM(t_min=0.002, t_max=80), guidance 1, held-out error 0.01 [0.009, 0.011]"
    )
    assert titles.split() == ["row", "time", "told", "carry", "noise", "weights"]
    assert first.split() == ["0", "4", "4", "0.5", "0", "0:0.5"]
    assert second.split() == ["1", "2", "2", "0.5", "0", "0:-0.25", "1:0.75"]
    assert end.split() == ["end", "1"]


def test_the_text_marks_rows_without_a_call() -> None:
    plan = random_plan(1, 3, silent=True)
    assert plan.describe().splitlines()[3].split()[2] == "-"


def test_the_picture_shows_levels_and_weights() -> None:
    process = EDM()
    plan = solvers.dpm_solver_pp_2m(process, grids.karras(process, 4, end="zero"))
    plan = replace(plan, model_times=plan.model_times * 1.5)
    levels, weights = plan.plot().axes[:2]
    state, told = levels.get_lines()
    assert list(state.get_xdata()) == [0, 1, 2, 3]  # the clean end has no place on a log axis
    assert list(state.get_ydata()) == pytest.approx(plan.times[:-1].tolist())
    assert list(told.get_ydata()) == pytest.approx(plan.model_times.tolist())
    assert levels.get_yscale() == "log"
    image = torch.as_tensor(np.asarray(weights.get_images()[0].get_array()))
    torch.testing.assert_close(image.abs().sum(1), torch.ones(4, dtype=torch.float64))
    assert torch.equal(image.sign(), plan.weights.sign())
    assert "Data" in weights.get_xlabel()


def test_the_picture_leaves_out_rows_without_a_call() -> None:
    plan = random_plan(1, 4, silent=True)
    state, told = plan.plot().axes[0].get_lines()
    assert list(state.get_xdata()) == [0, 1, 2, 3, 4]
    assert list(told.get_xdata()) == [0, 2, 3]


def test_a_process_without_gaussian_increments_takes_deterministic_plans_only() -> None:
    process = PoissonFlow(D=4)
    times = grids.karras(process, 5)
    assert solvers.ddim(process, times).calls == 5
    with pytest.raises(InvalidInput, match=r"PoissonFlow.*no Gaussian increments.*deterministic solver"):
        solvers.ddim(process, times, eta=1.0)
