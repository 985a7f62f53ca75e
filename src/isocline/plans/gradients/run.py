"""What gradient modes are given, and where the tensors are that a denoiser depends on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from isocline._core.stream import Stream
from isocline.plans.plan import Plan
from isocline.plans.recorded import recorded_noise
from isocline.processes import Denoiser


@dataclass(frozen=True)
class Run:
    """A sampling run that shall have gradients; arguments as in `differentiable`."""

    plan: Plan
    denoiser: Denoiser
    x: Tensor
    cond: Any = None
    rng: Stream | int | None = None
    noise: Sequence[Tensor] | None = None
    parameters: Sequence[Tensor] = ()

    def recorded_noise(self) -> Sequence[Tensor] | None:
        """Return one noise a row, those that `Plan.run` would draw; None for a plan without noise."""
        return recorded_noise(self.plan, self.x, self.rng, self.noise)


class PlanGradient(Protocol):
    """One way to have gradients of samples.

    Attributes:
        exact: whether the gradient is that of the discrete sampler, to rounding.
    """

    @property
    def exact(self) -> bool:
        """Whether the gradient is that of the discrete sampler."""
        ...

    def sample(self, run: Run, report: Any) -> Tensor:
        """Return the samples (B, *), with gradients attached; `report` is filled by the backward pass."""
        ...


def parameters_of(denoiser: Denoiser) -> tuple[Tensor, ...]:
    """Return the tensors a denoiser holds that require gradients: parameters of its modules, and tensors of its own.

    Wrapped denoisers are followed. What a plain function closes over is not seen; name it with ``parameters=[...]``.

    Examples:
        >>> import torch
        >>> from isocline.processes import EDM, Data, Guided, wrap
        >>> network = torch.nn.Linear(2, 2)
        >>> inner = wrap(lambda x, t: network(x), EDM(), Data())  # a closure hides its network
        >>> class Net(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.linear = network
        ...     def forward(self, x, t, cond=None):
        ...         return self.linear(x)
        >>> len(parameters_of(inner)), len(parameters_of(Guided(wrap(Net(), EDM(), Data()), 2.0)))
        (0, 2)
    """
    found = {id(tensor): tensor for tensor in _held(denoiser)}
    return tuple(tensor for tensor in found.values() if tensor.requires_grad)


def _held(holder: object) -> Iterator[Tensor]:
    for value in vars(holder).values():
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, nn.Module):
            yield from value.parameters()
        elif isinstance(value, Denoiser):
            yield from _held(value)
