"""``isocline train data``: a denoiser of one's own data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isocline import objectives
from isocline._core.errors import InvalidInput, nearest, require
from isocline._core.estimate import Budget
from isocline.networks.mlp import DenoisingMLP
from isocline.networks.unet import UNet, UNetShape
from isocline.objectives import Formulation
from isocline.processes import Plain
from isocline.recipes.fit import Fitted, fit_denoiser
from isocline.recipes.models import StoredModel, load_model, save_model
from isocline.training import Settings
from isocline.training.logs import Log

FORMULATIONS: tuple[Callable[..., Formulation], ...] = (
    objectives.cem,
    objectives.edm,
    objectives.ddpm,
    objectives.v_prediction,
    objectives.score,
    objectives.rectified_flow,
)


@dataclass(frozen=True)
class Learned:
    """A model of one's own data, as it was stored, and the run that trained it."""

    model: StoredModel
    fitted: Fitted
    path: Path


def formulation_named(name: str) -> Formulation:
    """Return the formulation called `name`, for data of unit spread; the error names the nearest.

    >>> formulation_named("cem").parameterisation
    Data()
    """
    table = {function.__name__: function for function in FORMULATIONS}
    if name not in table:
        raise InvalidInput(f"there is no formulation {name!r}. {nearest(name, table)}")
    if name in ("cem", "edm"):
        return table[name](sigma_data=1.0)
    found = table[name]()
    return replace(found, preconditioning=Plain()) if name == "ddpm" else found  # our networks want t, not 1000 t


def network_for(shape: tuple[int, ...], width: int, depth: int, seed: int) -> DenoisingMLP | UNet:
    """Return a network for data of `shape`: a U-Net for images (C, H, H) whose side is a multiple of 4, else an MLP of vectors."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if len(shape) == 1:
            return DenoisingMLP(shape[0], width=width, depth=depth)
        square = len(shape) == 3 and shape[1] == shape[2] and shape[1] % 4 == 0
        require(square, f"data are vectors (N, d) or images (N, C, H, H) with H a multiple of 4, not (N, {shape})")
        side = shape[1]
        patch = 1 if side < 16 else 2
        return UNet(UNetShape(channels=shape[0], side=side, patch=patch, widths=(width // 4, width), embedding=width))


def train_on(
    data: Tensor,
    folder: str | Path,
    *,
    formulation: str = "cem",
    settings: Settings | None = None,
    width: int = 128,
    depth: int = 3,
    budget: Budget | None = None,
    fabric: Any = None,
    logs: Sequence[Log] = (),
) -> Learned:
    """Train a denoiser of `data` and write ``model.safetensors`` beside its checkpoints in `folder`.

    The data's mean and standard deviation, two numbers, are taken out before training and kept in the file.

    Args:
        data: (N, d) or (N, C, H, H), floating point.
        folder: a run that was stopped continues from there.
        formulation: cem, edm, ddpm, v_prediction, score or rectified_flow.
        settings: length, rates and seed.
        width: of the hidden layers, or of the U-Net's coarse grid.
        depth: hidden layers of an MLP.
        budget: with ``seconds``, a limit on this call; the model of what was learned so far is written.
        fabric: a launched Lightning Fabric, for several devices.
        logs: called with the figures of the run.
    """
    require(len(data) >= 2 and bool(torch.isfinite(data).all()), "training needs at least two data, all of them finite")
    settings = settings or Settings(steps=5000, batch=256)
    center, scale = float(data.double().mean()), float(data.double().std())
    require(scale > 0, "all data are equal; there is nothing to learn")
    chosen, shape = formulation_named(formulation), tuple(data.shape[1:])
    network = network_for(shape, width, depth, settings.seed)
    unit = ((data.double() - center) / scale).float()
    fitted = fit_denoiser(unit, chosen, network, settings, folder, budget=budget, fabric=fabric, logs=logs)
    path, weights = Path(folder) / "model.safetensors", fitted.trained.weights
    if fabric is None or fabric.global_rank == 0:
        save_model(path, network, chosen, weights, shape=shape, center=center, scale=scale)
    model = StoredModel(fitted.denoiser, shape, 0, center, scale)
    return Learned(model if fabric is not None else load_model(path), fitted, path)
