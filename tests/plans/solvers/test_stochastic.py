"""What every solver in the list of stochastic ones must do, then what single ones owe beyond it.

Law: if the data are Gaussian, the data prediction is affine in the state, so every state of a plan is an affine function of the
start and the noises, and mean and variance of the samples follow from the canonical form, without sampling. For data that are one
point they must be those of the process, exactly, where a method has that property; otherwise their errors must fall with the
stated order. A Monte-Carlo run, drawn through the runner, must agree with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.plans import Plan, grids, solvers
from isocline.plans.canonical import changed_output
from isocline.plans.grids.span import End
from isocline.processes import (
    EDM,
    Data,
    FlowVelocity,
    GaussianMixture,
    GaussianProcess,
    RectifiedFlow,
    VarianceExploding,
    VariancePreserving,
    VPrediction,
)
from tests.contracts.stochastic_solvers import STOCHASTIC_SOLVERS, WINDOW, StochasticEntry
from tests.plans.helpers import PARAMETERISATIONS, PROCESSES, Replay, Told, normal

VP = VariancePreserving()
every_solver = pytest.mark.parametrize("entry", STOCHASTIC_SOLVERS, ids=str)
every_process = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)


def moments(plan: Plan, mean: float, std: float) -> tuple[float, float]:
    """Return mean and variance of a plan's samples of one coordinate, for ``N(mean, std^2)`` data and a start of exact law."""
    process, at = plan.process, plan.times[:-1]
    alpha, sigma = process.alpha(at), process.sigma(at)
    gain = alpha * std**2 / (alpha**2 * std**2 + sigma**2)  # D = mean + gain (x - alpha mean)
    dx, dm = plan.parameterisation.from_data(process, at)
    slope = torch.where(plan.evaluate, dx + dm * gain, 0.0)
    shift = torch.where(plan.evaluate, dm * (1 - gain * alpha) * mean, 0.0)
    law = changed_output(plan.carry, plan.weights, plan.noise, slope, shift)
    first_mean, first_variance = marginal(process, plan.times[0], mean, std)
    start = float(law.start[-1])
    variance = start**2 * first_variance + float(law.noises[-1].square().sum())
    return start * first_mean + float(law.outputs[-1].sum()), variance


def marginal(process: GaussianProcess, time: Tensor, mean: float, std: float) -> tuple[float, float]:
    """Return mean and variance of the process at `time`."""
    alpha, sigma = float(process.alpha(time)), float(process.sigma(time))
    return alpha * mean, (alpha * std) ** 2 + sigma**2


def uneven(process: GaussianProcess) -> Tensor:
    """Return times whose noise levels fall by uneven ratios."""
    return process.time_of_noise_level(torch.tensor([9.0, 7.0, 3.0, 1.4, 0.9, 0.25], dtype=torch.float64))


def small_bed(process: GaussianProcess) -> GaussianMixture:
    return GaussianMixture(process, normal(3, 2, seed=1), torch.tensor([0.5, 0.2, 0.9]))


def noises(plan: Plan, *shape: int) -> list[Tensor]:
    return [normal(*shape, seed=100 + i) for i in range(len(plan.carry))]


@pytest.mark.parametrize("entry", [e for e in STOCHASTIC_SOLVERS if e.exact_on_points], ids=str)
@every_process
@pytest.mark.parametrize("end", ["t_min", "zero"])
def test_point_data_keep_their_law(entry: StochasticEntry, process: GaussianProcess, end: End) -> None:
    if end == "zero" and float(process.sigma(0.0)) > 0:
        pytest.skip("this process has noise at time 0")
    plan = entry.compile(process, grids.karras(process, 7, end=end))
    assert plan.stochastic
    expected = marginal(process, plan.times[-1], 1.7, 0.0)
    assert moments(plan, 1.7, 0.0) == pytest.approx(expected, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("entry", [e for e in STOCHASTIC_SOLVERS if e.from_noise], ids=str)
@pytest.mark.parametrize("end", ["t_min", "zero"])
def test_a_start_from_pure_noise(entry: StochasticEntry, end: End) -> None:
    flow = RectifiedFlow()
    plan = entry.compile(flow, grids.uniform(flow, 6, end=end))
    if entry.exact_on_points:
        expected = marginal(flow, plan.times[-1], 1.7, 0.0)
        assert moments(plan, 1.7, 0.0) == pytest.approx(expected, rel=1e-12, abs=1e-12)
    z, x, mu = noises(plan, 2, 3), normal(2, 3), normal(2, 3, seed=1)
    found = [
        plan.run(Told(lambda x, t: torch.tanh(mu + x), flow, p), x, noise=z).x
        for p in (Data(), VPrediction(), FlowVelocity())
    ]
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("entry", [e for e in STOCHASTIC_SOLVERS if not e.from_noise], ids=str)
def test_a_start_without_signal_is_refused_where_the_noise_level_must_be_finite(entry: StochasticEntry) -> None:
    flow = RectifiedFlow()
    with pytest.raises(InvalidInput, match=r"finite noise level.*RectifiedFlow.*t_max"):
        entry.compile(flow, grids.uniform(flow, 4))


@every_solver
def test_times_must_fall(entry: StochasticEntry) -> None:
    with pytest.raises(InvalidInput, match=r"strictly decreasing.*\[1.0, 2.0\]"):
        entry.compile(EDM(), torch.tensor([1.0, 2.0]))
    with pytest.raises(InvalidInput, match="at least two times"):
        entry.compile(EDM(), torch.tensor([1.0]))


def law_errors(entry: StochasticEntry, process: GaussianProcess, steps: int, std: float) -> tuple[float, float]:
    """Return the errors of mean and variance at ``s = 0.1``, in units of ``alpha``, for a start at ``s = 50``."""
    ends = process.time_of_noise_level(torch.tensor([50.0, 0.1], dtype=torch.float64)).tolist()
    plan = entry.compile(process, grids.log_snr(process, steps, t_max=ends[0], t_min=ends[1]))
    alpha = float(process.alpha(plan.times[-1]))
    mean, variance = marginal(process, plan.times[-1], 1.3, std)
    found = moments(plan, 1.3, std)
    return (found[0] - mean) / alpha, (found[1] - variance) / alpha**2


@pytest.mark.parametrize("entry", [e for e in STOCHASTIC_SOLVERS if e.order is not None], ids=str)
@pytest.mark.parametrize("process", [VP, EDM()], ids=lambda p: type(p).__name__)
def test_the_law_converges_with_the_stated_order(entry: StochasticEntry, process: GaussianProcess) -> None:
    assert entry.order is not None
    if entry.levels_only and process is not VP:
        pytest.skip("noise levels alone decide: the numbers are those of the other process")
    coarse, fine = (law_errors(entry, process, steps, 0.6) for steps in (80, 160))
    assert abs(math.log2(abs(coarse[1] / fine[1])) - entry.order) < 0.15
    if abs(coarse[0]) > 1e-12:
        assert abs(math.log2(abs(coarse[0] / fine[0])) - entry.order) < 0.15


@pytest.mark.parametrize("entry", [e for e in STOCHASTIC_SOLVERS if e.levels_only], ids=str)
@every_process
def test_the_process_does_not_matter_between_equal_noise_levels(
    entry: StochasticEntry, process: GaussianProcess
) -> None:
    """In ``(y, s)`` all processes are one; the rest of the list uses process time or the scale of ``x`` on purpose."""
    results = []
    for kind in (EDM(), process):
        plan = entry.compile(kind, uneven(kind))
        x = normal(4, 2) * kind.alpha(plan.times[0])
        found = plan.run(small_bed(kind), x, noise=noises(plan, 4, 2)).x
        results.append(found / kind.alpha(plan.times[-1]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-9)


@every_solver
def test_what_the_network_outputs_does_not_matter(entry: StochasticEntry) -> None:
    plan, bed = entry.compile(VP, uneven(VP)), small_bed(VP)
    x, z = normal(4, 2), noises(plan, 4, 2)
    exact = plan.run(bed, x, noise=z).x
    for parameterisation in PARAMETERISATIONS:
        network = Told(lambda x, t: bed(x, t), VP, parameterisation)
        torch.testing.assert_close(plan.run(network, x, noise=z).x, exact, rtol=1e-9, atol=1e-9)
        if parameterisation == plan.parameterisation:
            continue
        if not entry.converts:
            with pytest.raises(InvalidInput, match="would need earlier noises"):
                plan.convert(parameterisation)
        else:
            dense = plan.convert(parameterisation)
            torch.testing.assert_close(dense.run(network, x, noise=z).x, exact, rtol=1e-8, atol=1e-8)


@every_solver
def test_each_step_calls_the_network_as_often_as_stated(entry: StochasticEntry) -> None:
    ends: tuple[End, End] = ("t_min", "zero")
    for end in ends:
        expected = entry.calls(5, end)
        plan = entry.compile(EDM(), grids.karras(EDM(), 5, end=end))
        network = Replay([normal(2, 3)] * expected, EDM(), Data())
        cost = plan.run(network, normal(2, 3, seed=1), rng=0).cost
        assert plan.calls == cost.calls == len(network.told) == expected
        assert torch.equal(plan.nodes, grids.karras(EDM(), 5, end=end))


@every_solver
def test_a_saved_plan_is_the_plan(entry: StochasticEntry, tmp_path: Path) -> None:
    plan = entry.compile(VP, uneven(VP))
    loaded = Plan.load(plan.save(tmp_path / "plan.json"))
    assert loaded == plan
    assert loaded.provenance == plan.provenance
    assert plan.provenance.method == entry.solver.__name__
    x = normal(3, 2)
    assert torch.equal(loaded.run(small_bed(VP), x, rng=3).x, plan.run(small_bed(VP), x, rng=3).x)


@every_solver
def test_noise_is_the_same_however_the_batch_is_split(entry: StochasticEntry) -> None:
    """Noise belongs to a sample's index: the first samples do not see the others, and recorded noise splits with the batch."""
    plan, bed, x = entry.compile(VP, uneven(VP)), small_bed(VP), normal(6, 2)
    whole = plan.run(bed, x, rng=5).x
    torch.testing.assert_close(plan.run(bed, x[:4], rng=5).x, whole[:4], rtol=1e-12, atol=1e-12)
    stream = Stream(5).child("row noise")
    drawn = [stream.normal((2, 2), step=i, first=4, dtype=torch.float64) for i in range(len(plan.carry))]
    torch.testing.assert_close(plan.run(bed, x[4:], noise=drawn).x, whole[4:], rtol=1e-12, atol=1e-12)
    assert not torch.equal(plan.run(bed, x, rng=6).x, whole)


@every_solver
def test_coefficients_are_differentiable_in_the_times(entry: StochasticEntry) -> None:
    weigh = normal(2, 40, 40, seed=5)

    def total(times: Tensor) -> Tensor:
        plan = entry.compile(VP, times)
        form, n = plan.canonical(), len(plan.carry)
        mixed = weigh[0, :n, :n] * form.outputs[1:] + weigh[1, :n, :n] * form.noises[1:]
        return mixed.sum() + form.start.sum()

    assert torch.autograd.gradcheck(total, (uneven(VP)[1:].requires_grad_(),))


@every_solver
@pytest.mark.parametrize("end", ["t_min", "zero"])
def test_samples_have_the_moments_of_the_plan(entry: StochasticEntry, end: End) -> None:
    n, std, mean = 20_000, 0.6, 1.3
    plan = entry.compile(VP, grids.log_snr(VP, 6, end=end))
    bed = GaussianMixture(VP, torch.full((1, 1), mean, dtype=torch.float64), torch.tensor([std]))
    x = VP.perturb(bed.sample(n, 1), plan.times[0], Stream(2))[0]
    found = plan.run(bed, x, rng=3).x
    expected, variance = moments(plan, mean, std)
    assert abs(float(found.mean()) - expected) < 4 * math.sqrt(variance / n)
    assert abs(float(found.var()) - variance) < 4 * variance * math.sqrt(2 / n)


# Single solvers


@every_process
def test_three_names_of_ancestral_sampling(process: GaussianProcess) -> None:
    plan = solvers.ancestral(process, uneven(process))
    assert plan.equivalent(solvers.ddim(process, uneven(process), eta=1.0))
    assert plan.equivalent(solvers.sde_dpm_solver_pp_1(process, uneven(process)))


@pytest.mark.parametrize("v", [0.0, 0.3, 1.0])
def test_ancestral_rows_are_those_of_the_paper(v: float) -> None:
    """Equations 6 and 7 of the paper, in cumulative alphas, and the log-linear variances of Nichol and Dhariwal."""
    times = uneven(VP)
    plan, bar = solvers.ancestral(VP, times, v=v), VP.alpha(times) ** 2
    for i in range(len(times) - 1):
        now, after = float(bar[i]), float(bar[i + 1])
        beta = 1 - now / after
        tilde = (1 - after) / (1 - now) * beta
        assert float(plan.weights[i, i]) == pytest.approx(math.sqrt(after) * beta / (1 - now), rel=1e-11)
        assert float(plan.carry[i]) == pytest.approx(math.sqrt(1 - beta) * (1 - after) / (1 - now), rel=1e-11)
        assert float(plan.noise[i]) ** 2 == pytest.approx(math.exp(v * math.log(beta) + (1 - v) * math.log(tilde)))


def test_the_forward_variance_is_exact_for_data_of_unit_variance() -> None:
    plan = solvers.ancestral(VP, grids.log_snr(VP, 5), v=1.0)
    assert moments(plan, 0.0, 1.0)[1] == pytest.approx(1.0, rel=1e-12)
    assert moments(solvers.ancestral(VP, grids.log_snr(VP, 5)), 0.0, 1.0)[1] < 0.6


@pytest.mark.parametrize("v", [0.0, 0.5, 1.0])
def test_ancestral_sampling_ends_without_noise_at_time_zero(v: float) -> None:
    plan = solvers.ancestral(VP, grids.log_snr(VP, 5, end="zero"), v=v)
    assert (float(plan.noise[-1]), float(plan.carry[-1]), float(plan.weights[-1, -1])) == (0.0, 0.0, 1.0)
    assert bool((plan.noise[:-1] > 0).all())


def test_without_scaling_the_forward_variance_is_reverse_diffusion() -> None:
    for process in (EDM(), VarianceExploding()):
        times = uneven(process)
        assert solvers.ancestral(process, times, v=1.0).equivalent(solvers.reverse_diffusion(process, times))


def score(bed: GaussianMixture, x: Tensor, t: Tensor) -> Tensor:
    return bed.predict(x, t).score


@every_process
def test_euler_maruyama_is_the_reverse_sde_step_by_step(process: GaussianProcess) -> None:
    times, bed = torch.cat([uneven(process), torch.zeros(1, dtype=torch.float64)]), small_bed(process)
    if float(process.sigma(0.0)) > 0:
        times = times[:-1]
    plan = solvers.euler_maruyama(process, times)
    x, z = normal(4, 2), noises(plan, 4, 2)
    state = x
    for i in range(5):
        k, g2 = times[i] - times[i + 1], process.diffusion2(times[i])
        drift = process.drift(times[i]) * state - g2 * score(bed, state, times[i])
        state = state - k * drift + torch.sqrt(k * g2) * z[i]
    if len(times) == 7:
        state = bed(state, times[5])
    torch.testing.assert_close(plan.run(bed, x, noise=z).x, state, rtol=1e-10, atol=1e-10)


def test_reverse_diffusion_is_the_papers_for_both_processes() -> None:
    """The appendix writes it in the betas of VP and in the noise levels of VE."""
    for process in (VP, VarianceExploding()):
        times, bed, x = uneven(process), small_bed(process), normal(4, 2)
        plan = solvers.reverse_diffusion(process, times)
        z, state = noises(plan, 4, 2), x
        for i in range(5):
            slope = score(bed, state, times[i])
            if process is VP:
                beta = 1 - (VP.alpha(times[i]) / VP.alpha(times[i + 1])) ** 2
                state = (2 - torch.sqrt(1 - beta)) * state + beta * slope + torch.sqrt(beta) * z[i]
            else:
                step = process.sigma(times[i]) ** 2 - process.sigma(times[i + 1]) ** 2
                state = state + step * slope + torch.sqrt(step) * z[i]
        torch.testing.assert_close(plan.run(bed, x, noise=z).x, state, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("corrections", [1, 2])
@pytest.mark.parametrize("end", ["t_min", "zero"])
def test_predictor_corrector_step_by_step(corrections: int, end: End) -> None:
    """Algorithm 4 with ``|z| = sqrt(d)`` and ``|score| = sqrt(d) / sigma``."""
    process, bed, x = EDM(), small_bed(EDM()), normal(4, 2)
    times = grids.karras(process, 5, end=end)
    plan = solvers.predictor_corrector(process, times, corrections=corrections, snr=0.2)
    z = noises(plan, 4, 2)
    fresh, state = iter(z), x
    for i in range(5):
        step = times[i] ** 2 - times[i + 1] ** 2
        if times[i + 1] == 0:
            state = state + step * score(bed, state, times[i])
            break
        state = state + step * score(bed, state, times[i]) + torch.sqrt(step) * next(fresh)
        for _ in range(corrections):
            size = 2 * (0.2 * times[i + 1]) ** 2
            state = state + size * score(bed, state, times[i + 1]) + torch.sqrt(2 * size) * next(fresh)
    torch.testing.assert_close(plan.run(bed, x, noise=z).x, state, rtol=1e-10, atol=1e-10)
    assert torch.equal(plan.model_times, plan.times[:-1])


@pytest.mark.parametrize("snr", [0.1, 0.16, 0.3])
def test_corrections_keep_an_error_that_more_steps_do_not_remove(snr: float) -> None:
    """On point data a step maps the ratio ``u`` of variance to ``s^2`` to ``(1 - 2 rho^2)^2 (r^2 u + 1 - r^2) + 4 rho^2``. Its
    fixed point tends to the ``1 / (1 - rho^2)`` of the docstring as ``r`` tends to 1."""

    def settled(r2: float) -> float:
        kept = (1 - 2 * snr**2) ** 2
        return (kept * (1 - r2) + 4 * snr**2) / (1 - kept * r2)

    times = grids.log_snr(EDM(), 200)
    plan = solvers.predictor_corrector(EDM(), times, snr=snr, predictor=solvers.ancestral)
    ratio = moments(plan, 0.0, 0.0)[1] / marginal(EDM(), plan.times[-1], 0.0, 0.0)[1]
    assert ratio == pytest.approx(settled(float(times[1] / times[0]) ** 2), rel=1e-9)
    assert settled(1 - 1e-9) == pytest.approx(1 / (1 - snr**2), rel=1e-6)


def test_the_norm_of_the_score_is_its_expectation_above_the_width_of_the_data() -> None:
    bed = GaussianMixture.smooth_bed(EDM())
    for s in (3.0, 10.0):
        x = bed.sample(20_000, 1) + s * normal(20_000, 8)
        measured = float(score(bed, x, torch.tensor(s, dtype=torch.float64)).square().sum(1).mean().sqrt())
        assert measured == pytest.approx(math.sqrt(8) / s, rel=0.05)


def test_a_predictor_must_take_one_row_a_step() -> None:
    for predictor in (solvers.heun, solvers.euler):
        with pytest.raises(InvalidInput, match=f"one row a step; {predictor.__name__} has not both"):
            solvers.predictor_corrector(EDM(), uneven(EDM()), predictor=predictor)


@every_process
def test_a_multistep_predictor_keeps_its_own_outputs(process: GaussianProcess) -> None:
    """The rows of the predictor read outputs at the main nodes and none of the corrections."""
    times = uneven(process)
    plan = solvers.predictor_corrector(process, times, predictor=solvers.sde_dpm_solver_pp_2m)
    alone = solvers.sde_dpm_solver_pp_2m(process, times)
    assert torch.equal(plan.weights[::2, ::2], alone.weights)
    assert bool((plan.weights[::2, 1::2] == 0).all())


def churned(bed: GaussianMixture, x: Tensor, levels: Tensor, z: list[Tensor], heun: bool) -> Tensor:
    """Return the end state of algorithm 2 as it stands in the paper, for EDM and the contract's window."""
    fresh, n = iter(z), len(levels) - 1
    for now, after in pairwise(levels):
        inside = WINDOW["s_min"] <= float(now) <= WINDOW["s_max"]
        hat = now * (1 + (min(WINDOW["s_churn"] / n, math.sqrt(2) - 1) if inside else 0))
        if inside:
            x = x + torch.sqrt(hat**2 - now**2) * 1.1 * next(fresh)
            next(fresh)  # rows without noise have an entry too
        else:
            next(fresh)
        slope = (x - bed(x, hat)) / hat
        guess = x + (after - hat) * slope
        if heun and after > 0:
            next(fresh)
            x = x + (after - hat) * (slope + (guess - bed(guess, after)) / after) / 2
        else:
            x = guess
    return x


@pytest.mark.parametrize("end", ["t_min", "zero"])
def test_churn_is_the_papers_algorithm(end: End) -> None:
    times, bed, x = grids.karras(EDM(), 9, end=end), small_bed(EDM()), 80 * normal(4, 2)
    for heun in (True, False):
        solver = solvers.stochastic_heun if heun else solvers.stochastic_euler
        plan = solver(EDM(), times, **WINDOW, s_noise=1.1)
        z = noises(plan, 4, 2)
        expected = churned(bed, x, times, z, heun)
        torch.testing.assert_close(plan.run(bed, x, noise=z).x, expected, rtol=1e-9, atol=1e-9)


@every_process
def test_no_churn_is_no_noise(process: GaussianProcess) -> None:
    times = uneven(process)
    for churn, plain in ((solvers.stochastic_heun, solvers.heun), (solvers.stochastic_euler, solvers.euler)):
        for settings in ({"s_churn": 0.0}, {"s_churn": 5.0, "s_min": 20.0}):
            plan = churn(process, times, **settings)
            assert not plan.stochastic
            assert plan.equivalent(plain(process, times))


def test_churn_lifts_by_at_most_half_the_variance_and_only_inside_its_window() -> None:
    levels = uneven(EDM())
    plan = solvers.stochastic_euler(EDM(), levels, s_churn=1e6, s_min=1.0, s_max=7.0)
    assert (~plan.evaluate).nonzero().flatten().tolist() == [1, 3, 5]
    torch.testing.assert_close(plan.times[[2, 4, 6]], math.sqrt(2) * levels[1:4], rtol=1e-12, atol=0)
    torch.testing.assert_close(plan.noise[[1, 3, 5]], levels[1:4], rtol=1e-12, atol=0)
    assert int((plan.noise != 0).sum()) == 3


@pytest.mark.parametrize("order", [1, 2, 3])
@every_process
def test_without_noise_the_sde_solvers_are_those_of_the_ode(order: int, process: GaussianProcess) -> None:
    suffix = "1" if order == 1 else f"{order}m"
    times = grids.karras(process, 6, end="t_min")
    for settings in ({}, {"final_order": 1}) if order > 1 else ({},):
        stochastic = getattr(solvers, f"sde_dpm_solver_pp_{suffix}")(process, times, eta=0.0, **settings)
        plain = getattr(solvers, f"dpm_solver_pp_{suffix}")(process, times, **settings)
        assert not stochastic.stochastic
        assert torch.equal(stochastic.weights, plain.weights)
        assert torch.equal(stochastic.carry, plain.carry)


@pytest.mark.parametrize("eta", [0.4, 1.0])
def test_sde_2m_weights_solve_the_linear_sde_with_the_extrapolated_prediction(eta: float) -> None:
    """Integrating ``dy = (1 + eta)(D - y) dlam + sqrt(2 eta) s dW`` numerically over a step gives the row."""
    levels = uneven(EDM())
    plan = solvers.sde_dpm_solver_pp_2m(EDM(), levels, eta=eta)
    h, before = float(torch.log(levels[3] / levels[4])), float(torch.log(levels[2] / levels[3]))
    n = 20_000
    keep, on_data, variance = 1.0, 0.0, 0.0
    for k in range(n):
        s = float(levels[3]) * math.exp(-(k + 0.5) * h / n)
        shrink = math.exp(-(1 + eta) * h / n)
        fresh = 2 * eta * s**2 * h / n * math.exp(-(1 + eta) * h / n)
        keep, on_data, variance = shrink * keep, shrink * on_data + 1 - shrink, shrink**2 * variance + fresh
    q = h / before
    found = [plan.carry[3], plan.weights[3, 3], plan.weights[3, 2], plan.noise[3] ** 2]
    expected = [keep, on_data * (1 + q / 2), -on_data * q / 2, variance]
    torch.testing.assert_close(torch.stack(found), torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=1e-6)


def test_eta_is_the_square_of_that_of_ddim_where_steps_are_short() -> None:
    pairs = ((solvers.sde_dpm_solver_pp_1, 0.25), (solvers.ddim, 0.5))
    gaps = []
    for n in (200, 400):
        times = grids.log_snr(EDM(), n)
        ours, ddims = (f(EDM(), times, eta=e).noise[0] for f, e in pairs)
        gaps.append(float(ours / ddims - 1))
    assert 1.9 < gaps[0] / gaps[1] < 2.1
    assert abs(gaps[1]) < 0.02


def two_modes(process: GaussianProcess) -> GaussianMixture:
    means = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    return GaussianMixture(process, means, torch.tensor([0.3, 0.5]), torch.tensor([0.35, 0.65]))


def square_of_samples(plan: Plan, cells: int) -> float:
    """Return ``E x^2`` of a plan with two outputs a row on `two_modes`, by carrying the joint density of the last two states."""
    levels, bed = plan.times.tolist(), two_modes(plan.process)
    unit = torch.linspace(-6.5, 6.5, cells, dtype=torch.float64)
    grid = [unit * math.sqrt(0.8 + s**2) for s in levels]
    data = [bed(y[:, None], torch.tensor(s, dtype=torch.float64))[:, 0] for y, s in zip(grid, levels, strict=True)]
    start = torch.exp(bed.log_density(grid[0][:, None], plan.times[0])) * (grid[0][1] - grid[0][0])
    joint = start[None] * 1.0
    for i in range(len(plan.carry)):
        width = float(plan.noise[i])
        mean = plan.carry[i] * grid[i] + plan.weights[i, i] * data[i]
        pulls = plan.weights[i, i - 1] * data[i - 1]
        if i == 0 or bool((pulls == 0).all()):  # the state before the last does not matter
            joint, pulls = joint.sum(0, keepdim=True), torch.zeros(1, dtype=torch.float64)
        after = torch.zeros(cells, cells, dtype=torch.float64)
        for mass, pull in zip(joint, pulls, strict=True):
            after += mass[:, None] * torch.exp(-0.5 * ((grid[i + 1] - (mean + pull)[:, None]) / width) ** 2)
        joint = after * (grid[i + 1][1] - grid[i + 1][0]) / (width * math.sqrt(2 * math.pi))
    assert float(joint.sum()) == pytest.approx(1, abs=1e-8)
    return float(joint.sum(0) @ grid[-1].square())


def test_the_second_weak_order_of_sde_2m_holds_beyond_gaussian_data() -> None:
    process = EDM()
    exact = 0.35 * (1 + 0.3**2) + 0.65 * (1 + 0.5**2) + 0.3**2
    for solver, order in ((solvers.sde_dpm_solver_pp_1, 1), (solvers.sde_dpm_solver_pp_2m, 2)):
        errors = [
            square_of_samples(solver(process, grids.log_snr(process, n, t_max=2.0, t_min=0.3)), cells) - exact
            for n, cells in ((12, 100), (24, 130))
        ]
        assert abs(math.log2(errors[0] / errors[1]) - order) < 0.15


@pytest.mark.parametrize(
    ("solver", "settings", "complaint"),
    [
        (solvers.ancestral, {"v": -0.1}, r"v must lie in \[0, 1\], got -0.1"),
        (solvers.ancestral, {"v": math.nan}, "v must lie in"),
        (solvers.predictor_corrector, {"snr": 0.0}, r"snr of a correction must lie in \(0, 1\), got 0.0"),
        (solvers.predictor_corrector, {"snr": 1.0}, "snr of a correction"),
        (solvers.predictor_corrector, {"corrections": 0}, "at least one correction, got 0; or use the predictor alone"),
        (solvers.stochastic_heun, {"s_churn": -1.0}, "s_churn must be finite and not negative"),
        (solvers.stochastic_heun, {"s_churn": math.nan}, "s_churn must be finite"),
        (
            solvers.stochastic_euler,
            {"s_churn": 1.0, "s_min": 2.0, "s_max": 1.0},
            "0 <= s_min <= s_max, got 2.0 and 1.0",
        ),
        (solvers.stochastic_euler, {"s_churn": 1.0, "s_noise": 0.0}, "s_noise must be finite and positive"),
        (solvers.sde_dpm_solver_pp_2m, {"eta": -0.5}, "eta must be finite and not negative, got -0.5"),
        (solvers.sde_dpm_solver_pp_3m, {"eta": math.inf}, "eta must be finite"),
    ],
)
def test_bad_settings_are_refused(solver: Callable[..., Plan], settings: dict[str, float], complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        solver(EDM(), uneven(EDM()), **settings)
