r"""Linear interpolation.

X(t) = x_i + (t - t_i) (x_{i+1} - x_i) / (t_{i+1} - t_i)         for t_i <= t < t_{i+1}
"""

from __future__ import annotations

import torch
from torch import Tensor

from isocline.integrators.controls.base import ControlPath
from isocline.integrators.controls.missing import Observations, observed


class LinearPath(ControlPath):
    """The path through the data in straight lines; its derivative jumps at every observation.

    Integrate along it with ``controller=path.clip(...)``, so that no step sees two slopes. Causal at observation times: up
    to t_i it depends on the data up to t_i, and in a channel with gaps on the next value of that channel.

    Args:
        times: (T,), shared by all samples, or (*, T) with NaN at the end of shorter samples; strictly increasing.
        values: (*, T, C), NaN where nothing was observed.

    Raises:
        InvalidInput: shapes do not fit, times do not increase, a sample has fewer than two times, or a value is infinite.

    Examples:
        >>> path = LinearPath(torch.tensor([0.0, 1.0, 3.0]), torch.tensor([[0.0], [torch.nan], [6.0]]))
        >>> path.evaluate(0.5), path.derivative(0.5)  # nothing was observed at 1
        (tensor([1.]), tensor([2.]))
    """

    def __init__(self, times: Tensor, values: Tensor) -> None:
        data = observed(times, values)
        super().__init__(data.knots, lines(data), data.end, smooth=False)


def lines(data: Observations) -> Tensor:
    """Return the coefficients (*, T - 1, 2, C) of straight lines between each channel's observations."""
    x = data.values
    return data.pieces(torch.stack([x[..., :-1, :], x.diff(dim=-2) / data.widths], -2))
