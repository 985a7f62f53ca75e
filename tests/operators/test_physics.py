import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.datasets import Arrays
from isocline.datasets.fields import Batch, Window
from isocline.equations.spec import EquationSpec
from isocline.objectives.fields import relative_l2
from isocline.operators import Channels, Draws, GridModel, OneStep, OperatorModel, PhysicsInformed, grid_residual
from isocline.training import Part

HEAT = EquationSpec("heat", lambda u, q, p: u.t - p.k * u.xx, ("u",), ("x",), {"k": "conductivity"})
STRING = EquationSpec("string", lambda u, q, p: u.tt - p.k * u.xx, ("u",), ("x",), {"k": "stiffness"})
N, FRAMES, WINDOW, WHOLE = 16, 5, Window(1, 4), Part()


def midpoint(z: Tensor, n: int) -> Tensor:
    """Return what n steps of the midpoint rule multiply a mode by, where z is decay rate times step."""
    return ((1 - z / 2) / (1 + z / 2)) ** n


def waves(count: int, dt: float, *, exact: bool = False, spread: float = 1.0, seed: int = 3) -> Arrays:
    """Two decaying modes on a circle: by the midpoint rule, or as they are."""
    drawn = Stream(seed, "heat").uniform((count, 3), dtype=torch.float64)
    k = 0.1 + 0.4 * (1 - spread) + spread * drawn[:, 2]
    x = torch.arange(N, dtype=torch.float64) * 2 * math.pi / N

    def mode(wave: int, frame: int) -> Tensor:
        z = wave**2 * k * dt
        decay = torch.exp(-z * frame) if exact else midpoint(z, frame)
        return (decay * (drawn[:, wave - 1] + 0.5))[:, None] * torch.sin(wave * x)

    u = torch.stack([mode(1, n) + mode(2, n) for n in range(FRAMES)], 1)
    return Arrays({"u": u}, (0.0,), (2 * math.pi,), dt=dt, parameters={"k": k}, fractions=(1.0, 0.0, 0.0), name="heat")


def batch(source: Arrays, count: int = 4) -> Batch:
    return source.batch(range(count), [0] * count, WINDOW)


class Midpoint(OperatorModel):
    """Steps of the midpoint rule, in Fourier space; `off` is added to all predicted frames."""

    def __init__(self, source: Arrays, off: float = 0.0) -> None:
        super().__init__()
        self.spec, self.window = source.spec, WINDOW
        self.off = nn.Parameter(torch.tensor(off))

    def forward(self, batch: Batch, *, lead: Tensor | None = None) -> Tensor:
        w = torch.fft.rfft(batch.x[:, -1].double(), dim=1)
        z = torch.arange(N // 2 + 1)[:, None] ** 2 * batch.parameters[:, None].double() * batch.dt[:, None, None]
        frames = [torch.fft.irfft(w * midpoint(z, n), n=N, dim=1) for n in range(1, FRAMES)]
        return torch.stack(frames, 1).float() + self.off


class Recorded:
    """A source that says what was asked of it, and whose frames to predict are unknown."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays, self.spec = arrays, arrays.spec
        self.asked: list[tuple[int, int]] = []

    def draw(self, step: int, window: Window, batch_size: int, split: str, rng: Stream, part: Part = WHOLE) -> Batch:
        self.asked.append((step, batch_size))
        return replace(self.arrays.draw(step, window, batch_size, split, rng), y=None)


def between(frames: Tensor, first: Batch) -> Tensor:
    return grid_residual(HEAT, frames, replace(first, t=first.t[:, :1] - first.dt[:, None]), between=True)


def double(source: Arrays) -> tuple[Tensor, Batch]:
    found = batch(source)
    return torch.cat([found.x, found.target], 1).double(), found


# The residual between frames


def test_frames_of_the_midpoint_rule_have_no_residual() -> None:
    frames, first = double(waves(4, 0.1))
    found = between(frames, first)
    assert found.shape == (4, FRAMES - 1, N, 1)
    assert float(found.abs().max()) < 2e-5  # data are kept in single precision
    assert float(between(frames * torch.linspace(1, 1.1, FRAMES)[:, None, None], first).abs().max()) > 0.1


def test_the_residual_of_a_solution_falls_with_the_square_of_the_step() -> None:
    sizes = [float(between(*double(waves(4, dt, exact=True))).abs().max()) for dt in (0.04, 0.02)]
    assert sizes[0] / sizes[1] == pytest.approx(4, rel=0.1)


def test_it_sees_frames_that_alternate_where_central_differences_do_not() -> None:
    _, first = double(waves(4, 0.1))
    frames = (-1.0) ** torch.arange(FRAMES, dtype=torch.float64).reshape(1, -1, 1, 1).expand(4, -1, N, 1)
    assert float(grid_residual(HEAT, frames, first).abs().max()) < 1e-12
    assert float(between(frames, first).abs().min()) == pytest.approx(20)


def test_time_in_the_equation_is_that_of_the_middles() -> None:
    clock = EquationSpec("clock", lambda u, q, p: u.t - q.t, ("u",), ("x",), {})
    source = waves(4, 0.1)
    _, first = double(source)
    t = 0.1 * torch.arange(FRAMES, dtype=torch.float64)
    frames = (t.square() / 2).reshape(1, -1, 1, 1).expand(4, -1, N, 1)
    start = replace(first, t=first.t[:, :1] - first.dt[:, None])
    assert float(grid_residual(clock, frames, start, between=True).abs().max()) < 1e-12


def test_a_second_derivative_in_time_and_a_lone_frame_are_refused() -> None:
    frames, first = double(waves(4, 0.1))
    with pytest.raises(InvalidInput, match="derivative 2 in time"):
        grid_residual(STRING, frames, first, between=True)
    with pytest.raises(InvalidInput, match="needs 2 frames, got 1"):
        grid_residual(HEAT, frames[:, :1], first, between=True)


# The strategy


def loss(strategy: OneStep | PhysicsInformed, model: OperatorModel, given: Batch, step: int = 0) -> float:
    return float(strategy.loss(model, given, relative_l2, Draws(Stream(0), step)).detach())


def test_a_model_that_solves_the_midpoint_rule_has_no_loss() -> None:
    source = waves(4, 0.1)
    assert loss(PhysicsInformed(HEAT), Midpoint(source), batch(source)) < 1e-5


def test_frames_that_solve_the_equation_from_another_start_have_a_loss() -> None:
    """A constant solves the heat equation, so only the true first frame tells that it should not be there."""
    source, off, dt = waves(4, 0.1), 0.5, 0.1
    model, given = Midpoint(source, off), batch(source)
    frames = model(given).detach()
    rest = grid_residual(HEAT, frames, given, between=True)
    assert float(rest.abs().max()) < 1e-4
    assert loss(PhysicsInformed(HEAT, data=0.0), model, given) == pytest.approx(
        (off / dt) ** 2 / WINDOW.future, rel=1e-4
    )


def test_the_loss_is_the_weighted_sum() -> None:
    source = waves(4, 0.1)
    model, given = Midpoint(source, 0.3), batch(source)
    parts = loss(OneStep(), model, given), loss(PhysicsInformed(HEAT, data=0.0), model, given)
    assert loss(PhysicsInformed(HEAT, weight=0.0), model, given) == parts[0]
    assert loss(PhysicsInformed(HEAT, weight=0.2, data=3.0), model, given) == pytest.approx(
        3 * parts[0] + 0.2 * parts[1], rel=1e-6
    )


def test_without_data_the_solution_is_not_looked_at() -> None:
    source = waves(4, 0.1)
    model, given = Midpoint(source, 0.3), batch(source)
    unknown = replace(given, y=None)
    strategy = PhysicsInformed(HEAT, data=0.0)
    assert loss(strategy, model, unknown) == loss(strategy, model, given)
    with pytest.raises(InvalidInput, match="no frames to compare"):
        loss(PhysicsInformed(HEAT), model, unknown)


def test_the_residual_is_that_of_the_states() -> None:
    """They may be others than the data, without solutions; each update draws its own."""
    source, states = waves(8, 0.1), Recorded(waves(32, 0.1))
    strategy = PhysicsInformed(HEAT, data=0.0, states=states, batch=6)
    torch.manual_seed(0)
    model = GridModel(lambda i, o, c: nn.Conv1d(i, o, 1), source.spec, WINDOW)
    drawn = [loss(strategy, model, batch(source, count), step) for step in (0, 1) for count in (2, 4)]
    assert drawn[0] == drawn[1] != drawn[2] == drawn[3]
    assert states.asked == [(0, 6), (0, 6), (1, 6), (1, 6)]


def test_the_least_residual_is_the_solution() -> None:
    """No frame after the first is known. Weights of three neighbours are enough for two modes."""
    source = waves(8, 0.1, spread=0.0)
    known, unseen = replace(batch(source, 8), y=None), batch(waves(64, 0.1, spread=0.0, seed=4), 64)

    def make(inputs: int, outputs: int, conditions: int) -> nn.Module:
        return nn.Conv1d(inputs, outputs, 3, padding=1, padding_mode="circular", bias=False)

    torch.manual_seed(0)
    model = GridModel(make, source.spec, WINDOW, channels=Channels(parameters="none"))

    def error() -> float:
        with torch.no_grad():
            return float(relative_l2(model(unseen), unseen.target).mean())

    before, strategy = error(), PhysicsInformed(HEAT, data=0.0)
    (weight,) = model.parameters()

    def gradient(at: Tensor) -> Tensor:
        weight.data = at.reshape(weight.shape).float()
        found = strategy.loss(model, known, relative_l2, Draws(Stream(0)))
        return torch.autograd.grad(found, weight)[0].flatten().double()

    # the loss is a quadratic function of the weights: one step of Newton ends at its least value
    units, zero = torch.eye(weight.numel()), torch.zeros(weight.numel())
    hessian = torch.stack([gradient(unit) - gradient(zero) for unit in units], 1)
    weight.data = -torch.linalg.solve(hessian, gradient(zero)).reshape(weight.shape).float()
    assert before > 0.3
    assert error() < 1e-3


def test_what_makes_no_loss_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at least 0"):
        PhysicsInformed(HEAT, weight=-1.0)
    with pytest.raises(InvalidInput, match="above 0"):
        PhysicsInformed(HEAT, weight=0.0, data=0.0)
    with pytest.raises(InvalidInput, match="at least one state"):
        PhysicsInformed(HEAT, batch=0)
    with pytest.raises(InvalidInput, match="needs a past frame"):
        PhysicsInformed(HEAT).window(Window(0, 1))
