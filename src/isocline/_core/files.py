"""Safe files: atomic writes, strict JSON, safetensors. Nothing here loads a pickle."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from isocline._core.errors import BadFile, CannotWrite, DataMissing


def write_bytes(path: str | Path, data: bytes) -> Path:
    """Write `data` so that a reader sees either the old file or the whole new one, even after a crash."""
    path = Path(path)
    folder = ensure_folder(path.parent)
    try:
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{path.name}.")
    except OSError as error:
        raise CannotWrite(f"cannot write {path}: {error.strerror}; choose another place") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise CannotWrite(f"cannot write {path}: {error.strerror}; choose another place") from error
    return path


def write_text(path: str | Path, text: str) -> Path:
    """Write `text` as UTF-8, atomically."""
    return write_bytes(path, text.encode())


def ensure_folder(path: str | Path) -> Path:
    """Create the folder `path` where it is missing; refuse a place that cannot be written."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite(f"cannot create the folder {path}: {error.strerror}; choose another place") from error
    if not os.access(path, os.W_OK):
        raise CannotWrite(f"cannot write into the folder {path}: permission denied; choose another place")
    return path


def write_json(path: str | Path, value: Any) -> Path:
    """Write `value` as readable JSON; NaN and infinity are refused."""
    try:
        text = json.dumps(value, indent=1, allow_nan=False)
    except ValueError as error:
        raise BadFile(f"{path}: a NaN or infinite number cannot be stored as JSON") from error
    return write_text(path, text + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON; a missing, damaged or non-finite file is a one-line error that names it."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataMissing(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadFile(f"{path} is not a JSON file") from error
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        raise BadFile(f"{path} is not a valid JSON file: {error}") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"it contains {name}")


def finite(value: Any) -> bool:
    """Say whether `value` is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Path:
    """Write named tensors as safetensors, atomically, with string metadata."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return write_bytes(path, safetensors_bytes(plain, metadata=dict(metadata or {})))


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file and its metadata; a truncated file is a one-line error."""
    path = Path(path)
    if not path.is_file():
        raise DataMissing(f"there is no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise BadFile(f"{path} is truncated or not a safetensors file ({error}); fetch or train it again") from error
