r"""Incompressible flow on networks by operator splitting (Chen, Wu, Grinspun, Zheng, Chen, arXiv 2210.00124).

A step of ``u_t + (u . grad) u = -grad p``, ``div u = 0`` without viscosity is three fits at fresh random points:

    advection      u*  =  u_n(x - h u_n(x))                           along straight characteristics
    pressure       p   =  argmin mean |laplacian(p) - div u*|^2
    projection     u   =  argmin mean |u - (u* - grad p)|^2

The pressure is that of the step times h, up to a constant. First order in h; what the last two fits leave is the divergence.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from isocline._core.errors import require
from isocline._core.stream import Stream, as_stream
from isocline.derivatives import Spec, jet
from isocline.optimizers.evolution.insr import METHOD, POINTS, GaussNewtonFit, Minimise, Residual, Term, advected
from isocline.optimizers.evolution.stepper import FieldStep, Fitted, Values, refuse_not_finite, times, values_of
from isocline.points.domains import Domain
from isocline.points.sampler import Sampler

DEFAULT = GaussNewtonFit()


@METHOD.variant(order=1)
def incompressible(
    velocity: nn.Module,
    pressure: nn.Module,
    t0: float,
    t1: float,
    dt: float,
    domain: Domain,
    *,
    sampler: Sampler = POINTS,
    minimise: Minimise = DEFAULT,
    walls: Term | None = None,
    rng: Stream | int = 0,
) -> Iterator[FieldStep]:
    """Move the velocity of an ideal incompressible flow; yields after each step with the losses of its three fits.

    Args:
        velocity: maps (N, d) to (N, d), with the period of the domain or with `walls`; its parameters are moved.
        pressure: maps (N, d) to (N, 1); every step starts from that of the last.
        t0: first time.
        t1: last time, a whole number of steps later.
        dt: the step h, positive. A particle moves ``h |u|`` in it.
        domain: where points are drawn. Fields are read up to a step outside of it.
        sampler: draws points for each iteration.
        minimise: `GaussNewtonFit` or `AdamFit`.
        walls: a condition on the velocity, in the fits of advection and projection; None where the field fulfils it.
        rng: chooses points.

    Raises:
        InvalidInput: a field has the wrong number of components.
        NotFinite: a fit has gone astray; names the time.
    """
    stream, d = as_stream(rng, "incompressible"), domain.d
    x = domain.uniform(1, stream.child("shape"))
    for field, width, name in ((velocity, d, "velocity"), (pressure, 1, "pressure")):
        found = values_of(field, x).shape[1]
        require(found == width, f"the {name} in {d} dimensions has {width} components, the field has {found}")
    grid = times(t0, t1, dt)
    h = (t1 - t0) / (len(grid) - 1)
    for n, time in enumerate(grid[:-1]):
        draw = _Draw(sampler, domain, stream.child(n))
        fits = _step(velocity, pressure, h, draw, minimise, [] if walls is None else [walls])
        losses = tuple(fit.loss for fit in fits)
        refuse_not_finite(max(losses), time)
        yield FieldStep(grid[n + 1], losses, sum(fit.iterations for fit in fits))


@dataclass(frozen=True)
class _Draw:
    """Fresh points for the iterations of a fit, which has a name."""

    sampler: Sampler
    domain: Domain
    stream: Stream

    def term(self, residual: Residual, name: str) -> Term:
        """Return a residual at points of its own."""
        stream = self.stream.child(name)
        return Term(residual, lambda k: self.sampler.draw(self.domain, stream.child(k)).x)


def _step(
    velocity: nn.Module, pressure: nn.Module, h: float, draw: _Draw, minimise: Minimise, walls: list[Term]
) -> list[Fitted]:
    """Move the velocity by one step, and return the three fits."""
    old = frozen(velocity)
    carried = advected(old, old, h)
    first = minimise(velocity, [draw.term(lambda u, x: u(x) - carried(x), "advection"), *walls])
    star = frozen(velocity)
    second = minimise(pressure, [draw.term(lambda p, x: laplacian(p, x) - divergence(star, x), "pressure")])
    p = frozen(pressure)
    third = minimise(velocity, [draw.term(lambda u, x: u(x) - star(x) + gradient(p, x), "projection"), *walls])
    return [first, second, third]


def frozen(field: nn.Module) -> nn.Module:
    """Return a copy that is not trained."""
    return copy.deepcopy(field).requires_grad_(False)


def divergence(field: Values, x: Tensor) -> Tensor:
    """Return the divergence (N,) of a field (N, d) -> (N, d) at points."""
    d = x.shape[1]
    found = jet(field, x, _spec(d, 1))
    return torch.stack([found[(i,)][:, i] for i in range(d)]).sum(0)


def gradient(field: Values, x: Tensor) -> Tensor:
    """Return the gradient (N, d) of a field (N, d) -> (N, 1) at points."""
    found = jet(field, x, _spec(x.shape[1], 1))
    return torch.cat([found[(i,)] for i in range(x.shape[1])], 1)


def laplacian(field: Values, x: Tensor) -> Tensor:
    """Return the Laplacian (N,) of a field (N, d) -> (N, 1) at points."""
    found = jet(field, x, _spec(x.shape[1], 2))
    return torch.stack([found[(i, i)][:, 0] for i in range(x.shape[1])]).sum(0)


def _spec(d: int, order: int) -> Spec:
    return Spec(frozenset((i,) * order for i in range(d)), tuple(f"x{i}" for i in range(d)))
