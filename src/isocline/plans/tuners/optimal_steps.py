r"""OptimalSteps: the times whose own Euler run stays nearest to the teacher (Pei, Hu and Gu, arXiv 2503.21774).

On a grid of ``T + 1`` nodes with the teacher's states ``x_0, ..., x_T`` it carries, for each number of steps ``k`` and node ``j``,
one state ``z_kj`` that the student itself reaches there in ``k`` steps, errors and all:

    z_00 = x_0 ,      z_kj = E(i -> j) z_{k-1,i}    with the ``i < j`` for which    |z_kj - x_j|    is least ,

``E(i -> j)`` Euler's step, one network call for each ``(k, i)``. The schedule of ``N`` steps is traced back from ``z_NT``. A local
error therefore counts by what the rest of the run makes of it, whereas adding up one-step errors along the teacher's path has to
guess that. The result is not exactly optimal: of all states that ``k`` steps can reach at ``j`` only the nearest is kept, though
another one might come nearer later.

Every sample has a schedule of its own; the element-wise median over samples is a schedule again, as medians keep order.

The authors' code does one thing more, `free_start` here: a schedule may begin at any node, the start noise being the state there.
That saves a call where the data prediction hardly changes. Under Euler's method it mostly helps.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.progress import Progress
from isocline._core.registry import Method
from isocline._core.stream import Stream
from isocline.plans.free_start import free_start, kept_noise
from isocline.plans.plan import Plan
from isocline.plans.solvers.rows import Levels
from isocline.plans.tuners.calibration import Calibration, NoiseSet
from isocline.plans.tuners.paths import TeacherPaths
from isocline.plans.tuners.recompile import on_times
from isocline.plans.tuners.teacher_grid import Search, clean, euler_to_all, fine_grid, per_node
from isocline.plans.tuners.tuned import Tuned
from isocline.processes import Denoiser

OPTIMAL_STEPSIZE = Method(
    "optimal-steps",
    "OptimalSteps (optimal stepsize distillation)",
    "Optimal Stepsize for Diffusion Sampling",
    "Jianning Pei, Han Hu, Shuyang Gu",
    2025,
    "2503.21774",
    room="plans.tuners",
    when="New times for few calls from a model without gradients, where some hundred calls a noise can be spent.",
)


@OPTIMAL_STEPSIZE.variant()
@dataclass(frozen=True)
class OptimalSteps:
    """Choose times by dynamic programming over the states that Euler's method itself reaches.

    It costs about ``N T`` calls for each training noise besides the teacher's, ``N`` the steps of the base. The times found are
    used with the base's own solver, whichever it is.

    Args:
        nodes: steps ``T`` of the grid that times are chosen from, at least; each step of the base is divided evenly.
        per_sample: search for each noise and take the median; else one schedule for each batch, by the batch's mean square.
        substeps: steps of the teacher between neighbouring nodes.
        batch: noises that are searched together.
        free_start: let the search choose a first step without a call, `isocline.plans.free_start`; it takes up to ``T`` calls more.
            The plan is not its solver's own any more, so no tuner of times can follow.
    """

    nodes: int = 60
    per_sample: bool = True
    substeps: int = 2
    batch: int = 64
    free_start: bool = False

    def __post_init__(self) -> None:
        require(self.nodes >= 1 and self.batch >= 1, f"OptimalSteps needs nodes >= 1 and batch >= 1, got {self}")
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
        """Return the base's solver on the times found, or the base where that is better on validation noises.

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
        found = search.for_each(self.batch, lambda part: self.schedules(base, search.denoiser, levels, part), bar)
        if found:
            schedule = torch.cat(found).median(0).values
            plan = on_times(base, levels.times[schedule], "OptimalSteps", OPTIMAL_STEPSIZE.arxiv, asdict(self))
            search.best.offer(1, free_start(plan, base.nodes[0]) if schedule[0] > 0 else plan)
        return search.result()

    def schedules(self, base: Plan, denoiser: Denoiser, levels: Levels, noises: NoiseSet) -> Tensor:
        """Return the schedule found for each of `noises`, as nodes (B, N+1) of `levels`; with `free_start` it may begin late."""
        teacher = TeacherPaths(denoiser, noises, self.substeps, self.batch).at(levels.times)
        steps = len(base.nodes) - 1
        states, before = self._starts(base, levels, teacher[0]), []
        for k in range(1, steps + 1):
            last = levels.n - steps + k  # a later node leaves too few for the steps to come
            layer = Layer(teacher, levels.n if k == steps else k, last, self.per_sample)
            for i, x in states.items():
                x0 = clean(base, denoiser, x, levels.times[i], noises.cond)
                layer.offer(i, euler_to_all(levels, i, x, x0))
            states = layer.states()
            before.append(layer.before)
        return traced(before)

    def _starts(self, base: Plan, levels: Levels, x: Tensor) -> dict[int, Tensor]:
        """Return the states (B, *) that the first step may start from, by node."""
        if not self.free_start:
            return {0: x}
        latest = levels.n - (len(base.nodes) - 1)
        scales = kept_noise(base.process, levels.times[:1], levels.times[: latest + 1])
        return dict(enumerate(per_node(scales, x) * x))


class Layer:
    """The best states after `k` steps at the nodes from `first` to `last`, each by its distance from the teacher there."""

    def __init__(self, teacher: Tensor, first: int, last: int, per_sample: bool) -> None:
        self.teacher, self.first, self.per_sample = teacher[: last + 1], first, per_sample
        self.least = teacher.new_full(self.teacher.shape[:2], torch.inf)
        self.before = torch.zeros_like(self.least, dtype=torch.long)
        self.nearest = torch.empty_like(self.teacher)

    def offer(self, i: int, reached: Tensor) -> None:
        """Take the states `reached` (>= m, B, *) at the nodes after `i` where they are the nearest so far."""
        after = slice(max(i + 1, self.first), None)
        reached = reached[after.start - i - 1 : len(self.teacher) - i - 1]
        distance = (reached - self.teacher[after]).flatten(2).square().mean(2)
        if not self.per_sample:
            distance = distance.mean(1, keepdim=True).expand_as(distance)
        nearer = distance < self.least[after]
        self.least[after] = torch.where(nearer, distance, self.least[after])
        self.before[after] = torch.where(nearer, i, self.before[after])
        wide = nearer.reshape(*nearer.shape, *([1] * (reached.ndim - 2)))
        self.nearest[after] = torch.where(wide, reached, self.nearest[after])

    def states(self) -> dict[int, Tensor]:
        """Return the state (B, *) at each node."""
        return {j: self.nearest[j] for j in range(self.first, len(self.teacher))}


def traced(before: list[Tensor]) -> Tensor:
    """Return the nodes (B, N+1) of the paths to the last node, given for each step the node before each node (m, B)."""
    nodes = [torch.full_like(before[-1][-1], len(before[-1]) - 1)]
    for layer in reversed(before):
        nodes.append(layer.gather(0, nodes[-1][None])[0])
    return torch.stack(nodes[::-1], 1)
