"""What ``isocline sample`` does: samples of a model, as a picture or as numbers."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from isocline._core import files
from isocline._core.errors import require
from isocline._core.estimate import Budget
from isocline.plans.candidate import candidate_named
from isocline.plans.plan import Plan
from isocline.plans.runner import Sampled
from isocline.recipes import pictures
from isocline.recipes.importing import model_of
from isocline.recipes.sample import sample
from isocline.recipes.sources import save_array


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
    """Draw `count` samples, class by class, and write them to `out`: a picture of images, or a .npy or .csv file."""
    require((calls is None) != (plan_file is None), "pass either --calls or --plan")
    chosen = candidate_named(solver, grid)
    plan = None if plan_file is None else Plan.load(plan_file)
    budget = None if calls is None else Budget(calls=calls)
    files.ensure_folder(out.parent)
    opened = model_of(None if model is None else str(model), guidance=guidance)
    picture = out.suffix not in (".npy", ".csv")
    require(
        not picture or len(opened.shape) == 3,
        f"the model's samples are no images; write them to a .npy file, not {out}",
    )
    sampled = sample(
        opened.denoiser,
        (count, *opened.shape),
        budget,
        rng=seed,
        plan=plan,
        solver=chosen.solver,
        grid=chosen.grid,
        cond=_labels(count, opened.classes),
    )
    if picture:
        pictures.save(pictures.side_by_side([(f"{sampled.cost.calls:g} calls", sampled.x)], 10), out)
    else:
        save_array(out, opened.restore(sampled.x))
    return sampled


def _labels(n: int, classes: int) -> Tensor | None:
    return torch.arange(n) % classes if classes else None
