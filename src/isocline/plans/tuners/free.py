r"""The free entries of a plan, as unconstrained parameters whose zero is the base plan.

Times: gaps of the half log-SNR (of an angle, where the start has no signal) are ``exp(g)`` times those of the base plan, rescaled
where both ends are finite, so the grid stays strictly decreasing. Model times: shifts of the told half log-SNR, at most half the
nearest gap. Weights: in the unscaled state, a row ``y' = r y + sum_j w_j D_j`` becomes
``y' = r (1 + c) y + sum_j (w_j + (1 - r) v_j) D_j``, so ``c`` and ``v`` are relative changes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from isocline._core.errors import require
from isocline.plans.plan import Plan
from isocline.plans.tuners.recompile import compiler_of
from isocline.processes import Data, GaussianProcess


@dataclass(frozen=True)
class Free:
    """Which entries of the base plan a tuner may change."""

    times: bool = True
    model_times: bool = True
    weights: bool = True

    def __post_init__(self) -> None:
        require(self.times or self.model_times or self.weights, "a tuner needs something to tune")


class FreeTimes(nn.Module):
    """A grid as a function of unconstrained parameters `gap`, one a step.

    Args:
        base: a deterministic plan, whose nodes belong to zero.
        free: whether the times may change.
    """

    def __init__(self, base: Plan, free: bool = True) -> None:
        super().__init__()
        require(not base.stochastic, "only deterministic plans can be tuned against a teacher's end point")
        self.base = base
        lam = base.process.half_log_snr(base.nodes.detach())
        self.inner, self.ends = lam[1:-1], (lam[0], lam[-1])
        self.gap = nn.Parameter(torch.zeros(len(lam) - 1, dtype=torch.float64), requires_grad=free)

    def times(self) -> Tensor:
        """Return the grid (n+1,); its ends are those of the base plan."""
        nodes = self.base.nodes
        if not self.gap.requires_grad or len(self.inner) == 0:
            return nodes
        return torch.cat([nodes[:1], self.base.process.time_of(self._inner_levels()), nodes[-1:]])

    def _inner_levels(self) -> Tensor:
        """Return the half log-SNR of the inner nodes, strictly between those of the ends."""
        first, last = self.ends
        if not bool(torch.isfinite(first)):
            return self._inner_levels_by_angle(last)
        closed = bool(torch.isfinite(last))
        base = torch.cat([first[None], self.inner] + [last[None]] * closed)
        gaps = base.diff() * torch.exp(self.gap[: len(base) - 1])
        if closed:
            return first + (last - first) * (gaps.cumsum(0) / gaps.sum())[:-1]
        return first + gaps.cumsum(0)

    def _inner_levels_by_angle(self, last: Tensor) -> Tensor:
        """Return the same for a start without signal, where ``lam = -inf``, through the bounded angle ``atan(exp(-lam))``."""
        end = torch.atan(torch.exp(-last))
        base = torch.cat([end.new_full((1,), torch.pi / 2), torch.atan(torch.exp(-self.inner)), end[None]])
        gaps = -base.diff() * torch.exp(self.gap)
        above_end = gaps.flip(0).cumsum(0).flip(0)[1:] / gaps.sum()
        return -torch.log(torch.tan(end + (torch.pi / 2 - end) * above_end))


def require_one_row_a_step(base: Plan) -> None:
    """Refuse a multi-stage plan."""
    require(
        len(base.nodes) == len(base.times), "tuning starts from a plan with one row a step, not from a multi-stage one"
    )


class FreePlan(FreeTimes):
    """A plan as a function of unconstrained parameters; `forward` is differentiable in them.

    Args:
        base: a deterministic plan; with one row for each node, unless only its times are free.
        free: which entries may change.
    """

    def __init__(self, base: Plan, free: Free) -> None:
        super().__init__(base, free.times)
        if free.model_times or free.weights:
            require_one_row_a_step(base)
        self.free, self.recompile = free, compiler_of(base)
        n = base.carry.shape[0]
        self.shift = nn.Parameter(torch.zeros(n, dtype=torch.float64), requires_grad=free.model_times)
        self.state = nn.Parameter(torch.zeros(n, dtype=torch.float64), requires_grad=free.weights)
        self.output = nn.Parameter(torch.zeros(n, n, dtype=torch.float64), requires_grad=free.weights)

    def forward(self) -> Plan:
        """Return the plan, in the data parameterisation."""
        times = self.times()
        plan = self.recompile(times).convert(Data())
        if self.free.weights:
            plan = self._reweighted(plan)
        return (
            replace(plan, model_times=told_times(self.base.process, times, self.shift))
            if self.free.model_times
            else plan
        )

    def _reweighted(self, plan: Plan) -> Plan:
        level = plan.process.noise_level(plan.times)
        share = (1 - level[1:] / level[:-1]).detach()
        alpha = plan.process.alpha(plan.times[1:]).detach()
        weights = plan.weights + torch.tril((alpha * share)[:, None] * self.output)
        return replace(plan, carry=plan.carry * (1 + self.state), weights=weights)


def told_times(process: GaussianProcess, times: Tensor, shift: Tensor) -> Tensor:
    """Return model times (n,) for the grid `times` (n+1,): `shift` (n,) moves them by up to half the nearest gap of half log-SNR.

    They never lie beyond ``t_max``; a start without signal is told as it is.
    """
    lam = process.half_log_snr(times)[:-1]
    shown = torch.isfinite(lam)
    gaps = torch.cat([lam[shown].diff(), lam.new_full((1,), 1.0)]).detach()
    near = torch.minimum(gaps, torch.cat([gaps[:1], gaps[:-1]])) / 2
    told = lam[shown] + near * torch.tanh(shift[shown])
    told = process.time_of(torch.maximum(told, process.half_log_snr(process.t_max)))
    return torch.cat([times[: int((~shown).sum())], told])
