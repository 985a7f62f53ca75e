"""Start noises with their teacher's results, split so that nothing is claimed on what was tuned on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.progress import Progress
from isocline._core.stream import Stream
from isocline.plans.plan import Plan
from isocline.processes import Denoiser


@dataclass(frozen=True)
class NoiseSet:
    """Start states `x` (N, *), conditions `cond` and the teacher's end states `target` (N, *).

    Conditions are None, a tensor (N, ...), or what is cut like one, such as `isocline.recipes.Conditions`.
    """

    x: Tensor
    cond: Any
    target: Tensor

    def __post_init__(self) -> None:
        require(self.x.shape == self.target.shape, f"{len(self.x)} noises need as many targets, got {len(self.target)}")

    def __len__(self) -> int:
        return self.x.shape[0]

    def take(self, index: Tensor | slice) -> NoiseSet:
        """Return the part at `index`."""
        return NoiseSet(self.x[index], None if self.cond is None else self.cond[index], self.target[index])


@dataclass(frozen=True)
class Calibration:
    """Three disjoint sets of noises for one teacher.

    Args:
        train: gradients or statistics are taken here.
        validation: early stopping and the choice among plans happen here.
        held_out: only ever measured on.
        teacher: the plan whose results are the targets.
    """

    train: NoiseSet
    validation: NoiseSet
    held_out: NoiseSet
    teacher: Plan

    def __post_init__(self) -> None:
        for name in ("train", "validation", "held_out"):
            _require_enough(name, len(getattr(self, name)))

    def check_comparable(self, plan: Plan) -> None:
        """Refuse a plan that starts or ends at another time than the teacher."""
        mine, its = self.teacher.times.detach(), plan.times.detach()
        require(
            bool(torch.isclose(mine[0], its[0])) and bool(torch.isclose(mine[-1], its[-1], atol=1e-12)),
            f"the teacher runs from t = {mine[0]:g} to {mine[-1]:g}, the plan from {its[0]:g} to {its[-1]:g}; "
            "compare plans with the same ends",
        )


def _require_enough(name: str, found: int) -> None:
    require(found >= 2, f"the {name} set needs at least 2 noises, got {found}")


def draw_noises(
    teacher: Plan,
    denoiser: Denoiser,
    shape: tuple[int, ...],
    sizes: tuple[int, int, int],
    rng: Stream,
    *,
    cond: Callable[[int], Any] | None = None,
    batch: int = 64,
    dtype: torch.dtype = torch.float32,
    bar: Progress | None = None,
) -> Calibration:
    """Draw noises, run the teacher on them, and split.

    Args:
        teacher: a deterministic plan.
        denoiser: the model.
        shape: shape of one datum.
        sizes: numbers of train, validation and held-out noises.
        rng: each set is a child stream of it, so growing one does not change the others.
        cond: ``n -> conditions`` of n samples, a tensor (n, ...) or what can be cut like one.
        batch: samples in each teacher batch.
        dtype: precision of the states.
        bar: progress to advance by one for each sample.
    """
    require(not teacher.stochastic, "a teacher must be deterministic")
    for name, size in zip(("train", "validation", "held_out"), sizes, strict=True):
        _require_enough(name, size)  # before the teacher runs
    sets = []
    for name, size in zip(("train", "validation", "held out"), sizes, strict=True):
        x = teacher.start((size, *shape), rng.child(name), dtype=dtype)
        labels = None if cond is None else cond(size)
        parts = []
        for first in range(0, size, batch):
            chunk = slice(first, first + batch)
            parts.append(teacher.run(denoiser, x[chunk], cond=None if labels is None else labels[chunk]).x)
            if bar is not None:
                bar.advance(len(parts[-1]))
        sets.append(NoiseSet(x, labels, torch.cat(parts)))
    return Calibration(sets[0], sets[1], sets[2], teacher)
