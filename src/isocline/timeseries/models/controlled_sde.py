r"""What neural SDEs driven by a data path share: the path, the clock, the readout.

    z(t_0) = Linear(X(t_0)),    zbar = Linear([MLP(z), Linear X(t)]),    dz = f(t, z, zbar) dt + s(t, z) dW   (Ito, diagonal noise)

``X`` is the cubic Hermite path with backward differences of each channel, `HermitePath`; it is *evaluated*, never differentiated. A
missing value counts as one on the straight line between the values observed before and after it; before a channel's first and after
its last value that value is held, and a channel without any is zero.

Every series has a clock of its own, which starts at its first time; a step that would pass the end is shortened for that series. So
a prediction depends neither on the other series of a batch nor on their padding. The end lies one step after the last time: the
Euler-Maruyama method reads the path where a step begins, and would not see the last value otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from isocline._core.errors import require
from isocline._core.stream import Stream
from isocline.integrators import SDE, EulerMaruyama, integrate
from isocline.integrators.brownian.path import BrownianPath, Increment
from isocline.integrators.controls.hermite import HermitePath
from isocline.networks.mlp import MLP
from isocline.timeseries.models.readout import Readout

MAX_STEPS = 1000
Field = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Shared:
    """Noise that is the same for every sample, so that what is made of it depends on the sample alone.

    Args:
        rng: seed or stream.
    """

    rng: Stream | int

    def path(self, first: Tensor, clock: Clock) -> BrownianPath:
        """Return the path that drives states of the shape of `first`."""
        inner, end = clock.dt * torch.arange(1, clock.steps).numpy(), clock.steps * clock.dt
        return SharedPath(self.rng, tuple(first.shape), 0.0, end, grid=inner, dtype=first.dtype, device=first.device)


Noise: TypeAlias = Stream | int | Shared


class SharedPath(BrownianPath):
    """A Brownian path of shape (draws, B, *) that is constant along B."""

    def __init__(self, rng: Stream | int, shape: tuple[int, ...], t0: float, t1: float, **settings: Any) -> None:
        super().__init__(rng, shape, t0, t1, **settings)
        self.one = BrownianPath(rng, (shape[0], 1, *shape[2:]), t0, t1, **settings)

    def increment(self, *asked: Any, **settings: Any) -> Increment:
        """Return what the path does over an interval; arguments as for `BrownianPath`."""
        found = self.one.increment(*asked, **settings)
        return Increment(found.w.expand(self.shape), None if found.h is None else found.h.expand(self.shape))


class ControlledSDE(nn.Module):
    """Base of the neural SDEs that read a series and return one vector for it; subclasses give drift and diffusion.

    Args:
        channels: channels of the series, C.
        outputs: size of the result, for example the number of classes.
        hidden: size of the state, H.
        dt: step of the Euler-Maruyama method; by default the smallest gap between the times of a batch, but at least the longest
            duration / 1000, so that a batch never takes more than 1000 steps.
        dropout: probability of the readout's dropout.

    Raises:
        InvalidInput: a size or `dt` is not positive.
    """

    def __init__(
        self, channels: int, outputs: int, *, hidden: int = 16, dt: float | None = None, dropout: float = 0.1
    ) -> None:
        super().__init__()
        require(min(channels, outputs, hidden) >= 1, "a neural SDE needs channels, outputs and hidden of at least 1")
        require(dt is None or dt > 0, f"dt must be positive, got {dt}")
        self.hidden, self.dt = hidden, dt
        self.start, self.control = nn.Linear(channels, hidden), nn.Linear(channels, hidden)
        self.inner = MLP(hidden, hidden, width=hidden, depth=1, activation=nn.Tanh)
        self.mix = nn.Linear(2 * hidden, hidden)
        self.readout = Readout(hidden, outputs, dropout)

    def prepared(self, t: Tensor) -> tuple[Tensor, ...]:
        """Return what depends on time alone, at the times (steps, B, 1) of all steps at once; the time itself by default."""
        return (t,)

    def drift(self, now: tuple[Tensor, ...], state: Tensor, mixed: Tensor) -> Tensor:
        """Return the drift (draws, B, *) given what was `prepared` for this step, the state, and ``zbar`` = `mixed`."""
        raise NotImplementedError

    def diffusion(self, now: tuple[Tensor, ...], state: Tensor) -> Tensor:
        """Return the diagonal of the diffusion; broadcasts against the state."""
        raise NotImplementedError

    def encode(self, z: Tensor) -> Tensor:
        """Return what is integrated in place of ``z``, (draws, B, *)."""
        return z

    def decode(self, state: Tensor) -> Tensor:
        """Return ``z`` (draws, B, H) from what is integrated."""
        return state

    def final(self, times: Tensor, values: Tensor, rng: Noise, *, draws: int = 1) -> Tensor:
        """Return what is integrated, one step after the last time of each series, (draws, B, *).

        Args:
            times: (T,) or (B, T), NaN after a series' end.
            values: (B, T, C), NaN where missing.
            rng: seed or stream of the noise, or `Shared` noise.
            draws: paths of the noise for each series.
        """
        clock = Clock.of(times.to(values.dtype).expand(values.shape[:2]), self.dt)
        grid = clock.grid()
        path = HermitePath(times, values).evaluate(grid)
        driven, share, tables = self.control(path), clock.share(), self.prepared(grid)

        def drift(tau: Tensor, state: Tensor) -> Tensor:
            k = clock.index(tau)
            inner = self.inner(self.decode(state))
            mixed = self.mix(torch.cat([inner, driven[k].expand_as(inner)], dim=-1))
            return share[k] * self.drift(tuple(table[k] for table in tables), state, mixed)

        def diffusion(tau: Tensor, state: Tensor) -> Tensor:
            k = clock.index(tau)
            s = self.diffusion(tuple(table[k] for table in tables), state)
            return (share[k].sqrt() * s).expand_as(state)

        first = self.encode(self.start(path[0]).expand(draws, -1, -1))
        return integrated(drift, diffusion, first, clock, rng)

    def forward(self, times: Tensor, values: Tensor, rng: Noise, *, draws: int = 1) -> Tensor:
        """Return the outputs (draws, B, outputs); arguments as for `final`."""
        z = self.decode(self.final(times, values, rng, draws=draws))
        return self.readout(z.flatten(0, 1)).unflatten(0, z.shape[:2])


@dataclass(frozen=True)
class Clock:
    """The time of each series, counted from its own start.

    Args:
        first: (B, 1), the first time of each series.
        span: (B, 1), how long each series is followed, ``dt`` more than it lasts.
        dt: the step.
    """

    first: Tensor
    span: Tensor
    dt: float

    @classmethod
    def of(cls, times: Tensor, dt: float | None) -> Clock:
        """Return the clock of `times` (B, T), NaN after a series' end."""
        first, last = times[:, :1], times.nan_to_num(-math.inf).amax(1, keepdim=True)
        dt = smallest_gap(times) if dt is None else dt
        return cls(first, last - first + dt, dt)

    @property
    def steps(self) -> int:
        """The number of steps that reach the end of every series."""
        return math.ceil(float(self.span.max()) / self.dt - 1e-4)

    def grid(self) -> Tensor:
        """Return the times (steps + 1, B, 1) of the steps."""
        count = torch.arange(self.steps + 1, dtype=self.first.dtype, device=self.first.device)
        return self.first + self.dt * count[:, None, None]

    def index(self, tau: Tensor) -> int:
        """Return the step that begins at `tau`."""
        return round(float(tau) / self.dt)

    def share(self) -> Tensor:
        """Return the share (steps + 1, B, 1) of each step that lies before the end of each series."""
        count = torch.arange(self.steps + 1, dtype=self.span.dtype, device=self.span.device)
        return (self.span / self.dt - count[:, None, None]).clamp(0, 1)


def integrated(drift: Field, diffusion: Field, first: Tensor, clock: Clock, noise: Noise) -> Tensor:
    """Return the state (draws, B, *) after all steps of the Euler-Maruyama method.

    Raises:
        NotFinite: the state became NaN or infinite.
    """
    end = clock.steps * clock.dt
    path = noise.path(first, clock) if isinstance(noise, Shared) else noise
    equation = SDE(drift, diffusion, path, noise="diagonal", calculus="ito")
    solution = integrate(equation, first, 0.0, end, method=EulerMaruyama(), dt0=clock.dt, max_steps=clock.steps + 1)
    return solution.check().y1


def smallest_gap(times: Tensor, max_steps: int = MAX_STEPS) -> float:
    """Return the smallest gap between successive `times` (T,) or (B, T), but at least the longest duration / `max_steps`.

    Examples:
        >>> smallest_gap(torch.tensor([0.0, 0.5, 2.0])), smallest_gap(torch.tensor([0.0, 1e-9, 2.0]))
        (0.5, 0.002)
    """
    times = times.detach().double()
    gaps = times.diff(dim=-1)
    gaps = gaps[gaps > 0]
    if not len(gaps):
        return 1.0
    span = times.nan_to_num(-math.inf).amax(-1) - times[..., 0]
    return max(float(gaps.min()), float(span.max()) / max_steps)
