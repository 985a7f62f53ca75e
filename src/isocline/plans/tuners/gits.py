r"""GITS: the times whose Euler steps leave the teacher's path least (Chen et al., arXiv 2405.11326).

On a grid of ``T + 1`` nodes with the teacher's states ``x_0, ..., x_T``, one Euler step from ``x_i`` to node ``j`` costs

    c_ij = mean over samples of (1/d |y(i -> j) - y_j|_p^p)^{1/p} ,     y = x / alpha ,

in the data's unit. The error of a step lasts to the end and grows on its way there or shrinks, which one number stands for: the
schedule ``0 = n_0 < n_1 < ... < n_N = T`` costs ``sum_k g^k c(n_k, n_{k+1})``. The least cost with ``k`` steps from node ``i``,

    V_1(i) = c_iT ,      V_k(i) = min_j c_ij + g V_{k-1}(j) ,

is found exactly in ``O(N T^2)``. All costs come from one network call at each teacher node, and no gradients. The paper takes
``g = 1.15``. That one schedule serves all samples rests on what it calls the regularity of paths: all bend alike.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.progress import Progress
from isocline._core.registry import Method
from isocline._core.stream import Stream
from isocline.plans.plan import Plan
from isocline.plans.solvers.rows import Levels
from isocline.plans.tuners.calibration import Calibration, NoiseSet
from isocline.plans.tuners.paths import TeacherPaths
from isocline.plans.tuners.recompile import on_times
from isocline.plans.tuners.teacher_grid import Search, clean, euler_to_all, fine_grid, per_node
from isocline.plans.tuners.tuned import Tuned
from isocline.processes import Denoiser

TRAJECTORY_REGULARITY = Method(
    "gits",
    "GITS (geometry-inspired time scheduling)",
    "On the Trajectory Regularity of ODE-based Diffusion Sampling",
    "Defang Chen, Zhenyu Zhou, Can Wang, Chunhua Shen, Siwei Lyu",
    2024,
    "2405.11326",
    room="plans.tuners",
    when="New times for few calls in seconds, from a model without gradients.",
)


@TRAJECTORY_REGULARITY.variant()
@dataclass(frozen=True)
class GITS:
    """Choose times by exact dynamic programming over one-step errors along the teacher's path.

    The errors are those of Euler's method; the times found are used with the base's own solver, whichever it is.

    Args:
        nodes: steps ``T`` of the grid that times are chosen from, at least; each step of the base is divided evenly.
        growths: how much more than a step's error the next one's counts, ``g``; each is tried, and validation noises choose.
        norm: exponent ``p`` of a step's error: 2 for the root mean square, 1 for the mean absolute difference.
        substeps: steps of the teacher between neighbouring nodes.
        batch: noises in each run of the teacher; its path is kept for these only.
    """

    nodes: int = 60
    growths: tuple[float, ...] = (1.0, 1.1, 1.2)
    norm: float = 2.0
    substeps: int = 2
    batch: int = 64

    def __post_init__(self) -> None:
        require(self.nodes >= 1 and self.batch >= 1, f"GITS needs nodes >= 1 and batch >= 1, got {self}")
        require(bool(self.growths) and min(self.growths) > 0, f"GITS needs growths above 0, got {self.growths}")
        require(self.norm >= 1, f"the exponent of the norm must be at least 1, got {self.norm}")
        require(self.substeps >= 1, f"a teacher needs at least 1 step between nodes, got {self.substeps}")

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
        """Return the base's solver on the times of least cost, or the base where that is better on validation noises.

        Args:
            base: a deterministic plan that a solver made; same ends as the teacher.
            denoiser: the model.
            calibration: train and validation noises; held-out noises are not looked at.
            rng: not used, as the search draws nothing.
            seconds: stop after so much wall time and use the batches of noises that are finished; with none keep the base.
            bar: progress to advance by one for each training noise.

        Raises:
            InvalidInput: the base is stochastic, has other ends than the teacher, or no solver made it.
        """
        search = Search(base, denoiser, calibration, seconds)
        levels = Levels(base.process, fine_grid(base, self.nodes))
        parts = search.for_each(self.batch, lambda part: self.costs(base, search.denoiser, levels, part), bar)
        for step, growth in enumerate(self.growths if parts else (), 1):
            times = levels.times[shortest_path(torch.stack(parts).sum(0), len(base.nodes) - 1, growth)]
            settings = {key: value for key, value in asdict(self).items() if key != "growths"} | {"growth": growth}
            search.best.offer(step, on_times(base, times, "GITS", TRAJECTORY_REGULARITY.arxiv, settings))
        return search.result()

    def costs(self, base: Plan, denoiser: Denoiser, levels: Levels, noises: NoiseSet) -> Tensor:
        """Return the errors (T+1, T+1), summed over `noises`, of steps between the nodes of `levels`; infinite for steps back."""
        states = TeacherPaths(denoiser, noises, self.substeps, self.batch).at(levels.times)
        costs = torch.full((len(states), len(states)), torch.inf, dtype=torch.float64)
        for i in range(levels.n):
            x0 = clean(base, denoiser, states[i], levels.times[i], noises.cond)
            wrong = euler_to_all(levels, i, states[i], x0).sub_(states[i + 1 :])
            wrong = wrong.div_(per_node(levels.alpha[i + 1 :], states[i])).flatten(2).abs()
            costs[i, i + 1 :] = wrong.pow(self.norm).mean(2).pow(1 / self.norm).double().sum(1).cpu()
        return costs


def shortest_path(costs: Tensor, steps: int, growth: float = 1.0) -> list[int]:
    """Return the nodes (steps + 1) of the path from the first node to the last with least ``sum_k growth^k costs[n_k, n_{k+1}]``.

    Args:
        costs: (T+1, T+1) cost of a step from node `i` to node `j`; infinite where ``j <= i``.
        steps: number of steps, at most ``T``.
        growth: weight of a step against the one before it.

    Raises:
        InvalidInput: there are more steps than the nodes allow.

    Examples:
        >>> costs = torch.full((4, 4), torch.inf)
        >>> costs[0, 1:], costs[1, 2:], costs[2, 3:] = torch.tensor([1.0, 4, 9]), torch.tensor([2.0, 4]), torch.tensor([3.0])
        >>> shortest_path(costs, 2)
        [0, 1, 3]
    """
    require(1 <= steps < len(costs), f"{len(costs)} nodes allow paths of 1 to {len(costs) - 1} steps, not {steps}")
    least, choices = costs[:, -1], []
    for _ in range(steps - 1):
        least, choice = (costs + growth * least).min(1)
        choices.append(choice.tolist())
    path = [0]
    for choice in reversed(choices):
        path.append(choice[path[-1]])
    return [*path, len(costs) - 1]
