r"""The unified sampling framework: one rule for a step, with choices that may differ from step to step.

A step starts from the state at a node ``a``, expands the prediction ``f`` (of datum or noise) there in the half log-SNR, and
integrates (Liu et al., arXiv 2312.07243). With ``h = lam_t - lam_a`` and ``rho = (lam - lam_a) / h``

    data   y_t = (s_t / s_a) y_a + sum_k J_k c_k ,     J_k = int exp(lam - lam_t) rho^k dlam
    noise  y_t = y_a + sum_k J_k c_k ,                 J_k = -int exp(-lam) rho^k dlam

where ``c_k = h^k f^(k)(lam_a) / k!`` is estimated from known predictions ``f_j``: by the polynomial through as many of them as
there are terms, or, the first derivative, by two of them only. Instead of the exact remainders ``J_k``, ``k > 0``, cheaper ones are
in use: with two predictions ``J_1 = B / 2``, where ``B = J_0`` (bh2) or its leading term in ``h`` (bh1); with three, half of
``J_2``, which is what the code of DPM-Solver++ 3M does. A corrector repeats a step, with exact remainders where there are more than
two predictions, now that the one at its end is known; that costs no call.

DDIM, DPM-Solver (single-step too), DPM-Solver++, exponential Adams and lam-Adams, and UniPC are points of this space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance
from isocline.plans.solvers.draft import Draft, data_step, noise_step
from isocline.plans.solvers.lagrange import POINTS, SHARES
from isocline.plans.solvers.rows import Levels
from isocline.processes import Data, GaussianProcess, Noise

USF = Method(
    "usf-s3",
    "USF and S3",
    "A Unified Sampling Framework for Solver Searching of Diffusion Probabilistic Models",
    "Enshu Liu, Xuefei Ning, Huazhong Yang, Yu Wang",
    2023,
    "2312.07243",
    room="plans.tuners",
    when="The model has no gradients, or the goal is no distance to a teacher: search by evaluations alone.",
)

Prediction = Literal["data", "noise"]
Estimator = Literal["full", "low"]
Scaling = Literal["exact", "bh1", "bh2"]


@dataclass(frozen=True)
class Strategy:
    """How one step is taken. Where less is known than a choice asks for, at the first nodes, the step does with what is there.

    Args:
        prediction: what is expanded.
        start: from which state: 0 is the newest, 1 and 2 are one and two nodes before it.
        order: number of terms of the expansion, 1 to 3.
        estimator: whether the slope is taken from all predictions in use or from two; differs at order 3.
        scaling: of the remainders.
        corrected: whether the step is repeated with the prediction at its end.
    """

    prediction: Prediction = "data"
    start: int = 0
    order: int = 1
    estimator: Estimator = "full"
    scaling: Scaling = "exact"
    corrected: bool = False

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            value = getattr(self, name)
            require(value in known, f"a strategy's {name} must be one of {list(known)}, got {value!r}")

    def reduced(self, i: int, steps: int) -> Strategy:
        """Return the strategy with the same effect in step `i` of `steps` whose choices all matter."""
        order, corrected = min(self.order, i + 1), self.corrected and i < steps - 1
        scaling = self.scaling
        if order == 1 and not corrected:
            scaling = "exact"
        if order == 3 and scaling == "bh1":
            scaling = "bh2"
        estimator = self.estimator if order == 3 else "full"
        return Strategy(self.prediction, min(self.start, i), order, estimator, scaling, corrected)


CHOICES: dict[str, tuple[object, ...]] = {
    "prediction": ("data", "noise"),
    "start": (0, 1, 2),
    "order": (1, 2, 3),
    "estimator": ("full", "low"),
    "scaling": ("exact", "bh1", "bh2"),
    "corrected": (False, True),
}


@USF.variant()
def usf(process: GaussianProcess, times: Tensor, strategies: Sequence[Strategy]) -> Plan:
    """Return the plan with a strategy for each step, one call a step; differentiable in `times`.

    A start without signal is no place to expand at or to start from again, and a step to time 0 is a DDIM step.

    Args:
        process: any Gaussian process; may start without signal.
        times: (n+1,) decreasing times; may end at 0.
        strategies: ``n`` of them.

    Examples:
        >>> from isocline.plans import grids, solvers
        >>> from isocline.processes import EDM
        >>> times = grids.karras(EDM(), 4)
        >>> second = Strategy(order=2, scaling="bh2")
        >>> usf(EDM(), times, [Strategy(), second, second, second]) == solvers.dpm_solver_pp_2m(EDM(), times)
        True
    """
    levels = Levels(process, times)
    found = len(strategies)
    require(found == levels.n, f"a grid of {levels.n} steps needs as many strategies, got {found}")
    run = _Run(levels, list(strategies))
    for i in range(levels.n):
        run.step(i)
    settings = {"strategies": [asdict(strategy) for strategy in strategies]}
    return run.draft.finish(run.x, levels.at(levels.n), levels.times, Provenance("usf", USF.arxiv, settings))


class _Run:
    """The states, reads and outputs of a run in the making, as combinations."""

    def __init__(self, levels: Levels, strategies: list[Strategy]) -> None:
        self.levels = levels
        self.from_noise = not bool(torch.isfinite(levels.lam[0].detach()))
        self.strategies = [self._possible(i, strategy) for i, strategy in enumerate(strategies)]
        noise = all(strategy.prediction == "noise" for strategy in self.strategies)
        self.draft = Draft(levels.process, Noise() if noise else Data(), levels.n)
        self.x, self.states, self.read, self.outputs = self.draft.start, list[Tensor](), list[Tensor](), list[Tensor]()

    def _possible(self, i: int, strategy: Strategy) -> Strategy:
        """Return what can be done of `strategy` in step `i`."""
        strategy = strategy.reduced(i, self.levels.n)
        if self.levels.one_sided(i):
            kind: Prediction = "data" if i == 0 and self.from_noise else strategy.prediction
            return Strategy(kind, scaling=strategy.scaling, corrected=strategy.corrected)
        if self.from_noise:
            return replace(strategy, start=min(strategy.start, i - 1))
        return strategy

    def step(self, i: int) -> None:
        """Call at node `i`, correct the step that led there, and take the next one."""
        self.read.append(self.x)
        self.outputs.append(self.draft.call(self.x, self.levels.at(i)))
        if i > 0 and self.strategies[i - 1].corrected:
            self.x = self._moved(i - 1, again=True)
        self.states.append(self.x)
        self.x = self._moved(i)

    def _moved(self, i: int, again: bool = False) -> Tensor:
        """Return the state at the end of step `i`, with the prediction there where it is taken `again`."""
        strategy, levels = self.strategies[i], self.levels
        start = i - strategy.start
        others = [k for k in range(i, int(self.from_noise) - 1, -1) if k != start]
        points = [start, *others[: strategy.order - 1]] + [i + 1] * again
        weights = _weights(levels, strategy, points, i + 1, again)
        step = data_step if strategy.prediction == "data" else noise_step
        here, there = levels.at(start), levels.at(i + 1)
        still = step(self.states[start], here, there, torch.zeros_like(self.x))
        predicted = torch.stack([self._predicted(strategy.prediction, k) for k in points])
        return still + there.alpha * (weights @ predicted)

    def _predicted(self, kind: Prediction, k: int) -> Tensor:
        """Return the prediction of datum or noise at node `k`."""
        own = "noise" if isinstance(self.draft.parameterisation, Noise) else "data"
        if kind == own:
            return self.outputs[k]
        level = self.levels.at(k)
        return (self.read[k] - level.alpha * self.outputs[k]) / level.sigma


POWERS = torch.stack([(POINTS + 0.5) ** k * SHARES for k in range(4)])


def _weights(levels: Levels, strategy: Strategy, points: list[int], end: int, again: bool) -> Tensor:
    """Return the weights in ``(y, s)`` of the predictions at `points`, of which the first is where the step starts."""
    start = points[0]
    gain = 1 - levels.s[end] / levels.s[start] if strategy.prediction == "data" else levels.s[end] - levels.s[start]
    if len(points) == 1:
        return gain[None]
    if levels.one_sided(start):  # seen from infinitely far only the new prediction counts, but bh2 knows no distances
        share = 0.5 if strategy.scaling == "bh2" else 1.0
        return torch.stack([(1 - share) * gain, share * gain])
    h = levels.lam[end] - levels.lam[start]
    rho = (levels.lam[points] - levels.lam[start]) / h
    asked = strategy.order + again
    exact = strategy.scaling == "exact" or len(points) < asked or asked > (2 if again else 3)
    moments = _moments(strategy, levels.lam[end], h, len(points))
    moments = moments if exact else _scaled(moments, strategy, levels.s[end], h)
    low = strategy.estimator == "low" and not again
    return moments @ _derivatives(rho, low)


def _moments(strategy: Strategy, end: Tensor, h: Tensor, count: int) -> Tensor:
    """Return ``J_0, ..., J_{count-1}``."""
    ahead = (0.5 - POINTS) * h
    measure = torch.exp(-ahead) if strategy.prediction == "data" else -torch.exp(ahead - end)
    return POWERS[:count] @ (measure * h)


def _scaled(moments: Tensor, strategy: Strategy, s: Tensor, h: Tensor) -> Tensor:
    """Return the remainders of bh1 or bh2 for two predictions, and the halved one for three."""
    if len(moments) == 3:
        return torch.stack([moments[0], moments[1], moments[2] / 2])
    leading = h if strategy.prediction == "data" else -s * h
    return torch.stack([moments[0], (moments[0] if strategy.scaling == "bh2" else leading) / 2])


def _derivatives(rho: Tensor, low: bool) -> Tensor:
    """Return ``C`` (k, k) with ``c = C f``: the coefficients of the polynomial through values ``f`` at `rho` (k,)."""
    found: Tensor = torch.linalg.inv(rho[:, None] ** torch.arange(len(rho)))
    if not low or len(rho) < 3:
        return found
    slope = torch.zeros_like(rho)
    slope[0], slope[1] = -1 / rho[1], 1 / rho[1]
    return torch.stack([found[0], slope, found[2]])
