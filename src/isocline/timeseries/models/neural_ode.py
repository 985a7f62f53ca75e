r"""Neural ODEs: a network whose layers are the steps of a solver (Chen, Rubanova, Bettencourt and Duvenaud, arXiv 1806.07366).

    dz/dt = f(t, z) ,      z(t0) = (x, 0) ,      prediction = g(z(t1))  or  g(z(t)) at asked times

Zeros beside the data (Dupont, Doucet and Teh, arXiv 1904.01681) give the flow room: a flow in the space of the data itself is a
homeomorphism there, and cannot take apart what one class surrounds of another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from isocline._core.errors import require
from isocline._core.registry import Method as Paper
from isocline.integrators import PID, Constant, Gradient, SaveAt, Solution, Tsit5, integrate
from isocline.integrators.controllers.base import Controller
from isocline.integrators.methods.base import Method
from isocline.networks import MLP

METHOD = Paper(
    "neural-ode",
    "Neural ODE",
    "Neural Ordinary Differential Equations",
    "Chen, Rubanova, Bettencourt, Duvenaud",
    2018,
    "1806.07366",
    room="timeseries.models",
    when="States that evolve by themselves from a known start; memory and cost chosen by gradient mode and tolerance.",
)


@dataclass(frozen=True)
class Solving:
    """How a model's equation is integrated.

    Args:
        method: makes the steps; `Tsit5` by default.
        controller: chooses them; by default steps of size `dt0` where it is given and ``PID(1e-4, 1e-4)`` otherwise.
        gradient: how gradients are had; `Direct` by default.
        dt0: size of the first step; of all steps without a controller.
        max_steps: cap on attempted steps.
    """

    method: Method | None = None
    controller: Controller | None = None
    gradient: Gradient | None = None
    dt0: float | None = None
    max_steps: int = 4096

    def steering(self) -> Controller:
        """Return the controller."""
        return self.controller or (PID(1e-4, 1e-4) if self.dt0 is None else Constant())

    def solve(self, field: Callable[..., Any], y0: Any, t0: Any, t1: Any, **asked: Any) -> Solution:
        """Return the solution, or raise where the integration failed; `asked` goes to `integrate`."""
        return integrate(
            field,
            y0,
            t0,
            t1,
            method=self.method or Tsit5(),
            controller=self.steering(),
            gradient=self.gradient,
            dt0=self.dt0,
            max_steps=self.max_steps,
            **asked,
        ).check()


class VectorField(nn.Module):
    """An MLP as vector field ``f(t, z)``; time is its first input, unless the equation is autonomous.

    Args:
        dimension: size of z.
        width: size of each hidden layer.
        depth: number of hidden layers.
        autonomous: leave time out.
        activation: makes the non-linearity; smooth ones let the solver take longer steps.

    Examples:
        >>> VectorField(3)(torch.tensor(0.5), torch.zeros(4, 3)).shape
        torch.Size([4, 3])
    """

    def __init__(
        self,
        dimension: int,
        *,
        width: int = 64,
        depth: int = 1,
        autonomous: bool = False,
        activation: Callable[[], nn.Module] = nn.Tanh,
    ) -> None:
        super().__init__()
        self.autonomous = autonomous
        inputs = dimension if autonomous else dimension + 1
        self.layers = MLP(inputs, dimension, width=width, depth=depth, activation=activation)

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """Return the slopes (B, d) of states (B, d); `t` has shape () or (B, 1)."""
        inputs = z if self.autonomous else torch.cat([t.to(z).expand(*z.shape[:-1], 1), z], dim=-1)
        slope: Tensor = self.layers(inputs)
        return slope


@METHOD.variant()
class NeuralODE(nn.Module):
    """Data as first state, a learned flow, a read-out: classes or values at the end, or values at asked times.

    Args:
        field: ``f(t, z)`` for z (B, inputs + augment), such as `VectorField`.
        readout: maps states (..., inputs + augment) to predictions; the state itself where it is None.
        augment: number of zeros beside the data.
        span: first and last time.
        solving: how the equation is integrated.

    Examples:
        >>> model = NeuralODE(VectorField(5), nn.Linear(5, 3), augment=1)
        >>> model(torch.zeros(7, 4)).shape, model(torch.zeros(7, 4), torch.linspace(0, 1, 6)).shape
        (torch.Size([7, 3]), torch.Size([7, 6, 3]))
    """

    def __init__(
        self,
        field: nn.Module,
        readout: nn.Module | None = None,
        *,
        augment: int = 0,
        span: tuple[float, float] = (0.0, 1.0),
        solving: Solving | None = None,
    ) -> None:
        super().__init__()
        require(augment >= 0, f"the number of added zeros cannot be negative, got {augment}")
        require(span[0] != span[1], f"the span of a neural ODE is empty: {span}")
        self.field, self.readout = field, readout or nn.Identity()
        self.augment, self.span, self.solving = augment, span, solving or Solving()

    def start(self, x: Tensor) -> Tensor:
        """Return the first state (B, inputs + augment) of data (B, inputs)."""
        require(x.ndim == 2, f"a neural ODE starts from data (B, inputs), got {tuple(x.shape)}")
        return nn.functional.pad(x, (0, self.augment))

    def solve(
        self,
        x: Tensor,
        *,
        saveat: SaveAt | None = None,
        record: Sequence[Literal["steps"]] = (),
        end: float | None = None,
    ) -> Solution:
        """Return the solution from data (B, inputs), as `isocline.integrators.integrate` does.

        Args:
            x: data.
            saveat: which states are kept.
            record: ``("steps",)`` keeps the steps, for the penalties of `isocline.objectives`.
            end: last time in place of that of the span, such as a random one.

        Raises:
            NotFinite: where the integration failed.
        """
        last = self.span[1] if end is None else end
        return self.solving.solve(self.field, self.start(x), self.span[0], last, saveat=saveat, record=record)

    def forward(self, x: Tensor, times: Tensor | None = None) -> Tensor:
        """Return predictions (B, outputs) of data (B, inputs), or (B, T, outputs) at `times` (T,) inside of the span."""
        if times is None:
            out: Tensor = self.readout(self.solve(x).y1)
        else:
            out = self.readout(self.solve(x, saveat=SaveAt(ts=times)).ys.movedim(0, 1))
        return out
