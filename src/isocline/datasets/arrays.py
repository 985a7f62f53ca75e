r"""Cases in memory as a source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.datasets.fields import Boundary, DataSpec, FieldSpec, ParameterSpec
from isocline.datasets.foreign import AXES, FRACTIONS, ArrayCases, Foreign, Lines, divided, step_of


class Arrays(Foreign):
    """Cases in memory.

    Args:
        values: fields that vary, by name: ``(n, T, *S)``, ``(n, T, *S, D)`` or ``(n, T, *S, D, D)``.
        low: lower end of each axis.
        high: upper end of each axis.
        dt: time between frames.
        times: (T,) or (n, T) in its place.
        parameters: by name, (n,).
        constants: fields that do not vary, by name.
        boundary: of every axis.
        orders: of fields that are no scalars, by name: 1 for a vector, 2 for a tensor.
        coordinates: grid lines, where points do not lie as in `Simulator.coordinates`.
        fractions: which part of the cases is ``train``, ``valid`` and ``test``, in this order.
        name: of the data set.

    Raises:
        InvalidInput: shapes do not fit together.

    Examples:
        >>> source = Arrays({"u": torch.randn(10, 5, 16)}, low=(0.0,), high=(1.0,), dt=0.1)
        >>> source.cases("train"), source.spec.resolution
        (8, (16,))
    """

    def __init__(
        self,
        values: Mapping[str, Tensor],
        low: Sequence[float],
        high: Sequence[float],
        *,
        dt: float = 1.0,
        times: Tensor | None = None,
        parameters: Mapping[str, Tensor] | None = None,
        constants: Mapping[str, Tensor] | None = None,
        boundary: Boundary = "periodic",
        orders: Mapping[str, int] | None = None,
        coordinates: Lines | None = None,
        fractions: Sequence[float] = FRACTIONS,
        name: str = "arrays",
    ) -> None:
        d, orders = len(low), dict(orders or {})
        require(bool(values) and 1 <= d == len(high), f"{name}: give fields, and low and high of every axis")
        first, value = next(iter(values.items()))
        shape = tuple(value.shape)
        require(len(shape) >= d + 2, f"{name}: {first} has shape {shape}; cases, frames and {d} axes are needed")
        n, t, *space = shape[: d + 2]
        resolution = tuple(space)
        for kind, still in ((values, False), (constants or {}, True)):
            for key, value in kind.items():
                want = (n, *(() if still else (t,)), *resolution, *(d,) * orders.get(key, 0))
                got = tuple(value.shape)
                require(got == want, f"{name}: {key} has shape {got}; beside {first} it should be {want}")
        given = {k: torch.as_tensor(v).to(torch.float64) for k, v in (parameters or {}).items()}
        require(all(v.shape == (n,) for v in given.values()), f"{name}: parameters need shape ({n},) each")
        clock = dt * torch.arange(t, dtype=torch.float64) if times is None else times.to(torch.float64)
        require(tuple(clock.shape) in ((t,), (n, t)), f"{name}: times need shape ({t},) or ({n}, {t})")
        fields = [FieldSpec(k, orders.get(k, 0)) for k in values]
        fields += [FieldSpec(k, orders.get(k, 0), varies=False) for k in constants or {}]
        spec = DataSpec(
            name,
            tuple(fields),
            AXES[:d],
            tuple(low),
            tuple(high),
            resolution,
            (boundary,) * d,
            t,
            step_of(clock),
            tuple(ParameterSpec(k, float(v.min()), float(v.max())) for k, v in given.items()),
        )
        lines = [x.to(torch.float64) for x in coordinates] if coordinates is not None else _regular(spec)
        parts = [_flat(values[f.name], f) for f in spec.varying]
        rest = [_flat(constants[f.name], f) for f in spec.constant] if constants else []
        whole = ArrayCases(
            spec,
            lambda case, frames: torch.cat([p[case, frames] for p in parts], -1).float(),
            clock,
            lines,
            torch.stack(list(given.values()), 1) if given else torch.zeros(n, 0),
            name,
            (lambda case: torch.cat([p[case] for p in rest], -1).float()) if rest else None,
        )
        super().__init__(spec, divided(whole, fractions))


def _regular(spec: DataSpec) -> list[Tensor]:
    shift = [0.0 if kind == "periodic" else 0.5 for kind in spec.boundary]
    ends = zip(spec.low, spec.high, spec.resolution, shift, strict=True)
    return [low + (high - low) * (torch.arange(n, dtype=torch.float64) + s) / n for low, high, n, s in ends]


def _flat(value: Tensor, f: FieldSpec) -> Tensor:
    return value.flatten(-f.order) if f.order else value.unsqueeze(-1)
