"""Fréchet distances of a search's plans in a feature space that nothing was tuned on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from isocline._core.estimate import Estimate
from isocline._core.progress import progress
from isocline._core.stream import Stream, as_stream
from isocline.metrics.frechet import frechet_estimate
from isocline.plans.plan import Plan
from isocline.plans.tuners import Calibration
from isocline.processes import Denoiser
from isocline.recipes.portfolio import Chosen

Features = Callable[[Tensor], Tensor]
CHUNK = 100  # samples drawn, and given to the feature network, at a time


def quality(
    found: Chosen,
    denoiser: Denoiser,
    features: Features,
    *,
    real: Tensor | None = None,
    samples: int = 1000,
    rng: Stream | int = 0,
    cond: Callable[[int], Any] | None = None,
) -> dict[str, Estimate]:
    """Return the bias-corrected Fréchet distances of the chosen plan, the best classical one and the teacher to real data.

    All three start from the same new noises. Without real data the distance is to the teacher's samples from other noises, and
    the teacher's own is left out: it would be that between two samples of one distribution.

    Args:
        found: the result of `tune_portfolio`.
        denoiser: the model of that search.
        features: ``samples (B, *) -> numbers (B, F)``; should be nothing that the search has seen.
        real: data (M, *).
        samples: how many each plan makes; more than features, and many more for a short interval.
        rng: stream or seed of the noises and of the intervals.
        cond: ``n -> conditions`` of n samples, for conditional models.

    Returns:
        Distances under ``"chosen"``, ``"classical"`` and, with real data, ``"teacher"``.

    Raises:
        InvalidInput: there are too few samples for so many features.
    """
    rng, teacher = as_stream(rng), found.calibration.teacher
    plans = {"chosen": found.plan, "classical": found.classical.plan} | ({} if real is None else {"teacher": teacher})
    labels = None if cond is None else cond(samples)

    def drawn(plan: Plan, name: str) -> Iterator[Tensor]:
        x = _starts(found.calibration, samples, rng.child(name))
        for chunk in _chunks(samples):
            yield plan.run(denoiser, x[chunk], cond=None if labels is None else labels[chunk]).x
            bar.advance(1)

    with progress("samples for the Fréchet distance", len(_chunks(samples)) * (len(plans) + (real is None))) as bar:
        there = drawn(teacher, "reference") if real is None else (real[chunk] for chunk in _chunks(len(real)))
        reference = _described(features, there)
        return {
            name: frechet_estimate(_described(features, drawn(plan, "starts")), reference, rng)
            for name, plan in plans.items()
        }


def _starts(calibration: Calibration, samples: int, rng: Stream) -> Tensor:
    like = calibration.held_out.x
    return calibration.teacher.start((samples, *like.shape[1:]), rng, dtype=like.dtype)


def _chunks(n: int) -> list[slice]:
    return [slice(first, first + CHUNK) for first in range(0, n, CHUNK)]


@torch.no_grad()
def _described(features: Features, parts: Iterator[Tensor]) -> Tensor:
    return torch.cat([features(part).flatten(1).double() for part in parts])
