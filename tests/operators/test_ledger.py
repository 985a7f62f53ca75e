import math

import pytest

from isocline._core.errors import InvalidInput
from isocline.operators import Ledger, SolverRun

RUNS = (SolverRun("32", 0.1, 0.5), SolverRun("64", 0.01, 2.0), SolverRun("256", 1e-5, 90.0))


def test_speed_is_compared_at_equal_error_only() -> None:
    ledger = Ledger(data=100.0, training=50.0, inference=0.5, error=0.02, solver=RUNS)
    assert ledger.equal == RUNS[1]
    assert ledger.speedup == 4
    assert ledger.break_even == 100
    assert "4 times as fast as the solver (64)" in ledger.text
    assert "after 100 queries" in ledger.text


def test_a_slower_model_never_pays() -> None:
    ledger = Ledger(1.0, 1.0, inference=3.0, error=0.02, solver=RUNS)
    assert ledger.break_even == math.inf
    assert "never pays" in ledger.text
    assert ledger.as_dict()["break_even_queries"] is None


def test_no_speed_is_stated_where_no_run_is_as_accurate() -> None:
    ledger = Ledger(1.0, 1.0, inference=1e-3, error=1e-7, solver=RUNS)
    assert ledger.speedup is None
    assert ledger.break_even is None
    assert "no speed-up is stated" in ledger.text


def test_no_speed_is_stated_for_a_model_that_is_worse_than_nothing() -> None:
    ledger = Ledger(1.0, 1.0, inference=1e-9, error=1.0, solver=RUNS)
    assert ledger.speedup is None
    assert "predicting zero" in ledger.text


def test_a_ledger_needs_a_solver_and_finite_numbers() -> None:
    with pytest.raises(InvalidInput, match="needs the solver"):
        Ledger(1.0, 1.0, 1.0, 0.1, ())
    with pytest.raises(InvalidInput, match="finite"):
        Ledger(math.nan, 1.0, 1.0, 0.1, RUNS)
