"""Weights that ship with the library, each beside a model card ``<name>.md`` (data, licence, cost, accuracy)."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from isocline._core.errors import DataMissing, nearest


def bundled(name: str) -> Path:
    """Return the path of a bundled weights file.

    Args:
        name: the file's name without its ending, for example ``fashion_classifier``.

    Raises:
        DataMissing: no bundled model has that name.

    Examples:
        >>> bundled("fashion_classifier").name
        'fashion_classifier.safetensors'
    """
    folder = Path(str(files("isocline.models")))
    path = folder / f"{name}.safetensors"
    known = {file.stem: file for file in folder.glob("*.safetensors")}
    if name not in known:
        raise DataMissing(f"there is no bundled model {name!r}. {nearest(name, known)}")
    return path
