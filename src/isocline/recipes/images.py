"""What ``isocline sample`` and ``isocline tune`` do for models in files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from isocline._core import files
from isocline._core.errors import require
from isocline._core.estimate import Budget
from isocline._core.stream import Stream
from isocline.models import bundled
from isocline.plans.candidate import candidate_named
from isocline.plans.plan import Plan
from isocline.plans.runner import Sampled
from isocline.plans.tuners import EndToEnd
from isocline.processes import Guided
from isocline.recipes import pictures
from isocline.recipes.models import StoredModel, load_model
from isocline.recipes.sample import sample
from isocline.recipes.sources import save_array
from isocline.recipes.tune import Outcome, tune


def open_model(path: Path | None, guidance: float = 1.0) -> StoredModel:
    """Return the model at `path`, or the bundled one, with guidance around it where the scale is not 1."""
    model = load_model(bundled("fashion") if path is None else path)
    if guidance == 1.0:
        return model
    require(model.classes > 0, "guidance needs a class-conditional model")
    return replace(model, denoiser=Guided(model.denoiser, guidance))


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
    opened = open_model(model, guidance)
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


def tune_images(
    out: Path, *, calls: int, model: Path | None, steps: int, seconds: float | None, guidance: float, seed: int
) -> Outcome:
    """Tune a plan for an image model and write it to `out`."""
    budget = Budget(calls=calls, seconds=seconds)
    files.ensure_folder(out.parent)
    opened = open_model(model, guidance)
    outcome = tune(
        opened.denoiser,
        opened.shape,
        budget,
        rng=Stream(seed, "tune"),
        cond=(lambda n: _labels(n, opened.classes)) if opened.classes else None,  # type: ignore[arg-type, return-value]
        tuner=EndToEnd(steps=steps),
    )
    outcome.plan.save(out)
    return outcome


def _labels(n: int, classes: int) -> Tensor | None:
    return torch.arange(n) % classes if classes else None
