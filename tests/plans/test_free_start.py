"""A first step without a call: exact for a network that sees unit noise, one call saved, and everything a plan can do."""

import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.plans import Plan, analytic_first_step, free_start, grids, solvers
from isocline.plans.free_start import kept_noise
from isocline.plans.tuners import (
    DODE,
    DSS,
    GITS,
    IIA,
    LD3,
    S3,
    Bespoke,
    DCSolver,
    DPMSolverV3,
    EndToEnd,
    OptimalSteps,
    TimeAligner,
    draw_noises,
)
from isocline.plans.tuners.recompile import on_times
from isocline.processes import (
    EDM,
    Data,
    Denoiser,
    GaussianMixture,
    GaussianProcess,
    Noise,
    RectifiedFlow,
    VariancePreserving,
)

PROCESSES = [EDM(), VariancePreserving(), RectifiedFlow()]


class UnitNoise(Denoiser):
    """Predicts the datum ``x / (alpha + sigma)``, on which a free step is Euler's."""

    def forward(self, x, t, cond=None):
        return x / (self.process.alpha(t) + self.process.sigma(t)).to(x)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_it_is_the_step_of_ddim_where_the_data_prediction_is_the_noise(process: GaussianProcess) -> None:
    nodes = grids.uniform(process, 6, end="t_min")
    whole = solvers.ddim(process, nodes)
    late = free_start(solvers.ddim(process, nodes[1:]), nodes[0])
    x = whole.start((3, 4), 0, dtype=torch.float64)
    model = UnitNoise(process, Data())
    run = late.run(model, x)
    torch.testing.assert_close(run.x, whole.run(model, x).x, rtol=1e-12, atol=1e-12)
    assert (run.cost.calls, late.calls, whole.calls) == (5, 5, 6)
    assert torch.equal(late.nodes, whole.nodes)


def test_noise_alone_stays_noise_in_flow_form() -> None:
    process = RectifiedFlow()
    times = torch.tensor([1.0, 0.9, 0.3], dtype=torch.float64)
    assert torch.equal(kept_noise(process, times[:1], times), torch.ones(3, dtype=torch.float64))


def test_it_survives_its_file_and_another_output(tmp_path) -> None:
    process = EDM()
    plan = free_start(solvers.dpm_solver_pp_2m(process, grids.karras(EDM(t_max=12.0), 5)), 80.0)
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    model, x = GaussianMixture.smooth_bed(process), plan.start((4, 8), 0, dtype=torch.float64)
    torch.testing.assert_close(plan.convert(Noise()).run(model, x).x, plan.run(model, x).x, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("start", [12.0, 3.0])
def test_a_start_that_is_not_before_the_plan_is_refused(start: float) -> None:
    plan = solvers.ddim(EDM(), grids.karras(EDM(t_max=12.0), 5))
    with pytest.raises(InvalidInput, match="lies before t = 12"):
        free_start(plan, start)


TUNERS = [
    GITS(nodes=12),
    OptimalSteps(nodes=12),
    IIA(),
    DODE(),
    DCSolver(),
    DPMSolverV3(),
    LD3(times_rounds=1, both_rounds=1),
    DSS(steps=2),
    S3(evaluations=8),
    Bespoke(steps=2),
    TimeAligner(steps=2),
    EndToEnd(steps=2),
]
ON_ANY_ROWS = (DODE, S3, TimeAligner, Bespoke)


@pytest.mark.parametrize("tuner", TUNERS, ids=lambda tuner: type(tuner).__name__)
@pytest.mark.parametrize("change", [lambda plan: free_start(plan, 80.0), analytic_first_step], ids=["free", "analytic"])
@pytest.mark.parametrize("searched", [False, True], ids=["solver", "searched"])
def test_no_tuner_adds_a_call_to_a_plan_whose_first_step_is_free(tuner, change, searched) -> None:
    model, process = GaussianMixture.smooth_bed(EDM()), EDM()
    start, steps = (80.0, 7) if change is analytic_first_step else (12.0, 6)
    teacher = solvers.heun(process, grids.karras(process, 8, end="t_min"))
    noises = draw_noises(teacher, model, (8,), (8, 8, 8), Stream(0), dtype=torch.float64)
    nodes = grids.karras(EDM(t_max=start), steps, end="t_min")
    base = solvers.unipc(process, nodes, order=2) if isinstance(tuner, DCSolver) else solvers.ddim(process, nodes)
    if searched:
        base = on_times(base, nodes, "GITS", "", {})
    base = change(base)
    assert base.calls == 6
    if isinstance(tuner, ON_ANY_ROWS):
        assert tuner.fit(base, model, noises, 0).plan.calls == 6
    else:
        with pytest.raises(InvalidInput, match=r"cannot be compiled again|exact where|one call a step"):
            tuner.fit(base, model, noises, 0)
