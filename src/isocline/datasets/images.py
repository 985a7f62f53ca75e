"""Labelled images held in memory as bytes and handed out in [-1, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.stream import Stream


@dataclass(frozen=True)
class Images:
    """Images with labels.

    Args:
        pixels: (N, C, H, W) unsigned bytes.
        labels: (N,) integers in ``[0, len(names))``.
        names: the class names.
    """

    pixels: Tensor
    labels: Tensor
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        require(self.pixels.ndim == 4 and self.pixels.dtype == torch.uint8, "images must be (N, C, H, W) bytes")
        require(self.labels.shape == self.pixels.shape[:1], f"{len(self.pixels)} images need as many labels")

    def __len__(self) -> int:
        return self.pixels.shape[0]

    def take(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return images (B, C, H, W) as float32 in [-1, 1] and labels (B,) at positions `index`."""
        return self.pixels[index].float() / 127.5 - 1, self.labels[index].long()

    def all(self) -> tuple[Tensor, Tensor]:
        """Return every image and label."""
        return self.take(torch.arange(len(self)))


class Shuffled:
    """Positions of a batch as a function of the step: each epoch is a fresh random order, the last partial batch is dropped."""

    def __init__(self, n: int, batch: int, rng: Stream) -> None:
        require(n >= batch, f"a batch of {batch} needs at least as many samples, there are {n}")
        self.n, self.batch, self.rng = n, batch, rng
        self._epoch, self._order = -1, torch.empty(0)

    def __call__(self, step: int) -> Tensor:
        """Return the positions (B,) used at `step`."""
        epoch, place = divmod(step, self.n // self.batch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self.rng.permutation(self.n, step=epoch)
        return self._order[place * self.batch : (place + 1) * self.batch]
