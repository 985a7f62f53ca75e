r"""Stochastic differential equations, ``dy = f(t, y) dt + g(t, y) dW``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, require
from isocline._core.stream import Stream
from isocline.integrators.brownian.path import BrownianPath, Increment
from isocline.integrators.controllers.base import Array, Controller
from isocline.integrators.controllers.constant import whole
from isocline.integrators.solvers.forward import along
from isocline.integrators.terms import Binding, Field

Noise: TypeAlias = Literal["additive", "diagonal", "commutative", "general"]
Calculus: TypeAlias = Literal["ito", "stratonovich"]
NOISES, CALCULI = ("additive", "diagonal", "commutative", "general"), ("ito", "stratonovich")


@dataclass(frozen=True)
class SDE:
    """The stochastic differential equation ``dy = f(t, y) dt + g(t, y) dW``.

    A method is refused where it does not converge to the solution in the stated calculus for the stated noise. Drift and diffusion
    count as evaluations of their own.

    Args:
        drift: ``f(t, y)`` or ``f(t, y, args)``, of the structure of ``y``; ``t`` as for `ODE`.
        diffusion: ``g(t, y)`` or ``g(t, y, args)``: of the structure of ``y``, each number with a noise of its own; or, with
            `channels`, a tensor of shape (*, d, channels) for a state of shape (*, d).
        rng: seed or stream, or a `BrownianPath` that several solutions share. The path that a seed gives depends on the steps
            where they are known beforehand.
        noise: ``"additive"``: g does not depend on y. ``"diagonal"``: g_i depends on y_i alone. ``"commutative"``: the columns of g
            commute as vector fields. ``"general"``: nothing is known.
        calculus: in which the equation is meant; for additive noise both are the same.
        channels: number of noises, where g is a matrix.

    Examples:
        >>> import torch
        >>> from isocline.integrators import EulerMaruyama, integrate
        >>> growth = SDE(lambda t, y: 0.1 * y, lambda t, y: 0.2 * y, rng=0)
        >>> y1 = integrate(growth, torch.ones(4096, 1), 0.0, 1.0, method=EulerMaruyama(), dt0=0.05).y1
        >>> round(float(y1.mean()), 2), round(float(y1.log().std()), 2)  # exp(0.1) = 1.11, and 0.2
        (1.1, 0.2)
    """

    drift: Field
    diffusion: Field
    rng: Stream | int | BrownianPath
    noise: Noise = "diagonal"
    calculus: Calculus = "ito"
    channels: int | None = None
    binding: Binding = field(default_factory=Binding, repr=False, compare=False)
    increment: Increment | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        require(self.noise in NOISES, f"noise is one of {', '.join(NOISES)}; got {self.noise!r}")
        require(self.calculus in CALCULI, f"calculus is one of {', '.join(CALCULI)}; got {self.calculus!r}")
        require(self.channels is None or self.channels >= 1, f"channels must be at least 1, got {self.channels}")
        square = self.noise == "diagonal" and self.channels is not None
        require(not square, "diagonal noise has one noise for each number of the state: leave out channels")

    # ------------------------------------------------------------------------------------------------ parts

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the drift; counts as one evaluation."""
        return self.binding.call(self.drift, t, y)

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the diffusion; counts as one evaluation."""
        if self.channels is None:
            return self.binding.call(self.diffusion, t, y)
        return self.binding.called(self.diffusion, t, y, (*y.shape, self.channels))

    def times(self, g: Tensor, noise: Tensor) -> Tensor:
        """Return ``g noise``."""
        return g * noise if self.channels is None else (g @ noise[..., None])[..., 0]

    def moved(self, y: Tensor, g: Tensor, noise: Tensor) -> Tensor:
        """Return ``y + g noise``."""
        return torch.addcmul(y, g, noise) if self.channels is None else y + (g @ noise[..., None])[..., 0]

    def vf(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the drift: what is left of the equation without noise."""
        return self.f(t, y)

    def functions(self) -> tuple[Any, ...]:
        """Return drift and diffusion."""
        return self.drift, self.diffusion

    @property
    def step(self) -> Increment:
        """What the path does over the step under way."""
        assert self.increment is not None
        return self.increment

    # ------------------------------------------------------------------------------------------------ steps

    def over(self, t: Array, h: Array) -> SDE:
        """Return the terms that know what the path does from `t` to ``t + h``."""
        return self._knowing(self._path().increment(t, t + h, self.binding.rows))

    def consecutive(self, starts: Array, h: Array) -> Iterator[SDE]:
        """Yield the same for steps of one size that follow each other, starts (n,); for samples that share their steps."""
        path = self._path()
        if h < 0 or path.cells.size > 2:  # where there are cells they are the steps, as a rule
            yield from (self._knowing(path.increment(t, t + h)) for t in starts)
        else:
            yield from map(self._knowing, path.increments(np.append(starts, starts[-1] + h)))

    def _knowing(self, increment: Increment) -> SDE:
        moved = object.__new__(SDE)  # every step makes one: what was checked is not checked again
        moved.__dict__.update(self.__dict__, increment=increment)
        return moved

    def fitted(self, t: Array, h: Array) -> Array:
        """Return a step, hardly shorter, at whose end the path is cheap to know."""
        return self._path().fitted(t, h, self.binding.rows)

    def _path(self) -> BrownianPath:
        assert isinstance(self.rng, BrownianPath)
        return self.rng

    def driven(self, y0: Tensor, t0: Array, t1: Array, controller: Controller, dt0: float | None, area: bool) -> SDE:
        """Return the terms with their path: cells are the steps, as far as they are known beforehand."""
        shape = tuple(y0.shape) if self.channels is None else (*y0.shape[:-1], self.channels)
        real = y0.real.dtype
        if isinstance(self.rng, BrownianPath):
            same = self.rng.shape == shape and self.rng.dtype == real
            require(
                same, f"the Brownian path has shape {self.rng.shape} and {self.rng.dtype}, the noise {shape} and {real}"
            )
            require(
                self.rng.area or not area, "this method reads the space-time area: pass BrownianPath(..., area=True)"
            )
            return self
        if np.all(t0 == t1):
            t1 = t0 + 1.0
        grid = known_steps(t0, t1, controller, dt0)
        return replace(
            self, rng=BrownianPath(self.rng, shape, t0, t1, area=area, grid=grid, dtype=real, device=y0.device)
        )

    # ------------------------------------------------------------------------------------------------ calculus

    def converted(self, calculus: Calculus) -> SDE:
        """Return the same process, written in the other calculus: the drift moves by ``(g' g) / 2``, found in forward mode.

        Only for a diffusion that acts number by number with ``g_i`` a function of ``y_i`` (``noise="diagonal"``), or additive
        noise.
        """
        require(calculus in CALCULI, f"calculus is one of {', '.join(CALCULI)}; got {calculus!r}")
        if calculus == self.calculus or self.noise == "additive":
            return replace(self, calculus=calculus)
        if self.noise != "diagonal":
            raise InvalidInput(f"the drift of {self.noise} noise is not converted: write it in {calculus} form")
        sign = -0.5 if calculus == "stratonovich" else 0.5
        f, g = self.drift, self.diffusion

        def drift(t: Tensor, y: Tensor, *args: Any) -> Tensor:
            return f(t, y, *args) + sign * along(lambda z: g(t, z, *args), y, g(t, y, *args))

        return replace(self, drift=drift, calculus=calculus)


def check_pairing(method: Any, terms: SDE) -> None:
    """Raise where a method does not converge to the solution of these terms; the message says which ones do."""
    name, strong = type(method).__name__, getattr(method, "strong", None)
    if strong is None:
        raise InvalidInput(f"{name} integrates equations without noise; for an SDE take {_others(terms)}")
    if terms.noise not in strong:
        known = " or ".join(strong)
        raise InvalidInput(f"{name} needs {known} noise, and this is {terms.noise}; take {_others(terms)}")
    if terms.noise != "additive" and method.calculus not in (None, terms.calculus):
        way = f"; take {_others(terms)}, or sde.converted({method.calculus!r})"
        raise InvalidInput(
            f"{name} converges to the solution in the sense of {method.calculus}, and this SDE is {terms.calculus}{way}"
        )


def _others(terms: SDE) -> str:
    if terms.noise == "additive":
        return "ShARK, or SPaRK for adaptive steps"
    if terms.calculus == "stratonovich":
        return "StochasticHeun, or SPaRK for adaptive steps"
    return "EulerMaruyama" if terms.noise == "general" else "Milstein or EulerMaruyama"


def known_steps(t0: Array, t1: Array, controller: Controller, dt0: float | None) -> Any:
    """Return the times at which steps will end, (n,) or (B, n), as far as they are known."""
    low, high = np.minimum(t0, t1), np.maximum(t0, t1)
    stops = np.asarray([*controller.stops, *controller.jumps], np.float64)
    inside = np.broadcast_to(stops, (*np.shape(t0), len(stops)))
    if controller.adaptive or dt0 is None:
        return inside
    size = whole(np.full(np.shape(t0), dt0), high - low)
    count = int(np.ceil(np.max((high - low) / size) - 1e-6))
    steps = np.asarray(t0)[..., None] + (np.sign(t1 - t0) * size)[..., None] * np.arange(1, max(count, 1))
    return np.concatenate([inside, np.clip(steps, low[..., None], high[..., None])], -1)
