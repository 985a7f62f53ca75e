r"""Files with a group for each split as windows: PDEArena and those of its authors before it.

PDEArena (Gupta and Brandstetter, arXiv 2209.15616) has ``u``, ``vx``, ``vy`` (n, T, X, Y), ``x``, ``y`` (n, X), (n, Y), ``t``
(n, T) and ``buo_y`` (n,). The files of Brandstetter, Welling and Worrall (arXiv 2202.07643; Kuramoto-Sivashinsky, Burgers,
KdV) have ``pde_T-X`` (n, T, X), with numbers for T and X, ``x`` (n, X) and ``t`` (n, T). Those of Brandstetter, Worrall and
Welling (arXiv 2202.03376) have such arrays at several resolutions, each with attributes ``x``, ``tmin`` and ``tmax``, and
parameters (n,): ``alpha``, ``beta``, ``gamma``, or ``c``, ``bc_left``, ``bc_right``.

None of these says where boundaries are periodic, so the user does. Fields are read as they are asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isocline._core.errors import BadFile, InvalidInput, Mismatch, require
from isocline.datasets.fields import Boundary, DataSpec, FieldSpec, ParameterSpec
from isocline.datasets.foreign import AXES, ArrayCases, Chosen, Foreign, Lines, described, single, wanted
from isocline.datasets.hdf5 import open_file

PARAMETERS = ("buo_y", "alpha", "beta", "gamma", "c", "bc_left", "bc_right")


def pdearena(
    paths: Mapping[str, str | Path | Sequence[str | Path]], *, boundary: Boundary, points: int | None = None
) -> Foreign:
    """Return the windows of files of PDEArena, of Lie-point-symmetry data augmentation, or of message passing PDE solvers.

    Args:
        paths: files by split: ``{"train": [...], "valid": ..., "test": ...}``; each holds a group named like its split.
        boundary: of the axes; the files do not say.
        points: which series is read where a file has several; the one of most points without it.

    Raises:
        DataMissing: there is no such file.
        InvalidInput: there is no series of so many points.
        BadFile: it is damaged, of another layout, or has missing frames.
        Mismatch: files hold different fields or grids.
    """
    splits: dict[str, list[Chosen]] = {}
    spec: DataSpec | None = None
    for split, given in paths.items():
        require(split in ("train", "valid", "test"), f"splits are train, valid and test, got {split!r}")
        for path in [given] if isinstance(given, (str, Path)) else given:
            whole = _arena(Path(path), split, boundary, points)
            spec = whole.spec if spec is None else _same(spec, whole.spec, path, split)
            splits.setdefault(split, []).append(Chosen(whole, range(len(whole))))
    if spec is None:
        raise InvalidInput("no file was given; pass {'train': path}")
    return Foreign(spec, splits)


def _same(one: DataSpec, two: DataSpec, path: str | Path, split: str) -> DataSpec:
    one.require_same_fields(two)
    if one.resolution != two.resolution:
        raise Mismatch(f"{path} has {two.resolution} points, other files have {one.resolution}; read them apart")
    if split == "train" and one.times != two.times:
        raise BadFile(f"{path} has {two.times} frames, other files have {one.times}; frames are missing")
    ranges = zip(one.parameters, two.parameters, strict=True)
    return replace(
        one, parameters=tuple(replace(a, low=min(a.low, b.low), high=max(a.high, b.high)) for a, b in ranges)
    )


def _arena(path: Path, split: str, boundary: Boundary, points: int | None) -> ArrayCases:
    """Return the cases of one file."""
    file = open_file(path)
    if split not in file:
        raise BadFile(f"{path} has no group {split}; it holds {', '.join(file)}")
    group = file[split]
    series = sorted((k for k in group if re.fullmatch(r"pde_\d+-\d+", k)), key=lambda k: int(group[k].shape[-1]))
    sizes = [group[k].shape[-1] for k in series]
    require(points is None or points in sizes, f"{path} has no series of {points} points, but of {sizes}")
    keys = series[-1 if points is None else sizes.index(points) :][:1] or [k for k in ("u", "vx", "vy") if k in group]
    if not keys or (not series and keys != ["u", "vx", "vy"]):
        raise BadFile(f"{path} is not in a layout of PDEArena; {split} holds {', '.join(group)}")
    n, t, *space = group[keys[0]].shape
    times, lines = _grid(group, keys[0], path)
    short = [k for k in keys if group[k].shape != (n, t, *space)]
    if short or times.shape != (n, t):
        raise BadFile(
            f"{path}: {', '.join(short) or 't'} and {keys[0]} differ in cases, frames or points; frames are missing"
        )
    told = {k: wanted(group, k, path) for k in PARAMETERS if k in group}
    fields = [FieldSpec("u")] if series else [FieldSpec("u"), FieldSpec("v", 1)]
    spec = described("pdearena", fields, lines, times[0], boundary, path, tuple(space))
    parameters = tuple(ParameterSpec(k, float(v.min()), float(v.max())) for k, v in told.items())
    spec = replace(spec, parameters=parameters)
    values = torch.stack(list(told.values()), 1) if told else torch.zeros(n, 0, dtype=torch.float64)

    def read(case: int, frames: slice) -> Tensor:
        return torch.stack([single(group[k][case, frames]) for k in keys], -1)

    return ArrayCases(spec, read, times, lines, values, str(path))


def _grid(group: Any, key: str, path: Path) -> tuple[Tensor, Lines]:
    """Return the times of all cases, (n, T), and grid lines, one for all cases where they agree."""
    n, t, *space = group[key].shape
    about = group[key].attrs
    if "x" in about:
        times = torch.linspace(float(about["tmin"]), float(about["tmax"]), t, dtype=torch.float64)
        return times.expand(n, t), [torch.as_tensor(about["x"], dtype=torch.float64)]
    lines = [wanted(group, axis, path) for axis, _ in zip(AXES, space, strict=False)]
    return wanted(group, "t", path), [line[0] if bool((line == line[0]).all()) else line for line in lines]
