r"""Zero mean and unit spread for every channel; the numbers are stored with the weights.

Statistics are per channel, never per point, so that a model serves other grids. Differences between frames have a scale of their
own: they are much smaller than the fields.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from isocline._core.errors import NotFinite, require
from isocline.datasets.fields import Batch, DataSpec

LEAST = 1e-6  # a channel that never changes keeps its scale


class Normaliser(nn.Module):
    """Means and standard deviations of fields, constants, parameters and differences, by channel.

    Args:
        spec: what the channels are.
    """

    field_mean: Tensor
    field_std: Tensor
    constant_mean: Tensor
    constant_std: Tensor
    parameter_mean: Tensor
    parameter_std: Tensor
    difference_std: Tensor

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        for name, n in (("field", spec.channels), ("constant", spec.constants), ("parameter", len(spec.parameters))):
            self.register_buffer(f"{name}_mean", torch.zeros(n))
            self.register_buffer(f"{name}_std", torch.ones(n))
        self.register_buffer("difference_std", torch.ones(spec.channels))

    @classmethod
    def of(cls, spec: DataSpec, batches: Iterable[Batch]) -> Normaliser:
        """Return the normaliser of data.

        Raises:
            InvalidInput: there is no batch, or one without frames to predict.
            NotFinite: a field has a NaN or an infinite value.
        """
        found = cls(spec)
        fields, constants, parameters, differences = _Moments(), _Moments(), _Moments(), _Moments()
        for batch in batches:
            frames = torch.cat([batch.x, batch.target], 1)
            fields.add(frames)
            if frames.shape[1] > 1:
                differences.add(frames.diff(dim=1))
            if batch.constants is not None:
                constants.add(batch.constants)
            parameters.add(batch.parameters)
        require(fields.n > 0, f"{spec.name}: no data to take means of")
        for name, moments in (("field", fields), ("constant", constants), ("parameter", parameters)):
            if moments.n:
                mean, std = moments.result(f"{spec.name}, {name}s")
                getattr(found, f"{name}_mean").copy_(mean)
                getattr(found, f"{name}_std").copy_(std)
        if differences.n:
            mean, std = differences.result(spec.name)
            found.difference_std.copy_((mean.square() + std.square()).sqrt())
        return found

    def fields(self, x: Tensor) -> Tensor:
        """Return fields (..., C), normalised."""
        return (x - self.field_mean) / self.field_std

    def fields_back(self, x: Tensor) -> Tensor:
        """Return normalised fields (..., C) in their units."""
        return x * self.field_std + self.field_mean

    def constants(self, x: Tensor) -> Tensor:
        """Return constant fields (..., C_const), normalised."""
        return (x - self.constant_mean) / self.constant_std

    def told(self, p: Tensor) -> Tensor:
        """Return parameters (B, P), normalised."""
        return (p - self.parameter_mean) / self.parameter_std


class _Moments:
    """Sums over everything but the last axis, in float64."""

    def __init__(self) -> None:
        self.n = 0
        self.mean = self.square = torch.zeros(())

    def add(self, x: Tensor) -> None:
        """Take in values (..., C), by Welford's update for batches."""
        x = x.detach().double().flatten(0, -2)
        if not len(x):
            return
        mean, square = x.mean(0), (x - x.mean(0)).square().sum(0)
        total, gap = self.n + len(x), mean - self.mean
        self.square = self.square + square + gap.square() * self.n * len(x) / total
        self.mean = self.mean + gap * len(x) / total
        self.n = total

    def result(self, what: str) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation, (C,) each; 1 where nothing varies."""
        std = (self.square / self.n).sqrt()
        if not bool(std.isfinite().all()):
            raise NotFinite(
                f"{what}: channel {int((~std.isfinite()).int().argmax())} has values that are NaN or infinite"
            )
        small = std <= LEAST * self.mean.abs().clamp(min=LEAST)
        return self.mean, torch.where(small, torch.ones_like(std), std)
