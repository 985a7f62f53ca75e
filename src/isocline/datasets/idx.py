"""IDX files, the format of MNIST and Fashion-MNIST, plain or gzipped."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import torch
from torch import Tensor

from isocline._core.errors import BadFile, DataMissing

_UNSIGNED_BYTE = 0x08


def read_idx(path: str | Path) -> Tensor:
    """Return the array of unsigned bytes stored in `path`, with the shape the file states."""
    path = Path(path)
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except FileNotFoundError as error:
        raise DataMissing(f"there is no file {path}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise BadFile(f"{path} is not a complete gzip file ({error}); fetch it again") from error
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] != _UNSIGNED_BYTE:
        raise BadFile(f"{path} is not an IDX file of unsigned bytes")
    start = 4 + 4 * raw[3]
    shape = [int.from_bytes(raw[i : i + 4], "big") for i in range(4, start, 4)]
    if math.prod(shape) == 0:
        raise BadFile(f"{path} holds no values: its shape is {tuple(shape)}")
    if len(raw) - start != math.prod(shape):
        raise BadFile(f"{path} should hold {math.prod(shape)} values, it holds {len(raw) - start}; fetch it again")
    return torch.frombuffer(bytearray(raw[start:]), dtype=torch.uint8).reshape(shape)
