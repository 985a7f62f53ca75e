import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline.processes import EDM, Preconditioned, RectifiedFlow, VariancePreserving
from tests.contracts.denoisers import cloud


def test_edm_scalings():
    """Table 1 of the paper, written out: c_skip, c_out, c_in and c_noise at sigma = 2, sigma_data = 0.5."""
    told = []

    def network(x, time):
        told.append((x, time))
        return torch.ones_like(x)

    x = cloud(4, 3)
    found = Preconditioned(network, EDM(), 0.5).predict(x, 2.0).x0
    total = 2.0**2 + 0.5**2
    torch.testing.assert_close(found, 0.25 / total * x + 2 * 0.5 / total**0.5)
    torch.testing.assert_close(told[0][0], x / total**0.5)
    torch.testing.assert_close(told[0][1], torch.full((4,), 2.0, dtype=torch.float64).log() / 4)


@pytest.mark.parametrize("process", [VariancePreserving(), RectifiedFlow()])
def test_same_network_in_another_process_sees_the_same(process):
    y, s = cloud(4, 3), torch.tensor(0.8, dtype=torch.float64)
    t = process.time_of_noise_level(s)
    expected = Preconditioned(lambda x, c: torch.sin(x + c[:, None]), EDM(), 0.5).predict(y, s).x0
    found = Preconditioned(lambda x, c: torch.sin(x + c[:, None]), process, 0.5).predict(process.alpha(t) * y, t).x0
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_a_zero_network_gives_the_posterior_mean_of_gaussian_data():
    """c_skip x is E[x0 | x] for data N(0, sigma_data^2)."""
    x, t, vp = cloud(4, 3), torch.tensor(0.4, dtype=torch.float64), VariancePreserving()
    alpha, sigma = vp.alpha(t), vp.sigma(t)
    found = Preconditioned(lambda x, c: torch.zeros_like(x), vp, 0.5).predict(x, t).x0
    torch.testing.assert_close(found, alpha * 0.25 / (alpha**2 * 0.25 + sigma**2) * x)


def test_sigma_data_must_be_positive():
    with pytest.raises(InvalidInput, match="sigma_data must be positive, got 0"):
        Preconditioned(lambda x, c: x, EDM(), 0)
