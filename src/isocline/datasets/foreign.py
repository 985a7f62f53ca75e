r"""Cases of others that are read case by case, and what the readers of their files share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isocline._core.errors import BadFile, require
from isocline.datasets.fields import Boundary, DataSpec, FieldSpec
from isocline.datasets.windows import FileSource

Array = np.ndarray[Any, Any]
Lines = Sequence[Tensor]
FRACTIONS = (0.8, 0.1, 0.1)
AXES = ("x", "y", "z")


class ArrayCases:
    """Cases in arrays, or in anything that is read case by case.

    Args:
        spec: what they are.
        read: returns frames of a case, ``(T, *S, C)``.
        times: (T,) or (n, T).
        lines: grid lines, (S_i,) or (n, S_i) each.
        parameters: (n, P).
        place: for messages.
        constants: returns the fields of a case that do not vary, ``(*S, C_const)``; None where there are none.
    """

    def __init__(
        self,
        spec: DataSpec,
        read: Callable[[int, slice], Tensor],
        times: Tensor,
        lines: Lines,
        parameters: Tensor,
        place: str,
        constants: Callable[[int], Tensor] | None = None,
    ) -> None:
        self.spec, self._read, self.times, self.lines, self.place = spec, read, times, lines, place
        self.parameters, self._constants = parameters, constants

    def __len__(self) -> int:
        return len(self.parameters)

    def frames(self, case: int, frames: slice) -> Tensor:
        """Return frames of a case, ``(T, *S, C)`` float32."""
        return self._read(case, frames)

    def constant(self, case: int) -> Tensor:
        """Return constant fields, ``(*S, C_const)`` float32."""
        assert self._constants is not None
        return self._constants(case)

    def points(self, case: int) -> Tensor:
        """Return coordinates, ``(*S, D)`` float64."""
        chosen = [line[case] if line.ndim == 2 else line for line in self.lines]
        return torch.stack(torch.meshgrid(*chosen, indexing="ij"), -1)

    @property
    def by_case(self) -> bool:
        """Whether grids differ between cases."""
        return any(line.ndim == 2 for line in self.lines)

    def clock(self, case: int) -> Tensor:
        """Return times, (T,) float64."""
        return self.times[case] if self.times.ndim == 2 else self.times

    def where(self, case: int) -> str:
        """Return how messages name a case."""
        return f"{self.place}, case {case}"


class Chosen:
    """Some cases of a file, renumbered."""

    def __init__(self, whole: ArrayCases, cases: range) -> None:
        self.whole, self.cases, self.spec = whole, cases, whole.spec
        self.parameters = whole.parameters[cases.start : cases.stop]

    def __len__(self) -> int:
        return len(self.cases)

    def frames(self, case: int, frames: slice) -> Tensor:
        """As in `ArrayCases`."""
        return self.whole.frames(self.cases[case], frames)

    def constant(self, case: int) -> Tensor:
        """As in `ArrayCases`."""
        return self.whole.constant(self.cases[case])

    def points(self, case: int) -> Tensor:
        """As in `ArrayCases`."""
        return self.whole.points(self.cases[case])

    @property
    def by_case(self) -> bool:
        """As in `ArrayCases`."""
        return self.whole.by_case

    def clock(self, case: int) -> Tensor:
        """As in `ArrayCases`."""
        return self.whole.clock(self.cases[case])

    def where(self, case: int) -> str:
        """Return where the case is in its file."""
        return self.whole.where(self.cases[case])


class Foreign(FileSource):
    """Cases of others by split; made by `pdebench`, `pdearena` and `Arrays`."""

    def __init__(self, spec: DataSpec, splits: Mapping[str, Sequence[Chosen]]) -> None:
        self.spec, self._splits = spec, {name: list(files) for name, files in splits.items() if any(map(len, files))}

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that there are."""
        return tuple(self._splits)

    def files(self, split: str) -> list[Chosen]:
        """Return the files of a split."""
        return self._splits[split]


def divided(whole: ArrayCases, fractions: Sequence[float]) -> dict[str, list[Chosen]]:
    """Return the first cases for training, the next for validation, the last for tests."""
    require(
        len(fractions) == 3 and min(fractions) >= 0 and abs(sum(fractions) - 1) < 1e-9,
        f"fractions are those of train, valid and test and make 1, got {tuple(fractions)}",
    )
    n = len(whole)
    ends = [0, round(n * fractions[0]), round(n * (fractions[0] + fractions[1])), n]
    pairs = zip(("train", "valid", "test"), ends[:-1], ends[1:], strict=True)
    return {split: [Chosen(whole, range(a, b))] for split, a, b in pairs}


def described(
    name: str,
    fields: Sequence[FieldSpec],
    lines: Lines,
    times: Tensor,
    boundary: Boundary,
    path: Path,
    space: tuple[int, ...],
) -> DataSpec:
    """Return what a file holds.

    Args:
        name: of the data set.
        fields: what it has.
        lines: grid lines.
        times: of the frames.
        boundary: of all axes.
        path: for messages.
        space: points of the fields along each axis.
    """
    found = tuple(line.shape[-1] for line in lines)
    if found != space:
        raise BadFile(f"{path} has coordinates of {found} points, but fields of {space}")
    low, high = zip(*(_ends(line, boundary == "periodic") for line in lines), strict=True)
    return DataSpec(
        name, tuple(fields), AXES[: len(lines)], low, high, space, (boundary,) * len(lines), len(times), step_of(times)
    )


def _ends(line: Tensor, periodic: bool) -> tuple[float, float]:
    """Return the ends of an axis.

    A periodic one begins at its first point and ends a step after the last. Equidistant points of others are middles of cells, the
    ends of those that are not are the ends of the axis.
    """
    line = line[0] if line.ndim == 2 else line
    steps = line.diff() if len(line) > 1 else torch.zeros(1, dtype=torch.float64)
    step = float(steps[0])
    if not periodic and bool(((steps - step).abs() > 1e-3 * step).any()):
        return float(line[0]), float(line[-1])
    low = float(line[0]) - (0.0 if periodic else step / 2)
    return low, low + step * len(line)


def step_of(times: Tensor) -> float:
    """Return the time between the first two frames; 0 where there is one."""
    clock = times.reshape(-1, times.shape[-1])[0]
    return float(clock[1] - clock[0]) if len(clock) > 1 else 0.0


def wanted(group: Any, name: str, path: str | Path) -> Tensor:
    """Return a part of an HDF5 group, float64."""
    if name not in group:
        raise BadFile(f"{path} has no {name}; it holds {', '.join(group)}")
    return torch.from_numpy(np.array(group[name], "f8"))


def single(value: Array) -> Tensor:
    """Return an array as float32."""
    return torch.from_numpy(np.asarray(value, "f4"))
