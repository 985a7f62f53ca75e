import pytest
import torch

import isocline as iso
from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.plans import grids, solvers
from isocline.plans.candidate import Candidate, candidate_named
from isocline.plans.tuners import EndToEnd, draw_noises, measure
from isocline.processes import EDM, Guided, RectifiedFlow, VariancePreserving
from isocline.processes.exact import GaussianMixture
from isocline.recipes.tune import best_classical, heun_teacher

PROCESS = EDM()
MODEL = GaussianMixture.smooth_bed(PROCESS, 0)


def test_sample_spends_exactly_its_budget_and_keeps_to_its_seed():
    first = iso.sample(MODEL, (8, 8), 7, rng=3, dtype=torch.float64)
    again = iso.sample(MODEL, (8, 8), iso.Budget(calls=7), rng=3, dtype=torch.float64)
    assert first.cost.calls == 7
    assert torch.equal(first.x, again.x)
    part = iso.sample(MODEL, (5, 8), 7, rng=3, dtype=torch.float64)
    torch.testing.assert_close(part.x, first.x[:5], rtol=1e-12, atol=1e-12)


def test_a_two_call_solver_names_the_budgets_it_can_meet():
    with pytest.raises(InvalidInput, match=r"cannot use exactly 6 calls with end='zero'; try 7 or 5"):
        Candidate(solvers.heun, grids.karras).compile(PROCESS, 6, "zero")
    assert Candidate(solvers.heun, grids.karras).compile(PROCESS, 7, "zero").calls == 7


@pytest.mark.parametrize("process", [EDM(), VariancePreserving(), RectifiedFlow()])
def test_the_last_node_before_zero_lies_at_the_stated_noise_level(process):
    candidate = Candidate(solvers.dpm_solver_pp_2m, grids.uniform, last=0.12)
    times = candidate.compile(process, 5, "zero").times
    assert float(process.noise_level(times[-2])) == pytest.approx(0.12, rel=1e-9)
    assert times[-1] == 0
    assert float(candidate.compile(process, 5, "t_min").times[-1]) == pytest.approx(process.t_min)
    assert candidate.name == "dpm_solver_pp_2m on uniform(last=0.12)"


@pytest.mark.parametrize(("call", "message"), [
    (lambda: iso.sample(MODEL, (4, 8), 0, rng=0), "calls must be at least 1, got 0"),
    (lambda: iso.sample(MODEL, (4, 8), rng=0), "either a budget of network calls or a plan"),
    (lambda: iso.tune(MODEL, (8,), iso.Budget(seconds=3.0), rng=0), "needs a budget of calls"),
    (lambda: iso.tune(MODEL, (8,), 0, rng=0), "calls must be at least 1, got 0"),
    (lambda: candidate_named("dimm", "karras"), "no solver 'dimm'. Did you mean 'ddim'"),
    (lambda: Candidate(solvers.f_pndm, grids.karras).compile(EDM(), 7), "cannot use exactly 7 calls.*try 8 or 4"),
    (lambda: candidate_named("Restart", "karras"), "no solver 'Restart'. Did you mean 'restart'"),
    (lambda: candidate_named("restart", "karras"), "restart has no default for intervals"),
    (lambda: candidate_named("ddim", "karas"), "no grid 'karas'. Did you mean 'karras'"),
])  # fmt: skip
def test_bad_budgets_and_names_get_one_line(call, message):
    with pytest.raises(InvalidInput, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_the_baseline_is_the_best_on_the_validation_noises():
    teacher = heun_teacher(MODEL, 60)
    calibration = draw_noises(teacher, MODEL, (8,), (4, 64, 4), Stream(0), dtype=torch.float64)
    shortlist = [Candidate(solvers.ddim, grids.uniform), Candidate(solvers.dpm_solver_pp_2m, grids.karras)]
    chosen = best_classical(MODEL, calibration, 8, "zero", shortlist)
    errors = [measure(c.compile(PROCESS, 8, "zero"), MODEL, calibration.validation).median().value for c in shortlist]
    assert chosen is shortlist[errors.index(min(errors))]


def test_tune_reports_on_noises_nothing_was_tuned_or_chosen_on():
    outcome = iso.tune(
        MODEL,
        (8,),
        5,
        rng=1,
        sizes=(32, 32, 128),
        teacher=heun_teacher(MODEL, 40),
        tuner=EndToEnd(steps=40),
        dtype=torch.float64,
    )
    assert outcome.plan.calls == 5
    assert outcome.ratio.high < 1
    assert outcome.plan.provenance.error == outcome.held_out.median()
    assert outcome.held_out.errors.shape == (128,)


def test_a_guided_model_gives_a_plan_for_its_scale():
    process = VariancePreserving()

    class Conditional(GaussianMixture):
        def forward(self, x, t, cond=None):
            return super().forward(x, t) + (0 if cond is None else 0.1)

    bed = GaussianMixture.smooth_bed(process, 0)
    model = Guided(Conditional(process, bed.means, bed.stds, bed.weights), 2.0)
    outcome = iso.tune(
        model, (8,), 4, rng=0, cond=torch.arange, sizes=(4, 4, 4), teacher=heun_teacher(model, 10, end="t_min"),
        tuner=EndToEnd(steps=2, batch=2), end="t_min", dtype=torch.float64,
    )  # fmt: skip
    assert outcome.plan.guidance == 2.0
    assert outcome.held_out.calls == 8
    with pytest.raises(ValueError, match="guidance scale 2"):
        outcome.plan.run(bed, torch.zeros(2, 8, dtype=torch.float64))


def test_a_flow_that_starts_without_signal_is_tuned_with_the_defaults():
    model = GaussianMixture.smooth_bed(RectifiedFlow())
    outcome = iso.tune(model, (8,), 6, rng=0, sizes=(16, 32, 64), tuner=EndToEnd(steps=20), dtype=torch.float64)
    assert outcome.calibration.teacher.provenance.method == "flow_heun"
    assert outcome.ratio.high < 1
