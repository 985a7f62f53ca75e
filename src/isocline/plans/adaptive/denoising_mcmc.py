r"""Denoising MCMC: chains that stay near the data, and a short denoising from where they are (Kim and Ye, arXiv 2209.14593).

On the product of states and noise levels, with ``y = x / alpha`` and levels ``s`` spread evenly over ``[log low, log high]``,

    p(y, s) = p_s(y) p(s) ,      p_s the law of ``x_0 + s eps``,

Denoising Langevin Gibbs alternates an unadjusted Langevin step at the present level with a draw of the level,

    y <- y + eta / 2  (D(y, s) - y) / s^2 + sqrt(eta) z ,          s ~ p(s | y) .

Of every `skip` steps one state is kept and denoised by a plan that starts at its level. A sample then costs `skip` calls and a
plan much shorter than one from pure noise; in exchange samples of a chain are correlated, which the result reports, and chains
do not leave a mode that no level in ``[low, high]`` connects to others.

The paper keeps the state whose level is smallest. But levels are drawn, and of several draws the smallest claims less noise than
there is: for Gaussian data of standard deviation 0.5, levels from 0.05 to 2 and windows of five, the kept states had 1.6, 1.35 and
1.1 times the power of their level in 1, 8 and 128 dimensions. The last state of a window has the right law. Both are offered.

The paper uses one ``eta`` at all levels, which is stable only at those with ``s^2 > eta / 4``; here ``eta = step s^2``. The
paper's code takes the most likely level; here it is drawn, as in its text.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from isocline._core.errors import NotFinite, require
from isocline._core.estimate import Cost
from isocline._core.registry import Method
from isocline._core.stream import Stream, as_stream
from isocline.metrics import autocorrelation_time
from isocline.plans import grids, solvers
from isocline.plans.adaptive.freeze import denoised
from isocline.plans.adaptive.result import check_sde, check_start, not_finite
from isocline.plans.plan import Plan
from isocline.processes import Denoiser, ExactDenoiser, GaussianProcess
from isocline.processes.gaussian import match

DENOISING_MCMC = Method(
    "denoising-mcmc",
    "Denoising MCMC",
    "Denoising MCMC for Accelerating Diffusion-Based Generative Models",
    "Beomsu Kim, Jong Chul Ye",
    2022,
    "2209.14593",
    room="plans.adaptive",
    when="Many samples of one law whose modes are connected, a classifier of noise levels, and correlated samples will do.",
)

CHUNK = 200_000  # pairs of state and level at a time


class NoiseLevelPosterior(Protocol):
    """What the chain asks for the level of a state; a trained classifier of noise levels is one.

    Such a classifier is trained by cross-entropy on ``y = x_0 + s eps`` with ``s`` drawn evenly from `levels`.
    """

    def __call__(self, y: Tensor, levels: Tensor) -> Tensor:
        """Return ``log p(s | y)`` (B, L), up to a constant for each sample, of unscaled states `y` (B, *) and `levels` (L,)."""
        ...


class ExactPosterior:
    """The exact posterior of the noise level, for an exact denoiser and levels that are equally likely.

    Args:
        model: any exact denoiser.
    """

    def __init__(self, model: ExactDenoiser) -> None:
        self.model = model

    def __call__(self, y: Tensor, levels: Tensor) -> Tensor:
        """Return ``log p_s(y)`` (B, L)."""
        process, each = self.model.process, max(1, CHUNK // len(y))
        return torch.cat([self._part(y, process.time_of_noise_level(s)) for s in levels.split(each)], dim=1)

    def _part(self, y: Tensor, times: Tensor) -> Tensor:
        alpha = self.model.process.alpha(times).repeat(len(y))
        states = y.repeat_interleave(len(times), 0)
        density = self.model.log_density(match(alpha, states) * states, times.repeat(len(y)))
        return (density + y[0].numel() * alpha.log().to(density)).reshape(len(y), len(times))


def short_plan(process: GaussianProcess, t: float) -> Plan:
    """Return four steps of DPM-Solver++ 2M from time `t` on a Karras grid and a last data prediction: five calls."""
    return denoised(solvers.dpm_solver_pp_2m(process, grids.karras(process, 4, t_max=t)))


@dataclass(frozen=True)
class Chains:
    """What the chains gave.

    Attributes:
        x: (B, n, *) samples: `n` of each chain, in order.
        levels: (B, n) noise level each was denoised from.
        calls: (B,) network calls of each chain.
        cost: network calls per sample, averaged, and seconds.
    """

    x: Tensor
    levels: Tensor
    calls: Tensor
    cost: Cost

    def autocorrelation_time(self) -> Tensor:
        """Return the integrated autocorrelation time (*) of each coordinate, in samples of a chain."""
        return autocorrelation_time(self.x)

    def effective_samples(self) -> float:
        """Return how many independent samples all chains are worth for the mean of their slowest coordinate."""
        return self.x.shape[0] * self.x.shape[1] / float(self.autocorrelation_time().max())


@DENOISING_MCMC.variant()
@dataclass(frozen=True)
class DenoisingMCMC:
    """Denoising Langevin Gibbs with a plan at the end of each window.

    Args:
        low: smallest noise level ``s``, above that of the process's ``t_min``.
        high: largest noise level; modes must be connected there.
        count: number of levels, evenly spread in ``log s``.
        step: Langevin step in units of ``s^2``; its bias in the variance is about ``step / 4`` of it where noise dominates.
        skip: Langevin steps for each sample.
        smallest: keep the state of the smallest level of each window, the paper's rule, instead of the last state.
        finish: ``(process, time) -> Plan`` from that time to the data.
    """

    low: float
    high: float
    count: int = 1000
    step: float = 0.5
    skip: int = 5
    smallest: bool = False
    finish: Callable[[GaussianProcess, float], Plan] = short_plan

    def __post_init__(self) -> None:
        require(0 < self.low < self.high < math.inf, f"levels need 0 < low < high, got {self.low} and {self.high}")
        require(self.count >= 2 and self.skip >= 1, f"need count >= 2 and skip >= 1, got {self.count} and {self.skip}")
        require(0 < self.step < 4, f"a Langevin step is stable between 0 and 4 (in units of s^2), got {self.step}")

    @property
    def levels(self) -> Tensor:
        """The noise levels (count,), rising, float64."""
        return torch.linspace(math.log(self.low), math.log(self.high), self.count, dtype=torch.float64).exp()

    @torch.no_grad()
    def run(
        self,
        denoiser: Denoiser,
        x: Tensor,
        posterior: NoiseLevelPosterior,
        samples: int,
        *,
        rng: Stream | int,
        cond: Any = None,
    ) -> Chains:
        """Run a chain from each datum and return `samples` samples of each.

        Args:
            denoiser: the model; it is called with times (B,).
            x: (B, *) samples of the data law, one for each chain: each is noised to a level drawn evenly. Exact samples make
                the chains stationary from the start; a plan's samples do nearly so.
            posterior: gives ``log p(s | y)``.
            samples: number of samples of each chain.
            rng: stream or seed.
            cond: passed to the denoiser; a tensor (B, ...) has one condition for each chain.

        Raises:
            NotFinite: a step gave NaN or infinity, or the posterior did; chain and step are named.
        """
        began, process, stream = time.perf_counter(), denoiser.process, as_stream(rng, "denoising mcmc")
        check_start(x)
        check_sde(process, "DenoisingMCMC")
        require(samples >= 1, f"each chain needs at least one sample, got {samples}")
        least = float(process.noise_level(process.t_min))
        require(self.low > least, f"low must be above the noise level {least:.4g} of t_min, got {self.low}")
        chain = _Chain(self, denoiser, x, posterior, cond, stream)
        found, levels = [], []
        for i in range(samples):
            y, level = chain.window(i)
            found.append(chain.denoise(y, level, i))
            levels.append(self.levels[level])
        cost = Cost(calls=float(chain.calls.double().mean()) / samples, seconds=time.perf_counter() - began)
        return Chains(torch.stack(found, 1), torch.stack(levels, 1), chain.calls, cost)


class _Chain:
    """The state of all chains: unscaled states ``y`` (B, *) and the indices of their levels (B,)."""

    def __init__(
        self,
        settings: DenoisingMCMC,
        denoiser: Denoiser,
        x: Tensor,
        posterior: NoiseLevelPosterior,
        cond: Any,
        stream: Stream,
    ) -> None:
        self.settings, self.denoiser, self.posterior = settings, denoiser, posterior
        self.cond, self.stream = cond, stream
        self.process, self.levels = denoiser.process, settings.levels
        self.times = self.process.time_of_noise_level(self.levels)
        self.calls = torch.zeros(len(x), dtype=torch.int64)
        self.plans: dict[int, Plan] = {}
        self.level = stream.child("first level").integers(settings.count, (len(x),))
        noise = stream.child("first noise").normal(tuple(x.shape), dtype=x.dtype, device=x.device)
        self.y = x + match(self.levels[self.level], x) * noise

    def window(self, i: int) -> tuple[Tensor, Tensor]:
        """Take `skip` steps; return the states and levels that are kept."""
        kept, kept_level = self.y, torch.full_like(self.level, len(self.levels))
        for step in range(i * self.settings.skip, (i + 1) * self.settings.skip):
            self._langevin(step)
            self._draw_level(step)
            better = (self.level < kept_level) | (not self.settings.smallest)
            kept = torch.where(match(better, kept) > 0, self.y, kept)
            kept_level = torch.where(better, self.level, kept_level)
        return kept, kept_level

    def denoise(self, y: Tensor, level: Tensor, i: int) -> Tensor:
        """Run the plan of its level on each state; states of equal level go together."""
        x, stream = torch.empty_like(y), self.stream.child(f"finish {i}")
        for k in level.unique().tolist():
            mine = (level == k).nonzero().flatten()
            plan, before = self._plan(k), self.denoiser.calls
            noise = [z[mine] for z in self._row_noise(plan, stream, y)] if plan.stochastic else None
            start = y[mine] * match(self.process.alpha(plan.times[0]), y)
            x[mine] = plan.run(self.denoiser, start, cond=self._cond(mine), noise=noise).x
            self.calls[mine] += self.denoiser.calls - before
        return x

    def _plan(self, k: int) -> Plan:
        if k not in self.plans:
            self.plans[k] = self.settings.finish(self.process, float(self.times[k]))
        return self.plans[k]

    def _row_noise(self, plan: Plan, stream: Stream, y: Tensor) -> list[Tensor]:
        rows = range(len(plan.carry))
        return [stream.normal(tuple(y.shape), step=row, dtype=y.dtype, device=y.device) for row in rows]

    def _cond(self, mine: Tensor) -> Any:
        return self.cond[mine] if isinstance(self.cond, Tensor) and self.cond.ndim > 0 else self.cond

    def _langevin(self, step: int) -> None:
        y, s, t, before = self.y, self.levels[self.level], self.times[self.level], self.denoiser.calls
        x0 = self.denoiser.predict(match(self.process.alpha(t), y) * y, t, self.cond).x0
        self.calls += self.denoiser.calls - before
        share, length = self.settings.step / 2, math.sqrt(self.settings.step) * s
        z = self.stream.child("langevin").normal(tuple(y.shape), step=step, dtype=y.dtype, device=y.device)
        self.y = y + share * (x0 - y) + match(length, y) * z
        bad = (~torch.isfinite(self.y.flatten(1)).all(1)).nonzero().flatten()
        if len(bad):
            raise not_finite(f"in step {step} of chain {int(bad[0])}, at noise level {float(s[bad[0]]):.4g}")

    def _draw_level(self, step: int) -> None:
        share = torch.softmax(self.posterior(self.y, self.levels.to(self.y.device)).double().cpu(), -1).cumsum(-1)
        if not bool(torch.isfinite(share).all()):
            raise NotFinite(f"the posterior of the noise level is NaN or infinite in step {step}; check the classifier")
        place = self.stream.child("level").uniform((len(share),), step=step, dtype=torch.float64)
        self.level = torch.searchsorted(share, place[:, None]).flatten().clamp_max(len(self.levels) - 1)
