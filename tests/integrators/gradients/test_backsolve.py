"""The continuous adjoint: right in the limit, worse than exact modes at loose tolerances, refused where it cannot be."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.integrators import (
    PID,
    Backsolve,
    Checkpointed,
    Clip,
    Direct,
    Event,
    Leapfrog,
    SaveAt,
    Separable,
    Steps,
    integrate,
)
from isocline.integrators.loop import Loop
from tests.integrators.gradients.test_exact import Bed, distance

TIMES = SaveAt(ts=torch.linspace(0, 2, 5, dtype=torch.float64), t0=True)


@pytest.fixture
def bed() -> Bed:
    return Bed()


def miss(bed: Bed, mode: Any, tolerance: float, against: Tensor) -> float:
    return distance(bed.gradient(mode, saveat=TIMES, controller=PID(tolerance, tolerance))[1], against)


def test_it_converges_with_the_tolerance(bed: Bed) -> None:
    exact = bed.gradient(Direct(), saveat=TIMES, controller=PID(1e-10, 1e-10))[1]
    errors = [miss(bed, Backsolve(), tolerance, exact) for tolerance in (1e-3, 1e-5, 1e-7)]
    assert errors[0] < 0.1
    assert errors[-1] < 1e-5
    assert all(b < a / 5 for a, b in pairwise(errors))


def test_it_is_not_the_gradient_of_the_discrete_solution(bed: Bed) -> None:
    direct = bed.gradient(Direct(), saveat=TIMES, controller=PID(1e-3, 1e-3))[1]
    assert miss(bed, Backsolve(), 1e-3, direct) > 1e-5
    assert miss(bed, Checkpointed(), 1e-3, direct) < 1e-10
    assert not Backsolve().exact
    assert Checkpointed().exact
    assert Direct().exact


@pytest.mark.parametrize(
    "controller",
    [Steps(torch.linspace(0, 2, 61)), Clip(PID(1e-8, 1e-8), times=(0.3,), jump_times=(1.2,))],
    ids=["steps", "clip"],
)
def test_controllers_are_used_the_other_way_round(bed: Bed, controller: Any) -> None:
    expected = bed.gradient(Direct(), saveat=TIMES, controller=controller)[1]
    assert distance(bed.gradient(Backsolve(), saveat=TIMES, controller=controller)[1], expected) < 1e-6


def test_the_seminorm_takes_fewer_steps_where_parameters_steer(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    run = Loop.run

    def counted(loop: Loop) -> Loop:
        run(loop)
        taken.append(int(loop.accepted.sum() + loop.rejected.sum()))
        return loop

    monkeypatch.setattr(Loop, "run", counted)
    y0 = torch.linspace(0.1, 1, 4, dtype=torch.float64)

    def cost(seminorm: bool) -> tuple[int, Tensor]:
        weight = torch.ones(300, dtype=torch.float64, requires_grad=True)
        field = lambda t, y: y * torch.cos(weight * 20 * t).mean()  # noqa: E731
        taken.clear()
        mode = Backsolve(controller=PID(1e-5, 1e-9), seminorm=seminorm)
        integrate(field, y0, 0, 3, controller=PID(1e-8, 1e-8), gradient=mode).y1.sum().backward()
        assert weight.grad is not None
        return sum(taken[1:]), weight.grad

    (full, plain), (fewer, semi) = cost(False), cost(True)
    assert fewer < full
    torch.testing.assert_close(semi, plain, rtol=0.01, atol=1e-4)


def test_a_structure_of_tensors_backward_in_time() -> None:
    a, b = (torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (0.5, -1.0))
    found = []
    for mode in (Direct(), Backsolve()):
        field = lambda t, y: {"a": y["b"] * t, "b": -torch.sin(y["a"])}  # noqa: E731
        saveat = SaveAt(ts=[1.5, 0.2])
        y = integrate(field, {"a": a, "b": b}, 2.0, 0.0, controller=PID(1e-9, 1e-9), gradient=mode, saveat=saveat).ys
        found.append(torch.autograd.grad((y["a"] * y["b"]).sum(), (a, b)))
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-8)


def test_what_it_cannot_do_is_refused(bed: Bed) -> None:
    with pytest.raises(InvalidInput, match=r"joint.*Checkpointed"):
        bed.solve(Backsolve(), True)
    with pytest.raises(InvalidInput, match=r"events.*Checkpointed"):
        bed.solve(Backsolve(), events=Event(lambda t, y, rates: y.sum()))
    y0 = torch.zeros(2, requires_grad=True), torch.ones(2)
    terms = Separable(lambda t, p: p, lambda t, q: -q)
    with pytest.raises(InvalidInput, match=r"Leapfrog cannot integrate the adjoint equation.*Checkpointed"):
        integrate(terms, y0, 0, 1, method=Leapfrog(), dt0=0.1, gradient=Backsolve())
    with pytest.raises(InvalidInput, match="tensor atol"):
        bed.gradient(Backsolve(), controller=PID(1e-3, torch.full((4, 3), 1e-3)))
