r"""The log-ODE method for controlled differential equations (Morrill, Salvi, Kidger, Foster and Lyons, arXiv 2009.08295).

Over a window [a, b] the equation dy = f(y) dX is replaced by one without control, whose flow over the window is nearly the same,

    dy/dt = (1 / (b - a)) sum_w L_w [f]_w(y) ,        L the log-signature of X over the window, cut off at some depth

where [f]_w is the Lie bracket of the fields f_1, ..., f_C that belongs to the basis element w. So long series need one short solve
for each window instead of a step for each observation.

Brackets need not be written out. Read f_i as the operator g -> Dg [f_i]; a Lie series is the same operator whether it is written in
brackets or in tensors, sum_i L^1_i f_i + sum_ij L^2_ij f_i f_j + ..., and applied to the identity it is

    sum_i L^1_i f_i(y) + sum_i D( sum_j L^2_ij f_j + sum_j D( sum_k L^3_ijk f_k ) [f_j] )(y) [f_i(y)]

(second derivatives of flows cancel, as L is a Lie series): C directional derivatives at depth 2, and C + C^2 at depth 3.

Depth N leaves out what the log-signature has beyond N: over one window, N + 1 powers of the size of the path. Over windows of
length h on a smooth path the error is O(h^2) at depth 1 and O(h^4) at depths 2 and 3, as the logarithm of a smooth flow is odd in h
about the middle of the window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, require
from isocline._core.registry import Method
from isocline.integrators.cde import contracted, time_of
from isocline.integrators.controllers.base import Controller
from isocline.integrators.controllers.clip import Clip
from isocline.integrators.controls.base import ControlPath
from isocline.integrators.controls.linear import LinearPath
from isocline.integrators.logsignature import lyndon_coordinates, signature, tensor_log
from isocline.integrators.solvers.forward import along
from isocline.integrators.terms import Binding, Field

METHOD = Method(
    "log-ode",
    "Log-ODE method, neural rough differential equations",
    "Neural Rough Differential Equations for Long Time Series",
    "Morrill, Salvi, Kidger, Foster, Lyons",
    2021,
    "2009.08295",
    room="integrators",
    when="CDEs on long series: one short solve for each window of many observations.",
)


@dataclass(frozen=True, eq=False)
class LogSignatures:
    """Log-signatures of data over windows; made by `LogSignatures.of`.

    Args:
        tensors: the path whose increment over a window is its log-signature as a tensor series, C + C^2 + ... channels.
        channels: number of channels C of the data.
        depth: 1, 2 or 3.
    """

    tensors: ControlPath
    channels: int
    depth: int

    @classmethod
    def of(cls, times: Tensor, values: Tensor, edges: Tensor, depth: int) -> LogSignatures:
        """Return the log-signatures of the straight lines through the data; gradients reach `values`.

        Args:
            times: (T,), shared by all samples, or (*, T) with NaN at the end of shorter samples; strictly increasing.
            values: (*, T, C), NaN where nothing was observed; usually with time as channel 0, see `with_time`.
            edges: (W + 1,) times between which the W windows lie, increasing; they need not be observation times. Where a
                sample has not begun or has ended the log-signature is 0.
            depth: 1, 2 or 3.

        Raises:
            InvalidInput: as `LinearPath`; edges do not increase, or the depth is not one of these.
        """
        path = LinearPath(times, values)
        edges = torch.as_tensor(edges).detach().to(path.pieces)
        require(edges.ndim == 1 and len(edges) > 1, f"edges must have shape (W + 1,), got {tuple(edges.shape)}")
        require(bool((edges.diff() > 0).all()), "the edges of the windows must be finite and increase strictly")
        levels = tensor_log(signature(_by_window(path, edges), depth))
        batch = len(path.batch)
        flat = torch.cat([x.flatten(batch + 1) for x in levels], -1)
        return cls(_summed(edges, flat), path.channels, depth)

    @property
    def path(self) -> ControlPath:
        """The path of a neural rough differential equation: its increment over a window is the log-signature in the Lyndon basis.

        ``CDE(field, signatures.path)`` with a field that returns ``(*y.shape, signatures.path.channels)``.
        """
        rates = lyndon_coordinates(self.split(self.tensors.coefficients[..., 1, :]))
        edges = self.tensors.pieces
        return _summed(edges, rates * edges.diff()[:, None].to(rates))

    def clip(self, inner: Controller) -> Clip:
        """Return the controller with steps that end at the edges of windows and start afresh behind them."""
        return self.tensors.clip(inner)

    @property
    def start(self) -> Tensor:
        """First edge, ()."""
        return self.tensors.start

    @property
    def end(self) -> Tensor:
        """Last edge, ()."""
        return self.tensors.end

    def split(self, flat: Tensor) -> tuple[Tensor, ...]:
        """Return the levels (*, C), (*, C, C), ... of series (*, C + C^2 + ...)."""
        parts = flat.split([self.channels**k for k in range(1, self.depth + 1)], -1)
        return tuple(x.reshape(*x.shape[:-1], *[self.channels] * (k + 1)) for k, x in enumerate(parts))


def _summed(edges: Tensor, increments: Tensor) -> ControlPath:
    """Return the path with given increments (*, W, n) between the edges, from 0."""
    rates = increments / edges.diff()[:, None].to(increments)
    begin = increments.cumsum(-2) - increments
    return ControlPath(edges, torch.stack([begin, rates], -2), edges[-1], smooth=False)


def _by_window(path: ControlPath, edges: Tensor) -> Tensor:
    """Return the corners of the path in each window, (*, W, L, C); the last one is repeated where a window has fewer."""
    batch = path.batch
    knots = torch.cat([path.pieces, edges.expand(*path.pieces.shape[:-1], -1)], -1).sort(-1).values
    n = knots.shape[-1]
    times = knots.movedim(-1, 0).reshape(n, *(batch if knots.ndim > 1 else [1] * len(batch)), 1)
    points = path.evaluate(times).movedim(0, -2)
    first = torch.searchsorted(knots, edges.expand(*knots.shape[:-1], -1).contiguous())
    longest = int(first.diff(dim=-1).max())
    steps = torch.arange(longest + 1, device=knots.device)
    index = torch.minimum(first[..., :-1, None] + steps, first[..., 1:, None])
    flat = index.flatten(-2).expand(*batch, -1)
    found = points.gather(-2, flat[..., None].expand(*flat.shape, path.channels))
    return found.reshape(*batch, *index.shape[-2:], path.channels)


@METHOD.variant()
@dataclass(frozen=True)
class LogODE:
    """The log-ODE of a controlled differential equation ``dy = f(y) dX``: brackets of the given field, no new ones to be learned.

    Every method for one vector field integrates it; steps must not look across the edges of windows:
    ``controller=signatures.clip(PID(1e-5, 1e-7))``. The state is one tensor. The field must be differentiable in
    forward mode and allow `torch.func.vmap`. Its derivative with respect to time is left out: where it depends on time,
    make time a part of the state. An evaluation counts as one, and costs C directional derivatives at depth 2, C + C^2
    at depth 3. Source: Morrill, Salvi, Kidger, Foster and Lyons, arXiv 2009.08295; for its form with a learned field of
    the log-signature see `LogSignatures.path`.

    Args:
        field: ``f(t, y)``, or ``f(t, y, args)`` where `integrate` is given arguments; returns ``(*y.shape, C)``.
        signatures: of the data over windows; its batch axes are the first axes of ``y``.

    Examples:
        >>> import torch
        >>> from isocline.integrators import RK4, integrate
        >>> corner = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
        >>> window = LogSignatures.of(torch.arange(3.0), corner, torch.tensor([0.0, 2.0]), depth=2)
        >>> def area(t, y):  # dy_1 = dX_1, dy_2 = y_1 dX_2
        ...     one, zero = torch.ones_like(y[0]), torch.zeros_like(y[0])
        ...     return torch.stack([torch.stack([one, zero]), torch.stack([zero, y[0]])])
        >>> integrate(LogODE(area, window), torch.zeros(2), 0.0, 2.0, method=RK4(), dt0=1.0).y1
        tensor([1., 1.])
    """

    field: Field
    signatures: LogSignatures
    binding: Binding = field(default_factory=Binding, repr=False, compare=False)

    def vf(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the right-hand side at `y`; counts as one evaluation."""
        return self.binding.call(self._driven, t, y)

    def _driven(self, t: Tensor, y: Any, *args: Any) -> Tensor:
        if not isinstance(y, Tensor):
            raise InvalidInput("LogODE integrates a state that is one tensor; join its parts with torch.cat")
        tensors = self.signatures.tensors
        rates = tensors.derivative(time_of(t, tensors), self.binding.rows)
        return _applied(lambda z: self.field(t, z, *args), self.signatures.split(rates), y, len(tensors.batch))

    def functions(self) -> tuple[Any, ...]:
        """Return the field and the log-signatures, which carry gradients to the data."""
        return self.field, self.signatures.tensors.coefficients


def _applied(f: Callable[[Tensor], Tensor], levels: tuple[Tensor, ...], y: Tensor, batch: int) -> Tensor:
    """Return a Lie series of fields, applied to the identity at `y`; levels (*, C), (*, C, C), ..."""
    fields = f(y)
    total = contracted(fields, y, levels[0], batch)
    if len(levels) == 1:
        return total
    lead = levels[0].ndim - 1

    def further(direction: Tensor, *deeper: Tensor) -> Tensor:
        return along(lambda z: _applied(f, deeper, z, batch), y, direction)

    rest = [x.movedim(lead, 0) for x in levels[1:]]
    return total + torch.func.vmap(further)(fields.movedim(-1, 0), *rest).sum(0)
