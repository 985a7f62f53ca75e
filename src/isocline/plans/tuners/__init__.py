"""Tuners: better tables for one's own model. Each fits on calibration noises and claims nothing but its held-out error."""

from isocline.plans.tuners.calibration import Calibration, NoiseSet, draw_noises
from isocline.plans.tuners.end_to_end import EndToEnd, Free
from isocline.plans.tuners.report import Measured, measure, ratio
from isocline.plans.tuners.tuned import Tuned

__all__ = ["Calibration", "EndToEnd", "Free", "Measured", "NoiseSet", "Tuned", "draw_noises", "measure", "ratio"]
