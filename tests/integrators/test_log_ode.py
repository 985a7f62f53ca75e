"""The log-ODE method: order, brackets, windows, the neural form, gradients, samples on their own."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.integrators import (
    CDE,
    PID,
    RK4,
    Bosh3,
    Checkpointed,
    Constant,
    Direct,
    Dopri5,
    LinearPath,
    LogODE,
    LogSignatures,
    Midpoint,
    Reversible,
    ReversibleAdjoint,
    integrate,
    logsignature,
    lyndon_words,
)

DOUBLE: dict[str, Any] = {"dtype": torch.float64}
A = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0), **DOUBLE) / 2
Y0 = torch.tensor([0.5, -1.0, 0.3], **DOUBLE)


def bent(t: Tensor, y: Tensor) -> Tensor:
    """Fields (*, 3, 2) that neither commute nor are linear."""
    return torch.stack([torch.tanh(y @ a.mT + c) for c, a in enumerate(A)], -1)


def smooth(n: int) -> tuple[Tensor, Tensor]:
    t = torch.linspace(0, 1, n, **DOUBLE)
    return t, torch.stack([torch.sin(3 * t) + t, torch.cos(2 * t) * t**2], -1)


def true_end(times: Tensor, values: Tensor) -> Tensor:
    """The solution along every straight line, one step of order 4 each."""
    path = LinearPath(times, values)
    found = integrate(
        CDE(bent, path), Y0, 0.0, 1.0, method=RK4(), controller=path.clip(Constant()), dt0=1.0, max_steps=10_000
    ).check()
    return found.y1


def end_of(signatures: LogSignatures, field: Any = bent, step: float = 1.0) -> Tensor:
    """The end of the log-ODE; steps of order 5, of one size, at least one a window."""
    options: dict[str, Any] = {"method": Dopri5(), "controller": signatures.clip(Constant()), "dt0": step}
    return integrate(LogODE(field, signatures), Y0, signatures.start, signatures.end, **options).check().y1


@pytest.mark.parametrize(("depth", "order"), [(1, 2), (2, 4), (3, 4)])
def test_order_on_a_smooth_path(depth: int, order: int) -> None:
    times, values = smooth(97)
    exact = true_end(times, values)
    errors = []
    for windows in (8, 16):
        signatures = LogSignatures.of(times, values, torch.linspace(0, 1, windows + 1), depth)
        errors.append(float((end_of(signatures) - exact).norm()))
    assert abs(math.log2(errors[0] / errors[1]) - order) < 0.15


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_one_window_leaves_out_what_lies_deeper(depth: int) -> None:
    """The error is of one power more than the depth in the size of any path."""
    times = torch.linspace(0, 1, 8, **DOUBLE)
    values = torch.randn(8, 2, generator=torch.Generator().manual_seed(2), **DOUBLE)
    errors = []
    for size in (1 / 16, 1 / 32):
        signatures = LogSignatures.of(times, size * values, torch.tensor([0.0, 1.0]), depth)
        errors.append(float((end_of(signatures, step=0.25) - true_end(times, size * values)).norm()))
    assert abs(math.log2(errors[0] / errors[1]) - (depth + 1)) < 0.15


def test_brackets_of_linear_fields_are_commutators() -> None:
    """For f_i(y) = A_i y the bracket [f_i, f_j] is the field of -[A_i, A_j], so that the flow is a matrix exponential."""
    times = torch.arange(6, **DOUBLE)
    values = torch.randn(6, 3, generator=torch.Generator().manual_seed(3), **DOUBLE) / 2
    a = torch.randn(3, 3, 3, generator=torch.Generator().manual_seed(4), **DOUBLE) / 2

    def bracket(word: tuple[int, ...]) -> Tensor:
        if len(word) == 1:
            return a[word[0]]
        cut = next(i for i in range(1, len(word)) if all(word[i:] < word[j:] for j in range(i + 1, len(word))))
        left, right = bracket(word[:cut]), bracket(word[cut:])
        return right @ left - left @ right

    signatures = LogSignatures.of(times, values, torch.tensor([0.0, 5.0]), 3)
    coordinates = logsignature(values, 3)
    exponent = sum(x * bracket(w) for w, x in zip(lyndon_words(3, 3), coordinates, strict=True))
    expected = torch.linalg.matrix_exp(exponent) @ Y0  # type: ignore[arg-type]
    found = end_of(signatures, lambda t, y: torch.einsum("cij,...j->...ic", a, y), step=0.25)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


def test_depth_one_is_the_straight_line_between_edges() -> None:
    times, values = smooth(31)
    edges = torch.tensor([0.0, 0.25, 0.41, 1.0], **DOUBLE)
    path = LinearPath(edges, LinearPath(times, values).evaluate(edges[:, None]))
    options: dict[str, Any] = {"method": Dopri5(), "controller": path.clip(Constant()), "dt0": 1.0}
    expected = integrate(CDE(bent, path), Y0, 0.0, 1.0, **options).y1
    torch.testing.assert_close(end_of(LogSignatures.of(times, values, edges, 1)), expected, rtol=0, atol=1e-14)


def test_windows_cut_the_path_anywhere_and_add_up() -> None:
    times, values = smooth(11)
    values = torch.stack([values, 2 * values.flip(0)])
    values[1, 3:6, 0] = torch.nan
    edges = torch.tensor([-1.0, 0.13, 0.5, 0.51, 0.97, 2.0], **DOUBLE)  # some between observations, two outside
    signatures, path = LogSignatures.of(times, values, edges, 3), LinearPath(times, values)
    own = torch.cat([times, edges]).sort().values
    for b in range(2):
        for low, high in pairwise(edges):
            inside = own[(own >= low) & (own <= high)]
            corners = path.evaluate(inside.reshape(-1, 1, 1))[:, b]
            centre = float((low + high) / 2)
            found = signatures.path.derivative(centre)[b] * (high - low)
            torch.testing.assert_close(found, logsignature(corners, 3), rtol=0, atol=1e-12)


def test_samples_with_times_of_their_own() -> None:
    nan = torch.nan
    times = torch.tensor([[0.0, 0.2, 0.5, 1.0], [0.1, 0.3, 0.8, nan]], **DOUBLE)
    values = torch.randn(2, 4, 2, generator=torch.Generator().manual_seed(5), **DOUBLE)
    edges = torch.tensor([0.0, 0.4, 0.9, 1.0], **DOUBLE)
    together = LogSignatures.of(times, values, edges, 2)
    for b, n in enumerate((4, 3)):
        alone = LogSignatures.of(times[b, :n], values[b, :n], edges, 2)
        for t in (0.2, 0.6, 0.95):
            torch.testing.assert_close(
                together.tensors.derivative(t)[b], alone.tensors.derivative(t), rtol=0, atol=1e-13
            )
    assert float(together.tensors.derivative(0.95)[1].abs().max()) == 0.0


def test_the_neural_form_is_a_cde_of_the_log_signature() -> None:
    """A field of the log-signature that is made of brackets is the log-ODE."""
    times, values = smooth(41)
    signatures = LogSignatures.of(times, values, torch.linspace(0, 1, 5), 2)
    path = signatures.path
    assert path.channels == 3

    def brackets(t: Tensor, y: Tensor) -> Tensor:
        f, g = bent(t, y).unbind(-1)
        of_f, of_g = (
            lambda z: bent(t, z)[..., 0],
            lambda z: bent(t, z)[..., 1],
        )
        bracket = torch.func.jvp(of_g, (y,), (f,))[1] - torch.func.jvp(of_f, (y,), (g,))[1]
        return torch.stack([f, g, bracket], -1)

    expected = end_of(signatures)
    options: dict[str, Any] = {"method": Dopri5(), "controller": path.clip(Constant()), "dt0": 1.0}
    found = integrate(CDE(brackets, path), Y0, path.start, path.end, **options).y1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


class Bed:
    """A field with a parameter, and a batch of data."""

    def __init__(self) -> None:
        self.weights = A.clone().requires_grad_()
        self.values = torch.randn(3, 9, 2, generator=torch.Generator().manual_seed(6), **DOUBLE).requires_grad_()
        self.y0 = torch.randn(3, 3, generator=torch.Generator().manual_seed(7), **DOUBLE).requires_grad_()

    def gradient(self, mode: Any, depth: int, **options: Any) -> Tensor:
        weights = self.weights
        times = torch.linspace(0, 1, 9, **DOUBLE)
        signatures = LogSignatures.of(times, self.values / 3, torch.tensor([0.0, 0.3, 1.0]), depth)

        def field(t: Tensor, y: Tensor) -> Tensor:
            return torch.stack([torch.tanh(y @ weights[0]), torch.sin(y @ weights[1])], -1)

        given = {"controller": signatures.clip(PID(1e-4, 1e-6)), **options}
        y1 = integrate(LogODE(field, signatures), self.y0, 0.0, 1.0, gradient=mode, **given).check().y1
        found = torch.autograd.grad(y1.sin().sum(), [self.values, self.y0, weights])
        return torch.cat([x.flatten() for x in found])


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize(("depth", "batching"), [(1, "joint"), (2, "joint"), (2, "per-sample"), (3, "joint")])
def test_gradients_of_all_modes_agree(depth: int, batching: Any) -> None:
    bed = Bed()
    adaptive: dict[str, Any] = {"batching": batching, "method": Bosh3()}
    exact = bed.gradient(Direct(), depth, **adaptive)
    assert bool((exact != 0).all()) == (depth > 1)  # at depth 1 the inner points of a window do not matter
    assert distance(bed.gradient(Checkpointed(), depth, **adaptive), exact) < 1e-10
    fixed = {"batching": batching, "method": Reversible(Midpoint()), "controller": Constant(), "dt0": 0.25}
    assert distance(bed.gradient(ReversibleAdjoint(), depth, **fixed), bed.gradient(Direct(), depth, **fixed)) < 1e-10


def test_the_gradient_is_that_of_differences() -> None:
    bed = Bed()
    found = bed.gradient(Direct(), 3, method=Midpoint(), controller=Constant(), dt0=0.5)[:2]
    times, y0, weights = torch.linspace(0, 1, 9, **DOUBLE), bed.y0.detach(), bed.weights.detach()

    def loss(values: Tensor) -> float:
        signatures = LogSignatures.of(times, values / 3, torch.tensor([0.0, 0.3, 1.0]), 3)
        field = lambda t, y: torch.stack([torch.tanh(y @ weights[0]), torch.sin(y @ weights[1])], -1)  # noqa: E731
        options: dict[str, Any] = {"method": Midpoint(), "controller": Constant(), "dt0": 0.5}
        return float(integrate(LogODE(field, signatures), y0, 0.0, 1.0, **options).y1.sin().sum())

    for k in range(2):
        nudge = torch.zeros_like(bed.values)
        nudge.view(-1)[k] = 1e-5
        slope = (loss(bed.values.detach() + nudge) - loss(bed.values.detach() - nudge)) / 2e-5
        assert abs(slope - float(found[k])) < 1e-7


def test_a_sample_with_steps_of_its_own_is_as_it_is_alone() -> None:
    times = torch.linspace(0, 1, 9, **DOUBLE)
    values = torch.randn(3, 9, 2, generator=torch.Generator().manual_seed(8), **DOUBLE)
    values = values * torch.tensor([0.1, 1.0, 2.0], **DOUBLE)[:, None, None]
    y0 = Y0.expand(3, 3).clone()

    def solve(x: Tensor, y: Tensor) -> Any:
        signatures = LogSignatures.of(times, x, torch.tensor([0.0, 0.5, 1.0]), 2)
        controller = signatures.clip(PID(1e-4, 1e-6))
        options: dict[str, Any] = {"method": Bosh3(), "controller": controller, "batching": "per-sample"}
        return integrate(LogODE(bent, signatures), y, 0.0, 1.0, **options).check()

    together = solve(values, y0)
    assert len(set(together.stats.nfe.tolist())) > 1
    for b in range(3):
        torch.testing.assert_close(together.y1[b], solve(values[b : b + 1], y0[b : b + 1]).y1[0], rtol=0, atol=1e-12)


def test_what_does_not_fit_is_refused() -> None:
    times, values = smooth(11)
    with pytest.raises(InvalidInput, match="the edges of the windows must be finite and increase strictly"):
        LogSignatures.of(times, values, torch.tensor([0.0, 0.5, 0.5]), 2)
    with pytest.raises(InvalidInput, match=r"edges must have shape \(W \+ 1,\), got \(1,\)"):
        LogSignatures.of(times, values, torch.tensor([0.0]), 2)
    with pytest.raises(InvalidInput, match="depth is 1, 2 or 3, got 4"):
        LogSignatures.of(times, values, torch.tensor([0.0, 1.0]), 4)
    signatures = LogSignatures.of(times, values, torch.tensor([0.0, 1.0]), 2)
    with pytest.raises(InvalidInput, match="a path of 2 channels; expected"):
        integrate(LogODE(lambda t, y: y[..., None], signatures), Y0, 0.0, 1.0)
    with pytest.raises(InvalidInput, match="LogODE integrates a state that is one tensor"):
        integrate(LogODE(lambda t, y: y, signatures), (Y0, Y0), 0.0, 1.0)
