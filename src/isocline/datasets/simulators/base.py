r"""A simulator: cases drawn from a prior, and the frames of their solution, batched.

The same code fills a file and feeds a stream. What a case is depends on the seed and its number alone, so a data set can be made
in any order and in any number of processes, and test cases are those of another stream.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.stream import Stream, as_stream
from isocline.datasets.fields import DataSpec, Frame
from isocline.equations.spec import EquationSpec


@dataclass(frozen=True)
class Cases:
    """Cases of a simulator, numbered from `first`.

    Args:
        rng: the stream that initial fields and coefficients are drawn from, with ``first=cases.first``.
        first: number of the first case.
        parameters: by name, (n,) float64.
    """

    rng: Stream
    first: int
    parameters: dict[str, Tensor]
    n: int

    def __len__(self) -> int:
        return self.n

    def normal(self, shape: Sequence[int], name: str) -> Tensor:
        """Return standard normal numbers ``(n, *shape)`` in float64 for the purpose `name`."""
        return self.rng.child(name).normal((self.n, *shape), first=self.first, dtype=torch.float64)

    def uniform(self, shape: Sequence[int], name: str) -> Tensor:
        """Return numbers uniform in (0, 1), ``(n, *shape)`` float64, for the purpose `name`."""
        return self.rng.child(name).uniform((self.n, *shape), first=self.first, dtype=torch.float64)


class Simulator(ABC):
    """Cases and their solutions.

    A subclass is a frozen dataclass of its settings; it gives `spec`, `equation` and `simulate`.
    """

    equation: ClassVar[EquationSpec]

    @property
    @abstractmethod
    def spec(self) -> DataSpec:
        """What its data hold."""

    @abstractmethod
    def simulate(self, cases: Cases, *, resolution: Sequence[int] | None = None) -> Iterator[Frame]:
        """Yield ``spec.times`` frames in float64, on the grid of `resolution` (that of ``spec`` without it).

        The case, its initial field included, is the same at every resolution: what is drawn does not depend on the grid.
        """

    def sample(self, n: int, rng: Stream | int, first: int = 0) -> Cases:
        """Return the cases numbered first ... first + n - 1."""
        require(n >= 1, f"at least one case is simulated, got {n}")
        stream = as_stream(rng, self.spec.name)
        prior = self.spec.parameters
        u = stream.child("parameters").uniform((n, max(len(prior), 1)), first=first, dtype=torch.float64)
        return Cases(stream, first, {p.name: p.of(u[:, i]) for i, p in enumerate(prior)}, n)

    def coordinates(self, cases: Cases, resolution: Sequence[int]) -> Tensor:
        """Return the points of the grid, ``(*S, D)``, or ``(n, *S, D)`` where they differ between cases.

        Periodic axes begin at their lower end; others have their points in the middle of cells. A simulator with another grid
        says so.
        """
        lines = []
        for low, high, n, kind in zip(self.spec.low, self.spec.high, resolution, self.spec.boundary, strict=True):
            offset = 0.0 if kind == "periodic" else 0.5
            lines.append(low + (high - low) * (torch.arange(n, dtype=torch.float64) + offset) / n)
        return torch.stack(torch.meshgrid(*lines, indexing="ij"), -1)

    def constants(self, cases: Cases, *, resolution: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Return the fields that do not vary, by name, ``(n, *S)`` or ``(n, *S, D)`` float64; none by default."""
        return {}
