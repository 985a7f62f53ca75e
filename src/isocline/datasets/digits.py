"""Handwritten digits of 8 x 8 pixels: 1 797 images, the test part of UCI's "Optical Recognition of Handwritten Digits".

They ship inside scikit-learn (BSD-3-Clause). Its file is read in place; scikit-learn itself is never imported.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

from isocline._core.errors import DataMissing
from isocline.datasets.images import Images
from isocline.datasets.packages import data_folder
from isocline.datasets.table import read_table

FILE = "digits.csv.gz"
LEVELS = 16  # a pixel counts the dark points, 0..16, of a 4 x 4 block


def load_digits(folder: str | Path | None = None) -> Images:
    """Return the 1 797 images (1797, 1, 8, 8); the counts ``v`` in 0..16 are stored as the bytes ``round(255 v / 16)``.

    The scaling loses nothing: ``v = round(16 byte / 255)``.

    Args:
        folder: a folder that holds ``digits.csv.gz``. Where it is None, ``digits`` in the data folder and then an
            installed scikit-learn are tried.

    Raises:
        DataMissing: no place holds the file; the message says how to get it.
        BadFile: the file is damaged.
    """
    places = [Path(folder)] if folder is not None else [data_folder() / "digits", *_installed()]
    path = next((place / FILE for place in places if (place / FILE).is_file()), None)
    if path is None:
        tried = " or ".join(map(str, places))
        raise DataMissing(f"the digits ({FILE}) are not in {tried}; run `pip install scikit-learn`, which ships them")
    counts, labels = read_table(path, count=1797, side=8, largest=LEVELS)
    pixels = (counts * 255 + LEVELS // 2) // LEVELS
    return Images(pixels.to(torch.uint8), labels, tuple("0123456789"))


def _installed() -> list[Path]:
    spec = find_spec("sklearn")  # finds a top-level package without importing it
    return [Path(spec.origin).parent / "datasets" / "data"] if spec and spec.origin else []
