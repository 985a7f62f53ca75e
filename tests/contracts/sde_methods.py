"""Every method for SDEs that shares the tests of tests/integrators/methods/test_sde_contract.py. A new method is one more line
here.

Each kind of noise has an equation whose solution is known as a function of the path, or is found on a finer grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isocline.integrators import (
    SDE,
    SRA1,
    BrownianPath,
    EulerMaruyama,
    Midpoint,
    Milstein,
    ReversibleHeun,
    ShARK,
    SPaRK,
    StochasticHeun,
    StochasticRungeKutta,
    StochasticTableau,
    integrate,
)

PATHS, FINE = 1000, 1024
MIX = torch.tensor([[0.6, 0.3], [-0.4, 0.5]], dtype=torch.float64)
SPEED = torch.tensor([0.4, -0.3], dtype=torch.float64)


@dataclass(frozen=True)
class Driven:
    """An equation in one calculus: drift, diffusion, kind of noise, channels, first state, its solution given the path."""

    noise: str
    calculus: str
    drift: Callable[..., Tensor]
    diffusion: Callable[..., Tensor]
    first: tuple[float, ...]
    exact: Callable[[BrownianPath, Driven], Tensor]
    channels: int | None = None

    def terms(self, path: Any) -> SDE:
        kind: Any = {"noise": self.noise, "calculus": self.calculus, "channels": self.channels}
        return SDE(self.drift, self.diffusion, path, **kind)

    def start(self) -> Tensor:
        return torch.tensor(self.first, dtype=torch.float64).expand(PATHS, -1).contiguous()

    def path(self, seed: int) -> BrownianPath:
        return BrownianPath(seed, (PATHS, self.channels or len(self.first)), 0.0, 1.0, area=True, dtype=torch.float64)


def on_finer_grid(path: BrownianPath, problem: Driven) -> Tensor:
    """The solution by another method on a much finer grid, for additive noise."""
    return integrate(problem.terms(path), problem.start(), 0.0, 1.0, method=SRA1(), dt0=1 / FINE).y1


def waves(t: Tensor, y: Tensor) -> Tensor:
    return (2 * y).sin() - 0.5 * y.flip(-1)


def swelling(t: Tensor, y: Tensor) -> Tensor:
    return 0 * y + torch.tensor([0.9, 1.2], dtype=y.dtype) * (1 + t.sin())


ADDITIVE = tuple(
    Driven("additive", calculus, waves, swelling, (0.5, 0.0), on_finer_grid) for calculus in ("ito", "stratonovich")
)


def hyperbolic(path: BrownianPath, problem: Driven) -> Tensor:
    """y = sinh(arcsinh y0 + 0.3 t + 0.7 W), each component."""
    return torch.sinh(torch.tensor(problem.first, dtype=torch.float64).asinh() + 0.3 + 0.7 * path(1.0))


def width(y: Tensor) -> Tensor:
    return (1 + y**2).sqrt()


DIAGONAL = (
    Driven(
        "diagonal", "stratonovich", lambda t, y: 0.3 * width(y), lambda t, y: 0.7 * width(y), (0.5, -0.2), hyperbolic
    ),
    Driven(
        "diagonal", "ito", lambda t, y: 0.3 * width(y) + 0.245 * y, lambda t, y: 0.7 * width(y), (0.5, -0.2), hyperbolic
    ),
)


def mapped(path: BrownianPath, problem: Driven) -> Tensor:
    """y = (sinh x1, x2 + sin x1) with x = c t + B W, starting at 0."""
    x = SPEED + path(1.0) @ MIX.mT
    return torch.stack([x[:, 0].sinh(), x[:, 1] + x[:, 0].sin()], -1)


def tangent(y: Tensor) -> tuple[Tensor, Tensor]:
    x = y[..., 0].asinh()
    return x.cosh(), x.cos()


def slopes(t: Tensor, y: Tensor) -> Tensor:
    a, b = tangent(y)
    return torch.stack([a[..., None] * MIX[0], MIX[1] + b[..., None] * MIX[0]], -2)


def along_speed(t: Tensor, y: Tensor) -> Tensor:
    a, b = tangent(y)
    return torch.stack([a * SPEED[0], SPEED[1] + b * SPEED[0]], -1)


def along_speed_ito(t: Tensor, y: Tensor) -> Tensor:
    x, size = y[..., 0].asinh(), MIX[0].square().sum() / 2
    return along_speed(t, y) + size * torch.stack([x.sinh(), -x.sin()], -1)


COMMUTATIVE = (
    Driven("commutative", "stratonovich", along_speed, slopes, (0.0, 0.0), mapped, 2),
    Driven("commutative", "ito", along_speed_ito, slopes, (0.0, 0.0), mapped, 2),
)


def areas(path: BrownianPath, problem: Driven) -> Tensor:
    """dy = (dW1, dW2, y1 dW2 - y2 dW1): the area between path and chord, summed on a finer grid; the same in both calculi."""
    w, total = torch.zeros(PATHS, 2, dtype=torch.float64), torch.zeros(PATHS, dtype=torch.float64)
    for k in range(4 * FINE):
        step = path.increment(k / (4 * FINE), (k + 1) / (4 * FINE)).w
        total, w = total + w[:, 0] * step[:, 1] - w[:, 1] * step[:, 0], w + step
    return torch.cat([w, total[:, None]], -1)


def turning(t: Tensor, y: Tensor) -> Tensor:
    one, zero = torch.ones_like(y[..., 0]), torch.zeros_like(y[..., 0])
    rows = [torch.stack([one, zero], -1), torch.stack([zero, one], -1), torch.stack([-y[..., 1], y[..., 0]], -1)]
    return torch.stack(rows, -2)


GENERAL = tuple(
    Driven("general", calculus, lambda t, y: 0 * y, turning, (0.0, 0.0, 0.0), areas, 2)
    for calculus in ("ito", "stratonovich")
)
PROBLEMS = (*ADDITIVE, *DIAGONAL, *COMMUTATIVE, *GENERAL)


@dataclass(frozen=True)
class Entry:
    """One method: its name and the method."""

    name: str
    method: Any

    @property
    def problems(self) -> tuple[Driven, ...]:
        """Equations on which it must converge."""
        calculus = self.method.calculus
        return tuple(
            p
            for p in PROBLEMS
            if p.noise in self.method.strong and (calculus in (None, p.calculus) or p.noise == "additive")
        )


METHODS = (
    Entry("Euler-Maruyama", EulerMaruyama()),
    Entry("Milstein", Milstein()),
    Entry("stochastic Heun", StochasticHeun()),
    Entry("stochastic midpoint", StochasticRungeKutta(StochasticTableau.plain(Midpoint().tableau))),
    Entry("SPaRK", SPaRK()),
    Entry("SRA1", SRA1()),
    Entry("ShARK", ShARK()),
    Entry("reversible Heun", ReversibleHeun()),
)
