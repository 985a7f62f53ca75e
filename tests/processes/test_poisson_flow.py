"""The noise law of PFGM++: the paper's radius and direction, its limits, and what the base class builds from it."""

import math

import pytest
import torch
from scipy import stats

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.processes import EDM, PoissonFlow, process_from_dict, process_to_dict, same_process

DIMENSIONS = [1, 2, 4.5, 64, 4096]
SEEDS = range(5)


def noise(D: float, n: int, width: int, seed: int = 0) -> torch.Tensor:
    return PoissonFlow(D=D).draw_noise((n, width), Stream(seed, "noise"), dtype=torch.float64)


@pytest.mark.parametrize("D", DIMENSIONS)
@pytest.mark.parametrize("width", [1, 2, 7])
def test_the_radius_has_the_papers_beta_law(D: float, width: int) -> None:
    """``R = r sqrt(B / (1 - B))`` with ``r = sigma sqrt(D)`` means ``B = R^2 / (R^2 + r^2) ~ Beta(N/2, D/2)``."""
    values = []
    for seed in SEEDS:
        squared = noise(D, 2000, width, seed).square().sum(1)
        values.append(stats.kstest((squared / (squared + D)).numpy(), stats.beta(width / 2, D / 2).cdf).pvalue)
    assert min(values) > 1e-3  # each of 75 tests; all hold by chance with probability 0.93
    assert max(values) > 0.05


@pytest.mark.parametrize("D", [1, 64])
def test_the_direction_is_uniform_and_independent_of_the_radius(D: float) -> None:
    z = noise(D, 20000, 3)
    radius = z.norm(dim=1)
    for far in (radius > radius.median(), radius <= radius.median()):
        height = (z[far] / radius[far, None])[:, 0]  # uniform in [-1, 1] on the sphere in R^3
        assert stats.kstest(height.numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-3


@pytest.mark.parametrize("D", DIMENSIONS)
def test_one_coordinate_is_students(D: float) -> None:
    assert stats.kstest(noise(D, 20000, 5)[:, 2].numpy(), stats.t(D).cdf).pvalue > 1e-3


def test_the_density_is_students_and_integrates_to_one() -> None:
    z = noise(3, 50, 4)
    expected = stats.multivariate_t(df=3, shape=torch.eye(4).numpy()).logpdf(z.numpy())
    torch.testing.assert_close(PoissonFlow(D=3).noise_log_density(z), torch.from_numpy(expected), rtol=1e-11, atol=0)
    line = torch.linspace(-500, 500, 200_001, dtype=torch.float64)
    density = PoissonFlow(D=2).noise_log_density(line[:, None]).exp()
    assert float(torch.trapezoid(density, line)) == pytest.approx(500 / math.sqrt(500**2 + 2), rel=1e-9)


def test_many_dimensions_are_diffusion_for_the_same_seed() -> None:
    shape, rng = (500, 6), Stream(3, "noise")
    normal = EDM().draw_noise(shape, rng, dtype=torch.float64)
    for D in (1e4, 1e8):
        ratio = PoissonFlow(D=D).draw_noise(shape, rng, dtype=torch.float64) / normal
        # the ratio is sqrt(D / chi^2_D) = 1 + e with e of standard deviation 1 / sqrt(2 D), one for each sample
        torch.testing.assert_close(ratio[:, 0], ratio[:, 5], rtol=1e-12, atol=0)
        assert float((ratio[:, 0] - 1).std()) == pytest.approx(1 / math.sqrt(2 * D), rel=0.15)
        assert float((ratio - 1).abs().max()) < 5 / math.sqrt(2 * D)
    z = 0.3 * normal
    gauss = -0.5 * (z.square().sum(1) + 6 * math.log(2 * math.pi))
    torch.testing.assert_close(PoissonFlow(D=1e8).noise_log_density(z), gauss, rtol=0, atol=1e-6)


def test_starts_and_noised_data_share_the_law() -> None:
    process, x0 = PoissonFlow(D=2, t_max=50.0), torch.ones(6, 3, dtype=torch.float64)
    z = process.draw_noise((6, 3), 4, step=2, dtype=torch.float64)
    assert torch.equal(process.terminal((6, 3), 4, step=2, dtype=torch.float64), 50 * z)
    x, eps = process.perturb(x0, torch.full((6,), 0.5, dtype=torch.float64), 4, step=2)
    assert torch.equal(eps, z)
    torch.testing.assert_close(x, x0 + 0.5 * z, rtol=1e-15, atol=0)


def test_draws_do_not_depend_on_the_split_and_differ_between_steps() -> None:
    process = PoissonFlow(D=1)
    whole = process.draw_noise((8, 2, 3), 0)
    assert torch.equal(whole[5:], process.draw_noise((3, 2, 3), 0, first=5))
    assert whole.dtype == torch.get_default_dtype()
    ratio = process.draw_noise((8, 2, 3), 0, step=1) / EDM().draw_noise((8, 2, 3), 0, step=1)
    assert not torch.allclose(ratio, whole / EDM().draw_noise((8, 2, 3), 0))


def test_the_heaviest_tail_stays_finite_in_float32() -> None:
    z = PoissonFlow(D=1).terminal((200_000, 2), 0, dtype=torch.float32)
    assert bool(z.isfinite().all())
    assert float(z.abs().max()) > 1e6  # 80 times a Cauchy draw of probability 1e-5 to 1e-6


def test_it_is_edm_but_for_its_noise() -> None:
    process, t = PoissonFlow(D=4), torch.tensor([0.1, 3.0], dtype=torch.float64)
    for name in ("alpha", "sigma", "half_log_snr", "time_of", "noise_level"):
        assert torch.equal(getattr(process, name)(t), getattr(EDM(), name)(t))
    assert process != EDM()
    assert not same_process(process, EDM())
    assert not same_process(process, PoissonFlow(D=5))


def test_a_plan_file_keeps_its_dimension() -> None:
    stored = process_to_dict(PoissonFlow(D=128))
    assert stored == {"name": "PoissonFlow", "t_min": 0.002, "t_max": 80.0, "D": 128}
    assert process_from_dict(stored) == PoissonFlow(D=128)
    with pytest.raises(InvalidInput, match="lacks its parameter D"):
        process_from_dict({"name": "PoissonFlow", "t_min": 0.002, "t_max": 80.0})


@pytest.mark.parametrize("D", [0, 0.5, -3, math.inf, math.nan])
def test_dimensions_outside_the_family_are_refused(D: float) -> None:
    with pytest.raises(InvalidInput, match=r"finite D of at least 1, got .*; EDM\(\) is its limit"):
        PoissonFlow(D=D)
