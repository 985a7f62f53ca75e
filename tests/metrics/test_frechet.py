import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from isocline._core.errors import InvalidInput, NotFinite
from isocline._core.stream import Stream
from isocline.metrics import frechet_distance, frechet_estimate, frechet_infinite


def normal(n: int, width: int, seed: int, name: str = "") -> torch.Tensor:
    return Stream(seed, name).normal((n, width), dtype=torch.float64)


def standard(n: int, width: int, seed: int) -> torch.Tensor:
    """Samples whose empirical mean is 0 and whose empirical covariance is the identity."""
    x = normal(n, width, seed)
    orthonormal, _ = torch.linalg.qr(x - x.mean(0))
    return orthonormal * math.sqrt(n - 1)


@given(seed=st.integers(0, 1000), width=st.integers(1, 6))
def test_diagonal_covariances_have_a_closed_form(seed, width):
    mean, scale = normal(2, width, seed, "mean"), normal(2, width, seed, "scale").abs()
    a, b = (mean[i] + scale[i] * standard(20 + i, width, seed + i) for i in range(2))
    exact = (mean[0] - mean[1]).square().sum() + (scale[0] - scale[1]).square().sum()
    assert frechet_distance(a, b) == pytest.approx(float(exact), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_general_covariances_agree_with_the_matrix_square_root(seed):
    a = normal(40, 5, seed) @ normal(5, 5, seed, "mix a")
    b = normal(50, 5, seed, "b") @ normal(5, 5, seed, "mix b") + 1
    cov_a, cov_b = a.T.cov(), b.T.cov()
    root = torch.from_numpy(sqrtm((cov_a @ cov_b).numpy()).real)
    expected = (a.mean(0) - b.mean(0)).square().sum() + (cov_a + cov_b - 2 * root).trace()
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-9)


@given(seed=st.integers(0, 1000), factor=st.floats(0.1, 10))
def test_rotation_translation_order_and_unit(seed, factor):
    a, b = normal(30, 4, seed), normal(25, 4, seed, "b") * 1.5 + 0.3
    rotation, _ = torch.linalg.qr(normal(4, 4, seed, "rotation"))
    value = frechet_distance(a, b)
    assert frechet_distance(a @ rotation + 7, b @ rotation + 7) == pytest.approx(value, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(value, rel=1e-9)
    assert frechet_distance(a.flip(0), b) == pytest.approx(value, rel=1e-9)
    assert frechet_distance(factor * a, factor * b) == pytest.approx(factor**2 * value, rel=1e-9)


def test_identical_sets_are_at_zero_and_a_shift_adds_its_square():
    a = normal(100, 8, 0) @ normal(8, 8, 0, "mix")
    shift = torch.arange(8.0, dtype=torch.float64)
    assert frechet_distance(a, a) < 1e-11
    b = normal(80, 8, 1)
    gap = float((shift + b.mean(0) - a.mean(0)).square().sum() - (b.mean(0) - a.mean(0)).square().sum())
    assert frechet_distance(a, b + shift) - frechet_distance(a, b) == pytest.approx(gap, rel=1e-10)


def test_features_that_never_vary_are_no_obstacle():
    a, b = standard(30, 3, 0), 2 * standard(30, 3, 1)
    dead = torch.full((30, 2), 5.0, dtype=torch.float64)
    value = frechet_distance(torch.cat([a, dead], 1), torch.cat([b, dead], 1))
    assert value == pytest.approx(3.0, rel=1e-9)


def test_float32_features_are_computed_in_float64():
    a, b = normal(50, 3, 0).float() + 1000, normal(50, 3, 1).float() + 1000
    assert frechet_distance(a, b) == frechet_distance(a.double(), b.double())


def test_bad_features_are_refused():
    with pytest.raises(InvalidInput, match="5 features needs more than 5 samples, got 5"):
        frechet_distance(normal(5, 5, 0), normal(9, 5, 1))
    with pytest.raises(InvalidInput, match="differ in width"):
        frechet_distance(normal(9, 5, 0), normal(9, 4, 1))
    with pytest.raises(InvalidInput, match=r"must be \(N, F\)"):
        frechet_distance(normal(9, 4, 0).reshape(9, 2, 2), normal(9, 4, 1))
    with pytest.raises(NotFinite, match="NaN or infinity"):
        frechet_distance(normal(9, 4, 0) / 0, normal(9, 4, 1))
    with pytest.raises(InvalidInput, match="needs 2 to 9 groups, got 10"):
        frechet_estimate(normal(9, 4, 0), normal(12, 4, 1), 0, 10)
    with pytest.raises(InvalidInput, match="more than 4 samples"):
        frechet_estimate(normal(6, 4, 0), normal(6, 4, 1), 0, 2)


TRIALS = 100


def estimates(scale: float, shift: float, trials: int = TRIALS):
    for seed in range(trials):
        a, b = normal(300, 4, seed, "a"), shift + scale * normal(200, 4, seed, "b")
        yield frechet_distance(a, b), frechet_estimate(a, b, seed, 20)


def test_the_interval_holds_the_truth_as_often_as_it_says_and_is_no_wider_than_needed():
    truth = 4 * (0.2**2 + 0.3**2)
    plain, corrected = zip(*estimates(1.3, 0.2), strict=True)
    hits = sum(e.low <= truth <= e.high for e in corrected)
    assert hits >= 90  # a 95 % interval fails this in about 1 of 80 sets of trials
    values = torch.tensor([e.value for e in corrected])
    spread = float(values.std())
    assert abs(float(values.mean()) - truth) < 3 * spread / math.sqrt(TRIALS)
    assert sum(plain) / TRIALS - truth > 4 * spread / math.sqrt(TRIALS)  # the bias that is removed
    half = sum(e.high - e.low for e in corrected) / (2 * TRIALS)
    assert 0.8 < half / (2.09 * spread) < 1.25  # 2.09: Student's 97.5 % point with 19 degrees of freedom


def test_equal_distributions_are_not_told_apart():
    plain, corrected = zip(*estimates(1.0, 0.0, 40), strict=True)
    assert min(plain) > 0
    assert sum(e.low == 0 for e in corrected) >= 38
    assert sum(e.value for e in corrected) < sum(plain) / 3


def test_the_groups_depend_on_the_seed_alone():
    a, b = normal(60, 3, 0), normal(50, 3, 1)
    assert frechet_estimate(a, b, 5, 10) == frechet_estimate(a, b, 5, 10)
    assert frechet_estimate(a, b, 5, 10) != frechet_estimate(a, b, 6, 10)
    assert frechet_estimate(a, b, 5, 10).n == 50


def test_leaving_out_single_samples_is_the_ordinary_jackknife():
    a, b = normal(12, 2, 0), 2 * normal(12, 2, 1) + 1
    rng = Stream(3)
    estimate = frechet_estimate(a, b, rng, 12)
    order_a, order_b = (rng.child("frechet").child(name).permutation(12).tolist() for name in "ab")
    left_out = 0.0
    for j in range(12):
        rest_a = torch.stack([x for x, place in zip(a, order_a, strict=True) if place != j])
        rest_b = torch.stack([x for x, place in zip(b, order_b, strict=True) if place != j])
        left_out += frechet_distance(rest_a, rest_b) / 12
    assert estimate.value == pytest.approx(12 * frechet_distance(a, b) - 11 * left_out, rel=1e-9)


def test_two_numbers_of_blocks_extrapolate_by_hand() -> None:
    a, b = normal(60, 3, 0), 1.5 * normal(50, 3, 1) + 0.3
    rng = Stream(4)
    order_a, order_b = (rng.child("frechet-infinite").child(name).permutation(n) for name, n in (("a", 60), ("b", 50)))
    x, y = a[order_a], b[order_b]
    halves = (frechet_distance(x[:30], y[:25]) + frechet_distance(x[30:], y[25:])) / 2
    found = frechet_infinite(a, b, rng, 2, groups=5)
    assert found.value == pytest.approx(2 * frechet_distance(a, b) - halves, rel=1e-12)
    left_out = []
    for j in range(5):
        u, v = (torch.stack([row for i, row in enumerate(z) if i % 5 != j]) for z in (x, y))
        left_out.append(
            2 * frechet_distance(u, v) - (frechet_distance(u[:24], v[:20]) + frechet_distance(u[24:], v[20:])) / 2
        )
    variance = 4 / 5 * sum((value - sum(left_out) / 5) ** 2 for value in left_out)
    assert found.high - found.value == pytest.approx(2.7764451 * math.sqrt(variance), rel=1e-6)  # Student, 4 degrees
    assert found.n == 50


def test_a_distance_that_is_a_line_in_the_inverse_number_is_recovered(monkeypatch: pytest.MonkeyPatch) -> None:
    from isocline.metrics import frechet

    monkeypatch.setattr(frechet, "frechet_distance", lambda a, b: 0.7 + 3 / len(a) + 5 / len(b))
    found = frechet_infinite(normal(1200, 2, 0), normal(600, 2, 1), 0, groups=2)
    assert (found.value, found.low) == pytest.approx((0.7, 0.7), rel=1e-9)


def test_the_value_at_infinite_samples_is_unbiased_and_its_interval_holds_the_truth() -> None:
    truth, trials = 4 * (0.2**2 + 0.3**2), 40
    sets = [(normal(300, 4, seed, "a"), 0.2 + 1.3 * normal(200, 4, seed, "b")) for seed in range(trials)]
    found = [frechet_infinite(a, b, seed, 2, groups=10) for seed, (a, b) in enumerate(sets)]
    values = torch.tensor([e.value for e in found])
    standard_error = float(values.std()) / math.sqrt(trials)
    assert abs(float(values.mean()) - truth) < 3 * standard_error
    assert (
        sum(frechet_distance(a, b) for a, b in sets) / trials - truth > 3 * standard_error
    )  # the bias that is removed
    assert sum(e.low <= truth <= e.high for e in found) >= 35
    half = sum(e.high - e.low for e in found) / (2 * trials)
    assert 0.8 < half / (2.26 * float(values.std())) < 1.5  # 2.26: Student's 97.5 % point with 9 degrees of freedom


def test_an_extrapolation_without_room_is_refused() -> None:
    a, b = normal(40, 4, 0), normal(30, 4, 1)
    with pytest.raises(InvalidInput, match="at least two numbers of blocks, got 1"):
        frechet_infinite(a, b, 0, 1)
    with pytest.raises(InvalidInput, match="needs 2 to 30 groups, got 31"):
        frechet_infinite(a, b, 0, groups=31)
    with pytest.raises(InvalidInput, match="more than 4 samples"):
        frechet_infinite(a, b, 0, 10, groups=3)
