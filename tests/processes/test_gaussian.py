"""What every Gaussian process owes: consistent rates, an exact inverse, the SDE of its own marginals."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.processes import EDM, RectifiedFlow, Tabulated
from tests.contracts.processes import PROCESSES, label

every_process = pytest.mark.parametrize("process", PROCESSES, ids=label)
fractions = st.floats(0.0, 1.0)


def times(process, n=37):
    """Times inside the range, denser near its start, away from the knots of tables."""
    start = math.log(process.t_min if process.t_min > 0 else 1e-4)
    t = torch.exp(torch.linspace(start, math.log(process.t_max), n, dtype=torch.float64))
    return t[:-1] * 1.0013


def derivative(function, t):
    t = t.clone().requires_grad_()
    return torch.autograd.grad(function(t).sum(), t)[0]


@every_process
def test_time_round_trip(process):
    t = times(process)
    torch.testing.assert_close(process.time_of(process.half_log_snr(t)), t, rtol=1e-12, atol=1e-16)


@every_process
@settings(deadline=None, max_examples=30, derandomize=True)
@given(fraction=fractions)
def test_half_log_snr_round_trip(process, fraction):
    low = max(float(process.half_log_snr(process.t_max)), -6.0)
    lam = low + fraction * (float(process.half_log_snr(max(process.t_min, 1e-4))) - low)
    found = float(process.half_log_snr(process.time_of(lam)))
    assert found == pytest.approx(lam, rel=1e-12, abs=1e-12)


@every_process
@settings(deadline=None, max_examples=30, derandomize=True)
@given(a=fractions, b=fractions)
def test_half_log_snr_strictly_decreases(process, a, b):
    early, late = (process.t_min + u * (process.t_max - process.t_min) for u in sorted((a, b)))
    if late - early > 1e-9:
        assert process.half_log_snr(early) > process.half_log_snr(late)


@every_process
def test_half_log_snr_and_noise_level_are_those_of_alpha_and_sigma(process):
    t = times(process)
    ratio = process.alpha(t) / process.sigma(t)
    torch.testing.assert_close(process.half_log_snr(t), torch.log(ratio), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(process.noise_level(t), 1 / ratio, rtol=1e-11, atol=0)
    torch.testing.assert_close(process.time_of_noise_level(1 / ratio), t, rtol=1e-10, atol=0)


@every_process
def test_rates_are_derivatives(process):
    t = times(process)
    alpha_rate, sigma_rate = process.rates(t)
    assert alpha_rate.shape == sigma_rate.shape == t.shape
    if alpha_rate.abs().max() > 0:
        torch.testing.assert_close(alpha_rate, derivative(process.alpha, t), rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(sigma_rate, derivative(process.sigma, t), rtol=1e-9, atol=1e-14)


@every_process
def test_time_of_is_differentiable_as_the_inverse(process):
    t = times(process)
    forwards = derivative(process.half_log_snr, t)
    backwards = derivative(process.time_of, process.half_log_snr(t))
    torch.testing.assert_close(forwards * backwards, torch.ones_like(t), rtol=1e-9, atol=0)


@every_process
def test_the_sde_has_these_marginals(process):
    t = times(process)
    f, g2 = process.drift(t), process.diffusion2(t)
    variance_rate = derivative(lambda t: process.sigma(t) ** 2, t)
    torch.testing.assert_close(variance_rate, 2 * f * process.sigma(t) ** 2 + g2, rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(process.alpha(t) * f, process.rates(t)[0], rtol=1e-12, atol=1e-15)
    # g^2 = -2 sigma^2 dlam/dt, a second road to the same number
    slope = derivative(process.half_log_snr, t)
    torch.testing.assert_close(g2, -2 * process.sigma(t) ** 2 * slope, rtol=1e-9, atol=1e-13)
    assert (g2 > 0).all()


@every_process
def test_early_times_keep_their_digits(process):
    """Near t = 0 the noise level behaves like a power of t; cancellation would show as a wrong power."""
    if isinstance(process, Tabulated) or float(process.noise_level(1e-8)) > 1e-3:
        pytest.skip("has no small-time limit")
    level = process.noise_level(torch.tensor([1e-12, 1e-11, 1e-10], dtype=torch.float64))
    powers = torch.log10(level[1:] / level[:-1])
    assert float(powers[0]) == pytest.approx(float(powers[1]), abs=1e-4)


@every_process
def test_float32_times_stay_float32(process):
    t = times(process)[::6].float()
    results = [process.alpha(t), process.sigma(t), process.half_log_snr(t), *process.rates(t), process.time_of(t)]
    assert {r.dtype for r in results} == {torch.float32}


@every_process
def test_perturb_mixes_datum_and_noise(process):
    x0, t = torch.ones(3, 2, dtype=torch.float64), times(process)[[3, 11, 20]]
    x, eps = process.perturb(x0, t, Stream(5, "perturb"))
    expected = process.alpha(t)[:, None] * x0 + process.sigma(t)[:, None] * eps
    torch.testing.assert_close(x, expected, rtol=1e-14, atol=0)
    torch.testing.assert_close(x[1:], process.perturb(x0[1:], t[1:], Stream(5, "perturb"), first=1)[0], rtol=0, atol=0)


@every_process
def test_describe_is_one_short_line(process):
    assert process.describe().startswith(type(process).__name__)
    assert len(process.describe()) < 100
    assert "\n" not in process.describe()


@every_process
def test_equal_parameters_make_equal_processes(process):
    twin = replace(process)
    assert twin == process
    assert hash(twin) == hash(process)
    assert sum(twin == other for other in PROCESSES) == 1


def test_terminal_has_the_noise_of_the_last_time():
    start = EDM(t_max=7.0).terminal((4, 3), 1, dtype=torch.float64)
    torch.testing.assert_close(start, 7 * Stream(1).normal((4, 3), dtype=torch.float64))


@pytest.mark.parametrize("kind", [EDM, RectifiedFlow])
def test_an_empty_time_range_is_refused(kind):
    with pytest.raises(InvalidInput, match=r"0 <= t_min < t_max, got t_min=0.5, t_max=0.5"):
        kind(t_min=0.5, t_max=0.5)
