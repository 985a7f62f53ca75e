r"""How well frames satisfy their equation, on the grid.

Derivatives in space are those of the trigonometric interpolant on periodic axes and central differences of second order on
others; in time they are central differences, so frames ``1 ... T - 2`` have a residual, or, for equations of first order in time,
differences at the middles between frames, where fields are means of two frames. It is a diagnostic and, being made of
differentiable operations, an objective too (Li et al., arXiv 2111.03794). It has the discretisation's own error: compare with that
of the true frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.datasets.fields import Batch
from isocline.derivatives.spec import Index
from isocline.equations.spec import EquationSpec


def grid_residual(equation: EquationSpec, frames: Tensor, batch: Batch, *, between: bool = False) -> Tensor:
    """Return the residual of every equation, ``(B, T - 2, *S, equations)``, or with one time more `between` frames.

    Args:
        equation: its fields are scalars, or components of vectors, named as in the data: ``velocity`` has ``velocity_x``, ... .
        frames: ``(B, T, *S, C)``, with constant time steps.
        batch: where they come from: names, coordinates, parameters, time step. Its ``t`` is that of the first frame.
        between: whether residuals are those at the middles between frames. They determine all frames after the first, as central
            differences do not; only for first derivatives in time.

    Raises:
        InvalidInput: too few frames, a field or parameter that the data do not have, scattered points, a second derivative in time
            between frames.
    """
    require(batch.offsets is None, "a residual on the grid needs a grid")
    least = 2 if between else 3
    require(equation.steady or frames.shape[1] >= least, f"a residual needs {least} frames, got {frames.shape[1]}")
    d = len(batch.spec.axes)
    values = _components(frames, batch)
    missing = [name for name in equation.fields if name not in values]
    require(not missing, f"{equation.name} is about {', '.join(missing)}, which the data do not have")
    names = [p.name for p in batch.spec.parameters]
    lost = [name for name in equation.parameters if name not in names]
    require(not lost, f"{equation.name} has the parameter {', '.join(lost)}, which the data do not have")
    at_frames = slice(None) if equation.steady else slice(1, -1)
    halves = between and not equation.steady
    periods = _periods(batch, d)

    def read(name: str, index: Index) -> Tensor:
        u, times = values[name], sum(1 for axis in index if axis == d)
        most = 1 if halves else 2
        require(times <= most, f"{name} is asked for derivative {times} in time; this residual has at most {most}")
        u = _halfway(u, times, batch.dt) if halves else _in_time(u, times, batch.dt)[:, at_frames]
        for axis in (axis for axis in index if axis != d):
            u = _in_space(u, axis + 2, periods[axis], batch.spec.boundary[axis] == "periodic")
        return u

    ones = (1,) * d
    p = {name: batch.parameters[:, i].reshape(-1, 1, *ones) for i, name in enumerate(names)}
    own = batch.coordinates.ndim == d + 2
    q = {axis: batch.coordinates[..., i].unsqueeze(1 if own else 0) for i, axis in enumerate(batch.spec.axes)}
    q = {axis: value if own else value.unsqueeze(0) for axis, value in q.items()}
    steps = torch.arange(frames.shape[1], dtype=batch.t.dtype, device=frames.device)
    steps = steps[:-1] + 0.5 if halves else steps[at_frames]
    t = (batch.t[:, :1] + batch.dt[:, None] * steps).to(frames.dtype).reshape(len(batch), -1, *ones)
    found = equation.values(read, {**q, "t": t}, p)
    shape = (len(frames), len(steps), *frames.shape[2:-1])
    return torch.stack([row.expand(shape) for row in found], -1)


def _components(frames: Tensor, batch: Batch) -> dict[str, Tensor]:
    """Return scalar fields by name, and the components of vectors and tensors as ``name_x``, ``name_xy``."""
    found: dict[str, Tensor] = {}
    axes = batch.spec.axes
    constant = [] if batch.constants is None else [(batch.constants.unsqueeze(1), batch.spec.constant)]
    for channels, fields in [(frames, batch.spec.varying), *constant]:
        names = [f.name + suffix for f in fields for suffix in suffixes(f.order, axes)]
        found |= dict(zip(names, channels.unbind(-1), strict=True))
    return found


def suffixes(order: int, axes: Sequence[str]) -> list[str]:
    """Return what the components of a scalar, vector or tensor are called after its name.

    >>> suffixes(0, "xy"), suffixes(1, "xy"), suffixes(2, "xy")
    ([''], ['_x', '_y'], ['_xx', '_xy', '_yx', '_yy'])
    """
    return [f"_{''.join(names)}" if names else "" for names in product(axes, repeat=order)]


def _periods(batch: Batch, d: int) -> list[Tensor]:
    """Return the length of each axis as the grid covers it, (B or 1, 1, ...)."""
    q, own = batch.coordinates, batch.coordinates.ndim == d + 2
    found = []
    for axis in range(d):
        line = q[..., axis] if own else q[..., axis].unsqueeze(0)
        n = line.shape[axis + 1]
        span = line.flatten(1).amax(1) - line.flatten(1).amin(1)
        found.append((span * n / (n - 1)).reshape(-1, *[1] * (d + 1)))
    return found


def _in_space(u: Tensor, axis: int, length: Tensor, periodic: bool) -> Tensor:
    n = u.shape[axis]
    if not periodic:
        return torch.gradient(u, dim=axis)[0] * n / length.to(u.dtype)
    k = torch.arange(n // 2 + 1, device=u.device, dtype=u.dtype)
    if n % 2 == 0:
        k = torch.cat([k[:-1], k.new_zeros(1)])  # the highest wave of an even grid has no sign
    factor = 2 * torch.pi * 1j * k.reshape(-1, *[1] * (u.ndim - axis - 1))
    return torch.fft.irfft(torch.fft.rfft(u, dim=axis) * factor, n=n, dim=axis) / length.to(u.dtype)


def _in_time(u: Tensor, order: int, dt: Tensor) -> Tensor:
    """Return central differences; the first and last frame are not meant to be used."""
    h = dt.to(u.dtype).reshape(-1, *[1] * (u.ndim - 1))
    if order == 0:
        return u
    before, after = u.roll(1, 1), u.roll(-1, 1)
    return (after - before) / (2 * h) if order == 1 else (after - 2 * u + before) / h**2


def _halfway(u: Tensor, order: int, dt: Tensor) -> Tensor:
    """Return means of neighbouring frames, or their difference quotients."""
    if order == 0:
        return 0.5 * (u[:, 1:] + u[:, :-1])
    return u.diff(dim=1) / dt.to(u.dtype).reshape(-1, *[1] * (u.ndim - 1))


def drift(invariant: Sequence[float] | Tensor) -> Tensor:
    """Return how far quantities (B, T) that should stay have moved, relative to their first values: (B, T)."""
    values = torch.as_tensor(invariant)
    return (values - values[:, :1]) / values[:, :1].abs().clamp(min=torch.finfo(values.dtype).tiny)
