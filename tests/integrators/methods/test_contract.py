"""What every integrator owes: see tests/contracts/integrators.py."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from isocline.integrators import ODE, PID, Dopri5, Each, SaveAt, Solution, integrate
from isocline.integrators.dense import linear
from isocline.integrators.methods.base import Step
from isocline.integrators.packing import Packing
from isocline.integrators.terms import Counter, bound
from tests.contracts.integrators import INTEGRATORS, LINEAR, Entry, Known

EACH = pytest.mark.parametrize("entry", INTEGRATORS, ids=str)
WAYS = pytest.mark.parametrize("way", ["forward", "backward"])


def needs(entry: Entry, what: str) -> None:
    if what in entry.without:
        pytest.skip(f"no {what} for {entry.name}")


def ends(problem: Known, way: str) -> tuple[float, float]:
    return problem.span if way == "forward" else problem.span[::-1]


def solved(entry: Entry, problem: Known, way: str, steps: int, **options: Any) -> Solution:
    t0, t1 = ends(problem, way)
    size = abs(t1 - t0) / steps
    solution = integrate(entry.terms(problem.field), problem.at(t0), t0, t1, method=entry.method, dt0=size, **options)
    assert solution.status.ok
    assert solution.stats.accepted == steps
    return solution


def error(solution: Solution, problem: Known) -> float:
    """Root mean square over all kept states."""
    return float((solution.ys - problem.exact(solution.ts)).square().mean().sqrt())


def order(entry: Entry, problem: Known, way: str, coarse: int) -> float:
    errors = [error(solved(entry, problem, way, n, saveat=SaveAt(steps=True)), problem) for n in (coarse, 2 * coarse)]
    return math.log2(errors[0] / errors[1])


@EACH
@WAYS
@pytest.mark.parametrize("driven", [False, True], ids=["autonomous", "driven"])
def test_order(entry: Entry, way: str, driven: bool) -> None:
    assert order(entry, entry.problems[driven], way, entry.coarse) == pytest.approx(entry.method.order, abs=0.15)


@EACH
def test_order_is_kept_where_the_field_is_not_linear(entry: Entry) -> None:
    for problem, way in zip(entry.harder, ("forward", "backward"), strict=False):
        assert order(entry, problem, way, entry.harder_coarse) > entry.method.order - 0.15


@EACH
def test_order_at_interpolated_points(entry: Entry) -> None:
    problem = entry.problems[1]
    times = torch.linspace(*problem.span, 8)[1:-1].double() + 0.0123
    expected = min(entry.method.order, entry.inside_order + 1)
    coarse = max(6, entry.coarse // 2)
    errors = [
        error(solved(entry, problem, "forward", n, saveat=SaveAt(ts=times)), problem) for n in (coarse, 2 * coarse)
    ]
    assert math.log2(errors[0] / errors[1]) > expected - 0.5


def inside(entry: Entry, problem: Known, size: float) -> float:
    """Error of the interpolant in one step from an exact state."""
    times = problem.span[0] + size * torch.tensor([0.22, 0.35, 0.6, 0.77], dtype=torch.float64)
    found = integrate(
        entry.terms(problem.field),
        problem.at(problem.span[0]),
        problem.span[0],
        problem.span[0] + size,
        method=entry.method,
        dt0=size,
        saveat=SaveAt(ts=times),
    )
    return error(found, problem)


def order_inside(entry: Entry) -> float:
    size = 0.02 * entry.inside_order**1.2
    coarse, fine = (inside(entry, entry.problems[1], h) for h in (size, size / 2))
    return math.log2(coarse / fine) - 1


@EACH
def test_order_of_the_interpolant(entry: Entry) -> None:
    needs(entry, "single step")
    assert order_inside(entry) == pytest.approx(entry.inside_order, abs=0.2)


@dataclass(frozen=True)
class Straight:
    """Dormand and Prince's pair with straight lines inside steps."""

    order = 5
    error_order = 5
    dense_order = 4
    start = staticmethod(Dopri5().start)

    def step(self, terms: Any, t: Tensor, h: Tensor, y: Tensor, state: tuple[Tensor, ...]) -> Step:
        step = Dopri5().step(terms, t, h, y, state)
        return step._replace(dense=linear(y, step.y))


def test_straight_lines_do_not_pass_for_an_interpolant() -> None:
    assert order_inside(Entry("straight", Straight())) < 1.2


@EACH
def test_inside_states_cost_what_is_stated_and_change_nothing(entry: Entry) -> None:
    problem = entry.problems[1]
    plain = solved(entry, problem, "forward", 9)
    times = torch.linspace(*problem.span, 100).double()
    many = solved(entry, problem, "forward", 9, saveat=SaveAt(ts=times, t1=True))
    assert torch.equal(plain.y1, many.y1)
    assert torch.equal(many.ys[-2], many.y1)
    assert many.stats.nfe == plain.stats.nfe + 9 * entry.inside_cost
    jumps = (many.ys[1:] - many.ys[:-1]).abs().max()
    assert float(jumps) < 0.2  # no jump where steps meet: the solution itself moves by less than 0.1 in between
    dense = solved(entry, problem, "forward", 9, saveat=SaveAt(dense=True))
    torch.testing.assert_close(dense.evaluate(times[3:-1]), many.ys[3:-2], rtol=1e-12, atol=1e-12)


@EACH
def test_declared_evaluations_are_those_at_the_boundary(entry: Entry) -> None:
    problem, counter = entry.problems[1], Counter()
    y = problem.at(0.0)
    terms = bound(entry.terms(problem.field), None, Packing.of(y), counter)
    t, h = torch.tensor(0.0, dtype=torch.float64), torch.tensor(0.1, dtype=torch.float64)
    state = entry.method.start(terms, t, y, None)
    for _ in range(8):
        counter.evaluations = 0
        step = entry.method.step(terms, t, h, y, state)
        assert step.evaluations == counter.evaluations
        counter.evaluations = 0
        again = entry.method.step(terms, t, h / 2, y, step.again)
        assert again.evaluations == counter.evaluations
        t, y, state = t + h, step.y, step.state


@EACH
def test_running_back_is_the_mirrored_equation(entry: Entry) -> None:
    needs(entry, "mirror")
    problem = entry.problems[1]
    mirrored = Known(
        "mirrored", lambda t, y: -problem.field(-t, y), lambda t: problem.exact(-t), (-problem.span[1], 0.0)
    )
    back, ahead = solved(entry, problem, "backward", 12), solved(entry, mirrored, "forward", 12)
    torch.testing.assert_close(back.y1, ahead.y1, rtol=1e-13, atol=1e-13)


@EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex128], ids=str)
def test_dtype_is_kept(entry: Entry, dtype: torch.dtype) -> None:
    if dtype.is_complex:
        needs(entry, "complex")
    problem = entry.problems[0]
    y0 = problem.at(0.0).to(dtype)
    factor = 1j if dtype.is_complex else 1.0
    found = integrate(
        entry.terms(problem.field), factor * y0, 0.0, 1.0, method=entry.method, dt0=0.125, saveat=SaveAt(ts=[0.3, 0.9])
    )
    double = integrate(
        entry.terms(problem.field),
        problem.at(0.0),
        0.0,
        1.0,
        method=entry.method,
        dt0=0.125,
        saveat=SaveAt(ts=[0.3, 0.9]),
    )
    assert found.y1.dtype == found.ys.dtype == dtype
    scale = 2e-6 if dtype == torch.float32 else 1e-14
    wide = torch.complex128 if dtype.is_complex else torch.float64
    torch.testing.assert_close(found.ys.to(wide), factor * double.ys, rtol=scale, atol=scale)


@EACH
@pytest.mark.parametrize("adaptive", [False, True], ids=["fixed", "adaptive"])
def test_a_sample_does_not_see_its_batch_mates(entry: Entry, adaptive: bool) -> None:
    needs(entry, "batches")
    if adaptive and not entry.method.error_order:
        pytest.skip("no error estimate")
    problem = (entry.harder or entry.problems)[-1]
    y0 = problem.at(0.0) * torch.linspace(-0.5, 1.5, 3, dtype=torch.float64)[:, None]
    end = torch.tensor([1.0, 0.2, 1.5], dtype=torch.float64)
    options: dict[str, Any] = {"controller": PID(1e-3, 1e-4)} if adaptive else {"dt0": 0.1}
    options |= {"method": entry.method, "batching": "per-sample", "saveat": SaveAt(ts=[0.03, 0.17])}
    together = integrate(entry.terms(problem.field), y0, 0.0, end, **options)
    for k in range(3):
        alone = integrate(entry.terms(problem.field), y0[k : k + 1], 0.0, end[k : k + 1], **options)
        torch.testing.assert_close(together.y1[k], alone.y1[0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(together.ys[k], alone.ys[0], rtol=1e-12, atol=1e-12)
        assert together.stats.accepted[k] == alone.stats.accepted[0]


@EACH
def test_nested_states(entry: Entry) -> None:
    needs(entry, "nested states")
    problem = entry.problems[1]

    def nested(t: Tensor, y: dict[str, Any]) -> dict[str, Any]:
        slope = problem.field(t, torch.cat([y["a"], y["b"][0]]))
        return {"a": slope[:1], "b": [slope[1:]]}

    y0 = problem.at(0.0)
    options: dict[str, Any] = {"method": entry.method, "dt0": 0.1, "saveat": SaveAt(ts=[0.25, 0.5])}
    plain = integrate(entry.terms(problem.field), y0, 0.0, 1.0, **options)
    split = integrate(entry.terms(nested), {"a": y0[:1], "b": [y0[1:]]}, 0.0, 1.0, **options)
    assert torch.equal(torch.cat([split.ys["a"], split.ys["b"][0]], -1), plain.ys)
    assert torch.equal(torch.cat([split.y1["a"], split.y1["b"][0]]), plain.y1)


@EACH
def test_without_gradients_nothing_changes(entry: Entry) -> None:
    """Steps may be made in another way where no gradient is wanted; they are the same steps."""
    problem = entry.problems[1]
    options: dict[str, Any] = {"method": entry.method, "saveat": SaveAt(ts=[0.25, 0.7])}
    options |= {"controller": PID(1e-3, 1e-5)} if entry.method.error_order else {"dt0": 0.1}
    ends = (problem.at(0.0), 0.0, 1.0)
    found = integrate(entry.terms(problem.field), *ends, **options)
    with torch.no_grad():
        again = integrate(entry.terms(problem.field), *ends, **options)
    assert again.stats == found.stats
    torch.testing.assert_close(again.y1, found.y1, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(again.ys, found.ys, rtol=1e-10, atol=1e-11)


@EACH
def test_gradients(entry: Entry) -> None:
    needs(entry, "gradients")
    problem = entry.problems[1]

    def found(y0: Tensor, factor: Tensor) -> Tensor:
        terms = entry.terms(lambda t, y: factor * problem.field(t, y))
        return integrate(terms, y0, 0.0, 0.3, method=entry.method, dt0=0.1, saveat=SaveAt(ts=[0.17, 0.3])).ys

    factor = torch.tensor([0.7, 1.1], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(found, (problem.at(0.0).requires_grad_(), factor))


@EACH
def test_arguments_with_one_row_a_sample(entry: Entry) -> None:
    needs(entry, "batches")
    terms = entry.terms(LINEAR[0].field)
    if not isinstance(terms, ODE):
        pytest.skip("arguments belong to the terms")
    rates = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    y0 = torch.ones(2, 1, dtype=torch.float64)
    found = integrate(
        ODE(lambda t, y, rate: -rate * y),
        y0,
        0.0,
        0.5,
        method=entry.method,
        dt0=0.02,
        args=Each(rates),
        batching="per-sample",
    )
    torch.testing.assert_close(found.y1, torch.exp(-rates / 2), rtol=0.03, atol=0.0)
