import math
from dataclasses import replace

import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline.datasets.fields import Batch, DataSpec, FieldSpec, ParameterSpec, side_by_side
from isocline.datasets.simulators import DarcyTensor2D
from isocline.equations.spec import EquationSpec
from isocline.operators import drift, grid_residual

HEAT = EquationSpec(
    "heat",
    lambda u, q, p: u.t - p.k * (u.xx + u.yy) - torch.cos(q.t) * torch.sin(q.x) * torch.cos(2 * q.y),
    ("u",),
    ("x", "y"),
    {"k": "conductivity"},
)


def bed(n: int, dt: float, boundary: str = "periodic") -> tuple[torch.Tensor, Batch]:
    """``u = a(t) sin(x) cos(2 y)`` with ``a' = -5 k a + cos t``."""
    spec = DataSpec(
        "heat", (FieldSpec("u"),), ("x", "y"), (0, 0), (2 * math.pi,) * 2, (n, n), (boundary,) * 2, 9, dt,  # type: ignore[arg-type]
        (ParameterSpec("k", 0.1, 1.0),),
    )  # fmt: skip
    k, t = torch.tensor([0.1, 0.7], dtype=torch.float64), 0.5 + dt * torch.arange(9, dtype=torch.float64)
    r = 5 * k[:, None]
    a = torch.exp(-r * t) + (r * torch.cos(t) + torch.sin(t)) / (r**2 + 1)
    line = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n
    if boundary != "periodic":
        line = (torch.arange(n, dtype=torch.float64) + 0.5) * 2 * math.pi / n
    x, y = torch.meshgrid(line, line, indexing="ij")
    u = (a[..., None, None] * torch.sin(x) * torch.cos(2 * y)).unsqueeze(-1)
    ones = torch.full((2,), dt, dtype=torch.float64)
    batch = Batch(spec, u[:, :1], u[:, 1:], t.expand(2, -1), ones, k[:, None], torch.stack([x, y], -1))
    return u, batch


def test_the_residual_of_a_solution_falls_with_the_square_of_the_time_step() -> None:
    sizes = [float(grid_residual(HEAT, *bed(16, dt)).abs().max()) for dt in (0.02, 0.01)]
    assert sizes[0] / sizes[1] == pytest.approx(4, rel=0.05)
    assert sizes[1] < 1e-3


def test_with_walls_it_falls_with_the_square_of_the_spacing() -> None:
    def inside(n: int) -> float:
        found = grid_residual(HEAT, *bed(n, 1e-3, "wall"))
        return float(found[:, :, n // 4 : -n // 4, n // 4 : -n // 4].abs().max())

    assert inside(32) / inside(64) == pytest.approx(4, rel=0.1)


def test_frames_that_do_not_solve_it_have_a_residual() -> None:
    u, batch = bed(16, 0.01)
    wrong = grid_residual(HEAT, 1.1 * u, batch)
    assert float(wrong.abs().max()) > 0.05


def test_its_gradient_reaches_the_frames() -> None:
    u, batch = bed(8, 0.01)
    u = u.clone().requires_grad_()
    grid_residual(HEAT, u, batch).square().sum().backward()
    assert u.grad is not None
    assert bool(u.grad.isfinite().all())


def test_a_field_or_a_parameter_that_is_missing_is_named() -> None:
    u, batch = bed(8, 0.01)
    other = replace(batch, spec=replace(batch.spec, fields=(FieldSpec("h"),)))
    with pytest.raises(InvalidInput, match="heat is about u"):
        grid_residual(HEAT, u, other)
    other = replace(batch, spec=replace(batch.spec, parameters=(ParameterSpec("c", 0, 1),)))
    with pytest.raises(InvalidInput, match="parameter k"):
        grid_residual(HEAT, u, other)
    with pytest.raises(InvalidInput, match="needs 3 frames"):
        grid_residual(HEAT, u[:, :2], batch)


def test_drift_is_relative_to_the_first_value() -> None:
    found = drift(torch.tensor([[2.0, 2.2, 1.8]]))
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.1, -0.1]]))


def test_a_tensor_coefficient_reaches_its_equation() -> None:
    """The residual of the solver's own solution, away from walls, is that of the discretisation: it falls with the spacing."""

    def inside(n: int) -> float:
        simulator = DarcyTensor2D(n)
        cases = simulator.sample(2, 0)
        (frame,) = simulator.simulate(cases)
        constants = side_by_side(simulator.constants(cases), simulator.spec.constant, 2)
        u = frame.channels(simulator.spec).unsqueeze(1)
        nothing = torch.zeros(2, 1, dtype=torch.float64)
        batch = Batch(
            simulator.spec,
            u[:, :0],
            u,
            nothing,
            nothing[:, 0],
            nothing[:, :0],
            simulator.coordinates(cases, (n, n)),
            constants,
        )
        found = grid_residual(simulator.equation, u, batch)
        source = constants[..., -1]
        return float(found[:, :, n // 4 : -n // 4, n // 4 : -n // 4].norm() / source.norm())

    assert inside(64) < 0.5 * inside(32) * 2**0.5
    assert inside(64) < 0.05
