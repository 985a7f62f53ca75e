"""Freezing runs with steps of their own, and the last data prediction as a row."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from isocline._core.errors import InvalidInput, Mismatch
from isocline.plans import Plan, grids, solvers
from isocline.plans.adaptive import DPMAdaptive, GottaGoFast, denoised, freeze
from isocline.processes import EDM, GaussianMixture, RectifiedFlow, VarianceExploding, VariancePreserving
from tests.plans.helpers import PARAMETERISATIONS, Told, normal

VP = VariancePreserving()


@pytest.mark.parametrize("solver", [solvers.ddim, solvers.rho_adams, solvers.heun])
def test_the_last_data_prediction_is_one_more_row(solver: object) -> None:
    bed, x = GaussianMixture.smooth_bed(VP), normal(4, 8)
    plan = solver(VP, grids.log_snr(VP, 6))  # type: ignore[operator]
    whole = denoised(plan)
    expected = bed.predict(plan.run(bed, x).x, plan.times[-1]).x0
    for parameterisation in PARAMETERISATIONS:
        found = whole.run(Told(lambda x, t: bed(x, t), VP, parameterisation), x).x
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)
    assert whole.calls == plan.calls + 1
    assert torch.equal(whole.nodes, plan.nodes)


@pytest.mark.parametrize(
    "process", [VP, VarianceExploding(), RectifiedFlow(t_max=0.98)], ids=lambda p: type(p).__name__
)
def test_a_run_with_steps_of_their_own_gives_the_average_grid(process: object, tmp_path: Path) -> None:
    bed = GaussianMixture.smooth_bed(process)  # type: ignore[arg-type]
    x = bed.process.terminal((20, 8), 0, dtype=torch.float64)
    run = GottaGoFast(rtol=0.2, atol=0.02).run(bed, x, rng=0)
    plan = freeze(run, solvers.ddim)
    assert plan.calls == round(float(run.accepted.double().mean())) + 1
    ends = [bed.process.t_max, bed.process.t_min]
    assert torch.equal(plan.nodes[[0, -1]], torch.tensor(ends, dtype=torch.float64))
    expected = bed.predict(solvers.ddim(bed.process, run.nodes).run(bed, x).x, bed.process.t_min).x0
    torch.testing.assert_close(plan.run(bed, x).x, expected, rtol=1e-9, atol=1e-9)
    stored = Plan.load(plan.save(tmp_path / "plan.json"))
    assert stored == plan
    assert stored.provenance.settings["solver"] == "ddim"
    assert stored.provenance.cost["calls"] == run.cost.calls


def test_a_stochastic_solver_can_take_the_steps() -> None:
    bed = GaussianMixture.smooth_bed(VP)
    run = GottaGoFast(rtol=0.2, atol=0.02).run(bed, VP.terminal((10, 8), 0, dtype=torch.float64), rng=0)
    plan = freeze(run, lambda process, times: solvers.ddim(process, times, eta=1.0))
    assert plan.stochastic
    assert plan.provenance.settings["solver_settings"] == {"eta": 1.0}


def test_steps_without_a_plan_ask_for_a_solver() -> None:
    bed = GaussianMixture.smooth_bed(VP)
    run = GottaGoFast(rtol=0.5, atol=0.1).run(bed, VP.terminal((2, 8), 0, dtype=torch.float64), rng=0)
    with pytest.raises(
        InvalidInput, match=r"GottaGoFast have no row form; pass the solver .* freeze\(run, solvers.ddim\)"
    ):
        freeze(run)


def test_another_solver_can_take_the_steps_of_a_joint_run() -> None:
    process = EDM()
    bed, x = GaussianMixture.smooth_bed(process), process.terminal((4, 8), 0, dtype=torch.float64)
    run = DPMAdaptive().run(bed, x)
    assert freeze(run, solvers.dpm_solver_pp_2m) == solvers.dpm_solver_pp_2m(process, run.nodes)


def test_a_frozen_plan_keeps_the_guidance_of_its_run() -> None:
    bed = GaussianMixture.smooth_bed(VP)
    run = replace(DPMAdaptive().run(bed, VP.terminal((2, 8), 0, dtype=torch.float64)), guidance=7.5)
    plan = freeze(run)
    assert plan.guidance == 7.5
    with pytest.raises(Mismatch, match=r"guidance scale 7\.5"):
        plan.run(bed, normal(2, 8))
