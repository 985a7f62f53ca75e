r"""A way of training a denoiser as five independent choices, and the papers that are combinations of them.

    process           how data become noise
    parameterisation  what the network outputs
    weight            what an error at time t costs, on the data prediction's scale
    time law          how often time t is drawn
    preconditioning   the scalings around the network

Papers change several at once; here each is one field, so a comparison can change one and leave the others alone
(``dataclasses.replace``). A sixth, the penalty, is least squares for all but pairs of reflow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

from torch import Tensor

from isocline._core.registry import Method
from isocline.objectives.denoising import DenoisingObjective
from isocline.objectives.penalties import Penalty, PseudoHuber, squared
from isocline.objectives.time_laws import LogNormal, LogUniformTime, TimeLaw, UniformTime, UShaped
from isocline.objectives.weights import EDMWeight, UnitOn
from isocline.processes import (
    EDM,
    Continuous,
    Data,
    Denoiser,
    EDMPreconditioning,
    FlowVelocity,
    GaussianProcess,
    LogTime,
    Noise,
    Parameterisation,
    Plain,
    Preconditioning,
    RectifiedFlow,
    Scaled,
    Score,
    VariancePreserving,
    VPrediction,
    ornstein_uhlenbeck,
)


@dataclass(frozen=True)
class Formulation:
    """Five choices that define what a denoiser learns.

    Args:
        process: how data become noise.
        parameterisation: what the (scaled) network outputs.
        weight: ``(process, t) -> w``, on the squared error of the data prediction.
        time_law: at which times the loss is sampled.
        preconditioning: scalings around the network.
        penalty: what is done with the weighted error; see `isocline.objectives.penalties`.

    Examples:
        >>> from dataclasses import replace
        >>> changed = replace(ddpm(), parameterisation=Data())      # the same weight, another output
        >>> changed.weight == ddpm().weight
        True
    """

    process: GaussianProcess
    parameterisation: Parameterisation
    weight: Callable[[GaussianProcess, Tensor], Tensor]
    time_law: TimeLaw
    preconditioning: Preconditioning
    penalty: Penalty = squared

    def denoiser(self, network: Callable[..., Tensor]) -> Denoiser:
        """Return the denoiser around a raw network, called as ``network(x, time)`` or ``network(x, time, cond)``."""
        return Scaled(network, self.process, self.parameterisation, self.preconditioning)

    @property
    def objective(self) -> DenoisingObjective:
        """The loss: weight, time law and penalty."""
        return DenoisingObjective(self.weight, self.time_law, self.penalty)

    def choices(self) -> dict[str, str]:
        """Return each choice as text, by the name of its field."""
        shown = {field.name: str(getattr(self, field.name)) for field in fields(self)}
        return shown | {
            "process": self.process.describe(),
            "penalty": getattr(self.penalty, "__name__", str(self.penalty)),
        }

    def describe(self) -> str:
        """Return one line for each choice."""
        return "\n".join(f"{name.replace('_', ' '):17} {value}" for name, value in self.choices().items())


DDPM = Method(
    "ddpm-training",
    "DDPM training",
    "Denoising Diffusion Probabilistic Models",
    "Jonathan Ho, Ajay Jain, Pieter Abbeel",
    2020,
    "2006.11239",
    room="objectives",
    when="Noise prediction with unit weight: the reference that others are compared with.",
)
SCORE = Method(
    "score-training",
    "Denoising score matching",
    "Score-Based Generative Modeling through Stochastic Differential Equations",
    "Yang Song, Jascha Sohl-Dickstein, Diederik P. Kingma, Abhishek Kumar, Stefano Ermon, Ben Poole",
    2020,
    "2011.13456",
    room="objectives",
    when="The network's output is the score itself; unbounded near t = 0 where data lie on a set of lower dimension.",
)
V_PREDICTION = Method(
    "v-prediction",
    "v-prediction",
    "Progressive Distillation for Fast Sampling of Diffusion Models",
    "Tim Salimans, Jonathan Ho",
    2022,
    "2202.00512",
    room="objectives",
    when="An output of unit variance at every noise level without preconditioning.",
)
EDM_TRAINING = Method(
    "edm-training",
    "EDM training",
    "Elucidating the Design Space of Diffusion-Based Generative Models",
    "Tero Karras, Miika Aittala, Timo Aila, Samuli Laine",
    2022,
    "2206.00364",
    room="objectives",
    when="The strong general baseline: preconditioning, weight and time law that fit each other.",
)
CEM = Method(
    "cem",
    "Conditional-expectation target",
    "Mathematical analysis of singularities in the diffusion model under the submanifold assumption",
    "Yubin Lu, Zhongjian Wang, Guillaume Bal",
    2023,
    "2301.07882",
    room="objectives",
    when="Data on a set of lower dimension: a target that stays bounded as t goes to 0. Give it sigma_data: bare networks blur it.",
)
RECTIFIED_FLOW = Method(
    "rectified-flow-training",
    "Rectified flow training",
    "Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow",
    "Xingchao Liu, Chengyue Gong, Qiang Liu",
    2022,
    "2209.03003",
    room="objectives",
    when="A straight path between noise and data, and the start of reflow.",
)


RF_PLUS_PLUS = Method(
    "rf-plus-plus",
    "Improved rectified flow",
    "Improving the Training of Rectified Flows",
    "Sangyun Lee, Zinan Lin, Giulia Fanti",
    2024,
    "2405.20320",
    room="objectives",
    when="Reflow: training on the pairs that a model made, once.",
)
RECTIFIED_DIFFUSION = Method(
    "rectified-diffusion",
    "Rectified diffusion",
    "Rectified Diffusion: Straightness Is Not Your Need in Rectified Flow",
    "Fu-Yun Wang, Ling Yang, Zhaoyang Huang, Mengdi Wang, Hongsheng Li",
    2024,
    "2410.07303",
    room="objectives",
    when="Reflow for a diffusion model that shall keep its process and its output.",
)


@DDPM.variant()
def ddpm(process: GaussianProcess | None = None) -> Formulation:
    """Return noise prediction with unit weight on the noise, uniform times; VP with linear beta by default."""
    process = process or VariancePreserving()
    return Formulation(process, Noise(), UnitOn(Noise()), UniformTime(), Plain(Continuous(1000.0)))


@SCORE.variant()
def score(process: GaussianProcess | None = None) -> Formulation:
    """Return score prediction with weight ``sigma^2`` on the score, uniform times; VP with linear beta by default."""
    return Formulation(process or VariancePreserving(), Score(), UnitOn(Noise()), UniformTime(), Plain())


@V_PREDICTION.variant()
def v_prediction(process: GaussianProcess | None = None) -> Formulation:
    """Return v-prediction with unit weight on v ("SNR + 1" on the data), uniform times; VP with linear beta by default."""
    process = process or VariancePreserving()
    return Formulation(process, VPrediction(), UnitOn(VPrediction()), UniformTime(), Plain())


@EDM_TRAINING.variant()
def edm(sigma_data: float = 0.5, process: GaussianProcess | None = None) -> Formulation:
    """Return EDM's training: data prediction behind its scalings, its weight, log-normal noise levels.

    Args:
        sigma_data: standard deviation of the data.
        process: EDM by default.
    """
    precondition = EDMPreconditioning(sigma_data)
    return Formulation(process or EDM(), Data(), EDMWeight(sigma_data), LogNormal(), precondition)


@CEM.variant()
def cem(process: GaussianProcess | None = None, sigma_data: float | None = None) -> Formulation:
    """Return the bounded target: data prediction with SNR weight, log-uniform times and ``log t`` as the network's input.

    The weight is the usual one of noise prediction, so only the network's output changes; without it the accuracy near
    ``t = 0`` is lost. The Ornstein-Uhlenbeck process by default.

    Args:
        process: any Gaussian process.
        sigma_data: standard deviation of the data, to put EDM's preconditioning around the network. The paper has none; with it
            the target was better on every set that was tried (``benchmarks/targets.py``).
    """
    process = process or ornstein_uhlenbeck()
    around = Plain(LogTime()) if sigma_data is None else EDMPreconditioning(sigma_data)
    return Formulation(process, Data(), UnitOn(Noise()), LogUniformTime(), around)


@RECTIFIED_FLOW.variant()
def rectified_flow(process: GaussianProcess | None = None) -> Formulation:
    """Return flow matching on the straight path: velocity prediction with unit weight, uniform times."""
    process = process or RectifiedFlow()
    return Formulation(process, FlowVelocity(), UnitOn(FlowVelocity()), UniformTime(), Plain())


@RF_PLUS_PLUS.variant()
def rf_plus_plus(dimension: int, process: GaussianProcess | None = None) -> Formulation:
    """Return the improved training on pairs: U-shaped times and a fading pseudo-Huber penalty on the velocity.

    Train on `Pairs`, from a network that already knows the data: on independent noise the penalty's minimiser is not the mean.

    Args:
        dimension: entries of one datum, which set the penalty's scale ``0.00054 sqrt(d)``.
        process: rectified flow by default.
    """
    penalty = PseudoHuber(0.00054 * math.sqrt(dimension), fading=True)
    plain = rectified_flow(process)
    return Formulation(plain.process, plain.parameterisation, plain.weight, UShaped(), plain.preconditioning, penalty)


@RECTIFIED_DIFFUSION.variant()
def rectified_diffusion(process: GaussianProcess | None = None) -> Formulation:
    """Return ordinary noise prediction, to be continued on `Pairs`: along each path the noise shall not change.

    Then DDIM is exact for any number of steps, though paths stay curved in ``x``; they are straight in ``(y, s)``.
    """
    return ddpm(process)
