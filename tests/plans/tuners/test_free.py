import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isocline._core.errors import InvalidInput
from isocline.plans import grids, solvers
from isocline.plans.tuners import Free
from isocline.plans.tuners.free import FreePlan
from isocline.plans.tuners.recompile import compiler_of
from isocline.processes import EDM, RectifiedFlow, VariancePreserving

BASES = [
    (VariancePreserving(), solvers.dpm_solver_pp_2m, "t_min"),
    (EDM(), solvers.rho_adams, "zero"),
    (RectifiedFlow(), solvers.ddim, "t_min"),
    (RectifiedFlow(t_min=1e-3), solvers.dpm_solver_pp_2m, "zero"),
]


def base_plan(process, solver, end):
    return solver(process, grids.uniform(process, 6, end=end))


@pytest.mark.parametrize(("process", "solver", "end"), BASES)
def test_zero_parameters_are_the_base_plan(process, solver, end):
    base = base_plan(process, solver, end)
    assert FreePlan(base, Free())().equivalent(base, tolerance=1e-8)


@pytest.mark.parametrize(("process", "solver", "end"), BASES)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_any_parameters_keep_the_grid_decreasing_and_its_ends(process, solver, end, seed):
    base = base_plan(process, solver, end)
    student = FreePlan(base, Free())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.7)
    times, told = student.times(), student().model_times
    assert bool((times.diff() < 0).all())
    assert times[0] == base.times[0]
    assert times[-1] == base.times[-1]
    lam, near = process.half_log_snr(times)[:-1], process.half_log_snr(told)
    finite = torch.isfinite(lam)
    gaps = lam[finite].diff()
    assert bool(((near - lam)[finite].abs()[1:-1] <= gaps[1:] / 2 + 1e-9).all())


@pytest.mark.parametrize(("process", "solver", "end"), BASES)
def test_every_free_entry_gets_a_gradient(process, solver, end):
    student = FreePlan(base_plan(process, solver, end), Free())
    plan = student()
    (plan.times.sum() + plan.model_times.sum() + plan.carry.sum() + plan.weights.sum()).backward()
    for name, parameter in student.named_parameters():
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert bool((parameter.grad != 0).any()), name


def test_only_what_is_free_moves():
    base = base_plan(*BASES[0])
    student = FreePlan(base, Free(times=False, model_times=True, weights=False))
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.3)
    plan = student()
    assert torch.equal(plan.times, base.times)
    torch.testing.assert_close(plan.weights, base.weights)
    assert not torch.allclose(plan.model_times, base.model_times)


def test_what_cannot_be_recompiled_is_refused():
    process = EDM()
    with pytest.raises(InvalidInput, match="multi-stage"):
        FreePlan(solvers.heun(process, grids.karras(process, 4)), Free())
    with pytest.raises(InvalidInput, match="deterministic"):
        FreePlan(solvers.ddim(process, grids.karras(process, 4), eta=1.0), Free())
    tuned = FreePlan(base_plan(*BASES[0]), Free())()
    with pytest.raises(InvalidInput, match="needs something to tune"):
        Free(times=False, model_times=False, weights=False)
    assert compiler_of(tuned)(tuned.times).equivalent(tuned)
