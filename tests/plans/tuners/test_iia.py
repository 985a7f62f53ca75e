import math
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.plans import Plan, grids, solvers
from isocline.plans.threshold import Threshold
from isocline.plans.tuners import IIA, EndToEnd, NoiseSet, draw_noises, measure
from isocline.plans.tuners.least_squares import Student, solve, step_start
from isocline.plans.tuners.paths import refined
from isocline.processes import EDM, Data, Guided, Noise, RectifiedFlow, VariancePreserving
from isocline.processes.exact import GaussianMixture
from tests.plans.helpers import Told

PROCESS = EDM()
MODEL = GaussianMixture.smooth_bed(PROCESS, 0)
SMALL = (16, 16, 16)


@cache
def calibrate(seed, sizes=(64, 64, 256), model=MODEL, end="t_min", cond=None):
    times = grids.log_snr(model.process, 100, end=end)
    teacher = solvers.exponential_adams(model.process, times).for_guidance(model.guidance)
    return draw_noises(teacher, model, (8,), sizes, Stream(seed), batch=512, dtype=torch.float64, cond=cond)


def two_m(calls, **options):
    return solvers.dpm_solver_pp_2m(PROCESS, grids.karras(PROCESS, calls, **options))


def ddim(calls):
    return solvers.ddim(PROCESS, grids.karras(PROCESS, calls))


def gain(tuner, base, calibration):
    tuned = tuner.fit(base, MODEL, calibration, 0).plan
    return measure(tuned, MODEL, calibration.held_out).rms() / measure(base, MODEL, calibration.held_out).rms()


def naive(times, x, held_out, past, free_carry, substeps, sequential=True):
    """DDIM with features fitted by numpy, where the fitted steps lead, or, not `sequential`, where DDIM leads."""
    data = [x.numpy(), held_out.numpy()]
    base, seen = data[0], [[], [], []]
    for s, t in pairwise(times.tolist()):
        predicted = [MODEL(torch.from_numpy(v), torch.tensor(s)).numpy() for v in (*data, base)]
        fine = solvers.ddim(PROCESS, refined(PROCESS, s, t, substeps))
        fit_on = 0 if sequential else 2
        here = data[0] if sequential else base
        target = fine.run(MODEL, torch.from_numpy(here)).x.numpy()
        for kept, new in zip(seen, predicted, strict=True):
            kept.insert(0, new)

        def features(which, state, seen=seen):
            found = [new - old for new, old in pairwise(seen[which])][:past]
            return found + ([state - seen[which][0]] if free_carry else [])

        def step(state, prediction, s=s, t=t):
            return t / s * state + (1 - t / s) * prediction

        columns = [f.ravel() for f in features(fit_on, here)]
        missing = (target - step(here, predicted[fit_on])).ravel()
        shares = np.linalg.lstsq(np.stack(columns, 1), missing, rcond=None)[0] if columns else []
        pushed = [
            sum((c * f for c, f in zip(shares, features(k, data[k]), strict=True)), step(data[k], predicted[k]))
            for k in (0, 1)
        ]
        base, data = step(base, predicted[2]), pushed
    return torch.from_numpy(data[1])


@pytest.mark.parametrize("seed", range(5))
def test_a_free_carry_takes_a_fifth_off_dpm_solver_pp_and_two_fifths_off_ddim(seed):
    calibration = calibrate(seed)
    assert gain(IIA(past=1), two_m(10), calibration) < 0.8
    assert gain(IIA(past=1), ddim(10), calibration) < 0.6
    assert gain(IIA(), two_m(10), calibration) < 0.7


@pytest.mark.parametrize(("past", "free_carry"), [(1, False), (2, True)])
def test_the_fit_is_that_of_a_plain_loop(past, free_carry):
    calibration, times = calibrate(0, (32, 8, 8)), grids.karras(PROCESS, 5)
    tuned = IIA(past=past, free_carry=free_carry, ridge=0.0, substeps=4).fit(ddim(5), MODEL, calibration, 0).plan
    x = calibration.held_out.x
    expected = naive(times, calibration.train.x, x, past, free_carry, 4)
    torch.testing.assert_close(tuned.run(MODEL, x).x, expected, rtol=1e-7, atol=1e-7)
    elsewhere = naive(times, calibration.train.x, x, past, free_carry, 4, sequential=False)
    assert float((elsewhere - expected).square().mean().sqrt()) > 0.01


def test_for_gaussian_data_three_steps_are_thirty():
    model = GaussianMixture(PROCESS, torch.zeros(1, 8), torch.full((1,), 0.5))
    times = grids.karras(PROCESS, 3)
    calibration = calibrate(0, (4, 4, 4), model)
    tuned = IIA(ridge=0.0, substeps=10).fit(solvers.ddim(PROCESS, times), model, calibration, 0).plan
    inner = [refined(PROCESS, s, t, 10)[:-1] for s, t in pairwise(times.tolist())]
    fine = solvers.ddim(PROCESS, torch.cat([*inner, times[-1:]]))
    x = calibration.held_out.x
    torch.testing.assert_close(tuned.run(model, x).x, fine.run(model, x).x, rtol=1e-9, atol=1e-12)


def test_without_a_free_carry_constant_predictions_stay_exact():
    base, x = two_m(6), Stream(0).normal((4, 8), dtype=torch.float64) * 80
    plans = [IIA(free_carry=free).fit(base, MODEL, calibrate(0, SMALL), 0).plan for free in (False, True)]
    assert all(not torch.allclose(plan.weights, base.weights, rtol=1e-2) for plan in plans)
    constant = Told(lambda x, t: torch.full_like(x, 0.7), PROCESS)
    exact = [torch.allclose(plan.run(constant, x).x, base.run(constant, x).x, rtol=1e-10) for plan in plans]
    assert exact == [True, False]


def test_of_a_step_with_stages_only_the_end_changes():
    base = solvers.heun(PROCESS, grids.karras(PROCESS, 4, end="zero"))
    calibration = calibrate(0, end="zero")
    tuned = IIA().fit(base, MODEL, calibration, 0).plan
    before, rows = base.convert(Data()), [step_start(base, row) for row in range(7)]
    assert rows == [None, 0, None, 2, None, 4, 6]
    stages = [0, 2, 4]
    assert torch.equal(tuned.carry[stages], before.carry[stages])
    assert torch.equal(tuned.weights[stages], before.weights[stages])
    assert bool((tuned.carry[1::2] != before.carry[1::2]).all())
    assert measure(tuned, MODEL, calibration.held_out).rms() < 0.3 * measure(base, MODEL, calibration.held_out).rms()


@pytest.mark.parametrize("parameterisation", [Data(), Noise()])
@pytest.mark.parametrize("threshold", [None, Threshold()])
def test_the_student_walks_as_the_plan_runs(parameterisation, threshold):
    process = VariancePreserving()
    exact = GaussianMixture.smooth_bed(process)
    model = Told(lambda x, t: exact(x, t), process, parameterisation)
    plan = solvers.unipc(process, grids.log_snr(process, 5)).with_threshold(threshold)
    x = process.terminal((7, 8), 0, dtype=torch.float64)
    student = Student(plan, model, NoiseSet(x, None, x), batch=3)
    assert list(student.rows()) == [0, 1, 2, 3, 4]
    expected = plan.run(model, x, record=True).trajectory
    torch.testing.assert_close(torch.stack(student.states), expected, rtol=1e-9, atol=1e-9)


def test_flows_start_without_signal():
    flow = RectifiedFlow()
    model = GaussianMixture.smooth_bed(flow)
    teacher = solvers.dpm_solver_pp_2m(flow, grids.uniform(flow, 60))
    drawn = draw_noises(teacher, model, (8,), SMALL, Stream(0), dtype=torch.float64)
    base = solvers.dpm_solver_pp_2m(flow, grids.uniform(flow, 5))
    tuned = IIA().fit(base, model, drawn, 0).plan
    assert measure(tuned, model, drawn.held_out).rms() < 0.9 * measure(base, model, drawn.held_out).rms()


def test_guidance_and_conditions_go_with_the_noises_whatever_the_batch():
    class Shifted(GaussianMixture):
        def forward(self, x, t, cond=None):
            return super().forward(x, t) + (0 if cond is None else 0.1 * cond[:, None])

    inner = Shifted(PROCESS, MODEL.means, MODEL.stds, MODEL.weights)
    model = Guided(inner, 2.0)
    calibration = calibrate(0, SMALL, model, cond=lambda n: torch.arange(n) % 3)
    base = two_m(4).for_guidance(2.0)
    whole, split = (IIA(batch=batch).fit(base, model, calibration, 0).plan for batch in (16, 5))
    assert whole.guidance == 2.0
    torch.testing.assert_close(whole.weights, split.weights, rtol=1e-8, atol=1e-8)
    assert not torch.allclose(whole.weights, base.weights)


def test_what_is_never_looked_at_and_what_is_counted():
    calibration = calibrate(0, SMALL)
    poison = torch.full_like(calibration.held_out.x, math.nan)
    blind = replace(calibration, held_out=NoiseSet(poison, None, poison))
    tuner = IIA(substeps=5)
    tuned = tuner.fit(two_m(4), MODEL, calibration, 0)
    assert torch.equal(tuner.fit(two_m(4), MODEL, blind, 1).plan.weights, tuned.plan.weights)
    assert tuned.cost.calls == 4 * (5 + 1) + 2 * 4
    assert [step for step, _ in tuned.history] == [0, 4]


def test_a_base_that_is_right_is_kept_and_the_history_says_so():
    base = two_m(6)
    calibration = draw_noises(base, MODEL, (8,), SMALL, Stream(0), dtype=torch.float64)
    tuned = IIA().fit(base, MODEL, calibration, 0)
    assert tuned.plan.equivalent(base)
    assert tuned.history[0] == (0, 0.0)
    assert tuned.history[1][1] > 0


def test_no_time_leaves_the_base_and_a_little_some_of_it():
    calibration = calibrate(0, SMALL)
    assert IIA().fit(two_m(4), MODEL, calibration, 0, seconds=0.0).plan.equivalent(two_m(4))


def test_the_tuned_plan_survives_a_file(tmp_path):
    calibration = calibrate(0, SMALL)
    tuned = IIA().fit(two_m(5), MODEL, calibration, 0).plan
    loaded = Plan.load(tuned.save(tmp_path / "plan.json"))
    assert torch.equal(tuned.run(MODEL, calibration.held_out.x).x, loaded.run(MODEL, calibration.held_out.x).x)
    assert loaded.provenance.method == "IIA"
    assert loaded.provenance.settings["past"] == 2


def test_the_solution_is_that_of_numpy_and_survives_features_that_say_nothing():
    f = list(Stream(0).normal((3, 40), dtype=torch.float64).unbind(0))
    y = Stream(1).normal((40, 1), dtype=torch.float64)[:, 0]
    expected = np.linalg.lstsq(torch.stack(f, 1).numpy(), y.numpy(), rcond=None)[0]
    torch.testing.assert_close(solve(f, y, 0.0), torch.from_numpy(expected), rtol=1e-10, atol=1e-12)
    scaled = solve([1e-6 * f[0], *f[1:]], y, 0.1)
    torch.testing.assert_close(scaled * torch.tensor([1e-6, 1, 1]), solve(f, y, 0.1), rtol=1e-8, atol=1e-12)
    assert float(solve([f[0]], y, 1.0)) == pytest.approx(0.5 * float(solve([f[0]], y, 0.0)))
    twice = solve([f[0], f[0], 0 * f[1]], y, 0.0)
    torch.testing.assert_close(twice, solve([f[0]], y, 0.0) * torch.tensor([0.5, 0.5, 0.0]), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("call", "message"), [
    (lambda c: IIA(past=0, free_carry=False), "something to fit"),
    (lambda c: IIA(substeps=1), "substeps >= 2"),
    (lambda c: IIA(ridge=-1.0), "ridge >= 0"),
    (lambda c: IIA().fit(solvers.ddim(PROCESS, grids.karras(PROCESS, 4), eta=1.0), MODEL, c, 0), "deterministic"),
    (lambda c: IIA().fit(two_m(4, end="zero"), MODEL, c, 0), "compare plans with the same ends"),
    (
        lambda c: IIA().fit(EndToEnd(steps=1, batch=2).fit(two_m(4), MODEL, c, 0).plan, MODEL, c, 0),
        "cannot be compiled again; start from a solver's plan",
    ),
])  # fmt: skip
def test_bad_settings_and_bases_get_one_line(call, message):
    with pytest.raises(InvalidInput, match=message) as caught:
        call(calibrate(0, (2, 2, 2)))
    assert "\n" not in str(caught.value)
