r"""Training of operator models on windows of a source, through the one training loop.

Which windows an update sees is a function of its number, so a training that was killed goes on to the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from isocline._core.estimate import Budget, Cost
from isocline._core.stream import Stream
from isocline.datasets.fields import Batch, DataSpec, Window
from isocline.objectives.fields import FieldObjective, relative_l2
from isocline.operators.models import OperatorModel
from isocline.operators.strategies import Draws, OneStep, Strategy
from isocline.training import Part, Settings, Trained, train
from isocline.training.logs import Log
from isocline.training.state import Build


class Source(Protocol):
    """Where windows come from: files, or solvers that run beside the training."""

    spec: DataSpec

    def draw(self, step: int, window: Window, batch_size: int, split: str, rng: Stream, part: Part = ...) -> Batch:
        """Return the part of the batch of an update."""


@dataclass(frozen=True)
class Fitted:
    """A trained model and what it cost.

    Attributes:
        model: with averaged weights.
        trained: losses of training batches, which are no accuracy.
        cost: calls are updates times samples; seconds are wall seconds.
    """

    model: OperatorModel
    trained: Trained
    cost: Cost


def fit(
    model: OperatorModel,
    source: Source,
    settings: Settings,
    folder: str | Path,
    *,
    strategy: Strategy | None = None,
    objective: FieldObjective = relative_l2,
    optimizer: Build | None = None,
    budget: Budget | None = None,
    fabric: Any = None,
    logs: Sequence[Log] = (),
) -> Fitted:
    """Train a model; continue from `folder` if a checkpoint is there.

    Args:
        model: changed in place; it ends with averaged weights, in evaluation mode.
        source: the data; its training split is used.
        settings: steps, rates, batch, seed; ``average`` is the decay of the averaged weights.
        folder: where checkpoints are kept.
        strategy: what the model is trained on; one step without it.
        objective: predictions and truth to one number a case.
        optimizer: as in `isocline.training.train`.
        budget: as there.
        fabric: as there.
        logs: as there.

    Raises:
        Mismatch: the model was made for other fields, or the checkpoint for another training.
        NotFinite: the loss is NaN or infinite.
    """
    model.spec.require_same_fields(source.spec)
    strategy = strategy or OneStep()
    window, rng = strategy.window(model.window), Stream(settings.seed, "operator")

    def batches(step: int, part: Part) -> Batch:
        return source.draw(step, window, settings.batch, "train", rng.child("windows"), part)

    def loss(network: Any, batch: Batch, step: int, part: Part) -> Tensor:
        draws = Draws(rng.child("strategy"), step, part.first(settings.batch))
        return strategy.loss(network, batch, objective, draws)

    how: dict[str, Any] = {"optimizer": optimizer, "budget": budget, "fabric": fabric, "logs": logs}
    trained = train(model, batches, loss, settings, folder, description=f"training on {source.spec.name}", **how)
    model.load_state_dict(trained.weights)
    cost = Cost(calls=trained.steps * settings.batch, seconds=trained.seconds)
    return Fitted(model, trained, cost)
