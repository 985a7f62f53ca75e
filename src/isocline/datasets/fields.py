r"""What fields are called and how they lie in memory: `FieldSpec`, `DataSpec`, `Window`, `Batch`.

On a grid of axes S a scalar field of B cases at T times is an array ``(B, T, *S)``, a vector field ``(B, T, *S, D)``. Models,
losses and metrics see all of them side by side as channels, ``(B, T, *S, C)``, in the order of ``DataSpec.fields``: a scalar is one
channel, a vector D, a tensor D^2. On scattered points S is one axis of N points, ragged between cases, so cases lie one after the
other, ``(sum N, T, C)``, and `Batch.offsets` says where each begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from isocline._core.errors import BadFile, Mismatch, require

Boundary = Literal["periodic", "wall", "open"]


@dataclass(frozen=True)
class FieldSpec:
    """A quantity.

    Args:
        name: as in files.
        order: 0 for a scalar, 1 for a vector, 2 for a tensor.
        units: shown on axes; "" where there are none.
        varies: whether it depends on time; a coefficient or a geometry does not.

    Examples:
        >>> FieldSpec("velocity", order=1).channels(2)
        2
    """

    name: str
    order: int = 0
    units: str = ""
    varies: bool = True

    def __post_init__(self) -> None:
        require(self.name.isidentifier(), f"a field's name must be an identifier, got {self.name!r}")
        require(self.order in (0, 1, 2), f"a field's order is 0, 1 or 2, got {self.order}")

    def channels(self, d: int) -> int:
        """Return how many numbers it has at a point of d dimensions."""
        return int(d**self.order)


@dataclass(frozen=True)
class ParameterSpec:
    """A number that differs between cases, and the range it is drawn from.

    Args:
        name: as in files.
        low: lower end.
        high: upper end; the same as `low` for a constant.
        log: whether its logarithm is uniform.
    """

    name: str
    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        require(self.low <= self.high, f"{self.name}: low {self.low:g} lies above high {self.high:g}")
        require(not self.log or self.low > 0, f"{self.name} is drawn by its logarithm, so low must be positive")

    def of(self, u: Tensor) -> Tensor:
        """Return values for numbers in (0, 1)."""
        if self.log:
            return self.low * (self.high / self.low) ** u
        return self.low + (self.high - self.low) * u


@dataclass(frozen=True)
class DataSpec:
    """What a data set holds.

    Args:
        name: of the data set.
        fields: in the order of their channels; those that vary in time first.
        axes: names of the coordinates of space.
        low: lower end of each axis.
        high: upper end of each axis.
        resolution: points along each axis, as stored.
        boundary: of each axis.
        times: how many frames a case has.
        dt: time between frames; 0 for a steady problem.
        parameters: what differs between cases.
        grid: ``"cartesian"``, or ``"points"`` for scattered points and meshes.

    Raises:
        InvalidInput: the parts do not fit together.
    """

    name: str
    fields: tuple[FieldSpec, ...]
    axes: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    resolution: tuple[int, ...]
    boundary: tuple[Boundary, ...]
    times: int
    dt: float
    parameters: tuple[ParameterSpec, ...] = ()
    grid: Literal["cartesian", "points"] = "cartesian"

    def __post_init__(self) -> None:
        d = len(self.axes)
        sizes = {len(self.low), len(self.high), len(self.boundary)}
        require(sizes == {d} and d >= 1, f"{self.name}: axes, low, high and boundary differ in length")
        require(self.grid == "points" or len(self.resolution) == d, f"{self.name}: resolution needs {d} numbers")
        names = [f.name for f in self.fields]
        require(len(set(names)) == len(names) >= 1, f"{self.name}: fields need different names, got {names}")
        varies = [f.varies for f in self.fields]
        require(varies == sorted(varies, reverse=True), f"{self.name}: fields that vary in time come first")
        require(any(varies), f"{self.name}: no field varies; give what is to be predicted `varies=True`")
        require(self.times >= 1 and self.dt >= 0, f"{self.name}: times must be at least 1, dt at least 0")

    @property
    def varying(self) -> tuple[FieldSpec, ...]:
        """The fields that depend on time, or, in a steady problem, those to be predicted."""
        return tuple(f for f in self.fields if f.varies)

    @property
    def constant(self) -> tuple[FieldSpec, ...]:
        """The fields that do not."""
        return tuple(f for f in self.fields if not f.varies)

    @property
    def channels(self) -> int:
        """Channels of the fields that vary."""
        return sum(f.channels(len(self.axes)) for f in self.varying)

    @property
    def constants(self) -> int:
        """Channels of the fields that do not."""
        return sum(f.channels(len(self.axes)) for f in self.constant)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data for a file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> DataSpec:
        """Return what `as_dict` stored.

        Raises:
            BadFile: it is something else.
        """
        try:
            lists = {name: tuple(stored[name]) for name in ("axes", "low", "high", "resolution", "boundary")}
            fields_ = tuple(FieldSpec(**f) for f in stored["fields"])
            parameters = tuple(ParameterSpec(**p) for p in stored["parameters"])
            return cls(**{**stored, **lists, "fields": fields_, "parameters": parameters})
        except (KeyError, TypeError) as error:
            raise BadFile(f"this is no description of a data set: {error}") from error

    def at(self, resolution: tuple[int, ...]) -> DataSpec:
        """Return the same data set on another grid."""
        return replace(self, resolution=tuple(resolution))

    def require_same_fields(self, other: DataSpec) -> None:
        """Refuse data with other fields, or the same in another order.

        Raises:
            Mismatch: names both.
        """
        mine, theirs = ([(f.name, f.order, f.varies) for f in s.fields] for s in (self, other))
        if mine != theirs:
            raise Mismatch(
                f"{self.name} has the fields {_listed(self)}, but {other.name} has {_listed(other)}; "
                "use data with the same fields in the same order, or train again"
            )
        if [p.name for p in self.parameters] != [p.name for p in other.parameters] or self.axes != other.axes:
            raise Mismatch(
                f"{self.name} has axes {self.axes} and parameters {tuple(p.name for p in self.parameters)}, "
                f"{other.name} has {other.axes} and {tuple(p.name for p in other.parameters)}"
            )


def _listed(spec: DataSpec) -> str:
    return ", ".join(f.name + ("" if f.varies else " (constant)") for f in spec.fields)


@dataclass(frozen=True)
class Window:
    """Which frames a model is given and which it is to predict.

    Args:
        past: frames given; 0 in a steady problem.
        future: frames to predict.
        stride: frames between neighbouring ones of the window.

    Examples:
        >>> Window(past=1, future=5).frames, Window(2, 1, stride=3).frames
        (6, 7)
    """

    past: int = 1
    future: int = 1
    stride: int = 1

    def __post_init__(self) -> None:
        require(self.past >= 0 and self.future >= 1 and self.stride >= 1, f"a window needs future >= 1, got {self}")

    @property
    def frames(self) -> int:
        """Stored frames that it spans."""
        return (self.past + self.future - 1) * self.stride + 1


@dataclass(frozen=True)
class Batch:
    """Windows of several cases: all that models, losses, transforms and metrics see.

    Args:
        spec: what the channels are.
        x: past frames, ``(B, T_in, *S, C)``; on points (sum N, T_in, C).
        y: frames to predict, ``(B, T_out, *S, C)``; None where they are not known.
        t: times of `y`, (B, T_out) float64.
        dt: time between frames of the window, (B,) float64.
        parameters: (B, P), in the order of ``spec.parameters``.
        coordinates: ``(*S, D)``, the same for all cases, ``(B, *S, D)``, or (sum N, D).
        constants: fields that do not vary, ``(B, *S, C_const)`` or (sum N, C_const); None where there are none.
        offsets: on points, (B + 1,), where each case begins.
        mask: ``(*S)`` or ``(B, *S)``, true where the fields are defined; None for everywhere.
    """

    spec: DataSpec
    x: Tensor
    y: Tensor | None
    t: Tensor
    dt: Tensor
    parameters: Tensor
    coordinates: Tensor
    constants: Tensor | None = None
    offsets: Tensor | None = None
    mask: Tensor | None = None

    def __len__(self) -> int:
        return len(self.dt)

    @property
    def past(self) -> int:
        """Frames given."""
        return self.x.shape[1]

    @property
    def target(self) -> Tensor:
        """What is to be predicted.

        Raises:
            InvalidInput: it is not known.
        """
        require(self.y is not None, "this batch has no frames to compare with")
        assert self.y is not None
        return self.y

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Batch:
        """Return the batch with its fields on a device and in a precision; times stay in float64."""

        def moved(value: Tensor | None) -> Tensor | None:
            if value is None or not value.is_floating_point():
                return None if value is None else value.to(device=device)
            return value.to(device=device, dtype=dtype)

        names = ("x", "y", "parameters", "coordinates", "constants", "offsets", "mask")
        changed: dict[str, Any] = {name: moved(getattr(self, name)) for name in names}
        return replace(self, **changed, t=self.t.to(device=device), dt=self.dt.to(device=device))


@dataclass(frozen=True)
class Frame:
    """All fields of several cases at one time, as a simulator yields them.

    Args:
        t: (n,) float64.
        fields: by name, ``(n, *S)`` for a scalar and ``(n, *S, D)`` for a vector, float64; only fields that vary.
    """

    t: Tensor
    fields: Mapping[str, Tensor] = field(default_factory=dict)

    def channels(self, spec: DataSpec) -> Tensor:
        """Return the fields side by side, ``(n, *S, C)``."""
        return side_by_side(self.fields, spec.varying, len(spec.axes))


def side_by_side(fields: Mapping[str, Tensor], wanted: tuple[FieldSpec, ...], d: int) -> Tensor:
    """Return the wanted fields as channels, ``(n, *S, C)``, of fields ``(n, *S)`` or ``(n, *S, D)``."""
    parts = [fields[f.name].unsqueeze(-1) if f.order == 0 else fields[f.name].flatten(-f.order) for f in wanted]
    return torch.cat(parts, -1)


def taken_apart(channels: Tensor, wanted: tuple[FieldSpec, ...], d: int) -> dict[str, Tensor]:
    """Return fields by name from channels (..., C): the inverse of `side_by_side`."""
    parts = channels.split([f.channels(d) for f in wanted], -1)
    shaped = (p.unflatten(-1, (d,) * f.order) if f.order else p.squeeze(-1) for p, f in zip(parts, wanted, strict=True))
    return {f.name: part for f, part in zip(wanted, shaped, strict=True)}
