"""The compiled loss: the same loss and gradients, points that follow, and a way on where it cannot be compiled."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import isocline as iso
from isocline._core.errors import InvalidInput, NotFinite
from isocline._core.stream import Stream
from isocline.equations import Box, Dirichlet, Free, Initial, Observations, Problem
from isocline.equations.library import sine_gordon
from isocline.networks.mlp import MLP
from isocline.objectives import EstimatedLoss, ResidualLoss
from isocline.points import R3, Sobol, Uniform
from isocline.recipes.solve import TrainingPoints, meeting, solve
from isocline.recipes.solve.compiled import CompiledLoss
from isocline.recipes.solve.defaults import default_network
from isocline.recipes.solve.trial import Trial
from isocline.training.settings import Part

BOX = Box(x=(-1, 1), t=(0, 1))


def problem() -> Problem:
    x = Sobol(8).draw(BOX, 0).x
    return Problem(
        BOX,
        lambda u, q, p: u.t + u * u.x - p.nu * u.xx,
        [Initial(lambda q: -torch.sin(torch.pi * q.x)), Dirichlet("x")],
        {"nu": Free(0.1, low=0.0)},
        observations=[Observations(x, x[:, 0])],
    )


def trial_of(given: Problem, exact: bool) -> Trial:
    torch.manual_seed(0)
    body = MLP(2, 1, width=6, depth=2, activation=nn.Tanh).double()
    field: nn.Module = meeting(given, body) if exact else body
    return Trial(given, field, TrainingPoints(R3(32), Sobol(8), every=1), ResidualLoss(given), Stream(0))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*script_method")  # the compiler's own
@pytest.mark.parametrize("exact", [False, True])
def test_it_is_the_same_loss_with_the_same_gradients(exact: bool) -> None:
    given = problem()
    found = []
    for compiled in (False, True):
        trial = trial_of(given, exact)
        loss = CompiledLoss(trial) if compiled else trial.loss
        for step in range(3):
            trial.zero_grad()
            evaluation = loss(trial, trial.batches(step, Part()), step, Part())
            evaluation.loss.backward()
        found.append((evaluation.loss.detach(), [p.grad for p in trial.parameters()], trial.points["equation"]["x"]))
    (one, slopes, places), (two, others, elsewhere) = found
    torch.testing.assert_close(one, two, rtol=1e-12, atol=0)
    torch.testing.assert_close(places, elsewhere)
    for a, b in zip(slopes, others, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*script_method")  # the compiler's own
def test_directions_of_an_estimated_laplacian_are_new_in_every_compiled_step() -> None:
    given = sine_gordon(6)
    found: list[list[float]] = []
    for compiled in (False, True):
        torch.manual_seed(0)
        field = default_network(given, 6)
        points, objective = TrainingPoints(Uniform(16), Uniform(1)), EstimatedLoss(given, {"sphere": 0.0})
        trial = Trial(given, field, points, objective, Stream(0))
        loss = CompiledLoss(trial) if compiled else trial.loss
        steps = (loss(trial, trial.batches(step, Part()), step, Part()).loss for step in range(3))
        found.append([float(value.detach()) for value in steps])
    assert found[0] == pytest.approx(found[1], rel=1e-10)
    assert len(set(found[0])) == 3


def test_a_residual_that_branches_on_values_goes_on_in_python() -> None:
    def branching(u: Any, q: Any, p: Any) -> Tensor:
        found: Tensor = u.xx if float(q.x.sum()) > -1e9 else u.x
        return found

    given = Problem(Box(x=(0, 1)), branching, [Dirichlet("x")])
    with pytest.warns(UserWarning, match="cannot be compiled"):
        run = solve(
            given, optimizer=lambda n: torch.optim.Adam(n.parameters()), budget=iso.Budget(evaluations=3), compile=True
        )
    assert run.cost.steps == 3


def test_second_order_methods_refuse() -> None:
    with pytest.raises(InvalidInput, match="GaussNewton needs more than a compiled loss"):
        solve(problem(), budget=iso.Budget(evaluations=3), compile=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*script_method")
def test_a_value_that_is_not_finite_still_names_its_points() -> None:
    given = Problem(Box(x=(0, 1)), lambda u, q, p: u.xx + torch.log(q.x - 0.5), [Dirichlet("x")])
    with pytest.raises(NotFinite, match=r"for example at \(x=0"):
        solve(
            given, optimizer=lambda n: torch.optim.Adam(n.parameters()), budget=iso.Budget(evaluations=3), compile=True
        )
