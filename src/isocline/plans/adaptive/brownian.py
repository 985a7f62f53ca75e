r"""Brownian paths whose steps may be refused: what was once drawn stays true.

A step of length ``h`` that is rejected has already said where the path ``W`` goes. To draw a shorter step afresh would refuse
increments that move the state far more often than others, and the accepted ones would not be Gaussian. With the value ``w`` at
``h`` kept, a step of ``u < h`` follows the Brownian bridge (Rackauckas and Nie, Discrete Contin. Dyn. Syst. B 22, 2017)

    W(u) | W(l) = a, W(h) = w   ~   N( a + (u - l) / (h - l) (w - a),  (u - l) (h - u) / (h - l) I ) ,

``l`` the last known time before ``u``; beyond all that is known ``W(u) ~ N(a, (u - l) I)``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from isocline.processes.gaussian import match


class BrownianPath:
    """One path for each sample of a batch, seen from where the sample stands: ``W = 0`` here, known points lie ahead.

    Args:
        remember: whether refused steps are kept; without, each step is drawn afresh and the law is biased.
    """

    def __init__(self, remember: bool = True) -> None:
        self.remember = remember
        self._ahead: Tensor | None = None  # (K, B) distances of known points in any order, inf where a place is free
        self._values: Tensor | None = None  # (K, B, *) their values

    def step(self, h: Tensor, z: Tensor) -> Tensor:
        """Return ``W`` (B, *) at distances `h` (B,) ahead and keep it; `z` (B, *) are fresh standard normal numbers."""
        if not self.remember:
            return match(h.sqrt(), z) * z
        ahead, values = self._places(h, z)
        sample = torch.arange(len(h), device=h.device)
        before, i = torch.where(ahead < h, ahead, 0.0).max(0)
        after, j = torch.where(ahead >= h, ahead, math.inf).min(0)
        low = torch.where(match(before, z) > 0, values[i, sample], 0.0)
        share = (h - before) / (after - before)  # 0 where nothing is known beyond
        spread = ((h - before) * (1 - share)).sqrt()
        w = low + match(share, z) * (values[j, sample] - low) + match(spread, z) * z
        free = torch.isinf(ahead).int().argmax(0)
        ahead[free, sample], values[free, sample] = h, w
        return w

    def move(self, h: Tensor, w: Tensor, moved: Tensor) -> None:
        """Stand at `h` (B,), where the path has the value `w` (B, *), in the samples `moved` (B,)."""
        if self._ahead is None or self._values is None:
            return
        far = torch.where(moved, h, 0.0)
        self._ahead = torch.where(self._ahead > far, self._ahead - far, math.inf)
        self._values = self._values - match(moved, w) * w

    def take(self, kept: Tensor) -> None:
        """Go on with the samples at the indices `kept` only."""
        if self._ahead is not None and self._values is not None:
            self._ahead, self._values = self._ahead[:, kept], self._values[:, kept]

    def _places(self, h: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return distances and values with a free place for each sample."""
        if self._ahead is None or self._values is None:
            self._ahead, self._values = torch.full_like(h, math.inf)[None], torch.zeros_like(z)[None]
        elif not bool(torch.isinf(self._ahead).any(0).all()):
            self._ahead = torch.cat([self._ahead, torch.full_like(h, math.inf)[None]])
            self._values = torch.cat([self._values, torch.zeros_like(z)[None]])
        return self._ahead, self._values
