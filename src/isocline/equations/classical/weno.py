r"""Burgers, Korteweg-de Vries and what lies between them on a circle: WENO finite volumes of fifth order.

    d_t u + alpha u d_x u - beta d_xx u + gamma d_xxx u = f(x, t) ,

the combined equation of Brandstetter, Worrall and Welling (arXiv 2202.03376). Their paper has the flux ``alpha u^2 - beta u_x +
gamma u_xx``, their code ``alpha u^2 / 2``; alpha here is that of the code, twice the paper's.

Cell averages are continued to faces by Jiang and Shu's three parabolas (J. Comput. Phys. 126 (1996) 202) with the weights of Borges
et al. (J. Comput. Phys. 227 (2008) 3191), ``w_k ~ d_k (1 + |b_0 - b_2| / (b_k + eps))``, and the flux between two states is
Godunov's, ``alpha max(max(u_L, 0)^2, min(u_R, 0)^2) / 2`` for alpha >= 0. In Fourier space the linear terms act on cell averages
by a factor, so that they are exact: with ``E(a) = exp(a dt (beta d_xx - gamma d_xxx))`` and N for the rest, a step is

    u_1 = E(2/3) (u + 2/3 dt N(u)) ,
    u_2 = 2/3 E(2/3) u + 1/3 (u_1 + 4/3 dt N(u_1)) ,
    u'  = E(1) (37/64 u + 5/32 dt N(u)) + 27/64 E(1/3) (u_2 + 4/3 dt N(u_2)) ,

of third order and strong stability preserving (Isherwood, Grant and Gottlieb, SIAM J. Numer. Anal. 56 (2018) 3276): stages never
go back in time, where diffusion would blow up. Steps are limited by the nonlinear term alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from isocline._core.errors import NotFinite, require

SMOOTH = 1e-40  # keeps a ratio of zeros finite
Forcing = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class CombinedEquation:
    """The combined equation for n cases, on a circle of N cells.

    Args:
        length: of the circle.
        alpha: of the nonlinear term, (n,), at least 0.
        beta: viscosity, (n,), at least 0.
        gamma: dispersion, (n,).
        forcing: times (n,) to cell averages of f, (n, N); none by default.
        cfl: part of a cell that the fastest characteristic crosses in a step.

    Raises:
        InvalidInput: alpha or beta is negative.

    Examples:
        >>> zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        >>> heat = CombinedEquation(2 * math.pi, zero, one, zero)
        >>> u = torch.sin(torch.arange(16, dtype=torch.float64) * math.pi / 8)[None]
        >>> bool((heat.advance(u, 0.0, 1.0) - u / math.e).abs().max() < 1e-14)
        True
    """

    length: float
    alpha: Tensor
    beta: Tensor
    gamma: Tensor
    forcing: Forcing | None = None
    cfl: float = 0.6

    def __post_init__(self) -> None:
        require(self.length > 0, f"the length must be positive, got {self.length}")
        require(bool((self.alpha >= 0).all()), "alpha must not be negative; mirror x and u instead")
        require(bool((self.beta >= 0).all()), "the viscosity beta must not be negative")
        require(0 < self.cfl <= 1, f"the CFL number lies in (0, 1], got {self.cfl}")

    def rest(self, u: Tensor, t: Tensor) -> Tensor:
        """Return ``-d_x (alpha u^2 / 2) + f`` for cell averages (n, N) at times (n,)."""
        left, right = weno(u)
        flux = 0.5 * self.alpha[:, None] * torch.maximum(left.clamp(min=0) ** 2, right.clamp(max=0) ** 2)
        slope = (flux - flux.roll(1, -1)) * (u.shape[-1] / self.length)
        return -slope if self.forcing is None else self.forcing(t) - slope

    def step(self, u: Tensor, t: Tensor, dt: Tensor) -> Tensor:
        """Return cell averages (n, N) after steps of sizes (n,) from times (n,)."""
        h = dt[:, None]
        first = self.rest(u, t)
        late = self._moved(u, dt * 2 / 3)
        one = late + self._moved(2 / 3 * h * first, dt * 2 / 3)
        two = 2 / 3 * late + (one + 4 / 3 * h * self.rest(one, t + 2 / 3 * dt)) / 3
        last = two + 4 / 3 * h * self.rest(two, t + 2 / 3 * dt)
        return self._moved(37 / 64 * u + 5 / 32 * h * first, dt) + 27 / 64 * self._moved(last, dt / 3)

    def advance(self, u: Tensor, start: float, stop: float, first: int = 0) -> Tensor:
        """Return cell averages at the time `stop` of those (n, N) at `start`.

        All cases of a batch take part in every step; those that have arrived stand still.

        Raises:
            NotFinite: the text names time, case and cell.
        """
        left = torch.full_like(self.alpha, stop - start)
        while bool((left > 0).any()):
            speed = (self.alpha * u.abs().amax(-1)).detach()
            count = (left * speed * u.shape[-1] / (self.cfl * self.length)).ceil().clamp(min=1)
            after = self.step(u, stop - left, left / count)
            u = torch.where((left > 0)[:, None], after, u)
            left = torch.where(count > 1, left * (1 - 1 / count), 0.0)
            self._check(u, stop - left, first)
        return u

    def march(self, u: Tensor, times: Sequence[float], first: int = 0) -> Iterator[Tensor]:
        """Yield cell averages at increasing times; `u` belongs to the first of them."""
        yield u
        for start, stop in pairwise(times):
            u = self.advance(u, start, stop, first)
            yield u

    def _moved(self, u: Tensor, dt: Tensor) -> Tensor:
        """Return what diffusion and dispersion make of (n, N) in times (n,)."""
        if not bool((self.beta != 0).any() | (self.gamma != 0).any()):
            return u
        n = u.shape[-1]
        k = torch.arange(n // 2 + 1, dtype=torch.float64, device=u.device) * (2 * math.pi / self.length)
        decay = torch.exp(-(self.beta * dt)[:, None] * k**2)
        turned = torch.polar(decay, (self.gamma * dt)[:, None] * k**3)
        return torch.fft.irfft(turned * torch.fft.rfft(u), n)

    def _check(self, u: Tensor, t: Tensor, first: int) -> None:
        bad = ~u.detach().isfinite()
        if bool(bad.any()):
            case, cell = (int(i) for i in bad.nonzero()[0])
            raise NotFinite(
                f"u is not finite at t = {float(t[case]):.4g} in case {case + first}, cell {cell}; lower cfl"
            )


def weno(u: Tensor) -> tuple[Tensor, Tensor]:
    """Return values at the right face of every cell, continued from the left and from the right, of averages (..., N)."""
    n = u.shape[-1]
    step = torch.diff(torch.cat([u[..., -2:], u, u[..., :2]], -1))
    a, b, c, d = (step[..., k : k + n] for k in range(4))  # differences around a cell, from left to right
    bend = 13 / 12 * torch.diff(step) ** 2
    rough = (
        bend[..., :n] + 0.25 * (3 * b - a) ** 2,
        bend[..., 1 : n + 1] + 0.25 * (b + c) ** 2,
        bend[..., 2 : n + 2] + 0.25 * (d - 3 * c) ** 2,
    )
    gap = (rough[0] - rough[2]).abs()
    trust = [1 + gap / (r + SMOOTH) for r in rough]
    up = _mean((0.1, 0.6, 0.3), trust, (5 * b - 2 * a, b + 2 * c, 4 * c - d))
    down = _mean((0.3, 0.6, 0.1), trust, (4 * b - a, c + 2 * b, 5 * c - 2 * d))
    return u + up, (u - down).roll(-1, -1)


def _mean(ideal: Sequence[float], trust: Sequence[Tensor], sixfold: Sequence[Tensor]) -> Tensor:
    """Return the mean of the parabolas' increments, given six times, by weights that need no sum of one."""
    x, y, z = (w * t for w, t in zip(ideal, trust, strict=True))
    return (x * sixfold[0] + y * sixfold[1] + z * sixfold[2]) / (6 * (x + y + z))


__all__ = ["CombinedEquation", "weno"]
