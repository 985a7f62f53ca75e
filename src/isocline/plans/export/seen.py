r"""A plan as programs see it that know noise levels only.

k-diffusion and its relatives work in ``y = x / alpha`` at the noise level ``s = sigma / alpha`` and ask a model for data
predictions ``D``. There every state of a plan is

    y_i = A_i y_0 + sum_j B_ij D_j + sum_j C_ij z_j ,

the canonical form on data predictions, divided by ``alpha``. A flow ``x = (1 - t) x_0 + t eps`` may also be taken as it is, with
``t`` for the level: its straight path is the same as that of ``y``, so formulas for ``(y, s)`` are methods for ``(x, t)``, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from isocline.plans.canonical import Canonical, changed_output
from isocline.plans.plan import Plan
from isocline.processes import Data, GaussianProcess


@dataclass(frozen=True)
class Seen:
    """What a plan does between noise levels.

    Args:
        nodes: levels of the main grid.
        levels: (n+1,) level of the state each row reads, and of the result.
        told: (n,) level the network is told.
        called: (n,) whether the row calls the network.
        form: states as combinations of start, data predictions and noises.
    """

    nodes: Tensor
    levels: Tensor
    told: Tensor
    called: Tensor
    form: Canonical

    @staticmethod
    def unscaled(plan: Plan) -> Seen:
        """Return the plan in ``(y, s)``; levels are infinite where the process has no signal."""
        levels = (level_of(plan.process, t) for t in (plan.nodes, plan.times, plan.model_times))
        return _seen(plan, plan.process.alpha(plan.times), *levels)

    @staticmethod
    def as_it_is(plan: Plan) -> Seen:
        """Return a flow's plan in ``(x, t)``."""
        return _seen(plan, torch.ones_like(plan.times), plan.nodes, plan.times, plan.model_times)

    @property
    def finite(self) -> bool:
        """Whether all levels are finite."""
        return bool(torch.isfinite(self.nodes).all() and torch.isfinite(self.levels).all())

    def same(self, other: Seen) -> bool:
        """Say whether both do the same, up to rounding."""
        if self.levels.shape != other.levels.shape or not torch.equal(self.called, other.called):
            return False
        mine, theirs = self.form, other.form
        pairs = [(mine.start, theirs.start), (mine.outputs, theirs.outputs), (mine.noises, theirs.noises)]
        pairs += [(self.levels, other.levels), (self.told[self.called], other.told[other.called])]
        return all(_close(a, b) for a, b in pairs)

    def first_noise(self) -> tuple[float, float, float] | None:
        """Return level before, level after and size of the first fresh noise; None where there is none."""
        sizes = torch.diagonal(self.form.noises[1:])
        rows = sizes.nonzero().flatten().tolist()
        if not rows:
            return None
        return float(self.levels[rows[0]]), float(self.levels[rows[0] + 1]), float(sizes[rows[0]])


def level_of(process: GaussianProcess, t: Tensor) -> Tensor:
    """Return ``sigma / alpha``, where `process.noise_level`, through the logarithm, would give 9.000000000000002 for 9."""
    return process.sigma(t) / process.alpha(t)


@torch.no_grad()
def _seen(plan: Plan, scale: Tensor, nodes: Tensor, levels: Tensor, told: Tensor) -> Seen:
    form = changed_output(plan.carry, plan.weights, plan.noise, *plan.conversion(Data()))
    start, outputs, noises = form.start * scale[0] / scale, form.outputs / scale[:, None], form.noises / scale[:, None]
    return Seen(nodes.detach(), levels.detach(), told.detach(), plan.evaluate, Canonical(start, outputs, noises))


def _close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-9, atol=1e-9)
