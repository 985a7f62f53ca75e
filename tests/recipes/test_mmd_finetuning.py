import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.metrics import energy_distance, squared_mmd
from isocline.metrics.mmd import gaussian_kernel, polynomial_kernel
from isocline.networks import DenoisingMLP
from isocline.objectives import edm
from isocline.objectives.mmd import mmd_loss
from isocline.plans import grids, solvers
from isocline.processes import EDM
from isocline.recipes import fit_denoiser
from isocline.recipes.mmd_finetuning import MMDFinetuning
from isocline.training import Settings

PROCESS = EDM(t_min=0.02, t_max=20.0)
PLAN = solvers.ddim(PROCESS, grids.karras(PROCESS, 3, end="zero"))


@pytest.mark.parametrize("kernel", [gaussian_kernel(0.7), polynomial_kernel()])
def test_the_loss_is_the_metric_and_has_its_gradient(kernel):
    a, b = Stream(0).normal((7, 3), dtype=torch.float64), Stream(1).normal((9, 3), dtype=torch.float64) + 0.5
    assert float(mmd_loss(a, b, kernel)) == pytest.approx(squared_mmd(a, b, kernel), rel=1e-12)
    assert torch.autograd.gradcheck(lambda x: mmd_loss(x, b, kernel), a.requires_grad_())


def ring(n, seed):
    angle = Stream(seed).integers(6, (n,)).float() * (torch.pi / 3)
    return torch.stack([angle.cos(), angle.sin()], 1) + 0.1 * Stream(seed, "in").normal((n, 2))


@pytest.mark.slow
def test_few_steps_come_closer_to_the_data_in_a_distance_that_was_not_minimised(tmp_path):
    data, formulation, network = ring(4000, 0), edm(0.7, PROCESS), DenoisingMLP(2, width=64)
    fit_denoiser(data, formulation, network, Settings(2000, batch=256, rate=2e-3), tmp_path / "first")
    start, fresh = PLAN.start((3000, 2), 1), ring(3000, 2)
    before = PLAN.run(formulation.denoiser(network), start).x
    tuning = MMDFinetuning(lambda x: x, gaussian_kernel(0.3))
    settings = Settings(300, batch=256, rate=1e-3, warmup=10, average=0.98)
    model = tuning.fit(
        network.requires_grad_(), formulation.denoiser, PLAN, data, settings, tmp_path / "second"
    ).denoiser
    after = PLAN.run(model, start).x
    assert energy_distance(after, fresh) < 0.5 * energy_distance(before, fresh)


def test_checkpointing_changes_nothing(tmp_path):
    results = []
    for checkpoint in (False, True):
        torch.manual_seed(0)
        network = DenoisingMLP(2, width=16, depth=1)
        tuning = MMDFinetuning(lambda x: x, checkpoint=checkpoint)
        settings = Settings(3, batch=16, warmup=0)
        tuning.fit(network, edm(0.7, PROCESS).denoiser, PLAN, ring(64, 0), settings, tmp_path / str(checkpoint))
        results.append(torch.cat([p.flatten() for p in network.parameters()]))
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-7)


def test_stochastic_plans_are_refused(tmp_path):
    plan = solvers.ancestral(PROCESS, grids.karras(PROCESS, 3))
    with pytest.raises(InvalidInput, match="deterministic plan"):
        MMDFinetuning(lambda x: x).fit(
            DenoisingMLP(2), edm(0.7, PROCESS).denoiser, plan, ring(64, 0), Settings(3), tmp_path
        )
