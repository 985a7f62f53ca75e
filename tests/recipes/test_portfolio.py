import json

import pytest
import torch

from isocline._core.errors import InvalidInput, Mismatch
from isocline._core.estimate import Budget, Cost
from isocline._core.stream import Stream
from isocline.plans import Plan, grids, solvers
from isocline.plans.candidate import Candidate
from isocline.plans.tuners import GITS, EndToEnd, Free, Tuned, measure
from isocline.processes import EDM, Data, GaussianMixture, Guided, wrap
from isocline.recipes.portfolio import Entry, Tried, lines, simplest, tune_portfolio
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


@pytest.mark.slow
def test_ray_gives_the_serial_result(found):
    pytest.importorskip("ray")
    spread = search(mapping=on_ray(2))
    assert spread.plan == found.plan
    assert [one.score for one in spread.tried] == [one.score for one in found.tried]
