r"""The mean of independent values, with Student's interval ``m +- t_{n-1} s / sqrt(n)``."""

from __future__ import annotations

import math

from torch import Tensor

from isocline._core.errors import NotFinite, require
from isocline._core.estimate import Estimate


def mean_estimate(values: Tensor, level: float = 0.95) -> Estimate:
    """Return the mean of independent `values` (N,) with its Student interval, in the values' unit.

    Raises:
        InvalidInput: fewer than two values.
        NotFinite: a value is NaN or infinite.

    Examples:
        >>> import torch
        >>> print(mean_estimate(torch.tensor([1.0, 2.0, 3.0])))
        2 [-0.484, 4.48]
    """
    n = len(values)
    require(values.ndim == 1 and n > 1, f"a mean with an interval needs two values or more, got {tuple(values.shape)}")
    lost = int((~values.isfinite()).sum())
    if lost:
        raise NotFinite(f"{lost} of {n} values are NaN or infinite; a mean needs finite ones")
    values = values.double()
    value, half = float(values.mean()), student(level, n - 1) * float(values.std()) / math.sqrt(n)
    return Estimate(value, value - half, value + half, level, n)


def student(level: float, degrees: int) -> float:
    """Return the half-width of Student's interval in standard errors.

    >>> round(student(0.95, 19), 4)
    2.093
    """
    from scipy.special import stdtrit  # here, as most of what imports this room never asks for an interval

    require(0 < level < 1, f"the level of an interval lies between 0 and 1, got {level}")
    return float(stdtrit(degrees, (1 + level) / 2))
