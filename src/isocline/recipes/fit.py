"""The verb `fit_denoiser`: train any network on any data by any formulation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from isocline._core.errors import require
from isocline._core.estimate import Budget
from isocline._core.stream import Stream
from isocline.datasets.images import Shuffled
from isocline.objectives import Formulation
from isocline.processes import Denoiser
from isocline.recipes.pairs import Pairs
from isocline.training import Part, Settings, Trained, train
from isocline.training.logs import Log

Batch = tuple[Tensor, Tensor | None]
Making = Callable[[int, int, int], Tensor | Pairs]


class Fitted(NamedTuple):
    """A trained denoiser, with averaged weights and in evaluation mode, and the run that trained it."""

    denoiser: Denoiser
    trained: Trained


def fit_denoiser(
    data: Tensor | Pairs | Making,
    formulation: Formulation,
    network: nn.Module,
    settings: Settings,
    folder: str | Path,
    *,
    budget: Budget | None = None,
    fabric: Any = None,
    logs: Sequence[Log] = (),
) -> Fitted:
    """Train `network` as `formulation` says.

    Args:
        data: a data set (N, *), shuffled anew in each epoch; `Pairs`, whose noise stays with its datum, as in reflow; or
            ``(n, step, first) -> (n, *)`` that makes samples, or pairs, `first` and following of the batch of `step`.
        formulation: process, output, weight, time law and preconditioning.
        network: called as ``network(x, time)``; its weights are changed in place.
        settings: length and rates.
        folder: where checkpoints are kept; a run that was stopped continues from there.
        budget: with ``seconds``, a limit on this call.
        fabric: a launched Lightning Fabric, for several devices.
        logs: called with the figures of the run.

    Raises:
        NotFinite: the loss became NaN or infinite.
        Mismatch: the folder holds a run with other settings.
    """
    rng = Stream(settings.seed, "fit")
    take, size = _taker(data, settings, rng), settings.batch

    def batches(step: int, part: Part) -> Batch:
        rows = part.rows(size)
        return take(rows.stop - rows.start, step, rows.start)

    def loss(network: nn.Module, batch: Batch, step: int, part: Part) -> Tensor:
        x0, noise = batch
        denoiser, first = formulation.denoiser(network), part.first(size)
        return formulation.objective.loss(denoiser, x0, rng, step, noise=noise, first=first)

    trained = train(network, batches, loss, settings, folder, budget=budget, fabric=fabric, logs=logs)
    network.load_state_dict(trained.weights)
    return Fitted(formulation.denoiser(network.eval().requires_grad_(False)), trained)


def _taker(data: Tensor | Pairs | Making, settings: Settings, rng: Stream) -> Callable[[int, int, int], Batch]:
    """Return ``(n, step, first) -> (data, noise or None)``."""
    if not isinstance(data, Tensor | Pairs):
        return lambda n, step, first: _split(data(n, step, first))
    x0, noise = _split(data)
    require(
        x0.is_floating_point() and x0.ndim >= 2, f"data must be floating point (N, *), got {x0.dtype} {tuple(x0.shape)}"
    )
    order = Shuffled(len(x0), settings.batch, rng.child("order"))

    def take(n: int, step: int, first: int) -> Batch:
        index = order(step)[first : first + n]
        return x0[index], None if noise is None else noise[index]

    return take


def _split(data: Tensor | Pairs) -> Batch:
    return (data, None) if isinstance(data, Tensor) else (data.data, data.noise)
