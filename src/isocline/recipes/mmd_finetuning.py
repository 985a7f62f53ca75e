r"""Fine-tuning a network for one plan with few calls, by the distribution of what the plan makes (Aiello et al., arXiv 2301.07969).

The plan stays as it is; the network's weights ``theta`` change so that the plan's results are distributed as the data,

    min over theta   MMD^2( phi(plan_theta(x_T)), phi(x_0) ) ,      x_T noise, x_0 data, phi fixed features,

with the gradient taken through all calls of the run. The run need no longer follow the model's own flow, so the distance to a
teacher grows while the samples improve, and plans with other numbers of calls may become worse. A metric built on ``phi`` is what
was minimised: report another one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isocline._core.errors import InvalidInput, require
from isocline._core.estimate import Budget
from isocline._core.registry import Method
from isocline._core.stream import Stream
from isocline.datasets.images import Shuffled
from isocline.metrics.mmd import Kernel, polynomial_kernel
from isocline.objectives.mmd import mmd_loss
from isocline.plans import Plan
from isocline.plans.runner import unroll
from isocline.processes import Denoiser
from isocline.processes.checkpointed import Checkpointed
from isocline.recipes.fit import Fitted
from isocline.training import Part, Settings, train
from isocline.training.logs import Log

MMD_DDM = Method(
    "mmd-ddm",
    "MMD fine-tuning",
    "Fast Inference in Denoising Diffusion Models via MMD Finetuning",
    "Emanuele Aiello, Diego Valsesia, Enrico Magli",
    2023,
    "2301.07969",
    room="recipes",
    when="A network that shall serve one plan of five to twenty calls; data and a feature network are at hand.",
)


@MMD_DDM.variant()
@dataclass(frozen=True)
class MMDFinetuning:
    """What is compared, and how.

    Args:
        features: maps samples or data (B, *) to (B, k); frozen, differentiable in its input.
        kernel: on features; the polynomial of degree 3 by default, as in the kernel Inception distance.
        checkpoint: make each call again for its gradient, so that memory does not grow with the number of calls.
    """

    features: Callable[[Tensor], Tensor]
    kernel: Kernel = polynomial_kernel()  # noqa: RUF009 - a function
    checkpoint: bool = False

    def fit(
        self,
        network: nn.Module,
        denoiser: Callable[[nn.Module], Denoiser],
        plan: Plan,
        data: Tensor,
        settings: Settings,
        folder: str | Path,
        *,
        budget: Budget | None = None,
        fabric: Any = None,
        logs: Sequence[Log] = (),
    ) -> Fitted:
        """Change the weights of `network` for `plan`.

        Args:
            network: trained already; changed in place.
            denoiser: puts the network to use, for example ``formulation.denoiser``.
            plan: deterministic; its calls are what the network is tuned for.
            data: (N, *).
            settings: length and rates; the paper takes Adam at 5e-6 for large image networks.
            folder: where checkpoints are kept; a run that was stopped continues from there.
            budget: with ``seconds``, a limit on this call.
            fabric: a launched Lightning Fabric. Each device compares its own share of the batch, so use large shares.
            logs: called with the figures of the run.
        """
        if plan.stochastic:
            raise InvalidInput("fine-tuning by MMD needs a deterministic plan; compile one with eta=0")
        require(settings.batch >= 2, f"the MMD needs a batch of at least 2, got {settings.batch}")
        rng, size = Stream(settings.seed, "mmd"), settings.batch
        order = Shuffled(len(data), size, rng.child("order"))

        def batches(step: int, part: Part) -> Tensor:
            return data[order(step)[part.rows(size)]]

        def loss(network: nn.Module, real: Tensor, step: int, part: Part) -> Tensor:
            model = denoiser(network)
            noise = rng.child("start").normal(tuple(real.shape), step=step, first=part.first(size), dtype=real.dtype)
            start = noise.to(real) * plan.process.sigma(plan.times[0]).to(real)
            made = unroll(plan, Checkpointed(model) if self.checkpoint else model, start)[-1]
            with torch.no_grad():
                target = self.features(real)
            return mmd_loss(self.features(made), target, self.kernel)

        trained = train(network, batches, loss, settings, folder, budget=budget, fabric=fabric, logs=logs)
        network.load_state_dict(trained.weights)
        return Fitted(denoiser(network.eval().requires_grad_(False)), trained)
