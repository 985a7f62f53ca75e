r"""Data sets of CFDBench as windows (Luo, Chen and Zhang, arXiv 2310.05963).

A problem is a folder with ``prop``, ``bc`` and ``geo``, each with ``case0000``, ...; a case has ``u.npy`` and ``v.npy``,
(T, height, width), and its parameters in ``case.json``. Cases differ in length; all are read as far as the shortest goes. Where
both components are zero in all frames is the obstacle, or a wall: the mask. Points are middles of the cells of the unit square; the
true sizes are among the parameters.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from isocline._core.errors import BadFile, DataMissing, require
from isocline._core.stream import Stream
from isocline.datasets.fields import DataSpec, FieldSpec, ParameterSpec
from isocline.datasets.foreign import FRACTIONS, Array, ArrayCases, Foreign, divided
from isocline.datasets.windows import MASK

SETS = ("prop", "bc", "geo")


def cfdbench(
    folder: str | Path, *, dt: float, sets: Sequence[str] = SETS, fractions: Sequence[float] = FRACTIONS, seed: int = 0
) -> Foreign:
    """Return the windows of a problem of CFDBench: the field ``velocity``, the constant field ``mask``, all numbers of the cases.

    Args:
        folder: of the problem, such as ``cavity``.
        dt: time between frames, in seconds; the files do not say.
        sets: which of ``prop``, ``bc`` and ``geo``.
        fractions: which part of the cases is ``train``, ``valid`` and ``test``.
        seed: of the order in which cases are dealt out.

    Raises:
        DataMissing: there are no cases.
        BadFile: a case is damaged, or differs from the others in its grid or the names of its parameters.
    """
    unknown = [name for name in sets if name not in SETS]
    require(not unknown, f"CFDBench has the sets {', '.join(SETS)}, not {', '.join(unknown)}")
    found = [path for name in sets for path in sorted((Path(folder) / name).glob("case*"))]
    if not found:
        raise DataMissing(f"there are no cases of CFDBench in {folder}: it needs {sets[0]}/case0000/u.npy")
    order = Stream(seed, "cfdbench").permutation(len(found)).tolist()
    whole = _cases([found[k] for k in order], Path(folder), dt)
    return Foreign(whole.spec, divided(whole, fractions))


def _cases(paths: Sequence[Path], folder: Path, dt: float) -> ArrayCases:
    fields = [_components(path) for path in paths]
    grid = fields[0][0].shape[1:]
    for path, pair in zip(paths, fields, strict=True):
        if any(a.shape[1:] != grid or len(a) != len(pair[0]) for a in pair):
            raise BadFile(f"{path}: u and v have shapes {pair[0].shape} and {pair[1].shape}; other cases have {grid}")
    told = [_numbers(path) for path in paths]
    names = list(told[0])
    for path, numbers in zip(paths, told, strict=True):
        if list(numbers) != names:
            raise BadFile(f"{path / 'case.json'} has {', '.join(numbers)}; {paths[0]} has {', '.join(names)}")
    values = torch.tensor([list(numbers.values()) for numbers in told], dtype=torch.float64)
    times, (height, width) = min(len(pair[0]) for pair in fields), grid
    ranges = [ParameterSpec(k, float(v.min()), float(v.max())) for k, v in zip(names, values.T, strict=True)]
    parts = (FieldSpec("velocity", 1), FieldSpec(MASK, varies=False))
    low, high, ends = (0.0, 0.0), (1.0, 1.0), ("wall", "wall")
    spec = DataSpec(folder.name, parts, ("x", "y"), low, high, (width, height), ends, times, dt, tuple(ranges))  # type: ignore[arg-type]
    lines = [(torch.arange(n, dtype=torch.float64) + 0.5) / n for n in (width, height)]

    def read(case: int, frames: slice) -> Tensor:
        return torch.stack([_plane(a[:times][frames]) for a in fields[case]], -1)

    def mask(case: int) -> Tensor:
        moves = np.zeros(grid, bool)
        for a in fields[case]:
            moves |= (np.asarray(a) != 0).any(0)
        return _plane(moves[None])[0].unsqueeze(-1)

    clock = dt * torch.arange(times, dtype=torch.float64)
    return ArrayCases(spec, read, clock, lines, values, str(folder), mask)


def _plane(frames: Array) -> Tensor:
    """Return frames (T, height, width) as (T, x, y) float32."""
    return torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 2, 1), "f4"))


def _components(path: Path) -> list[Array]:
    try:
        return [np.load(path / name, mmap_mode="r", allow_pickle=False) for name in ("u.npy", "v.npy")]
    except (OSError, ValueError, EOFError) as error:
        raise BadFile(f"{path}: u.npy or v.npy is missing or damaged; unpack this case again") from error


def _numbers(path: Path) -> dict[str, float]:
    try:
        found = json.loads((path / "case.json").read_text())
        return {k: float(found[k]) for k in sorted(found)}
    except (OSError, ValueError, TypeError) as error:
        raise BadFile(f"{path / 'case.json'} is missing or holds something else than numbers") from error
