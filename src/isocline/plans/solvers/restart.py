r"""Restart sampling (Xu et al., arXiv 2306.14878).

The main grid is followed by Heun's method. When it reaches the lower end of an interval ``(low, high)``, then ``K`` times

    y^ = y + sqrt(high^2 - low^2) S_noise z ,     then m steps of Heun from high back to low ,

on Karras nodes of the interval. The jump follows the forward process exactly, as if a datum behind the state had been noised
anew. The way down contracts errors of the state that were made above ``high``, and makes those inside the interval again:
measured on a mixture in ``benchmarks/restart.py``, errors of the network at high noise alone were halved, errors at all levels
were not reduced. The ODE between jumps keeps its order.

``low`` is the main grid's nearest node, so the main grid itself is not changed. With ``n`` main steps, the last to time 0, a run
makes ``2 n - 1 + sum 2 K m`` calls (the paper's ``N_restart`` counts nodes, ``m + 1``); the last of the ``m`` steps is Heun's
too, as there is noise left at ``low``. With ``order=1`` the steps are DDIM's, as in the paper's text-to-image runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance
from isocline.plans.solvers.churn import euler_step, jump
from isocline.plans.solvers.draft import Draft, Level
from isocline.plans.solvers.edm import heun_step
from isocline.plans.solvers.rows import Levels
from isocline.processes import GaussianProcess, Noise

RESTART = Method(
    "restart",
    "Restart sampling",
    "Restart Sampling for Improving Generative Processes",
    "Yilun Xu, Mingyang Deng, Xiang Cheng, Yonglong Tian, Ziming Liu, Tommi Jaakkola",
    2023,
    "2306.14878",
    room="plans.solvers",
    when="A network that errs at high noise, and calls to spare; the interval must be chosen for the model.",
)

RHO = 7.0  # of the Karras nodes inside an interval


@dataclass(frozen=True)
class Restart:
    """One interval of `restart`.

    Args:
        low: noise level ``sigma / alpha`` at which the state jumps up; the nearest node of the main grid is taken.
        high: noise level it jumps to.
        steps: number of steps from `high` back to `low`.
        repeats: how many times.
    """

    low: float
    high: float
    steps: int
    repeats: int = 1

    def __post_init__(self) -> None:
        ordered = 0 < self.low < self.high < math.inf
        require(ordered, f"a restart needs 0 < low < high, got {self.low} and {self.high}")
        require(self.steps >= 1, f"a restart needs at least one step, got {self.steps}")
        require(self.repeats >= 1, f"a restart needs at least one repeat, got {self.repeats}")


@RESTART.variant(order=2)
def restart(
    process: GaussianProcess, times: Tensor, intervals: Sequence[Restart], *, s_noise: float = 1.0, order: int = 2
) -> Plan:
    """Return Heun's method with restarts: weak order 2, two calls a step, one for a last step to time 0.

    Args:
        process: any Gaussian process with a finite noise level at the first time.
        times: (n+1,) decreasing times of the main grid; may end at 0.
        intervals: where to restart; intervals that share a node are taken in turn.
        s_noise: size of the fresh noise.
        order: of the steps, 2 for Heun or 1 for DDIM.
    """
    require(order in (1, 2), f"restart steps are of order 1 (DDIM) or 2 (Heun), got {order}")
    require(0 < s_noise < math.inf, f"s_noise must be finite and positive, got {s_noise}")
    levels, step = Levels(process, times), heun_step if order == 2 else euler_step
    levels.require_finite("restart")
    nodes = [_nearest(levels, interval) for interval in intervals]
    extra = sum(i.repeats * (1 + order * i.steps) for i in intervals)
    draft = Draft(process, Noise(), order * levels.n - (order - 1) * levels.ends_clean + extra)
    x = draft.start
    for i in range(1, levels.n + 1):
        x = step(draft, x, levels.at(i - 1), levels.at(i))
        for interval in (interval for interval, node in zip(intervals, nodes, strict=True) if node == i):
            path = _path(levels, interval, i)
            for _ in range(interval.repeats):
                x = jump(draft, x, path[-1], path[0], s_noise)
                for here, there in pairwise(path):
                    x = step(draft, x, here, there)
    settings = {"intervals": [asdict(interval) for interval in intervals], "s_noise": s_noise, "order": order}
    return draft.finish(x, levels.at(levels.n), levels.times, Provenance("restart", RESTART.arxiv, settings))


def _nearest(levels: Levels, interval: Restart) -> int:
    """Return the node after the first, with noise, whose level is nearest to the interval's low end."""
    s = levels.s.detach()[: levels.n + 1 - levels.ends_clean]
    require(len(s) > 1, "restart needs a node with noise after the first one; take more steps")
    node = 1 + int(torch.argmin((s[1:] - interval.low).abs()))
    inside = float(s[node]) < interval.high <= float(s[0]) * (1 + 1e-9)
    require(
        inside,
        f"a restart to {interval.high:g} must end above the grid's nearest node to its low end, at {float(s[node]):g}, "
        f"and not above the first node, at {float(s[0]):g}; change the interval or the grid",
    )
    return node


def _path(levels: Levels, interval: Restart, node: int) -> list[Level]:
    """Return the levels from the interval's high end to node `node`, with equal steps in ``s^(1 / rho)``."""
    high, low = interval.high ** (1 / RHO), levels.s[node] ** (1 / RHO)
    down = [(high + j / interval.steps * (low - high)) ** RHO for j in range(interval.steps)]
    return [*(Level.at(levels.process, levels.process.time_of_noise_level(s)) for s in down), levels.at(node)]
