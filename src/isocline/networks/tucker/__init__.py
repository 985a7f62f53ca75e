"""Layers with kernels in the format of Tucker: a small core and orthonormal factors."""

from isocline.networks.tucker.compress import compress, random_start, to_dense, to_small_convolutions, tucker_layer
from isocline.networks.tucker.compression import Compression, LayerCompression, with_compression
from isocline.networks.tucker.kernel import TuckerKernel
from isocline.networks.tucker.layers import TuckerConv, TuckerLayer, TuckerLinear, TuckerSpectralConv
from isocline.networks.tucker.operator import factorised_fno

__all__ = [
    "Compression",
    "LayerCompression",
    "TuckerConv",
    "TuckerKernel",
    "TuckerLayer",
    "TuckerLinear",
    "TuckerSpectralConv",
    "compress",
    "factorised_fno",
    "random_start",
    "to_dense",
    "to_small_convolutions",
    "tucker_layer",
    "with_compression",
]
