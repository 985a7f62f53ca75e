import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.metrics import distances, energy_distance, rms, sliced_wasserstein, two_sample_floor


def normal(n: int, width: int, seed: int) -> torch.Tensor:
    return Stream(seed, "test").normal((n, width), dtype=torch.float64)


sizes = st.integers(1, 12)
seeds = st.integers(0, 1000)


def test_rms_is_the_root_of_the_mean_square_of_each_sample():
    a, b = normal(3, 8, 0).reshape(3, 2, 2, 2), normal(3, 8, 1).reshape(3, 2, 2, 2)
    naive = [math.sqrt(sum(float(d) ** 2 for d in (x - y).flatten()) / 8) for x, y in zip(a, b, strict=True)]
    assert rms(a, b).tolist() == pytest.approx(naive, rel=1e-12)
    assert rms(a.float(), b.float()).dtype == torch.float32
    with pytest.raises(InvalidInput, match="sample by sample"):
        rms(a, b[:1])


@given(n=sizes, m=sizes, seed=seeds)
def test_in_one_dimension_sliced_is_the_wasserstein_distance(n, m, seed):
    a, b = normal(n, 1, seed), normal(m, 1, seed + 1) * 2 + 1
    expected = stats.wasserstein_distance(a.flatten().numpy(), b.flatten().numpy())
    assert sliced_wasserstein(a, b, rng=seed, directions=3) == pytest.approx(expected, rel=1e-12)


def test_a_shift_moves_every_projection_by_its_own_projection():
    a, shift = normal(20, 3, 0), torch.tensor([1.0, -2.0, 2.0], dtype=torch.float64)
    n = 10_000
    value = sliced_wasserstein(a, a + shift, rng=0, directions=n)
    # on the sphere in R^3 a coordinate is uniform in [-1, 1]: E|u . shift| = |shift| / 2, with variance |shift|^2 / 12
    assert abs(value - 1.5) < 4 * 3 / math.sqrt(12 * n)


@given(n=sizes, seed=seeds, times=st.integers(2, 4))
def test_repeating_every_sample_changes_nothing(n, seed, times):
    a, b = normal(n, 3, seed), normal(7, 3, seed + 1)
    for metric in (lambda x, y: sliced_wasserstein(x, y, 0, 8), energy_distance):
        value = metric(a, b)
        assert metric(a.repeat(times, 1), b) == pytest.approx(value, rel=1e-9)
        assert metric(b, a) == pytest.approx(value, rel=1e-9)
        assert metric(3 * a, 3 * b) == pytest.approx(3 * value, rel=1e-9)
        assert metric(a, a.flip(0)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("chunk", [1, 4, 1024])
def test_energy_distance_is_the_double_loop(chunk, monkeypatch):
    monkeypatch.setattr(distances, "CHUNK", chunk)
    a, b = normal(9, 4, 0).reshape(9, 2, 2), 2 * normal(6, 4, 1).reshape(6, 2, 2)

    def mean(x, y):
        return sum(math.dist(p.flatten().tolist(), q.flatten().tolist()) for p in x for q in y) / (len(x) * len(y))

    assert energy_distance(a, b) == pytest.approx(2 * mean(a, b) - mean(a, a) - mean(b, b), rel=1e-12)


@given(n=sizes, m=sizes, seed=seeds)
def test_in_one_dimension_energy_is_twice_the_cramer_distance(n, m, seed):
    a, b = normal(n, 1, seed), normal(m, 1, seed + 1) + 0.5
    expected = stats.energy_distance(a.flatten().numpy(), b.flatten().numpy()) ** 2
    assert energy_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_near_points_keep_their_digits_far_from_the_origin():
    a, b = torch.tensor([[1e6, 1e6]]), torch.tensor([[1e6, 1e6 + 0.5]])
    assert energy_distance(a.double().repeat(30, 1), b.double().repeat(30, 1)) == 1.0


def test_samples_that_do_not_fit_are_refused():
    for metric in (lambda x, y: sliced_wasserstein(x, y, 0), energy_distance):
        with pytest.raises(InvalidInput, match=r"shapes differ: \(3,\) and \(2,\)"):
            metric(normal(4, 3, 0), normal(4, 2, 0))
        with pytest.raises(InvalidInput, match=r"samples are \(N, \*\)"):
            metric(torch.zeros(4), torch.zeros(4))
        with pytest.raises(InvalidInput, match="at least one sample"):
            metric(torch.zeros(0, 3), torch.zeros(4, 3))


def mean_gap(a, b):
    return float((a.mean() - b.mean()).abs())


def test_the_floor_of_a_difference_of_means_is_that_of_a_normal_variable():
    n = 1000
    floor = two_sample_floor(mean_gap, normal(n, 1, 0), rng=1, splits=600)
    unit = 2 / math.sqrt(n)  # halves of n / 2 each: the difference has variance 4 / n
    assert floor.value / unit == pytest.approx(0.6745, rel=0.15)
    assert floor.high / unit == pytest.approx(2.2414, rel=0.12)
    assert floor.low / unit == pytest.approx(0.0313, abs=0.03)
    assert floor.n == n // 2


def test_the_halves_are_disjoint_and_together_the_whole_sample():
    sample = torch.arange(11.0).reshape(11, 1)
    seen = []

    def record(a, b):
        seen.append((set(a.flatten().tolist()), set(b.flatten().tolist())))
        return 0.0

    two_sample_floor(record, sample, rng=0, splits=20)
    assert all(len(a) == len(b) == 5 and not a & b for a, b in seen)
    assert len({frozenset(a) for a, _ in seen}) > 10


def test_the_floor_tells_equal_from_different():
    sample, same, other = normal(400, 2, 0), normal(200, 2, 1), normal(200, 2, 2) + 0.5
    floor = two_sample_floor(energy_distance, sample, rng=0)
    assert energy_distance(sample[:200], same) < floor.high < energy_distance(sample[:200], other)
    with pytest.raises(InvalidInput, match="needs two samples"):
        two_sample_floor(energy_distance, sample[:1], rng=0)
