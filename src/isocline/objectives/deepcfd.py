r"""The loss of DeepCFD (Ribeiro, Rehman, Ahmed, Dengel, arXiv 2004.08826): squares for velocities, absolute values for pressure.

    sum over samples and points of   sum_i (u_i - u_i*)^2 / s_i  +  |p - p*| / s_p

with s the root mean square of each channel over the training set. The official code (mdribeiro/DeepCFD) adds the channels before
it divides, so that broadcasting gives every channel the same factor ``sum_c 1 / s_c``; here each has its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from isocline._core.errors import require


@dataclass(frozen=True, eq=False)
class FlowLoss:
    """Squared differences of velocities and absolute differences of pressure, each over the size of its channel.

    Args:
        scale: s, (C,), above zero; the last channel is the pressure.

    Raises:
        InvalidInput: scales that are not above zero, or, when called, fields of another shape.

    `per_case` is what operators train on: ``fit(..., objective=FlowLoss.of(fields).per_case)``.

    Source: arXiv 2004.08826.

    Examples:
        >>> import torch
        >>> truth = torch.tensor([[[1.0], [2.0], [4.0]]])
        >>> loss = FlowLoss(torch.tensor([1.0, 2.0, 4.0]))
        >>> loss(truth + 2, truth)  # 4 / 1 + 4 / 2 + 2 / 4
        tensor(6.5000)
    """

    scale: Tensor

    def __post_init__(self) -> None:
        require(
            self.scale.ndim == 1 and len(self.scale) >= 1 and bool((self.scale > 0).all()),
            f"the scales of the channels must be (C,) and above zero, got {self.scale.tolist()}",
        )

    @classmethod
    def of(cls, fields: Tensor) -> FlowLoss:
        """Return the loss for a training set ``(B, C, *S)``, scaled by its root mean squares."""
        return cls(fields.square().movedim(1, 0).flatten(1).mean(1).sqrt())

    def __call__(self, predicted: Tensor, truth: Tensor) -> Tensor:
        """Return the loss, a scalar, of fields ``(B, C, *S)``."""
        same = predicted.shape == truth.shape and predicted.shape[1] == len(self.scale)
        channels, shapes = len(self.scale), f"{tuple(predicted.shape)} and {tuple(truth.shape)}"
        require(same, f"fields and truth must be of one shape with {channels} channels, got {shapes}")
        gap = (predicted - truth).movedim(1, 0).flatten(1)
        each = [*gap[:-1].square().sum(1), gap[-1].abs().sum()]
        return sum((part / s for part, s in zip(each, self.scale, strict=True)), gap.new_zeros(()))

    def per_case(self, predicted: Tensor, truth: Tensor) -> Tensor:
        """Return the mean over points, (B,), of frames ``(B, T, *S, C)``: a `isocline.objectives.fields.FieldObjective`.

        Raises:
            InvalidInput: frames of another shape.
        """
        same = predicted.shape == truth.shape and predicted.shape[-1] == len(self.scale)
        channels, shapes = len(self.scale), f"{tuple(predicted.shape)} and {tuple(truth.shape)}"
        require(same, f"frames and truth must be of one shape with {channels} channels at the end, got {shapes}")
        gap = (predicted - truth).flatten(1, -2)
        each = torch.cat([gap[..., :-1].square(), gap[..., -1:].abs()], -1)
        return (each / self.scale).sum(-1).mean(1)
