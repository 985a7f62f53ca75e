import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.operators.conservation import conserved, projected


def problem(seed: int, n: int = 30, laws: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    root = torch.randn(n, n, generator=random, dtype=torch.float64)
    mean, G = (torch.randn(*s, generator=random, dtype=torch.float64) for s in ((n,), (laws, n)))
    return mean, root @ root.T + torch.eye(n, dtype=torch.float64), G / n, torch.arange(1.0, laws + 1).double()


@pytest.mark.parametrize("seed", range(5))
def test_law_holds_and_is_certain(seed: int) -> None:
    mean, covariance, G, b = problem(seed)
    for given in (covariance, covariance.diagonal()):
        new, left = conserved(mean, given, G, b)
        assert float((G @ new - b).abs().max()) <= 1e-12
        assert float((G @ left @ G.T).abs().max()) <= 1e-12
    assert float((G @ projected(mean, G, b) - b).abs().max()) <= 1e-12


@pytest.mark.parametrize("seed", range(5))
def test_noisy_law_is_the_posterior_by_precisions(seed: int) -> None:
    mean, covariance, G, b = problem(seed)
    precision = torch.linalg.inv(covariance) + G.T @ G / 0.3**2
    expected = torch.linalg.solve(precision, torch.linalg.solve(covariance, mean) + G.T @ b / 0.3**2)
    new, left = conserved(mean, covariance, G, b, 0.3)
    torch.testing.assert_close(new, expected, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(left, torch.linalg.inv(precision), rtol=1e-8, atol=1e-8)


def test_projection_is_the_nearest_and_variance_draws_the_correction() -> None:
    mean, _, G, b = problem(0)
    nearest = mean + torch.linalg.pinv(G) @ (b - G @ mean)
    torch.testing.assert_close(projected(mean, G, b), nearest)
    variance = torch.full_like(mean, 1e-3)
    variance[7] = 1e3
    flat = torch.full((1, len(mean)), 1 / len(mean), dtype=torch.float64)
    change = (conserved(mean, variance, flat, b[:1])[0] - mean).abs()
    torch.testing.assert_close(change / change[7], variance / variance[7])


def test_bad_input_is_refused() -> None:
    mean, covariance, G, b = problem(0)
    with pytest.raises(InvalidInput, match="singular"):
        conserved(mean, torch.zeros_like(mean), G, b)
    with pytest.raises(InvalidInput, match="sigma"):
        conserved(mean, covariance, G, b, -1.0)
    with pytest.raises(InvalidInput, match="covariance"):
        conserved(mean, covariance[:3], G, b)
