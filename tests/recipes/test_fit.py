import pytest
import torch

from isocline._core.errors import BadFile, InvalidInput
from isocline._core.stream import Stream
from isocline.networks import DenoisingMLP
from isocline.objectives import cem, rectified_flow
from isocline.plans import grids, solvers
from isocline.processes import EDM, GaussianMixture, RectifiedFlow
from isocline.recipes import Pairs, draw_pairs, fit_denoiser
from isocline.training import Settings

SETTINGS = Settings(steps=300, batch=64, rate=3e-3, warmup=20, average=0.98)


def two_points(n, step, first):
    sign = Stream(1, "sign").rademacher((n, 1), step=step, first=first)
    return torch.cat([sign, -sign], dim=1)


def test_any_formulation_fits_two_points(tmp_path):
    torch.manual_seed(0)
    fitted = fit_denoiser(two_points, cem(), DenoisingMLP(2, width=32, depth=2), SETTINGS, tmp_path)
    x = torch.tensor([[0.9, -1.1], [-1.0, 0.8]])
    found = fitted.denoiser.predict(x, 0.02).x0
    assert (found - torch.tensor([[1.0, -1.0], [-1.0, 1.0]])).abs().max() < 0.5  # the mean of the data is wrong by 1
    assert not any(p.requires_grad for p in fitted.denoiser.network.parameters())


def test_a_data_set_is_seen_once_an_epoch(tmp_path):
    data = torch.arange(64.0)[:, None].expand(64, 2).contiguous()
    seen = []

    class Spy(DenoisingMLP):
        def forward(self, x, time, label=None):
            return super().forward(x, time, label)

    formulation = rectified_flow()
    original = type(formulation.objective).loss

    def spying(self, denoiser, x0, rng, step, cond=None, **rest):
        seen.append(x0[:, 0].clone())
        return original(self, denoiser, x0, rng, step, cond, **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(formulation.objective), "loss", spying)
        fit_denoiser(data, formulation, Spy(2, width=4, depth=1), Settings(steps=4, batch=16), tmp_path)
    assert sorted(torch.cat(seen).tolist()) == list(range(64))


def test_integers_are_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"data must be floating point \(N, \*\), got torch.int64"):
        fit_denoiser(torch.zeros(8, 2, dtype=torch.int64), cem(), DenoisingMLP(2), SETTINGS, tmp_path)


def test_pairs_do_not_depend_on_the_batch_and_keep_their_noise(tmp_path):
    flow = RectifiedFlow()
    model = GaussianMixture.smooth_bed(flow)
    plan = solvers.flow_heun(flow, grids.uniform(flow, 8))
    one = draw_pairs(model, plan, (8,), 20, 3, dtype=torch.float64)
    two = draw_pairs(model, plan, (8,), 20, 3, batch=7, dtype=torch.float64)
    torch.testing.assert_close(one.data, two.data, rtol=1e-12, atol=1e-12)
    assert torch.equal(one.noise, two.noise)
    torch.testing.assert_close(plan.run(model, one.noise).x, one.data)
    one.save(tmp_path / "pairs.safetensors")
    assert torch.equal(Pairs.load(tmp_path / "pairs.safetensors").data, one.data)


def test_pairs_of_a_diffusion_start_at_its_noise_level():
    model = GaussianMixture.smooth_bed(EDM())
    plan = solvers.ddim(EDM(), grids.karras(EDM(), 6))
    pairs = draw_pairs(model, plan, (8,), 4, 0, dtype=torch.float64)
    torch.testing.assert_close(plan.run(model, 80.0 * pairs.noise).x, pairs.data)


def test_pairs_need_a_deterministic_plan(tmp_path):
    model = GaussianMixture.smooth_bed(EDM())
    plan = solvers.ddim(EDM(), grids.karras(EDM(), 6), eta=1.0)
    with pytest.raises(InvalidInput, match="deterministic plan"):
        draw_pairs(model, plan, (8,), 4, 0)
    with pytest.raises(InvalidInput, match="as many noises as data"):
        Pairs(torch.zeros(2, 2), torch.zeros(3, 2))
    from isocline._core import files

    files.write_tensors(tmp_path / "other.safetensors", {"x": torch.zeros(1)}, {})
    with pytest.raises(BadFile, match="does not hold pairs"):
        Pairs.load(tmp_path / "other.safetensors")
