r"""Covariance augmentation: new solved samples from old ones by a change of coordinates.

With ``x = X(s)`` and ``J = dX/ds`` the solution of

    m u_t - div(a grad u) + b . grad u + c u = f        becomes, in the coordinates s, that of the same equation with

    a' = |J| J^-1 a J^-T ,   b' = |J| J^-1 b ,   c' = |J| c ,   f' = |J| f ,   m' = |J| m ,   u' = u o X ,

all of them at X(s), read off the grid by cubic interpolation. The maps are random: along a line

    X(s) = s + sum_k c_k sin(2 pi k s) / (2 pi k) + d_k (1 - cos(2 pi k s)) / (2 pi k) ,        sum_k |(c_k, d_k)| = strength < 1 ,

so that ``X' >= 1 - strength`` and both ends stay. In two dimensions each coordinate is a blend of two such maps along the other,
``X_1 = (1 - w(s_2)) A(s_1) + w(s_2) B(s_1)``, so that every side goes to itself and J is a full matrix.

Source: Fanaskov, Yu, Rudikov & Oseledets 2023 (arXiv 2301.12730).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline._core.stream import Stream, as_stream
from isocline.datasets.fields import Batch, DataSpec, FieldSpec, side_by_side, taken_apart

METHOD = Method(
    "covariance-aug",
    "Covariance augmentation",
    "General Covariance Data Augmentation for Neural PDE Solvers",
    "Fanaskov, Yu, Rudikov, Oseledets",
    2023,
    "2301.12730",
    room="datasets",
    when="solved samples of a linear second-order equation are few, and its coefficients are inputs of the model.",
)
TAPS = 4


@METHOD.variant()
@dataclass(frozen=True)
class Covariance:
    """A random change of coordinates for every case of a batch.

    Every field that varies is an unknown u; every constant field needs a role. Diffusion becomes a tensor even where it was a
    scalar, so in two dimensions it must be stored as one: see `with_tensor`.

    Args:
        diffusion: name of the field a.
        advection: name of the field b, a vector.
        reaction: name of the field c.
        source: name of the field f.
        mass: name of the field m; needed where the problem depends on time.
        carried: names of scalar fields that are only moved, as u is.
        strength: how far slopes may leave 1; below 1 along a line, below 0.6 in two dimensions (1/3 with a periodic axis),
            where the map could fold.
        modes: waves in a map.

    Raises:
        InvalidInput: the strength is not in its range, or there are no modes.
    """

    diffusion: str | None = "a"
    advection: str | None = None
    reaction: str | None = None
    source: str | None = None
    mass: str | None = None
    carried: tuple[str, ...] = ()
    strength: float = 0.3
    modes: int = 2

    def __post_init__(self) -> None:
        require(0 < self.strength < 1, f"strength lies between 0 and 1, got {self.strength:g}")
        require(self.modes >= 1, f"a map needs at least one wave, got {self.modes}")

    def __call__(self, batch: Batch, rng: Stream | int) -> Batch:
        """Return the batch in new coordinates, on the same grid.

        Args:
            batch: on a uniform grid in one or two dimensions, without a mask.
            rng: of the maps; one for each case.

        Raises:
            InvalidInput: the batch is of another kind, or a field has no role or another order than its role needs.
        """
        self._require_fits(batch)
        spec, d = batch.spec, len(batch.spec.axes)
        low, size = (torch.tensor(v, dtype=torch.float64) for v in (spec.low, spec.high))
        size = size - low
        unit = (batch.coordinates.detach().double().cpu() - low) / size
        periodic = tuple(kind == "periodic" for kind in spec.boundary)
        stream = as_stream(rng, "covariance")
        places, slopes = random_maps(unit, len(batch), stream, self.strength, self.modes, periodic)
        slopes = slopes * size.unsqueeze(1) / size
        read = _Reader(unit, places, periodic)
        y = None if batch.y is None else read(batch.y)
        constants = batch.constants
        if constants is not None:
            moved = taken_apart(read(constants.unsqueeze(1)).squeeze(1), spec.constant, d)
            changed = self._changed(moved, slopes.to(constants))
            constants = side_by_side(changed, spec.constant, d)
        return replace(batch, x=read(batch.x), y=y, constants=constants)

    def _changed(self, fields: dict[str, Tensor], slopes: Tensor) -> dict[str, Tensor]:
        volume, back = torch.linalg.det(slopes), torch.linalg.inv(slopes)
        changed = {name: fields[name] for name in self.carried}
        for name in (self.reaction, self.source, self.mass):
            if name is not None:
                changed[name] = volume * fields[name]
        if self.advection is not None:
            b = fields[self.advection]
            vector = b if b.ndim == volume.ndim + 1 else b.unsqueeze(-1)
            changed[self.advection] = (volume[..., None] * (back @ vector.unsqueeze(-1)).squeeze(-1)).reshape(b.shape)
        if self.diffusion is not None:
            a = fields[self.diffusion]
            matrix = a if a.ndim == volume.ndim + 2 else a[..., None, None]
            changed[self.diffusion] = (volume[..., None, None] * (back @ matrix @ back.mT)).reshape(a.shape)
        return changed

    def _require_fits(self, batch: Batch) -> None:
        spec, d = batch.spec, len(batch.spec.axes)
        require(
            spec.grid == "cartesian" and d <= 2 and batch.mask is None and batch.coordinates.ndim == d + 1,
            f"{spec.name}: covariance needs one grid for all cases, in one or two dimensions, without a mask",
        )
        limit = 1.0 if d == 1 else 1 / 3 if "periodic" in spec.boundary else 0.6
        require(
            self.strength < limit, f"strength {self.strength:g} could fold the plane here; take less than {limit:.2g}"
        )
        require(
            all(f.order == 0 for f in spec.varying), f"{spec.name}: the unknowns must be scalars; others turn with J"
        )
        require(
            spec.times == 1 or self.mass is not None,
            f"{spec.name} depends on time: name the field that multiplies u_t as `mass` (all ones to begin with)",
        )
        roles = {self.diffusion: 2, self.advection: 1, self.reaction: 0, self.source: 0, self.mass: 0}
        roles |= dict.fromkeys(self.carried, 0)
        known = {f.name: f.order for f in spec.constant}
        for name, order in roles.items():
            if name is None:
                continue
            require(name in known, f"{spec.name} has no constant field {name!r}; it has {', '.join(known) or 'none'}")
            fits = known[name] == order or (d == 1 and order > 0)
            require(fits, f"{name} has order {known[name]}, in its role it needs {order}; see with_tensor")
        idle = sorted(set(known) - {name for name in roles if name is not None})
        require(not idle, f"{spec.name}: say what {', '.join(idle)} is in the equation, or name it in `carried`")


def with_tensor(batch: Batch, name: str) -> Batch:
    """Return the batch with a scalar constant field stored as a tensor, the scalar times the identity.

    A model, and whatever it is compared with, then sees all D^2 entries, with and without augmentation.

    Raises:
        InvalidInput: there is no such scalar field.
    """
    spec, d = batch.spec, len(batch.spec.axes)
    known = {f.name: f for f in spec.constant}
    require(name in known and known[name].order == 0, f"{spec.name} has no constant scalar field {name!r}")
    assert batch.constants is not None
    fields = taken_apart(batch.constants, spec.constant, d)
    fields[name] = fields[name][..., None, None] * torch.eye(d).to(batch.constants)
    changed = _with_order(spec, name)
    return replace(batch, spec=changed, constants=side_by_side(fields, changed.constant, d))


def random_maps(
    unit: Tensor, n: int, rng: Stream, strength: float, modes: int, periodic: tuple[bool, ...]
) -> tuple[Tensor, Tensor]:
    """Return n random maps of the unit interval or square to itself, at places ``(*S, D)``, and their slopes.

    Args:
        unit: places, float64.
        n: number of maps.
        rng: of the coefficients.
        strength: sum of their sizes.
        modes: waves.
        periodic: of each axis; blends are then periodic along it.

    Returns:
        X ``(n, *S, D)`` and J ``(n, *S, D, D)``, the row for the component of X.
    """
    d = unit.shape[-1]
    parts = [_line(unit[..., i], n, rng.child(i), strength, modes) for i in range(d)]
    if d == 1:
        return parts[0][0][..., None], parts[0][1][..., None, None]
    places, slopes = [], []
    for i in (0, 1):
        (value, slope), j = parts[i], 1 - i
        other, other_slope = _line(unit[..., i], n, rng.child(f"other/{i}"), strength, modes)
        w, dw = _blend(unit[..., j], periodic[j])
        places.append((1 - w) * value + w * other)
        row = [(1 - w) * slope + w * other_slope, dw * (other - value)]
        slopes.append(torch.stack(row if i == 0 else row[::-1], -1))
    return torch.stack(places, -1), torch.stack(slopes, -2)


def _line(s: Tensor, n: int, rng: Stream, strength: float, modes: int) -> tuple[Tensor, Tensor]:
    """Return values and slopes ``(n, *S)`` of n monotone maps of (0, 1) at places ``(*S)``."""
    c, d = rng.normal((n, 2, modes), dtype=torch.float64).unbind(1)
    scale = strength / torch.hypot(c, d).sum(1, keepdim=True)
    value, slope = s.expand(n, *s.shape), torch.ones(n, *s.shape, dtype=torch.float64)
    for k in range(1, modes + 1):
        wave = 2 * math.pi * k
        ck, dk = ((part * scale)[:, k - 1].reshape(-1, *[1] * s.ndim) for part in (c, d))
        value = value + (ck * torch.sin(wave * s) + dk * (1 - torch.cos(wave * s))) / wave
        slope = slope + ck * torch.cos(wave * s) + dk * torch.sin(wave * s)
    return value, slope


def _blend(s: Tensor, periodic: bool) -> tuple[Tensor, Tensor]:
    """Return the weight of the second map along the other axis, and its slope."""
    if periodic:
        return (1 - torch.cos(2 * math.pi * s)) / 2, math.pi * torch.sin(2 * math.pi * s)
    return s, torch.ones_like(s)


class _Reader:
    """Cubic interpolation of fields ``(B, T, *S, C)`` at places ``(B, *S, D)``: Lagrange's, four points along an axis.

    At the sides the four points are the last ones, so that values half a cell beyond the first point are extrapolated.
    """

    def __init__(self, unit: Tensor, places: Tensor, periodic: tuple[bool, ...]) -> None:
        self.taps: list[tuple[Tensor, Tensor]] = []
        for i, wraps in enumerate(periodic):
            line = unit[..., i].transpose(0, i).reshape(unit.shape[i], -1)[:, 0]
            n, step = len(line), float(line[1] - line[0])
            require(n >= TAPS, f"cubic interpolation needs {TAPS} points along each axis, got {n}")
            require(bool(torch.allclose(line.diff(), line.diff()[:1])), "covariance needs a uniform grid")
            at = (places[..., i] - line[0]) / step
            first = at.floor() - 1
            first = first if wraps else first.clamp(0, n - TAPS)
            index = first.long().unsqueeze(-1) + torch.arange(TAPS)
            self.taps.append((index % n, _lagrange((at - first).unsqueeze(-1))))

    def __call__(self, fields: Tensor) -> Tensor:
        """Return the fields at the places, ``(B, T, *S, C)``."""
        device, source = fields.device, fields.movedim(1, -2)  # (B, *S, T, C)
        case = torch.arange(len(fields), device=device).reshape(-1, *[1] * len(self.taps))
        total = torch.zeros_like(source)
        for chosen in itertools.product(range(TAPS), repeat=len(self.taps)):
            pairs = [(index[..., k], weight[..., k]) for (index, weight), k in zip(self.taps, chosen, strict=True)]
            places = [index.to(device) for index, _ in pairs]
            weight = torch.stack([w for _, w in pairs]).prod(0)[..., None, None].to(fields)
            total = total + weight * source[(case, *places)]
        return total.movedim(-2, 1)


def _lagrange(t: Tensor) -> Tensor:
    """Return weights (..., 4) of values at 0, 1, 2, 3 for the place t (..., 1)."""
    parts = []
    for k in range(TAPS):
        others = [m for m in range(TAPS) if m != k]
        parts.append(math.prod(((t - m) / (k - m) for m in others), start=torch.ones_like(t)))
    return torch.cat(parts, -1)


def _with_order(spec: DataSpec, name: str) -> DataSpec:
    def changed(field: FieldSpec) -> FieldSpec:
        return replace(field, order=2) if field.name == name else field

    return replace(spec, fields=tuple(changed(field) for field in spec.fields))
