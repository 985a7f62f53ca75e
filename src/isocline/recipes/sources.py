"""Data and models that a command is pointed at."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from isocline._core import files
from isocline._core.errors import BadFile, DataMissing, InvalidInput
from isocline.plans import grids, solvers
from isocline.processes import Denoiser, GaussianProcess
from isocline.recipes.models import load_model


def load_array(path: str | Path) -> Tensor:
    """Return the data in a ``.npy`` file (N, *) or a ``.csv`` file (N, d) as float32; a header line is skipped.

    Raises:
        DataMissing: there is no such file.
        InvalidInput: neither kind of file.
        BadFile: the file holds something else than numbers; pickled arrays are not read.
    """
    path = Path(path)
    if path.suffix not in (".npy", ".csv"):
        raise InvalidInput(f"data are read from .npy and .csv files, not from {path.name!r}")
    if not path.exists():
        raise DataMissing(f"there is no file {path}")
    try:
        array = np.load(path, allow_pickle=False) if path.suffix == ".npy" else _csv(path)
    except ValueError as error:
        raise BadFile(f"{path} does not hold a table of numbers ({error})") from error
    if array.ndim < 2 or not np.issubdtype(array.dtype, np.number):
        raise BadFile(f"{path} does not hold a table of numbers, but {array.dtype} of shape {array.shape}")
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def save_array(path: str | Path, samples: Tensor) -> Path:
    """Write samples (N, *) as ``.npy``, or one in each row of a ``.csv`` file, atomically."""
    path, buffer = Path(path), io.BytesIO()
    if path.suffix == ".npy":
        np.save(buffer, samples.numpy(), allow_pickle=False)
    else:
        np.savetxt(buffer, samples.flatten(1).numpy(), delimiter=",", fmt="%.8g")
    return files.write_bytes(path, buffer.getvalue())


def _csv(path: Path) -> np.ndarray:
    with path.open(encoding="utf-8") as lines:
        first = lines.readline()
    try:
        [float(item) for item in first.split(",")]
        header = 0
    except ValueError:
        header = 1
    return np.loadtxt(path, delimiter=",", skiprows=header, ndmin=2)


def model_samples(path: str | Path, n: int, seed: int) -> tuple[Tensor, Denoiser]:
    """Return `n` samples of the stored model at `path`, in the unit it was trained in, and the model."""
    model = load_model(path)
    denoiser = model.denoiser
    plan = solvers.dpm_solver_pp_2m(denoiser.process, default_grid(denoiser.process, 20))
    parts = []
    for first in range(0, n, 100):
        size = (min(100, n - first), *model.shape)
        parts.append(plan.run(denoiser, plan.start(size, seed + first)).x)
    return torch.cat(parts), denoiser


def default_grid(process: GaussianProcess, steps: int) -> Tensor:
    """Return Karras's grid, or a uniform one for a process that starts without signal, where noise levels are infinite."""
    starts_in_noise = bool(torch.isfinite(process.half_log_snr(process.t_max)))
    return (grids.karras if starts_in_noise else grids.uniform)(process, steps, end="zero")
