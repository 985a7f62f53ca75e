"""Tuners: better tables for one's own model. Each fits on calibration noises and claims nothing but its held-out error."""

from isocline.plans.tuners.bespoke import Bespoke
from isocline.plans.tuners.calibration import Calibration, NoiseSet, draw_noises
from isocline.plans.tuners.compensation import Compensation
from isocline.plans.tuners.d_ode import DODE
from isocline.plans.tuners.dc_solver import DCSolver, compensated
from isocline.plans.tuners.dpm_solver_v3 import DPMSolverV3, dpm_solver_v3
from isocline.plans.tuners.dss import DSS
from isocline.plans.tuners.empirical_statistics import EmpiricalStatistics
from isocline.plans.tuners.end_to_end import EndToEnd, Free
from isocline.plans.tuners.gits import GITS
from isocline.plans.tuners.iia import IIA
from isocline.plans.tuners.ld3 import LD3
from isocline.plans.tuners.optimal_steps import OptimalSteps
from isocline.plans.tuners.report import Measured, measure, ratio
from isocline.plans.tuners.s3.search import S3
from isocline.plans.tuners.time_aligner import ConstantNoise, TeacherState, TimeAligner
from isocline.plans.tuners.tuned import Tuned
from isocline.plans.tuners.tuner import Tuner

__all__ = [
    "DODE",
    "DSS",
    "GITS",
    "IIA",
    "LD3",
    "S3",
    "Bespoke",
    "Calibration",
    "Compensation",
    "ConstantNoise",
    "DCSolver",
    "DPMSolverV3",
    "EmpiricalStatistics",
    "EndToEnd",
    "Free",
    "Measured",
    "NoiseSet",
    "OptimalSteps",
    "TeacherState",
    "TimeAligner",
    "Tuned",
    "Tuner",
    "compensated",
    "dpm_solver_v3",
    "draw_noises",
    "measure",
    "ratio",
]
