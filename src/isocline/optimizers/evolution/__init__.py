"""Networks as states: fields that move in time by fits."""

from isocline.optimizers.evolution.insr import AdamFit, GaussNewtonFit, Term, advected, insr
from isocline.optimizers.evolution.splitting import divergence, incompressible
from isocline.optimizers.evolution.stepper import FieldStep, Fitted
from isocline.optimizers.evolution.teng import Projections, initial_fit, teng

__all__ = [
    "AdamFit",
    "FieldStep",
    "Fitted",
    "GaussNewtonFit",
    "Projections",
    "Term",
    "advected",
    "divergence",
    "incompressible",
    "initial_fit",
    "insr",
    "teng",
]
