r"""Classifier-free guidance (Ho and Salimans, arXiv 2207.12598).

    m = m_u + w (m_c - m_u),      w = 0 unconditional, w = 1 conditional, w > 1 guided.

The weights sum to one and every parameterisation is an affine map of the data prediction at fixed ``(x, t)``, so the
rule is the same in all of them and is applied to the native output.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from isocline._core.errors import require
from isocline.processes.denoiser import Denoiser, Prediction
from isocline.processes.gaussian import as_time
from isocline.processes.wrapper import Wrapper


class Guided(Wrapper):
    """A conditional denoiser with guidance; each call costs two network calls, whatever the scale.

    Args:
        denoiser: called once with the condition and once with `null_cond`.
        scale: guidance scale ``w``.
        null_cond: the condition that means none; with None the network is called without a condition.

    Examples:
        >>> import torch
        >>> from isocline.processes import EDM, Data, wrap
        >>> inner = wrap(lambda x, t, cond=0.0: x * 0 + cond, EDM(), Data())
        >>> guided = Guided(inner, 3.0)
        >>> guided(torch.zeros(1, 2), torch.tensor(1.0), 2.0), guided.calls
        (tensor([[6., 6.]]), 2)
    """

    def __init__(self, denoiser: Denoiser, scale: float, null_cond: Any = None) -> None:
        require(math.isfinite(scale), f"the guidance scale must be finite, got {scale}")
        super().__init__(denoiser)
        self.guidance, self.null_cond = float(scale), null_cond

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """Return ``m_u + w (m_c - m_u)``, (B, *)."""
        self._refuse_none(cond)
        free = self.inner(x, t, self.null_cond)
        return free + self.guidance * (self.inner(x, t, cond) - free)

    def vjp(self, x: Tensor, t: Tensor | float, v: Tensor, cond: Any = None) -> tuple[Prediction, Tensor]:
        """Return the guided prediction and ``v^T d x0 / d x``, from one product for each of the two calls."""
        self._refuse_none(cond)
        free, free_product = self.inner.vjp(x, t, v, self.null_cond)
        told, told_product = self.inner.vjp(x, t, v, cond)
        x0 = free.x0 + self.guidance * (told.x0 - free.x0)
        return self._complete(x, as_time(t), x0), free_product + self.guidance * (told_product - free_product)

    def _refuse_none(self, cond: Any) -> None:
        require(cond is not None, "Guided needs a condition: pass cond=..., or use the unguided denoiser")
