"""Layers that U-Nets on grids of 1 to 3 axes share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from isocline._core.errors import require


def conv(axes: int, inputs: int, outputs: int, kernel: int, *, periodic: bool, groups: int = 1) -> nn.Module:
    """Return a convolution that keeps the grid; its edges are periodic or zero."""
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    mode: Literal["circular", "zeros"] = "circular" if periodic else "zeros"
    made: nn.Module = kinds[axes - 1](inputs, outputs, kernel, padding=kernel // 2, padding_mode=mode, groups=groups)
    return made


def halved(axes: int, inputs: int, outputs: int) -> nn.Module:
    """Return a convolution onto every second point: blocks of two points an axis become one."""
    made: nn.Module = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1](inputs, outputs, 2, stride=2)
    return made


def doubled(axes: int, inputs: int, outputs: int) -> nn.Module:
    """Return its transpose: one point becomes a block of two an axis."""
    kinds = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    made: nn.Module = kinds[axes - 1](inputs, outputs, 2, stride=2)
    return made


class Shift(nn.Module):
    """Scale and shift of every channel, linear in a condition; the identity at the start.

    Args:
        conditions: length of the condition; with 0 it does nothing.
        channels: C.
    """

    def __init__(self, conditions: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(conditions, 2 * channels) if conditions else None
        if self.linear is not None:
            nn.init.zeros_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """Return ``(B, C, *S)`` for x ``(B, C, *S)`` and a condition (B, conditions)."""
        if self.linear is None or condition is None:
            return x
        scale, shift = self.linear(condition).reshape(len(x), -1, *[1] * (x.ndim - 2)).chunk(2, 1)
        return x * (1 + scale) + shift


class Embedding(nn.Module):
    """A condition (B, conditions) as features (B, width): sines and cosines of each number, then two layers."""

    frequencies: Tensor

    def __init__(self, conditions: int, width: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.pi * 2.0 ** torch.arange(4), persistent=False)
        self.layers = nn.Sequential(nn.Linear(9 * conditions, width), nn.GELU(), nn.Linear(width, width), nn.GELU())

    def forward(self, condition: Tensor) -> Tensor:
        """Return features (B, width)."""
        phases = (condition[..., None] * self.frequencies).flatten(1)
        found: Tensor = self.layers(torch.cat([condition, phases.sin(), phases.cos()], 1))
        return found


class Stage(nn.Module):
    """Blocks one after the other, each given the same condition."""

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """Return ``(B, C', *S)`` for x ``(B, C, *S)`` and features of a condition."""
        for block in self.blocks:
            x = block(x, condition)
        return x


def require_divisible(sizes: Sequence[int], factor: int, what: str, least: int = 1) -> None:
    """Refuse a grid that cannot be halved often enough, or that leaves less than `least` points an axis.

    Raises:
        InvalidInput: names the grid and the factor.
    """
    fits, times = all(n % factor == 0 for n in sizes), factor.bit_length() - 1
    require(fits, f"{what} halves the grid {times} times, so {tuple(sizes)} must be multiples of {factor}")
    enough = min(sizes) // factor >= least
    require(enough, f"{what} leaves less than {least} points of {tuple(sizes)}; use fewer levels")


class UShaped(nn.Module):
    """The pass of a U-Net: down through coarser and coarser grids, up again beside what left each level on the way down.

    A subclass makes the modules: `first`, a stage for each level in `down`, `coarser` and `finer` between levels, `join` for what
    meets on the way up, a stage for each level but the coarsest in `up`, and `last`; `embed` where there is a condition.
    """

    levels: int
    conditions: int
    least: int = 1  # points an axis of the coarsest grid
    embed: nn.Module | None
    first: nn.Module
    down: nn.ModuleList
    coarser: nn.ModuleList
    finer: nn.ModuleList
    join: nn.ModuleList
    up: nn.ModuleList
    last: nn.Module

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return ``(B, outputs, *S)`` for x ``(B, inputs, *S)`` and a condition (B, conditions)."""
        require_divisible(x.shape[2:], 2 ** (self.levels - 1), "this U-Net", self.least)
        told = embedded(self.embed, condition, self.conditions)
        h, left = self.first(x), []
        for level, stage in enumerate(self.down):
            h = stage(self.coarser[level - 1](h) if level else h, told)
            left.append(h)
        for level in reversed(range(self.levels - 1)):
            h = self.join[level](torch.cat([self.finer[level](h), left[level]], 1))
            h = self.up[level](h, told)
        found: Tensor = self.last(h)
        return found


def embedded(embed: nn.Module | None, condition: Tensor | None, conditions: int) -> Tensor | None:
    """Return the features of a condition, None where there is none.

    Raises:
        InvalidInput: the condition has another length than the network was made for.
    """
    given = 0 if condition is None else condition.shape[1]
    require(given == conditions, f"this network takes a condition of {conditions} numbers, got {given}")
    if embed is None or condition is None:
        return None
    found: Tensor = embed(condition)
    return found
