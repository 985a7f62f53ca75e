r"""Bespoke solvers: a Runge-Kutta method on a path that is itself learned (Shaul et al., arXiv 2310.19075).

Let ``u`` be the state and ``v(u, tau)`` the velocity of a flow. A scale-time transform, two functions of ``r`` in ``[0, 1]``, gives

    z(r) = s_r u(tau_r) ,     dz/dr = (s'_r / s_r) z + tau'_r s_r v(z / s_r, tau_r) ,

and Euler's method or the midpoint rule takes ``n`` steps ``h = 1/n`` in ``r``. Unknown are the values of ``tau``, ``tau'``, ``s``
and ``s'`` at the nodes and, for the midpoint rule, the half nodes: with both ends of ``tau`` and ``s_0 = 1`` given, ``4n - 1`` and
``8n - 1`` numbers. Values sampled from smooth functions keep the order of the method, whatever the functions.

The loss bounds the final error. With ``d_i`` the error of step ``i`` alone, started on the true path at ``tau_i``, and ``L_j`` a
Lipschitz constant of step ``j``,

    |u_n - u(tau_n)| <= sum_i M_i d_i ,     M_i = prod_{j > i} L_j   (the steps that come *after* step i),
    L_j = s_j / s_{j+1} (1 + h l_{j+1/2} (1 + h/2 l_j))   for the midpoint rule,     l = |s'| / s + |tau'| L ,

if ``L`` bounds the slope of ``v`` in ``u``. The terms do not depend on each other, so a gradient needs the memory of one step.

The true path depends on ``tau_i`` too, and gradients go through it. The paper averages ``d_i`` over samples; with the root mean
square, the default here, the sum bounds the root mean square error.

As every Gaussian process, rescaled, is a straight flow, ``tau = sigma / (alpha + sigma)``, ``u = x / (alpha + sigma)`` and
``v = e - D = (u - D) / tau`` serve them all, with starts at pure noise and ends without noise. The parameters are taken relative
to those that make the method exact for a constant ``v`` on the same nodes: zero is Euler's method or the midpoint rule in ``tau``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from isocline._core.errors import NotFinite, require
from isocline._core.estimate import Cost
from isocline._core.progress import Progress
from isocline._core.registry import Method
from isocline._core.stream import Stream, as_stream
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance
from isocline.plans.solvers.draft import Draft, Level
from isocline.plans.threshold import Threshold
from isocline.plans.tuners.best import Best, power_mean
from isocline.plans.tuners.calibration import Calibration, NoiseSet
from isocline.plans.tuners.paths import refined
from isocline.plans.tuners.tuned import Tuned
from isocline.processes import Data, Denoiser, FlowVelocity, GaussianProcess, RectifiedFlow
from isocline.processes.gaussian import match

BESPOKE = Method(
    "bespoke",
    "Bespoke solver",
    "Bespoke Solvers for Generative Flow Models",
    "Neta Shaul, Juan Perez, Ricky T. Q. Chen, Ali Thabet, Albert Pumarola, Yaron Lipman",
    2023,
    "2310.19075",
    room="plans.tuners",
    when="A one-step method (no past outputs) is wanted, or gradients must fit in the memory of one step.",
)

TINY = 1e-30

Velocity = Callable[[Tensor, int], Tensor]  # (state, point) -> velocity there


@dataclass(frozen=True, eq=False)
class ScaleTime:
    """A scale-time transform at the ``m + 1`` points of ``m / stages`` steps, all float64.

    Args:
        stages: calls of one step: 1 for Euler's method, 2 for the midpoint rule.
        tau: (m+1,) decreasing times ``sigma / (alpha + sigma)``.
        tau_rate: (m,) derivatives of ``tau`` in ``r``, negative.
        scale: (m+1,) positive scales; the first is 1.
        scale_rate: (m,) derivatives of the scale in ``r``.
    """

    stages: int
    tau: Tensor
    tau_rate: Tensor
    scale: Tensor
    scale_rate: Tensor

    def __post_init__(self) -> None:
        m = len(self.tau_rate)
        require(self.stages in (1, 2), f"a bespoke solver has 1 or 2 stages, got {self.stages}")
        require(m > 0 and m % self.stages == 0, f"{m} points are no whole number of steps of {self.stages} stages")
        for name, length in (("tau", m + 1), ("scale", m + 1), ("scale_rate", m)):
            found = tuple(getattr(self, name).shape)
            require(found == (length,), f"a transform of {m} points needs {name} of shape ({length},), got {found}")
        require(bool((self.tau.detach().diff() < 0).all()), "tau must be strictly decreasing from noise to data")
        require(bool((self.tau_rate.detach() < 0).all()), "tau falls along r, so its rate must be negative")
        require(bool((self.scale.detach() > 0).all()), "scales must be positive")

    @property
    def steps(self) -> int:
        """Number of steps ``n``."""
        return len(self.tau_rate) // self.stages

    def step(self, i: int, u: Tensor, velocity: Velocity) -> Tensor:
        """Return the state after step `i` from state `u` at its first node."""
        first, start = self.stages * i, self.scale[self.stages * i] * u
        for k in range(first, first + self.stages):
            slope = self.scale_rate[k] * u + self.tau_rate[k] * self.scale[k] * velocity(u, k)
            u = (start + self._reach(k - first) * slope) / self.scale[k + 1]
        return u

    def growth(self, lipschitz: float) -> Tensor:
        """Return the Lipschitz constants (n,) of the steps, given that of the velocity."""
        local = self.scale_rate.abs() / self.scale[:-1] + self.tau_rate.abs() * lipschitz
        grown = torch.ones_like(local[:: self.stages])
        for stage in range(self.stages):
            grown = 1 + self._reach(stage) * local[stage :: self.stages] * grown
        ends = self.scale[:: self.stages]
        return grown * ends[:-1] / ends[1:]

    def later_growth(self, lipschitz: float) -> Tensor:
        """Return ``M`` (n,): how much the steps after each step can enlarge its error, at most."""
        return pad(self.growth(lipschitz)[1:], (0, 1), value=1.0).flip(0).cumprod(0).flip(0)

    def inner_times(self, process: GaussianProcess) -> Tensor:
        """Return the process times (m-1,) of the points between the ends."""
        inner = self.tau[1:-1]
        return process.time_of(torch.log1p(-inner) - torch.log(inner))

    def _reach(self, stage: int) -> float:
        """Return how far along ``r`` the state after `stage` is from the start of the step."""
        return (stage + 1) / (self.stages * self.steps)


def bespoke_plan(process: GaussianProcess, transform: ScaleTime, ends: Tensor, provenance: Provenance) -> Plan:
    """Return the plan of a scale-time transform, ``stages`` rows a step; differentiable in the transform.

    Args:
        process: any Gaussian process.
        transform: its values at nodes and half nodes.
        ends: (2,) first and last process time, which ``tau`` gives only up to rounding.
        provenance: where the plan comes from.
    """
    times = torch.cat([ends[:1], transform.inner_times(process), ends[1:]])
    levels = [Level.at(process, t) for t in times]
    own = isinstance(process, RectifiedFlow)
    draft = Draft(process, FlowVelocity() if own else Data(), len(levels) - 1)

    def velocity(u: Tensor, k: int) -> Tensor:
        output = draft.call((levels[k].alpha + levels[k].sigma) * u, levels[k])
        return output if own else (u - output) / transform.tau[k]

    u = draft.start / (levels[0].alpha + levels[0].sigma)
    for i in range(transform.steps):
        u = transform.step(i, u, velocity)
    x = (levels[-1].alpha + levels[-1].sigma) * u
    return draft.finish(x, levels[-1], times[:: transform.stages], provenance)


class FreeTransform(nn.Module):
    """A scale-time transform as a function of ``4m - 1`` unconstrained parameters.

    Args:
        tau: (m+1,) points at which zero parameters are Euler's method or the midpoint rule.
        stages: 1 or 2.
    """

    def __init__(self, tau: Tensor, stages: int) -> None:
        super().__init__()
        m = len(tau) - 1
        self.stages, self.base = stages, tau
        self.gap = nn.Parameter(torch.zeros(m - 1, dtype=torch.float64))
        self.rate = nn.Parameter(torch.zeros(m, dtype=torch.float64))
        self.scale = nn.Parameter(torch.zeros(m, dtype=torch.float64))
        self.scale_rate = nn.Parameter(torch.zeros(m, dtype=torch.float64))

    def forward(self) -> ScaleTime:
        """Return the transform."""
        first, last = self.base[0], self.base[-1]
        gaps = self.base.diff() * torch.exp(pad(self.gap, (0, 1)))
        inner = first + (last - first) * (gaps.cumsum(0) / gaps.sum())[:-1]
        tau = torch.cat([first[None], inner, last[None]])
        scale = torch.exp(pad(self.scale, (1, 0)))
        tau_rate = self._mean_rate(tau) * torch.exp(self.rate)
        return ScaleTime(self.stages, tau, tau_rate, scale, self._mean_rate(scale) + self.scale_rate)

    def _mean_rate(self, values: Tensor) -> Tensor:
        """Return (m,) the mean slopes in ``r`` from the start of each step to the end of each of its stages."""
        steps = (len(values) - 1) // self.stages
        starts = values[: -1 : self.stages].repeat_interleave(self.stages)
        reach = torch.arange(1, self.stages + 1, dtype=torch.float64) / (self.stages * steps)
        return (values[1:] - starts) / reach.repeat(steps)


@dataclass(frozen=True, eq=False)
class TruePath:
    """The model's flow between stored points: at ``tau`` (T+1,) states and velocities (T+1, B, *), cubic in between."""

    tau: Tensor
    states: Tensor
    slopes: Tensor

    def at(self, tau: Tensor) -> Tensor:
        """Return the states (k, B, *) at `tau` (k,), between the ends; their derivative in `tau` is the velocity."""
        k = torch.searchsorted(-self.tau, -tau.detach()).clamp(1, len(self.tau) - 1) - 1
        step = self.tau[k + 1] - self.tau[k]
        w = (tau - self.tau[k]) / step
        shape = (-1, *[1] * (self.states.ndim - 1))
        late, early = w**2 * (3 - 2 * w), (1 - w) ** 2 * w * step
        turn = w**2 * (w - 1) * step
        parts = (
            (1 - late, self.states[k]),
            (late, self.states[k + 1]),
            (early, self.slopes[k]),
            (turn, self.slopes[k + 1]),
        )
        return torch.stack([weight.to(part).reshape(shape) * part for weight, part in parts]).sum(0)

    def take(self, index: Tensor) -> TruePath:
        """Return the paths of the samples at `index`."""
        return TruePath(self.tau, self.states[:, index], self.slopes[:, index])


@torch.no_grad()
def true_path(denoiser: Denoiser, x: Tensor, cond: Any, times: Tensor) -> TruePath:
    """Return the flow from states `x` (B, *) through decreasing `times` (T+1,), by Ralston's method of order 3.

    None of its stages lies at the end of a step, so the last time may be 0. Three calls a step.
    """
    process = denoiser.process
    tau = tau_of(process, times)
    u = x / match(process.alpha(times[0]) + process.sigma(times[0]), x)
    states, slopes = [u], []
    for a, b in pairwise(tau):
        h = b - a
        k1 = flow_velocity(denoiser, u, a, cond)
        k2 = flow_velocity(denoiser, u + h / 2 * k1, a + h / 2, cond)
        k3 = flow_velocity(denoiser, u + 3 * h / 4 * k2, a + 3 * h / 4, cond)
        u = u + h / 9 * (2 * k1 + 3 * k2 + 4 * k3)
        states.append(u)
        slopes.append(k1)
    slopes.append(k1 + 4 / 3 * (k3 - k1))  # extrapolated: at the end there may be no noise left to divide by
    return TruePath(tau, torch.stack(states), torch.stack(slopes))


def tau_of(process: GaussianProcess, times: Tensor) -> Tensor:
    """Return ``sigma / (alpha + sigma)``."""
    sigma = process.sigma(times)
    return sigma / (process.alpha(times) + sigma)


def flow_velocity(
    denoiser: Denoiser, u: Tensor, tau: Tensor, cond: Any = None, threshold: Threshold | None = None
) -> Tensor:
    """Return ``v = (u - D) / tau`` (B, *) at states `u` (B, *) of the straight flow; differentiable in `u` and `tau`."""
    process = denoiser.process
    # log1p(-1) has no finite derivative, and the start does not move
    t = process.time_of(torch.log1p(-tau) - torch.log(tau)) if float(tau.detach()) < 1 else process.time_of(-math.inf)
    x = match(process.alpha(t) + process.sigma(t), u) * u
    cx, cm = denoiser.parameterisation.to_data(process, t)
    data = match(cx, u) * x + match(cm, u) * denoiser(x, t, cond)
    return (u - (data if threshold is None else threshold(data))) / match(tau, u)


@BESPOKE.variant()
@dataclass(frozen=True)
class Bespoke:
    """Learn a scale-time transform for Euler's method or the midpoint rule. Needs a differentiable model, one step's memory.

    The base plan gives process, ends, number of calls and the grid to start from; its solver is not used. Finding the true paths
    takes ``3 path_steps`` calls for each training noise and keeps ``2 (path_steps + 1)`` states of it.

    Args:
        stages: 2 for the midpoint rule, with two calls a step; 1 for Euler's method.
        steps: gradient steps.
        batch: noises in each step.
        rate: peak learning rate, lowered to zero along a cosine.
        lipschitz: constant ``L`` of the velocity in the loss; the paper has 1.
        power: what is averaged over samples in each term and in validation, as in `EndToEnd`; the paper has 1.
        path_steps: steps of the true path.
        check_every: steps between validations.
    """

    stages: int = 2
    steps: int = 200
    batch: int = 32
    rate: float = 0.02
    lipschitz: float = 1.0
    power: float = 2.0
    path_steps: int = 40
    check_every: int = 10

    def __post_init__(self) -> None:
        require(self.stages in (1, 2), f"a bespoke solver has 1 or 2 stages, got {self.stages}")
        least = min(self.steps, self.batch, self.path_steps, self.check_every)
        require(least >= 1, f"steps, batch, path_steps and check_every must be at least 1, got {self}")
        require(self.rate > 0, f"the learning rate must be positive, got {self.rate}")
        require(self.lipschitz >= 0, f"a Lipschitz constant is not negative, got {self.lipschitz}")

    def fit(
        self,
        base: Plan,
        denoiser: Denoiser,
        calibration: Calibration,
        rng: Stream | int,
        *,
        seconds: float | None = None,
        bar: Progress | None = None,
    ) -> Tuned:
        """Return the best plan found.

        Args:
            base: a deterministic plan with a multiple of `stages` calls and the teacher's ends.
            denoiser: the model.
            calibration: train and validation noises; held-out noises are not looked at.
            rng: order of the training noises.
            seconds: stop after so much wall time, keeping the best plan.
            bar: progress to advance by one for each step.
        """
        calibration.check_comparable(base)
        require(not base.stochastic, "only deterministic plans can be tuned against a teacher's path")
        start, calls = time.monotonic(), denoiser.calls
        deadline = math.inf if seconds is None else start + seconds
        model = FreeTransform(self._points(base), self.stages)
        optimizer = torch.optim.Adam(model.parameters(), lr=self.rate)
        best = Best(base, denoiser, calibration.validation, self.power)
        fitted = _Fitted(self, base, denoiser)
        paths = self._true_paths(base, denoiser, calibration.train, deadline)
        for step, index in enumerate(self._batches(paths.states.shape[1], as_stream(rng, "bespoke"))):
            for group in optimizer.param_groups:
                group["lr"] = self.rate * 0.5 * (1 + math.cos(math.pi * step / self.steps))
            optimizer.zero_grad()
            cond = calibration.train.take(index).cond
            loss = fitted.backward(model(), paths.take(index), cond)
            if not math.isfinite(loss):
                raise NotFinite(f"the tuning loss became {loss} at step {step}; lower the learning rate")
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            late = time.monotonic() > deadline
            if (step + 1) % self.check_every == 0 or step + 1 == self.steps or late:
                best.offer(step + 1, fitted.plan(model()))
            if bar is not None:
                bar.advance(1, f"validation error {best.error:.4f}")
            if late:
                break
        return Tuned(best.plan, best.history, Cost(denoiser.calls - calls, 0, time.monotonic() - start))

    def _points(self, base: Plan) -> Tensor:
        """Return ``tau`` at the nodes and half nodes to start from: the base's grid, cut into equal shares of its steps."""
        m = base.calls
        require(
            m % self.stages == 0,
            f"a bespoke solver with {self.stages} calls a step cannot use {m} calls; start from a base with {m + 1}",
        )
        tau = tau_of(base.process, base.nodes.detach()).numpy()
        place = np.linspace(0, len(tau) - 1, m + 1)
        return torch.from_numpy(np.interp(place, np.arange(len(tau)), tau))

    def _true_paths(self, base: Plan, denoiser: Denoiser, noises: NoiseSet, deadline: float) -> TruePath:
        """Return the paths of the training noises; of fewer where time is up."""
        first, last = (float(base.times[k].detach()) for k in (0, -1))
        times = refined(base.process, first, last, self.path_steps)
        parts: list[TruePath] = []
        for k in range(0, len(noises), self.batch):
            part = noises.take(slice(k, k + self.batch))
            parts.append(true_path(denoiser, part.x, part.cond, times))
            if time.monotonic() > deadline:
                break
        states, slopes = (torch.cat([getattr(part, name) for part in parts], 1) for name in ("states", "slopes"))
        return TruePath(parts[0].tau, states, slopes)

    def _batches(self, count: int, rng: Stream) -> Iterator[Tensor]:
        size = min(self.batch, count)
        each = count // size
        for step in range(self.steps):
            epoch, place = divmod(step, each)
            yield rng.permutation(count, step=epoch)[place * size : (place + 1) * size]


@dataclass(frozen=True)
class _Fitted:
    """What is fitted to what: loss and plan of a transform."""

    settings: Bespoke
    base: Plan
    denoiser: Denoiser

    def backward(self, transform: ScaleTime, path: TruePath, cond: Any) -> float:
        """Add the gradient of the loss, one step of the solver at a time, and return the loss."""
        names = ("tau", "tau_rate", "scale", "scale_rate")
        values = [getattr(transform, name) for name in names]
        leaves = [value.detach().requires_grad_() for value in values]
        apart = replace(transform, **dict(zip(names, leaves, strict=True)))
        loss = sum(self._backward_term(apart, i, path, cond) for i in range(transform.steps))
        torch.autograd.backward(values, [leaf.grad for leaf in leaves])
        return loss

    @torch.enable_grad()
    def _backward_term(self, transform: ScaleTime, i: int, path: TruePath, cond: Any) -> float:
        term = power_mean(self.term(transform, i, path, cond), self.settings.power)
        term.backward()
        return term.item()

    def term(self, transform: ScaleTime, i: int, path: TruePath, cond: Any) -> Tensor:
        """Return ``M_i d_i`` (B,) in the unit of the data."""
        ends = path.at(transform.tau[transform.stages * torch.arange(i, i + 2)])

        def velocity(u: Tensor, k: int) -> Tensor:
            return flow_velocity(self.denoiser, u, transform.tau[k], cond, self.base.threshold)

        process, last = self.base.process, self.base.times[-1].detach()
        unit = process.alpha(last) + process.sigma(last)
        weight = unit * transform.later_growth(self.settings.lipschitz)[i]
        squared = (transform.step(i, ends[0], velocity) - ends[1]).flatten(1).square().mean(1)
        return weight * (squared + TINY).sqrt()  # an exact step has no error, and a root no slope there

    @torch.no_grad()
    def plan(self, transform: ScaleTime) -> Plan:
        """Return the plan, for the guidance and threshold of the base."""
        settings = {"base": self.base.provenance.method, **asdict(self.settings)}
        origin = Provenance("Bespoke", BESPOKE.arxiv, settings)
        plan = bespoke_plan(self.base.process, transform, self.base.times[[0, -1]].detach(), origin)
        return replace(plan, guidance=self.base.guidance, threshold=self.base.threshold)
