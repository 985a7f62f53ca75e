r"""Neural CDEs (Kidger, Morrill, Foster and Lyons, arXiv 2005.08926).

    z(0) = Linear(X(0)) ,      dz = f(z) dX ,      prediction = Linear(z(end))  or  Linear(z(t)) at asked times

X is the path through the data, with time since the first observation as channel 0 and, where asked for, the number of
observations so far of each channel. The k-th observation of a sample lies at k on the axis of the path, so that all samples have
their knots at whole numbers: a CDE does not ask how fast its path is run through, and time is one of the channels.

A final tanh keeps f bounded, so that z cannot grow faster than X moves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from isocline._core.errors import require
from isocline.integrators import (
    CDE,
    RK4,
    ControlPath,
    HermitePath,
    LinearPath,
    SaveAt,
    Solution,
    with_intensity,
    with_time,
)
from isocline.integrators.cde import METHOD
from isocline.integrators.controls.missing import checked
from isocline.networks import MLP
from isocline.timeseries.models.neural_ode import Solving


class MatrixField(nn.Module):
    """An MLP with a final tanh as field of a CDE, ``f(t, z)`` of shape ``(*z.shape, C)``; `t` is not read.

    Args:
        dimension: size of z.
        channels: number of channels C of the path.
        width: size of each hidden layer.
        depth: number of hidden layers.

    Examples:
        >>> MatrixField(3, 2)(torch.tensor(0.5), torch.zeros(4, 3)).shape
        torch.Size([4, 3, 2])
    """

    def __init__(self, dimension: int, channels: int, *, width: int = 64, depth: int = 1) -> None:
        super().__init__()
        self.channels = channels
        self.layers = MLP(dimension, dimension * channels, width=width, depth=depth, activation=nn.SiLU)

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """Return the matrices (*, d, C) at states (*, d)."""
        return torch.tanh(self.layers(z)).unflatten(-1, (z.shape[-1], self.channels))


@METHOD.variant()
class NeuralCDE(nn.Module):
    """Irregular series with gaps as the control of a learned equation: one prediction a series, or one at every asked time.

    Causal at observation times with the default path, where no channel has gaps. Source: Kidger, Morrill, Foster and
    Lyons, arXiv 2005.08926.

    Args:
        channels: channels of the series, C.
        outputs: size of a prediction.
        hidden: size of the state.
        field: ``f(t, z)``, returns ``(*z.shape, controls)``; ``MatrixField(hidden, controls)`` by default.
        path: makes the path of times and values: `HermitePath`, `LinearPath` or `NaturalCubicPath`.
        intensity: give the field the number of observations so far of each channel: C more channels.
        solving: how the equation is integrated; by default one step of `RK4` from observation to observation. Steps
            always end at observations.

    Examples:
        >>> model = NeuralCDE(2, 3)
        >>> times, values = torch.rand(5, 10).cumsum(1), torch.randn(5, 10, 2)
        >>> model(times, values).shape, model(times, values, torch.linspace(0, 1, 4)).shape
        (torch.Size([5, 3]), torch.Size([5, 4, 3]))
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        *,
        hidden: int = 32,
        field: nn.Module | None = None,
        path: Callable[[Tensor, Tensor], ControlPath] = HermitePath,
        intensity: bool = False,
        solving: Solving | None = None,
    ) -> None:
        super().__init__()
        require(min(channels, outputs, hidden) >= 1, "a neural CDE needs channels, outputs and hidden of at least 1")
        self.controls = 1 + channels * (2 if intensity else 1)
        self.channels, self.path, self.intensity = channels, path, intensity
        self.solving = solving or Solving(method=RK4(), dt0=1.0)
        self.start, self.readout = nn.Linear(self.controls, hidden), nn.Linear(hidden, outputs)
        self.field = field or MatrixField(hidden, self.controls)

    def control(self, times: Tensor, values: Tensor) -> ControlPath:
        """Return the path of series, (B,): `controls` channels, the k-th observation at k."""
        require(
            values.ndim == 3 and values.shape[-1] == self.channels,
            f"this neural CDE reads values (B, T, {self.channels}), got {tuple(values.shape)}",
        )
        checked(times, values)
        seen = with_intensity(values) if self.intensity else values
        return self.path(_numbers(times), with_time(times - times[..., :1], seen))

    def forward(self, times: Tensor, values: Tensor, at: Tensor | None = None) -> Tensor:
        """Return predictions.

        Args:
            times: (T,) or (B, T), NaN after a series' end.
            values: (B, T, C), NaN where missing.
            at: (m,) increasing times at which predictions are wanted; by default one at the end of each series. Before a series
                begins it is that of its first state, after its end that of its last.

        Returns:
            (B, outputs), or (B, m, outputs).

        Raises:
            InvalidInput: shapes do not fit, or times do not increase.
            NotFinite: the integration failed.
        """
        path = self.control(times, values)
        z0 = self.start(path.evaluate(0.0))
        if at is None:
            last: Tensor = self.readout(self._solve(path, z0, path.end.max()).y1)
            return last
        numbers = _numbers(times)[..., None]
        place = LinearPath(times, numbers).evaluate(at.double().reshape(-1, *[1] * times.ndim))[..., 0]
        if times.ndim == 1:
            states = self._solve(path, z0, path.end, saveat=SaveAt(ts=place)).ys.movedim(0, 1)
        else:
            states = self._solve(path, z0, path.end, saveat=SaveAt(ts=place.mT), batching="per-sample").ys
        found: Tensor = self.readout(states)
        return found

    def _solve(self, path: ControlPath, z0: Tensor, end: Tensor, **asked: Any) -> Solution:
        solving = replace(self.solving, controller=path.clip(self.solving.steering()))
        return solving.solve(CDE(self.field, path), z0, 0.0, end, **asked)  # type: ignore[arg-type]


def _numbers(times: Tensor) -> Tensor:
    """Return the number of each observation, (T,) or (B, T), NaN where `times` is."""
    return torch.where(
        times.isnan(), torch.nan, torch.arange(times.shape[-1], dtype=torch.float64, device=times.device)
    )
