r"""What a stepper is trained on: one step, or what it makes of its own predictions.

A rollout feeds a model states that are slightly wrong. One-step training never shows it such states; the strategies differ in how
they do. `Pushforward` unrolls without gradients and trains on the last window, which is cheap and adds the model's own error as
noise (Brandstetter, Worrall, Welling, arXiv 2202.03376). `Unrolled` trains on all windows, with gradients through the
unrolling or cut between. `Denoise` adds Gaussian noise to the input (Sanchez-Gonzalez et al., arXiv 2002.09405). `AllToAll` has
the model jump from any frame to any later one (Herde et al., arXiv 2405.19101).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline._core.stream import Stream
from isocline.datasets.fields import Batch, Window
from isocline.objectives.fields import FieldObjective
from isocline.operators.models import OperatorModel, advanced

PUSHFORWARD = Method(
    "pushforward",
    "Pushforward training",
    "Message Passing Neural PDE Solvers",
    "Brandstetter, Worrall, Welling",
    2022,
    "2202.03376",
    room="operators",
    when="Steppers that are rolled out far: the input has the model's own error at the price of calls without gradient.",
)


@dataclass(frozen=True)
class Draws:
    """Random numbers of one update: functions of the stream, the update and the number of the sample.

    Args:
        stream: for the whole training.
        step: which update.
        first: number of the batch's first sample, where it is a part of a larger one.
    """

    stream: Stream
    step: int = 0
    first: int = 0

    def normal(self, like: Tensor, name: str) -> Tensor:
        """Return standard normal numbers of the shape, precision and device of `like` (B, *)."""
        how: dict[str, Any] = {"dtype": like.dtype, "device": like.device}
        return self.stream.child(name).normal(tuple(like.shape), step=self.step, first=self.first, **how)

    def integers(self, high: int, n: int, name: str) -> Tensor:
        """Return n integers in ``[0, high)``, one a sample."""
        return self.stream.child(name).integers(high, (n,), step=self.step, first=self.first)


class Strategy(ABC):
    """How windows of true frames become a loss. Subclasses are frozen dataclasses."""

    @abstractmethod
    def window(self, model: Window) -> Window:
        """Return the frames that a loss needs, for a model with the window `model`."""

    @abstractmethod
    def loss(self, model: OperatorModel, batch: Batch, objective: FieldObjective, rng: Draws) -> Tensor:
        """Return the mean loss of a batch.

        Args:
            model: what is trained.
            batch: windows of `window`.
            objective: predictions and truth, ``(B, T, *S, C)``, to (B,).
            rng: random numbers of this update.
        """


@dataclass(frozen=True)
class OneStep(Strategy):
    """True frames in, the next window out."""

    def window(self, model: Window) -> Window:
        """Return the model's own window."""
        return model

    def loss(self, model: OperatorModel, batch: Batch, objective: FieldObjective, rng: Draws) -> Tensor:
        """Return the mean distance of one window."""
        return objective(model(batch), batch.target).mean()


@PUSHFORWARD.variant()
@dataclass(frozen=True)
class Pushforward(Strategy):
    """Unroll 0 ... `unrolls` windows without gradients, train on the next one.

    Args:
        unrolls: the largest number; how many is drawn uniformly, for the whole batch.
        warmup: updates over which the largest number grows from 0.

    Source: arXiv 2202.03376.
    """

    unrolls: int = 1
    warmup: int = 0

    def __post_init__(self) -> None:
        require(self.unrolls >= 1 and self.warmup >= 0, f"pushforward unrolls at least one window, got {self}")

    def window(self, model: Window) -> Window:
        """Return a window that holds all that may be unrolled."""
        return replace(model, future=(self.unrolls + 1) * model.future)

    def loss(self, model: OperatorModel, batch: Batch, objective: FieldObjective, rng: Draws) -> Tensor:
        """Return the mean distance of the window after the unrolled ones."""
        count, future = self.drawn(rng), model.window.future
        with torch.no_grad():
            for _ in range(count):
                batch = replace(advanced(batch, model(batch)), y=batch.target[:, future:])
        return objective(model(batch), batch.target[:, :future]).mean()

    def drawn(self, rng: Draws) -> int:
        """Return how many windows are unrolled in an update."""
        most = self.unrolls if self.warmup == 0 else min(self.unrolls, self.unrolls * rng.step // self.warmup)
        return int(replace(rng, first=0).integers(most + 1, 1, "unrolls"))


@dataclass(frozen=True)
class Unrolled(Strategy):
    """Train on `windows` windows in a row, each from the prediction before.

    Args:
        windows: how many.
        detach: whether gradients are cut between windows.
    """

    windows: int = 2
    detach: bool = False

    def __post_init__(self) -> None:
        require(self.windows >= 1, f"at least one window is unrolled, got {self.windows}")

    def window(self, model: Window) -> Window:
        """Return a window that holds them all."""
        return replace(model, future=self.windows * model.future)

    def loss(self, model: OperatorModel, batch: Batch, objective: FieldObjective, rng: Draws) -> Tensor:
        """Return the mean distance over all windows."""
        truth, total = batch.target.split(model.window.future, 1), torch.zeros((), device=batch.x.device)
        for frames in truth:
            found = model(batch)
            total = total + objective(found, frames).mean()
            batch = advanced(batch, found.detach() if self.detach else found)
        return total / len(truth)


@dataclass(frozen=True)
class Denoise(Strategy):
    """One step from frames with Gaussian noise on them.

    Args:
        scale: standard deviation of the noise, as a share of each channel's root mean square over space in the frame.

    Source: arXiv 2002.09405.
    """

    scale: float = 0.01

    def __post_init__(self) -> None:
        require(self.scale >= 0, f"the scale of noise is at least 0, got {self.scale:g}")

    def window(self, model: Window) -> Window:
        """Return the model's own window."""
        return model

    def loss(self, model: OperatorModel, batch: Batch, objective: FieldObjective, rng: Draws) -> Tensor:
        """Return the mean distance of one window from noisy frames."""
        x = batch.x
        noise = rng.normal(x, "noise")
        size = x.square().mean(tuple(range(2, x.ndim - 1)), keepdim=True).sqrt()
        return objective(model(replace(batch, x=x + self.scale * size * noise)), batch.target).mean()


@dataclass(frozen=True)
class AllToAll(Strategy):
    """From the present frame to one that is 1 ... `leads` frames later; the model is told how many.

    Args:
        leads: the largest number; drawn uniformly for each sample.

    Source: arXiv 2405.19101.
    """

    leads: int = 4

    def __post_init__(self) -> None:
        require(self.leads >= 1, f"a model looks at least one frame ahead, got {self.leads}")

    def window(self, model: Window) -> Window:
        """Return a window up to the furthest frame."""
        require(model.future == 1, "all-to-all training needs a model that predicts one frame")
        return replace(model, future=self.leads)

    def loss(self, model: OperatorModel, batch: Batch, objective: FieldObjective, rng: Draws) -> Tensor:
        """Return the mean distance of one frame for each sample."""
        require(batch.offsets is None, "all-to-all training needs data on a grid")
        lead = 1 + rng.integers(self.leads, len(batch), "lead").to(batch.x.device)
        truth = batch.target[torch.arange(len(batch), device=lead.device), lead - 1].unsqueeze(1)
        return objective(model(batch, lead=lead), truth).mean()
