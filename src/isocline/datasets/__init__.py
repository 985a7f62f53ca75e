"""Data that ships in packages, read from local files; nothing but `fetch` downloads anything."""

from isocline.datasets.arrays import Arrays
from isocline.datasets.buffers import FIFO, FIRO, Buffer, Reservoir
from isocline.datasets.cfdbench import cfdbench
from isocline.datasets.covariance import Covariance, with_tensor
from isocline.datasets.deepcfd_files import deepcfd_data
from isocline.datasets.digits import load_digits
from isocline.datasets.fashion import load_fashion
from isocline.datasets.fields import Batch, DataSpec, FieldSpec, Frame, ParameterSpec, Window
from isocline.datasets.foreign import Foreign
from isocline.datasets.generate import generate
from isocline.datasets.graphs import (
    NodeData,
    NodeSplit,
    contextual_blocks,
    digits_graph,
    nearest_neighbours,
    planetoid,
)
from isocline.datasets.images import Images, Shuffled
from isocline.datasets.mnist import load_mnist5k
from isocline.datasets.opened import open_data
from isocline.datasets.ou_switching import ou_switching
from isocline.datasets.packaged_series import (
    arrow_head,
    basic_motions,
    gun_point,
    italy_power_demand,
    japanese_vowels,
    pickup_gesture,
)
from isocline.datasets.packages import PACKAGES, PackageData, data_folder, fetch
from isocline.datasets.panel import Panel, read_panel
from isocline.datasets.pdearena import pdearena
from isocline.datasets.pdebench import pdebench
from isocline.datasets.series import Series, Split, drop_values
from isocline.datasets.simulated import Simulated
from isocline.datasets.statistics import Moments, Statistics
from isocline.datasets.stored import Stored
from isocline.datasets.streaming import PoolSource, RaySource
from isocline.datasets.well import WellFile, write_well
from isocline.datasets.windows import FileSource
from isocline.datasets.wordnet import load_wordnet

__all__ = [
    "FIFO",
    "FIRO",
    "PACKAGES",
    "Arrays",
    "Batch",
    "Buffer",
    "Covariance",
    "DataSpec",
    "FieldSpec",
    "FileSource",
    "Foreign",
    "Frame",
    "Images",
    "Moments",
    "NodeData",
    "NodeSplit",
    "PackageData",
    "Panel",
    "ParameterSpec",
    "PoolSource",
    "RaySource",
    "Reservoir",
    "Series",
    "Shuffled",
    "Simulated",
    "Split",
    "Statistics",
    "Stored",
    "WellFile",
    "Window",
    "arrow_head",
    "basic_motions",
    "cfdbench",
    "contextual_blocks",
    "data_folder",
    "deepcfd_data",
    "digits_graph",
    "drop_values",
    "fetch",
    "generate",
    "gun_point",
    "italy_power_demand",
    "japanese_vowels",
    "load_digits",
    "load_fashion",
    "load_mnist5k",
    "load_wordnet",
    "nearest_neighbours",
    "open_data",
    "ou_switching",
    "pdearena",
    "pdebench",
    "pickup_gesture",
    "planetoid",
    "read_panel",
    "with_tensor",
    "write_well",
]
