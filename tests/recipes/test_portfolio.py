import json
from dataclasses import asdict, replace

import pytest
import torch

from isocline._core.errors import InvalidInput, Mismatch
from isocline._core.estimate import Budget, Cost
from isocline._core.stream import Stream
from isocline.metrics import frechet_estimate
from isocline.plans import Plan, analytic_first_step, grids, solvers
from isocline.plans.candidate import Candidate
from isocline.plans.tuners import GITS, EndToEnd, Free, Tuned, measure
from isocline.plans.tuners.recompile import compiler_of
from isocline.processes import EDM, Data, GaussianMixture, Guided, wrap
from isocline.recipes import Conditions, StoredModel, quality
from isocline.recipes.family import tune_family
from isocline.recipes.portfolio import KEPT, Entry, Tried, lines, simplest, tune_portfolio
from isocline.recipes.shortlist import every_classical
from isocline.recipes.workers import on_ray

MODEL = GaussianMixture.smooth_bed(EDM())
SHORT = (Candidate(solvers.ddim, grids.karras), Candidate(solvers.dpm_solver_pp_2m, grids.log_snr, last=0.12))
TIMES = Entry("times", EndToEnd(steps=20, free=Free(weights=False)), gradients=True)
ENTRIES = (Entry("GITS", GITS(nodes=20)), TIMES)
SIZES = (16, 32, 64)


def search(model=MODEL, budget=5, entries=ENTRIES, **options):
    options = {"rng": 0, "sizes": SIZES, "shortlist": SHORT, "dtype": torch.float64, **options}
    return tune_portfolio(model, (8,), budget, entries=entries, **options)


@pytest.fixture(scope="module")
def found():
    return search()


def test_the_result_is_measured_on_noises_that_nothing_saw(found):
    held_out = found.calibration.held_out
    errors = measure(found.plan, MODEL, held_out).errors
    torch.testing.assert_close(errors, found.held_out.errors, rtol=1e-12, atol=0)
    assert found.plan.provenance.error == found.held_out.median()
    assert found.plan.calls == 5
    assert found.ratio.value < 1
    assert found.complete


def test_every_candidate_and_entry_is_in_the_report(found):
    names = [candidate.name for candidate in SHORT] + [entry.name for entry in ENTRIES]
    assert [one.name for one in found.tried] == names
    assert len(lines(found)) == len(names)
    assert found.cost.calls > 0


class Losing:
    """A tuner whose plan is worse, or that cannot be used."""

    def __init__(self, reason=""):
        self.reason = reason

    def fit(self, base, denoiser, calibration, rng, *, seconds=None, bar=None):
        if self.reason:
            raise InvalidInput(self.reason)
        plan = solvers.ddim(base.process, grids.uniform(base.process, 5, end="zero"))
        return Tuned(plan, [(0, 1.0)], Cost())


def test_what_does_not_fit_says_why_and_what_is_worse_is_not_chosen():
    found = search(entries=(Entry("worse", Losing()), Entry("unfit", Losing("needs a flow"))))
    assert found.name in [candidate.name for candidate in SHORT]
    assert found.ratio.value == 1.0
    assert lines(found)[-1].endswith("skipped: needs a flow")


def test_a_model_without_gradients_skips_the_tuners_that_need_them():
    @torch.no_grad()
    def opaque(x, t, cond=None):
        return MODEL.predict(x, t).x0

    found = search(wrap(opaque, EDM(), Data()))
    skipped = {one.name: one.reason for one in found.tried if one.plan is None}
    assert set(skipped) == {"times"}
    assert "needs gradients through the model" in skipped["times"]


def test_an_interrupted_search_continues(tmp_path):
    class Stop(Losing):
        def fit(self, *args, **kwargs):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(entries=(*ENTRIES[:1], Entry("stop", Stop())), folder=tmp_path)
    kept = sorted(path.name for path in tmp_path.glob("1-gits*"))
    assert kept == ["1-gits.json", "1-gits.plan.json"]

    class Never(Losing):
        def fit(self, *args, **kwargs):
            raise AssertionError("it was tried before")

    again = search(entries=(Entry("GITS", Never()), TIMES), folder=tmp_path)
    assert again.plan == search().plan
    assert Plan.load(tmp_path / "plan.json") == again.plan


def test_a_folder_of_another_search_is_refused(tmp_path):
    search(entries=(), folder=tmp_path)
    with pytest.raises(Mismatch, match="holds a search with another calls; choose another folder"):
        search(budget=6, entries=(), folder=tmp_path)
    assert json.loads((tmp_path / "search.json").read_text())["calls"] == 5


def test_limits_end_the_search_with_the_best_so_far():
    found = search(budget=Budget(calls=5, evaluations=1))
    assert not found.complete
    assert {one.round for one in found.tried} == {0}
    assert not search(budget=Budget(calls=5, seconds=1e-6)).complete


def test_time_is_shared_as_the_entries_say():
    given = []

    class Told(Losing):
        def fit(self, *args, seconds=None, bar=None):
            given.append(seconds)
            return super().fit(*args)

    entries = (Entry("a", Told(), share=3.0), Entry("b", Told()), Entry("c", Told(), gradients=True))
    search(budget=Budget(calls=5, seconds=1e6), entries=entries)
    assert given == pytest.approx([3e5, 4e5, 1e6], rel=1e-3)  # nobody used any; without gradients until 40 % are gone


def test_guidance_belongs_to_the_plan():
    from isocline.processes import wrap

    inner = wrap(lambda x, t, cond=None: MODEL.predict(x, t).x0 + (0 if cond is None else 0.1), EDM(), Data())
    found = search(Guided(inner, 2.0), cond=lambda n: torch.zeros(n), entries=ENTRIES[1:])
    assert found.plan.guidance == 2.0
    assert found.held_out.calls == 10  # two network calls for each of five rows


def test_the_simpler_plan_wins_a_tie():
    plan = SHORT[0].compile(EDM(), 5)
    errors = Stream(0).uniform((200,), dtype=torch.float64) + 0.5
    noise = 1 + 0.1 * Stream(1).normal((200,), dtype=torch.float64)
    classical, tie, clear = (
        Tried("classical", 0, plan, errors),
        Tried("tie", 2, plan, errors * noise * 0.999),
        Tried("clear", 2, plan, errors * 0.5),
    )
    assert simplest([classical, tie]).name == "classical"
    assert simplest([classical, clear, tie]).name == "clear"


def test_the_statistic_decides_which_plan_is_best_and_what_is_reported():
    errors = torch.ones(100, dtype=torch.float64)
    tail = torch.cat([0.5 * errors[:99], 20 * errors[:1]])  # a better median, a worse root mean square
    plan = SHORT[0].compile(EDM(), 5)
    both = [Tried("even", 0, plan, errors), Tried("tail", 1, plan, tail)]
    assert simplest(both, "median").name == "tail"
    assert simplest(both, "rms").name == "even"
    found = search(statistic="rms", entries=())
    classical = [measure(c.compile(EDM(), 5, "zero"), MODEL, found.calibration.validation).rms() for c in SHORT]
    assert found.name == SHORT[classical.index(min(classical))].name
    assert found.plan.provenance.error.value == pytest.approx(found.held_out.rms())
    with pytest.raises(InvalidInput, match="compared by 'median' or 'rms', not 'mean'"):
        search(statistic="mean")


@pytest.mark.parametrize(
    ("sizes", "name"), [((1, 32, 64), "train"), ((16, 1, 64), "validation"), ((16, 32, 1), "held_out")]
)
def test_one_noise_is_too_few_and_the_teacher_does_not_run_for_it(sizes, name):
    before = MODEL.calls
    with pytest.raises(InvalidInput, match=f"the {name} set needs at least 2 noises, got 1"):
        search(sizes=sizes)
    assert MODEL.calls == before


def test_a_long_list_of_classical_plans_is_screened_and_keeps_the_best():
    found = search(entries=(), shortlist=None, sizes=(2, 32, 2))
    assert len(found.tried) == KEPT
    validation = found.calibration.validation
    every = [c.compile(EDM(), 5, "zero") for c in every_classical(EDM(), "zero")]
    assert len(every) > 150
    best = min(measure(plan, MODEL, validation).median().value for plan in every)
    assert min(one.score() for one in found.tried) == pytest.approx(best)


def test_plans_that_do_not_follow_the_statistic_of_a_folder_are_refused(tmp_path):
    search(entries=(), folder=tmp_path)
    with pytest.raises(Mismatch, match="another statistic"):
        search(entries=(), folder=tmp_path, statistic="rms")


def test_noises_of_another_search_save_the_teacher_and_change_nothing(found):
    before = MODEL.calls
    again = search(entries=(), calibration=found.calibration)
    assert MODEL.calls - before == 5 * (len(SHORT) + 2)  # no more than runs of five calls on batches of 64
    assert again.classical.errors.equal(found.classical.errors)


def test_conditions_of_several_tensors_survive_an_interruption(tmp_path):
    inner = wrap(lambda x, t, cond=None: MODEL.predict(x, t).x0 + 0.1 * cond.arguments["a"]["b"], EDM(), Data())
    conditions = lambda n: Conditions(a={"b": torch.arange(float(n))[:, None] % 3}, c=torch.ones(1, 2))  # noqa: E731
    first = search(inner, entries=(), cond=conditions, folder=tmp_path)
    again = search(inner, entries=(), cond=conditions, folder=tmp_path)
    kept, drawn = again.calibration.train.cond, first.calibration.train.cond
    assert torch.equal(kept.arguments["a"]["b"], drawn.arguments["a"]["b"])
    assert torch.equal(kept.arguments["c"], drawn.arguments["c"])
    assert again.plan == first.plan


def test_a_plan_that_was_changed_after_its_solver_is_no_start_for_a_tuner():
    plan = analytic_first_step(SHORT[0].compile(EDM(), 6), 0.5)
    with pytest.raises(InvalidInput, match="that analytic_first_step has changed cannot be compiled again; start from"):
        compiler_of(plan)


def test_the_report_has_distances_of_features_that_nothing_was_tuned_on(found):
    rough = solvers.ddim(EDM(), grids.uniform(EDM(), 5, end="zero"))
    known = found._replace(classical=replace(found.classical, plan=rough))
    features, real = (lambda x: x[:, :2].float()), MODEL.sample(600, 5)
    told = quality(known, MODEL, features, real=real, samples=600)
    assert list(told) == ["chosen", "classical", "teacher"]
    x = found.calibration.teacher.start((600, 8), Stream(0).child("starts"), dtype=torch.float64)
    made = features(found.plan.run(MODEL, x).x)
    assert told["chosen"] == frechet_estimate(made, features(real), 0)
    assert max(told["teacher"].high, told["chosen"].high) < 0.05 < told["classical"].low
    beside = quality(known, MODEL, features, samples=600)
    assert list(beside) == ["chosen", "classical"]
    assert beside["chosen"].high < 0.05 < beside["classical"].low


def test_a_family_reports_distances_where_features_are_given(tmp_path):
    features, real = (lambda x: x[:, :2]), MODEL.sample(1000, 5)
    found = tune_family(
        StoredModel(MODEL, (8,)),
        (4,),
        tmp_path,
        entries=(),
        sizes=(2, 16, 16),
        statistic="rms",
        features=features,
        real=real,
    )
    told = json.loads((tmp_path / "report.json").read_text())["plans"][0]
    assert told["statistic"] == "rms"
    assert told["frechet"] == {name: asdict(distance) for name, distance in found[4].distances.items()}
    assert list(told["frechet"]) == ["chosen", "classical", "teacher"]
    assert told["frechet"]["teacher"]["value"] < 0.05


@pytest.mark.slow
def test_ray_gives_the_serial_result(found):
    pytest.importorskip("ray")
    spread = search(mapping=on_ray(2))
    assert spread.plan == found.plan
    assert [one.score() for one in spread.tried] == [one.score() for one in found.tried]
