"""Function approximators."""

from isocline.networks.ansatz import Ansatz
from isocline.networks.ball_ansatz import BallAnsatz
from isocline.networks.chebyshev import ChebyshevField
from isocline.networks.classifier import Classifier
from isocline.networks.convnext_unet import ConvNeXtUNet
from isocline.networks.deepcfd import DeepCFD, DeepCFDAutoEncoder, load_deepcfd
from isocline.networks.equilibrium import DeepEquilibrium
from isocline.networks.features import EvenFeatures, PeriodicFeatures, ScaledFeatures
from isocline.networks.fno import FNO, SpectralConv, with_coordinates
from isocline.networks.fourier_features import FourierFeatures
from isocline.networks.grid_unet import GridUNet
from isocline.networks.hard_conditions import HardDirichlet, HardInitial, HardNeumann, RJoin, product
from isocline.networks.lagrangian import Carried, LagrangianPair
from isocline.networks.mlp import MLP, DenoisingMLP
from isocline.networks.n_term import Greedy, Refined, orthogonal_greedy, refine
from isocline.networks.neuralop import fno_from_neuralop
from isocline.networks.residual_adaptive import ResidualAdaptive, ResidualAdaptiveBlock, fit_last_layer
from isocline.networks.resize import AliasFree, resampled
from isocline.networks.shallow_relu import ShallowReLU
from isocline.networks.siren import Sine, Siren
from isocline.networks.t1 import T1
from isocline.networks.two_scale import TwoScale, TwoScaleFeatures
from isocline.networks.unet import UNet, UNetShape
from isocline.networks.variation import (
    Variation,
    atom_norm,
    atoms,
    cap_height,
    cap_weight,
    support,
    variation_norm,
)

__all__ = [
    "FNO",
    "MLP",
    "T1",
    "AliasFree",
    "Ansatz",
    "BallAnsatz",
    "Carried",
    "ChebyshevField",
    "Classifier",
    "ConvNeXtUNet",
    "DeepCFD",
    "DeepCFDAutoEncoder",
    "DeepEquilibrium",
    "DenoisingMLP",
    "EvenFeatures",
    "FourierFeatures",
    "Greedy",
    "GridUNet",
    "HardDirichlet",
    "HardInitial",
    "HardNeumann",
    "LagrangianPair",
    "PeriodicFeatures",
    "RJoin",
    "Refined",
    "ResidualAdaptive",
    "ResidualAdaptiveBlock",
    "ScaledFeatures",
    "ShallowReLU",
    "Sine",
    "Siren",
    "SpectralConv",
    "TwoScale",
    "TwoScaleFeatures",
    "UNet",
    "UNetShape",
    "Variation",
    "atom_norm",
    "atoms",
    "cap_height",
    "cap_weight",
    "fit_last_layer",
    "fno_from_neuralop",
    "load_deepcfd",
    "orthogonal_greedy",
    "product",
    "refine",
    "resampled",
    "support",
    "variation_norm",
    "with_coordinates",
]
