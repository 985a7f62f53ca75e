"""The loss with an estimated Laplacian: exact where nothing is left to chance, unbiased elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import isocline as iso
from isocline._core.errors import InvalidInput, NotFinite
from isocline._core.stream import Stream
from isocline.derivatives import DenseLaplacian, SparseLaplacian, laplacian
from isocline.equations import Ball, Box, Dirichlet, Initial, Problem, library
from isocline.networks import MLP, BallAnsatz
from isocline.objectives import EstimatedLaplacian, EstimatedLoss, ResidualLoss
from isocline.points import Uniform
from isocline.recipes.solve import TrainingPoints, solve
from isocline.recipes.solve.defaults import default_network


def network(d: int, outputs: int = 1) -> nn.Module:
    torch.manual_seed(0)
    return MLP(d, outputs, width=8, depth=2, activation=nn.Tanh).double()


def batch(problem: Problem, n: int = 6) -> Any:
    points = {"equation": {"x": Uniform(n).draw(problem.domain, 0).x}}
    return {**points, **{part.label: {"x": part.face.draw(Uniform(4), 1).x} for part in problem.parts}}


def heat() -> Problem:
    box = Box(x=(0, 1), y=(0, 1), t=(0, 1))
    return Problem(box, lambda u, q, p: u.t + u * u.x - p.k * laplacian(u), [Initial(0.0), Dirichlet("x")], {"k": 0.1})


def system() -> Problem:
    return Problem(
        Box.cube(3),
        lambda u, q, p: (laplacian(u[0]) + u[1] ** 2, 2 * laplacian(u[1]) - u[0]),
        [Dirichlet("x1")],
        components=2,
    )


@pytest.mark.parametrize(
    ("problem", "samples"), [(library.sine_gordon(5), 5), (heat(), 2), (system(), 3)], ids=lambda v: str(v)[:8]
)
def test_with_all_axes_it_is_the_loss_without_an_estimate(problem: Problem, samples: int) -> None:
    field, points = network(problem.domain.d, problem.components), batch(problem)
    weights = {"equation": 0.7, "conditions": 3.0}
    loss = EstimatedLoss(problem, weights, EstimatedLaplacian(SparseLaplacian(), samples=samples))
    whole = ResidualLoss(problem, weights)
    ours, exact = loss(field, loss.directed(points, Stream(0))).loss, whole(field, points).loss
    assert float(ours.detach()) == pytest.approx(float(exact.detach()), rel=1e-10)
    parameters = list(field.parameters())
    for a, b in zip(torch.autograd.grad(ours, parameters), torch.autograd.grad(exact, parameters), strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("operator", [DenseLaplacian(), SparseLaplacian()])
def test_its_mean_is_the_loss_and_the_mean_of_a_square_is_not(operator: Any) -> None:
    problem, points, net = library.sine_gordon(6), batch(library.sine_gordon(6)), network(6)

    def field(x: Any) -> Any:
        return 100 * net(2 * x)

    loss = EstimatedLoss(problem, {"sphere": 0.0}, EstimatedLaplacian(operator, samples=2))
    exact = float(ResidualLoss(problem, {"sphere": 0.0})(field, points).loss.detach())
    found, squares = [], []
    for k in range(600):
        rows = loss.blocks(field, loss.directed(points, Stream(0).child(k)))["equation"]
        found.append(float(loss.total({"equation": rows}, points).detach()))
        squares.append(float(rows[0].square().mean().detach()))
    unbiased, biased = (torch.tensor(values, dtype=torch.float64) for values in (found, squares))
    assert abs(float(unbiased.mean()) - exact) < 3 * float(unbiased.std()) / 600**0.5
    assert float(biased.mean()) - exact > 3 * float(biased.std()) / 600**0.5


def test_directions_are_those_of_the_stream() -> None:
    problem = heat()
    loss = EstimatedLoss(problem)
    one, same, other = (loss.directed(batch(problem), Stream(0).child(k))["equation"]["directions"] for k in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert float(one[:, 2].abs().max()) == 0  # time is no part of the Laplacian


BOX = Box.cube(3)


@pytest.mark.parametrize(
    ("residual", "text"),
    [
        (lambda u, q, p: u.x1 + u.x2, "no laplacian"),
        (lambda u, q, p: laplacian(u) + laplacian(u, ["x1"]), "several Laplacians"),
        (lambda u, q, p: laplacian(u.x1), "Laplacian of a derivative"),
        (lambda u, q, p: laplacian(u) ** 2 - 1, "not linear in its Laplacian"),
    ],
)
def test_what_cannot_be_estimated_is_refused(residual: Any, text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        EstimatedLoss(Problem(BOX, residual, [Dirichlet("x1")]))


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InvalidInput, match="replicas is at least 2"):
        EstimatedLaplacian(replicas=1)
    with pytest.raises(InvalidInput, match="at least one direction"):
        EstimatedLaplacian(samples=0)
    with pytest.raises(InvalidInput, match="GaussNewton cannot take an estimated Laplacian, which is noisy: use Adam"):
        solve(
            library.sine_gordon(4),
            network(4),
            optimizer=lambda m: iso.optimizers.GaussNewton(m.parameters()),
            budget=iso.Budget(evaluations=1),
            backend=EstimatedLaplacian(),
        )


def test_a_residual_that_is_nan_names_its_points() -> None:
    problem = Problem(BOX, lambda u, q, p: laplacian(u) / torch.where(q.x1 < 2, 0 * q.x1, 1), [])
    loss = EstimatedLoss.__new__(EstimatedLoss)  # the trace divides by zero too; the loss itself is what is looked at
    ResidualLoss.__init__(loss, problem)
    loss.how, (loss.rest, loss.axes) = EstimatedLaplacian(), (problem.spec, (0, 1, 2))
    with pytest.raises(NotFinite, match="residual of equation is NaN or infinite at 6 of 6 points"):
        loss(network(3), loss.directed(batch(problem), Stream(0)))


def test_solve_takes_it_and_a_stopped_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    problem = library.sine_gordon(12)
    points = TrainingPoints(Uniform(32), Uniform(1), every=1)

    def run(folder: Path | None = None, **more: Any) -> Any:
        torch.manual_seed(0)
        field = default_network(problem, 16)
        return solve(
            problem, field, points, lambda m: torch.optim.Adam(m.parameters(), lr=5e-3), iso.Budget(evaluations=300),
            backend=EstimatedLaplacian(samples=4), folder=folder, classical=False, **more,
        )  # fmt: skip

    class Killed(Exception):
        pass

    def kill(step: int, figures: Any) -> None:
        if step == 200:
            raise Killed

    whole = run()
    with pytest.raises(Killed):
        run(tmp_path, logs=[kill])
    resumed = run(tmp_path)
    x = Uniform(2000).draw(problem.domain, 3).x
    assert torch.equal(resumed(x), whole(x))
    assert problem.reference is not None
    u, shape = problem.reference(x)[:, 0], 1 - x.square().sum(1)
    multiple = u - (u @ shape) / (shape @ shape) * shape
    assert whole.error.relative_l2.value < 0.8 * float(multiple.norm() / u.norm())
    assert whole.error.residuals["equation"].value > 0
    assert whole.error.residuals["sphere"].value < 1e-12


def test_a_thousand_dimensions_have_weights_and_a_loss() -> None:
    problem = library.sine_gordon(1000)
    assert problem.domain.volume > 0
    torch.manual_seed(0)
    field = BallAnsatz(MLP(1000, 1, width=8), problem.domain)  # type: ignore[arg-type]
    found = solve(
        problem,
        field,
        TrainingPoints(Uniform(16), Uniform(1), every=1),
        budget=iso.Budget(evaluations=2),
        backend=EstimatedLaplacian(SparseLaplacian(), samples=4),
        classical=False,
    )
    assert found.error.relative_l2 is not None
    assert found.error.relative_l2.value == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("d", [1, 2, 3, 10])
def test_the_volume_of_a_ball(d: int) -> None:
    known = {1: 2.0, 2: torch.pi, 3: 4 * torch.pi / 3, 10: torch.pi**5 / 120}[d]
    assert Ball((0.0,) * d, 1.5).volume == pytest.approx(known * 1.5**d, rel=1e-12)


def test_a_field_on_a_ball_meets_its_numbers_on_the_sphere() -> None:
    ball = Ball((1.0, -2.0, 0.5), 3.0)
    field = BallAnsatz(network(3, 2), ball, (2.0, -1.0))
    x = ball.faces()[0].draw(Uniform(20), 0).x
    assert torch.allclose(field(x), torch.tensor([2.0, -1.0], dtype=torch.float64).expand(20, 2), atol=1e-12)
    problem = Problem(ball, lambda u, q, p: laplacian(u), [Dirichlet("sphere", 4.0)])
    found = default_network(problem)
    assert found.met == ("sphere",)
    assert torch.allclose(found(x), torch.tensor(4.0, dtype=torch.float64), atol=1e-12)
    two = [Dirichlet("sphere", 4.0), Dirichlet("sphere", -1.0, component=1)]
    pair = default_network(Problem(ball, lambda u, q, p: (laplacian(u[0]), laplacian(u[1])), two, components=2))
    assert len(pair.met) == 2
    assert torch.allclose(pair(x), torch.tensor([4.0, -1.0], dtype=torch.float64).expand(20, 2), atol=1e-12)
    left = Problem(ball, lambda u, q, p: laplacian(u), [Dirichlet("sphere", lambda q: q.x)])
    assert not hasattr(default_network(left), "met")
