r"""What a controller is: it turns error ratios into step sizes.

Controllers work on the control plane: NumPy float64 numbers, shape () where the whole state shares its steps and (B,) where every
sample has its own. Steps and elapsed times are positive here, whatever the direction of time. A controller keeps nothing: what it
remembers (earlier ratios) goes through the loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from torch import Tensor

Array: TypeAlias = Any  # NDArray[np.float64], or np.float64 where the shape is ()
Flags: TypeAlias = Any  # the same with np.bool_
Memory = tuple[Array, ...]


class Decision(NamedTuple):
    """What follows an attempt.

    Args:
        accept: whether the attempted step is taken.
        h: size of the next attempt.
        memory: what the controller wants to be told next time.
    """

    accept: Flags
    h: Array
    memory: Memory


class Controller(Protocol):
    """One way to choose steps.

    Attributes:
        adaptive: whether an error estimate is read, and a first step can be found from it.
        stops: times at which a step must end.
        jumps: those of them at which the vector field is discontinuous, so that nothing is carried over.
    """

    @property
    def adaptive(self) -> bool:
        """Whether an error estimate is read."""
        ...

    @property
    def stops(self) -> Sequence[float]:
        """Times at which a step must end."""
        ...

    @property
    def jumps(self) -> Sequence[float]:
        """Times at which the vector field is discontinuous."""
        ...

    def start(self, shape: tuple[int, ...]) -> Memory:
        """Return what is remembered before the first attempt."""
        ...

    def ratio(self, error: Tensor | None, y: Tensor, y1: Tensor, event_dims: int) -> Tensor:
        """Return the error in units of what is tolerated, shape () or (B,); not finite where `y1` is not."""
        ...

    def decide(self, h: Array, ratio: Array, memory: Memory, order: int) -> Decision:
        """Return what follows an attempt of size `h`; `order` is the power of h in the error estimate."""
        ...
