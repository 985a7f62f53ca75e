"""The repository's own image models: Fashion-MNIST and the 8 x 8 digits, trained by one recipe.

An EDM process and preconditioning (Karras et al., arXiv 2206.00364) around a small class-conditional U-Net. One label in ten
is dropped, so the network also serves classifier-free guidance.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isocline._core import files
from isocline._core.errors import BadFile
from isocline._core.estimate import Budget
from isocline._core.stream import Stream
from isocline.datasets.fashion import load_fashion
from isocline.datasets.images import Images, Shuffled
from isocline.networks.unet import UNet, UNetShape
from isocline.objectives import edm
from isocline.processes import EDM, Denoiser, Preconditioned
from isocline.training import Part, Settings, Trained, train
from isocline.training.logs import Log

LABEL_DROPOUT = 0.1


@dataclass(frozen=True)
class ImageRecipe:
    """Everything that decides an image model: its network, its data's standard deviation, its training."""

    name: str
    shape: UNetShape
    sigma_data: float
    settings: Settings


FASHION = ImageRecipe("fashion", UNetShape(classes=10, side=28), 0.7, Settings(steps=16_000, batch=64, rate=1e-3))
DIGITS = ImageRecipe(
    "digits",
    UNetShape(classes=10, side=8, patch=1, widths=(16, 32), embedding=32),
    0.75,
    Settings(steps=3_000, batch=64, rate=2e-3, warmup=50, average=0.995),
)


def train_images(
    recipe: ImageRecipe,
    images: Images,
    folder: str | Path,
    settings: Settings | None = None,
    *,
    budget: Budget | None = None,
    fabric: Any = None,
    logs: Sequence[Log] = (),
) -> tuple[Denoiser, Trained]:
    """Train `recipe` on `images`, keep checkpoints and ``model.safetensors`` in `folder`, return the averaged model.

    `budget`, `fabric` and `logs` are those of `isocline.training.train`.
    """
    recipe = replace(recipe, settings=settings or recipe.settings)
    rng = Stream(recipe.settings.seed, recipe.name)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.settings.seed)
        network = UNet(recipe.shape)
    formulation = edm(recipe.sigma_data)
    batch = recipe.settings.batch
    order = Shuffled(len(images), batch, rng.child("order"))

    def batches(step: int, part: Part) -> tuple[Tensor, Tensor]:
        return images.take(order(step)[part.rows(batch)])

    def loss(network: nn.Module, data: tuple[Tensor, Tensor], step: int, part: Part) -> Tensor:
        x0, label = data
        first = part.first(batch)
        dropped = rng.child("label").uniform(tuple(label.shape), step=step, first=first) < LABEL_DROPOUT
        label = label.masked_fill(dropped.to(label.device), recipe.shape.classes)
        return formulation.objective.loss(formulation.denoiser(network), x0, rng, step, label, first=first)

    how: dict[str, Any] = {"budget": budget, "fabric": fabric, "logs": logs, "description": f"training {recipe.name}"}
    trained = train(network, batches, loss, recipe.settings, folder, **how)
    network.load_state_dict(trained.weights)
    if fabric is None or fabric.global_rank == 0:
        save_image_model(Path(folder) / "model.safetensors", recipe, trained)
    return Preconditioned(network, EDM(), recipe.sigma_data), trained


def save_image_model(path: Path, recipe: ImageRecipe, trained: Trained) -> None:
    """Store averaged weights with what is needed to rebuild the model."""
    about = {
        "name": recipe.name,
        "shape": json.dumps(recipe.shape.as_dict()),
        "sigma_data": str(recipe.sigma_data),
        "seconds": f"{trained.seconds:.0f}",
        "final_loss": f"{trained.losses[-1][1]:.6g}",
    }
    files.write_tensors(path, trained.weights, about)


def load_image_model(path: str | Path) -> Denoiser:
    """Return the denoiser stored at `path`.

    Raises:
        DataMissing: there is no such file.
        BadFile: the file is truncated or holds something else.
    """
    weights, about = files.read_tensors(path)
    return _rebuild(weights, about, path)


def shape_of(denoiser: Denoiser) -> UNetShape:
    """Return the shape of the U-Net inside an image model of this repository."""
    network = getattr(denoiser, "network", None)
    if not isinstance(network, UNet):
        raise BadFile("this denoiser is not an image model of isocline")
    return network.shape


def _rebuild(weights: Mapping[str, Tensor], about: Mapping[str, str], path: str | Path) -> Denoiser:
    try:
        network = UNet(UNetShape(**json.loads(about["shape"])))
        network.load_state_dict(weights)
        sigma_data = float(about["sigma_data"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BadFile(f"{path} does not hold an image model of isocline ({type(error).__name__}: {error})") from error
    return Preconditioned(network.eval().requires_grad_(False), EDM(), sigma_data)


def train_fashion(folder: str | Path, data: str | Path | None = None, settings: Settings | None = None) -> Trained:
    """Train the bundled Fashion-MNIST model again (about an hour and a half on two cores)."""
    return train_images(FASHION, load_fashion(data), folder, settings)[1]
