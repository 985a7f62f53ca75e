r"""The soft teacher: a student need only reach the target from some noise near the teacher's (Tong et al., arXiv 2405.15506).

Each training noise ``x`` may move inside the ball ``|x' - x| <= r`` around where it was drawn. A proposal is one step of gradient
descent on the sample's own loss, brought back to the ball along the radius; it is taken only if the loss falls there.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from isocline._core.errors import require


class SoftNoises:
    """Start states that move.

    Args:
        x: (N, *) start states as drawn; kept as they are.
        radius: radius of the ball around each, in the unit of the states; 0 keeps them where they are.
        rate: step length for a gradient of norm 1.

    Attributes:
        x: (N, *) where they are now.
    """

    def __init__(self, x: Tensor, radius: float, rate: float) -> None:
        require(radius >= 0 and rate >= 0, f"soft noises need radius >= 0 and rate >= 0, got {radius} and {rate}")
        self.drawn, self.x, self.radius, self.rate = x, x.clone(), radius, rate

    @torch.no_grad()
    def move(self, index: Tensor, gradient: Tensor, losses: Tensor, measured: Callable[[Tensor], Tensor]) -> None:
        """Move those of the noises at `index` (b,) whose loss falls.

        Args:
            index: which noises.
            gradient: (b, *) gradient of each noise's own loss.
            losses: (b,) losses now.
            measured: states (b, *) to losses (b,).
        """
        if self.radius == 0:
            return
        here = self.x[index]
        there = self.projected(here - self.rate * gradient, self.drawn[index])
        better = measured(there) < losses
        self.x[index] = torch.where(better.reshape(-1, *([1] * (here.ndim - 1))), there, here)

    def projected(self, x: Tensor, centre: Tensor) -> Tensor:
        """Return the points (b, *) of the balls around `centre` (b, *) that are nearest to `x` (b, *)."""
        away = (x - centre).flatten(1)
        shrink = (self.radius / away.norm(dim=1, keepdim=True)).clamp(max=1)
        return centre + (shrink * away).reshape(x.shape)
