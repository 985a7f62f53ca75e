r"""Data sets of others, read as windows: PDEBench, PDEArena and plain arrays.

PDEBench (Takamoto et al., arXiv 2210.07182) has files of three kinds:

* one array ``(n, T, *S)`` for each field: ``tensor``, with ``nu`` for Darcy flow, or ``density``, ``pressure``, ``Vx``, ``Vy``,
  ``Vz`` for compressible flow; with ``x-coordinate``, ... and ``t-coordinate``, which can have one entry more than frames;
* a group for each seed with ``data``, ``(T, *S, C)``, ``grid/x`` and ``grid/t`` (shallow water, reaction and diffusion);
* ``velocity``, ``(n, T, *S, D)``, ``particles``, ``(n, T, *S, 1)``, ``force``, ``(n, *S, D)``, and ``t`` (n, T) for incompressible
  flow.

PDEArena (Gupta and Brandstetter, arXiv 2209.15616) has a group for each split with ``u``, ``vx``, ``vy`` (n, T, X, Y), ``x``,
``y`` (n, X), (n, Y), ``t`` (n, T) and ``buo_y`` (n,). The files of Brandstetter, Welling and Worrall (arXiv 2202.07643;
Kuramoto-Sivashinsky, Burgers, KdV) have ``pde_T-X`` (n, T, X), with numbers for T and X, ``x`` (n, X) and ``t`` (n, T).

None of these says where boundaries are periodic, so the user does. Fields are read as they are asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isocline._core.errors import BadFile, InvalidInput, Mismatch, require
from isocline.datasets.fields import Boundary, DataSpec, FieldSpec, ParameterSpec
from isocline.datasets.hdf5 import open_file
from isocline.datasets.windows import FileSource

Array = np.ndarray[Any, Any]
Lines = Sequence[Tensor]
FRACTIONS = (0.8, 0.1, 0.1)
COMPRESSIBLE = ("density", "pressure", "Vx", "Vy", "Vz")
AXES = ("x", "y", "z")


class ArrayCases:
    """Cases in arrays, or in anything that is read case by case.

    Args:
        spec: what they are.
        read: returns frames of a case, ``(T, *S, C)``.
        times: (T,) or (n, T).
        lines: grid lines, (S_i,) or (n, S_i) each.
        parameters: (n, P).
        place: for messages.
        constants: returns the fields of a case that do not vary, ``(*S, C_const)``; None where there are none.
    """

    def __init__(
        self,
        spec: DataSpec,
        read: Callable[[int, slice], Tensor],
        times: Tensor,
        lines: Lines,
        parameters: Tensor,
        place: str,
        constants: Callable[[int], Tensor] | None = None,
    ) -> None:
        self.spec, self._read, self.times, self.lines, self.place = spec, read, times, lines, place
        self.parameters, self._constants = parameters, constants

    def __len__(self) -> int:
        return len(self.parameters)

    def frames(self, case: int, frames: slice) -> Tensor:
        """Return frames of a case, ``(T, *S, C)`` float32."""
        return self._read(case, frames)

    def constant(self, case: int) -> Tensor:
        """Return constant fields, ``(*S, C_const)`` float32."""
        assert self._constants is not None
        return self._constants(case)

    def points(self, case: int) -> Tensor:
        """Return coordinates, ``(*S, D)`` float64."""
        chosen = [line[case] if line.ndim == 2 else line for line in self.lines]
        return torch.stack(torch.meshgrid(*chosen, indexing="ij"), -1)

    @property
    def by_case(self) -> bool:
        """Whether grids differ between cases."""
        return any(line.ndim == 2 for line in self.lines)

    def clock(self, case: int) -> Tensor:
        """Return times, (T,) float64."""
        return self.times[case] if self.times.ndim == 2 else self.times

    def where(self, case: int) -> str:
        """Return how messages name a case."""
        return f"{self.place}, case {case}"


class Chosen:
    """Some cases of a file, renumbered."""

    def __init__(self, whole: ArrayCases, cases: range) -> None:
        self.whole, self.cases, self.spec = whole, cases, whole.spec
        self.parameters = whole.parameters[cases.start : cases.stop]

    def __len__(self) -> int:
        return len(self.cases)

    def frames(self, case: int, frames: slice) -> Tensor:
        """As in `ArrayCases`."""
        return self.whole.frames(self.cases[case], frames)

    def constant(self, case: int) -> Tensor:
        """As in `ArrayCases`."""
        return self.whole.constant(self.cases[case])

    def points(self, case: int) -> Tensor:
        """As in `ArrayCases`."""
        return self.whole.points(self.cases[case])

    @property
    def by_case(self) -> bool:
        """As in `ArrayCases`."""
        return self.whole.by_case

    def clock(self, case: int) -> Tensor:
        """As in `ArrayCases`."""
        return self.whole.clock(self.cases[case])

    def where(self, case: int) -> str:
        """Return where the case is in its file."""
        return self.whole.where(self.cases[case])


class Foreign(FileSource):
    """Cases of others by split; made by `pdebench`, `pdearena` and `Arrays`."""

    def __init__(self, spec: DataSpec, splits: Mapping[str, Sequence[Chosen]]) -> None:
        self.spec, self._splits = spec, {name: list(files) for name, files in splits.items() if any(map(len, files))}

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that there are."""
        return tuple(self._splits)

    def files(self, split: str) -> list[Chosen]:
        """Return the files of a split."""
        return self._splits[split]


class Arrays(Foreign):
    """Cases in memory.

    Args:
        values: fields that vary, by name: ``(n, T, *S)``, ``(n, T, *S, D)`` or ``(n, T, *S, D, D)``.
        low: lower end of each axis.
        high: upper end of each axis.
        dt: time between frames.
        times: (T,) or (n, T) in its place.
        parameters: by name, (n,).
        constants: fields that do not vary, by name.
        boundary: of every axis.
        orders: of fields that are no scalars, by name: 1 for a vector, 2 for a tensor.
        coordinates: grid lines, where points do not lie as in `Simulator.coordinates`.
        fractions: which part of the cases is ``train``, ``valid`` and ``test``, in this order.
        name: of the data set.

    Raises:
        InvalidInput: shapes do not fit together.

    Examples:
        >>> source = Arrays({"u": torch.randn(10, 5, 16)}, low=(0.0,), high=(1.0,), dt=0.1)
        >>> source.cases("train"), source.spec.resolution
        (8, (16,))
    """

    def __init__(
        self,
        values: Mapping[str, Tensor],
        low: Sequence[float],
        high: Sequence[float],
        *,
        dt: float = 1.0,
        times: Tensor | None = None,
        parameters: Mapping[str, Tensor] | None = None,
        constants: Mapping[str, Tensor] | None = None,
        boundary: Boundary = "periodic",
        orders: Mapping[str, int] | None = None,
        coordinates: Lines | None = None,
        fractions: Sequence[float] = FRACTIONS,
        name: str = "arrays",
    ) -> None:
        d, orders = len(low), dict(orders or {})
        require(bool(values) and 1 <= d == len(high), f"{name}: give fields, and low and high of every axis")
        first, value = next(iter(values.items()))
        shape = tuple(value.shape)
        require(len(shape) >= d + 2, f"{name}: {first} has shape {shape}; cases, frames and {d} axes are needed")
        n, t, *space = shape[: d + 2]
        resolution = tuple(space)
        for kind, still in ((values, False), (constants or {}, True)):
            for key, value in kind.items():
                want = (n, *(() if still else (t,)), *resolution, *(d,) * orders.get(key, 0))
                got = tuple(value.shape)
                require(got == want, f"{name}: {key} has shape {got}; beside {first} it should be {want}")
        given = {k: torch.as_tensor(v).to(torch.float64) for k, v in (parameters or {}).items()}
        require(all(v.shape == (n,) for v in given.values()), f"{name}: parameters need shape ({n},) each")
        clock = dt * torch.arange(t, dtype=torch.float64) if times is None else times.to(torch.float64)
        require(tuple(clock.shape) in ((t,), (n, t)), f"{name}: times need shape ({t},) or ({n}, {t})")
        fields = [FieldSpec(k, orders.get(k, 0)) for k in values]
        fields += [FieldSpec(k, orders.get(k, 0), varies=False) for k in constants or {}]
        spec = DataSpec(
            name,
            tuple(fields),
            AXES[:d],
            tuple(low),
            tuple(high),
            resolution,
            (boundary,) * d,
            t,
            _step(clock),
            tuple(ParameterSpec(k, float(v.min()), float(v.max())) for k, v in given.items()),
        )
        lines = [x.to(torch.float64) for x in coordinates] if coordinates is not None else _regular(spec)
        parts = [_flat(values[f.name], f) for f in spec.varying]
        rest = [_flat(constants[f.name], f) for f in spec.constant] if constants else []
        whole = ArrayCases(
            spec,
            lambda case, frames: torch.cat([p[case, frames] for p in parts], -1).float(),
            clock,
            lines,
            torch.stack(list(given.values()), 1) if given else torch.zeros(n, 0),
            name,
            (lambda case: torch.cat([p[case] for p in rest], -1).float()) if rest else None,
        )
        super().__init__(spec, divided(whole, fractions))


def divided(whole: ArrayCases, fractions: Sequence[float]) -> dict[str, list[Chosen]]:
    """Return the first cases for training, the next for validation, the last for tests."""
    require(
        len(fractions) == 3 and min(fractions) >= 0 and abs(sum(fractions) - 1) < 1e-9,
        f"fractions are those of train, valid and test and make 1, got {tuple(fractions)}",
    )
    n = len(whole)
    ends = [0, round(n * fractions[0]), round(n * (fractions[0] + fractions[1])), n]
    pairs = zip(("train", "valid", "test"), ends[:-1], ends[1:], strict=True)
    return {split: [Chosen(whole, range(a, b))] for split, a, b in pairs}


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
    lines = [_wanted(file, f"{axis}-coordinate", path) for axis, _ in zip(AXES, space, strict=False)]
    times = _wanted(file, "t-coordinate", path) if t > 1 else torch.zeros(1, dtype=torch.float64)
    if len(times) not in (t, t + 1):  # one more where they are edges of steps
        raise BadFile(f"{path} has {t} frames, but {len(times)} times; frames are missing")
    titles = list(names or (["u"] if keys == ["tensor"] else keys))
    require(len(titles) == len(keys), f"{path} has {len(keys)} channels, got {len(titles)} names")
    still = ["nu"] if "nu" in file and file["nu"].shape == (n, *space) else []
    fields = [FieldSpec(k) for k in titles] + [FieldSpec(k, varies=False) for k in still]
    spec = _described(path.stem, fields, lines, times[:t], boundary, path, tuple(space))

    def read(case: int, frames: slice) -> Tensor:
        return torch.stack([_single(file[k][case, frames]) for k in keys], -1)

    def constant(case: int) -> Tensor:
        return torch.stack([_single(file[k][case]) for k in still], -1)

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
    lines = [_wanted(first["grid"], axis, path) for axis, _ in zip(AXES, space, strict=False)]
    times = _wanted(first["grid"], "t", path)
    if len(times) != t:
        raise BadFile(f"{path} has {t} frames, but {len(times)} times; frames are missing")
    titles = list(names or (["u"] if channels == 1 else [f"u{k}" for k in range(channels)]))
    require(len(titles) == channels, f"{path} has {channels} channels, got {len(titles)} names")
    spec = _described(path.stem, [FieldSpec(k) for k in titles], lines, times, boundary, path, tuple(space))
    none = torch.zeros(len(seeds), 0, dtype=torch.float64)
    return ArrayCases(spec, lambda case, f: _single(file[seeds[case]]["data"][f]), times, lines, none, str(path))


def _incompressible(file: Any, path: Path, boundary: Boundary) -> ArrayCases:
    """Return cases of velocity ``(n, T, *S, D)`` and a tracer."""
    n, t, *space, _ = file["velocity"].shape
    times = _wanted(file, "t", path)
    if times.shape != (n, t) or file["particles"].shape[:2] != (n, t):
        raise BadFile(f"{path}: velocity, particles and t differ in cases or frames; frames are missing")
    fields = [FieldSpec("velocity", 1), FieldSpec("particles"), FieldSpec("force", 1, varies=False)]
    lines = [(torch.arange(m, dtype=torch.float64) + 0.5) / m for m in space]  # the file has no coordinates
    spec = _described(path.stem, fields, lines, times[0], boundary, path, tuple(space))

    def read(case: int, frames: slice) -> Tensor:
        return torch.cat([_single(file[k][case, frames]) for k in ("velocity", "particles")], -1)

    none = torch.zeros(n, 0, dtype=torch.float64)
    return ArrayCases(spec, read, times, lines, none, str(path), lambda case: _single(file["force"][case]))


def pdearena(paths: Mapping[str, str | Path | Sequence[str | Path]], *, boundary: Boundary) -> Foreign:
    """Return the windows of files of PDEArena, or of Lie-point-symmetry data augmentation.

    Args:
        paths: files by split: ``{"train": [...], "valid": ..., "test": ...}``; each holds a group named like its split.
        boundary: of the axes; the files do not say.

    Raises:
        DataMissing: there is no such file.
        BadFile: it is damaged, of another layout, or has missing frames.
        Mismatch: files hold different fields or grids.
    """
    splits: dict[str, list[Chosen]] = {}
    spec: DataSpec | None = None
    for split, given in paths.items():
        require(split in ("train", "valid", "test"), f"splits are train, valid and test, got {split!r}")
        for path in [given] if isinstance(given, (str, Path)) else given:
            whole = _arena(Path(path), split, boundary)
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


def _arena(path: Path, split: str, boundary: Boundary) -> ArrayCases:
    """Return the cases of one file."""
    file = open_file(path)
    if split not in file:
        raise BadFile(f"{path} has no group {split}; it holds {', '.join(file)}")
    group = file[split]
    series = [k for k in group if re.fullmatch(r"pde_\d+-\d+", k)]
    keys = series[:1] or [k for k in ("u", "vx", "vy") if k in group]
    if not keys or (not series and keys != ["u", "vx", "vy"]):
        raise BadFile(f"{path} is not in a layout of PDEArena; {split} holds {', '.join(group)}")
    n, t, *space = group[keys[0]].shape
    times = _wanted(group, "t", path)
    short = [k for k in keys if group[k].shape != (n, t, *space)]
    if short or times.shape != (n, t):
        raise BadFile(
            f"{path}: {', '.join(short) or 't'} and {keys[0]} differ in cases, frames or points; frames are missing"
        )
    lines = [_wanted(group, axis, path) for axis, _ in zip(AXES, space, strict=False)]
    lines = [line[0] if bool((line == line[0]).all()) else line for line in lines]
    told = {"buo_y": _wanted(group, "buo_y", path)} if "buo_y" in group else {}
    fields = [FieldSpec("u")] if series else [FieldSpec("u"), FieldSpec("v", 1)]
    spec = _described("pdearena", fields, lines, times[0], boundary, path, tuple(space))
    parameters = tuple(ParameterSpec(k, float(v.min()), float(v.max())) for k, v in told.items())
    spec = replace(spec, parameters=parameters)
    values = torch.stack(list(told.values()), 1) if told else torch.zeros(n, 0, dtype=torch.float64)

    def read(case: int, frames: slice) -> Tensor:
        return torch.stack([_single(group[k][case, frames]) for k in keys], -1)

    return ArrayCases(spec, read, times, lines, values, str(path))


def _described(
    name: str,
    fields: Sequence[FieldSpec],
    lines: Lines,
    times: Tensor,
    boundary: Boundary,
    path: Path,
    space: tuple[int, ...],
) -> DataSpec:
    found = tuple(line.shape[-1] for line in lines)
    if found != space:
        raise BadFile(f"{path} has coordinates of {found} points, but fields of {space}")
    low, high = zip(*(_ends(line, boundary == "periodic") for line in lines), strict=True)
    return DataSpec(
        name, tuple(fields), AXES[: len(lines)], low, high, space, (boundary,) * len(lines), len(times), _step(times)
    )


def _ends(line: Tensor, periodic: bool) -> tuple[float, float]:
    """Return the ends of an axis; points of others are middles of cells, those of a periodic one begin at its lower end."""
    line = line[0] if line.ndim == 2 else line
    step = float(line[1] - line[0]) if len(line) > 1 else 0.0
    low = float(line[0]) - (0.0 if periodic else step / 2)
    return low, low + step * len(line)


def _step(times: Tensor) -> float:
    clock = times.reshape(-1, times.shape[-1])[0]
    return float(clock[1] - clock[0]) if len(clock) > 1 else 0.0


def _regular(spec: DataSpec) -> list[Tensor]:
    shift = [0.0 if kind == "periodic" else 0.5 for kind in spec.boundary]
    ends = zip(spec.low, spec.high, spec.resolution, shift, strict=True)
    return [low + (high - low) * (torch.arange(n, dtype=torch.float64) + s) / n for low, high, n, s in ends]


def _flat(value: Tensor, f: FieldSpec) -> Tensor:
    return value.flatten(-f.order) if f.order else value.unsqueeze(-1)


def _wanted(group: Any, name: str, path: str | Path) -> Tensor:
    if name not in group:
        raise BadFile(f"{path} has no {name}; it holds {', '.join(group)}")
    return torch.from_numpy(np.array(group[name], "f8"))


def _single(value: Array) -> Tensor:
    return torch.from_numpy(np.asarray(value, "f4"))
