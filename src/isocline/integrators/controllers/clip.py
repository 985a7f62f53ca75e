"""Steps that end where they must: given times, and times where the vector field jumps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from isocline.integrators.controllers.base import Array, Controller, Decision, Memory


@dataclass(frozen=True)
class Clip:
    """A controller whose steps also end at given times.

    Args:
        inner: the controller that chooses the sizes.
        times: where a step shall end.
        jump_times: where the vector field is discontinuous; a step ends there and the next one starts afresh.

    Examples:
        >>> import torch
        >>> from isocline.integrators import PID, ODE, SaveAt, integrate
        >>> push = ODE(lambda t, y: torch.where(t < 0.5, 1.0, -1.0) + 0 * y)
        >>> solution = integrate(push, torch.zeros(()), 0.0, 1.0, controller=Clip(PID(1e-4, 1e-4), jump_times=(0.5,)), dt0=0.5)
        >>> round(float(solution.y1), 6), solution.stats.rejected
        (0.0, 0)
    """

    inner: Controller
    times: Sequence[float] = ()
    jump_times: Sequence[float] = ()

    @property
    def adaptive(self) -> bool:
        """Whether the inner controller reads an error estimate."""
        return self.inner.adaptive

    @property
    def stops(self) -> Sequence[float]:
        """All times at which a step must end."""
        return (*self.inner.stops, *self.times, *self.jump_times)

    @property
    def jumps(self) -> Sequence[float]:
        """Times at which the vector field is discontinuous."""
        return (*self.inner.jumps, *self.jump_times)

    def start(self, shape: tuple[int, ...]) -> Memory:
        """Return the inner controller's first memory."""
        return self.inner.start(shape)

    def ratio(self, error: Tensor | None, y: Tensor, y1: Tensor, event_dims: int) -> Tensor:
        """Return the inner controller's ratio."""
        return self.inner.ratio(error, y, y1, event_dims)

    def decide(self, h: Array, ratio: Array, memory: Memory, order: int) -> Decision:
        """Return the inner controller's decision."""
        return self.inner.decide(h, ratio, memory, order)
