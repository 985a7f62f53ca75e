"""HDF5 files that are whole or not there."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from isocline._core.errors import BadFile, CannotWrite, DataMissing, ExtraMissing, IsoclineError
from isocline._core.files import ensure_folder


def h5py_module() -> Any:
    """Return h5py.

    Raises:
        ExtraMissing: it is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise ExtraMissing("HDF5 files need h5py; install isocline[operators]") from error
    return h5py


class _Steady(io.FileIO):
    """A file that remembers the first failure and goes on as if it had worked.

    HDF5 cannot close a file whose last blocks it failed to write, and crashes the process later. So it never sees the failure;
    whoever writes asks for it with `check`, and nothing of such a file is kept.
    """

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of it, or remember why not."""
        view, done = memoryview(data).cast("B"), 0
        try:
            while done < len(view) and self.failure is None:
                done += super().write(view[done:])
        except OSError as error:
            self.failure = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Set the length, or remember why not."""
        try:
            if self.failure is None:
                return super().truncate(size)
        except OSError as error:
            self.failure = error
        return size or 0

    def check(self) -> None:
        """Raise what went wrong."""
        if self.failure is not None:
            raise self.failure


@contextmanager
def new_file(path: str | Path) -> Iterator[tuple[Any, Callable[[], None]]]:
    """Open a new file for writing; it gets its name only when it is complete.

    Yields:
        The HDF5 file, and a function that raises once a write has failed; without it the failure shows at the end.

    Raises:
        CannotWrite: the place cannot be written to, or the disk is full; nothing is left behind.
    """
    path, h5py = Path(path), h5py_module()
    partial = ensure_folder(path.parent) / f".{path.name}.part"
    try:
        with _Steady(partial, "w+") as raw:
            with h5py.File(raw, "w") as file:
                yield file, raw.check
            raw.check()
            os.fsync(raw.fileno())
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, IsoclineError):
            raise CannotWrite(f"cannot write {path}: {_reason(error)}; free space or choose another place") from error
        raise


def _reason(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return "no space left on the disk"
    return error.strerror or str(error).splitlines()[0]


def open_file(path: str | Path) -> Any:
    """Open a file for reading.

    Raises:
        DataMissing: there is none.
        BadFile: it is truncated or of another kind.
    """
    path, h5py = Path(path), h5py_module()
    if not path.is_file():
        raise DataMissing(f"there is no file {path}")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise BadFile(f"{path} is truncated or not an HDF5 file; write or fetch it again") from error
