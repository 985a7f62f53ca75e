"""USF, a space of solvers whose strategy changes from step to step, and S3, which searches it."""

from isocline.plans.tuners.s3.objective import energy_distance, median_error, rms_error
from isocline.plans.tuners.s3.space import Schedule, Space
from isocline.plans.tuners.s3.usf import Strategy, usf

__all__ = ["Schedule", "Space", "Strategy", "energy_distance", "median_error", "rms_error", "usf"]
