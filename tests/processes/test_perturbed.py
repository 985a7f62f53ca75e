import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline.processes import (
    EDM,
    GaussianMixture,
    Guided,
    PerturbedDenoiser,
    RectifiedFlow,
    VarianceExploding,
    VariancePreserving,
    wrap,
)
from isocline.processes.parameterisation import PARAMETERISATIONS
from tests.contracts.denoisers import cloud

VP = VariancePreserving()
BED = GaussianMixture.smooth_bed(VP)
T = torch.tensor(0.3, dtype=torch.float64)


def test_error_is_bounded_and_reaches_its_bound():
    error = PerturbedDenoiser(BED, 0.2, 1).perturbation(3 * cloud(4000, 8), T).abs()
    assert float(error.max()) <= 0.2
    assert float(error.max()) > 0.19
    assert 0.08 < float(error.square().mean().sqrt()) < 0.17  # a sine has 0.2 / sqrt(2) = 0.141


def test_error_is_smooth():
    """Second differences fall by four when the step is halved: two continuous derivatives, of moderate size."""
    model, x, v = PerturbedDenoiser(BED, 1.0, 1), cloud(64, 8), cloud(64, 8, name="v")

    def bend(h):
        ends = model.perturbation(x + h * v, T) + model.perturbation(x - h * v, T)
        return (ends - 2 * model.perturbation(x, T)).abs().max()

    assert float(bend(1e-2) / bend(5e-3)) == pytest.approx(4, abs=0.1)
    assert float(model.perturbation(x + 1e-4 * v, T).sub(model.perturbation(x, T)).abs().max()) < 1e-2


def test_error_is_reproducible_and_depends_on_the_seed_and_the_time():
    x = cloud(16, 8)
    first, again = (PerturbedDenoiser(BED, 0.2, 1).perturbation(x, T) for _ in range(2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    torch.testing.assert_close(
        first[5:9], PerturbedDenoiser(BED, 0.2, 1).perturbation(x[5:9], T), rtol=1e-14, atol=1e-14
    )
    other = [PerturbedDenoiser(BED, 0.2, 2).perturbation(x, T), PerturbedDenoiser(BED, 0.2, 1).perturbation(x, 0.9)]
    assert all(float((first - o).square().mean().sqrt()) > 0.02 for o in other)


@pytest.mark.parametrize("process", [EDM(), VarianceExploding(), RectifiedFlow()])
def test_error_is_the_same_in_every_process(process):
    y, s = cloud(5, 8), torch.tensor(0.7, dtype=torch.float64)
    t_vp, t = VP.time_of_noise_level(s), process.time_of_noise_level(s)
    expected = PerturbedDenoiser(BED, 0.3, 0).predict(VP.alpha(t_vp) * y, t_vp).x0
    found = PerturbedDenoiser(GaussianMixture.smooth_bed(process), 0.3, 0).predict(process.alpha(t) * y, t).x0
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", PARAMETERISATIONS)
def test_error_is_added_to_the_data_prediction_of_any_parameterisation(kind):
    x = cloud(5, 8)
    dx, dm = kind().from_data(VP, T)
    model = PerturbedDenoiser(wrap(lambda x, t: dx * x + dm * BED(x, T), VP, kind()), 0.3, 4)
    found = model.predict(x, T).x0 - BED.predict(x, T).x0
    torch.testing.assert_close(found, model.perturbation(x, T), rtol=1e-10, atol=1e-11)
    assert model.calls == 1


@pytest.mark.parametrize("t", [T, torch.linspace(0.1, 0.9, 5, dtype=torch.float64)], ids=["one time", "time per state"])
def test_product_is_that_of_autograd(t):
    x, v, model = cloud(5, 8).requires_grad_(), cloud(5, 8, name="v"), PerturbedDenoiser(BED, 0.3, 4)
    prediction = model.predict(x, t)
    (expected,) = torch.autograd.grad(prediction.x0, x, v)
    found, product = model.vjp(x, t, v)
    torch.testing.assert_close(product, expected, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(found.x0, prediction.x0)


def test_end_of_a_flow_is_finite():
    flow = RectifiedFlow()
    x = cloud(3, 8)
    exact = GaussianMixture.smooth_bed(flow)
    difference = PerturbedDenoiser(exact, 0.3, 0).predict(x, 1.0).x0 - exact.predict(x, 1.0).x0
    assert 0.01 < float(difference.abs().max()) <= 0.3


def test_guidance_of_the_inner_denoiser_is_kept():
    inner = wrap(lambda x, t, cond=0.0: x * 0 + cond, EDM(), PARAMETERISATIONS[0]())
    assert PerturbedDenoiser(Guided(inner, 4.0), 0.1, 0).guidance == 4.0


def test_a_negative_amplitude_is_refused():
    with pytest.raises(InvalidInput, match="amplitude must be finite and not negative, got -1"):
        PerturbedDenoiser(BED, -1.0, 0)
