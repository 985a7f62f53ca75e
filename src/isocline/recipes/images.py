"""What ``isocline sample`` and ``isocline tune`` do for image models of this repository."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from isocline._core import files
from isocline._core.errors import require
from isocline._core.estimate import Budget
from isocline._core.stream import Stream
from isocline.models import bundled
from isocline.networks.unet import UNetShape
from isocline.plans.candidate import candidate_named
from isocline.plans.plan import Plan
from isocline.plans.runner import Sampled
from isocline.plans.tuners import EndToEnd
from isocline.processes import Denoiser, Guided
from isocline.recipes import pictures
from isocline.recipes.sample import sample
from isocline.recipes.train import load_image_model, shape_of
from isocline.recipes.tune import Outcome, tune


def open_model(path: Path | None, guidance: float = 1.0) -> tuple[Denoiser, UNetShape]:
    """Return the image model at `path`, or the bundled one, with guidance around it where the scale is not 1."""
    model = load_image_model(bundled("fashion") if path is None else path)
    shape = shape_of(model)
    if guidance == 1.0:
        return model, shape
    require(shape.classes > 0, "guidance needs a class-conditional model")
    return Guided(model, guidance), shape


def sample_images(
    out: Path,
    *,
    calls: int | None,
    plan_file: Path | None,
    solver: str,
    grid: str,
    model: Path | None,
    count: int,
    guidance: float,
    seed: int,
) -> Sampled:
    """Draw `count` images, class by class, and write them as one picture to `out`."""
    require((calls is None) != (plan_file is None), "pass either --calls or --plan")
    chosen = candidate_named(solver, grid)
    plan = None if plan_file is None else Plan.load(plan_file)
    budget = None if calls is None else Budget(calls=calls)
    files.ensure_folder(out.parent)
    denoiser, shape = open_model(model, guidance)
    size = (count, shape.channels, shape.side, shape.side)
    sampled = sample(
        denoiser,
        size,
        budget,
        rng=seed,
        plan=plan,
        solver=chosen.solver,
        grid=chosen.grid,
        cond=_labels(count, shape),
    )
    pictures.save(pictures.side_by_side([(f"{sampled.cost.calls:g} calls", sampled.x)], 10), out)
    return sampled


def tune_images(
    out: Path, *, calls: int, model: Path | None, steps: int, seconds: float | None, guidance: float, seed: int
) -> Outcome:
    """Tune a plan for an image model and write it to `out`."""
    budget = Budget(calls=calls, seconds=seconds)
    files.ensure_folder(out.parent)
    denoiser, shape = open_model(model, guidance)
    outcome = tune(
        denoiser,
        (shape.channels, shape.side, shape.side),
        budget,
        rng=Stream(seed, "tune"),
        cond=(lambda n: _labels(n, shape)) if shape.classes else None,  # type: ignore[arg-type, return-value]
        tuner=EndToEnd(steps=steps),
    )
    outcome.plan.save(out)
    return outcome


def _labels(n: int, shape: UNetShape) -> Tensor | None:
    return torch.arange(n) % shape.classes if shape.classes else None
