"""Data that ships in packages, read from local files; nothing but `fetch` downloads anything."""

from isocline.datasets.digits import load_digits
from isocline.datasets.fashion import load_fashion
from isocline.datasets.images import Images, Shuffled
from isocline.datasets.mnist import load_mnist5k
from isocline.datasets.packages import PACKAGES, PackageData, data_folder, fetch

__all__ = [
    "PACKAGES",
    "Images",
    "PackageData",
    "Shuffled",
    "data_folder",
    "fetch",
    "load_digits",
    "load_fashion",
    "load_mnist5k",
]
