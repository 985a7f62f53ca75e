r"""Irregular data with gaps, made ready for interpolation; channels for time and for how much was observed.

NaN in `values` stands for a value that was not observed; NaN at the end of a row of `times` pads a sample that is shorter than
the others. A channel j of a sample has observation times of its own, tau_0 < tau_1 < ..., a part of the times of the sample:

    before the first observation    the first observed value, at all times of the sample: the control does not move yet
    between two observations        left to the interpolation, which goes through the channel's own observations only
    after the last observation      the last observed value, at all times of the sample that are left
    no observation at all           0: the channel says nothing

An interpolation computes one polynomial for each interval [tau_i, tau_{i+1}); `Observations.pieces` writes it down again for each
interval of the sample's times, shifted to start there, which changes nothing: p(s + delta) is a polynomial in s.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, require


@dataclass(frozen=True)
class Observations:
    """What was observed, each channel on its own.

    Args:
        knots: times of the sample, (T,) or (*, T), float64; where they were padded they go on by ones.
        end: last time, () or (*).
        times: times of each channel's observations, (*, T, C); after the last one they go on by ones.
        values: what was observed, (*, T, C); after the last one it is repeated.
        count: number of observations, (*, 1, C), at least 2, as both ends of a sample are filled.
        interval: which of the channel's intervals each interval of `knots` lies in, (*, T - 1, C).
    """

    knots: Tensor
    end: Tensor
    times: Tensor
    values: Tensor
    count: Tensor
    interval: Tensor

    @property
    def widths(self) -> Tensor:
        """Lengths of each channel's intervals, (*, T - 1, C), in the precision of the values."""
        return self.times.diff(dim=-2).to(self.values)

    def pieces(self, own: Tensor) -> Tensor:
        """Return coefficients (*, T - 1, P, C) on the intervals of `knots`, given those on each channel's own."""
        delta = (self.knots[..., :-1, None] - self.times.gather(-2, self.interval)).to(own)
        found = [x.gather(-2, self.interval) for x in own.unbind(-2)]
        for k in range(len(found) - 1):
            for j in range(len(found) - 2, k - 1, -1):
                found[j] = found[j] + delta * found[j + 1]
        return torch.stack(found, -2)


def observed(times: Tensor, values: Tensor) -> Observations:
    """Return the observations of each channel.

    Args:
        times: (T,), shared by all samples, or (*, T) with NaN at the end of shorter samples; strictly increasing.
        values: (*, T, C); NaN where nothing was observed.

    Raises:
        InvalidInput: shapes do not fit, times do not increase, a sample has fewer than two times, or a value is infinite.
    """
    knots, end, seen = checked(times, values)
    inside = (knots <= end[..., None])[..., None]
    place = torch.arange(values.shape[-2], device=values.device)[:, None]
    known, first = seen.any(-2, keepdim=True), seen.byte().argmax(-2, keepdim=True)
    last = (seen * place).argmax(-2, keepdim=True)
    x = held(values, seen)
    x = torch.where(known & (place < first), x.gather(-2, first), x)
    return _packed(knots, end, (seen | (place < first) | (place > last) | ~known) & inside, x, place)


def _packed(knots: Tensor, end: Tensor, seen: Tensor, x: Tensor, place: Tensor) -> Observations:
    """Return what was seen with each channel's observations moved to the front."""
    order = (~seen).byte().argsort(dim=-2, stable=True)
    count = seen.sum(-2, keepdim=True)
    beyond = place >= count
    times = knots[..., None].expand(x.shape).gather(-2, order)
    times = torch.where(beyond, end[..., None, None] + (place - count + 1), times)
    values = x.gather(-2, torch.where(beyond, order.gather(-2, count - 1), order))
    interval = torch.minimum(seen.cumsum(-2)[..., :-1, :] - 1, count - 2)
    return Observations(knots, end, times, values, count, interval)


def checked(times: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the times with padding replaced, the last time of each sample, and which values were observed.

    Shapes: (T,) or (*, T), () or (*), (*, T, C). Raises `InvalidInput` where something is wrong with either.
    """
    times = torch.as_tensor(times).detach()
    _check_shapes(times, values)
    times = times.to(values.device, torch.float64)
    real = ~times.isnan()
    _refuse(~(real.sum(-1) >= 2), "a path needs at least two observation times", times)
    _refuse((real[..., 1:] & ~real[..., :-1]).any(-1), "NaN in times is padding and must be at the end", times)
    _refuse(
        (times.diff(dim=-1) <= 0).any(-1) | times.isinf().any(-1), "times must be finite and increase strictly", times
    )
    inf = values.isinf()
    if bool(inf.any()):
        raise InvalidInput(
            f"values has an infinite entry at index {tuple(inf.nonzero()[0].tolist())}; NaN means missing"
        )
    end = times.nan_to_num(nan=-torch.inf).amax(-1)
    beyond = torch.arange(times.shape[-1], device=times.device) - real.sum(-1, keepdim=True) + 1
    return torch.where(real, times, end[..., None] + beyond), end, ~values.isnan() & real[..., None]


def _check_shapes(times: Tensor, values: Tensor) -> None:
    if not isinstance(values, Tensor) or not values.is_floating_point():
        raise InvalidInput("values must be a floating-point tensor (*, T, C), with NaN for what is missing")
    require(values.ndim >= 2 and values.numel() > 0, f"values must have shape (*, T, C), got {tuple(values.shape)}")
    require(
        times.shape in (values.shape[-2:-1], values.shape[:-1]),
        f"times {tuple(times.shape)} do not fit values {tuple(values.shape)}: expected {tuple(values.shape[-2:-1])} "
        f"or {tuple(values.shape[:-1])}",
    )


def _refuse(wrong: Tensor, what: str, times: Tensor) -> None:
    """Raise where something is wrong with any sample; name the first."""
    if bool(wrong.any()):
        where = f" (sample {', '.join(map(str, wrong.nonzero()[0].tolist()))})" if times.ndim > 1 else ""
        raise InvalidInput(what + where)


def held(values: Tensor, seen: Tensor) -> Tensor:
    """Return (*, T, C) with every missing value replaced by the last one before it, or 0 where there is none."""
    place = torch.arange(values.shape[-2], device=values.device)[:, None]
    latest = torch.where(seen, place, 0).cummax(-2).values
    known = seen.cumsum(-2) > 0
    return torch.where(known, torch.where(seen, values, torch.zeros_like(values)).gather(-2, latest), 0.0)


def with_time(times: Tensor, values: Tensor) -> Tensor:
    """Return (*, T, C + 1): the values with time as channel 0, without which a CDE sees no passing of time.

    Args:
        times: (T,) or (*, T).
        values: (*, T, C).

    Examples:
        >>> with_time(torch.tensor([0.0, 2.0]), torch.tensor([[5.0], [6.0]]))
        tensor([[0., 5.], [2., 6.]])
    """
    _check_shapes(torch.as_tensor(times), values)
    time = torch.as_tensor(times).to(values)[..., None].expand(*values.shape[:-1], 1)
    return torch.cat([time, values], -1)


def with_intensity(values: Tensor) -> Tensor:
    """Return (*, T, 2 C): the values and, for each channel, how often it was observed so far.

    The count is the observational intensity of Kidger, Morrill, Foster and Lyons, arXiv 2005.08926: that a value was
    measured can tell as much as the value.

    Args:
        values: (*, T, C); NaN where nothing was observed.

    Examples:
        >>> with_intensity(torch.tensor([[1.0], [torch.nan], [3.0]]))
        tensor([[1., 1.], [nan, 1.], [3., 2.]])
    """
    return torch.cat([values, (~values.isnan()).cumsum(-2).to(values)], -1)
