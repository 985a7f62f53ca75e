r"""Events: where a function of the state crosses zero.

After each accepted step the sign of ``g(t, y)`` is compared with the one before; where it changed, the crossing is found on the
interpolant by bisection, to the precision of the time. With gradients, one Newton correction at the crossing carries the
derivative of the time of the event: ``t* - g / (d g / d t)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from isocline._core.errors import require


@dataclass(frozen=True)
class Event:
    """A crossing that ends the integration.

    Args:
        condition: ``g(t, y)``, or ``g(t, y, args)`` where `integrate` is given arguments: a number, shape (); (B,) where samples
            have steps of their own.
        direction: 1 for crossings upwards only, -1 for downwards only, 0 for both; in the direction of integration.
        required: whether a solution that ends without the event counts as failed.
        name: what messages call it.
    """

    condition: Callable[..., Tensor]
    direction: int = 0
    required: bool = False
    name: str = "event"

    def __post_init__(self) -> None:
        require(self.direction in (-1, 0, 1), f"an event's direction is -1, 0 or 1, got {self.direction}")

    def crossed(self, before: Any, after: Any) -> Any:
        """Return where the sign changed in the wanted direction; arrays or numbers."""
        up, down = (before < 0) & (after >= 0), (before > 0) & (after <= 0)
        return up if self.direction == 1 else down if self.direction == -1 else up | down
