"""Trained denoisers in files: averaged weights, and what is needed to build the same denoiser around them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from isocline._core import files
from isocline._core.errors import BadFile, InvalidInput, IsoclineError, nearest, require
from isocline.networks.mlp import DenoisingMLP
from isocline.networks.unet import UNet, UNetShape
from isocline.objectives import Formulation
from isocline.processes import Denoiser, EDMPreconditioning, Plain, Preconditioning, Scaled
from isocline.processes.model_time import Continuous, DiscreteIndex, LogSNR, LogTime, NoiseLevel
from isocline.processes.naming import process_from_dict, process_to_dict
from isocline.processes.parameterisation import parameterisation_named
from isocline.recipes.train import load_image_model, shape_of

FORMAT = "isocline-denoiser"
MODEL_TIMES = {kind.__name__: kind for kind in (Continuous, DiscreteIndex, NoiseLevel, LogSNR, LogTime)}


@dataclass(frozen=True)
class StoredModel:
    """A denoiser from a file, and the data it was trained on.

    Args:
        denoiser: the model, of data in its own unit.
        shape: of one datum.
        classes: number of labels; 0 for none.
        center: what was subtracted from the user's data.
        scale: what they were then divided by.
    """

    denoiser: Denoiser
    shape: tuple[int, ...]
    classes: int = 0
    center: float = 0.0
    scale: float = 1.0

    def restore(self, samples: Tensor) -> Tensor:
        """Return samples (N, *) in the user's unit."""
        return self.center + self.scale * samples


def save_model(
    path: str | Path,
    network: DenoisingMLP | UNet,
    formulation: Formulation,
    weights: Mapping[str, Tensor],
    *,
    shape: tuple[int, ...],
    center: float = 0.0,
    scale: float = 1.0,
) -> Path:
    """Write weights and formulation as one safetensors file, atomically.

    Args:
        path: where.
        network: the raw network; its build, not its weights, is taken from it.
        formulation: what it was trained by. Weight and time law are kept as text: a denoiser does not need them.
        weights: by name.
        shape: of one datum.
        center: what was subtracted from the data.
        scale: what they were then divided by.
    """
    about = {
        "format": FORMAT,
        "network": json.dumps(_network_to_dict(network)),
        "process": json.dumps(process_to_dict(formulation.process)),
        "parameterisation": formulation.parameterisation.name,
        "preconditioning": json.dumps(_preconditioning_to_dict(formulation.preconditioning)),
        "formulation": formulation.describe(),
        "shape": json.dumps(list(shape)),
        "center": repr(center),
        "scale": repr(scale),
    }
    return files.write_tensors(Path(path), dict(weights), about)


def load_model(path: str | Path) -> StoredModel:
    """Return the model at `path`, written by `save_model` or as an image model of this repository.

    Raises:
        DataMissing: there is no such file.
        BadFile: the file is truncated or holds something else.
    """
    weights, about = files.read_tensors(path)
    if about.get("format") != FORMAT:
        denoiser = load_image_model(path)
        image = shape_of(denoiser)
        return StoredModel(denoiser, (image.channels, image.side, image.side), image.classes)
    try:
        network = _network_from_dict(json.loads(about["network"]))
        network.load_state_dict(weights)
        denoiser = Scaled(
            network.eval().requires_grad_(False),
            process_from_dict(json.loads(about["process"])),
            parameterisation_named(about["parameterisation"]),
            _preconditioning_from_dict(json.loads(about["preconditioning"])),
        )
        shape = tuple(int(n) for n in json.loads(about["shape"]))
        return StoredModel(denoiser, shape, _classes(network), float(about["center"]), float(about["scale"]))
    except (KeyError, TypeError, ValueError, RuntimeError, IsoclineError) as error:
        raise BadFile(f"{path} does not hold a model of isocline ({type(error).__name__}: {error})") from error


def _network_to_dict(network: nn.Module) -> dict[str, Any]:
    if isinstance(network, UNet):
        return {"name": "UNet", **network.shape.as_dict()}
    if isinstance(network, DenoisingMLP):
        return {"name": "DenoisingMLP", **network.build}
    raise InvalidInput(f"a {type(network).__name__} has no file form; save its weights yourself")


def _network_from_dict(stored: dict[str, Any]) -> nn.Module:
    name = stored.pop("name")
    if name == "UNet":
        return UNet(UNetShape(**stored))
    if name == "DenoisingMLP":
        return DenoisingMLP(**stored)
    raise InvalidInput(f"unknown network {name!r}")


def _classes(network: nn.Module) -> int:
    return network.shape.classes if isinstance(network, UNet) else int(getattr(network, "classes", 0))


def _preconditioning_to_dict(preconditioning: Preconditioning) -> dict[str, Any]:
    if isinstance(preconditioning, EDMPreconditioning):
        return {"name": "EDMPreconditioning", "sigma_data": preconditioning.sigma_data}
    time: Any = getattr(preconditioning, "model_time", None)
    known = isinstance(preconditioning, Plain) and type(time).__name__ in MODEL_TIMES
    require(known, f"the preconditioning {preconditioning} has no file form")
    return {"name": "Plain", "model_time": {"name": type(time).__name__, **asdict(time)}}


def _preconditioning_from_dict(stored: dict[str, Any]) -> Preconditioning:
    if stored["name"] == "EDMPreconditioning":
        return EDMPreconditioning(float(stored["sigma_data"]))
    time = dict(stored["model_time"])
    name = time.pop("name")
    require(
        stored["name"] == "Plain" and name in MODEL_TIMES, f"unknown model time {name!r}. {nearest(name, MODEL_TIMES)}"
    )
    kind = MODEL_TIMES[name]
    return Plain(kind(**{f.name: time[f.name] for f in fields(kind)}))
