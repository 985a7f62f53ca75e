import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline.processes import EDM, Guided, VariancePreserving, wrap
from isocline.processes.parameterisation import PARAMETERISATIONS, Noise
from tests.contracts.denoisers import cloud

VP, T = VariancePreserving(), torch.tensor(0.5, dtype=torch.float64)
STRENGTH = {None: 0.0, "cat": 1.5, "none": -0.5}


def data_network(x, cond=None):
    return torch.tanh(x) + STRENGTH[cond] * torch.sin(x)


def conditional(kind):
    dx, dm = kind().from_data(VP, T)
    return wrap(lambda x, time, cond=None: dx * x + dm * data_network(x, cond), VP, kind())


@pytest.mark.parametrize("kind", PARAMETERISATIONS)
@pytest.mark.parametrize("null", [None, "none"])
def test_guidance_extrapolates_the_data_prediction_in_every_parameterisation(kind, null):
    x = cloud(4, 3)
    found = Guided(conditional(kind), 2.5, null).predict(x, T, "cat").x0
    expected = data_network(x, null) + 2.5 * (data_network(x, "cat") - data_network(x, null))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_scale_one_is_conditional_and_zero_unconditional():
    x, inner = cloud(4, 3), conditional(Noise)
    torch.testing.assert_close(Guided(inner, 1.0)(x, T, "cat"), inner(x, T, "cat"))
    torch.testing.assert_close(Guided(inner, 0.0)(x, T, "cat"), inner(x, T))


def test_both_calls_are_counted_where_the_network_is():
    inner = conditional(Noise)
    guided = Guided(inner, 1.0)
    guided(cloud(2, 3), T, "cat")
    assert (guided.calls, inner.calls, guided.vjps) == (2, 2, 0)
    guided.vjp(cloud(2, 3), T, cloud(2, 3), "cat")
    assert (guided.calls, guided.vjps) == (4, 2)
    guided.calls = 0
    assert inner.calls == 0


def test_product_is_that_of_autograd():
    x, v, guided = cloud(4, 3).requires_grad_(), cloud(4, 3, name="v"), Guided(conditional(Noise), 3.0, "none")
    prediction = guided.predict(x, T, "cat")
    (expected,) = torch.autograd.grad(prediction.x0, x, v)
    found, product = guided.vjp(x, T, v, "cat")
    torch.testing.assert_close(product, expected)
    torch.testing.assert_close(found.score, prediction.score)


def test_identity_of_the_wrapped_denoiser_is_kept():
    guided = Guided(conditional(Noise), 3)
    assert (guided.process, guided.parameterisation, guided.guidance) == (VP, Noise(), 3.0)


def test_a_missing_condition_is_an_error():
    guided = Guided(wrap(lambda x, t: x, EDM(), Noise()), 2.0)
    with pytest.raises(InvalidInput, match="Guided needs a condition"):
        guided.predict(torch.zeros(1, 2), 1.0)
    with pytest.raises(InvalidInput, match="Guided needs a condition"):
        guided.vjp(torch.zeros(1, 2), 1.0, torch.zeros(1, 2))


def test_a_scale_that_is_no_number_is_refused():
    with pytest.raises(InvalidInput, match="scale must be finite, got nan"):
        Guided(conditional(Noise), float("nan"))
