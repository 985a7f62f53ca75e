r"""Cubic Hermite interpolation with backward differences (Morrill, Kidger, Yang and Lyons, arXiv 2106.11028).

With secants D_i = (x_{i+1} - x_i) / h_i, h_i = t_{i+1} - t_i, the slope at t_i is that of the interval before, m_i = D_{i-1}, and
m_0 = D_0. The cubic on [t_i, t_{i+1}) with slopes m_i and m_{i+1} = D_i at its ends is

    X(t) = x_i + m_i s + 2 (D_i - m_i) s^2 / h_i - (D_i - m_i) s^3 / h_i^2 ,         s = t - t_i

It leaves the straight line by up to 4/27 |D_i - m_i| h_i. So a gap in a channel is filled in a straight line at the sample's other
times first: else a steep slope before a long gap would be carried on across all of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isocline._core.registry import Method
from isocline.integrators.controls.base import ControlPath
from isocline.integrators.controls.linear import lines
from isocline.integrators.controls.missing import observed

METHOD = Method(
    "online-controls",
    "Causal control paths",
    "Neural Controlled Differential Equations for Online Prediction Tasks",
    "Morrill, Kidger, Yang, Lyons",
    2021,
    "2106.11028",
    room="integrators.controls",
    when="Controls of a CDE that do not look ahead: Hermite in general, rectilinear where channels have gaps.",
)


@METHOD.variant()
class HermitePath(ControlPath):
    """The cubic path with backward differences: its derivative is continuous, and it is causal at observation times.

    Up to t_i it depends on the data up to t_i, and in a channel with gaps on the next value of that channel; where even
    that is too much take `RectilinearPath`. Its second derivative jumps at observations: methods of high order want
    steps that end there, ``controller=path.clip(PID(...))``. Source: Morrill, Kidger, Yang and Lyons, arXiv 2106.11028.

    Args:
        times: (T,), shared by all samples, or (*, T) with NaN at the end of shorter samples; strictly increasing.
        values: (*, T, C), NaN where nothing was observed.

    Raises:
        InvalidInput: shapes do not fit, times do not increase, a sample has fewer than two times, or a value is infinite.

    Examples:
        >>> path = HermitePath(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([[0.0], [1.0], [0.0]]))
        >>> path.evaluate(1.0), path.derivative(1.0), path.derivative(2.0)
        (tensor([1.]), tensor([1.]), tensor([-1.]))
    """

    def __init__(self, times: Tensor, values: Tensor) -> None:
        data = observed(times, values)
        x = torch.cat([lines(data)[..., 0, :], data.values[..., -1:, :]], -2)
        h = data.knots.diff(dim=-1)[..., None].to(x)
        secant = x.diff(dim=-2) / h
        slope = torch.cat([secant[..., :1, :], secant[..., :-1, :]], -2)
        turn = (secant - slope) / h
        own = torch.stack([x[..., :-1, :], slope, 2 * turn, -turn / h], -2)
        super().__init__(data.knots, own, data.end)
