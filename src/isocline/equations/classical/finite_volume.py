r"""Finite volumes for conservation laws on boxes of one or two axes: MUSCL reconstruction and strong-stability-preserving steps.

    d_t U + sum_a d_a F_a(U) = S(U) ,    dU_j/dt = S(U_j) - sum_a (F*_{j + e_a / 2} - F*_{j - e_a / 2}) / h_a

U_j is the average over a cell. At faces, primitive variables w are continued from both sides with slopes that are limited,

    w_{j +- 1/2} = w_j +- m_j / 2 ,    m_j = minmod(theta (w_j - w_{j-1}), (w_{j+1} - w_{j-1}) / 2, theta (w_{j+1} - w_j)) ,

and a Riemann solver of the law gives F*. theta = 1 is minmod, the most diffusive; theta = 2 is the monotonised central limiter
(van Leer, J. Comput. Phys. 32 (1979) 101). Steps are Heun's or Shu and Osher's of third order (J. Comput. Phys. 77 (1988) 439),
both convex combinations of Euler steps, of the size

    dt = CFL / max sum_a (abs(v_a) + c) / h_a .

Every case of a batch has steps of its own, so that what it becomes does not depend on its neighbours. All is plain arithmetic on
tensors, and gradients flow through it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from isocline._core.errors import NotFinite, require

Kind = Literal["periodic", "open", "wall"]
GHOSTS = 2  # cells beyond each end that a limited slope at a face needs


class Law(ABC):
    """A hyperbolic conservation law in d axes.

    States are ``(n, C, *S)``. Channel ``1 + a`` is the momentum, in primitive variables the velocity, along axis a.
    """

    positive: tuple[tuple[int, str], ...] = ()  # primitive channels that must stay positive, and what they are called

    @abstractmethod
    def primitive(self, u: Tensor) -> Tensor:
        """Return primitive variables of conserved ones, of the same shape."""

    @abstractmethod
    def conserved(self, w: Tensor) -> Tensor:
        """Return conserved variables of primitive ones, of the same shape."""

    @abstractmethod
    def sound(self, w: Tensor) -> Tensor:
        """Return the speed of small waves relative to the medium, ``(n, *S)``."""

    @abstractmethod
    def flux(self, left: Tensor, right: Tensor, axis: int) -> Tensor:
        """Return the flux along an axis between primitive states at both sides of faces, ``(n, C, *faces)``."""

    def source(self, w: Tensor) -> Tensor | None:
        """Return what is added to dU/dt in the cells, from primitive states; None for nothing."""
        return None


@dataclass(frozen=True)
class FiniteVolume:
    """A law on a grid.

    Args:
        law: the law.
        spacing: edges of a cell, one number each axis.
        boundary: of each axis: ``"periodic"``, ``"open"`` (the last cell is continued) or ``"wall"`` (a mirror).
        cfl: part of the time in which the fastest waves cross a cell; below 1, for two axes below 1/2 by the sum above.
        theta: of the limiter, from 1 (minmod) to 2.
        order: 2 or 3, of the steps in time.

    Raises:
        InvalidInput: numbers out of their range.

    Examples:
        >>> from isocline.equations.classical.shallow_water import ShallowWater
        >>> solver = FiniteVolume(ShallowWater(), (0.1,), ("periodic",))
        >>> flat = torch.tensor([1.0, 0.5], dtype=torch.float64).reshape(1, 2, 1).expand(1, 2, 10)
        >>> bool((solver.advance(flat, 0.0, 1.0) - flat).abs().max() < 1e-12)
        True
    """

    law: Law
    spacing: tuple[float, ...]
    boundary: tuple[Kind, ...]
    cfl: float = 0.4
    theta: float = 1.0
    order: int = 2

    def __post_init__(self) -> None:
        d = len(self.spacing)
        require(d in (1, 2) and len(self.boundary) == d, "one or two axes, with a spacing and a boundary each")
        require(min(self.spacing) > 0, f"spacings must be positive, got {self.spacing}")
        require(0 < self.cfl <= 1, f"the CFL number lies in (0, 1], got {self.cfl}")
        require(1 <= self.theta <= 2, f"theta lies between 1 (minmod) and 2, got {self.theta}")
        require(self.order in (2, 3), f"steps have order 2 or 3, got {self.order}")
        known = all(kind in ("periodic", "open", "wall") for kind in self.boundary)
        require(known, f"a boundary is periodic, open or wall, got {self.boundary}")

    def rate(self, u: Tensor) -> Tensor:
        """Return dU/dt of conserved states ``(n, C, *S)``."""
        w = self.law.primitive(u)
        source = self.law.source(w)
        total = torch.zeros_like(u) if source is None else source
        for axis, (h, kind) in enumerate(zip(self.spacing, self.boundary, strict=True)):
            flux = self.law.flux(*faces(extended(w, axis, kind), axis, self.theta), axis)
            total = total - torch.diff(flux, dim=2 + axis) / h
        return total

    def step(self, u: Tensor, dt: Tensor) -> Tensor:
        """Return states ``(n, C, *S)`` after steps of sizes (n,)."""
        dt = dt.reshape(-1, *[1] * (u.ndim - 1))
        first = u + dt * self.rate(u)
        if self.order == 2:
            return 0.5 * (u + first + dt * self.rate(first))
        second = 0.75 * u + 0.25 * (first + dt * self.rate(first))
        return (u + 2 * (second + dt * self.rate(second))) / 3

    def largest_step(self, u: Tensor) -> Tensor:
        """Return the step that the CFL number allows each case, (n,)."""
        w = self.law.primitive(u)
        c = self.law.sound(w)
        crossings = sum((w[:, 1 + a].abs() + c) / h for a, h in enumerate(self.spacing))
        assert isinstance(crossings, Tensor)
        return self.cfl / crossings.flatten(1).amax(1).detach()

    def advance(self, u: Tensor, start: float, stop: float, first: int = 0) -> Tensor:
        """Return conserved states ``(n, C, *S)`` at the time `stop` of those at `start`.

        Args:
            u: the states.
            start: their time.
            stop: a later time.
            first: number of the first case, for messages.

        Raises:
            NotFinite: a density or pressure or depth is not positive; the text names time, case and cell.
        """
        left = torch.full((len(u),), stop - start, dtype=torch.float64, device=u.device)
        self.check(u, torch.full_like(left, start), torch.arange(len(u), device=u.device) + first)
        while bool((left > 0).any()):
            going = (left > 0).nonzero()[:, 0]
            part = u if len(going) == len(u) else u[going]
            count = (left[going] / self.largest_step(part)).ceil().clamp(min=1)
            part = self.step(part, left[going] / count)
            rest = torch.where(count > 1, left[going] * (1 - 1 / count), 0.0)
            self.check(part, stop - rest, going + first)
            u = part if len(going) == len(u) else u.index_copy(0, going, part)
            left = left.index_copy(0, going, rest)
        return u

    def march(self, u: Tensor, times: Sequence[float], first: int = 0) -> Iterator[Tensor]:
        """Yield states at increasing times; `u` belongs to the first of them."""
        yield u
        for start, stop in pairwise(times):
            u = self.advance(u, start, stop, first)
            yield u

    def check(self, u: Tensor, t: Tensor, cases: Tensor) -> None:
        """Refuse states whose density, pressure or depth is not positive.

        Raises:
            NotFinite: with time, case and cell.
        """
        w = self.law.primitive(u.detach())
        for channel, name in self.law.positive:
            bad = ~((w[:, channel] > 0) & w[:, channel].isfinite())
            if bool(bad.any()):
                case, *cell = (int(i) for i in bad.nonzero()[0])
                raise NotFinite(
                    f"the {name} is {float(w[(case, channel, *cell)]):.3g} at t = {float(t[case]):.4g} in case "
                    f"{int(cases[case])}, cell {tuple(cell)}; lower cfl or theta, or take milder initial states"
                )


def extended(w: Tensor, axis: int, kind: Kind) -> Tensor:
    """Return primitive states with ghost cells at both ends of an axis."""
    dim, n = 2 + axis, w.shape[2 + axis]
    require(n >= GHOSTS, f"an axis needs at least {GHOSTS} cells, got {n}")
    if kind == "open":
        ends = [
            w.narrow(dim, place, 1).expand(*[GHOSTS if i == dim else -1 for i in range(w.ndim)]) for place in (0, n - 1)
        ]
        return torch.cat([ends[0], w, ends[1]], dim)
    low, high = w.narrow(dim, 0, GHOSTS), w.narrow(dim, n - GHOSTS, GHOSTS)
    if kind == "periodic":
        return torch.cat([high, w, low], dim)
    mirror = torch.ones(w.shape[1], dtype=w.dtype, device=w.device)
    mirror[1 + axis] = -1
    mirror = mirror.reshape(-1, *[1] * (w.ndim - 2))
    return torch.cat([low.flip(dim) * mirror, w, high.flip(dim) * mirror], dim)


def faces(w: Tensor, axis: int, theta: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return states at both sides of the n + 1 faces of an axis, of states with ghost cells on it."""
    dim = 2 + axis
    step = torch.diff(w, dim=dim)
    n = step.shape[dim]
    half = 0.5 * limited(step.narrow(dim, 0, n - 1), step.narrow(dim, 1, n - 1), theta)
    inner = w.narrow(dim, 1, n - 1)
    up, down = inner + half, inner - half
    return up.narrow(dim, 0, n - 2), down.narrow(dim, 1, n - 2)


def limited(a: Tensor, b: Tensor, theta: float = 1.0) -> Tensor:
    """Return the slope of smallest size of `theta` a, `theta` b and their mean; 0 where a and b differ in sign.

    Examples:
        >>> limited(torch.tensor([1.0, 1.0, 1.0]), torch.tensor([2.0, -2.0, 8.0]), 2.0).tolist()
        [1.5, 0.0, 2.0]
    """
    smallest = theta * torch.minimum(a.abs(), b.abs())
    if theta > 1:
        smallest = torch.minimum(smallest, 0.5 * (a + b).abs())
    return torch.where(a * b > 0, torch.sign(a) * smallest, 0.0)


def centres(low: Sequence[float], high: Sequence[float], resolution: Sequence[int]) -> Tensor:
    """Return the middle points of cells, ``(*S, D)`` float64.

    Examples:
        >>> centres((0.0,), (1.0,), (2,)).tolist()
        [[0.25], [0.75]]
    """
    ends = zip(low, high, resolution, strict=True)
    lines = [a + (b - a) * (torch.arange(n, dtype=torch.float64) + 0.5) / n for a, b, n in ends]
    return torch.stack(torch.meshgrid(*lines, indexing="ij"), -1)


def averaged(values: Tensor, times: int, d: int) -> Tensor:
    """Return averages over blocks of `times` cells along each of the last d axes.

    Examples:
        >>> averaged(torch.tensor([1.0, 3.0, 5.0, 7.0]), 2, 1).tolist()
        [2.0, 6.0]
    """
    lead = values.shape[: values.ndim - d]
    blocks = [size for n in values.shape[values.ndim - d :] for size in (n // times, times)]
    return values.reshape(*lead, *blocks).mean(tuple(range(len(lead) + 1, len(lead) + 2 * d, 2)))


__all__ = ["FiniteVolume", "Law", "averaged", "centres", "extended", "faces", "limited"]
