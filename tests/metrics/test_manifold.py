"""Distances to a set known by formula or by points, and the share of samples off it."""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from isocline._core.errors import InvalidInput, Mismatch, NotFinite
from isocline._core.stream import Stream
from isocline.metrics import manifold, nearest_distance, off_manifold


def circle(n: int) -> Tensor:
    angle = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
    return torch.stack([angle.cos(), angle.sin()], 1)


def to_circle(x: Tensor) -> Tensor:
    return (x.norm(dim=1) - 1).abs()


@pytest.mark.parametrize("chunk", [1, 7, 1024])
def test_the_nearest_point_is_found(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifold, "CHUNK", chunk)
    cloud, x = Stream(0).normal((30, 2, 2)), Stream(1).normal((20, 2, 2))
    naive = [min(math.dist(s.flatten().tolist(), p.flatten().tolist()) for p in cloud) for s in x]
    assert nearest_distance(cloud)(x).tolist() == pytest.approx(naive, rel=1e-12)


def test_a_dense_cloud_is_off_by_no_more_than_its_spacing_allows() -> None:
    """Outside the circle chords of length ``h`` bend away, so the flat bound holds; ``h = 2 pi / n`` to second order."""
    n = 200
    h = 2 * math.sin(math.pi / n)
    x = (1 + Stream(0).uniform((500, 1), dtype=torch.float64)) * circle(500)
    excess = nearest_distance(circle(n))(x) - to_circle(x)
    bound = torch.sqrt(to_circle(x) ** 2 + (h / 2) ** 2 * (1 + to_circle(x))) - to_circle(x)
    assert float(excess.min()) >= -1e-12
    assert bool((excess <= bound + 1e-12).all())
    assert float(nearest_distance(circle(n))(circle(2 * n)).max()) == pytest.approx(2 * math.sin(math.pi / 2 / n))


def test_noise_around_a_circle_has_its_known_share_and_distance() -> None:
    """Radial noise of standard deviation 0.05: the share beyond 0.1 is that of two sigma, the mean ``0.05 sqrt(2 / pi)``."""
    noise = 0.05 * Stream(0).normal((20000, 1), dtype=torch.float64)
    found = off_manifold((1 + noise) * circle(20000), to_circle)
    beyond = 2 * stats.norm.sf(2)
    assert found.share.low < beyond < found.share.high
    assert found.distance.low < 0.05 * math.sqrt(2 / math.pi) < found.distance.high
    assert found.share.value == pytest.approx(float((noise.abs() > 0.1).double().mean()))
    assert found.share.n == found.distance.n == 20000
    loose = off_manifold((1 + noise) * circle(20000), to_circle, tolerance=1.0)
    assert (loose.share.value, loose.distance) == (0, found.distance)


def test_a_cloud_serves_as_the_set() -> None:
    x = 1.2 * circle(50)
    found = off_manifold(x, nearest_distance(circle(5000)), tolerance=0.15, level=0.9)
    assert found.share.value == 1
    assert found.distance.value == pytest.approx(0.2, abs=1e-5)
    assert found.share.level == found.distance.level == 0.9


def test_bad_input_is_refused() -> None:
    with pytest.raises(Mismatch, match=r"returned shape \(4, 2\) for samples of shape \(4, 2\)"):
        off_manifold(circle(4), lambda x: x)
    with pytest.raises(NotFinite, match="1 of 4 distances are NaN or infinite"):
        off_manifold(circle(4) * torch.tensor([[1.0], [1.0], [1.0], [math.inf]]), lambda x: x.abs().amax(1))
    with pytest.raises(InvalidInput, match="must not be negative; take its absolute value"):
        off_manifold(circle(4) / 2, lambda x: x.norm(dim=1) - 1)
    with pytest.raises(InvalidInput, match="tolerance must be finite and not negative, got -1"):
        off_manifold(circle(4), to_circle, tolerance=-1)
    with pytest.raises(InvalidInput, match="shapes differ"):
        nearest_distance(circle(4))(torch.zeros(2, 3))
