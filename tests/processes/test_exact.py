"""What every exact denoiser owes: Tweedie's formula, a true Jacobian, independence of the process."""

import pytest
import torch

from isocline._core.errors import InvalidInput, Mismatch
from isocline.processes import EDM, RectifiedFlow
from tests.contracts.denoisers import EXACT, cloud
from tests.contracts.processes import PROCESSES, label

every_law = pytest.mark.parametrize("law", EXACT.values(), ids=EXACT)
every_process = pytest.mark.parametrize("process", PROCESSES, ids=label)
LEVELS = torch.tensor([0.05, 0.3, 1.0, 4.0, 0.8, 0.1], dtype=torch.float64)


def states(model, levels=LEVELS):
    """Noised data of the law itself in the unscaled frame, one noise level each."""
    data = model.sample(len(levels), 3)
    return data + levels.reshape(-1, *([1] * (data.ndim - 1))) * cloud(*data.shape, name="noise")


@every_law
def test_score_is_the_gradient_of_the_log_density(law):
    model = law(EDM())
    x = states(model).requires_grad_()
    (expected,) = torch.autograd.grad(model.log_density(x, LEVELS).sum(), x)
    torch.testing.assert_close(model.predict(x, LEVELS).score, expected, rtol=1e-9, atol=1e-9)


@every_law
def test_product_is_that_of_autograd(law):
    model = law(EDM())
    x, v = states(model).requires_grad_(), cloud(len(LEVELS), *model.event, name="v")
    prediction = model.predict(x, LEVELS)
    (expected,) = torch.autograd.grad(prediction.x0, x, v)
    model.calls = 0
    found, product = model.vjp(x, LEVELS, v)
    assert (model.calls, model.vjps) == (1, 1)
    torch.testing.assert_close(product, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.x0, prediction.x0, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(found.score, prediction.score, rtol=1e-12, atol=1e-12)


@every_law
def test_second_derivatives_agree_with_differences(law):
    """The products are differentiable themselves, as bilevel tuning needs."""
    model = law(EDM())
    x, v = states(model)[1:3].requires_grad_(), cloud(2, *model.event, name="v")

    def slope(x):
        return model.vjp(x, 0.6, v)[1].sum() + 0 * x.sum()  # a linear denoiser has a constant Jacobian

    (gradient,) = torch.autograd.grad(slope(x), x)
    h = 1e-5 * cloud(2, *model.event, name="h")
    expected = (slope(x.detach() + h) - slope(x.detach() - h)) / 2
    assert float((gradient * h).sum()) == pytest.approx(float(expected), rel=1e-5, abs=1e-11)


@every_law
@every_process
def test_predictions_are_one_function_of_y_and_s(law, process):
    reference, model = law(EDM()), law(process)
    y = states(reference)
    t = process.time_of_noise_level(LEVELS)
    alpha = process.alpha(t).reshape(-1, *([1] * (y.ndim - 1)))
    expected, found = reference.predict(y, LEVELS), model.predict(alpha * y, t)
    torch.testing.assert_close(found.x0, expected.x0, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(found.eps, expected.eps, rtol=1e-7, atol=1e-7)
    density = model.log_density(alpha * y, t) + y[0].numel() * torch.log(process.alpha(t))
    torch.testing.assert_close(density, reference.log_density(y, LEVELS), rtol=1e-8, atol=1e-8)


@every_law
def test_pure_noise_gives_the_mean_of_the_data(law):
    model = law(RectifiedFlow())
    prediction = model.predict(cloud(2, *model.event), 1.0)
    torch.testing.assert_close(prediction.x0[0], prediction.x0[1], rtol=1e-12, atol=1e-12)
    data = model.sample(20000, 8)
    error = (data.mean(0) - prediction.x0[0]).abs()
    assert (error <= 4.5 * data.std(0) / 20000**0.5 + 1e-12).all()


@every_law
def test_prediction_is_the_regression_of_the_data(law):
    """E[(x0 - D) h(x)] = 0 for every function h: here h = 1, tanh(x) and cos(2 x)."""
    model, n = law(EDM()), 20000
    x0 = model.sample(n, 1)
    x, _ = model.process.perturb(x0, 0.7, 2)
    residual = (x0 - model.predict(x, 0.7).x0).flatten(1)
    for h in (torch.ones_like(residual), torch.tanh(x.flatten(1)), torch.cos(2 * x.flatten(1))):
        product = residual * h
        assert (product.mean(0).abs() <= 4.5 * product.std(0) / n**0.5 + 1e-12).all()


@every_law
def test_samples_do_not_depend_on_the_split(law):
    model = law(EDM())
    torch.testing.assert_close(model.sample(9, 4)[5:], model.sample(4, 4, first=5), rtol=1e-14, atol=1e-15)
    assert model.sample(9, 4).shape == (9, *model.event)
    assert not torch.equal(model.sample(9, 4), model.sample(9, 5))


@every_law
def test_states_keep_their_dtype(law):
    model = law(EDM())
    x = states(model)
    prediction, product = model.vjp(x.float(), LEVELS, x.float())
    assert prediction.x0.dtype == prediction.score.dtype == product.dtype == torch.float32
    assert model.log_density(x.float(), 1.0).dtype == torch.float32
    torch.testing.assert_close(model.predict(x.float(), 1.0).x0, model.predict(x, 1.0).x0.float(), rtol=1e-4, atol=1e-5)


@every_law
def test_wrong_states_and_conditions_are_refused(law):
    model = law(EDM())
    with pytest.raises(Mismatch, match="has data of shape"):
        model.predict(torch.zeros(2, 99), 1.0)
    with pytest.raises(InvalidInput, match="is unconditional; leave cond out"):
        model.predict(torch.zeros(2, *model.event), 1.0, cond=3)
