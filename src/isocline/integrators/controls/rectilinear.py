r"""Rectilinear interpolation: time moves first, then the values (Morrill, Kidger, Yang and Lyons, arXiv 2106.11028).

The path has an axis u of its own, from 0 to 2 (T - 1). With x_i the last values known at t_i it is linear between

    X(2 i)     = (t_i,     x_i)
    X(2 i + 1) = (t_{i+1}, x_i)               time has moved, nothing new is known
    X(2 i + 2) = (t_{i+1}, x_{i+1})           the new values arrive

so that at u = 2 i, and before it, nothing depends on what is observed after t_i, gaps or not. A missing value is the last one of
its channel, or 0 where there was none yet: the first one may not be known beforehand.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isocline.integrators.controls.base import ControlPath
from isocline.integrators.controls.hermite import METHOD
from isocline.integrators.controls.missing import checked, held


@METHOD.variant()
class RectilinearPath(ControlPath):
    """The path that moves in time first and in values afterwards: causal everywhere, also where channels have gaps.

    It has C + 1 channels: time, then those of `values`. It runs on an axis of its own, from 0 to 2 (T - 1); `axis` says
    where on it a time lies. Its derivative jumps at every whole number: integrate with
    ``controller=path.clip(...)``. Source: Morrill, Kidger, Yang and Lyons, arXiv 2106.11028.

    Args:
        times: (T,), shared by all samples, or (*, T) with NaN at the end of shorter samples; strictly increasing.
        values: (*, T, C), NaN where nothing was observed; without a channel of time.

    Raises:
        InvalidInput: shapes do not fit, times do not increase, a sample has fewer than two times, or a value is infinite.

    Examples:
        >>> path = RectilinearPath(torch.tensor([0.0, 1.0]), torch.tensor([[5.0], [7.0]]))
        >>> path.evaluate(0.0), path.evaluate(1.0), path.evaluate(2.0)
        (tensor([0., 5.]), tensor([1., 5.]), tensor([1., 7.]))
    """

    def __init__(self, times: Tensor, values: Tensor) -> None:
        knots, end, seen = checked(times, values)
        x = held(values, seen)
        time = knots.to(x)[..., None].expand(*x.shape[:-1], 1)
        known = torch.cat([time, x], -1)
        moved = torch.cat([time[..., 1:, :], x[..., :-1, :]], -1)
        corners = torch.cat([torch.stack([known[..., :-1, :], moved], -2).flatten(-3, -2), known[..., -1:, :]], -2)
        coefficients = torch.stack([corners[..., :-1, :], corners.diff(dim=-2)], -2)
        axis = torch.arange(corners.shape[-2], dtype=torch.float64, device=x.device)
        super().__init__(axis, coefficients, 2.0 * (knots < end[..., None]).sum(-1).double(), smooth=False)
        object.__setattr__(self, "times", knots)

    def axis(self, t: Tensor | float) -> Tensor:
        """Return where on the path's axis times lie, all that was observed up to then included.

        Args:
            t: times; a number, or a shape that broadcasts against (*, 1) where samples have times of their own.

        Returns:
            float64, in [2 i, 2 i + 1) for times in [t_i, t_{i+1}).
        """
        times: Tensor = self.times  # type: ignore[attr-defined]
        t = torch.as_tensor(t, dtype=torch.float64, device=times.device)[..., None]
        i = (t >= times[..., 1:-1]).sum(-1, keepdim=True)
        ends = times.expand(*i.shape[:-1], times.shape[-1])
        before, after = ends.gather(-1, i), ends.gather(-1, i + 1)
        share = ((t - before) / (after - before)).clamp(0, 1)
        return torch.minimum((2 * i + share + (share == 1))[..., 0], self.end)
