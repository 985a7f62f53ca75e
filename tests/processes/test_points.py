import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline.processes import Empirical, FinitePoints, GaussianMixture, RectifiedFlow, VariancePreserving
from tests.contracts.denoisers import cloud

VP = VariancePreserving()


def test_points_against_a_loop():
    points, weights = cloud(5, 2, 3), torch.arange(1, 6, dtype=torch.float64) / 15
    x, t = cloud(4, 2, 3, name="x"), torch.tensor(0.3, dtype=torch.float64)
    alpha, sigma = VP.alpha(t), VP.sigma(t)
    found = FinitePoints(VP, points, weights).predict(x, t).x0
    for i in range(4):
        odds = [
            w * torch.exp(-((x[i] - alpha * p) ** 2).sum() / (2 * sigma**2))
            for w, p in zip(weights, points, strict=True)
        ]
        expected = sum(o * p for o, p in zip(odds, points, strict=True)) / sum(odds)
        torch.testing.assert_close(found[i], expected, rtol=1e-11, atol=1e-12)


def test_near_the_data_the_nearest_point_wins():
    points = cloud(6, 3)
    x = 0.999 * points + 1e-4
    found = FinitePoints(RectifiedFlow(), points).predict(x, 1e-3).x0
    torch.testing.assert_close(found, points, rtol=1e-12, atol=1e-12)


def test_samples_are_the_points():
    points = cloud(6, 2, 2)
    data = FinitePoints(VP, points).sample(200, 0)
    assert (data[:, None] == points[None]).flatten(2).all(-1).any(-1).all()


def test_empirical_is_a_mixture_around_the_data():
    data, x = cloud(6, 2, 3), cloud(4, 2, 3, name="x")
    flat = GaussianMixture(VP, data.flatten(1), torch.full((6,), 0.2, dtype=torch.float64)).predict(x.flatten(1), 0.3)
    found = Empirical(VP, data, 0.2).predict(x, 0.3)
    torch.testing.assert_close(found.x0.flatten(1), flat.x0, rtol=1e-13, atol=1e-13)
    points = FinitePoints(VP, data).predict(x, 0.3).x0
    torch.testing.assert_close(Empirical(VP, data, 1e-9).predict(x, 0.3).x0, points, rtol=1e-9, atol=1e-9)


def test_no_bandwidth_is_refused():
    with pytest.raises(InvalidInput, match="bandwidth must be positive, got 0; FinitePoints has none"):
        Empirical(VP, cloud(3, 2), 0)
