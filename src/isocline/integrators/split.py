r"""Terms in two parts: one that is treated explicitly and one that is treated implicitly."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from isocline.integrators.terms import Binding, Field


@dataclass(frozen=True)
class Split:
    """The equation ``dy = (f(t, y) + g(t, y)) dt`` with ``f`` not stiff and ``g`` stiff.

    Additive methods such as `KenCarp4` treat `explicit` explicitly and `implicit` implicitly; all others see the sum.
    Each part counts as an evaluation of its own.

    Args:
        explicit: ``f(t, y)`` or ``f(t, y, args)``; ``t`` has shape () or, where samples have steps of their own, (B, 1,
            ..., 1).
        implicit: ``g(t, y)`` or ``g(t, y, args)``.

    Examples:
        >>> import torch
        >>> from isocline.integrators import PID, KenCarp4, integrate
        >>> terms = Split(lambda t, y: torch.cos(t) + 0 * y, lambda t, y: -1e3 * y)
        >>> y0 = torch.zeros(1, dtype=torch.float64)
        >>> solution = integrate(terms, y0, 0.0, 1.0, method=KenCarp4(), controller=PID(1e-6, 1e-9))
        >>> round(1e3 * float(solution.y1), 4)  # cos t + sin t / 1000
        0.5411
    """

    explicit: Field
    implicit: Field
    binding: Binding = field(default_factory=Binding, repr=False, compare=False)

    def slow(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the part that is treated explicitly; counts as one evaluation."""
        return self.binding.call(self.explicit, t, y)

    def fast(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the part that is treated implicitly; counts as one evaluation."""
        return self.binding.call(self.implicit, t, y)

    def vf(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the sum, so that any method can integrate the same equation; counts as two evaluations."""
        return self.slow(t, y) + self.fast(t, y)

    def functions(self) -> tuple[Any, ...]:
        """Return both parts."""
        return self.explicit, self.implicit
