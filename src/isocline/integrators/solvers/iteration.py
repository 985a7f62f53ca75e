r"""The iteration that all solvers of implicit stages share (Hairer, Wanner, "Solving Ordinary Differential Equations II", IV.8).

With displacements ``d_k`` and ``theta_k = |d_k| / |d_{k-1}|`` the error that is left is about ``eta_k |d_k|``, ``eta =
theta / (1 - theta)``. The iteration ends where that is a small part ``kappa`` of what is tolerated. The first
displacement is judged with the ``eta`` of the stage before, to the power 0.8. It fails where displacements grow to
twice their size, where the contraction seen so far cannot suffice in the iterations that are left, and where something
is not finite. Displacements of the size of rounding end it too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from isocline.integrators.controllers.base import Array
from isocline.integrators.solvers.base import Measure, Rows, Solved, Stage, Work

Correction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Rule:
    """When an iteration ends.

    Args:
        kappa: part of the tolerance that is left to the iteration.
        iterations: the largest number of displacements.
        least: the smallest contraction that is believed, where displacements are not exact.
        patient: whether it goes on where displacements grow or shrink too slowly, as those of Newton's method do at first.
    """

    kappa: float
    iterations: int
    least: float = 0.0
    patient: bool = False

    def hopeless(self, theta: Array, left: Array, k: int) -> Array:
        """Return where the iterations that are left after number `k` cannot suffice."""
        if self.patient:
            return np.zeros_like(theta, dtype=bool)
        return (theta >= 2) | ((theta < 1) & (left * theta ** (self.iterations - 1 - k) > self.kappa))


def iterate(
    work: Work,
    rows: Rows,
    stage: Stage,
    correction: Correction,
    measure: Measure,
    eta: Array,
    rule: Rule,
) -> Solved:
    """Return the increment of a stage, without gradients.

    Args:
        work: the vector field.
        rows: which entries belong together.
        stage: the equation.
        correction: ``(state, residual) -> displacement``.
        measure: of displacements in units of what is tolerated.
        eta: of the stage before, () or (B,).
        rule: when it ends.
    """
    w, base = stage.guess, stage.base
    floor = 4 * torch.finfo(base.dtype).eps * _numbers(measure(base, base, base, rows.axes))
    done, failed = np.zeros(rows.batch, bool), np.zeros(rows.batch, bool)
    left, slowest, last = np.maximum(eta, 1e-16) ** 0.8, np.zeros(rows.batch), np.full(rows.batch, np.nan)
    for k in range(rule.iterations):
        z = base + w
        shift = correction(z, stage.scale * work(stage.time, z) - w)
        size = _numbers(measure(shift, z, z, rows.axes))
        w = w + (_masked(shift, done | failed, rows) if rows.batch else shift)
        with np.errstate(all="ignore"):
            theta = np.maximum(size / last, rule.least)
            busy = ~done & ~failed
            if k:
                left = np.where(busy, np.where(theta < 1, theta / (1 - theta), np.inf), left)
                slowest = np.where(busy & (size > floor), np.maximum(slowest, theta), slowest)
            done |= busy & ((left * size <= rule.kappa) | (size <= floor))
            hopeless = rule.hopeless(theta, left * size, k)
            failed |= busy & ~done & (~np.isfinite(size) | hopeless)
        last = size
        if (done | failed).all():
            break
    return Solved(w, failed | ~done, slowest, left)


def _numbers(x: Tensor) -> Array:
    return np.asarray(x.detach().double().cpu().numpy())


def _masked(shift: Tensor, still: Array, rows: Rows) -> Tensor:
    """Return displacements with zeros in rows that have ended."""
    if not still.any():
        return shift
    flags = torch.as_tensor(still, device=shift.device).reshape(-1, *[1] * rows.axes)
    return torch.where(flags, torch.zeros_like(shift), shift)
