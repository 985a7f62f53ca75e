"""Operator learning: models that advance fields, strategies, rollouts, refinement, conservation."""

from isocline.operators.audit import Audit, OnGrid, OnStep, audit, first_alias
from isocline.operators.conservation import Conserved, Conserving, conserved, projected, trapezoid
from isocline.operators.fit import Fitted, Source, fit
from isocline.operators.gaussian_process import GaussianProcess
from isocline.operators.ledger import Ledger, SolverRun
from isocline.operators.message_passing import MessagePassing
from isocline.operators.mmgp import MMGP, FieldModel, Predicted
from isocline.operators.models import Channels, GridModel, OperatorModel
from isocline.operators.normaliser import Normaliser
from isocline.operators.physics import PhysicsInformed
from isocline.operators.point_model import PointModel, by_case
from isocline.operators.point_networks import PointDeepONet, PointLowRank, PointMGNO
from isocline.operators.refiner import Refine, Refiner
from isocline.operators.resample import at_resolution
from isocline.operators.residual import drift, grid_residual
from isocline.operators.rollout import Rollout, rollout
from isocline.operators.strategies import AllToAll, Denoise, Draws, OneStep, Pushforward, Strategy, Unrolled

__all__ = [
    "MMGP",
    "AllToAll",
    "Audit",
    "Channels",
    "Conserved",
    "Conserving",
    "Denoise",
    "Draws",
    "FieldModel",
    "Fitted",
    "GaussianProcess",
    "GridModel",
    "Ledger",
    "MessagePassing",
    "Normaliser",
    "OnGrid",
    "OnStep",
    "OneStep",
    "OperatorModel",
    "PhysicsInformed",
    "PointDeepONet",
    "PointLowRank",
    "PointMGNO",
    "PointModel",
    "Predicted",
    "Pushforward",
    "Refine",
    "Refiner",
    "Rollout",
    "SolverRun",
    "Source",
    "Strategy",
    "Unrolled",
    "at_resolution",
    "audit",
    "by_case",
    "conserved",
    "drift",
    "first_alias",
    "fit",
    "grid_residual",
    "projected",
    "rollout",
    "trapezoid",
]
