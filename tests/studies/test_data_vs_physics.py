"""The study of data and physics on made-up cells: its claims hold where they should and fail where something is broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from isocline.operators import SolverRun
from studies import data_vs_physics as survey

RUNS = [
    SolverRun("8 points", 0.2, 1e-3),
    SolverRun("16 points", 0.01, 2e-3),
    SolverRun("256 points, 192 steps", 0.0, 2e-2),
]


def cells(
    few: float = 0.5, longer: float = 0.9, many: float = 1.0, shift: float = 4.0, grid: float = 1.0
) -> survey.Table:
    """Return cells by factors of the FNO's error: of PINO's, of the longer trained FNO's, and under shifts."""

    def cell(e: float) -> dict[str, float]:
        return {"seconds": 1.0, "same": e, "viscosity": shift * e, "grid": grid * e}

    table = {("PINO", 0): [cell(0.05)]}
    for n, ratio in ((16, few), (1024, many)):
        table |= {(name, n): [cell(0.05)] * 3 for name in ("DeepONet", "FNO")}
        table["PINO", n] = [cell(ratio * 0.05)] * 3
    table[survey.LONGER, 16] = [cell(longer * 0.05)] * 3
    return table


def failed(monkeypatch: pytest.MonkeyPatch, table: survey.Table, runs: list[SolverRun] = RUNS) -> list[str]:
    monkeypatch.setattr(survey, "measured", lambda quick: table)
    monkeypatch.setattr(survey, "solver", lambda: runs)
    monkeypatch.setattr(survey, "query", lambda: 5e-4)
    found = survey.study()
    assert len(found.panels()) == 2
    return [claim.claim for claim in found.claims if not claim.holds]


def test_cells_as_expected_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    assert failed(monkeypatch, cells()) == []


@pytest.mark.parametrize(
    ("broken", "name"),
    [
        (cells(few=1.1), "PINO over FNO at N = 16"),
        (cells(longer=0.4), "PINO over FNO of twice the updates"),
        (cells(many=3.0), "PINO over FNO at N = 1024"),
        (cells(many=0.5), "PINO over FNO at N = 1024"),
        (cells(shift=2.0), "viscosity 0.003"),
        (cells(grid=1.5), "256 points over"),
    ],
)
def test_a_claim_that_does_not_hold_fails(monkeypatch: pytest.MonkeyPatch, broken: survey.Table, name: str) -> None:
    assert any(name in claim for claim in failed(monkeypatch, broken))


def test_the_speed_up_is_that_at_equal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (0.0, 0.06):  # the only run is the headline, or none is as accurate
        (claim,) = failed(monkeypatch, cells(), [SolverRun("256 points, 192 steps", error, 2e-2)])
        assert claim.startswith("FNO, N = 1024: speed-up at equal error")


def test_the_solver_converges_and_its_grids_are_points_of_the_finest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cases = survey.simulator().sample(4, 2)
    truth = survey.solved(64, survey.STEPS, cases)
    errors = [survey.distance(survey.solved(n, 64, cases), truth[:, :, :: 64 // n]) for n in (8, 16, 32)]
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    coarse, fine = (survey.data("test", 4, n).batch([0], [0], survey.WINDOW).target for n in (64, 256))
    assert bool((coarse == fine[:, :, ::4]).all())
