"""Solving: the error is that of the solution, runs resume to the same bits, parameters are found."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import isocline as iso
from isocline._core.errors import BadFile, DataMissing, InvalidInput, Mismatch, NotFinite
from isocline.equations import Ball, Box, Dirichlet, Free, Initial, Observations, Problem, Reference, library
from isocline.networks.mlp import MLP
from isocline.objectives import ResidualLoss
from isocline.optimizers.gauss_newton import GaussNewton
from isocline.points import R3, RAD, CausalR3, GaussLegendre, Sobol, Uniform
from isocline.recipes.solve import Solution, TrainingPoints, solve
from isocline.recipes.solve.accuracy import measure

STEPS = iso.Budget(evaluations=12)


def poisson(**more: Any) -> Problem:
    return Problem(
        Box(x=(0, 1)),
        lambda u, q, p: u.xx + math.pi**2 * torch.sin(math.pi * q.x),
        [Dirichlet("x")],
        reference=more.pop("reference", Reference(lambda x: torch.sin(math.pi * x))),
        name="poisson",
        **more,
    )


def heat(**more: Any) -> Problem:
    return Problem(
        Box(x=(0, 1), t=(0, 1)),
        lambda u, q, p: u.t - p.k * u.xx,
        [Initial(lambda q: torch.sin(math.pi * q.x)), Dirichlet("x")],
        more.pop("parameters", {"k": 0.1}),
        reference=Reference(exact_heat),
        name="heat",
        **more,
    )


def exact_heat(x: Tensor) -> Tensor:
    return torch.sin(math.pi * x[:, 0]) * torch.exp(-0.1 * math.pi**2 * x[:, 1])


def small(inputs: int = 2, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    return MLP(inputs, 1, width=8, depth=2, activation=nn.Tanh).to(dtype)


def adam(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(network.parameters(), lr=1e-2)


def test_the_defaults_solve_and_the_error_is_that_of_a_fine_grid() -> None:
    solution = solve(poisson(), budget=iso.Budget(evaluations=25), rng=0)
    x = torch.linspace(0, 1, 20001, dtype=torch.float64)[:, None]
    gap = solution(x) - torch.sin(math.pi * x)
    by_hand = float(gap.norm() / torch.sin(math.pi * x).norm())
    assert solution.error.relative_l2 is not None
    assert solution.error.linf is not None
    assert solution.error.relative_l2.value == pytest.approx(by_hand, rel=0.01)
    assert by_hand < 1e-4
    assert 0.5 * float(gap.abs().max()) < solution.error.linf <= 1.001 * float(gap.abs().max())
    assert solution.error.how == "reference: closed form"
    assert solution.cost.steps == 25
    assert solution.cost.optimizer == "GaussNewton"


def test_the_error_of_a_known_field_is_known() -> None:
    problem = poisson()
    found = measure(problem, lambda x: 1.1 * torch.sin(math.pi * x), problem.reference, iso.Stream(0), problem.values())
    assert found.relative_l2 is not None
    assert found.relative_l2.value == pytest.approx(0.1, rel=1e-9)
    assert found.linf == pytest.approx(0.1, rel=1e-4)
    # the residual 0.1 pi^2 sin(pi x) has the root mean square 0.1 pi^2 / sqrt 2
    assert found.residuals["equation"].value == pytest.approx(0.1 * math.pi**2 / math.sqrt(2), rel=1e-3)


def test_without_a_reference_a_classical_solution_is_one() -> None:
    known, unknown = (
        solve(poisson(reference=r), budget=STEPS) for r in (Reference(lambda x: torch.sin(math.pi * x)), None)
    )
    assert known.error.relative_l2 is not None
    assert unknown.error.relative_l2 is not None
    assert unknown.error.relative_l2.value == pytest.approx(known.error.relative_l2.value, rel=1e-3)
    assert "Chebyshev" in unknown.error.how
    assert unknown.classical is not None
    assert unknown.classical.converged


def test_without_either_only_residuals_are_known() -> None:
    disc = Problem(Ball((0.0, 0.0)), lambda u, q, p: u.xx + u.yy + 4, [Dirichlet("sphere")])
    solution = solve(disc, small(), TrainingPoints(Uniform(64), Sobol(16)), budget=STEPS)
    assert solution.error.relative_l2 is None
    assert solution.error.as_dict()["interval"] is None
    assert set(solution.error.residuals) == {"equation", "sphere"}
    assert "not known" in str(solution.error)
    x = torch.tensor([[0.1, 0.2]], dtype=torch.float64)
    assert float(solution(x)) == pytest.approx(1 - 0.05, abs=0.05)


def test_a_parameter_is_found_from_observations() -> None:
    x = Sobol(32).draw(Box(x=(0, 1), t=(0, 1)), 1).x
    problem = heat(parameters={"k": Free(0.3, low=0.0)}, observations=[Observations(x, exact_heat(x))])
    solution = solve(
        problem, small(), TrainingPoints(Sobol(128), Sobol(16)), budget=iso.Budget(evaluations=60), classical=False
    )
    assert solution.parameters["k"] == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize(
    "points",
    [
        TrainingPoints(Sobol(64), Sobol(16), every=1),
        TrainingPoints(R3(64), Sobol(16), every=1),
        TrainingPoints(CausalR3(64), Sobol(16), every=1),
        TrainingPoints(lambda residual: RAD(residual, 64, 256), Sobol(16), every=5),
    ],
    ids=["sobol", "R3", "causal R3", "RAD"],
)
def test_a_stopped_run_goes_on_to_the_same_bits(points: TrainingPoints, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(step: int, figures: Any) -> None:
        if step == 20:
            raise Killed

    budget = iso.Budget(evaluations=44)
    whole = solve(heat(), small(), points, adam, budget, rng=3, classical=False)
    with pytest.raises(Killed):
        solve(heat(), small(), points, adam, budget, rng=3, classical=False, folder=tmp_path, logs=[kill])
    resumed = solve(heat(), small(), points, adam, budget, rng=3, classical=False, folder=tmp_path)
    for one, two in zip(whole.field.parameters(), resumed.field.parameters(), strict=True):
        assert torch.equal(one, two)
    assert torch.equal(whole.points["equation"]["x"], resumed.points["equation"]["x"])


def test_points_follow_the_residual() -> None:
    def peak(u: Any, q: Any, p: Any) -> Tensor:
        found: Tensor = u.xx + u.tt + 100 * torch.exp(-100 * ((q.x - 0.5) ** 2 + (q.t - 0.3) ** 2))
        return found

    problem = Problem(Box(x=(0, 1), t=(0, 1)), peak, [Dirichlet("x")])
    points = TrainingPoints(R3(256), Sobol(16), every=1)
    run = solve(problem, small(), points, adam, iso.Budget(evaluations=40), classical=False)
    loss, p = ResidualLoss(problem), problem.values()
    places = (run.points["equation"]["x"], Uniform(256).draw(problem.domain, 9).x)
    followed, uniform = (float(loss.block(run.field, "equation", {"x": x}, p)[0].detach().abs().mean()) for x in places)
    assert followed > 3 * uniform


def test_seconds_are_kept_and_counted_over_parts(tmp_path: Path) -> None:
    run = solve(heat(), small(), budget=iso.Budget(seconds=1.5), folder=tmp_path, classical=False)
    assert run.stopped == "the time of 1.5 seconds was used"
    again = solve(heat(), small(), budget=iso.Budget(seconds=1.5), folder=tmp_path, classical=False)
    assert again.cost.steps <= run.cost.steps + 1


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"problem": poisson(), "network": small(1)}, "problem"),
        ({"problem": heat(parameters={"k": 0.2})}, "set of parameters"),
        ({"network": MLP(2, 1, width=5, depth=2).double()}, "network"),
    ],
    ids=["problem", "parameters", "network"],
)
def test_a_folder_with_another_run_is_refused(other: dict[str, Any], what: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {"problem": heat(), "network": small()}
    settings: dict[str, Any] = {"budget": iso.Budget(evaluations=2), "folder": tmp_path, "classical": False}
    solve(**given, **settings)
    with pytest.raises(Mismatch, match=f"holds a run with another {what}; give another folder"):
        solve(**{**given, **other}, **settings)


def test_a_solution_is_saved_and_loaded(tmp_path: Path) -> None:
    solution = solve(poisson(), budget=STEPS)
    solution.save(tmp_path)
    again = Solution.load(tmp_path, poisson())
    x = torch.rand(9, 1, dtype=torch.float64)
    assert torch.equal(solution(x), again(x))
    assert again.error == solution.error
    assert again.losses == solution.losses
    assert again.classical == solution.classical
    assert (
        json.loads((tmp_path / "solution.json").read_text())["error"]["relative_l2"] == solution.error.relative_l2.value
    )  # type: ignore[union-attr]


def test_what_does_not_fit_a_saved_solution_is_named(tmp_path: Path) -> None:
    solve(poisson(), budget=iso.Budget(evaluations=1), classical=False).save(tmp_path)
    with pytest.raises(Mismatch, match="is a solution of 'poisson', not of 'heat'"):
        Solution.load(tmp_path, heat())
    with pytest.raises(Mismatch, match="trained with another network"):
        Solution.load(tmp_path, poisson(), small(1))
    with pytest.raises(DataMissing):
        Solution.load(tmp_path / "nowhere", poisson())
    (tmp_path / "solution.safetensors").write_bytes(b"nothing")
    with pytest.raises(BadFile):
        Solution.load(tmp_path, poisson())


def test_the_report_has_the_error_the_cost_and_the_pictures(tmp_path: Path) -> None:
    text = solve(poisson(), budget=STEPS).report(tmp_path / "poisson.html").read_text()
    assert text.count("data:image/png;base64,") == 2
    for part in ("relative L2", "steps of GaussNewton", "Chebyshev collocation"):
        assert part in text


def test_float32_networks_are_measured_in_float64() -> None:
    run = solve(heat(), small(dtype=torch.float32), optimizer=adam, budget=iso.Budget(evaluations=30), classical=False)
    x = Uniform(20_000).draw(run.problem.domain, 5).x
    found, exact = run(x)[:, 0], exact_heat(x)
    assert found.dtype == torch.float64
    assert run.error.relative_l2 is not None
    assert run.error.relative_l2.value == pytest.approx(float((found - exact).norm() / exact.norm()), rel=0.03)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"network": MLP(3, 1, width=4, depth=1).double()}, "cannot take points"),
        ({"network": MLP(2, 2, width=4, depth=1).double()}, "2 points to (2, 2)"),
        ({"budget": iso.Budget(points=9)}, "names seconds or evaluations"),
        ({"budget": 60}, "budget is an isocline.Budget"),
        ({"points": TrainingPoints(Sobol(8), {"t=0": Sobol(8)})}, "no sampler for 'x=0'"),
        ({"weights": {"x": 2.0}}, "no block 'x' to weight"),
        ({"points": TrainingPoints(Sobol(8), Sobol(8), every=1), "optimizer": "lbfgs"}, "needs the same points"),
    ],
    ids=["inputs", "outputs", "budget", "no budget", "sampler", "weights", "moving points"],
)  # fmt: skip
def test_bad_input_is_named(arguments: dict[str, Any], text: str) -> None:
    if arguments.get("optimizer") == "lbfgs":
        from isocline.optimizers.lbfgs import LBFGS

        arguments = {**arguments, "optimizer": lambda network: LBFGS(network.parameters())}
    with pytest.raises(InvalidInput) as found:
        solve(heat(), **{"budget": STEPS, **arguments})
    assert text in str(found.value)


def test_relu_has_no_second_derivative() -> None:
    with pytest.raises(InvalidInput, match="relu has no derivative of order 2"):
        solve(heat(), MLP(2, 1, width=4, depth=1, activation=nn.ReLU).double(), budget=STEPS)


def test_a_residual_that_is_nan_names_its_points() -> None:
    def split(u: Any, q: Any, p: Any) -> Tensor:
        found: Tensor = u.xx + torch.where(q.x < 0.5, torch.sqrt(q.x - 0.25), q.x)
        return found

    problem = Problem(Box(x=(0, 1)), split, [Dirichlet("x")])
    with pytest.raises(
        NotFinite, match=r"residual of equation is NaN or infinite at \d+ of 256 points, for example at \(x=0\."
    ):
        solve(problem, budget=STEPS)


def test_gauss_newton_takes_new_points_too() -> None:
    points = TrainingPoints(Sobol(64), Sobol(16), every=1)
    run = solve(
        heat(), small(), points, lambda n: GaussNewton(n.parameters()), iso.Budget(evaluations=30), classical=False
    )
    assert run.error.relative_l2 is not None
    assert run.error.relative_l2.value < 0.1


def test_quadrature_weights_are_used() -> None:
    gauss = TrainingPoints(GaussLegendre(12), Sobol(1))
    run = solve(poisson(), small(1), gauss, budget=iso.Budget(evaluations=40), classical=False)
    weights = GaussLegendre(12).draw(Box(x=(0, 1))).w
    assert torch.allclose(run.points["equation"]["w"], 12 * weights, rtol=1e-14)  # type: ignore[operator]
    assert run.error.relative_l2 is not None
    assert run.error.relative_l2.value < 1e-3


@pytest.mark.parametrize("name", sorted(library.problems()))
def test_the_defaults_take_every_problem_of_the_library(name: str) -> None:
    problem = library.problems()[name]()
    solution = solve(problem, budget=iso.Budget(evaluations=1, points=32, parameters=200), classical=False)
    assert solution.error.relative_l2 is not None
    assert math.isfinite(solution.error.relative_l2.value)
