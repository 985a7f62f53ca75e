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
from isocline.datasets.statistics import Moments

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
        fields, constants, parameters, differences = (Moments() for _ in range(4))
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
                mean, std = _checked(moments, f"{spec.name}, {name}s")
                getattr(found, f"{name}_mean").copy_(mean)
                getattr(found, f"{name}_std").copy_(std)
        if differences.n:
            _checked(differences, spec.name)
            rms = differences.rms
            found.difference_std.copy_(torch.where(rms > 0, rms, torch.ones_like(rms)))
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


def _checked(moments: Moments, what: str) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation, (C,) each; 1 where nothing varies.

    Raises:
        NotFinite: names the channel.
    """
    mean, std = moments.mean, moments.std
    if not bool(std.isfinite().all()):
        raise NotFinite(f"{what}: channel {int((~std.isfinite()).int().argmax())} has values that are NaN or infinite")
    small = std <= LEAST * mean.abs().clamp(min=LEAST)
    return mean, torch.where(small, torch.ones_like(std), std)
