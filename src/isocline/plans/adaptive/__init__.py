"""Samplers that choose their own steps, and `freeze`, which makes a plan of the steps they chose.

Each is a frozen dataclass of settings with a method ``run(denoiser, x, ...)``, called like `Plan.run`.
"""

from isocline.plans.adaptive.denoising_mcmc import Chains, DenoisingMCMC, ExactPosterior, NoiseLevelPosterior
from isocline.plans.adaptive.dpm_adaptive import DPMAdaptive
from isocline.plans.adaptive.freeze import denoised, freeze
from isocline.plans.adaptive.gotta_go_fast import GottaGoFast
from isocline.plans.adaptive.result import AdaptiveRun, StepLimit

__all__ = [
    "AdaptiveRun",
    "Chains",
    "DPMAdaptive",
    "DenoisingMCMC",
    "ExactPosterior",
    "GottaGoFast",
    "NoiseLevelPosterior",
    "StepLimit",
    "denoised",
    "freeze",
]
