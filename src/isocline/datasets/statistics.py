r"""Running means and spreads of fields and of their differences in time: the numbers of ``stats.yaml``.

Batches are merged by the update of Chan, Golub and LeVeque (1983),

    M <- M + M' + (m' - m)^2 n n' / (n + n') ,    m <- m + (m' - m) n' / (n + n') ,

with n values of mean m and sum of squared deviations M; std = sqrt(M / n), rms = sqrt(std^2 + m^2). All of it in float64.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.files import write_text
from isocline.datasets.fields import DataSpec, FieldSpec


class Moments:
    """Count, mean and spread of channels, as values come in.

    Examples:
        >>> m = Moments()
        >>> m.add(torch.tensor([[1.0], [3.0]]))
        >>> float(m.mean), float(m.std), round(float(m.rms), 4)
        (2.0, 1.0, 2.2361)
    """

    def __init__(self) -> None:
        self.n = 0
        self.mean = self.deviations = torch.zeros(0, dtype=torch.float64)

    def add(self, x: Tensor) -> None:
        """Take in values (..., C)."""
        x = x.detach().to(torch.float64).flatten(0, -2)
        if len(x):
            found = Moments()
            found.n, found.mean = len(x), x.mean(0)
            found.deviations = (x - found.mean).square().sum(0)
            self.merge(found)

    def merge(self, other: Moments) -> None:
        """Take in what another one has seen."""
        if not other.n or not self.n:
            if other.n:
                self.n, self.mean, self.deviations = other.n, other.mean.clone(), other.deviations.clone()
            return
        total, gap = self.n + other.n, other.mean - self.mean
        self.deviations = self.deviations + other.deviations + gap.square() * (self.n * other.n / total)
        self.mean = self.mean + gap * (other.n / total)
        self.n = total

    @property
    def std(self) -> Tensor:
        """Standard deviation, (C,)."""
        return (self.deviations / max(self.n, 1)).sqrt()

    @property
    def rms(self) -> Tensor:
        """Root of the mean square, (C,)."""
        return (self.std.square() + self.mean.square()).sqrt()


@dataclass
class Statistics:
    """Of all fields of a data set.

    Args:
        spec: what the channels are.
        values: of the fields that vary.
        differences: of the same between neighbouring frames.
        constants: of the fields that do not vary.
        frozen: whether more data change nothing, so that a training keeps one normalisation.
    """

    spec: DataSpec
    values: Moments = field(default_factory=Moments)
    differences: Moments = field(default_factory=Moments)
    constants: Moments = field(default_factory=Moments)
    frozen: bool = False

    def add(self, frames: Tensor, constants: Tensor | None = None, *, time: int = 1) -> None:
        """Take in frames ``(B, T, *S, C)``, or (sum N, T, C) on points, and constants (..., C_const).

        Args:
            frames: of fields that vary.
            constants: of those that do not.
            time: the axis of time.
        """
        if self.frozen:
            return
        self.values.add(frames)
        self.differences.add(frames.to(torch.float64).diff(dim=time))
        if constants is not None:
            self.constants.add(constants)

    def merge(self, other: Statistics) -> None:
        """Take in what another one has seen."""
        if not self.frozen:
            self.values.merge(other.values)
            self.differences.merge(other.differences)
            self.constants.merge(other.constants)

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Return numbers by kind and field: one for a scalar, D for a vector, D by D for a tensor."""
        require(self.values.n > 0, f"{self.spec.name}: no data to take means of")
        found = {}
        for kind in ("mean", "std", "rms"):
            found[kind] = self._named(getattr(self.values, kind), self.spec.varying)
            if self.constants.n:
                found[kind] |= self._named(getattr(self.constants, kind), self.spec.constant)
        if self.differences.n:
            for kind in ("mean", "std", "rms"):
                found[f"{kind}_delta"] = self._named(getattr(self.differences, kind), self.spec.varying)
        return found

    def _named(self, channels: Tensor, fields: tuple[FieldSpec, ...]) -> dict[str, Any]:
        d = len(self.spec.axes)
        parts = channels.split([f.channels(d) for f in fields])
        return {f.name: part.reshape((d,) * f.order).tolist() for f, part in zip(fields, parts, strict=True)}

    def write(self, path: str | Path) -> Path:
        """Write ``stats.yaml`` as The Well's normalisation reads it, atomically."""
        return write_text(path, "\n".join(_yaml(self.as_dict())) + "\n")


def _yaml(found: dict[str, dict[str, Any]]) -> list[str]:
    lines = []
    for kind in sorted(found):
        lines.append(f"{kind}:")
        lines += [f"  {name}: {_number(value)}" for name, value in found[kind].items()]
    return lines


def _number(value: Any) -> str:
    """Return a number that YAML 1.1 reads as one (it wants a point and a signed exponent), or a list of them."""
    return f"[{', '.join(_number(v) for v in value)}]" if isinstance(value, list) else f"{value:.9E}"
