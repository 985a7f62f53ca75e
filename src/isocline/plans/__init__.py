"""How few evaluations suffice: a sampling run as one table, the solvers that compile to it, the tuners that optimise it."""

from isocline.plans.canonical import Canonical
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance
from isocline.plans.runner import Sampled, StepContext, unroll

__all__ = ["Canonical", "Plan", "Provenance", "Sampled", "StepContext", "unroll"]
