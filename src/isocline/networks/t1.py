r"""Transform Once: one cosine transform in, all layers on the spectrum, one transform out (Poli et al., arXiv 2211.14453).

    z = T(P x) ,      z <- z + M_2 M_1 sin(C_k z) ,      y = T^{-1} Q z

T is the orthonormal discrete cosine transform, of which m coefficients an axis are kept; it is real, and by Parseval distances on
the spectrum are those on the grid. C_k mixes the channels of every coefficient by a matrix of its own, ``M_j`` mixes the
coefficients along one axis by a matrix for each channel, and Q is two layers at every coefficient. The mixing matrices start near
zero, so that a block starts as the identity, and C_k with the variance that keeps the size of functions on the grid,
``N / (2 m_1 ... m_d C)`` for N points: a transform of truncated white noise would otherwise lose what was cut.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from isocline._core.errors import require
from isocline._core.registry import Method

METHOD = Method(
    "t1",
    "Transform Once",
    "Transform Once: Efficient Operator Learning in Frequency Domain",
    "Poli, Massaroli, Berto, Park, Dao, Ré, Ermon",
    2022,
    "2211.14453",
    room="networks",
    when="Operators on regular grids where transforms dominate the cost: one there and one back, however deep the network.",
)
SMALL = 1e-8  # standard deviation that mixing matrices and the last layer start with


@METHOD.variant()
class T1(nn.Module):
    """Maps functions on a grid to functions on the same grid, by layers on their cosine coefficients.

    Args:
        inputs: channels of the input function.
        outputs: channels of the output function.
        modes: m, coefficients kept along each axis; 1 to 3 numbers.
        width: channels inside.
        depth: number of blocks.
        grid: points along each axis that the start is scaled for; the network takes any grid of at least `modes` points.

    Source: arXiv 2211.14453.

    Examples:
        >>> T1(1, 1, (8,), (64,), width=16)(torch.zeros(2, 1, 64)).shape
        torch.Size([2, 1, 64])
    """

    def __init__(
        self, inputs: int, outputs: int, modes: Sequence[int], grid: Sequence[int], *, width: int = 32, depth: int = 4
    ) -> None:
        super().__init__()
        self.modes = tuple(modes)
        require(1 <= len(self.modes) <= 3, f"T1 has 1 to 3 axes of space, got {len(self.modes)}")
        require(
            len(grid) == len(self.modes), f"the grid {tuple(grid)} does not have the {len(self.modes)} axes of modes"
        )
        require(
            min(inputs, outputs, width, depth, *self.modes) >= 1,
            "T1 needs channels, width, depth and modes of at least 1",
        )
        axes = len(self.modes)
        self.lift = nn.Linear(inputs + axes, width)
        gain = (math.prod(grid) / (2 * math.prod(self.modes) * width)) ** 0.5
        self.blocks = nn.ModuleList(SpectrumBlock(width, self.modes, gain) for _ in range(depth))
        self.head = nn.Sequential(nn.Linear(width, width), Sine(), nn.Linear(width, outputs))
        nn.init.normal_(self.head[-1].weight, std=SMALL)  # type: ignore[arg-type]
        nn.init.zeros_(self.head[-1].bias)  # type: ignore[arg-type]
        self.points = math.prod(grid)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, outputs, *S)`` for x ``(B, inputs, *S)``."""
        grid = x.shape[2:]
        return from_spectrum(self.spectrum(x) * self._size(grid), grid)

    def spectrum(self, x: Tensor) -> Tensor:
        """Return the coefficients of the output on the grid of the start, ``(B, outputs, *modes)``.

        On that grid they may be compared with `to_spectrum` of the truth instead of the values themselves.
        """
        grid = x.shape[2:]
        enough = len(grid) == len(self.modes) and all(n >= m for n, m in zip(grid, self.modes, strict=True))
        require(enough, f"a grid {tuple(grid)} does not hold the coefficients {self.modes}")
        lifted = self.lift(_with_places(x).movedim(1, -1)).movedim(-1, 1)
        z = to_spectrum(lifted, self.modes) / self._size(grid)
        for block in self.blocks:
            z = block(z)
        found: Tensor = self.head(z.movedim(1, -1)).movedim(-1, 1)
        return found

    def _size(self, grid: Sequence[int]) -> float:
        """Return how many times larger the coefficients of one function are on this grid than on that of the start."""
        return (math.prod(grid) / self.points) ** 0.5


class Sine(nn.Module):
    """``sin``."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the sine."""
        return torch.sin(x)


class SpectrumBlock(nn.Module):
    """``z + M_d ... M_1 sin(C_k z)`` on coefficients ``(B, width, *modes)``.

    Args:
        width: channels.
        modes: coefficients an axis.
        gain: standard deviation that the channel matrices start with.
    """

    def __init__(self, width: int, modes: Sequence[int], gain: float) -> None:
        super().__init__()
        count = math.prod(modes)
        self.modes = tuple(modes)
        self.channels = nn.Parameter(gain * torch.randn(count, width, width))
        self.mixing = nn.ParameterList(SMALL * torch.randn(width, m, m) for m in modes)

    def forward(self, z: Tensor) -> Tensor:
        """Return coefficients ``(B, width, *modes)``."""
        flat = z.flatten(2).permute(2, 0, 1)
        h = torch.sin(torch.bmm(flat, self.channels)).permute(1, 2, 0).unflatten(2, self.modes)
        for axis, matrix in enumerate(self.mixing):
            h = _mixed(h, matrix, axis + 2)
        return z + h


def _mixed(h: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Return h ``(B, C, *modes)`` with one axis multiplied by a matrix (m, m) for each channel."""
    moved = h.movedim(axis, -1)
    shape = moved.shape
    found = torch.matmul(moved.reshape(*shape[:2], -1, shape[-1]), matrix)
    return found.reshape(shape).movedim(-1, axis)


def to_spectrum(x: Tensor, modes: Sequence[int]) -> Tensor:
    """Return the first cosine coefficients along each axis of x ``(B, C, *S)``, orthonormal: ``(B, C, *modes)``."""
    for axis, m in enumerate(modes, start=2):
        x = _applied(cosines(x.shape[axis], m, x.dtype, x.device), x, axis)
    return x


def from_spectrum(z: Tensor, grid: Sequence[int]) -> Tensor:
    """Return the function ``(B, C, *grid)`` with coefficients z ``(B, C, *modes)`` and no others.

    Coefficients belong to a grid: on n points a function has ``sqrt(n)`` times those of its values on one.
    """
    for axis, n in enumerate(grid, start=2):
        z = _applied(cosines(n, z.shape[axis], z.dtype, z.device).T, z, axis)
    return z


def _applied(matrix: Tensor, x: Tensor, axis: int) -> Tensor:
    return (x.movedim(axis, -1) @ matrix.T).movedim(-1, axis)


@lru_cache(64)
def cosines(n: int, m: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the first m rows of the orthonormal cosine transform (DCT-II) of n points, (m, n)."""
    k, x = torch.arange(m, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64) + 0.5
    rows = torch.cos(math.pi * k * x / n) * (2 / n) ** 0.5
    rows[0] /= 2**0.5
    return rows.to(device, dtype)


def _with_places(x: Tensor) -> Tensor:
    """Return x with one channel an axis that holds the middles of its cells in (0, 1)."""
    grid = x.shape[2:]
    lines = [(torch.arange(n, dtype=x.dtype, device=x.device) + 0.5) / n for n in grid]
    return torch.cat([x, torch.stack(torch.meshgrid(*lines, indexing="ij")).expand(len(x), -1, *grid)], 1)
