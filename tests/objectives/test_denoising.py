import math

import pytest
import torch

from isocline._core.stream import Stream
from isocline.objectives import DenoisingObjective, EDMWeight, LogNormal
from isocline.processes import EDM, VariancePreserving
from isocline.processes.exact import AffineSubspace, GaussianMixture


def test_edm_weight_is_the_inverse_square_of_the_output_scaling():
    s = torch.tensor([0.01, 0.5, 3.0, 70.0], dtype=torch.float64)
    c_out = s * 0.7 / torch.sqrt(s**2 + 0.49)
    torch.testing.assert_close(EDMWeight(0.7)(EDM(), s), 1 / c_out**2)


@pytest.mark.parametrize("process", [EDM(), VariancePreserving()])
def test_log_normal_times_have_the_stated_law(process):
    t = LogNormal(-1.0, 0.5)(process, 20_000, Stream(0), 3)
    level = torch.log(process.noise_level(t))
    assert level.mean().item() == pytest.approx(-1.0, abs=5 * 0.5 / math.sqrt(20_000))
    assert level.std().item() == pytest.approx(0.5, rel=0.03)


def test_the_loss_of_the_exact_denoiser_is_the_posterior_variance():
    # data N(0, v) in one dimension: E|D - x0|^2 = v s^2 / (v + s^2)
    process, v = EDM(), 0.3
    basis, offset = torch.eye(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    model = AffineSubspace(process, basis, offset, math.sqrt(v))
    x0 = math.sqrt(v) * Stream(1).normal((100_000, 1), dtype=torch.float64)
    level = 0.8

    def fixed(process, batch, rng, step, first):
        return torch.full((batch,), level, dtype=torch.float64)

    objective = DenoisingObjective(lambda process, t: 2.0 * torch.ones_like(t), fixed)
    expected = 2.0 * v * level**2 / (v + level**2)
    assert objective.loss(model, x0, Stream(2), 0).item() == pytest.approx(expected, rel=0.02)


def test_the_loss_does_not_depend_on_earlier_calls():
    process = EDM()
    model = GaussianMixture.smooth_bed(process, 0)
    x0 = model.sample(16, 0)
    objective = DenoisingObjective(EDMWeight(0.5), LogNormal())
    first = objective.loss(model, x0, Stream(3), 7)
    objective.loss(model, x0, Stream(3), 8)
    assert torch.equal(first, objective.loss(model, x0, Stream(3), 7))
    assert not torch.equal(first, objective.loss(model, x0, Stream(3), 8))
