import math

import pytest
import torch
from scipy import stats

from isocline._core.errors import InvalidInput, NotFinite
from isocline._core.stream import Stream
from isocline.metrics import mean_estimate


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_the_interval_is_students(level: float) -> None:
    values = Stream(0).normal((17,), dtype=torch.float64) * 3 + 5
    found = mean_estimate(values, level)
    low, high = stats.t.interval(level, 16, loc=float(values.mean()), scale=float(values.std()) / math.sqrt(17))
    assert (found.value, found.low, found.high) == pytest.approx((float(values.mean()), low, high), rel=1e-12)
    assert (found.level, found.n) == (level, 17)


def test_what_has_no_interval_is_refused() -> None:
    for values in (torch.ones(1), torch.ones(3, 2)):
        with pytest.raises(InvalidInput, match="needs two values or more"):
            mean_estimate(values)
    with pytest.raises(NotFinite, match="2 of 3 values are NaN or infinite"):
        mean_estimate(torch.tensor([1.0, math.nan, math.inf]))
    with pytest.raises(InvalidInput, match="between 0 and 1, got 95"):
        mean_estimate(torch.ones(3), level=95)
