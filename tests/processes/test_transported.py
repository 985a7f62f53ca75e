import pytest
import torch

from isocline.plans import grids, solvers
from isocline.processes import EDM, FlowVelocity, GaussianMixture, Noise, RectifiedFlow, Transported, VariancePreserving
from tests.plans.helpers import normal


@pytest.mark.parametrize("process", [VariancePreserving(), RectifiedFlow()], ids=lambda p: type(p).__name__)
def test_an_exact_model_of_another_process_is_exact_here(process):
    means, weights = normal(3, 2, seed=1), torch.tensor([0.2, 0.5, 0.3])
    here, there = GaussianMixture(process, means, weights), GaussianMixture(EDM(), means, weights)
    x, t = normal(16, 2), torch.linspace(0.05, 0.85, 16, dtype=torch.float64)
    torch.testing.assert_close(
        Transported(there, process).predict(x, t).x0, here.predict(x, t).x0, rtol=1e-9, atol=1e-9
    )
    found = Transported(there, process, Noise()).predict(x, t)
    torch.testing.assert_close(found.eps, here.predict(x, t).eps, rtol=1e-8, atol=1e-8)


def test_a_flow_is_sampled_from_pure_noise_with_a_diffusion_model():
    means, weights = normal(2, 2, seed=1), torch.tensor([0.5, 0.5])
    flow = RectifiedFlow()
    edm = GaussianMixture(EDM(t_max=1000.0), means, weights)
    plan = solvers.flow_adams(flow, grids.uniform(flow, 64))
    x = normal(64, 2, seed=3)
    found = plan.run(Transported(edm, flow, FlowVelocity()), x).x
    exact = plan.run(GaussianMixture(flow, means, weights), x).x
    torch.testing.assert_close(found, exact, rtol=0, atol=2e-3)  # the diffusion model's noise ends at s = 1000


def test_calls_are_counted_and_guidance_is_kept():
    inner = GaussianMixture.smooth_bed(EDM())
    outer = Transported(inner, VariancePreserving())
    outer.predict(normal(2, 8), 0.5)
    assert outer.calls == inner.calls == 1
    assert outer.guidance == inner.guidance
