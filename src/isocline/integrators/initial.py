r"""The size of the first step (Hairer, Norsett, Wanner I, chapter II.4).

Two slopes tell the scale on which the solution changes and how fast that changes; the first step is then such that an Euler step
of its size would be in error by about a hundredth of the tolerance.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from isocline.integrators.controllers.base import Array, Controller


@torch.no_grad()
def first_step(
    slope: Callable[[Tensor, Tensor], Tensor],
    f: Tensor,
    y: Tensor,
    span: Array,
    at: Callable[[Array], tuple[Tensor, Tensor]],
    controller: Controller,
    order: int,
    event_dims: int,
) -> Array:
    """Return the size of the first step, positive, shape () or (B,).

    Args:
        slope: ``(t, y) -> f``: the vector field.
        f: its value at the start.
        y: state at the start.
        span: how far the integration goes, positive, shape () or (B,).
        at: ``elapsed -> (t, signed elapsed)``, both shaped to broadcast against `y`.
        controller: measures vectors in units of what is tolerated at the start.
        order: power of h in the error estimate.
        event_dims: number of axes of one sample.
    """

    def size(x: Tensor) -> Array:
        return np.asarray(controller.ratio(x, y, y, event_dims).double().cpu().numpy())

    d0, d1 = size(y), size(f)
    small = (d0 < 1e-5) | (d1 < 1e-5)
    h0 = np.minimum(np.where(small, 1e-6, 0.01 * d0 / np.where(small, 1.0, d1)), span)
    t, h = at(h0)
    d2 = size(slope(t, y + h * f) - f) / np.where(h0 > 0, h0, 1.0)
    largest = np.maximum(d1, d2)
    flat = largest <= 1e-15
    h1 = np.where(flat, np.maximum(1e-6, h0 * 1e-3), (0.01 / np.where(flat, 1.0, largest)) ** (1.0 / order))
    found = np.minimum(100 * h0, h1)
    return np.minimum(np.where(np.isfinite(found), found, h0), span)
