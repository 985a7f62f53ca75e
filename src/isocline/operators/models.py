r"""Models that map a batch to the frames after it: `OperatorModel`, and networks on grids made into one by `GridModel`.

A network knows channels; a model knows what they are. `GridModel` puts past frames, constant fields, parameters and coordinates
side by side, normalises them, and reads its network's output as frames:

    state         v_{n+k} = mean + std w_k
    difference    v_{n+k} = v_n + k scale w_k

where w_k is the network's k-th output. Of one that predicts several frames, the k-th difference is about k times the first
(temporal bundling: Brandstetter, Worrall, Welling, arXiv 2202.03376).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from isocline._core.errors import Mismatch, require
from isocline.datasets.fields import Batch, DataSpec, Window
from isocline.operators.normaliser import Normaliser


class OperatorModel(nn.Module, ABC):
    """Maps a batch to the frames after it.

    Attributes:
        spec: the data it was made for.
        window: the frames it is given and predicts.
    """

    spec: DataSpec
    window: Window

    @abstractmethod
    def forward(self, batch: Batch, *, lead: Tensor | None = None) -> Tensor:
        """Return predicted frames, ``(B, T_out, *S, C)``, in the units of the data.

        Args:
            batch: windows; its `y` is not looked at.
            lead: frames ahead, (B,), for models that can look further than one window.
        """

    def require_fits(self, batch: Batch) -> None:
        """Refuse a batch of other fields or another number of past frames.

        Raises:
            Mismatch: names both.
        """
        self.spec.require_same_fields(batch.spec)
        if batch.past != self.window.past:
            raise Mismatch(f"this model is given {self.window.past} past frames, the batch has {batch.past}")


@dataclass(frozen=True)
class Channels:
    """How a `GridModel` presents a batch to its network.

    Args:
        predicts: ``"difference"`` from the last frame, or the ``"state"`` itself, as steady problems need.
        parameters: as further ``"channels"`` that are constant in space, as a ``"vector"`` for networks that take a condition, or
            ``"none"``.
        coordinates: whether places are channels too; without, the model is equivariant to shifts of a periodic grid.
        leads: whether it is told how far ahead to look (`AllToAll`).
    """

    predicts: Literal["state", "difference"] = "difference"
    parameters: Literal["channels", "vector", "none"] = "channels"
    coordinates: bool = False
    leads: bool = False

    def __post_init__(self) -> None:
        require(self.predicts in ("state", "difference"), f"predicts is 'state' or 'difference', got {self.predicts!r}")
        known = self.parameters in ("channels", "vector", "none")
        require(known, f"parameters are 'channels', a 'vector' or 'none', got {self.parameters!r}")

    def count(self, spec: DataSpec, window: Window) -> tuple[int, int, int]:
        """Return how many channels come in and go out, and the length of the condition."""
        told = (len(spec.parameters) if self.parameters != "none" else 0) + self.leads
        vector = told if self.parameters == "vector" else 0
        inputs = window.past * spec.channels + spec.constants + len(spec.axes) * self.coordinates + told - vector
        return inputs, window.future * spec.channels, vector


Make = Callable[[int, int, int], nn.Module]


class GridModel(OperatorModel):
    """A network on grids as an operator model.

    Args:
        make: ``(inputs, outputs, conditions) -> network``; the network maps ``(B, inputs, *S)`` to ``(B, outputs, *S)``, and takes
            a condition (B, conditions) as second argument where ``channels.parameters`` is ``"vector"``.
        spec: the data.
        window: frames given and predicted.
        normaliser: made from the data; the identity without it.
        channels: how the network sees a batch.

    Raises:
        InvalidInput: differences asked for without a past frame, or leads of a model that predicts several frames.
        Mismatch: in `forward`, a batch of other fields.
    """

    def __init__(
        self,
        make: Make,
        spec: DataSpec,
        window: Window,
        normaliser: Normaliser | None = None,
        channels: Channels | None = None,
    ) -> None:
        super().__init__()
        self.spec, self.window = spec, window
        self.channels = channels or Channels(predicts="difference" if window.past else "state")
        require(
            self.channels.predicts == "state" or window.past >= 1,
            "a difference needs a past frame to differ from: Channels(predicts='state')",
        )
        require(not self.channels.leads or window.future == 1, "a model told how far to look predicts one frame")
        self.normaliser = normaliser or Normaliser(spec)
        self.network = make(*self.channels.count(spec, window))

    def forward(self, batch: Batch, *, lead: Tensor | None = None) -> Tensor:
        """Return predicted frames ``(B, future, *S, C)``."""
        self.require_fits(batch)
        return self.frames(self.output(batch, lead), batch, lead)

    def output(self, batch: Batch, lead: Tensor | None = None, more: Tensor | None = None) -> Tensor:
        """Return what the network says, ``(B, future, *S, C)``, in normalised units.

        Args:
            batch: windows.
            lead: frames ahead, (B,).
            more: further channels ``(B, C', *S)``, for networks that were made with as many more inputs.
        """
        require((lead is None) or self.channels.leads, "this model is not told how far to look: Channels(leads=True)")
        x, condition = self._inputs(batch, lead)
        if more is not None:
            x = torch.cat([x, more], 1)
        found = self.network(x) if self.channels.parameters != "vector" else self.network(x, condition)
        return found.unflatten(1, (self.window.future, self.spec.channels)).movedim(2, -1)

    def frames(self, output: Tensor, batch: Batch, lead: Tensor | None = None) -> Tensor:
        """Return frames in the units of the data, of outputs of the network."""
        if self.channels.predicts == "state":
            return self.normaliser.fields_back(output)
        return batch.x[:, -1:] + self._steps(output, lead) * self.normaliser.difference_std * output

    def normalised(self, frames: Tensor, batch: Batch, lead: Tensor | None = None) -> Tensor:
        """Return what the network should say for these frames: the inverse of `frames`."""
        if self.channels.predicts == "state":
            return self.normaliser.fields(frames)
        return (frames - batch.x[:, -1:]) / (self._steps(frames, lead) * self.normaliser.difference_std)

    def _steps(self, like: Tensor, lead: Tensor | None) -> Tensor:
        """Return how many frames ahead each is, to multiply ``(B, future, *S, C)``."""
        ones = [1] * (like.ndim - 2)
        if lead is not None:
            return lead.to(like).reshape(-1, 1, *ones)
        return torch.arange(1, like.shape[1] + 1, device=like.device, dtype=like.dtype).reshape(1, -1, *ones)

    def _inputs(self, batch: Batch, lead: Tensor | None) -> tuple[Tensor, Tensor]:
        n, space = len(batch), batch.coordinates.shape[-1 - len(self.spec.axes) : -1]
        parts = [self.normaliser.fields(batch.x).movedim(-1, 2).flatten(1, 2)]
        if batch.constants is not None:
            parts.append(self.normaliser.constants(batch.constants).movedim(-1, 1))
        if self.channels.coordinates:
            places = batch.coordinates.movedim(-1, 0 if batch.coordinates.ndim == len(space) + 1 else 1)
            parts.append(self._scaled(places.expand(n, len(space), *space)))
        told = self._told(batch, lead)
        if self.channels.parameters != "vector":
            parts.append(told.reshape(*told.shape, *[1] * len(space)).expand(*told.shape, *space))
        return torch.cat([part.to(batch.x.dtype) for part in parts], 1), told.to(batch.x.dtype)

    def _scaled(self, places: Tensor) -> Tensor:
        """Return coordinates scaled to (-1, 1)."""
        shape = (-1, *[1] * (places.ndim - 2))
        low, high = (places.new_tensor(end).reshape(shape) for end in (self.spec.low, self.spec.high))
        return 2 * (places - low) / (high - low) - 1

    def _told(self, batch: Batch, lead: Tensor | None) -> Tensor:
        told = []
        if self.channels.parameters != "none":
            told.append(self.normaliser.told(batch.parameters.to(batch.x.dtype)))
        if self.channels.leads:
            ahead = torch.ones(len(batch), device=batch.x.device) if lead is None else lead
            told.append(ahead.to(batch.x.dtype)[:, None])
        return torch.cat(told, 1) if told else batch.x.new_zeros(len(batch), 0)


def advanced(batch: Batch, frames: Tensor) -> Batch:
    """Return the batch whose past are the last of its frames and of predicted ones ``(B, T, *S, C)``, without frames to predict."""
    past, steps = batch.past, frames.shape[1]
    ahead = steps + torch.arange(steps, dtype=batch.t.dtype, device=batch.t.device)
    t = batch.t[:, :1] + batch.dt[:, None] * ahead
    x = torch.cat([batch.x, frames], 1)[:, -past:] if past else batch.x
    return replace(batch, x=x, y=None, t=t)
