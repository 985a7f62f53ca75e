"""A data set by its path: a folder of The Well's layout, a file of PDEBench, files of PDEArena."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast, get_args

from isocline._core.errors import BadFile, require
from isocline.datasets.fields import Boundary
from isocline.datasets.hdf5 import open_file
from isocline.datasets.pdearena import pdearena
from isocline.datasets.pdebench import pdebench
from isocline.datasets.stored import SPLITS, Stored
from isocline.datasets.windows import FileSource


def open_data(path: str | Path, boundary: str | None = None) -> FileSource:
    """Return the data set at a path.

    A file is one of PDEBench, or of PDEArena where it has a group named like a split. A folder that holds HDF5 files itself has
    those of PDEArena; any other is one of The Well's layout.

    Args:
        path: the file or folder.
        boundary: ``"periodic"``, ``"wall"`` or ``"open"``, of all axes; only The Well's files say it themselves.

    Raises:
        InvalidInput: the boundary is needed and not given.
        DataMissing: there is nothing.
        BadFile: a file is damaged or of another layout.
    """
    path = Path(path)
    files = sorted([*path.glob("*.h5"), *path.glob("*.hdf5")]) if path.is_dir() else [path]
    if (path.is_dir() and not files) or not path.exists():
        return Stored(path)
    kind = _boundary(path, boundary)
    if path.is_file() and _split(path) is None:
        return pdebench(path, boundary=kind)
    return pdearena(_by_split(files), boundary=kind)


def _boundary(path: Path, given: str | None) -> Boundary:
    known = ", ".join(get_args(Boundary))
    require(given is not None, f"{path} does not say how its axes end; give the boundary: {known}")
    require(given in get_args(Boundary), f"there is no boundary {given!r}; there are {known}")
    return cast(Boundary, given)


def _by_split(files: Sequence[Path]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in files:
        split = _split(path)
        if split is None:
            raise BadFile(f"{path} has no group {', '.join(SPLITS)}; give files of PDEBench one by one")
        found.setdefault(split, []).append(path)
    return found


def _split(path: Path) -> str | None:
    """Return the split that a file of PDEArena has."""
    file = open_file(path)
    return next((name for name in SPLITS if name in file), None)
