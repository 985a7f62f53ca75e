r"""Stable neural SDEs (Oh, Lim and Kim, arXiv 2402.14989): three classes of drift and noise that gaps in the data do not blow up.

With ``zbar = Linear([MLP(z), Linear X(t)])``, all in the sense of Ito and with one Brownian motion for each coordinate:

    Langevin        dz     = g(zbar) dt + s(t) dW
    linear noise    dz     = g(t, zbar) dt + s(t) z dW
    geometric       dz / z = g(t, zbar) dt + s(t) dW

``s`` is a two-layer network of time alone. Two modes:

    strict=True     the equations as they stand. The geometric one is integrated as
                    d log|z| = (g - s^2 / 2) dt + s dW,  which keeps the sign of every coordinate
    strict=False    (default) time enters as (sin t, cos t), and tanh bounds the outputs of both networks; the geometric one is
                    dz = z tanh(g) dt + z tanh(s) dW

The networks have tanh units, so that g is bounded and Lipschitz in either mode; with an unbounded g the geometric equation,
``dz/dt = z g(z)``, can explode in finite time.

What a step may be. One Euler-Maruyama step of linear noise multiplies a path by ``1 + s sqrt(dt) N(0, 1)``, the solution by
``exp(s sqrt(dt) N(0, 1) - s^2 dt / 2)``. Where ``s^2 dt`` is well above 1 the first grows and the second shrinks. So the strict
linear-noise equation needs ``s^2 dt`` below about 1; the bounded mode has ``s^2 < 1``, and the strict geometric one is integrated
in the logarithm, where no step is too long.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from isocline._core.registry import Method
from isocline.networks.mlp import MLP
from isocline.timeseries.models.controlled_sde import ControlledSDE

METHOD = Method(
    "stable-neural-sde",
    "Stable neural SDEs",
    "Stable Neural Stochastic Differential Equations in Analyzing Irregular Time Series Data",
    "Oh, Lim, Kim",
    2024,
    "2402.14989",
    room="timeseries.models",
    when="Series with gaps as input of a stochastic state; noise nets that see time alone.",
)


class StableSDE(ControlledSDE):
    """Base of the three stable classes: their networks ``g`` and ``s``.

    Args:
        channels: channels of the series, C.
        outputs: size of the result, for example the number of classes.
        hidden: size of the state, H.
        dt: step of the Euler-Maruyama method; the smallest gap of a batch by default, see `ControlledSDE`.
        dropout: probability of the readout's dropout.
        strict: whether the equations are taken as they stand, or bounded.
    """

    timed = True  # whether g is told the time

    def __init__(
        self,
        channels: int,
        outputs: int,
        *,
        hidden: int = 16,
        dt: float | None = None,
        dropout: float = 0.1,
        strict: bool = False,
    ) -> None:
        super().__init__(channels, outputs, hidden=hidden, dt=dt, dropout=dropout)
        self.strict, clock = strict, 1 if strict else 2
        self.g = MLP(hidden + clock * self.timed, hidden, width=hidden, depth=1, activation=nn.Tanh)
        self.s = MLP(clock, hidden, width=hidden, depth=1, activation=nn.Tanh)

    def prepared(self, t: Tensor) -> tuple[Tensor, ...]:
        """Return what ``g`` is told of the times (steps, B, 1), and ``s`` (steps, B, H), or its tanh in the bounded mode."""
        told = t if self.strict else torch.cat([t.sin(), t.cos()], dim=-1)
        s: Tensor = self.s(told)
        return told, s if self.strict else s.tanh()

    def rate(self, told: Tensor, mixed: Tensor) -> Tensor:
        """Return ``g``, or its tanh in the bounded mode, (draws, B, H)."""
        inputs = torch.cat([told.expand(*mixed.shape[:-1], -1), mixed], dim=-1) if self.timed else mixed
        g: Tensor = self.g(inputs)
        return g if self.strict else g.tanh()


@METHOD.variant()
class LangevinSDE(StableSDE):
    """The neural Langevin-type SDE ``dz = g(zbar) dt + s(t) dW``: additive noise; drift without an explicit time.

    Arguments as for `StableSDE`. Source: Oh, Lim and Kim, arXiv 2402.14989.

    Examples:
        >>> model = LangevinSDE(channels=2, outputs=3)
        >>> model(torch.linspace(0, 1, 5), torch.zeros(4, 5, 2), rng=0).shape
        torch.Size([1, 4, 3])
    """

    timed = False

    def drift(self, now: tuple[Tensor, ...], state: Tensor, mixed: Tensor) -> Tensor:
        """Return ``g(zbar)``."""
        return self.rate(now[0], mixed)

    def diffusion(self, now: tuple[Tensor, ...], state: Tensor) -> Tensor:
        """Return ``s(t)``."""
        return now[1]


@METHOD.variant()
class LinearNoiseSDE(StableSDE):
    """The neural SDE with linear noise ``dz = g(t, zbar) dt + s(t) z dW``: noise fades where the state is small.

    Arguments as for `StableSDE`; the strict mode needs ``s^2 dt`` below about 1. Source: Oh, Lim and Kim, arXiv 2402.14989.

    Examples:
        >>> model = LinearNoiseSDE(channels=2, outputs=3)
        >>> model(torch.linspace(0, 1, 5), torch.zeros(4, 5, 2), rng=0).shape
        torch.Size([1, 4, 3])
    """

    def drift(self, now: tuple[Tensor, ...], state: Tensor, mixed: Tensor) -> Tensor:
        """Return ``g(t, zbar)``."""
        return self.rate(now[0], mixed)

    def diffusion(self, now: tuple[Tensor, ...], state: Tensor) -> Tensor:
        """Return ``s(t) z``."""
        return now[1] * state


@METHOD.variant()
class GeometricSDE(StableSDE):
    """The neural geometric SDE ``dz / z = g(t, zbar) dt + s(t) dW``; the strict mode integrates ``log |z|`` and keeps signs.

    What is integrated in the strict mode is (log|z|, sign), (draws, B, 2 H), the sign standing still. Networks are given ``z`` with
    ``log |z|`` cut to a range in which products of floating-point numbers stay finite. Arguments as for `StableSDE`. Source: Oh,
    Lim and Kim, arXiv 2402.14989.

    Examples:
        >>> model = GeometricSDE(channels=2, outputs=3, strict=True)
        >>> state = model.final(torch.linspace(0, 1, 5), torch.zeros(4, 5, 2), rng=0)
        >>> state.shape, bool((state[..., 16:].abs() == 1).all())
        (torch.Size([1, 4, 32]), True)
    """

    def encode(self, z: Tensor) -> Tensor:
        """Return (log|z|, sign) in the strict mode, where a coordinate of zero counts as the smallest positive number."""
        if not self.strict:
            return z
        sign = torch.where(z < 0, -1.0, 1.0).to(z)
        return torch.cat([z.abs().clamp(min=torch.finfo(z.dtype).tiny).log(), sign], dim=-1)

    def decode(self, state: Tensor) -> Tensor:
        """Return ``z``; its magnitude is cut at the square root of the largest floating-point number."""
        if not self.strict:
            return state
        size, sign = state.chunk(2, dim=-1)
        return sign * size.clamp(max=math.log(torch.finfo(size.dtype).max) / 2).exp()

    def drift(self, now: tuple[Tensor, ...], state: Tensor, mixed: Tensor) -> Tensor:
        """Return ``z tanh g``, or ``(g - s^2 / 2, 0)`` in the strict mode."""
        if not self.strict:
            return state * self.rate(now[0], mixed)
        change = self.rate(now[0], mixed) - now[1].square() / 2
        return torch.cat([change, torch.zeros_like(change)], dim=-1)

    def diffusion(self, now: tuple[Tensor, ...], state: Tensor) -> Tensor:
        """Return ``z tanh s``, or ``(s, 0)`` in the strict mode."""
        if not self.strict:
            return state * now[1]
        return torch.cat([now[1], torch.zeros_like(now[1])], dim=-1)
