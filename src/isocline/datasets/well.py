r"""The Well's HDF5 layout (Ohana et al., "The Well", NeurIPS 2024, arXiv 2412.00568), written and read.

A file holds n cases in single precision: time and axes in ``dimensions``, kinds of boundary in ``boundary_conditions``,
parameters in ``scalars``, and fields by their order in ``t0_fields``, ``t1_fields`` and ``t2_fields``, each an array

    ``(n, T, *S)``        ``(n, T, *S, D)``        ``(n, T, *S, D, D)``

without n or T where it does not depend on the case or on time. A parameter that is one number in all cases of the file is also an
attribute, listed in ``simulation_parameters``. The group ``isocline`` is ours; other readers pass over it. It keeps the `DataSpec`,
with the order of fields, and times, axes and parameters in double precision.

Scattered points and meshes are an extension with ``grid_type = "points"``: the group ``points`` holds ``coordinates`` (sum N, D),
``offsets`` (n + 1,), and, for meshes, ``cells`` (sum M, K) of vertex numbers within a case with ``cell_offsets`` (n + 1,). Cases
lie one after the other, so a field is (sum N, T), (sum N, T, D) or (sum N, T, D, D).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isocline._core.errors import BadFile, InvalidInput, NotFinite, require
from isocline.datasets.fields import Boundary, DataSpec, FieldSpec, Frame, ParameterSpec
from isocline.datasets.hdf5 import new_file, open_file

Array = np.ndarray[Any, Any]
OWN = "isocline"


def write_well(
    path: str | Path,
    spec: DataSpec,
    fields: Mapping[str, Tensor],
    *,
    times: Tensor,
    coordinates: Tensor,
    parameters: Mapping[str, Tensor] | None = None,
    constants: Mapping[str, Tensor] | None = None,
    offsets: Tensor | None = None,
    cells: Tensor | None = None,
    cell_offsets: Tensor | None = None,
) -> Path:
    """Write cases to a file, atomically.

    Args:
        path: ends in ``.hdf5``.
        spec: what they are.
        fields: those that vary, by name: ``(n, T, *S)``, ``(n, T, *S, D)`` or ``(n, T, *S, D, D)``; on points (sum N, T), ...
        times: (T,), or (n, T) where they differ between cases.
        coordinates: ``(*S, D)`` or ``(n, *S, D)``, of straight grid lines; on points (sum N, D).
        parameters: by name, (n,).
        constants: fields that do not vary, without the axis of time.
        offsets: on points, (n + 1,), where each case begins.
        cells: of a mesh, (sum M, K), numbers of vertices within a case.
        cell_offsets: (n + 1,), where the cells of each case begin.

    Raises:
        InvalidInput: something is missing or has another shape than `spec` says.
        NotFinite: a field has a NaN or an infinite value; the text names the case, the frame and the field.
        CannotWrite: the place cannot be written to, or the disk is full; nothing is left behind.
    """
    require(spec.grid != "points" or offsets is not None, f"{spec.name}: cases on points need offsets")
    missing = [f.name for f in spec.varying if f.name not in fields]
    require(not missing, f"{spec.name}: there are no values of {', '.join(missing)}")
    for f in spec.varying:
        shape = tuple(fields[f.name].shape)
        require(
            len(shape) > 1 and shape[1] == spec.times,
            f"{spec.name}: {f.name} has shape {shape}, but its second axis is time with {spec.times} frames",
        )
    n = len(offsets) - 1 if offsets is not None else len(fields[spec.varying[0].name])
    mesh = {"offsets": offsets, "cells": cells, "cell_offsets": cell_offsets}
    given: dict[str, Any] = {k: v for k, v in mesh.items() if v is not None}
    with writing(path, spec, n, coordinates=coordinates, parameters=parameters or {}, **given) as file:
        file.clock(times)
        file.constants(constants or {})
        file.every_frame(fields)
    return Path(path)


@contextmanager
def writing(
    path: str | Path,
    spec: DataSpec,
    n: int,
    *,
    coordinates: Tensor,
    parameters: Mapping[str, Tensor],
    first: int = 0,
    **mesh: Tensor,
) -> Iterator[WellWriter]:
    """Open a file for n cases that are written frame by frame; it appears under its name when all frames are there.

    Args as in `write_well`; `first` is the number of the first case in messages.
    """
    with new_file(path) as (file, check):
        writer = WellWriter(file, spec, n, first, len(coordinates), check)
        writer.surroundings(coordinates, parameters, mesh)
        yield writer
        writer.require_whole()


class WellWriter:
    """Writes frames to an open file; use through `writing`."""

    def __init__(self, file: Any, spec: DataSpec, n: int, first: int, points: int, check: Callable[[], None]) -> None:
        self.file, self.spec, self.n, self.first, self.check = file, spec, n, first, check
        ragged, d = spec.grid == "points", len(spec.axes)
        self.head = (points,) if ragged else (n,)
        self.space = () if ragged else spec.resolution
        self.done: set[int] = set()
        for order in range(3):
            group = file.create_group(f"t{order}_fields")
            mine = [f for f in spec.fields if f.order == order]
            group.attrs["field_names"] = [f.name for f in mine]
            for f in mine:
                time = (spec.times,) if f.varies else ()
                data = group.create_dataset(f.name, (*self.head, *time, *self.space, *(d,) * order), "f4")
                data.attrs.update(dim_varying=[True] * d, sample_varying=True, time_varying=f.varies)
                if order == 2:
                    data.attrs.update(symmetric=False, antisymmetric=False)

    def surroundings(self, coordinates: Tensor, parameters: Mapping[str, Tensor], mesh: Mapping[str, Tensor]) -> None:
        """Write everything but times and fields."""
        file, spec, n = self.file, self.spec, self.n
        names = [p.name for p in spec.parameters]
        missing = [name for name in names if name not in parameters]
        require(not missing, f"{spec.name}: there are no values of {', '.join(missing)}")
        values = [_doubles(parameters[name]) for name in names]
        require(all(v.shape == (n,) for v in values), f"{spec.name}: parameters need shape ({n},) each")
        same = [name for name, v in zip(names, values, strict=True) if (v == v[0]).all()]
        about = {"dataset_name": spec.name, "grid_type": spec.grid, "n_spatial_dims": len(spec.axes)}
        file.attrs.update(**about, n_trajectories=n, simulation_parameters=same)
        own, scalars = file.create_group(OWN), file.create_group("scalars")
        own.attrs["spec"] = json.dumps(spec.as_dict())
        own["parameters"] = np.stack(values, 1) if names else np.zeros((n, 0))
        scalars.attrs["field_names"] = names
        for name, v in zip(names, values, strict=True):
            if name in same:
                file.attrs[name] = float(v[0])
            scalars.create_dataset(name, data=v.astype("f4")).attrs.update(sample_varying=True, time_varying=False)
        file.create_group("dimensions").attrs["spatial_dims"] = list(spec.axes)
        if spec.grid == "points":
            self._points(coordinates, mesh)
            return
        for axis, line in zip(spec.axes, _lines(spec, coordinates, n), strict=True):
            self._both(axis, line, line.ndim == 2)
        self._boundaries()

    def _both(self, name: str, values: Array, by_case: bool) -> None:
        """Write numbers in single precision for everyone and in double precision for us."""
        data = self.file["dimensions"].create_dataset(name, data=values.astype("f4"))
        data.attrs.update(sample_varying=by_case, time_varying=False)
        self.file[OWN][name] = values

    def _points(self, coordinates: Tensor, mesh: Mapping[str, Tensor]) -> None:
        name, d, ends = self.spec.name, len(self.spec.axes), mesh["offsets"]
        require(
            coordinates.ndim == 2 and coordinates.shape[1] == d,
            f"{name}: points need shape (sum N, {d}), got {tuple(coordinates.shape)}",
        )
        require(("cells" in mesh) == ("cell_offsets" in mesh), f"{name}: cells and cell_offsets come together")
        _require_offsets(ends, len(coordinates), f"{name}: offsets")
        if "cells" in mesh:
            _require_offsets(mesh["cell_offsets"], len(mesh["cells"]), f"{name}: cell_offsets")
        group = self.file.create_group("points")
        group["coordinates"] = _doubles(coordinates)
        for key, value in mesh.items():
            group[key] = value.detach().cpu().long().numpy()
        self.file.create_group("boundary_conditions")

    def _boundaries(self) -> None:
        group = self.file.create_group("boundary_conditions")
        for axis, kind, points in zip(self.spec.axes, self.spec.boundary, self.spec.resolution, strict=True):
            mask = np.zeros(points, bool)
            mask[[0, -1]] = True
            one = group.create_group(f"{axis}_{kind}")
            one.attrs.update(associated_dims=[axis], bc_type=kind, sample_varying=False, time_varying=False)
            one.attrs["associated_fields"] = []
            one["mask"], one["values"] = mask, np.zeros(int(mask.sum()), "f4")

    def clock(self, times: Tensor) -> None:
        """Write the times of frames, (T,) or (n, T)."""
        spec, n = self.spec, self.n
        require(
            tuple(times.shape) in ((spec.times,), (n, spec.times)),
            f"{spec.name}: times need shape ({spec.times},) or ({n}, {spec.times}), got {tuple(times.shape)}",
        )
        require(bool((times.diff(dim=-1) > 0).all()), f"{spec.name}: times must increase")
        same = times.ndim == 2 and bool((times == times[0]).all())
        self._both("time", _doubles(times[0] if same else times), times.ndim == 2 and not same)

    def constants(self, values: Mapping[str, Tensor]) -> None:
        """Write the fields that do not vary."""
        for f in self.spec.constant:
            require(f.name in values, f"{self.spec.name}: there are no values of {f.name}")
            self._data(f)[...] = self._checked(values[f.name], f, None)

    def frame(self, k: int, fields: Mapping[str, Tensor] | Frame) -> None:
        """Write frame k of the fields that vary."""
        values = fields.fields if isinstance(fields, Frame) else fields
        name, times = self.spec.name, self.spec.times
        require(0 <= k < times, f"{name} has {times} frames a case, but there came a frame number {k}")
        for f in self.spec.varying:
            require(f.name in values, f"{name}: frame {k} has no {f.name}, only {', '.join(values)}")
            self._data(f)[:, k] = self._checked(values[f.name], f, k)
        self.check()
        self.done.add(k)

    def every_frame(self, fields: Mapping[str, Tensor]) -> None:
        """Write all frames of the fields that vary; at once."""
        for f in self.spec.varying:
            self._data(f)[...] = self._checked(fields[f.name], f, slice(None))
        self.check()
        self.done.update(range(self.spec.times))

    def _data(self, f: FieldSpec) -> Any:
        return self.file[f"t{f.order}_fields"][f.name]

    def _checked(self, value: Tensor, f: FieldSpec, frame: int | slice | None) -> Array:
        name, time = self.spec.name, (self.spec.times,) if isinstance(frame, slice) else ()
        shape = (*self.head, *time, *self.space, *(len(self.spec.axes),) * f.order)
        got = tuple(value.shape)
        require(got == shape, f"{name}: {f.name} should have shape {shape}, got {got}")
        found: Array = value.detach().cpu().to(torch.float32).numpy()
        bad = ~np.isfinite(found)
        if bad.any():
            row, *rest = (int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape))
            frame = rest[0] if time else frame
            place = f"point {row}" if self.spec.grid == "points" else f"case {row + self.first}"
            place += "" if frame is None else f", frame {frame}"
            raise NotFinite(f"{name}: {f.name} is NaN or infinite in {place}; the file was not written")
        return found

    def require_whole(self) -> None:
        """Refuse to finish a file with missing frames or without times."""
        name, gone = self.spec.name, sorted(set(range(self.spec.times)) - self.done)
        require(
            not gone,
            f"{name}: frames are missing, {len(gone)} of {self.spec.times} from frame {min(gone, default=0)} on",
        )


class WellFile:
    """Cases of one file, read as they are asked for.

    Args:
        path: of the file.
        keep: whether its fields stay in memory once read.

    Attributes:
        spec: what it holds.
        parameters: (n, P) float64.
        offsets: on points, (n + 1,), where each case begins.
        cells: of a mesh, (sum M, K); None where there are none.
        cell_offsets: (n + 1,), where the cells of each case begin.
        size: bytes of the fields.

    Raises:
        DataMissing: there is no such file.
        BadFile: it is damaged, has missing frames, or a field of another shape than its axes say.
    """

    def __init__(self, path: str | Path, keep: bool = True) -> None:
        self.path, self.keep = Path(path), keep
        self._kept: dict[str, Any] = {}  # arrays, or data sets of the open file
        self._how: dict[str, tuple[bool, tuple[bool, ...]]] = {}
        self._file: Any = None
        with open_file(path) as file:
            try:
                self._head(file)
                self._require_shapes(file)
            except KeyError as error:
                raise BadFile(f"{path} is not in The Well's layout: {error.args[0]}") from error
            except InvalidInput as error:
                raise BadFile(f"{path}: {error}") from error

    def _head(self, file: Any) -> None:
        self.n, self.grid = int(file.attrs["n_trajectories"]), str(file.attrs["grid_type"])
        if self.grid not in ("cartesian", "points"):
            raise BadFile(f"{self.path} has a {self.grid} grid; cartesian grids and points are supported")
        own, dimensions = file.get(OWN, {}), file["dimensions"]
        axes = [str(a) for a in dimensions.attrs["spatial_dims"]]
        if int(file.attrs["n_spatial_dims"]) != len(axes):
            raise BadFile(f"{self.path} says it has {file.attrs['n_spatial_dims']} dimensions, but its axes are {axes}")
        self.times = _double((own if "time" in own else dimensions)["time"])
        self.lines = [_double((own if a in own else dimensions)[a]) for a in axes] if self.grid != "points" else []
        self.offsets: Tensor | None = None
        self.cells: Tensor | None = None
        self.cell_offsets: Tensor | None = None
        if self.grid == "points":
            self._points(file["points"])
        else:
            self.coordinates = _grid(self.lines)
        names = self._constant_scalars(file["scalars"])
        self.parameters = self._parameters(own, file["scalars"], names)
        self.spec = DataSpec.from_dict(json.loads(own.attrs["spec"])) if own else self._spec(file, axes, names)
        self.size = sum(int(data.size) * 4 for k in range(3) for data in file[f"t{k}_fields"].values())

    def _points(self, group: Any) -> None:
        self.coordinates, self.offsets = _double(group["coordinates"]), torch.from_numpy(group["offsets"][...])
        if "cells" in group:
            self.cells, self.cell_offsets = (torch.from_numpy(group[k][...]) for k in ("cells", "cell_offsets"))

    def _constant_scalars(self, group: Any) -> list[str]:
        names = [str(k) for k in group.attrs["field_names"]]
        return [k for k in names if not group[k].attrs["time_varying"] and group[k].size in (1, self.n)]

    def _parameters(self, own: Any, group: Any, names: Sequence[str]) -> Tensor:
        if "parameters" in own:
            return _double(own["parameters"])
        found = [_double(group[k]).reshape(-1).expand(self.n) for k in names]
        return torch.stack(found, 1) if found else torch.zeros(self.n, 0, dtype=torch.float64)

    def _spec(self, file: Any, axes: Sequence[str], names: Sequence[str]) -> DataSpec:
        """Return what the file holds, as far as the published layout says."""
        if self.grid == "points":
            raise BadFile(f"{self.path} has points but no description of them; write it with `write_well`")
        groups = {order: file[f"t{order}_fields"] for order in range(3)}
        fields = [
            FieldSpec(str(name), order, varies=bool(group[name].attrs["time_varying"]))
            for order, group in groups.items()
            for name in group.attrs["field_names"]
        ]
        fields.sort(key=lambda f: not f.varies)
        boundary = tuple(_kind(file, axis) for axis in axes)
        ends = [_ends(line, kind == "periodic") for line, kind in zip(self.lines, boundary, strict=True)]
        clock = self.times.reshape(-1, self.times.shape[-1])[0]
        dt = float(clock[1] - clock[0]) if len(clock) > 1 else 0.0
        columns = zip(names, self.parameters.unbind(1), strict=True)
        return DataSpec(
            str(file.attrs["dataset_name"]),
            tuple(fields),
            tuple(axes),
            tuple(low for low, _ in ends),
            tuple(high for _, high in ends),
            tuple(line.shape[-1] for line in self.lines),
            boundary,
            len(clock),
            dt,
            tuple(ParameterSpec(name, float(v.min()), float(v.max())) for name, v in columns),
        )

    def _require_shapes(self, file: Any) -> None:
        spec, times, place = self.spec, self.times.shape[-1], self.path
        if times != spec.times:
            raise BadFile(f"{place} has {times} times, but its description says {spec.times} frames; write it again")
        lengths = tuple(line.shape[-1] for line in self.lines)
        if self.lines and lengths != spec.resolution:
            raise BadFile(f"{place} has axes of {lengths} points, but its description says {spec.resolution}")
        if self.parameters.shape != (self.n, len(spec.parameters)):
            raise BadFile(f"{place} has parameters {tuple(self.parameters.shape)} of {self.n} cases; write it again")
        for f in spec.fields:
            group = file[f"t{f.order}_fields"]
            if f.name not in group:
                raise BadFile(f"{place} has no field {f.name}; it holds {', '.join(group) or 'none of its order'}")
            self._require_shape(f, group[f.name])

    def _require_shape(self, f: FieldSpec, data: Any) -> None:
        spec, d = self.spec, len(self.spec.axes)
        used = [bool(u) for u in data.attrs["dim_varying"]]
        if len(used) != d:
            raise BadFile(f"{self.path}: {f.name} has {len(used)} dimensions, the axes are {spec.axes}")
        head: tuple[int, ...] = (self.n,) if data.attrs["sample_varying"] else ()
        space = tuple(n for n, u in zip(spec.resolution, used, strict=True) if u) if self.lines else ()
        if self.offsets is not None:
            head = (len(self.coordinates),)
        wanted = (*head, *((spec.times,) if f.varies else ()), *space)
        got, rest = data.shape[: len(wanted)], data.shape[len(wanted) :]
        if f.varies and len(data.shape) > len(head) and data.shape[len(head)] < spec.times:
            frames = data.shape[len(head)]
            raise BadFile(f"{self.path}: {f.name} has {frames} of {spec.times} frames; frames are missing")
        if got != wanted or math.prod(rest) != f.channels(d) or len(rest) > f.order:
            raise BadFile(
                f"{self.path}: {f.name} has shape {data.shape}, but its axes say {(*wanted, *(d,) * f.order)}"
            )

    def __len__(self) -> int:
        return self.n

    def frames(self, case: int, frames: slice) -> Tensor:
        """Return some frames of a case as channels, ``(T, *S, C)`` float32; on points (N, T, C)."""
        return torch.from_numpy(np.concatenate([self._read(f, case, frames) for f in self.spec.varying], -1))

    def constant(self, case: int) -> Tensor:
        """Return the fields of a case that do not vary, ``(*S, C_const)`` float32; on points (N, C_const)."""
        return torch.from_numpy(np.concatenate([self._read(f, case, None) for f in self.spec.constant], -1))

    def points(self, case: int) -> Tensor:
        """Return the coordinates of a case, ``(*S, D)`` float64; on points (N, D)."""
        if self.offsets is not None:
            return self.coordinates[int(self.offsets[case]) : int(self.offsets[case + 1])]
        return self.coordinates[case] if self.by_case else self.coordinates

    @property
    def by_case(self) -> bool:
        """Whether grids differ between cases."""
        return any(line.ndim == 2 for line in self.lines)

    def clock(self, case: int) -> Tensor:
        """Return the times of a case, (T,) float64."""
        return self.times[case] if self.times.ndim == 2 else self.times

    def where(self, case: int) -> str:
        """Return how messages name a case."""
        return f"{self.path}, case {case}"

    @property
    def opened(self) -> bool:
        """Whether the file is open."""
        return self._file is not None

    def close(self) -> None:
        """Close the file; reading opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._kept = self._kept if self.keep else {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_kept": self._kept if self.keep else {}}

    def _read(self, f: FieldSpec, case: int, frames: slice | None) -> Array:
        """Return a field of a case, ``(T, *S, C)`` or ``(*S, C)``; on points (N, T, C) or (N, C)."""
        data, (by_case, used) = self._data(f)
        channels, time = f.channels(len(self.spec.axes)), () if frames is None else (frames,)
        if self.offsets is not None:
            rows = slice(int(self.offsets[case]), int(self.offsets[case + 1]))
            found = np.asarray(data[(rows, *time)], "f4")
            return found.reshape(*found.shape[: 1 + len(time)], channels)
        found = np.asarray(data[(*((case,) if by_case else ()), *time)], "f4")
        lead, shape = found.shape[: len(time)], self.spec.resolution
        if all(used):
            return found.reshape(*lead, *shape, channels)
        kept = [n if use else 1 for n, use in zip(shape, used, strict=True)]
        return np.broadcast_to(found.reshape(*lead, *kept, channels), (*lead, *shape, channels))

    def _data(self, f: FieldSpec) -> tuple[Any, tuple[bool, tuple[bool, ...]]]:
        """Return the values of a field, in memory or in the open file, and which axes they have."""
        if f.name not in self._kept:
            self._file = self._file or open_file(self.path)
            data = self._file[f"t{f.order}_fields"][f.name]
            self._how[f.name] = bool(data.attrs["sample_varying"]), tuple(bool(u) for u in data.attrs["dim_varying"])
            self._kept[f.name] = data[...] if self.keep else data
            if self.keep and len(self._kept) == len(self.spec.fields):
                self._file.close()
                self._file = None
        return self._kept[f.name], self._how[f.name]


def _doubles(values: Tensor) -> Array:
    found: Array = values.detach().cpu().to(torch.float64).numpy()
    return found


def _double(data: Any) -> Tensor:
    return torch.from_numpy(np.array(data, "f8"))


def _require_offsets(ends: Tensor, n: int, what: str) -> None:
    rises = int(ends[0]) == 0 and int(ends[-1]) == n and bool((ends.diff() > 0).all())
    require(rises, f"{what} must rise from 0 to {n}")


def _lines(spec: DataSpec, coordinates: Tensor, n: int) -> list[Array]:
    """Return grid lines, (S_i,) or (n, S_i) each."""
    d, shape = len(spec.axes), (*spec.resolution, len(spec.axes))
    got = tuple(coordinates.shape)
    require(got in (shape, (n, *shape)), f"{spec.name}: coordinates need shape {shape} or {(n, *shape)}, got {got}")
    ahead = coordinates.ndim - d - 1  # an axis of cases
    found = []
    for i in range(d):
        at = (slice(None),) * ahead + tuple(slice(None) if k == i else slice(0, 1) for k in range(d))
        straight = coordinates[(*at, i)]
        require(
            bool((coordinates[..., i] == straight).all()),
            f"{spec.name}: the grid is not made of straight lines; store it as points (grid='points')",
        )
        found.append(_doubles(straight.reshape(*got[:ahead], -1)))
    return found


def _grid(lines: Sequence[Tensor]) -> Tensor:
    """Return the points of grid lines, ``(*S, D)``, or ``(n, *S, D)`` where a line differs between cases."""
    if all(line.ndim == 1 for line in lines):
        return torch.stack(torch.meshgrid(*lines, indexing="ij"), -1)
    n = next(len(line) for line in lines if line.ndim == 2)
    whole = [line if line.ndim == 2 else line.expand(n, -1) for line in lines]
    return torch.stack([_grid([line[i] for line in whole]) for i in range(n)])


def _ends(line: Tensor, periodic: bool) -> tuple[float, float]:
    """Return the ends of an axis: a periodic one is one step longer than its points reach."""
    low, high = float(line.min()), float(line.max())
    step = float(line[..., 1].max() - line[..., 0].min()) if line.shape[-1] > 1 else 0.0
    return low, high + step * periodic


def _kind(file: Any, axis: str) -> Boundary:
    """Return the kind of boundary of an axis; open where the file says nothing."""
    groups = file["boundary_conditions"].values()
    found = {str(b.attrs["bc_type"]).lower() for b in groups if axis in np.atleast_1d(b.attrs["associated_dims"])}
    kinds: tuple[Boundary, ...] = ("periodic", "open", "wall")
    return next((kind for kind in kinds if kind in found), "open")
