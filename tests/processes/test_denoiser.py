"""The interface of denoisers: counters, model times, shapes, products, and independence of the parameterisation."""

import pytest
import torch

from isocline._core.errors import InvalidInput, Mismatch
from isocline.processes import (
    EDM,
    Continuous,
    Data,
    DiscreteIndex,
    GaussianMixture,
    LogSNR,
    NoiseLevel,
    RectifiedFlow,
    Tabulated,
    VariancePreserving,
    wrap,
)
from isocline.processes.parameterisation import PARAMETERISATIONS
from tests.contracts.denoisers import cloud

VP = VariancePreserving()


class Recorder:
    """A network that returns zeros and remembers what it was told."""

    def __init__(self):
        self.told = []

    def __call__(self, x, time, *cond):
        self.told.append((time.clone(), *cond))
        return torch.zeros_like(x)


@pytest.mark.parametrize(
    ("process", "model_time", "t", "expected"),
    [
        (VP, None, 0.25, 0.25),
        (VP, Continuous(1000.0), 0.25, 250.0),
        (Tabulated.linear_betas(), DiscreteIndex(1000), 0.25, 249.0),
        (Tabulated.linear_betas(), DiscreteIndex(1000), 0.001, 0.0),
        (RectifiedFlow(), NoiseLevel(), 0.75, 3.0),
        (EDM(), NoiseLevel(), 7.5, 7.5),
        (EDM(), LogSNR(), 2.0, -2 * 0.6931471805599453),
    ],
)
def test_the_network_is_told_the_exact_time(process, model_time, t, expected):
    network = Recorder()
    denoiser = wrap(network, process, Data(), model_time)
    denoiser(torch.zeros(3, 2, dtype=torch.float64), torch.tensor(t, dtype=torch.float64))
    (told,) = network.told[0]
    torch.testing.assert_close(told, torch.full((3,), expected, dtype=torch.float64), rtol=1e-14, atol=1e-13)
    denoiser(torch.zeros(3, 2), torch.tensor([t, t, t], dtype=torch.float64))
    torch.testing.assert_close(network.told[1][0], torch.full((3,), expected), rtol=1e-6, atol=1e-6)


def test_the_condition_is_passed_on_only_when_there_is_one():
    network = Recorder()
    denoiser = wrap(network, EDM(), Data())
    denoiser(torch.zeros(1, 2), torch.tensor(1.0))
    denoiser(torch.zeros(1, 2), torch.tensor(1.0), "label")
    assert [entry[1:] for entry in network.told] == [(), ("label",)]


@pytest.mark.parametrize("kind", PARAMETERISATIONS)
def test_predictions_do_not_depend_on_the_parameterisation(kind):
    exact = GaussianMixture.smooth_bed(VP)
    x, v, t = cloud(5, 8), cloud(5, 8, name="v"), torch.tensor(0.4, dtype=torch.float64)
    dx, dm = kind().from_data(VP, t)
    native = wrap(lambda x, time: dx * x + dm * exact(x, t), VP, kind())
    found, product = native.vjp(x, t, v)
    again = native.predict(x, t)
    expected, expected_product = exact.vjp(x, t, v)
    for name in ("x0", "eps", "score"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-10, atol=1e-11)
        torch.testing.assert_close(getattr(again, name), getattr(expected, name), rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(product, expected_product, rtol=1e-10, atol=1e-11)
    assert (native.calls, native.vjps) == (2, 1)


def test_prediction_is_consistent():
    t, x = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64), cloud(3, 8)
    p = GaussianMixture.smooth_bed(VP).predict(x, t)
    alpha, sigma = VP.alpha(t)[:, None], VP.sigma(t)[:, None]
    torch.testing.assert_close(alpha * p.x0 + sigma * p.eps, x, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(-sigma * p.score, p.eps)


def test_a_wrong_output_shape_is_named():
    with pytest.raises(Mismatch, match=r"returned shape \(4, 1\) for states of shape \(4, 2\)"):
        wrap(lambda x, t: x[:, :1], EDM(), Data()).predict(torch.zeros(4, 2), 1.0)


def test_a_network_that_cannot_be_called_is_refused():
    with pytest.raises(InvalidInput, match="must be callable, got str"):
        wrap("weights.pt", EDM(), Data())
