import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from isocline._core.errors import InvalidInput
from isocline.metrics import proportion


@given(trials=st.integers(1, 10_000), share=st.floats(0, 1), level=st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_the_interval_is_wilsons(trials, share, level):
    successes = round(share * trials)
    estimate = proportion(successes, trials, level)
    expected = binomtest(successes, trials).proportion_ci(level, method="wilson")
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert estimate.value == successes / trials


@pytest.mark.parametrize(("successes", "trials"), [(3, 2), (-1, 2), (0, 0)])
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(InvalidInput, match=f"{successes} successes in {trials} trials"):
        proportion(successes, trials)
