"""How few evaluations suffice: a sampling run as one table, the solvers that compile to it, the tuners that optimise it."""

from isocline.plans.analytic_first_step import analytic_first_step
from isocline.plans.bits import bits_per_dimension, dequantise
from isocline.plans.canonical import Canonical
from isocline.plans.composite import Stretch, composite
from isocline.plans.free_start import free_start
from isocline.plans.likelihood import ExactTrace, Hutchinson, LogLikelihood, log_likelihood
from isocline.plans.picard import ParallelSampled, picard
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance
from isocline.plans.runner import Sampled, StepContext, unroll
from isocline.plans.threshold import Threshold

__all__ = [
    "Canonical",
    "ExactTrace",
    "Hutchinson",
    "LogLikelihood",
    "ParallelSampled",
    "Plan",
    "Provenance",
    "Sampled",
    "StepContext",
    "Stretch",
    "Threshold",
    "analytic_first_step",
    "bits_per_dimension",
    "composite",
    "dequantise",
    "free_start",
    "log_likelihood",
    "picard",
    "unroll",
]
