r"""Windows of cases as batches: what files of every kind share.

Training draws windows by the number of the update, so that it can go on from any update to the same bits:
``source.draw(step, ...)`` depends on nothing but its arguments.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, NotFinite, nearest, require
from isocline._core.stream import Stream
from isocline.datasets.fields import Batch, DataSpec, Window

MASK = "mask"  # a constant scalar of this name says where the fields are defined


class Rows(Protocol):
    """A share of a batch, as `isocline.training.Part`."""

    def rows(self, batch: int) -> slice:
        """Return the samples of the share."""


class CaseFile(Protocol):
    """Cases that can be read in any order."""

    spec: DataSpec

    def __len__(self) -> int: ...

    def frames(self, case: int, frames: slice) -> Tensor:
        """Return frames of a case, ``(T, *S, C)`` float32; on points (N, T, C)."""

    def constant(self, case: int) -> Tensor:
        """Return constant fields, ``(*S, C_const)`` float32; on points (N, C_const)."""

    def points(self, case: int) -> Tensor:
        """Return coordinates, ``(*S, D)`` float64; on points (N, D)."""

    @property
    def by_case(self) -> bool:
        """Whether grids differ between cases."""

    def clock(self, case: int) -> Tensor:
        """Return times, (T,) float64."""

    @property
    def parameters(self) -> Tensor:
        """Parameters of all cases, (n, P) float64."""

    def where(self, case: int) -> str:
        """Return how messages name a case."""


class FileSource(ABC):
    """Windows of stored cases; `spec` says what they hold.

    ``len`` is the number of training cases. Fields, parameters and coordinates of batches are float32, times are float64.
    A constant scalar field named ``mask`` is given as `Batch.mask` too.
    """

    spec: DataSpec

    @abstractmethod
    def files(self, split: str) -> Sequence[CaseFile]:
        """Return the files of a split."""

    @property
    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that there are."""

    def __len__(self) -> int:
        return self.cases("train") if "train" in self.splits else 0

    def cases(self, split: str) -> int:
        """Return how many cases a split has.

        Raises:
            InvalidInput: there is no such split.
        """
        if split not in self.splits:
            raise InvalidInput(f"{self.spec.name} has no split {split!r}. {nearest(split, self.splits)}")
        return sum(len(file) for file in self.files(split))

    def times(self, split: str) -> int:
        """Return how many frames the cases of a split have."""
        self.cases(split)
        return self.files(split)[0].spec.times

    def batch(self, indices: Sequence[int], starts: Sequence[int], window: Window, split: str = "train") -> Batch:
        """Return windows.

        Args:
            indices: the case of each, counted within the split.
            starts: its first frame.
            window: which frames are given and predicted.
            split: ``"train"``, ``"valid"`` or ``"test"``.

        Raises:
            InvalidInput: a case or a frame lies outside.
            NotFinite: a value is NaN or infinite; the text names the file, the case, the frame and the field.
        """
        n, times = self.cases(split), self.times(split)
        require(len(indices) == len(starts) >= 1, f"{len(indices)} cases, but {len(starts)} first frames")
        require(
            all(0 <= i < n for i in indices), f"{self.spec.name}: {split} has the cases 0 ... {n - 1}, got {indices}"
        )
        last = max(starts) + window.frames
        require(
            min(starts) >= 0 and last <= times,
            f"{self.spec.name}: a window of {window.frames} frames from frame {max(starts)} on does not fit into {times} frames",
        )
        files = self.files(split)
        ends = [0, *accumulate(len(file) for file in files)]
        places = [bisect_right(ends, i) - 1 for i in indices]
        found = [(files[k], i - ends[k], s) for k, i, s in zip(places, indices, starts, strict=True)]
        return gathered(self.spec, found, window)

    def starts(self, window: Window, split: str) -> int:
        """Return how many first frames a window can have.

        Raises:
            InvalidInput: the window is longer than a case.
        """
        times = self.times(split)
        room = times - window.frames + 1
        require(room >= 1, f"{self.spec.name}: a window of {window.frames} frames does not fit into {times} frames")
        return room

    def batches(
        self, window: Window, batch_size: int, split: str = "train", rng: Stream | None = None
    ) -> Iterator[Batch]:
        """Go through the cases of a split once.

        Without `rng` they come in order, each from its first frame on; with it in random order, from random frames on.
        """
        n, room = self.cases(split), self.starts(window, split)
        require(batch_size >= 1, f"a batch needs at least one window, got {batch_size}")
        order = list(range(n)) if rng is None else rng.child("order").permutation(n).tolist()
        first = [0] * n if rng is None else rng.child("starts").integers(room, (n,)).tolist()
        for k in range(0, n, batch_size):
            yield self.batch(order[k : k + batch_size], first[k : k + batch_size], window, split)

    def draw(
        self, step: int, window: Window, batch_size: int, split: str, rng: Stream, part: Rows | None = None
    ) -> Batch:
        """Return the windows of an update, or a share of them: cases and first frames are uniform and independent.

        Args:
            step: number of the update.
            window: which frames are given and predicted.
            batch_size: windows in the whole update.
            split: of which cases.
            rng: the same `rng` and `step` give the same windows.
            part: the share; all of them without it.
        """
        rows = slice(0, batch_size) if part is None else part.rows(batch_size)
        cases = rng.child("cases").integers(self.cases(split), (batch_size,), step=step)[rows]
        starts = rng.child("starts").integers(self.starts(window, split), (batch_size,), step=step)[rows]
        return self.batch(cases.tolist(), starts.tolist(), window, split)


def gathered(spec: DataSpec, places: Sequence[tuple[CaseFile, int, int]], window: Window) -> Batch:
    """Return windows of (file, case, first frame) as one batch."""
    ragged = spec.grid == "points"
    parts, clocks = [], []
    for file, case, start in places:
        chosen = slice(start, start + window.frames, window.stride)
        parts.append(file.frames(case, chosen))
        clocks.append(file.clock(case)[chosen])
    frames = torch.cat(parts) if ragged else torch.stack(parts)
    if not _finite(frames):
        for part, (file, case, start) in zip(parts, places, strict=True):
            _require_finite(part, file, case, slice(start, None, window.stride), 1 if ragged else 0)
    clock = torch.stack(clocks).to(torch.float64)
    lengths = torch.tensor([0] + [len(part) for part in parts])
    coordinates, constants = _surroundings(spec, places, ragged)
    return Batch(
        spec,
        frames[:, : window.past],
        frames[:, window.past :],
        clock[:, window.past :],
        clock[:, 1] - clock[:, 0]
        if clock.shape[1] > 1
        else torch.full((len(places),), spec.dt * window.stride).double(),
        torch.stack([file.parameters[case] for file, case, _ in places]).float(),
        coordinates.float(),
        constants,
        lengths.cumsum(0) if ragged else None,
        None if constants is None else _mask(spec, constants),
    )


def _surroundings(
    spec: DataSpec, places: Sequence[tuple[CaseFile, int, int]], ragged: bool
) -> tuple[Tensor, Tensor | None]:
    join = torch.cat if ragged else torch.stack
    if ragged or any(file.by_case for file, _, _ in places):
        coordinates = join([file.points(case) for file, case, _ in places])
    else:
        coordinates = places[0][0].points(places[0][1])
    if not spec.constant:
        return coordinates, None
    constants = [file.constant(case) for file, case, _ in places]
    found = join(constants)
    if not _finite(found):
        for part, (file, case, _) in zip(constants, places, strict=True):
            _require_finite(part, file, case, None, None)
    return coordinates, found


def _mask(spec: DataSpec, constants: Tensor) -> Tensor | None:
    d, at = len(spec.axes), 0
    for f in spec.constant:
        if f.name == MASK and f.order == 0:
            return constants[..., at] > 0.5
        at += f.channels(d)
    return None


def _finite(values: Tensor) -> bool:
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())  # the sum is cheap, but it can overflow


def _require_finite(values: Tensor, file: CaseFile, case: int, chosen: slice | None, time: int | None) -> None:
    if _finite(values):
        return
    spec = file.spec
    fields = spec.varying if chosen is not None else spec.constant
    bad = (~torch.isfinite(values)).nonzero()[0]
    names = [f.name for f in fields for _ in range(f.channels(len(spec.axes)))]
    frame = (
        "" if chosen is None or time is None else f", frame {(chosen.start or 0) + int(bad[time]) * (chosen.step or 1)}"
    )
    raise NotFinite(
        f"{file.where(case)}{frame}: {names[int(bad[-1])]} is NaN or infinite; leave this case out or write it again"
    )
