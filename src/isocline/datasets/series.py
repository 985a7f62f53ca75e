r"""Labelled time series held in memory.

A series is a table of values at increasing times. NaN is a missing value. Series of unequal length are padded at the end: with NaN
in the values, and in the times where every series has times of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.stream import Stream, as_stream


@dataclass(frozen=True)
class Series:
    """Time series with one label each.

    Args:
        times: (T,) shared by all series, or (N, T) of each its own; strictly increasing, NaN only after a series' last time.
        values: (N, T, C) floating-point numbers, NaN where missing.
        labels: (N,) integers of at least 0.
        names: the class names; empty where there are none.

    Raises:
        InvalidInput: the parts do not fit together.

    Examples:
        >>> series = Series(torch.arange(3.0), torch.zeros(2, 3, 1), torch.tensor([0, 1]), ("still", "moving"))
        >>> len(series), series.channels
        (2, 1)
    """

    times: Tensor
    values: Tensor
    labels: Tensor
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        values, labels = self.values, self.labels
        require(values.ndim == 3 and values.is_floating_point(), "values must be (N, T, C) floating-point numbers")
        require(values.numel() > 0, f"values of shape {tuple(values.shape)} hold no series")
        require(not bool(values.isinf().any()), "values must be finite; a missing value is NaN")
        check_times(self.times, values)
        whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
        require(
            labels.shape == values.shape[:1], f"{len(values)} series need as many labels, got {tuple(labels.shape)}"
        )
        require(whole and int(labels.min()) >= 0, "labels must be integers of at least 0")
        known = not self.names or int(labels.max()) < len(self.names)
        require(known, f"there are {len(self.names)} class names and a label {int(labels.max())}")

    def __len__(self) -> int:
        return self.values.shape[0]

    @property
    def channels(self) -> int:
        """The number of channels, C."""
        return self.values.shape[2]

    def take(self, index: Tensor) -> Series:
        """Return the series at positions `index` (B,)."""
        times = self.times if self.times.ndim == 1 else self.times[index]
        return Series(times, self.values[index], self.labels[index], self.names)

    def split(self, share: float, rng: Stream | int) -> Split:
        """Return two parts at random, of which the second has about `share` of the series of every class.

        Raises:
            InvalidInput: one part would be empty.
        """
        require(0 < share < 1, f"the share of a split is between 0 and 1, got {share}")
        second = held_out(self.labels, share, rng)
        require(0 < int(second.sum()) < len(self), f"{len(self)} series cannot be split with a share of {share}")
        return Split(self.take((~second).nonzero()[:, 0]), self.take(second.nonzero()[:, 0]))

    def dropped(self, rate: float, rng: Stream | int) -> Series:
        """Return the same series with a share `rate` of their values missing; see `drop_values`."""
        return replace(self, values=drop_values(self.values, rate, rng))


class Split(NamedTuple):
    """Two parts of a data set that share no series."""

    train: Series
    test: Series


def check_times(times: Tensor, values: Tensor) -> None:
    """Refuse times that are not increasing, not finite, or do not fit the values (N, T, C).

    Raises:
        InvalidInput: names what is wrong.
    """
    fits = times.shape in (values.shape[1:2], values.shape[:2])
    require(fits, f"values {tuple(values.shape)} need times (T,) or (N, T), got {tuple(times.shape)}")
    require(times.is_floating_point() and not bool(times.isinf().any()), "times must be finite floating-point numbers")
    gone = times.isnan()
    require(times.ndim == 2 or not bool(gone.any()), "times that all series share must not be NaN")
    require(not bool(gone[..., :1].any()), "every series needs at least one time")
    rises = (times.diff(dim=-1) > 0) | gone[..., 1:]
    require(bool((rises & (gone[..., 1:] >= gone[..., :-1])).all()), "times must increase, with NaN only at the end")
    if times.ndim == 2:
        require(bool(values[gone].isnan().all()), "values at padded times (NaN) must be NaN")


def held_out(labels: Tensor, share: float, rng: Stream | int) -> Tensor:
    """Return a mask (N,) that is true for about `share` of each class, at random.

    Examples:
        >>> held_out(torch.tensor([0] * 10 + [1] * 20), 0.2, 0).reshape(3, 10).sum(1).tolist()[0]
        2
    """
    stream, mask = as_stream(rng, "held out"), torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique().tolist():
        members = (labels == label).nonzero()[:, 0]
        order = members[stream.permutation(len(members), step=label)]
        mask[order[: round(share * len(members))]] = True
    return mask


def drop_values(values: Tensor, rate: float, rng: Stream | int) -> Tensor:
    """Return `values` (N, T, C) with each value made NaN with probability `rate`, independently: missing completely at random.

    What is missing at one rate is missing at every higher rate too, and a series loses the same values in any batch that
    begins with the same series.

    Raises:
        InvalidInput: the rate is not in [0, 1].

    Examples:
        >>> drop_values(torch.zeros(100, 10, 10), 0.3, rng=0).isnan().float().mean().round(decimals=2)
        tensor(0.3000)
    """
    require(0 <= rate <= 1, f"the rate of missing values is between 0 and 1, got {rate}")
    chance = as_stream(rng, "drop values").uniform(tuple(values.shape), dtype=torch.float64).to(values.device)
    return values.masked_fill(chance < rate, torch.nan)
