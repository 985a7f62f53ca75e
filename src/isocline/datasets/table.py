"""Images stored as rows of comma-separated numbers, gzipped: the pixels of one image, then its label."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from isocline._core.errors import BadFile


def read_table(path: Path, *, count: int, side: int, largest: int) -> tuple[Tensor, Tensor]:
    """Return pixels (N, 1, side, side) and labels (N,), both int64.

    Args:
        path: a ``.csv.gz`` file.
        count: how many rows it must hold.
        side: pixels along each side.
        largest: largest value of a pixel.

    Raises:
        BadFile: the file is truncated, has another number of rows or columns, or a value outside its range.
    """
    try:
        text = gzip.decompress(path.read_bytes()).decode("ascii")
        rows = np.loadtxt(text.splitlines() or ["0"], dtype=np.int64, delimiter=",", comments=None, ndmin=2)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise BadFile(f"{path} is not a complete gzipped table ({error}); fetch it again") from error
    width = side * side + 1
    if rows.shape != (count, width):
        raise BadFile(f"{path} should hold {count} rows of {width} numbers, it holds {rows.shape}; fetch it again")
    table = torch.from_numpy(rows)
    pixels, labels = table[:, :-1], table[:, -1]
    if min(int(table.min()), largest - int(pixels.max()), 9 - int(labels.max())) < 0:
        raise BadFile(f"{path} holds pixels outside 0..{largest} or labels outside 0..9")
    return pixels.reshape(count, 1, side, side), labels
