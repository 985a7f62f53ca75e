"""Signature kernels against tensor algebra, Bessel functions, quadrature and a naive loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.special import i0, roots_hermitenorm
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.timeseries.kernels import (
    Activation,
    ControlledResNet,
    Erf,
    Identity,
    InhomogeneousSignatureKernel,
    NeuralSignatureKernel,
    ReLU,
    goursat,
)

DOUBLE = torch.float64
NONLINEAR: list[Activation] = [ReLU(), Erf()]
ALL: list[Activation] = [Identity(), *NONLINEAR]


def paths(n: int, length: int, channels: int, seed: int, size: float = 0.4) -> Tensor:
    return (size * Stream(seed, "path").normal((n, length, channels), dtype=DOUBLE)).cumsum(1)


def line(*direction: float) -> Tensor:
    return torch.tensor([[[0.0] * len(direction), list(direction)]], dtype=DOUBLE)


def signature(path: Tensor, depth: int) -> list[np.ndarray]:
    """The truncated signature (T, C) -> levels 0..depth, by Chen's identity with full tensors."""
    levels = [np.ones(())] + [np.zeros((path.shape[1],) * k) for k in range(1, depth + 1)]
    for step in path.diff(dim=0).numpy():
        powers = [np.ones(())]
        for k in range(1, depth + 1):
            powers.append(np.multiply.outer(powers[-1], step) / k)
        levels = [sum(np.multiply.outer(levels[i], powers[k - i]) for i in range(k + 1)) for k in range(depth + 1)]
    return levels


# Moments


@pytest.mark.parametrize("activation", ALL)
@pytest.mark.parametrize("correlation", [-0.99, -0.5, 0.0, 0.3, 0.9])
def test_moments_are_expectations(activation: Activation, correlation: float) -> None:
    uu, vv = 1.7, 0.6
    uv = correlation * math.sqrt(uu * vv)
    node, weight = roots_hermitenorm(180)
    if isinstance(
        activation, ReLU
    ):  # in polar coordinates, where the kinks are lines: E r^2 times an integral over angles
        angle = (np.arange(400_000) + 0.5) * (2 * np.pi / 400_000)
        u = math.sqrt(uu) * np.cos(angle)
        v = math.sqrt(vv) * (correlation * np.cos(angle) + math.sqrt(1 - correlation**2) * np.sin(angle))
        expected = 2 * np.mean(np.maximum(u, 0) * np.maximum(v, 0))
    else:
        z, w = np.meshgrid(node, node), np.multiply.outer(weight, weight) / (2 * np.pi)
        u = math.sqrt(uu) * z[0]
        v = math.sqrt(vv) * (correlation * z[0] + math.sqrt(1 - correlation**2) * z[1])
        expected = float((w * activation(torch.from_numpy(u)).numpy() * activation(torch.from_numpy(v)).numpy()).sum())
    found = activation.moment(*(torch.tensor(s, dtype=DOUBLE) for s in (uu, uv, vv)))
    assert float(found) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("activation", ALL)
def test_moments_at_full_correlation(activation: Activation) -> None:
    uu = torch.tensor([0.3, 1.0, 7.0], dtype=DOUBLE)
    torch.testing.assert_close(activation.moment(uu, uu, uu), activation.square(uu))
    beyond = activation.moment(uu, uu * (1 + 1e-12), uu)  # what rounding makes of it
    torch.testing.assert_close(beyond, activation.square(uu), rtol=1e-9, atol=0)
    u = uu[:1].sqrt() * Stream(0).normal((100_000,), dtype=DOUBLE)
    assert float(activation(u).square().mean()) == pytest.approx(float(activation.square(uu[:1])), rel=0.02)


@pytest.mark.parametrize("activation", ALL)
def test_moments_have_gradients(activation: Activation) -> None:
    entries = [torch.tensor([a], dtype=DOUBLE, requires_grad=True) for a in (1.3, 0.4, 0.8)]
    assert torch.autograd.gradcheck(activation.moment, entries)
    same = torch.tensor([1.0], dtype=DOUBLE, requires_grad=True)
    assert bool(torch.autograd.grad(activation.moment(same, same, same).sum(), same)[0].isfinite())


# The linear equation


def test_the_identity_is_the_signature_kernel() -> None:
    x, y = paths(1, 5, 2, 0)[0], paths(1, 4, 2, 1)[0]
    levels = zip(signature(x, 14), signature(y, 14), strict=True)
    expected = float(sum((a * b).sum() for a, b in levels))
    found = float(NeuralSignatureKernel(Identity(), refine=8)(x[None], y[None]))
    assert found == pytest.approx(expected, rel=1e-6)
    assert abs(expected - 1) > 0.05  # that it says something


def test_scale_bias_and_start_of_the_linear_equation() -> None:
    x, y = paths(2, 5, 2, 2), paths(3, 4, 2, 3)
    plain = NeuralSignatureKernel(Identity(), refine=3)
    found = NeuralSignatureKernel(Identity(), initial=0.5, weight=1.5, bias=0.7, refine=3)(x, y)
    shift = (0.7 / 1.5) ** 2
    torch.testing.assert_close(found, (0.25 + shift) * plain(1.5 * x, 1.5 * y) - shift)
    without = NeuralSignatureKernel(Identity(), initial=0.5, weight=0.0, bias=0.7)(x, y)
    ends = (x[:, -1] - x[:, 0]) @ (y[:, -1] - y[:, 0]).T
    torch.testing.assert_close(without, 0.25 + 0.49 * ends)
    nearly = NeuralSignatureKernel(Identity(), initial=0.5, weight=1e-4, bias=0.7)(x, y)
    torch.testing.assert_close(nearly, without, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("product", [-3.0, -0.5, 0.8, 4.0])
def test_straight_lines_have_a_bessel_function(product: float) -> None:
    found = float(NeuralSignatureKernel(Identity(), refine=9)(line(product), line(1.0)))
    z = np.sqrt(complex(product))
    expected = float(i0(2 * z.real)) if product > 0 else float(np.real(_bessel_j0(2 * z.imag)))
    assert found == pytest.approx(expected, abs=2e-5)


def _bessel_j0(x: float) -> float:
    return sum((-1) ** k * (x / 2) ** (2 * k) / math.factorial(k) ** 2 for k in range(40))


def test_both_schemes_agree_on_the_linear_equation() -> None:
    """The coupled problem with ``F = K`` is the linear one: other cells, other order of evaluation."""
    x, y = paths(2, 4, 2, 4), paths(2, 4, 2, 5)
    a, start = goursat.inner_products(x, y), torch.tensor(1.0, dtype=DOUBLE)
    own = [
        goursat.diagonal(goursat.inner_products(p, p), start, Identity().moment, Identity().square, refine=5)
        for p in (x, y)
    ]
    found = goursat.pairwise(a, *own, Identity().moment, refine=5)
    torch.testing.assert_close(found, goursat.linear(a, refine=5), rtol=2e-4, atol=0)
    torch.testing.assert_close(own[0][:, -1], goursat.linear(goursat.inner_products(x, x), refine=5), rtol=2e-3, atol=0)


# Nonlinear equations


def naive(x: Tensor, y: Tensor, f: Callable[[float, float, float], float], parts: int) -> float:
    """Explicit Euler in both directions, node by node, for x, y and both diagonals together: order 1."""
    fine = [torch.cat([p[:1], p[:-1].repeat_interleave(parts, 0) + _ramp(p, parts)]).numpy() for p in (x, y)]
    grids = {}
    for one, two in ((0, 0), (1, 1), (0, 1)):
        dx, dy = np.diff(fine[one], axis=0), np.diff(fine[two], axis=0)
        k = np.ones((len(dx) + 1, len(dy) + 1))
        own = [grids.get((s, s), k) for s in (one, two)]
        for i in range(len(dx)):
            for j in range(len(dy)):
                rate = f(own[0][i, i], k[i, j], own[1][j, j])
                k[i + 1, j + 1] = k[i + 1, j] + k[i, j + 1] - k[i, j] + rate * (dx[i] @ dy[j])
        grids[one, two] = k
    return float(grids[0, 1][-1, -1])


def _ramp(path: Tensor, parts: int) -> Tensor:
    share = torch.arange(1, parts + 1, dtype=DOUBLE) / parts
    return (path.diff(dim=0)[:, None] * share[:, None]).flatten(0, 1)


@pytest.mark.parametrize("activation", NONLINEAR)
def test_the_coupled_problem_is_what_a_naive_loop_finds(activation: Activation) -> None:
    x, y = paths(1, 4, 2, 6)[0], paths(1, 3, 2, 7)[0]

    def f(uu: float, uv: float, vv: float) -> float:
        if isinstance(activation, Erf):
            return 0.81 * 2 / math.pi * math.asin(2 * uv / math.sqrt((1 + 2 * uu) * (1 + 2 * vv))) + 0.16
        angle = math.acos(max(-1.0, min(1.0, uv / math.sqrt(uu * vv))))
        return (
            0.81 * math.sqrt(uu * vv) / (2 * math.pi) * (math.sin(angle) + (math.pi - angle) * math.cos(angle)) + 0.16
        )

    coarse, fine = (naive(x, y, f, parts) for parts in (8, 16))
    found = float(NeuralSignatureKernel(activation, weight=0.9, bias=0.4, refine=5)(x[None], y[None]))
    assert found == pytest.approx(2 * fine - coarse, abs=3e-4)  # extrapolated to order 2
    assert abs(found - fine) < abs(fine - coarse) * 1.2
    assert abs(found - 1) > 0.02


def orders(run: Callable[[int], Tensor], levels: tuple[int, ...]) -> list[float]:
    """Observed orders from successive differences of dyadic refinements."""
    found = [run(q) for q in levels]
    steps = [float((a - b).abs().max()) for a, b in pairwise(found)]
    return [math.log2(a / b) for a, b in pairwise(steps)]


@pytest.mark.parametrize("activation", ALL)
def test_the_scheme_has_order_two(activation: Activation) -> None:
    x, y = paths(2, 4, 2, 8, 0.4), paths(2, 3, 2, 9, 0.4)
    kernel = NeuralSignatureKernel(activation, weight=1.2, bias=0.3)
    for measured in (
        orders(lambda q: replace(kernel, refine=q)(x, y), (3, 4, 5, 6)),
        orders(lambda q: replace(kernel, refine=q).diagonal(x), (3, 4, 5, 6)),
        orders(lambda q: replace(kernel, activation=activation, refine=q)._own(x)[:, -1:], (3, 4, 5, 6))[: len(x)]
        if not kernel._linear
        else [2.0],
    ):
        assert all(abs(order - 2) < 0.15 for order in measured), measured


@pytest.mark.parametrize("activation", ALL)
def test_speed_and_rests_do_not_matter(activation: Activation) -> None:
    x, y = paths(2, 5, 2, 10), paths(2, 4, 2, 11)
    middle = (x[:, :-1] + x[:, 1:]) / 2
    other = torch.cat(
        [torch.stack([x[:, :-1], middle, middle], 2).flatten(1, 2), x[:, -1:], x[:, -1:]], 1
    )  # with rests
    kernel = NeuralSignatureKernel(activation, refine=4)
    torch.testing.assert_close(kernel(other, y), kernel(x, y), rtol=5e-4, atol=1e-4)


@pytest.mark.parametrize("activation", ALL)
def test_gram_matrices_are_symmetric_and_positive(activation: Activation) -> None:
    x = paths(12, 6, 2, 12, 0.35)
    kernel = NeuralSignatureKernel(activation, bias=0.5, refine=2, batch=7)
    gram = kernel(x)
    assert torch.equal(gram, gram.T)
    torch.testing.assert_close(gram, kernel(x, x))
    torch.testing.assert_close(gram, replace(kernel, batch=1000)(x))
    torch.testing.assert_close(torch.diagonal(gram), kernel.diagonal(x))
    values = torch.linalg.eigvalsh(gram)
    assert float(values[0]) > -1e-3 * float(values[-1])
    assert float(values[1] / values[-1]) > 1e-12  # and not of rank one


@pytest.mark.parametrize("activation", ALL)
def test_gradients_reach_the_paths(activation: Activation) -> None:
    x, y = paths(2, 3, 2, 13).requires_grad_(), paths(1, 3, 2, 14)
    kernel = NeuralSignatureKernel(activation, bias=0.2, refine=1)
    assert torch.autograd.gradcheck(lambda x: kernel(x, y), (x,))
    (grad,) = torch.autograd.grad(kernel(x).sum(), x)  # its diagonal has correlation 1
    assert bool(grad.isfinite().all())


def test_rough_paths_need_no_fine_grid() -> None:
    """Where a path meets itself, the corners of full correlation must count."""
    x = 0.1 * Stream(23, "rough").normal((1, 60, 3), dtype=DOUBLE)  # points, not increments: it goes back and forth
    coarse, fine = (NeuralSignatureKernel(ReLU(), refine=q)(x) for q in (0, 2))
    assert float((coarse / fine - 1).abs()) < 1e-3


# New weights in every layer


@pytest.mark.parametrize("activation", ALL)
def test_the_inhomogeneous_kernel_has_order_two(activation: Activation) -> None:
    x, y = paths(3, 4, 2, 15), paths(2, 4, 2, 16)
    kernel = InhomogeneousSignatureKernel(activation, weight=0.8, bias=0.3)
    measured = orders(lambda q: replace(kernel, refine=q)(x, y), (3, 4, 5, 6))
    assert all(abs(order - 2) < 0.15 for order in measured), measured


def test_the_inhomogeneous_linear_kernel_is_an_exponential() -> None:
    x, y, times = paths(2, 4, 2, 17), paths(3, 4, 2, 18), torch.tensor([0.0, 0.2, 0.7, 1.5], dtype=DOUBLE)
    found = InhomogeneousSignatureKernel(Identity(), initial=0.6, weight=0.9, bias=0.4, refine=8)(x, y, times)
    dx, dy = x.diff(dim=1)[:, None], y.diff(dim=1)[None]
    action = ((dx * dy).sum(3) / times.diff()).sum(2)
    shift = (0.4 / 0.9) ** 2
    torch.testing.assert_close(found, (0.36 + shift) * torch.exp(0.81 * action) - shift, rtol=1e-5, atol=1e-5)


def test_the_inhomogeneous_kernel_depends_on_speed() -> None:
    x, kernel = paths(2, 3, 2, 19), InhomogeneousSignatureKernel(refine=4)
    times = torch.tensor([0.0, 0.1, 1.0])
    assert float((kernel(x, times=times) - kernel(x)).abs().max()) > 0.01
    torch.testing.assert_close(kernel.diagonal(x, times), torch.diagonal(kernel(x, times=times)))
    torch.testing.assert_close(kernel(x), kernel(x, x))


# Finite width


@pytest.mark.parametrize("activation", ALL)
def test_wide_networks_tend_to_the_kernel(activation: Activation) -> None:
    x = paths(2, 3, 2, 20, 0.6)
    settings = {"initial": 0.9, "weight": 0.8, "bias": 0.3}
    network = ControlledResNet(150, activation, refine=5, **settings)
    draws = []
    for seed in range(40):
        s = network(x, seed)
        draws.append(s @ s.T / 150)
    stack = torch.stack(draws)
    limit = NeuralSignatureKernel(activation, refine=5, **settings)(x)
    error = stack.std(0) / math.sqrt(40)
    assert bool(
        ((stack.mean(0) - limit).abs() < 4 * error + 0.02 * limit.abs()).all()
    )  # 2 %: Euler's steps of the network


def test_networks_are_repeatable_and_share_weights() -> None:
    x = paths(3, 4, 2, 21)
    network = ControlledResNet(16, bias=0.5)
    assert torch.equal(network(x, 3), network(x, 3))
    assert not torch.equal(network(x, 3), network(x, 4))
    torch.testing.assert_close(network(x[1:2], 3), network(x, 3)[1:2])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda x: NeuralSignatureKernel(weight=-1.0), "must not be negative"),
        (lambda x: NeuralSignatureKernel(weight=0.0), "it would be constant"),
        (lambda x: NeuralSignatureKernel(refine=-1), "refine must be at least 0"),
        (lambda x: ControlledResNet(0), "width of at least 1"),
        (lambda x: NeuralSignatureKernel()(x[0]), r"paths \(n, T, C\).*got \(4, 2\)"),
        (lambda x: NeuralSignatureKernel()(x[:, :1]), "at least 2 points"),
        (lambda x: NeuralSignatureKernel()(x.log()), "repeat the last point"),
        (lambda x: NeuralSignatureKernel()(x, x[..., :1]), "differ in channels"),
        (lambda x: NeuralSignatureKernel()(x, x.float()), "differ in channels or dtype"),
        (lambda x: InhomogeneousSignatureKernel()(x, x[:, :3]), "common times, got 4 and 3"),
        (lambda x: InhomogeneousSignatureKernel()(x, times=torch.tensor([0.0, 1.0, 1.0, 2.0])), "and increase"),
    ],
)
def test_bad_input_is_refused(make: Callable[[Tensor], object], match: str) -> None:
    with pytest.raises(InvalidInput, match=match):
        make(paths(2, 4, 2, 22))
