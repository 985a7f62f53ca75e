import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.plans import Plan, grids, solvers, unroll
from isocline.plans.canonical import changed_output
from isocline.plans.grids.span import End
from isocline.plans.tuners import DSS, Calibration, NoiseSet, draw_noises, measure
from isocline.plans.tuners.dss import FlowPath
from isocline.plans.tuners.lion import Lion
from isocline.plans.tuners.sum_to_one import SumToOne, allowed, coordinates, in_data
from isocline.processes import (
    EDM,
    Data,
    FlowVelocity,
    GaussianProcess,
    Noise,
    Parameterisation,
    RectifiedFlow,
    VariancePreserving,
    VPrediction,
)
from isocline.processes.exact import GaussianMixture

PROCESS = EDM()
MODEL = GaussianMixture.smooth_bed(PROCESS, 0)
TEACHER = solvers.heun(PROCESS, grids.karras(PROCESS, 60))
FORMS: tuple[Parameterisation, ...] = (Data(), Noise(), FlowVelocity())
each_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)


def calibrate(seed: int = 0, sizes: tuple[int, int, int] = (32, 32, 256)) -> Calibration:
    return draw_noises(TEACHER, MODEL, (8,), sizes, Stream(seed), batch=512, dtype=torch.float64)


def base(calls: int = 10) -> Plan:
    return solvers.dpm_solver_pp_2m(PROCESS, grids.karras(PROCESS, calls))


def ratios(tuned: Plan, start: Plan, noises: NoiseSet) -> tuple[float, float]:
    """Return the ratio of the root mean squares and of the medians."""
    after, before = (measure(plan, MODEL, noises, batch=512) for plan in (tuned, start))
    return after.rms() / before.rms(), after.median().value / before.median().value


def test_acceptance_at_ten_calls() -> None:
    """A third of the base's root mean square and a tenth of its median."""
    calibration = calibrate()
    tuned = DSS(steps=60, batch=16, check_every=30).fit(base(), MODEL, calibration, 0).plan
    rms, median = ratios(tuned, base(), calibration.held_out)
    assert rms < 0.35
    assert median < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_acceptance_for_five_seeds(seed: int) -> None:
    calibration = calibrate(seed, (64, 64, 256))
    rms, median = ratios(DSS().fit(base(), MODEL, calibration, seed).plan, base(), calibration.held_out)
    assert rms < 0.35
    assert median < 0.1


BASES: tuple[tuple[GaussianProcess, Callable[..., Plan], End], ...] = (
    (EDM(), solvers.dpm_solver_pp_2m, "t_min"),
    (EDM(t_max=3.0), solvers.flow_adams, "zero"),
    (VariancePreserving(), solvers.rho_adams, "t_min"),
    (RectifiedFlow(), solvers.ddim, "zero"),
    (RectifiedFlow(), solvers.flow_adams, "t_min"),
    (RectifiedFlow(t_max=0.98), solvers.dpm_solver_pp_3m, "t_min"),
)


def students() -> list[SumToOne]:
    plans = [solver(process, grids.uniform(process, 7, end=end)) for process, solver, end in BASES]
    pairs = [(plan, form) for plan in plans for form in FORMS]
    return [
        SumToOne(plan, form) for plan, form in pairs if form != Noise() or float(plan.process.alpha(plan.times[0])) > 0
    ]


def stirred(student: SumToOne, seed: int = 0) -> SumToOne:
    """Return the student with random parameters."""
    with torch.no_grad():
        for k, parameter in enumerate(student.parameters()):
            parameter.add_(0.5 * Stream(seed).normal((1, *parameter.shape), step=k, dtype=torch.float64)[0])
    return student


def test_zero_is_the_base_whichever_predictions_are_combined() -> None:
    found = students()
    assert len(found) == 6 * 3 - 2
    for student in found:
        assert student().equivalent(student.base, tolerance=1e-8), (student.base.provenance, student.form)


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_constant_predictions_are_sampled_exactly_for_any_parameters(seed: int) -> None:
    """With D the same in all rows the end is ``(sigma' / sigma) x + (alpha' - alpha sigma' / sigma) D``."""
    for student in students():
        plan = stirred(student, seed)()
        alpha, sigma = plan.process.alpha(plan.times), plan.process.sigma(plan.times)
        form = plan.canonical()
        shrink = sigma[-1] / sigma[0]
        torch.testing.assert_close(form.start[-1], shrink, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(form.outputs[-1].sum(), alpha[-1] - alpha[0] * shrink, rtol=1e-7, atol=1e-7)


@each_form
def test_weights_that_do_not_sum_to_one_would_miss_constant_predictions(form: Parameterisation) -> None:
    """The same rows without what the newest prediction gives up for the others."""
    student = stirred(SumToOne(base(7), form))
    share = student.start + student.allowed * student.weights.detach()
    share = share + torch.diag(1 - student.start.sum(1))
    scale, moved, dx, dm = coordinates(PROCESS, form, student.base.times)
    gain = moved[1:] - scale[1:] * (moved / scale)[:-1]
    carry, weights = in_data(scale[1:] / scale[:-1], gain[:, None] * share, dx, dm)
    wrong = solvers.rows.plan_of_rows(
        PROCESS, Data(), base(7).provenance, times=base(7).times, carry=carry, weights=weights
    )
    end, shrink = wrong.canonical(), float(PROCESS.t_min / PROCESS.t_max)
    assert max(abs(float(end.start[-1]) - shrink), abs(float(end.outputs[-1].sum()) - 1 + shrink)) > 1e-4


def naive(student: SumToOne, x: Tensor) -> Tensor:
    """Return the end of a run that combines predictions of the student's form as the module's docstring has it."""
    times, past = student.times().detach(), list[Tensor]()
    w = (student.start + student.allowed * student.weights).detach()
    for i in range(len(times) - 1):
        alpha, sigma = (float(f(times[i])) for f in (PROCESS.alpha, PROCESS.sigma))
        alpha_next, sigma_next = (float(f(times[i + 1])) for f in (PROCESS.alpha, PROCESS.sigma))
        clean = MODEL(x, times[i])
        noise = (x - alpha * clean) / sigma
        if isinstance(student.form, Data):
            m, c, c_next, q, q_next = clean, sigma, sigma_next, alpha / sigma, alpha_next / sigma_next
        elif isinstance(student.form, Noise):
            m, c, c_next, q, q_next = noise, alpha, alpha_next, sigma / alpha, sigma_next / alpha_next
        else:
            c, c_next = alpha + sigma, alpha_next + sigma_next
            m, q, q_next = noise - clean, sigma / c, sigma_next / c_next
        past.append(m)
        mean = m + sum(float(w[i, j]) * (past[j] - m) for j in range(i))
        x = c_next / c * x + c_next * (q_next - q) * mean
    return x


@each_form
@pytest.mark.parametrize("calls", [3, 7])
def test_runs_are_those_of_a_naive_loop(form: Parameterisation, calls: int) -> None:
    student = stirred(SumToOne(base(calls), form))
    x = PROCESS.terminal((4, 8), Stream(2), dtype=torch.float64)
    torch.testing.assert_close(student().run(MODEL, x).x, naive(student, x), rtol=1e-9, atol=1e-9)


def test_rows_in_data_are_those_of_the_general_conversion() -> None:
    carry, dx, dm = (1 + Stream(k).uniform((5,), dtype=torch.float64) for k in range(3))
    weights = Stream(4).normal((5, 5), dtype=torch.float64).tril()
    expected = changed_output(carry, weights, torch.zeros_like(carry), dx, dm).rows()
    for found, wanted in zip(in_data(carry, weights, dx, dm), expected, strict=False):
        torch.testing.assert_close(found, wanted)


def test_few_steps_reach_back_one_prediction_in_the_last_two_rows() -> None:
    assert allowed(6).sum(1).tolist() == [0, 1, 2, 3, 1, 1]
    assert bool(allowed(6)[4, 3])
    assert bool(allowed(6)[5, 4])
    assert allowed(7).sum(1).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert allowed(1).sum() == 0
    plan = stirred(SumToOne(base(6), Data()))()
    assert (plan.weights != 0).sum(1).tolist() == [1, 2, 3, 4, 2, 2]


def test_the_path_is_the_teachers_and_knows_its_time() -> None:
    """Paths of constant predictions are straight in ``(u, tau)``, so between nodes they are exact, and so is their slope."""
    process = VariancePreserving()
    clean, noise = (Stream(k).normal((3, 2), dtype=torch.float64) for k in range(2))
    times = torch.tensor([1.0, 0.7, 0.2, 0.01], dtype=torch.float64)
    states = torch.stack([process.alpha(t) * clean + process.sigma(t) * noise for t in times])
    path, index = FlowPath(process, times, states), torch.tensor([2, 0])
    for t in (0.99, 0.7, 0.5, 0.05, 0.01):
        tau = path.flow(torch.tensor(t, dtype=torch.float64))[0].requires_grad_()
        found = path.at(tau, index)
        torch.testing.assert_close(found, ((1 - tau) * clean + tau * noise)[index])
        (slope,) = torch.autograd.grad(found.sum(), tau)
        torch.testing.assert_close(slope, (noise - clean)[index].sum())
    between = [process.alpha(t) * clean[index] + process.sigma(t) * noise[index] for t in torch.linspace(1, 0.01, 5)]
    assert float(path.mismatch(torch.linspace(1, 0.01, 5, dtype=torch.float64), between, index)) < 1e-12
    assert float(path.mismatch(torch.linspace(1, 0.02, 5, dtype=torch.float64), between, index)) > 1e-6


def test_without_the_path_the_states_on_the_way_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end term alone leaves the student free to reach the end by another way."""
    calibration, tuner = calibrate(), DSS(steps=40, batch=8, rate=0.02)
    held = calibration.held_out.take(slice(0, 64))
    path = FlowPath.of_teacher(MODEL, base(5), held, 50)

    def strays(plan: Plan) -> float:
        with torch.no_grad():
            states = unroll(plan, MODEL, held.x)
            return float(FlowPath(PROCESS, *_nodes(path)).mismatch(plan.times[:-1], states[:-1], torch.arange(64)))

    def _nodes(path: FlowPath) -> tuple[Tensor, Tensor]:
        level = path.tau / (1 - path.tau)
        return level, path.u * (1 + level).reshape(-1, 1, 1)

    along = tuner.fit(base(5), MODEL, calibration, 0).plan
    monkeypatch.setattr(FlowPath, "mismatch", lambda self, times, states, index: 0 * states[-1].sum())
    astray = tuner.fit(base(5), MODEL, calibration, 0).plan
    monkeypatch.undo()
    assert strays(along) < 0.7 * strays(astray)


def test_lion_is_the_sign_of_momentum() -> None:
    p, q, m = torch.tensor([0.0, 0.0], dtype=torch.float64, requires_grad=True), [0.0, 0.0], [0.0, 0.0]
    optimizer = Lion([p], lr=0.1)
    for gradient in ([1.0, -0.01], [-0.05, 0.2], [-9.0, 0.0], [0.2, -0.3]):
        p.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        for k, g in enumerate(gradient):
            q[k] -= 0.1 * math.copysign(1, 0.9 * m[k] + 0.1 * g)
            m[k] = 0.99 * m[k] + 0.01 * g
    assert p.tolist() == pytest.approx(q)
    p.grad = None
    optimizer.step()
    assert p.tolist() == pytest.approx(q)


def test_every_call_is_counted() -> None:
    """Base and 2 checks, 4 steps, and a path of 6 Heun steps."""
    tuner = DSS(steps=4, batch=4, path_steps=6, check_every=2)
    assert tuner.fit(base(5), MODEL, calibrate(sizes=(8, 8, 8)), 0).cost.calls == 5 * (1 + 2 + 4) + 2 * 6


def test_what_cannot_be_combined_is_refused() -> None:
    calibration = calibrate(sizes=(8, 8, 8))
    flow = RectifiedFlow()
    with pytest.raises(InvalidInput, match="Noise rows need a start with signal"):
        SumToOne(solvers.ddim(flow, grids.uniform(flow, 4)), Noise())
    with pytest.raises(InvalidInput, match="got VPrediction"):
        DSS(form=VPrediction()).fit(base(5), MODEL, calibration, 0)
    with pytest.raises(InvalidInput, match="multi-stage"):
        DSS().fit(solvers.heun(PROCESS, grids.karras(PROCESS, 4)), MODEL, calibration, 0)
    with pytest.raises(InvalidInput, match="deterministic"):
        DSS().fit(solvers.ddim(PROCESS, grids.karras(PROCESS, 4), eta=1.0), MODEL, calibration, 0)
    bent = base(5)
    bent = solvers.rows.plan_of_rows(
        PROCESS, Data(), bent.provenance, times=bent.times, carry=bent.carry, weights=1.1 * bent.weights
    )
    with pytest.raises(InvalidInput, match="exact where predictions do not change"):
        DSS().fit(bent, MODEL, calibration, 0)
    with pytest.raises(InvalidInput, match="rate must be positive"):
        DSS(rate=0.0)
