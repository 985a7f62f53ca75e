"""Pairs of noise and sample, made by a model: what reflow trains on (arXiv 2209.03003)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from isocline._core import files
from isocline._core.errors import BadFile, InvalidInput, require
from isocline._core.progress import progress
from isocline._core.stream import Stream, as_stream
from isocline.plans import Plan
from isocline.processes import Denoiser


@dataclass(frozen=True)
class Pairs:
    """Noises (N, *) and the samples (N, *) a deterministic run makes of them; the sampler's own noise is kept."""

    noise: Tensor
    data: Tensor

    def __post_init__(self) -> None:
        require(
            self.noise.shape == self.data.shape,
            f"pairs need as many noises as data, got {tuple(self.noise.shape)} and {tuple(self.data.shape)}",
        )

    def __len__(self) -> int:
        return self.noise.shape[0]

    def save(self, path: str | Path) -> None:
        """Write both as safetensors, atomically."""
        files.write_tensors(Path(path), {"noise": self.noise, "data": self.data}, {})

    @staticmethod
    def load(path: str | Path) -> Pairs:
        """Read pairs; another file is refused."""
        tensors, _ = files.read_tensors(Path(path))
        if set(tensors) != {"noise", "data"}:
            raise BadFile(f"{path} does not hold pairs of noise and data")
        return Pairs(tensors["noise"], tensors["data"])


def draw_pairs(
    denoiser: Denoiser,
    plan: Plan,
    shape: tuple[int, ...],
    n: int,
    rng: Stream | int,
    *,
    batch: int = 256,
    dtype: torch.dtype = torch.float32,
) -> Pairs:
    """Return `n` pairs: standard normal noise and what `plan` makes of it.

    The run should be accurate, a hundred calls or so: reflow inherits its error. Pair ``i`` depends on (`rng`, ``i``) alone.

    Args:
        denoiser: the model.
        plan: a deterministic plan for it.
        shape: of one datum.
        n: number of pairs.
        rng: stream or seed of the noises.
        batch: pairs in each run.
        dtype: of noises and states.
    """
    if plan.stochastic:
        raise InvalidInput("pairs need a deterministic plan: fresh noise would part a sample from its start")
    stream, parts = as_stream(rng, "pairs"), []
    with progress("drawing pairs", n) as bar:
        for first in range(0, n, batch):
            noise = stream.normal((min(batch, n - first), *shape), first=first, dtype=dtype)
            start = noise * plan.process.sigma(plan.times[0]).to(dtype)
            parts.append((noise, plan.run(denoiser, start).x))
            bar.advance(noise.shape[0])
    return Pairs(*(torch.cat(column) for column in zip(*parts, strict=True)))
