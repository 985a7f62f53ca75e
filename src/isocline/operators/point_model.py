r"""Networks on scattered points as operator models.

Every point is a row with its coordinates, past values, constant fields and the case's parameters; a network maps rows of all cases,
with quadrature weights and the offsets where cases begin, to rows of outputs. A grid is a set of points of equal weight, so one
model is trained on grids and used on point clouds, or the other way round.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from isocline._core.errors import require
from isocline.datasets.fields import Batch, DataSpec, Window
from isocline.operators.models import Channels, OperatorModel
from isocline.operators.normaliser import Normaliser

MakePoints = Callable[[int, int], nn.Module]
Weights = Callable[[Tensor, Tensor], Tensor]


class PointModel(OperatorModel):
    """A network on points as an operator model.

    Args:
        make: ``(inputs, outputs) -> network``, which is called with coordinates (sum N, D), values (sum N, inputs), quadrature
            weights (sum N,) and offsets (B + 1,), and returns (sum N, outputs).
        spec: the data.
        window: frames given and predicted.
        normaliser: made from the data; the identity without it.
        channels: how the network sees a batch; parameters are ``"channels"`` or ``"none"``, there are no leads.
        weights: of coordinates and offsets, the quadrature weights (sum N,); without it the points of a case share the volume of
            the domain equally, as those of a grid or of uniform random draws do.

    Raises:
        InvalidInput: channels that points cannot have.
        Mismatch: in `forward`, a batch of other fields.
    """

    def __init__(
        self,
        make: MakePoints,
        spec: DataSpec,
        window: Window,
        normaliser: Normaliser | None = None,
        channels: Channels | None = None,
        *,
        weights: Weights | None = None,
    ) -> None:
        super().__init__()
        self.spec, self.window, self.weights = spec, window, weights
        self.channels = channels or Channels(predicts="difference" if window.past else "state")
        plain = self.channels.parameters != "vector" and not (self.channels.leads or self.channels.coordinates)
        require(plain, "points are told parameters as channels, their coordinates always, and no leads")
        require(self.channels.predicts == "state" or window.past >= 1, "a difference needs a past frame to differ from")
        self.normaliser = normaliser or Normaliser(spec)
        inputs, outputs, _ = self.channels.count(spec, window)
        self.network = make(inputs, outputs)

    def forward(self, batch: Batch, *, lead: Tensor | None = None) -> Tensor:
        """Return predicted frames: (sum N, future, C) on points, ``(B, future, *S, C)`` on a grid."""
        require(lead is None, "a model on points predicts its window only")
        self.require_fits(batch)
        rows, offsets = Rows(batch), offsets_of(batch)
        counts = offsets.diff()
        parts = [self.normaliser.fields(rows.x).flatten(1)]
        if rows.constants is not None:
            parts.append(self.normaliser.constants(rows.constants))
        if self.channels.parameters == "channels":
            told = self.normaliser.told(batch.parameters.to(rows.x.dtype))
            parts.append(told.repeat_interleave(counts, 0))
        places = rows.coordinates.to(rows.x.dtype)
        found = self.network(places, torch.cat(parts, 1), self._weights(places, offsets), offsets)
        output = found.unflatten(1, (self.window.future, self.spec.channels))
        return rows.back(self._frames(output, rows.x))

    def _frames(self, output: Tensor, x: Tensor) -> Tensor:
        if self.channels.predicts == "state":
            return self.normaliser.fields_back(output)
        steps = torch.arange(1, output.shape[1] + 1, device=x.device, dtype=x.dtype).reshape(1, -1, 1)
        return x[:, -1:] + steps * self.normaliser.difference_std * output

    def _weights(self, places: Tensor, offsets: Tensor) -> Tensor:
        if self.weights is not None:
            return self.weights(places, offsets).to(places.dtype)
        volume = 1.0
        for low, high in zip(self.spec.low, self.spec.high, strict=True):
            volume *= high - low
        counts = offsets.diff()
        return (volume / counts.to(places.dtype)).repeat_interleave(counts)


class Rows:
    """A batch as rows of points, and the way back."""

    def __init__(self, batch: Batch) -> None:
        self.grid: tuple[int, ...] | None = None
        self.x, self.constants, self.coordinates = batch.x, batch.constants, batch.coordinates
        if batch.offsets is not None:
            return
        self.n, d = len(batch), len(batch.spec.axes)
        own = batch.coordinates.ndim == d + 2
        self.grid = tuple(batch.coordinates.shape[-1 - d : -1])
        self.x = batch.x.movedim(1, -2).flatten(0, d)
        self.coordinates = (batch.coordinates if own else batch.coordinates.expand(self.n, *self.grid, d)).flatten(0, d)
        if batch.constants is not None:
            self.constants = batch.constants.flatten(0, d)

    def back(self, frames: Tensor) -> Tensor:
        """Return rows (sum N, T, C) as the batch had them."""
        if self.grid is None:
            return frames
        return frames.unflatten(0, (self.n, *self.grid)).movedim(-2, 1)


def offsets_of(batch: Batch) -> Tensor:
    """Return where the rows of each case begin, and the end, (B + 1,)."""
    if batch.offsets is not None:
        return batch.offsets
    points = batch.coordinates[0] if batch.coordinates.ndim == len(batch.spec.axes) + 2 else batch.coordinates
    return torch.arange(len(batch) + 1, device=batch.x.device) * points[..., 0].numel()


def by_case(frames: Tensor, offsets: Tensor) -> list[Tensor]:
    """Return the frames (1, T, N, C) of each case, of rows (sum N, T, C): as metrics and objectives want them.

    >>> [tuple(f.shape) for f in by_case(torch.zeros(5, 3, 1), torch.tensor([0, 2, 5]))]
    [(1, 3, 2, 1), (1, 3, 3, 1)]
    """
    return [part.movedim(0, 1).unsqueeze(0) for part in frames.split(offsets.diff().tolist())]
