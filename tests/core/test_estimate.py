"""Estimates, costs and budgets: what an interval promises, and what is refused."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isocline._core.errors import InvalidInput
from isocline._core.estimate import Budget, Cost, Estimate, bootstrap, bootstrap_median, bootstrap_median_ratio
from isocline._core.stream import Stream

numbers = st.floats(-1e6, 1e6)


def mean(x: torch.Tensor) -> torch.Tensor:
    return x.mean(-1)


@given(st.lists(numbers, min_size=3, max_size=3).map(sorted))
@settings(deadline=None)
def test_an_interval_holds_its_value(ends: list[float]) -> None:
    low, value, high = ends
    assert Estimate(value, low, high).low == low
    for wrong in [(low, value, high + 1), (high + 1, low, value)]:
        with pytest.raises(InvalidInput, match="low <= value <= high"):
            Estimate(wrong[0] - (2 + high - low), *wrong[1:])


@pytest.mark.parametrize("position", range(3))
def test_nan_is_no_estimate(position: int) -> None:
    ends = [1.0, 1.0, 1.0]
    ends[position] = math.nan
    with pytest.raises(InvalidInput, match="an estimate needs"):
        Estimate(*ends)


def test_coverage_of_the_bootstrap_interval() -> None:
    # Intervals of the mean of 40 exponentials, level 0.9; the percentile bootstrap is known to undercover a little.
    trials, n = 400, 40
    hits = 0
    for trial in range(trials):
        x = -Stream(trial, "data").uniform((n,), dtype=torch.float64).log()
        e = bootstrap(mean, x, rng=Stream(trial, "resample"), resamples=400, level=0.9)
        hits += e.low <= 1.0 <= e.high
    spread = math.sqrt(0.9 * 0.1 / trials)
    assert 0.9 - 0.03 - 3 * spread < hits / trials < 0.9 + 3 * spread


def test_bootstrap_agrees_with_a_loop_over_resamples() -> None:
    x = Stream(0, "x").normal((25,), dtype=torch.float64)
    e = bootstrap(mean, x, rng=3, resamples=500, level=0.8)
    index = Stream(3).child("bootstrap").integers(25, (500, 25)).numpy()
    draws = [x.numpy()[row].mean() for row in index]
    np.testing.assert_allclose([e.low, e.high], np.quantile(draws, [0.1, 0.9]), rtol=1e-12)
    assert (e.value, e.level, e.n) == (pytest.approx(float(x.mean()), rel=1e-15), 0.8, 25)


def test_the_interval_of_a_mean_shrinks_like_one_over_root_n() -> None:
    widths = []
    for n in (100, 1600):
        x = Stream(1, "x").normal((n,), dtype=torch.float64)
        e = bootstrap(mean, x, rng=0)
        widths.append(e.high - e.low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.25)


def test_paired_samples_are_resampled_together() -> None:
    below = 1 + Stream(0, "x").uniform((60,), dtype=torch.float64)
    exact = bootstrap_median_ratio(2 * below, below, rng=0)
    assert (exact.low, exact.value, exact.high) == (2.0, 2.0, 2.0)
    shuffled = bootstrap_median_ratio(2 * below[Stream(0).permutation(60)], below, rng=0)
    assert shuffled.value == 2.0
    assert shuffled.high - shuffled.low > 0.1


def test_a_ratio_above_one_reads_numerator_over_denominator() -> None:
    a, b = torch.full((5,), 6.0), torch.full((5,), 3.0)
    assert bootstrap_median_ratio(a, b, rng=0).value == 2.0


def test_the_interval_is_a_function_of_the_seed() -> None:
    x = Stream(2).normal((30,), dtype=torch.float64)
    assert bootstrap(mean, x, rng=1) == bootstrap(mean, x, rng=1)
    assert bootstrap(mean, x, rng=1) != bootstrap(mean, x, rng=2)
    assert bootstrap_median(x, 1).value == bootstrap_median(x, 2).value == float(x.median())


def test_bootstrap_refuses_what_it_cannot_resample() -> None:
    with pytest.raises(InvalidInput, match="at least two samples, got 1"):
        bootstrap(mean, torch.ones(1), rng=0)
    for other in (torch.ones(4), torch.ones(3, 2)):
        with pytest.raises(InvalidInput, match="1-D and of equal length"):
            bootstrap(mean, torch.ones(3), other, rng=0)


costs = st.builds(Cost, calls=st.integers(0, 99), vjps=st.integers(0, 99), seconds=st.integers(0, 99).map(float))


@given(costs, costs, costs)
@settings(deadline=None)
def test_costs_add_field_by_field(a: Cost, b: Cost, c: Cost) -> None:
    total = a + b
    assert total.as_dict() == {name: a.as_dict()[name] + b.as_dict()[name] for name in ("calls", "vjps", "seconds")}
    assert (a + b) + c == a + (b + c)
    assert a + Cost() == a


def test_a_budget_needs_a_limit() -> None:
    with pytest.raises(InvalidInput, match="names at least one"):
        Budget()


@pytest.mark.parametrize("limit", ["calls", "seconds", "points", "parameters"])
@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_a_limit_of_nothing_is_refused_by_name(limit: str, value: float) -> None:
    with pytest.raises(InvalidInput, match=f"the budget's {limit} must be"):
        Budget(**{limit: value})  # type: ignore[arg-type]


def test_part_of_a_second_is_a_budget_but_part_of_a_call_is_not() -> None:
    assert Budget(seconds=0.5).seconds == 0.5
    with pytest.raises(InvalidInput, match="the budget's calls must be at least 1"):
        Budget(calls=0.5)  # type: ignore[arg-type]
