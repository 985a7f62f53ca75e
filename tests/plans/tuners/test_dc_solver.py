import json
from functools import cache

import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.plans import Plan, grids, solvers
from isocline.plans.tuners import Compensation, DCSolver, compensated, draw_noises, measure
from isocline.plans.tuners.dc_solver import Rules, next_state
from isocline.plans.tuners.least_squares import Student
from isocline.plans.tuners.paths import TeacherPaths
from isocline.processes import EDM, Data, Guided, Noise, VariancePreserving
from isocline.processes.exact import GaussianMixture
from tests.plans.helpers import Told

PROCESS = EDM()
RATIOS = [1.0, 1.0, 1.3, 0.8, -0.2, 1.7]


class Labelled(GaussianMixture):
    """The exact denoiser of a mixture whose component k has the label k mod 3; the condition is a label."""

    def forward(self, x, t, cond=None):
        if cond is None:
            return super().forward(x, t)
        flat, alpha, sigma = self._flat(x, t, None)
        joint, var = self._joint(flat, alpha, sigma)
        other = torch.arange(len(self.weights)) % 3 != cond[:, None]
        share = torch.softmax(joint.masked_fill(other, -torch.inf), -1)
        gain = alpha * self.stds**2 / var
        return (share * gain).sum(-1, keepdim=True) * flat + (share * (sigma**2 / var)) @ self.means


@cache
def guided(scale, process=PROCESS):
    return Guided(Labelled.smooth_bed(process), scale)


@cache
def calibrate(model, seed, sizes=(32, 32, 128), end="t_min"):
    process = model.process
    teacher = solvers.exponential_adams(process, grids.log_snr(process, 100, end=end)).for_guidance(model.guidance)
    labels = (lambda n: torch.arange(n) % 3) if isinstance(model, Guided) else None
    return draw_noises(teacher, model, (8,), sizes, Stream(seed), cond=labels, batch=512, dtype=torch.float64)


def unipc(calls, model=None, grid=grids.karras, **options):
    process = PROCESS if model is None else model.process
    return solvers.unipc(process, grid(process, calls), **options).for_guidance(
        1.0 if model is None else model.guidance
    )


def error(plan, model, calibration):
    return measure(plan, model, calibration.held_out).rms()


def naive_step(x, s, t, buffer, fresh=None):
    """UniPC-2 (bh2) from level s to t, for EDM: predicted, or corrected with the output at t; `buffer` holds (level, output)."""
    h = torch.log(s / t)
    newest = buffer[-1][1]
    base = t / s * x + (1 - t / s) * newest
    phi1 = torch.expm1(-h)
    old = [((torch.log(s / q)) / h, m - newest) for q, m in buffer[-2:-1]]
    if fresh is None:
        return base - phi1 * sum(0.5 * d / r for r, d in old) if old else base
    if not old:
        return base - phi1 * 0.5 * (fresh - newest)
    r, d = old[0]
    phi2 = phi1 / -h - 1
    phi3 = phi2 / -h - 0.5
    matrix = torch.stack([torch.ones(2, dtype=x.dtype), torch.stack([r, torch.ones_like(r)])])
    rho = torch.linalg.solve(matrix, torch.stack([phi2 / phi1, 2 * phi3 / phi1]))
    return base - phi1 * (rho[0] * d / r + rho[1] * (fresh - newest))


def naive_compensation(buffer, ratio):
    (a, u), (b, v), (c, w) = buffer[-3:]
    t = ratio * c + (1 - ratio) * b
    return (
        (t - b) * (t - c) / ((a - b) * (a - c)) * u
        + (t - a) * (t - c) / ((b - a) * (b - c)) * v
        + (t - a) * (t - b) / ((c - a) * (c - b)) * w
    )


def naive(times, model, x, cond, ratios, keep=True):
    """The published loop; `keep` leaves replaced outputs in the buffer. Returns the result and all corrected states."""
    buffer, corrected, n = [], [x], len(times) - 1
    for i in range(n):
        if i == 0:
            buffer.append((times[0], model(x, times[0], cond)))
        own = buffer[-1]
        if len(buffer) > 2:
            buffer[-1] = (own[0], naive_compensation(buffer, ratios[i]))
        predicted = naive_step(x, times[i], times[i + 1], buffer)
        if i + 1 == n:
            return predicted, corrected
        fresh = model(predicted, times[i + 1], cond)
        x = naive_step(x, times[i], times[i + 1], buffer, fresh)
        corrected.append(x)
        buffer[-1] = buffer[-1] if keep else own
        buffer.append((times[i + 1], fresh))
    raise AssertionError


def test_the_compensated_plan_is_the_published_loop():
    model = guided(3.0)
    held_out = calibrate(model, 0).held_out
    plan = compensated(unipc(6, model), RATIOS)
    found = plan.run(model, held_out.x, cond=held_out.cond).x
    expected, _ = naive(plan.times, model, held_out.x, held_out.cond, RATIOS)
    forgetful, _ = naive(plan.times, model, held_out.x, held_out.cond, RATIOS, keep=False)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)
    assert float((forgetful - expected).abs().max()) > 0.01


@pytest.mark.parametrize("process", [PROCESS, VariancePreserving()])
@pytest.mark.parametrize("end", ["t_min", "zero"])
@pytest.mark.parametrize("solver", [solvers.unipc, solvers.unipc_noise])
def test_ratios_of_one_change_nothing_and_others_keep_constant_predictions_exact(process, end, solver):
    for options in ({}, {"order": 3}, {"variant": "bh1", "final_order": 1}):
        base = solver(process, grids.log_snr(process, 6, end=end), **options)
        assert compensated(base, [1.0] * 6).equivalent(base)
        other = compensated(base, RATIOS)
        assert not other.equivalent(base, tolerance=1e-3)
        kind = Data() if solver is solvers.unipc else Noise()
        constant = Told(lambda x, t: torch.full_like(x, 0.7), process, kind)
        x = process.sigma(base.times[0]) * Stream(0).normal((4, 8), dtype=torch.float64) + 0.7 * process.alpha(
            base.times[0]
        )
        torch.testing.assert_close(other.run(constant, x).x, base.run(constant, x).x, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("end", ["t_min", "zero"])
def test_the_next_state_is_the_corrected_one(end):
    model = guided(3.0)
    noises = calibrate(model, 0).train
    base = solvers.unipc(PROCESS, grids.karras(PROCESS, 6, end=end)).for_guidance(3.0)
    rules, student = Rules(base), Student(compensated(base, RATIOS), model, noises, 16)
    found = [next_state(student, rules, RATIOS[: row + 1]) for row in student.rows()]
    if end == "zero":  # the loop above has no step to 0
        last, times = found.pop(), torch.cat([base.times[:-1], base.times[-2:-1] / 3])
        torch.testing.assert_close(last, student.states[-1])
    else:
        times = base.times
    result, corrected = naive(times, model, noises.x, noises.cond, RATIOS)
    expected = torch.stack([*corrected[1:], *([result] if end == "t_min" else [])])
    torch.testing.assert_close(torch.stack(found), expected, rtol=1e-8, atol=1e-8)


def error_of_adam(student, rules, before, target, model):
    """The authors' search: 40 steps of AdamW at 0.1 through the network, on the published loop. Returns the least error met."""
    ratio = torch.ones((), dtype=torch.float64, requires_grad=True)
    optimizer, errors = torch.optim.AdamW([ratio], lr=0.1), []
    times, row = rules.times, student.row
    for _ in range(40):
        optimizer.zero_grad()
        result, corrected = naive(times, model, student.noises.x, student.noises.cond, [*before, ratio] + [1.0] * 9)
        reached = corrected[row + 1] if row + 1 < len(corrected) else result
        loss = (reached - target).square().mean()
        loss.backward()
        optimizer.step()
        errors.append(loss.item())
    return min(errors)


@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_the_search_along_the_line_is_no_worse_than_forty_steps_of_adam(scale):
    model = guided(scale)
    noises, base = calibrate(model, 0, (16, 16, 16)).train, unipc(4, model)
    rules, student, ratios = Rules(base), Student(base, model, noises, 16), [1.0, 1.0]
    targets = TeacherPaths(model, noises, 10).at(base.times)
    for row in student.rows():
        if row >= 2:
            adam = error_of_adam(student, rules, ratios, targets[row + 1], model)
            ratios.append(DCSolver().ratio(student, rules, ratios, targets[row + 1]))
            reached = next_state(student, rules, ratios)
            assert float((reached - targets[row + 1]).square().mean()) <= 1.001 * adam, row
            student.plan = compensated(base, ratios + [1.0] * (3 - row))


@pytest.mark.parametrize("calls", [5, pytest.param(8, marks=pytest.mark.slow)])
def test_strong_guidance_gains_a_tenth_and_none_loses_nothing(calls):
    for seed in range(5):
        for scale, bar in ((7.5, 0.9), (1.0, 1.0)):
            model = guided(scale)
            calibration, base = calibrate(model, seed), unipc(calls, model)
            tuned = DCSolver(evaluations=8, substeps=5).fit(base, model, calibration, 0)
            assert error(tuned.plan, model, calibration) <= bar * error(base, model, calibration), (seed, scale)


@pytest.mark.slow
def test_ratios_predicted_for_another_scale_and_number_of_calls_keep_half_of_the_gain():
    tuner = DCSolver(evaluations=12)
    searched = []
    for scale in (2.0, 5.0, 8.0):
        model = guided(scale)
        for calls in (5, 8, 12):
            tuned = tuner.fit(unipc(calls, model), model, calibrate(model, 0, (16, 16, 2)), 0).plan
            searched.append((calls, scale, tuned.provenance.settings["ratios"]))
    model = guided(6.0)
    calibration, base = calibrate(model, 0), unipc(6, model)
    best = error(tuner.fit(base, model, calibration, 0).plan, model, calibration)
    before = error(base, model, calibration)
    predicted = error(compensated(base, Compensation.fit(searched).ratios(6, 6.0)), model, calibration)
    assert before - predicted >= 0.5 * (before - best) > 0


def test_a_compensation_finds_a_polynomial_of_its_family_and_is_plain_data():
    true = Stream(0).normal((3, 3, 3), dtype=torch.float64)

    def ratios(calls, scale):
        found = [1.0, 1.0]
        for step in range(3, calls + 1):
            powers = [
                torch.tensor([1.0, q, q * q], dtype=torch.float64) for q in (calls / 50, scale / 12, step / calls)
            ]
            found.append(float(torch.einsum("abc,a,b,c", true, *powers)))
        return found

    searched = [(n, w, ratios(n, w)) for n in (5, 9, 14, 20) for w in (1.0, 4.0, 7.5, 9.0)]
    fitted = Compensation.fit(searched)
    loaded = Compensation(json.loads(json.dumps(fitted.coefficients)))
    assert loaded.ratios(11, 6.0) == pytest.approx(ratios(11, 6.0), rel=1e-6)
    assert fitted.ratios(2, 6.0) == [1.0, 1.0]


def test_the_tuned_plan_survives_a_file_and_can_be_made_again_from_its_ratios(tmp_path):
    model = guided(7.5)
    calibration, base = calibrate(model, 0, (8, 8, 8)), unipc(5, model)
    tuned = DCSolver(evaluations=6).fit(base, model, calibration, 0).plan
    loaded = Plan.load(tuned.save(tmp_path / "plan.json"))
    x, cond = calibration.held_out.x, calibration.held_out.cond
    assert torch.equal(tuned.run(model, x, cond=cond).x, loaded.run(model, x, cond=cond).x)
    assert loaded.guidance == 7.5
    assert compensated(base, loaded.provenance.settings["ratios"]) == loaded


def test_calls_are_counted_time_is_kept_and_a_right_base_stays():
    model = GaussianMixture.smooth_bed(PROCESS)
    calibration, base = calibrate(model, 0, (8, 8, 8)), unipc(4)
    tuned = DCSolver(evaluations=5, substeps=3).fit(base, model, calibration, 0)
    assert tuned.cost.calls == 4 + 2 * 3 * 4 + 5 + 2 * 4  # the last step's trials need no call
    hurried = DCSolver().fit(base, model, calibration, 0, seconds=0.0)
    assert hurried.plan.equivalent(base)
    right = draw_noises(base, model, (8,), (8, 8, 8), Stream(0), dtype=torch.float64)
    kept = DCSolver(evaluations=5).fit(base, model, right, 0)
    assert kept.plan.equivalent(base)
    assert kept.plan.provenance.settings["ratios"] == [1.0] * 4
    assert kept.history[1][1] > kept.history[0][1] == 0


@pytest.mark.parametrize(("call", "message"), [
    (lambda c, m: compensated(unipc(4), [1.0] * 3), "4 steps need as many ratios, got 3"),
    (lambda c, m: compensated(unipc(4), [1.0, 0.5, 1.0, 1.0]), "the first two ratios must be 1"),
    (lambda c, m: compensated(solvers.ddim(PROCESS, grids.karras(PROCESS, 4)), [1.0] * 4), "got one of 'ddim'"),
    (lambda c, m: compensated(unipc(4, corrector=False), [1.0] * 4), "with its corrector"),
    (lambda c, m: DCSolver(reach=0.0), "reach must be positive"),
    (lambda c, m: DCSolver(evaluations=1), "evaluations >= 2"),
    (lambda c, m: DCSolver().fit(compensated(unipc(4), [1.0] * 4), m, c, 0), "start from a solver's plan"),
    (lambda c, m: Compensation.fit([(5, 2.0, [1.0] * 4)]), "5 calls have as many ratios, got 4"),
    (lambda c, m: Compensation.fit([(2, 2.0, [1.0] * 2)]), "at least 3 calls"),
    (lambda c, m: Compensation([[[1.0] * 3] * 3] * 2), r"of shape \(3, 3, 3\), got \(2, 3, 3\)"),
])  # fmt: skip
def test_bad_settings_and_bases_get_one_line(call, message):
    model = GaussianMixture.smooth_bed(PROCESS)
    with pytest.raises(InvalidInput, match=message) as caught:
        call(calibrate(model, 0, (2, 2, 2)), model)
    assert "\n" not in str(caught.value)
