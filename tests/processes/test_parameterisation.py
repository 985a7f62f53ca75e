"""Conversions against the definitions of the five outputs."""

import math

import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline.processes import Data, FlowVelocity, Noise, RectifiedFlow, Score, VPrediction
from isocline.processes.parameterisation import PARAMETERISATIONS, parameterisation_named
from tests.contracts.denoisers import cloud
from tests.contracts.processes import PROCESSES, label

# m from (x0, eps) by definition, with the numbers (alpha, sigma, alpha', sigma')
DEFINITIONS = {
    Data: lambda x0, eps, a, s, da, ds: x0,
    Noise: lambda x0, eps, a, s, da, ds: eps,
    VPrediction: lambda x0, eps, a, s, da, ds: a * eps - s * x0,
    FlowVelocity: lambda x0, eps, a, s, da, ds: da * x0 + ds * eps,
    Score: lambda x0, eps, a, s, da, ds: -eps / s,
}
every_kind = pytest.mark.parametrize("kind", PARAMETERISATIONS)


def middle_times(process):
    lam = torch.tensor([-3.0, -1.0, 0.0, 1.0, 2.5], dtype=torch.float64)
    inside = lam > process.half_log_snr(process.t_max)
    return process.time_of(lam[inside])


@every_kind
@pytest.mark.parametrize("process", PROCESSES, ids=label)
def test_definition_converts_back_to_the_datum(process, kind):
    for t in middle_times(process):
        x0, eps = cloud(4, 3, name="x0"), cloud(4, 3, name="eps")
        numbers = (process.alpha(t), process.sigma(t), *process.rates(t))
        x, m = numbers[0] * x0 + numbers[1] * eps, DEFINITIONS[kind](x0, eps, *numbers)
        cx, cm = kind().to_data(process, t)
        torch.testing.assert_close(cx * x + cm * m, x0, rtol=1e-11, atol=1e-11)
        dx, dm = kind().from_data(process, t)
        torch.testing.assert_close(dx * x + dm * x0, m, rtol=1e-11, atol=1e-10)


@every_kind
@pytest.mark.parametrize("process", PROCESSES, ids=label)
def test_from_data_inverts_to_data(process, kind):
    t = middle_times(process)
    (cx, cm), (dx, dm) = kind().to_data(process, t), kind().from_data(process, t)
    torch.testing.assert_close(cm * dm, torch.ones_like(t), rtol=1e-13, atol=0)
    torch.testing.assert_close(cx + cm * dx, torch.zeros_like(t), rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("kind", "to_data", "from_data"),
    [
        (Data, (0, 1), (0, 1)),
        (FlowVelocity, (1, -1), (1, -1)),
        (VPrediction, (0, -1), (0, -1)),
        (Noise, None, (1, 0)),
        (Score, None, (-1, 0)),
    ],
)
def test_at_the_end_of_a_flow(kind, to_data, from_data):
    """At alpha = 0: x = eps. A noise prediction says nothing about the datum, but can still be computed from one."""
    flow = RectifiedFlow()
    if to_data is not None:
        assert tuple(map(float, kind().to_data(flow, 1.0))) == to_data
    else:
        assert math.isinf(kind().to_data(flow, 1.0)[0])
    assert tuple(map(float, kind().from_data(flow, 1.0))) == from_data


@every_kind
def test_names_round_trip(kind):
    assert parameterisation_named(kind().name) == kind()


def test_unknown_name_gets_a_hint():
    with pytest.raises(InvalidInput, match="Did you mean 'Noise'"):
        parameterisation_named("Niose")
