r"""Data sets of PDEBench as windows (Takamoto et al., arXiv 2210.07182).

There are files of three kinds:

* one array ``(n, T, *S)`` for each field: ``tensor``, with ``nu`` for Darcy flow, or ``density``, ``pressure``, ``Vx``, ``Vy``,
  ``Vz`` for compressible flow; with ``x-coordinate``, ... and ``t-coordinate``, which can have one entry more than frames;
* a group for each seed with ``data``, ``(T, *S, C)``, ``grid/x`` and ``grid/t`` (shallow water, reaction and diffusion);
* ``velocity``, ``(n, T, *S, D)``, ``particles``, ``(n, T, *S, 1)``, ``force``, ``(n, *S, D)``, and ``t`` (n, T) for incompressible
  flow.

None of these says where boundaries are periodic, so the user does. Fields are read as they are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isocline._core.errors import BadFile, require
from isocline.datasets.fields import Boundary, FieldSpec
from isocline.datasets.foreign import AXES, FRACTIONS, ArrayCases, Foreign, described, divided, single, wanted
from isocline.datasets.hdf5 import open_file

COMPRESSIBLE = ("density", "pressure", "Vx", "Vy", "Vz")


def pdebench(
    path: str | Path,
    *,
    boundary: Boundary,
    fields: Sequence[str] | None = None,
    fractions: Sequence[float] = FRACTIONS,
) -> Foreign:
    """Return the windows of a file of PDEBench.

    Args:
        path: of the ``.hdf5`` or ``.h5`` file.
        boundary: of its axes; the file does not say.
        fields: names of the channels, where the file has none.
        fractions: which part of the cases is ``train``, ``valid`` and ``test``, in this order; the file holds them together.

    Raises:
        DataMissing: there is no such file.
        BadFile: it is damaged, of another layout, or has missing frames.
    """
    file = open_file(path)
    if "tensor" in file or "density" in file:
        whole = _stacked(file, Path(path), boundary, fields)
    elif "velocity" in file:
        whole = _incompressible(file, Path(path), boundary)
    elif any("data" in group for group in file.values() if hasattr(group, "keys")):
        whole = _by_seed(file, Path(path), boundary, fields)
    else:
        raise BadFile(f"{path} is not in a layout of PDEBench; it holds {', '.join(file)}")
    return Foreign(whole.spec, divided(whole, fractions))


def _stacked(file: Any, path: Path, boundary: Boundary, names: Sequence[str] | None) -> ArrayCases:
    """Return cases of arrays ``(n, T, *S)``."""
    keys = ["tensor"] if "tensor" in file else [k for k in COMPRESSIBLE if k in file]
    shape = file[keys[0]].shape
    for k in keys:
        if file[k].shape != shape:
            raise BadFile(f"{path}: {k} has shape {file[k].shape}, {keys[0]} has {shape}; frames are missing")
    n, t, *space = shape
    lines = [wanted(file, f"{axis}-coordinate", path) for axis, _ in zip(AXES, space, strict=False)]
    times = wanted(file, "t-coordinate", path) if t > 1 else torch.zeros(1, dtype=torch.float64)
    if len(times) not in (t, t + 1):  # one more where they are edges of steps
        raise BadFile(f"{path} has {t} frames, but {len(times)} times; frames are missing")
    titles = list(names or (["u"] if keys == ["tensor"] else keys))
    require(len(titles) == len(keys), f"{path} has {len(keys)} channels, got {len(titles)} names")
    still = ["nu"] if "nu" in file and file["nu"].shape == (n, *space) else []
    fields = [FieldSpec(k) for k in titles] + [FieldSpec(k, varies=False) for k in still]
    spec = described(path.stem, fields, lines, times[:t], boundary, path, tuple(space))

    def read(case: int, frames: slice) -> Tensor:
        return torch.stack([single(file[k][case, frames]) for k in keys], -1)

    def constant(case: int) -> Tensor:
        return torch.stack([single(file[k][case]) for k in still], -1)

    none = torch.zeros(n, 0, dtype=torch.float64)
    return ArrayCases(spec, read, times[:t], lines, none, str(path), constant if still else None)


def _by_seed(file: Any, path: Path, boundary: Boundary, names: Sequence[str] | None) -> ArrayCases:
    """Return cases in groups, each with an array ``(T, *S, C)``."""
    seeds = sorted(k for k in file if "data" in file[k])
    first = file[seeds[0]]
    t, *space, channels = first["data"].shape
    for seed in seeds:
        if file[seed]["data"].shape != first["data"].shape:
            got = file[seed]["data"].shape
            raise BadFile(f"{path}: {seed} has shape {got}, {seeds[0]} has {first['data'].shape}; frames are missing")
    lines = [wanted(first["grid"], axis, path) for axis, _ in zip(AXES, space, strict=False)]
    times = wanted(first["grid"], "t", path)
    if len(times) != t:
        raise BadFile(f"{path} has {t} frames, but {len(times)} times; frames are missing")
    titles = list(names or (["u"] if channels == 1 else [f"u{k}" for k in range(channels)]))
    require(len(titles) == channels, f"{path} has {channels} channels, got {len(titles)} names")
    spec = described(path.stem, [FieldSpec(k) for k in titles], lines, times, boundary, path, tuple(space))
    none = torch.zeros(len(seeds), 0, dtype=torch.float64)
    return ArrayCases(spec, lambda case, f: single(file[seeds[case]]["data"][f]), times, lines, none, str(path))


def _incompressible(file: Any, path: Path, boundary: Boundary) -> ArrayCases:
    """Return cases of velocity ``(n, T, *S, D)`` and a tracer."""
    n, t, *space, _ = file["velocity"].shape
    times = wanted(file, "t", path)
    if times.shape != (n, t) or file["particles"].shape[:2] != (n, t):
        raise BadFile(f"{path}: velocity, particles and t differ in cases or frames; frames are missing")
    fields = [FieldSpec("velocity", 1), FieldSpec("particles"), FieldSpec("force", 1, varies=False)]
    lines = [(torch.arange(m, dtype=torch.float64) + 0.5) / m for m in space]  # the file has no coordinates
    spec = described(path.stem, fields, lines, times[0], boundary, path, tuple(space))

    def read(case: int, frames: slice) -> Tensor:
        return torch.cat([single(file[k][case, frames]) for k in ("velocity", "particles")], -1)

    none = torch.zeros(n, 0, dtype=torch.float64)
    return ArrayCases(spec, read, times, lines, none, str(path), lambda case: single(file["force"][case]))
