"""A first step without a call: exact for a network that sees unit noise, one call saved, and everything a plan can do."""

import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline.plans import Plan, free_start, grids, solvers
from isocline.plans.free_start import kept_noise
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
