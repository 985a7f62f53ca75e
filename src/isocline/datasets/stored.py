r"""A data set on disk: windows of The Well's files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from isocline._core.errors import BadFile, DataMissing, Mismatch
from isocline.datasets.fields import DataSpec
from isocline.datasets.well import WellFile
from isocline.datasets.windows import FileSource

SPLITS = ("train", "valid", "test")
MEMORY = 2**30  # bytes
OPEN = 64  # files that stay open at a time


class Stored(FileSource):
    """A folder with ``data/{train,valid,test}/*.hdf5`` in The Well's layout.

    Args:
        folder: written by `generate`, or downloaded.
        memory: data sets of at most so many bytes are kept in memory, larger ones are read by slices.

    Raises:
        DataMissing: there is no data set, or it is not finished.
        BadFile: a file is damaged or has missing frames.
        Mismatch: files differ in their fields, the order of fields, axes, resolution or parameters.
    """

    def __init__(self, folder: str | Path, *, memory: int = MEMORY) -> None:
        self.folder = Path(folder)
        self._splits = {split: _paths(self.folder / "data" / split) for split in SPLITS}
        self._splits = {split: paths for split, paths in self._splits.items() if paths}
        if not self._splits:
            raise DataMissing(_absent(self.folder))
        self._files = {split: [WellFile(path) for path in paths] for split, paths in self._splits.items()}
        every = [file for files in self._files.values() for file in files]
        keep = sum(file.size for file in every) <= memory
        self.spec = _common(every)
        for file in every:
            file.keep = keep

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that there are."""
        return tuple(self._splits)

    def files(self, split: str) -> list[WellFile]:
        """Return the files of a split."""
        files = self._files[split]
        if len(files) > OPEN and not files[0].keep:
            self._close_some()
        return files

    def _close_some(self) -> None:
        opened = [file for files in self._files.values() for file in files if file.opened]
        for file in opened[: max(0, len(opened) - OPEN)]:
            file.close()

    def close(self) -> None:
        """Close all files; reading opens them again."""
        for files in self._files.values():
            for file in files:
                file.close()


def _paths(folder: Path) -> list[Path]:
    found = [*folder.glob("*.hdf5"), *folder.glob("*.h5")] if folder.is_dir() else []
    return sorted(path for path in found if not path.name.startswith("."))


def _absent(folder: Path) -> str:
    if (folder / ".generating").is_dir():
        return f"the data set in {folder} is not finished; run the same `generate` again to go on"
    return f"there is no data set in {folder}: it needs data/train/*.hdf5; write one with `isocline data generate`"


def _common(files: list[WellFile]) -> DataSpec:
    """Return what all files hold; ranges of parameters that are only known from values are widened."""
    spec = files[0].spec
    for file in files[1:]:
        other = file.spec
        try:
            spec.require_same_fields(other)
        except Mismatch as error:
            raise Mismatch(f"{file.path} and {files[0].path} do not belong together: {error}") from error
        for what in ("name", "resolution", "grid", "boundary"):
            one, two = getattr(spec, what), getattr(other, what)
            if one != two and not (what == "resolution" and spec.grid == "points"):
                raise Mismatch(f"{file.path} has {what} {two}, {files[0].path} has {one}; keep them in two folders")
        if other.times != spec.times and file.path.parent == files[0].path.parent:
            raise BadFile(f"{file.path} has {other.times} frames, {files[0].path} has {spec.times}; frames are missing")
    ranges = []
    for i, p in enumerate(spec.parameters):
        low = min(file.spec.parameters[i].low for file in files)
        ranges.append(replace(p, low=low, high=max(file.spec.parameters[i].high for file in files)))
    return replace(spec, parameters=tuple(ranges))
