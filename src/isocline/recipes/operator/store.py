"""Trained operators as files: weights in safetensors, with what is needed to build the model again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from isocline._core import files
from isocline._core.errors import BadFile, require
from isocline._version import __version__
from isocline.datasets.fields import DataSpec, Window
from isocline.operators import Channels, GridModel, MessagePassing, OperatorModel, Refiner
from isocline.recipes.operator.architectures import MESSAGE_PASSING, architecture, takes_condition

NAME = "operator.safetensors"
REACH = 3.5  # cells, of the ball with the neighbours of a node


@dataclass(frozen=True)
class OperatorConfig:
    """All that decides a model but its weights.

    Args:
        network: name of the architecture.
        width: channels inside.
        spec: the data it is for.
        window: frames given and predicted.
        predicts: ``"difference"`` or ``"state"``.
        coordinates: whether places are channels.
        leads: whether it is told how far to look.
        refinement: K, the steps of PDE-Refiner; 0 for a plain model.
        sigma_min: the smallest noise of refinement.
    """

    network: str
    width: int
    spec: DataSpec
    window: Window
    predicts: str = "difference"
    coordinates: bool = False
    leads: bool = False
    refinement: int = 0
    sigma_min: float = 1e-3

    def __post_init__(self) -> None:
        require(self.width >= 1, f"a network's width is at least 1, got {self.width}")
        require(self.refinement >= 0, f"refinement has at least 0 steps, got {self.refinement}")

    def build(self) -> OperatorModel:
        """Return the model with fresh weights, drawn from torch's generator.

        Raises:
            InvalidInput: there is no such architecture, or it cannot do what is asked.
        """
        if self.network == MESSAGE_PASSING:
            return self._message_passing()
        make = architecture(self.network, self.spec, self.width)
        told: Any = "vector" if takes_condition(self.network) else "channels"
        channels = Channels(self.predicts, told, self.coordinates, self.leads)  # type: ignore[arg-type]
        if not self.refinement:
            return GridModel(make, self.spec, self.window, channels=channels)
        require(
            takes_condition(self.network),
            f"{self.network} takes no condition, which refinement needs; use unet or convnext",
        )
        more = {"steps": self.refinement, "sigma_min": self.sigma_min}
        return Refiner(make, self.spec, self.window, channels=channels, **more)  # type: ignore[arg-type]

    def _message_passing(self) -> MessagePassing:
        plain = self.predicts == "difference" and not (self.coordinates or self.leads or self.refinement)
        require(plain, f"{self.network} predicts differences and knows places; it takes no leads and no refinement")
        require(
            self.spec.grid == "cartesian", f"{self.spec.name} lies on scattered points; make a `MessagePassing` of it"
        )
        return MessagePassing(self.spec, self.window, radius=REACH / min(self.spec.resolution), width=self.width)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**asdict(self), "spec": self.spec.as_dict(), "window": asdict(self.window)}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> OperatorConfig:
        """Return what `as_dict` stored.

        Raises:
            BadFile: it is something else.
        """
        try:
            return cls(**{**stored, "spec": DataSpec.from_dict(stored["spec"]), "window": Window(**stored["window"])})
        except (KeyError, TypeError) as error:
            raise BadFile(f"this is no description of an operator: {error}") from error


@dataclass(frozen=True)
class TrainedOperator:
    """A trained operator.

    Attributes:
        model: in evaluation mode.
        config: what it was built from.
        about: how it was trained: figures and names.
    """

    model: OperatorModel
    config: OperatorConfig
    about: dict[str, Any] = field(default_factory=dict)


def save_operator(folder: str | Path, model: OperatorModel, config: OperatorConfig, about: Mapping[str, Any]) -> Path:
    """Write a model into `folder`, atomically; return the file."""
    what = {"config": json.dumps(config.as_dict()), "about": json.dumps(dict(about)), "version": __version__}
    return files.write_tensors(files.ensure_folder(folder) / NAME, model.state_dict(), what)


def load_operator(folder: str | Path) -> TrainedOperator:
    """Return the operator in `folder`.

    Raises:
        DataMissing: there is none.
        BadFile: the file is truncated or holds something else.
    """
    path = Path(folder)
    path = path if path.suffix == ".safetensors" else path / NAME
    weights, about = files.read_tensors(path)
    try:
        config = OperatorConfig.from_dict(json.loads(about["config"]))
        model = config.build()
        model.load_state_dict(weights)
        return TrainedOperator(model.eval(), config, json.loads(about["about"]))
    except (KeyError, ValueError, RuntimeError) as error:
        raise BadFile(f"{path} is no operator of isocline: {str(error).splitlines()[0]}") from error
