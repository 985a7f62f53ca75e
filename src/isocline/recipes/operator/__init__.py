"""Surrogates from stored data: train, measure, roll out, audit."""

from isocline.recipes.operator.audit_report import as_dict as audit_as_dict
from isocline.recipes.operator.audit_report import report_audit
from isocline.recipes.operator.cost_report import report_cost, simulator_of, solver_runs
from isocline.recipes.operator.rollout_report import RolloutReport, report_rollout
from isocline.recipes.operator.store import OperatorConfig, TrainedOperator, load_operator, save_operator
from isocline.recipes.operator.train import CaseErrors, measure, seconds_a_query, strategy_of, train_operator

__all__ = [
    "CaseErrors",
    "OperatorConfig",
    "RolloutReport",
    "TrainedOperator",
    "audit_as_dict",
    "load_operator",
    "measure",
    "report_audit",
    "report_cost",
    "report_rollout",
    "save_operator",
    "seconds_a_query",
    "simulator_of",
    "solver_runs",
    "strategy_of",
    "train_operator",
]
