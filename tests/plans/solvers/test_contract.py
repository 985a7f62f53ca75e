"""What every solver in the contract list must do.

T1, constant data: if the data prediction is constant, the path in ``(y, s)`` is a straight line and every consistent solver is
exact on it, whatever the process, the grid's end and the network's output.

T2, order: the smooth mixture from ``s = 80`` to ``s = 0.1`` on grids uniform in log-SNR. The long upper end matters: a
multistep method starts with lower orders, and its first step, of order 1, alone caps the order in the limit at 2. At ``s = 80``
the data prediction is almost constant, so the start costs about ``h^2 / s^2 = 1e-4 h^2``: less than the steady error of order 3
at these step numbers, but not of order 4, which therefore starts at ``s = 1000``. Above ``s = 0.1`` steps of ``h = 0.02`` resolve
the mixture's widths, so the numbers are asymptotic. The reference is RK4 in ``lam`` with 1000 steps, whose own error is a
hundred times below every error that is compared with it; this too is asserted.
"""

from __future__ import annotations

import inspect
import math
from functools import cache

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline._core.registry import methods
from isocline.plans import grids, solvers
from isocline.plans.grids.span import End, Grid
from isocline.processes import (
    EDM,
    Data,
    FlowVelocity,
    GaussianMixture,
    GaussianProcess,
    Noise,
    Parameterisation,
    RectifiedFlow,
    Score,
    VariancePreserving,
    VPrediction,
)
from tests.contracts.solvers import SOLVERS, Entry
from tests.contracts.stochastic_solvers import STOCHASTIC_SOLVERS
from tests.plans.helpers import PARAMETERISATIONS, PROCESSES, Replay, Told, normal

every_solver = pytest.mark.parametrize("entry", SOLVERS, ids=str)
every_process = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)


def test_the_list_holds_every_solver_with_its_registered_order() -> None:
    entries = [*SOLVERS, *STOCHASTIC_SOLVERS]
    functions = {name for name in solvers.__all__ if inspect.isfunction(getattr(solvers, name))}
    assert {entry.solver.__name__ for entry in entries} == functions
    stated = {name: v.order for m in methods() if m.room == "plans.solvers" for name, v in m.variants.items()}
    for entry in entries:
        defaults = inspect.signature(entry.solver).parameters
        if all(defaults[name].default == value for name, value in entry.settings.items()):
            assert stated[entry.solver.__name__] == entry.order, entry.name


@every_solver
@every_process
@pytest.mark.parametrize("end", ["t_min", "zero"])
def test_constant_data_are_exact(entry: Entry, process: GaussianProcess, end: End) -> None:
    if end == "zero" and float(process.sigma(0.0)) > 0:
        pytest.skip("this process has noise at time 0")
    times = grids.karras(process, 7, end=end)
    mu, eps = normal(3, 5, seed=1), normal(3, 5, seed=2)
    x = process.alpha(times[0]) * mu + process.sigma(times[0]) * eps
    exact = process.alpha(times[-1]) * mu + process.sigma(times[-1]) * eps
    plan = entry.compile(process, times)
    for parameterisation in PARAMETERISATIONS:
        found = plan.run(Told(lambda x, t: mu, process, parameterisation), x).x
        assert (found - exact).abs().max() < 1e-10, parameterisation


@pytest.mark.parametrize("entry", [e for e in SOLVERS if e.from_noise], ids=str)
@pytest.mark.parametrize("parameterisation", [Data(), VPrediction(), FlowVelocity()], ids=str)
@pytest.mark.parametrize("end", ["t_min", "zero"])
def test_constant_data_are_exact_from_pure_noise(entry: Entry, parameterisation: Parameterisation, end: End) -> None:
    flow = RectifiedFlow()
    times = grids.uniform(flow, 6, end=end)
    mu, eps = normal(2, 3, seed=1), normal(2, 3, seed=2)
    found = entry.compile(flow, times).run(Told(lambda x, t: mu, flow, parameterisation), eps).x
    exact = flow.alpha(times[-1]) * mu + flow.sigma(times[-1]) * eps
    assert (found - exact).abs().max() < 1e-10


@pytest.mark.parametrize("entry", [e for e in SOLVERS if not e.from_noise], ids=str)
def test_a_start_without_signal_is_refused_where_the_noise_level_must_be_finite(entry: Entry) -> None:
    flow = RectifiedFlow()
    with pytest.raises(InvalidInput, match=r"finite noise level.*RectifiedFlow.*t_max"):
        entry.compile(flow, grids.uniform(flow, 4))


@pytest.mark.parametrize("parameterisation", [Noise(), Score()], ids=str)
def test_a_noise_network_cannot_start_without_signal(parameterisation: Parameterisation) -> None:
    flow = RectifiedFlow()
    plan = solvers.ddim(flow, grids.uniform(flow, 4))
    with pytest.raises(InvalidInput, match=f"{parameterisation.name} outputs are undefined"):
        plan.run(Told(lambda x, t: x, flow, parameterisation), normal(1, 2))


@every_solver
def test_times_must_fall(entry: Entry) -> None:
    with pytest.raises(InvalidInput, match=r"strictly decreasing.*\[1.0, 2.0\]"):
        entry.compile(EDM(), torch.tensor([1.0, 2.0]))
    with pytest.raises(InvalidInput, match="at least two times"):
        entry.compile(EDM(), torch.tensor([1.0]))


@every_solver
@every_process
def test_the_process_does_not_matter_between_equal_noise_levels(entry: Entry, process: GaussianProcess) -> None:
    """In ``(y, s)`` all processes are one; only polynomials in process time see which it is."""
    if entry.process_time and not isinstance(process, EDM):
        pytest.skip("uses process time on purpose")
    s = torch.tensor([10.0, 6.0, 2.5, 1.0, 0.3, 0.2], dtype=torch.float64)
    y, means = normal(4, 2), normal(3, 2, seed=1)
    results = []
    for kind in (EDM(), process):
        times = kind.time_of_noise_level(s)
        bed = GaussianMixture(kind, means, torch.tensor([0.5, 0.2, 0.9]))
        x = entry.compile(kind, times).run(bed, y * kind.alpha(times[0])).x
        results.append(x / kind.alpha(times[-1]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-9)


@every_solver
def test_what_the_network_outputs_does_not_matter(entry: Entry) -> None:
    process = VariancePreserving()
    bed = GaussianMixture.smooth_bed(process)
    plan = entry.compile(process, grids.log_snr(process, 6))
    x = normal(4, 8)
    exact = plan.run(bed, x).x
    for parameterisation in PARAMETERISATIONS:
        network = Told(lambda x, t: bed(x, t), process, parameterisation)
        torch.testing.assert_close(plan.run(network, x).x, exact, rtol=1e-9, atol=1e-9)
        dense = plan.convert(parameterisation)
        assert dense.parameterisation == parameterisation
        torch.testing.assert_close(dense.run(network, x).x, exact, rtol=1e-8, atol=1e-8)


@every_solver
def test_each_step_calls_the_network_as_often_as_stated(entry: Entry) -> None:
    process = EDM()
    ends: tuple[End, End] = ("t_min", "zero")
    for end in ends:
        expected = entry.calls(5, end)
        plan = entry.compile(process, grids.karras(process, 5, end=end))
        network = Replay([normal(2, 3)] * expected, process, Data())
        cost = plan.run(network, normal(2, 3, seed=1)).cost
        assert plan.calls == cost.calls == len(network.told) == expected


@every_solver
def test_coefficients_are_differentiable_in_the_times(entry: Entry) -> None:
    process = VariancePreserving()
    weigh = normal(16, 16, seed=5)

    def total(times: Tensor) -> Tensor:
        plan = entry.compile(process, times)
        canonical = plan.canonical()
        return (weigh[: len(plan.weights), : len(plan.weights)] * canonical.outputs[1:]).sum() + canonical.start.sum()

    times = grids.log_snr(process, 4, t_max=0.8, t_min=0.1).requires_grad_()
    assert torch.autograd.gradcheck(total, (times,))


def bed(process: GaussianProcess, top: Tensor) -> tuple[GaussianMixture, Tensor]:
    mixture = GaussianMixture.smooth_bed(process)
    return mixture, process.alpha(top) * mixture.sample(8, 1) + process.sigma(top) * normal(8, 8)


@cache
def reference(top: float, steps: int = 1000, low: float = 0.1) -> Tensor:
    """Return the end states of the probability-flow ODE by RK4 in ``lam``, on EDM, where ``y = x``."""
    mixture, y = bed(EDM(), torch.tensor(top, dtype=torch.float64))
    lam, end = -math.log(top), -math.log(low)
    h = (end - lam) / steps

    def slope(y: Tensor, lam: float) -> Tensor:
        return mixture(y, torch.tensor(math.exp(-lam), dtype=torch.float64)) - y

    for i in range(steps):
        at = lam + i * h
        k1 = slope(y, at)
        k2 = slope(y + h / 2 * k1, at + h / 2)
        k3 = slope(y + h / 2 * k2, at + h / 2)
        k4 = slope(y + h * k3, at + h)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return y


@cache
def reference_error(top: float) -> float:
    """Return the error of the reference: at order 4 it is a fifteenth of the distance to the one with half the steps."""
    return rms(reference(top) - reference(top, 500)) / 15


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def observed_order(entry: Entry, grid: Grid = grids.log_snr) -> float:
    """Return the order between the entry's two step numbers; what uses time runs on VP, where that is not the noise level."""
    process = VariancePreserving(t_max=1.5) if entry.process_time else EDM(t_max=1001.0)
    ends = process.time_of_noise_level(torch.tensor([entry.top, 0.1], dtype=torch.float64))
    mixture, x = bed(process, ends[0])
    errors = []
    for n in entry.steps:
        plan = entry.compile(process, grid(process, n, t_max=float(ends[0]), t_min=float(ends[1])))
        errors.append(rms(plan.run(mixture, x).x / process.alpha(ends[1]) - reference(entry.top)))
    assert errors[1] > 100 * reference_error(entry.top)
    return math.log(errors[0] / errors[1]) / math.log(entry.steps[1] / entry.steps[0])


@every_solver
def test_the_stated_order_is_observed(entry: Entry) -> None:
    assert abs(observed_order(entry) - entry.order) < 0.15


@pytest.mark.parametrize("entry", [e for e in SOLVERS if e.order in (1, 2) and "adams" not in e.name], ids=str)
def test_the_stated_order_is_observed_on_karras_grids(entry: Entry) -> None:
    assert abs(observed_order(entry, grids.karras) - entry.order) < 0.15
