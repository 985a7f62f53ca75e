r"""PDE-Refiner: a prediction, then steps that remove noise of ever smaller size (Lippe et al., arXiv 2308.05732).

    u^(0) = net(v, 0, 0) ,      u^(k) = u~ - sigma_k net(v, u~, k) ,   u~ = u^(k-1) + sigma_k eps ,   k = 1 ... K

with noise levels ``sigma_k = sigma_min^(k / K)``: those of the variance-exploding process from 1 down to sigma_min at equal steps
in time. The network sees noise of the size of one spectral band after the other, so it learns amplitudes that a plain squared
error neglects. It is trained on k uniform in 0 ... K; the target is the state for k = 0 and the noise for k >= 1. States are
differences to the last frame over their scale, as in the paper's experiments.

The spread of rollouts with other noise is an estimate of their error.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline._core.stream import Stream, as_stream
from isocline.datasets.fields import Batch, DataSpec, Window
from isocline.objectives.fields import FieldObjective
from isocline.operators.models import Channels, GridModel, Make, OperatorModel
from isocline.operators.normaliser import Normaliser
from isocline.operators.strategies import Draws, Strategy
from isocline.processes import VarianceExploding

METHOD = Method(
    "pde-refiner",
    "PDE-Refiner",
    "PDE-Refiner: Achieving Accurate Long Rollouts with Neural PDE Solvers",
    "Lippe, Veeling, Perdikaris, Turner, Brandstetter",
    2023,
    "2308.05732",
    room="operators",
    when="Long rollouts of deterministic systems where high frequencies of small amplitude matter later; K + 1 calls a step.",
)


@METHOD.variant()
class Refiner(OperatorModel):
    """A network that predicts, then refines.

    Args:
        make: as in `GridModel`; the network takes a condition, whose last entry is ``k / K``, and future * C further channels.
        spec: the data.
        window: frames given and predicted.
        normaliser: made from the data.
        channels: how the network sees a batch; parameters are a vector or none.
        steps: K, refinement steps.
        sigma_min: the smallest noise, in units of the differences' spread.
        rng: the noise of refinement, a function of the time and of the place in the batch.

    Source: arXiv 2308.05732.
    """

    def __init__(
        self,
        make: Make,
        spec: DataSpec,
        window: Window,
        normaliser: Normaliser | None = None,
        channels: Channels | None = None,
        *,
        steps: int = 3,
        sigma_min: float = 1e-3,
        rng: Stream | int = 0,
    ) -> None:
        super().__init__()
        require(
            steps >= 1 and 0 < sigma_min < 1,
            f"refinement needs steps >= 1 and 0 < sigma_min < 1, got {steps}, {sigma_min:g}",
        )
        channels = channels or Channels(parameters="vector")
        require(
            channels.parameters == "vector" and not channels.leads,
            "a refiner tells its network k as a vector: parameters='vector'",
        )
        self.steps, self.sigma_min, self.rng = steps, sigma_min, as_stream(rng, "refiner")

        def widened(inputs: int, outputs: int, conditions: int) -> torch.nn.Module:
            return make(inputs + outputs, outputs, conditions + 1)

        self.base = _Told(widened, spec, window, normaliser, channels)
        self.spec, self.window = spec, window

    @property
    def levels(self) -> Tensor:
        """The noise levels ``sigma_1 > ... > sigma_K``, (K,)."""
        return VarianceExploding(self.sigma_min, 1.0).sigma(1 - torch.arange(1, self.steps + 1) / self.steps)

    def forward(self, batch: Batch, *, lead: Tensor | None = None) -> Tensor:
        """Return refined frames ``(B, future, *S, C)``."""
        require(lead is None, "a refiner predicts its window only")
        self.require_fits(batch)
        u = self.predicted(batch, torch.zeros_like(self._shape(batch)), 0)
        for k, sigma in enumerate(self.levels.tolist(), start=1):
            noisy = u + sigma * self._noise(u, batch, k)
            u = noisy - sigma * self.predicted(batch, noisy, k)
        return self.base.frames(u, batch)

    def predicted(self, batch: Batch, u: Tensor, k: int | Tensor) -> Tensor:
        """Return what the network says of states u ``(B, future, *S, C)`` with noise of level k: the state for 0, or the noise."""
        told = torch.as_tensor(k, device=u.device).expand(len(batch)).to(u.dtype) / self.steps
        return self.base.told(batch, u, told)

    def _shape(self, batch: Batch) -> Tensor:
        return batch.x[:, -1:].expand(-1, self.window.future, *batch.x.shape[2:])

    def _noise(self, u: Tensor, batch: Batch, k: int) -> Tensor:
        """Return noise that differs between the steps of a rollout."""
        frame = max(round(float(batch.t[0, 0] / batch.dt[0])), 0)
        return Draws(self.rng.child(k), frame).normal(u, "noise")


class _Told(GridModel):
    """A grid model that is told the noisy state and its level as well."""

    def told(self, batch: Batch, u: Tensor, level: Tensor) -> Tensor:
        """Return its output for a noisy state u ``(B, future, *S, C)`` of a level (B,) in 0 ... 1."""
        x, condition = self._inputs(batch, None)
        state = u.movedim(-1, 2).flatten(1, 2)
        found = self.network(torch.cat([x, state], 1), torch.cat([condition, level[:, None]], 1))
        return found.unflatten(1, (self.window.future, self.spec.channels)).movedim(2, -1)


@dataclass(frozen=True)
class Refine(Strategy):
    """Trains a `Refiner`: k uniform in 0 ... K for each sample, state or noise as target. The objective is a squared error."""

    def window(self, model: Window) -> Window:
        """Return the model's own window."""
        return model

    def loss(self, model: OperatorModel, batch: Batch, objective: FieldObjective, rng: Draws) -> Tensor:
        """Return the mean distance of the network's outputs from their targets, in normalised units."""
        require(isinstance(model, Refiner), "the strategy Refine trains a Refiner")
        assert isinstance(model, Refiner)
        u = model.base.normalised(batch.target, batch)
        k = rng.integers(model.steps + 1, len(batch), "k").to(u.device)
        eps = rng.normal(u, "noise")
        over = (-1, *[1] * (u.ndim - 1))
        sigma = torch.cat([torch.zeros(1), model.levels]).to(u)[k].reshape(over)
        refining = (k > 0).reshape(over)
        noisy = torch.where(refining, u + sigma * eps, torch.zeros_like(u))
        return objective(model.predicted(batch, noisy, k), torch.where(refining, eps, u)).mean()
