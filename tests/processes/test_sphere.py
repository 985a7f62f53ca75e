"""Spheres against brute force, and the facts about thin data that they exist to show (arXiv 2301.07882)."""

import math

import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline.processes import EDM, Circle, FinitePoints, Sphere, VariancePreserving
from tests.contracts.denoisers import cloud

VP = VariancePreserving()


def ring(n, d, radius):
    """Return `n` points evenly on a circle in the first two of `d` coordinates."""
    angle = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
    return radius * torch.nn.functional.pad(torch.stack([torch.cos(angle), torch.sin(angle)], 1), (0, d - 2))


@pytest.mark.parametrize("t", [0.05, 0.3, 1.0])
def test_circle_is_the_limit_of_many_points(t):
    """The trapezoidal rule on a circle converges geometrically, so 4000 points are exact to rounding."""
    x, many = cloud(6, 4), FinitePoints(VP, ring(4000, 4, 1.3))
    model = Circle(VP, 4, 1.3)
    torch.testing.assert_close(model.predict(x, t).x0, many.predict(x, t).x0, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(model.log_density(x, t), many.log_density(x, t), rtol=1e-10, atol=1e-9)


def test_circle_is_a_sphere():
    x = cloud(5, 3)
    circle, sphere = Circle(EDM(), 3, 2.0).predict(x, 0.6), Sphere(EDM(), 3, 1, 2.0).predict(x, 0.6)
    assert torch.equal(circle.x0, sphere.x0)


def test_sphere_against_quadrature():
    """Given x the cosine c between datum and x has density exp(k c) (1 - c^2)^{n/2 - 1} on [-1, 1]."""
    n, radius, s = 3, 0.7, torch.tensor(0.4, dtype=torch.float64)
    x, model = cloud(5, 6), Sphere(EDM(), 6, 3, 0.7)
    r = x[:, :4].norm(dim=1, keepdim=True)
    c = torch.linspace(-1, 1, 200001, dtype=torch.float64)
    odds = torch.exp(radius * r / s**2 * (c - 1)) * (1 - c**2) ** (n / 2 - 1)
    cosine = torch.trapezoid(odds * c, c) / torch.trapezoid(odds, c)
    expected = torch.zeros_like(x)
    expected[:, :4] = radius * cosine[:, None] * x[:, :4] / r
    torch.testing.assert_close(model.predict(x, s).x0, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("d", "n"), [(2, 1), (3, 1), (8, 1), (6, 3)])
def test_noise_target_measures_the_codimension(d, n):
    """At small noise E|e*|^2 -> d - n, and SNR E|x0 - D|^2 -> n."""
    model, s, count = Sphere(EDM(), d, n), 1e-3, 20000
    x0 = model.sample(count, 0)
    prediction = model.predict(model.process.perturb(x0, s, 1)[0], s)
    for value, limit in ((prediction.eps, d - n), ((x0 - prediction.x0) / s, n)):
        size = (value**2).sum(1)
        assert abs(float(size.mean()) - limit) < 4.5 * float(size.std()) / count**0.5 + 1e-3 * limit


@pytest.mark.parametrize("s", [1e-6, 1e-3, 1.0, 1e6])
def test_all_noise_levels_are_stable(s):
    """From k = 1e-12 to 1e12: the prediction stays in the ball, and the Jacobian is that of the limits."""
    model, x, v = Sphere(EDM(), 3, 2), cloud(4, 3), cloud(4, 3, name="v")
    prediction, product = model.vjp(x, s, v)
    r = x.norm(dim=1, keepdim=True)
    assert float(prediction.x0.norm(dim=1).max()) <= 1
    if s <= 1e-3:
        unit = x / r
        tangent = (v - unit * (unit * v).sum(1, keepdim=True)) / r
        torch.testing.assert_close(prediction.x0, unit, rtol=0, atol=10 * s**2)
        torch.testing.assert_close(product, tangent, rtol=0, atol=30 * s**2)
    if s == 1e6:
        torch.testing.assert_close(product, v / (3 * s**2), rtol=1e-10, atol=0)


def test_the_centre_is_regular():
    """x = 0 is on the medial axis: D = 0 there, with slope R^2 / (n + 1) / s^2."""
    model, v = Sphere(EDM(), 4, 2, 0.5), cloud(2, 4, name="v")
    x = torch.zeros(2, 4, dtype=torch.float64, requires_grad=True)
    prediction, product = model.vjp(x, 0.3, v)
    expected = 0.25 / 3 / 0.09 * torch.nn.functional.pad(v[:, :3], (0, 1))
    assert torch.equal(prediction.x0, torch.zeros_like(x))
    torch.testing.assert_close(product, expected)
    torch.testing.assert_close(torch.autograd.grad(model.predict(x, 0.3).x0, x, v)[0], expected)


def test_density_integrates_to_one():
    model = Circle(EDM(), 2, 1.0)
    axis = torch.linspace(-4, 4, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    total = torch.exp(model.log_density(grid, 0.4)).sum() * (axis[1] - axis[0]) ** 2
    assert float(total) == pytest.approx(1.0, abs=1e-9)


def test_samples_are_uniform_on_the_sphere():
    data = Sphere(VP, 5, 2, 1.7).sample(20000, 0)
    torch.testing.assert_close(data.norm(dim=1), torch.full((20000,), 1.7, dtype=torch.float64))
    assert torch.equal(data[:, 3:], torch.zeros(20000, 2, dtype=torch.float64))
    height = data[:, 0].sort().values / 1.7  # uniform on [-1, 1] by Archimedes
    step = torch.arange(1, 20001) / 20000
    assert float((0.5 * (height + 1) - step).abs().max()) < 1.95 / 20000**0.5  # Kolmogorov-Smirnov at 0.1 %


@pytest.mark.parametrize(("d", "n", "radius"), [(2, 2, 1.0), (2, 0, 1.0), (3, 1, 0.0)])
def test_bad_spheres_are_refused(d, n, radius):
    with pytest.raises(InvalidInput, match=r"intrinsic < dimension|radius must be positive"):
        Sphere(VP, d, n, radius)
