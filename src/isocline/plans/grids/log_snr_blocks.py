"""Blocks of three equal steps in the half log-SNR (Lu et al., DPM-Solver-fast, arXiv 2206.00927)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.plans.grids.log_snr import log_snr
from isocline.plans.grids.span import End
from isocline.processes import GaussianProcess


def log_snr_blocks(
    process: GaussianProcess, n: int, *, t_max: float | None = None, t_min: float | None = None, end: End = "t_min"
) -> Tensor:
    """Return the ``n + 1`` times of the paper's DPM-Solver-fast: blocks equally long in half log-SNR, each divided evenly.

    Arguments as in `isocline.plans.grids.log_snr`.

    >>> from isocline.processes import EDM
    >>> [round(t, 9) for t in log_snr_blocks(EDM(t_min=1.0, t_max=64.0), 5).tolist()]
    [64.0, 32.0, 16.0, 8.0, 2.828427125, 1.0]
    """
    require(isinstance(n, int) and n >= 1, f"a grid needs at least one step, got {n}")
    sizes = block_sizes(n, end == "zero")
    edges = log_snr(process, len(sizes), t_max=t_max, t_min=t_min, end=end)
    times: list[Tensor] = []
    for size, edge, (start, stop) in zip(sizes, edges, pairwise(process.half_log_snr(edges)), strict=False):
        inner = torch.arange(1, size, dtype=torch.float64) / size
        times += [edge[None], process.time_of(start + inner * (stop - start))]
    return torch.cat([*times, edges[-1:]])


def block_sizes(n: int, ends_clean: bool) -> list[int]:
    """Return the intervals in each block of DPM-Solver-fast; a step to time 0 is a block of one."""
    threes, rest = divmod(n, 3)
    sizes = [3] * threes + [rest] if rest else [3] * (threes - 1) + [2, 1]
    return [*sizes[:-1], 1, 1] if ends_clean and sizes[-1] == 2 else sizes
