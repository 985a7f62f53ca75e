r"""Controlled differential equations (Kidger, Morrill, Foster and Lyons, arXiv 2005.08926).

A path X: R -> R^C drives a state through a field that is a matrix,

    dy = f(t, y) dX         that is         dy/dt = f(t, y) X'(t) = sum_c f_c(t, y) X_c'(t)

It is the continuous recurrent network: new data change the state by the increment of the path that was made of them, at whatever
times they come. Where X has no channel of time, the solution does not depend on how fast the path is run through.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from isocline._core.errors import InvalidInput
from isocline._core.registry import Method
from isocline.integrators.controls.base import ControlPath
from isocline.integrators.terms import Binding, Field

METHOD = Method(
    "neural-cde",
    "Neural controlled differential equation",
    "Neural Controlled Differential Equations for Irregular Time Series",
    "Kidger, Morrill, Foster, Lyons",
    2020,
    "2005.08926",
    room="integrators",
    when="Irregular series, with gaps, as the input of a model in continuous time.",
)


@METHOD.variant()
@dataclass(frozen=True)
class CDE:
    """The controlled differential equation ``dy = f(t, y) dX``.

    Every method for one vector field integrates it. Steps should end where the pieces of the path meet, and must where its
    derivative jumps: ``controller=path.clip(PID(1e-5, 1e-7))``. Outside of its span the path stands still, and so does
    the state. Gradients reach the data through the path: the field must not see the tensor that the data were computed
    from (an error says so). Source: Kidger, Morrill, Foster and Lyons, arXiv 2005.08926.

    Args:
        field: ``f(t, y)``, or ``f(t, y, args)`` where `integrate` is given arguments; returns the structure of ``y``, each
            tensor with one more last axis of size C.
        path: drives the state. Its batch axes (*), where it has any, are the first axes of every tensor in ``y``; a
            single path drives all samples.

    Examples:
        >>> import torch
        >>> from isocline.integrators import PID, HermitePath, integrate
        >>> path = HermitePath(torch.linspace(0, 1, 9), torch.linspace(0, 1, 9)[:, None] ** 2)
        >>> growth = CDE(lambda t, y: y[..., None], path)  # dy = y dX, so that y = exp(X)
        >>> y1 = integrate(growth, torch.ones(1), path.start, path.end, controller=path.clip(PID(1e-5, 1e-7))).y1
        >>> round(float(y1), 4)
        2.7183
    """

    field: Field
    path: ControlPath
    binding: Binding = field(default_factory=Binding, repr=False, compare=False)

    def vf(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the packed derivative ``f(t, y) X'(t)`` at packed `y`; counts as one evaluation."""
        return self.binding.call(self._driven, t, y)

    def _driven(self, t: Tensor, y: Any, *args: Any) -> Any:
        slope = self.path.derivative(time_of(t, self.path), self.binding.rows)
        batch = len(self.path.batch)
        return pytree.tree_map(lambda f, x: contracted(f, x, slope, batch), self.field(t, y, *args), y)

    def functions(self) -> tuple[Any, ...]:
        """Return the field and the coefficients of the path, which carry gradients to the data."""
        return self.field, self.path.coefficients


def time_of(t: Tensor, path: ControlPath) -> Tensor:
    """Return the times of samples, (B, 1, ..., 1) as fields see them, in the shape that `path` is asked with."""
    return t.reshape(-1, *[1] * max(len(path.batch), 1)) if t.ndim else t


def contracted(f: Tensor, y: Tensor, slope: Tensor, batch: int) -> Tensor:
    """Return ``sum_c f_c slope_c`` of the shape of `y`.

    Args:
        f: what a field returned, (*y.shape, C).
        y: one tensor of the state.
        slope: derivative of the path, (*, C), (B, C) where samples have times of their own, or (C,).
        batch: number of batch axes of the path.
    """
    channels = slope.shape[-1]
    if f.shape != (*y.shape, channels):
        raise InvalidInput(
            f"the field returned shape {tuple(f.shape)} for a state of shape {tuple(y.shape)} and a path of {channels} "
            f"channels; expected {(*y.shape, channels)}"
        )
    lead = slope.shape[:-1]
    if batch and y.shape[:batch] != lead:
        raise InvalidInput(
            f"the path has batch axes {tuple(lead)}, which the state of shape {tuple(y.shape)} must begin with"
        )
    return (f * slope.reshape(*lead, *[1] * (y.ndim - len(lead)), channels)).sum(-1)
