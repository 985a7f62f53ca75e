"""Log-likelihood by the probability flow: exact densities, closed forms, order, Hutchinson's estimate, other noise laws."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, NotFinite
from isocline.plans import ExactTrace, Hutchinson, grids, log_likelihood
from isocline.plans.likelihood import start_log_density
from isocline.processes import (
    EDM,
    Data,
    Denoiser,
    FlowVelocity,
    GaussianMixture,
    GaussianProcess,
    Noise,
    PoissonFlow,
    PoissonPoints,
    RectifiedFlow,
    SubVariancePreserving,
    VariancePreserving,
    ornstein_uhlenbeck,
    wrap,
)
from tests.plans.helpers import Told, normal

PROCESSES = [EDM(), SubVariancePreserving(), ornstein_uhlenbeck()]


def noised(model: Any, times: Tensor, n: int = 8) -> Tensor:
    """Return data of `model` with the noise of the last time."""
    return model.process.perturb(model.sample(n, 1), times[-1], 2)[0]


def plane(process: GaussianProcess) -> GaussianMixture:
    """Return three Gaussians in the plane: cheap, and far from Gaussian."""
    return GaussianMixture(process, normal(3, 2), torch.tensor([0.3, 0.5, 0.4]), torch.tensor([0.5, 0.3, 0.2]))


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.describe())
def test_it_is_the_exact_density_of_a_mixture(process: GaussianProcess) -> None:
    """With the exact law at the first time as prior: what is left is the error of the integration."""
    model, times = plane(process), grids.log_snr(process, 48)
    x = noised(model, times)
    found = log_likelihood(model, x, times, prior=lambda state: model.log_density(state, times[0]))
    exact = model.log_density(x, times[-1])
    assert float(exact.std()) > 0.5  # the data differ
    assert float((found.value - exact).abs().max()) < 1e-3 * 2
    assert not found.standard_error.any()


def test_a_flow_forgets_the_data_and_needs_no_prior() -> None:
    model = GaussianMixture.smooth_bed(RectifiedFlow())
    times = grids.uniform(model.process, 16)
    x = noised(model, times)
    error = log_likelihood(model, x, times).value - model.log_density(x, times[-1])
    assert float(error.abs().max()) < 1e-3 * 8


def test_the_law_of_starts_serves_where_the_noise_hides_the_data() -> None:
    """The data's mean is left over: at EDM's own last noise level of 80 it costs more than the bar."""
    errors = []
    for top in (80.0, 1000.0):
        model = plane(EDM(t_min=0.05, t_max=top))
        times = grids.log_snr(model.process, 40)
        x = noised(model, times)
        errors.append(float((log_likelihood(model, x, times).value - model.log_density(x, times[-1])).abs().max()))
    assert errors[1] < 1e-3 * 2 < errors[0] < 0.1


@pytest.mark.parametrize("process", [EDM(t_max=5.0), VariancePreserving(t_max=0.6), RectifiedFlow()], ids=str)
def test_gaussian_data_have_closed_forms_for_density_and_latent(process: GaussianProcess) -> None:
    """The flow of ``N(m, v)`` is affine, so the starts' law becomes a Gaussian; the prior is wrong on purpose."""
    m, v = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), 0.49
    model = GaussianMixture(process, m[None], torch.tensor([0.7]))
    times = grids.uniform(process, 20, t_min=0.2)
    alpha, sigma = process.alpha(times[[0, -1]]), process.sigma(times[[0, -1]])
    spread = torch.sqrt(alpha**2 * v + sigma**2)
    x = noised(model, times, 5)
    found = log_likelihood(model, x, times)
    latent = alpha[0] * m + spread[0] / spread[1] * (x - alpha[1] * m)
    torch.testing.assert_close(found.latent, latent, rtol=0, atol=1e-4)
    law = torch.distributions.Normal(
        alpha[1] * m - spread[1] / spread[0] * alpha[0] * m, sigma[0] * spread[1] / spread[0]
    )
    torch.testing.assert_close(found.value, law.log_prob(x).sum(1), rtol=0, atol=1e-4)


def test_the_order_is_four_and_the_error_is_estimated() -> None:
    model = plane(RectifiedFlow())
    x = model.process.perturb(model.sample(32, 1), 0.01, 2)[0]
    exact = model.log_density(x, 0.01)
    errors, estimates = [], []
    for n in (12, 24, 48):
        found = log_likelihood(model, x, grids.uniform(model.process, n, t_min=0.01))
        errors.append(float((found.value - exact).square().mean().sqrt()))
        estimates.append(float(found.error.square().mean().sqrt()))
    assert abs(math.log2(errors[1] / errors[2]) - 4) < 0.3
    assert estimates[1] / errors[1] == pytest.approx(1, rel=0.5)
    assert estimates[2] / errors[2] == pytest.approx(1, rel=0.25)


def test_hutchinson_is_unbiased_with_the_error_it_states() -> None:
    model, probes = GaussianMixture.smooth_bed(RectifiedFlow()), 24
    times = grids.uniform(model.process, 4)
    x = noised(model, times, 40)
    exact = log_likelihood(model, x, times)
    found = log_likelihood(model, x, times, trace=Hutchinson(probes, rng=3))
    torch.testing.assert_close(found.latent, exact.latent, rtol=1e-12, atol=1e-12)
    gap = found.value - exact.value
    assert float(gap.mean().abs()) < 3 * float(found.standard_error.square().sum().sqrt()) / 40
    score = gap / found.standard_error  # Student's law with 23 degrees of freedom, of variance 23 / 21
    assert float(score.abs().max()) < 4.5
    assert 0.6 < float(score.square().mean()) < 1.7
    assert float(found.standard_error.min()) > 0


def test_a_diagonal_jacobian_needs_one_probe() -> None:
    """For signs ``v``, ``v^T J v`` is the trace itself where ``J`` is diagonal."""
    process = EDM(t_max=10.0)
    model = GaussianMixture(process, torch.zeros(1, 5), torch.tensor([0.7]))
    times = grids.log_snr(process, 8)
    x = noised(model, times)
    found, exact = (log_likelihood(model, x, times, trace=trace) for trace in (Hutchinson(1, 0), ExactTrace()))
    torch.testing.assert_close(found.value, exact.value, rtol=1e-12, atol=0)
    assert bool(found.standard_error.isinf().all())


def test_one_probe_serves_the_whole_solve() -> None:
    """For ``D = A x`` the result is then one quadratic form: off by ``c (tr A - v^T A v)``, ``c`` alike for all samples."""
    matrix, x = normal(4, 4, seed=4), normal(12, 4)
    model = Told(lambda x, t: x @ matrix.T, EDM(t_min=1.0, t_max=4.0))
    times, trace = grids.log_snr(model.process, 4), Hutchinson(1, rng=1)
    gap = log_likelihood(model, x, times, trace=trace).value - log_likelihood(model, x, times).value
    (v,) = trace.directions(x)
    factor = gap / (torch.trace(matrix) - (v * (v @ matrix.T)).sum(1))
    assert float(gap.std()) > 0.1
    torch.testing.assert_close(factor, factor.mean().expand(12), rtol=1e-10, atol=0)
    assert float(factor[0]) == pytest.approx(math.log(4), rel=1e-3)  # int ds / s


def test_parts_of_a_batch_get_the_values_they_have_in_the_whole() -> None:
    model = plane(RectifiedFlow())
    times = grids.uniform(model.process, 4)
    x = noised(model, times, 6)
    whole = log_likelihood(model, x, times, trace=Hutchinson(2, rng=7))
    part = log_likelihood(model, x[4:], times, trace=Hutchinson(2, rng=7, first=4))
    torch.testing.assert_close(part.value, whole.value[4:], rtol=1e-12, atol=0)


def test_what_the_network_outputs_does_not_matter() -> None:
    process = VariancePreserving(t_max=0.8)
    model, times = plane(process), grids.log_snr(process, 8)
    x = noised(model, times)
    expected = log_likelihood(model, x, times)
    for parameterisation in (Data(), Noise(), FlowVelocity()):
        found = log_likelihood(Told(lambda x, t: model(x, t), process, parameterisation), x, times)
        torch.testing.assert_close(found.value, expected.value, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(found.error, expected.error, rtol=1e-5, atol=1e-9)


def test_a_condition_reaches_the_network() -> None:
    """Data ``N(c, I)``: the density of ``x`` under ``c`` is that of ``x - c`` under 0, but for the prior's shift."""
    process = RectifiedFlow()

    def network(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        alpha, sigma = 1 - t[:, None], t[:, None]
        return cond + alpha / (alpha**2 + sigma**2) * (x - alpha * cond)

    x, c, times = normal(4, 2), normal(4, 2, seed=1), grids.uniform(process, 32)
    found = log_likelihood(wrap(network, process, Data()), x + c, times, cond=c)
    alpha, sigma = process.alpha(times[-1]), process.sigma(times[-1])
    law = torch.distributions.Normal(alpha * c, torch.sqrt(alpha**2 + sigma**2))
    torch.testing.assert_close(found.value, law.log_prob(x + c).sum(1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("D", [1, 5])
def test_a_poisson_flow_has_its_own_density(D: float) -> None:
    """An asymmetric Jacobian on the way, and the exact density of the points at the end."""
    model = PoissonPoints(PoissonFlow(D=D, t_min=0.4), normal(5, 2))
    times = grids.log_snr(model.process, 40)
    x = noised(model, times)
    found = log_likelihood(model, x, times, prior=lambda state: model.log_density(state, times[0]))
    assert float((found.value - model.log_density(x, times[-1])).abs().max()) < 1e-3 * 2


def test_a_poisson_flow_starts_from_students_law() -> None:
    model = PoissonPoints(PoissonFlow(D=3, t_min=0.4, t_max=5000.0), normal(5, 2))
    times = grids.log_snr(model.process, 56)
    x = noised(model, times)
    found = log_likelihood(model, x, times)
    assert float((found.value - model.log_density(x, times[-1])).abs().max()) < 1e-3 * 2


@pytest.mark.parametrize("process", [EDM(), PoissonFlow(D=3)], ids=lambda p: type(p).__name__)
def test_the_density_of_starts_integrates_to_one(process: GaussianProcess) -> None:
    x = torch.linspace(-4000, 4000, 400_001, dtype=torch.float64)
    density = start_log_density(process, x[:, None], 2.0).exp()
    assert float(torch.trapezoid(density, x)) == pytest.approx(1, abs=1e-8)


def test_images_keep_their_shape_and_float32_its_dtype() -> None:
    flat = plane(RectifiedFlow())
    model = GaussianMixture(flat.process, flat.means.reshape(3, 1, 2), flat.stds, flat.weights)
    times = grids.uniform(flat.process, 16)
    x = noised(flat, times)
    expected = log_likelihood(flat, x, times)
    found = log_likelihood(model, x.reshape(-1, 1, 2), times)
    torch.testing.assert_close(found.value, expected.value, rtol=1e-12, atol=0)
    single = log_likelihood(model, x.reshape(-1, 1, 2).float(), times)
    assert (single.latent.dtype, single.latent.shape) == (torch.float32, (8, 1, 2))
    torch.testing.assert_close(single.value, expected.value, rtol=0, atol=1e-3)


def test_the_cost_is_counted() -> None:
    model = plane(EDM())
    times = grids.log_snr(model.process, 6)
    exact = log_likelihood(model, normal(2, 2), times)
    assert (exact.cost.calls, exact.cost.vjps) == (
        6 * 6 * 2,
        6 * 6 * 2,
    )  # 9 steps of four evaluations, two products each
    probed = log_likelihood(model, normal(2, 2), times, trace=Hutchinson(3, 0))
    assert probed.cost.vjps == 6 * 6 * 3


def test_the_network_gets_no_gradient() -> None:
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    network = Told(lambda x, t: weight * x / 2, RectifiedFlow())
    found = log_likelihood(network, normal(2, 2), grids.uniform(network.process, 4))
    assert weight.grad is None
    assert not found.value.requires_grad


def broken(x: Tensor, t: Tensor) -> Tensor:
    return x / 0


@pytest.mark.parametrize(
    ("x", "times", "message"),
    [
        (normal(2, 2), [1.0, 0.5, 0.2, 0.1], "even number of steps for its error, got 3"),
        (normal(2, 2), [0.1, 0.5, 1.0], "strictly decreasing times"),
        (normal(2, 2), [1.0, 0.5], "at least three"),
        (normal(2, 2), [1.0, 0.5, 0.0], 'no density at a time without noise; end the grid at "t_min"'),
        (torch.ones(2, 2, dtype=torch.int64), [1.0, 0.5, 0.1], "floating point"),
        (normal(2), [1.0, 0.5, 0.1], r"\(B, \*\), got torch.float64 \(2,\)"),
    ],
)
def test_bad_input_is_refused(x: Tensor, times: list[float], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        log_likelihood(plane(EDM()), x, torch.tensor(times))


def test_no_probe_and_results_that_are_not_finite_are_refused() -> None:
    with pytest.raises(InvalidInput, match="at least one probe, got 0"):
        Hutchinson(0, rng=0)
    model: Denoiser = Told(broken, EDM())
    with pytest.raises(NotFinite, match="NaN or infinite"):
        log_likelihood(model, normal(2, 2), torch.tensor([1.0, 0.5, 0.1]))
