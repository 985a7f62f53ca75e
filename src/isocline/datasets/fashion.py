"""Fashion-MNIST: 70 000 grey images of 28 x 28 pixels in ten classes of clothing (Xiao et al., arXiv 1708.07747; MIT licence)."""

from __future__ import annotations

from pathlib import Path

from isocline._core.errors import DataMissing
from isocline.datasets.idx import read_idx
from isocline.datasets.images import Images
from isocline.datasets.packages import data_folder

NAMES = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def load_fashion(folder: str | Path | None = None, *, train: bool = True) -> Images:
    """Return the 60 000 training or the 10 000 test images.

    Args:
        folder: a folder of IDX files (``train-images-idx3-ubyte`` and so on, plain or ``.gz``). Where it is None, the place
            of ``isocline data fetch fashion-mnist`` and then that of the Debian package are tried.
        train: which part.

    Raises:
        DataMissing: no folder holds the files; the message says how to get them.
    """
    places = [Path(folder)] if folder is not None else [data_folder() / "fashion-mnist", DEBIAN]
    part = "train" if train else "t10k"
    for place in places:
        images, labels = (_find(place, f"{part}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
        if images and labels:
            return Images(read_idx(images).unsqueeze(1), read_idx(labels), NAMES)
    raise DataMissing(
        f"Fashion-MNIST is not in {' or '.join(map(str, places))}; run `isocline data fetch fashion-mnist`, "
        "or `apt-get install dataset-fashion-mnist`, or name a folder of IDX files with --data"
    )


def _find(folder: Path, name: str) -> Path | None:
    candidates = (folder / name, folder / f"{name}.gz")
    return next((path for path in candidates if path.is_file()), None)
