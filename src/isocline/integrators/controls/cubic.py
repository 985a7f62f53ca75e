r"""Natural cubic splines, each channel through its own observations.

With h_i = t_{i+1} - t_i, secants D_i and second derivatives M_i at the observations, continuity of the first derivative asks for

    h_{i-1} M_{i-1} + 2 (h_{i-1} + h_i) M_i + h_i M_{i+1} = 6 (D_i - D_{i-1}) ,        M_0 = M_{n-1} = 0

one tridiagonal system for each channel of each sample. They are solved together by cyclic reduction: adding multiples of the rows
k before and k behind to each row leaves rows that are coupled over a distance of 2k, so that after log2(T) rounds none are coupled.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isocline.integrators.controls.base import ControlPath
from isocline.integrators.controls.missing import observed


class NaturalCubicPath(ControlPath):
    """The natural cubic spline through the data: twice continuously differentiable, and not causal.

    A change of one value changes the path everywhere. Source: Kidger, Morrill, Foster and Lyons, arXiv 2005.08926.

    Args:
        times: (T,), shared by all samples, or (*, T) with NaN at the end of shorter samples; strictly increasing.
        values: (*, T, C), NaN where nothing was observed.

    Raises:
        InvalidInput: shapes do not fit, times do not increase, a sample has fewer than two times, or a value is infinite.

    Examples:
        >>> path = NaturalCubicPath(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([[0.0], [1.0], [0.0]]))
        >>> path.evaluate(0.5), path.derivative(0.0)  # 1.5 s - 0.5 s^3
        (tensor([0.6875]), tensor([1.5000]))
    """

    def __init__(self, times: Tensor, values: Tensor) -> None:
        data = observed(times, values)
        x, h = data.values, data.widths
        secant = x.diff(dim=-2) / h
        m = _second_derivatives(secant.double(), data.times.diff(dim=-2), data.count).to(x)
        before, after = m[..., :-1, :], m[..., 1:, :]
        slope = secant - h * (2 * before + after) / 6
        own = torch.stack([x[..., :-1, :], slope, before / 2, (after - before) / (6 * h)], -2)
        super().__init__(data.knots, data.pieces(own), data.end)


def _second_derivatives(secant: Tensor, h: Tensor, count: Tensor) -> Tensor:
    """Return second derivatives (*, T, C) at each channel's first `count` (*, 1, C) observations; 0 behind them."""
    place = torch.arange(1, h.shape[-2], device=h.device)[:, None]
    inner = place < count - 1
    before, after = (torch.where(inner, x, 0.0) for x in (h[..., :-1, :], h[..., 1:, :]))
    diagonal = torch.where(inner, 2 * (before + after), 1.0)
    right = torch.where(inner, 6 * secant.diff(dim=-2), 0.0)
    return torch.nn.functional.pad(tridiagonal(before, diagonal, after, right), (0, 0, 1, 1))


def tridiagonal(lower: Tensor, diagonal: Tensor, upper: Tensor, right: Tensor) -> Tensor:
    """Solve ``lower_i x_{i-1} + diagonal_i x_i + upper_i x_{i+1} = right_i`` for each channel by cyclic reduction.

    Args:
        lower: (*, n, C); what it couples beyond the first row is ignored.
        diagonal: (*, n, C), larger than the sum of its neighbours in the row.
        upper: (*, n, C); what it couples beyond the last row is ignored.
        right: (*, n, C).

    Returns:
        The solution, (*, n, C).
    """
    k, n = 1, diagonal.shape[-2]
    while k < n:
        left, after = -lower / _shifted(diagonal, k, 1.0), -upper / _shifted(diagonal, -k, 1.0)
        diagonal = diagonal + left * _shifted(upper, k) + after * _shifted(lower, -k)
        right = right + left * _shifted(right, k) + after * _shifted(right, -k)
        lower, upper = left * _shifted(lower, k), after * _shifted(upper, -k)
        k *= 2
    return right / diagonal


def _shifted(x: Tensor, k: int, beyond: float = 0.0) -> Tensor:
    """Return x_{i-k} in row i; `beyond` where there is no such row."""
    part = x.narrow(-2, max(-k, 0), max(x.shape[-2] - abs(k), 0))
    return torch.nn.functional.pad(part, (0, 0, max(k, 0), max(-k, 0)), value=beyond)
