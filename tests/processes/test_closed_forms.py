"""Published values and special cases of the single processes."""

import math

import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline.processes import (
    CosineVariancePreserving,
    RectifiedFlow,
    SubVariancePreserving,
    VarianceExploding,
    VariancePreserving,
)


def test_vp_with_constant_rate_is_ornstein_uhlenbeck():
    process = VariancePreserving(beta_min=1.0, beta_max=1.0, t_max=5.0)
    t = torch.linspace(0.1, 5, 9, dtype=torch.float64)
    torch.testing.assert_close(process.alpha(t), torch.exp(-t / 2))
    torch.testing.assert_close(process.drift(t), torch.full_like(t, -0.5))
    torch.testing.assert_close(process.diffusion2(t), torch.ones_like(t))


def test_vp_diffusion_is_the_rate():
    process, t = VariancePreserving(), torch.linspace(1e-3, 1, 11, dtype=torch.float64)
    torch.testing.assert_close(process.diffusion2(t), 0.1 + 19.9 * t)


def test_sub_vp_diffusion_is_smaller_by_its_published_factor():
    """g^2 = beta (1 - exp(-2 B)), and the variance is the square of VP's."""
    sub, vp, t = SubVariancePreserving(), VariancePreserving(), torch.linspace(1e-3, 1, 11, dtype=torch.float64)
    torch.testing.assert_close(sub.diffusion2(t), -vp.beta(t) * torch.expm1(-2 * vp.integrated(t)))
    torch.testing.assert_close(sub.sigma(t), vp.sigma(t) ** 2)


def test_cosine_keeps_variance_and_follows_the_cosine():
    process, t = CosineVariancePreserving(), torch.linspace(0.01, 0.99, 9, dtype=torch.float64)
    torch.testing.assert_close(process.alpha(t) ** 2 + process.sigma(t) ** 2, torch.ones_like(t), rtol=1e-14, atol=0)
    bare = torch.cos(0.5 * math.pi * (t + 0.008) / 1.008)
    torch.testing.assert_close(process.alpha(t), bare / math.cos(0.5 * math.pi * 0.008 / 1.008))


def test_ve_interpolates_its_ends_geometrically():
    process = VarianceExploding(0.02, 80.0)
    ends = process.sigma(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    torch.testing.assert_close(ends, torch.tensor([0.02, math.sqrt(1.6), 80.0], dtype=torch.float64))


def test_flow_at_its_end_has_no_signal_and_no_nan():
    flow = RectifiedFlow()
    one = torch.tensor([0.5, 1.0], dtype=torch.float64)
    assert flow.half_log_snr(one)[1] == -math.inf
    assert flow.noise_level(one)[1] == math.inf
    assert flow.time_of(-math.inf) == 1.0
    assert flow.time_of_noise_level(math.inf) == 1.0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: VariancePreserving(beta_min=3.0, beta_max=2.0), "beta_min <= beta_max, got 3.0 and 2.0"),
        (lambda: VarianceExploding(sigma_min=2.0, sigma_max=1.0), "sigma_min < sigma_max, got 2.0 and 1.0"),
        (lambda: RectifiedFlow(t_max=1.5), "ends at t = 1, got t_max=1.5"),
        (lambda: CosineVariancePreserving(t_max=1.5), "ends at t = 1, got t_max=1.5"),
        (lambda: CosineVariancePreserving(s=-0.1), "offset s must be finite and not negative, got -0.1"),
    ],
)
def test_bad_parameters_are_refused(build, message):
    with pytest.raises(InvalidInput, match=message):
        build()
