r"""The message passing solver as an operator model (Brandstetter, Worrall, Welling, arXiv 2202.03376).

Points lie in the unit box: their places are divided by the sides of the domain, times by the length of a run, and fields and
parameters are normalised. Of the network's K' outputs d_l the l-th frame ahead is

    v_{n+l} = v_n + l (dt / dt_0) s d_l ,

where s is the spread of differences between frames and dt_0 the time between those of the window: the paper's ``l dt d_l`` with a
scale of its own for each channel. Fields that do not vary are channels that are the same in all frames.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.datasets.fields import Batch, DataSpec, Window
from isocline.networks.neural_operator import MessagePassingSolver
from isocline.operators.models import OperatorModel
from isocline.operators.normaliser import Normaliser
from isocline.operators.point_model import Rows, offsets_of


class MessagePassing(OperatorModel):
    """A `MessagePassingSolver` as an operator model, on grids and on points.

    Args:
        spec: the data; all axes are periodic, or none.
        window: K frames given and K' predicted; the paper takes 25 and 25.
        normaliser: made from the data; the identity without it.
        radius: of the ball with the neighbours of a node, in parts of the sides of the domain; 3.5 / n for the paper's three
            cells to each side on n cells.
        width: features of a node.
        depth: number of layers.

    Raises:
        InvalidInput: no past frame, a steady problem, some axes periodic and others not, or sizes that the network refuses.
        Mismatch: in `forward`, a batch of other fields.

    Examples:
        >>> from isocline.datasets.simulators import CombinedEquation1D
        >>> model = MessagePassing(CombinedEquation1D("E2").spec, Window(25, 25), radius=0.035, width=32, depth=2)
        >>> model.network.period, model.network.parameter_count
        (1.0, 3)
    """

    def __init__(
        self,
        spec: DataSpec,
        window: Window,
        normaliser: Normaliser | None = None,
        *,
        radius: float,
        width: int = 128,
        depth: int = 6,
    ) -> None:
        super().__init__()
        require(window.past >= 1 and spec.dt > 0, "message passing steps in time: it needs a past frame and a dt")
        periodic = {boundary == "periodic" for boundary in spec.boundary}
        require(len(periodic) == 1, f"{spec.name}: message passing needs all axes periodic, or none")
        self.spec, self.window, self.normaliser = spec, window, normaliser or Normaliser(spec)
        self.network = MessagePassingSolver(
            len(spec.axes),
            spec.channels + spec.constants,
            len(spec.parameters),
            frames=window.past,
            bundle=window.future,
            radius=radius,
            period=1.0 if periodic == {True} else None,
            width=width,
            depth=depth,
        )
        self._kept: tuple[Tensor, Tensor, Tensor] | None = None

    def forward(self, batch: Batch, *, lead: Tensor | None = None) -> Tensor:
        """Return predicted frames: (sum N, K', C) on points, ``(B, K', *S, C)`` on a grid."""
        require(lead is None, "message passing predicts its window only")
        self.require_fits(batch)
        rows, offsets = Rows(batch), offsets_of(batch)
        places, known = self._places(rows.coordinates).to(rows.x.dtype), self._known(rows)
        told, time = self.normaliser.told(batch.parameters.to(known.dtype)), self._time(batch).to(known.dtype)
        edges = self._edges(places, offsets)
        found = self.network(known, places, offsets, time, 1.0, parameters=told, edges=edges)
        pace = (batch.dt / (self.spec.dt * self.window.stride)).to(known.dtype).repeat_interleave(offsets.diff())
        change = (found - known[:, -1:])[..., : self.spec.channels]
        return rows.back(rows.x[:, -1:] + pace[:, None, None] * self.normaliser.difference_std * change)

    def _places(self, coordinates: Tensor) -> Tensor:
        low, high = (coordinates.new_tensor(end) for end in (self.spec.low, self.spec.high))
        return (coordinates - low) / (high - low)

    def _known(self, rows: Rows) -> Tensor:
        fields = self.normaliser.fields(rows.x)
        if rows.constants is None:
            return fields
        constants = self.normaliser.constants(rows.constants)[:, None].expand(-1, self.window.past, -1)
        return torch.cat([fields, constants.to(fields.dtype)], -1)

    def _time(self, batch: Batch) -> Tensor:
        """Return the time of the newest frame of each case, (B,), in parts of a run."""
        return (batch.t[:, 0] - batch.dt) / (self.spec.dt * max(self.spec.times - 1, 1))

    def _edges(self, places: Tensor, offsets: Tensor) -> Tensor:
        # the same grid comes again in every batch, the same points in every call of a rollout
        kept = self._kept
        if kept is None or not (_same(kept[0], places) and _same(kept[1], offsets)):
            kept = self._kept = places, offsets, self.network.neighbours(places, offsets)
        return kept[2]


def _same(a: Tensor, b: Tensor) -> bool:
    return a.device == b.device and torch.equal(a, b)


__all__ = ["MessagePassing"]
