r"""Cases of a simulator as they are computed, frame by frame, and such cases in memory as a source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from isocline._core.errors import NotFinite, require
from isocline._core.stream import Stream, as_stream
from isocline.datasets.fields import DataSpec, Frame, side_by_side
from isocline.datasets.simulators.base import Cases, Simulator
from isocline.datasets.windows import FileSource


@dataclass
class Case:
    """One case, of which more and more frames are there.

    Args:
        spec: what its channels are.
        number: of the case in its stream.
        parameters: (1, P) float64.
        grid: coordinates, ``(*S, D)`` float64.
        by_case: whether grids differ between cases.
        still: constant fields, ``(*S, C_const)`` float32; None where there are none.
        times: of the frames that are there.
        values: the frames, ``(*S, C)`` float32.
    """

    spec: DataSpec
    number: int
    parameters: Tensor
    grid: Tensor
    by_case: bool
    still: Tensor | None
    times: list[float] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    _clock: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64), repr=False)

    def __len__(self) -> int:
        return 1

    def add(self, t: float, values: Tensor) -> None:
        """Take in the next frame.

        Raises:
            NotFinite: a value is NaN or infinite; names the case, the frame and the field.
        """
        if not bool(values.sum().isfinite()) and not bool(values.isfinite().all()):
            names = [f.name for f in self.spec.varying for _ in range(f.channels(len(self.spec.axes)))]
            bad = names[int((~values.isfinite()).nonzero()[0, -1])]
            frame = len(self.values)
            raise NotFinite(f"{self.where(0)}, frame {frame}: {bad} is NaN or infinite; narrow the range of parameters")
        self.times.append(t)
        self.values.append(values)

    def part(self, start: int, end: int) -> Case:
        """Return the case with the frames start ... end - 1 only, which it shares."""
        about = (self.spec, self.number, self.parameters, self.grid, self.by_case, self.still)
        return Case(*about, self.times[start:end], self.values[start:end])

    def frames(self, case: int, frames: slice) -> Tensor:
        """Return frames, ``(T, *S, C)``; on points (N, T, C)."""
        return torch.stack(self.values[frames], 1 if self.spec.grid == "points" else 0)

    def constant(self, case: int) -> Tensor:
        """Return constant fields, ``(*S, C_const)``."""
        assert self.still is not None
        return self.still

    def points(self, case: int) -> Tensor:
        """Return coordinates, ``(*S, D)``."""
        return self.grid

    def clock(self, case: int) -> Tensor:
        """Return the times of the frames that are there, (T,)."""
        if len(self._clock) != len(self.times):
            self._clock = torch.tensor(self.times, dtype=torch.float64)
        return self._clock

    def where(self, case: int) -> str:
        """Return how messages name it."""
        return f"{self.spec.name}: simulated case {self.number}"


def begun(simulator: Simulator, cases: Cases) -> list[Case]:
    """Return cases without frames."""
    spec = simulator.spec
    grid, still = simulator.coordinates(cases, spec.resolution), simulator.constants(cases)
    fields = side_by_side(still, spec.constant, len(spec.axes)).float() if spec.constant else None
    names = [p.name for p in spec.parameters]
    numbers = [cases.parameters[name] for name in names]
    parameters = torch.stack(numbers, 1) if names else torch.zeros(len(cases), 0, dtype=torch.float64)
    own = grid.ndim == len(spec.resolution) + 2 if spec.grid == "cartesian" else grid.ndim == 3
    found = []
    for k in range(len(cases)):
        constant = None if fields is None else fields[k]
        place = grid[k] if own else grid
        found.append(Case(spec, cases.first + k, parameters[k : k + 1], place, own, constant))
    return found


def simulated_frames(simulator: Simulator, cases: Cases) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield times (n,) float64 and channels ``(n, *S, C)`` float32."""
    for frame in simulator.simulate(cases):
        yield _times(frame, len(cases)), frame.channels(simulator.spec).float()


def _times(frame: Frame, n: int) -> Tensor:
    return frame.t.to(torch.float64).expand(n)


class Simulated(FileSource):
    """Cases simulated when they are first asked for, and kept in memory.

    Splits are drawn from streams of their own, the same as those of `generate`: case k of a split is case k of its files.

    Args:
        simulator: what is simulated.
        cases: how many of each split, by name.
        rng: a seed.
        batch: cases simulated together.
    """

    def __init__(self, simulator: Simulator, cases: Mapping[str, int], rng: Stream | int = 0, batch: int = 32) -> None:
        require(batch >= 1, f"batch must be at least 1, got {batch}")
        self.spec, self.simulator, self.rng, self.batch_size = simulator.spec, simulator, as_stream(rng), batch
        self._wanted = {split: n for split, n in cases.items() if n}
        self._found: dict[str, list[Case]] = {}

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that there are."""
        return tuple(self._wanted)

    def files(self, split: str) -> Sequence[Case]:
        """Return the cases of a split."""
        if split not in self._found:
            n, stream = self._wanted[split], self.rng.child(split)
            shards = [(k, min(self.batch_size, n - k)) for k in range(0, n, self.batch_size)]
            self._found[split] = [
                c for first, m in shards for c in self._shard(self.simulator.sample(m, stream, first))
            ]
        return self._found[split]

    def _shard(self, cases: Cases) -> list[Case]:
        found = begun(self.simulator, cases)
        for times, values in simulated_frames(self.simulator, cases):
            for case, t, value in zip(found, times.tolist(), values, strict=True):
                case.add(t, value)
        return found
