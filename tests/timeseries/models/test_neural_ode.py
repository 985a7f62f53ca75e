"""Neural ODEs: closed forms of linear fields, gradients in every mode, and what added zeros are for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from isocline._core.errors import InvalidInput, NotFinite
from isocline.integrators import PID, RK4, Backsolve, Checkpointed, Direct, SaveAt
from isocline.objectives import error_cost
from isocline.timeseries.models import NeuralODE, Solving, VectorField

DOUBLE: dict[str, Any] = {"dtype": torch.float64}
TIGHT = PID(1e-9, 1e-9)


class Linear(nn.Module):
    """``A z``."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return z @ self.matrix.mT


MATRIX = torch.tensor([[-0.5, 1.0, 0.2], [-1.0, -0.5, 0.0], [0.7, 0.1, -0.3]], **DOUBLE)
X = torch.tensor([[1.0, 0.0], [0.3, -0.8], [-1.2, 0.4]], **DOUBLE)


def linear(**more: Any) -> NeuralODE:
    return NeuralODE(Linear(MATRIX.clone()), augment=1, span=(0.0, 2.0), solving=Solving(controller=TIGHT), **more)


def test_a_linear_field_has_its_closed_form_at_every_time() -> None:
    times = torch.tensor([0.0, 0.4, 1.3, 2.0], **DOUBLE)
    padded = torch.cat([X, torch.zeros(3, 1, **DOUBLE)], dim=1)
    exact = torch.stack([padded @ torch.linalg.matrix_exp(MATRIX * t).mT for t in times], dim=1)
    torch.testing.assert_close(linear()(X, times), exact, rtol=0, atol=1e-7)
    torch.testing.assert_close(linear()(X), exact[:, -1], rtol=0, atol=1e-8)
    readout = nn.Linear(3, 2).double()
    torch.testing.assert_close(linear(readout=readout)(X, times), readout(exact), rtol=0, atol=1e-7)
    torch.testing.assert_close(linear().solve(X, end=1.3).y1, exact[:, 2], rtol=0, atol=1e-7)


@pytest.mark.parametrize("mode", [Checkpointed(), Backsolve()], ids=str)
def test_gradients_do_not_depend_on_the_mode(mode: Any) -> None:
    torch.manual_seed(0)
    field = VectorField(3, width=8).double()

    def slopes(gradient: Any) -> tuple[Tensor, ...]:
        model = NeuralODE(field, augment=1, solving=Solving(controller=TIGHT, gradient=gradient))
        return torch.autograd.grad(model(X).square().sum(), list(field.parameters()))

    torch.testing.assert_close(slopes(mode), slopes(Direct()), rtol=1e-6, atol=1e-8)


def test_time_is_the_first_input_of_the_field() -> None:
    field = VectorField(2, width=3).double()
    z, seen = X, []
    field.layers.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    field(torch.tensor(0.7, **DOUBLE), z)
    field(torch.tensor([[0.1], [0.2], [0.3]], **DOUBLE), z)
    torch.testing.assert_close(seen[0], torch.cat([torch.full((3, 1), 0.7, **DOUBLE), z], dim=1))
    torch.testing.assert_close(seen[1][:, 0], torch.tensor([0.1, 0.2, 0.3], **DOUBLE))
    still = VectorField(2, autonomous=True).double()
    torch.testing.assert_close(still(torch.tensor(0.0), z), still(torch.tensor(9.0), z))


def test_the_steps_can_be_penalised() -> None:
    torch.manual_seed(0)
    model = NeuralODE(VectorField(2, width=8).double(), solving=Solving(controller=PID(1e-6, 1e-6)))
    found = model.solve(X, saveat=SaveAt(t1=True), record=("steps",))
    slopes = torch.autograd.grad(error_cost(found), list(model.field.parameters()))
    assert all(float(slope.abs().max()) > 0 for slope in slopes[:-1])


def accuracy(augment: int, seed: int) -> float:
    """Train on a line where one class surrounds the other; return the share that is told apart."""
    torch.manual_seed(seed)
    x = torch.linspace(-1, 1, 40)[:, None]
    labels = (x[:, 0].abs() > 0.5).long()
    solving = Solving(method=RK4(), controller=None, dt0=0.25)
    model = NeuralODE(VectorField(1 + augment, width=16), nn.Linear(1 + augment, 2), augment=augment, solving=solving)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(100):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return float((model(x).argmax(1) == labels).float().mean())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_a_flow_on_a_line_needs_added_room(seed: int) -> None:
    """A flow keeps the order of points of a line: one threshold tells apart at most three quarters of them (1904.01681)."""
    assert accuracy(0, seed) <= 0.75 + 1e-6
    assert accuracy(1, seed) > 0.95


def test_what_cannot_be_solved_is_said() -> None:
    class Blows(nn.Module):
        def forward(self, t: Tensor, z: Tensor) -> Tensor:
            return z**2

    with pytest.raises(NotFinite, match="blows up"):
        NeuralODE(Blows(), span=(0.0, 5.0))(torch.ones(1, 1, **DOUBLE))
    with pytest.raises(InvalidInput, match="cannot be negative"):
        NeuralODE(Blows(), augment=-1)
    with pytest.raises(InvalidInput, match="span of a neural ODE is empty"):
        NeuralODE(Blows(), span=(1.0, 1.0))
    with pytest.raises(InvalidInput, match=r"data \(B, inputs\)"):
        NeuralODE(Blows())(torch.ones(3))
