r"""Hamiltonian systems whose energy separates, H(q, p, t) = T(p, t) + V(q, t).

    dq/dt = dH/dp = velocity(t, p) ,        dp/dt = -dH/dq = force(t, q)

Either equation can be solved exactly while the other stands still, which is what symplectic methods use. Each part
has a clock of its own: where force or velocity depend on time, the force reads the time up to which positions have
moved, the velocity that of the momenta. So a method keeps its order (time is one more coordinate of a larger
autonomous system).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.integrators.packing import Packing
from isocline.integrators.terms import Binding, Field


@dataclass(frozen=True)
class Separable:
    """The equations of motion of a separable energy; the state is the pair ``(q, p)``, two tensors or structures of equal shapes.

    Args:
        velocity: ``dH/dp``: ``velocity(t, p)``, or ``velocity(t, p, args)`` where `integrate` is given arguments;
            returns the structure of ``q``.
        force: ``-dH/dq``: ``force(t, q)`` or ``force(t, q, args)``.

    Examples:
        >>> import torch
        >>> from isocline.integrators import Leapfrog, Separable, integrate
        >>> spring = Separable(velocity=lambda t, p: p, force=lambda t, q: -q)
        >>> start = torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
        >>> q, p = integrate(spring, start, 0.0, torch.pi, method=Leapfrog(), dt0=torch.pi / 100).y1
        >>> round(float(q), 3), round(float(p), 3)
        (-1.0, 0.0)
    """

    velocity: Field
    force: Field
    binding: Binding = field(default_factory=Binding, repr=False, compare=False)

    @cached_property
    def _half(self) -> Binding:
        """Return what velocity and force are called with: they see one half of the state."""
        packing = self.binding.packing
        spec = None if packing is None else packing.spec
        children = [] if spec is None else spec.children()
        shapes = () if packing is None else packing.shapes
        k = len(shapes) // 2
        if packing is None or len(children) != 2 or shapes[:k] != shapes[k:]:
            raise InvalidInput("Separable integrates a pair (q, p) of equal shapes: pass y0=(q, p)")
        return replace(self.binding, packing=Packing(children[0], shapes[:k], packing.batched))

    def halves(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return packed positions and momenta, each of shape (..., N / 2)."""
        q, p = y.chunk(2, dim=-1)
        return q, p

    def speed(self, t: Tensor, p: Tensor) -> Tensor:
        """Return packed ``dq/dt``; counts as one evaluation."""
        return self._half.call(self.velocity, t, p)

    def push(self, t: Tensor, q: Tensor) -> Tensor:
        """Return packed ``dp/dt``; counts as one evaluation."""
        return self._half.call(self.force, t, q)

    def vf(self, t: Tensor, y: Tensor) -> Tensor:
        """Return both derivatives, so that any method can integrate the same equation."""
        q, p = self.halves(y)
        return torch.cat([self.speed(t, p), self.push(t, q)], dim=-1)

    def functions(self) -> tuple[Any, ...]:
        """Return both functions."""
        return (self.velocity, self.force)
