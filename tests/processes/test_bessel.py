"""Bessel ratios against scipy where scipy works, against their differential equation and limits elsewhere."""

import math

import numpy as np
import pytest
import torch
from scipy.special import gammaln, ive

from isocline.processes.exact.bessel import _switch, log_mean_exp, mean_over_k, mean_slope

spheres = pytest.mark.parametrize("n", [1, 2, 3, 8, 31, 100])


@spheres
def test_ratio_and_mean_against_scipy(n):
    nu, k = (n + 1) / 2, np.logspace(-1, 5, 97)
    ok = ive(nu, k) > 1e-280
    k = k[ok]
    ratio = ive(nu, k) / ive(nu - 1, k)
    np.testing.assert_allclose(mean_over_k(torch.from_numpy(k), n) * torch.from_numpy(k), ratio, rtol=3e-13)
    log_mean = gammaln(nu) + (nu - 1) * np.log(2 / k) + np.log(ive(nu - 1, k))
    np.testing.assert_allclose(log_mean_exp(torch.from_numpy(k), n), log_mean, rtol=1e-12, atol=1e-11)


def test_two_sphere_is_elementary():
    """On S^2: A = coth k - 1 / k and E = sinh(k) / k."""
    k = torch.logspace(-1, 2, 60, dtype=torch.float64)
    torch.testing.assert_close(k * mean_over_k(k, 2), 1 / torch.tanh(k) - 1 / k, rtol=1e-13, atol=0)
    slope = mean_slope(k, mean_over_k(k, 2), 2)
    torch.testing.assert_close(slope, 1 / k**2 - 1 / torch.sinh(k) ** 2, rtol=1e-11, atol=0)
    expected = torch.log(-torch.expm1(-2 * k) / (2 * k))
    torch.testing.assert_close(log_mean_exp(k, 2), expected, rtol=1e-13, atol=1e-13)


@spheres
def test_limits_of_small_and_large_concentration(n):
    k = torch.tensor([0.0, 1e-12, 1e-6], dtype=torch.float64)
    torch.testing.assert_close(mean_over_k(k, n), torch.full_like(k, 1 / (n + 1)), rtol=1e-12, atol=0)
    torch.testing.assert_close(log_mean_exp(k, n), -k, rtol=0, atol=1e-12)
    large = torch.tensor([1e8, 1e12], dtype=torch.float64)
    torch.testing.assert_close(mean_slope(large, mean_over_k(large, n), n), n / (2 * large**2), rtol=1e-5, atol=0)


@spheres
def test_both_branches_meet_at_the_switch(n):
    k = torch.tensor([_switch(n), math.nextafter(_switch(n), math.inf)], dtype=torch.float64)
    over_k = mean_over_k(k, n)
    for value, tolerance in ((over_k, 1e-14), (mean_slope(k, over_k, n), 1e-10), (log_mean_exp(k, n), 1e-13)):
        assert float(value[0]) == pytest.approx(float(value[1]), rel=tolerance)


@spheres
def test_derivatives_are_those_of_the_functions(n):
    """A is E'/E, and (A/k)' follows from the Riccati equation; checked by central differences in float64."""
    k = torch.tensor([1e-3, 0.05, 0.9, 7.0, 40.0, 55.0, 700.0], dtype=torch.float64).requires_grad_()
    h = 1e-4 * k.detach()
    for function, tolerance in ((mean_over_k, 1e-6), (log_mean_exp, 1e-6)):
        (gradient,) = torch.autograd.grad(function(k, n).sum(), k)
        difference = (function(k.detach() + h, n) - function(k.detach() - h, n)) / (2 * h)
        scale = function(k.detach(), n).abs() / h * 1e-15  # what rounding does to the difference
        assert ((gradient - difference).abs() <= tolerance * gradient.abs() + 20 * scale).all()


@spheres
def test_second_derivative_exists(n):
    k = torch.tensor([0.01, 2.0, 30.0, 80.0, 500.0], dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda k: mean_over_k(k, n) * k, (k,), atol=1e-6, rtol=1e-4)
