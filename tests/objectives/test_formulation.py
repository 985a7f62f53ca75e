"""Five choices: each changes alone, each law is what it says, and the bounded target is the usual loss in another output."""

import math
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.objectives import (
    EDMWeight,
    LogitNormal,
    LogNormal,
    LogUniformTime,
    PseudoHuber,
    UniformLogSNR,
    UniformTime,
    UnitOn,
    UShaped,
    cem,
    ddpm,
    edm,
    rectified_flow,
    score,
    v_prediction,
)
from isocline.processes import (
    EDM,
    Circle,
    Data,
    FlowVelocity,
    Noise,
    RectifiedFlow,
    Score,
    VariancePreserving,
    VPrediction,
)

NAMED = [ddpm(), score(), v_prediction(), edm(0.5), cem(), rectified_flow()]
PROCESSES = [VariancePreserving(), EDM(), RectifiedFlow(t_min=1e-3, t_max=0.999)]
OUTPUTS = [Data(), Noise(), VPrediction(), FlowVelocity(), Score()]
LAWS = [UniformTime(), LogUniformTime(), UniformLogSNR(), LogNormal(), LogitNormal(), UShaped()]


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("output", OUTPUTS, ids=str)
def test_unit_weight_on_an_output_is_its_squared_error(process, output):
    """Two data predictions a distance apart: their outputs differ by sqrt(w) times that distance."""
    t = torch.tensor([0.1, 0.4, 0.9], dtype=torch.float64)
    dx, dm = output.from_data(process, t)
    x, first, second = 0.7, 0.3, -1.1
    difference = (dx * x + dm * first) - (dx * x + dm * second)
    torch.testing.assert_close(UnitOn(output)(process, t) * (first - second) ** 2, difference**2)


def test_known_weights():
    vp, t = VariancePreserving(), torch.tensor([0.05, 0.5, 1.0], dtype=torch.float64)
    snr = (vp.alpha(t) / vp.sigma(t)) ** 2
    torch.testing.assert_close(UnitOn(Noise())(vp, t), snr)
    torch.testing.assert_close(UnitOn(VPrediction())(vp, t), snr + 1)  # Salimans and Ho, "SNR + 1"
    torch.testing.assert_close(UnitOn(Score())(vp, t), snr / vp.sigma(t) ** 2)
    torch.testing.assert_close(UnitOn(FlowVelocity())(RectifiedFlow(), t), 1 / t**2)


@pytest.mark.parametrize("law", LAWS, ids=str)
@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_times_stay_in_range_and_rise_with_u(law, process):
    u = torch.linspace(1e-6, 1 - 1e-6, 301, dtype=torch.float64)
    t = law.quantile(process, u)
    assert (t >= process.t_min - 1e-12).all()
    assert (t <= process.t_max + 1e-12).all()
    assert (t.diff() >= 0).all()


def test_the_laws_are_those_they_are_named_after():
    """The share of draws below a time, by quadrature or in closed form."""
    vp = VariancePreserving(t_min=1e-4)
    t = LogUniformTime().quantile(vp, torch.tensor([0.25, 0.5], dtype=torch.float64))
    torch.testing.assert_close(torch.log10(t), torch.tensor([-3.0, -2.0], dtype=torch.float64))
    lam = vp.half_log_snr(UniformLogSNR().quantile(vp, torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)))
    torch.testing.assert_close((lam[1] - lam[0]) / (lam[2] - lam[0]), torch.tensor(0.3, dtype=torch.float64))


@given(st.floats(0.5, 8.0), st.floats(0.01, 0.99))
def test_the_u_shaped_law_has_its_density(a, r):
    """The inverse of its quantile function integrates exp(a r) + exp(a (1 - r))."""
    flow = RectifiedFlow(t_min=0.0, t_max=1.0)
    share = (math.exp(a * r) - math.exp(a * (1 - r)) + math.exp(a) - 1) / (2 * (math.exp(a) - 1))
    found = UShaped(a).quantile(flow, torch.tensor(share, dtype=torch.float64))
    assert float(found) == pytest.approx(r, abs=1e-9)


def test_u_shaped_times_are_near_the_ends():
    t = UShaped()(RectifiedFlow(t_min=0.0, t_max=1.0), 20_000, Stream(0), 0)
    middle = ((t > 0.25) & (t < 0.75)).double().mean().item()
    exact = (math.exp(3) - math.exp(1)) / (math.exp(4) - 1)  # int of exp(4 r) + exp(4 (1 - r)) over the middle half
    assert middle == pytest.approx(exact, abs=4 * math.sqrt(exact / 20_000))


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_a_part_of_a_batch_has_the_times_of_the_whole(law):
    vp = VariancePreserving()
    whole = law(vp, 8, Stream(1), 3)
    torch.testing.assert_close(law(vp, 3, Stream(1), 3, 5), whole[5:], rtol=0, atol=0)


def test_a_law_that_needs_a_positive_t_min_says_so():
    with pytest.raises(InvalidInput, match=r"needs t_min > 0, but RectifiedFlow"):
        LogUniformTime().quantile(RectifiedFlow(t_min=0.0), torch.tensor(0.5))
    with pytest.raises(InvalidInput, match=r"finite noise levels at both ends of RectifiedFlow"):
        UniformLogSNR().quantile(RectifiedFlow(), torch.tensor(0.5))
    with pytest.raises(InvalidInput, match="a U-shaped law needs a > 0"):
        UShaped(0.0)


@pytest.mark.parametrize("formulation", NAMED, ids=lambda f: type(f.parameterisation).__name__)
@pytest.mark.parametrize("name", [field.name for field in fields(ddpm())])
def test_changing_one_choice_leaves_the_others(formulation, name):
    other = {
        "process": VariancePreserving(beta_max=7.0),
        "parameterisation": Noise() if formulation.parameterisation != Noise() else Data(),
        "weight": EDMWeight(0.3),
        "time_law": LogitNormal(1.0, 2.0),
        "preconditioning": edm(0.9).preconditioning,
        "penalty": PseudoHuber(0.1),
    }
    changed = replace(formulation, **{name: other[name]})
    for field in fields(formulation):
        same = getattr(changed, field.name) == getattr(formulation, field.name)
        assert same == (field.name != name), field.name


def test_the_bounded_target_has_the_noise_loss_in_another_output():
    """lambda |f - x0|^2 = |e - eps|^2: at one weight and one time law the loss of the exact model does not know its output."""
    base = cem()
    circle = Circle(base.process, 3)
    x0 = circle.sample(64, 0)
    losses = []
    for output in OUTPUTS:
        exact = replace(base, parameterisation=output).denoiser(_told(circle, output))
        losses.append(float(base.objective.loss(exact, x0, Stream(2), 0)))
    assert losses == pytest.approx([losses[0]] * len(losses), rel=1e-8)
    x_t, eps = base.process.perturb(x0, torch.tensor(0.3, dtype=torch.float64), 1)
    direct = (circle.predict(x_t, 0.3).eps - eps).square().mean()
    weighted = base.objective.per_sample(circle, x0, x_t, torch.full((64,), 0.3, dtype=torch.float64)).mean()
    torch.testing.assert_close(weighted, direct)


def _told(circle, output):
    """A raw network that knows the answer, told log t."""

    def network(x, log_t):
        t = torch.exp(log_t)
        dx, dm = output.from_data(circle.process, t)
        return dx[:, None] * x + dm[:, None] * circle.predict(x, t).x0

    return network


def test_describe_names_every_choice():
    text = cem().describe()
    assert "VariancePreserving(beta_min=1" in text
    for word in ("Data()", "UnitOn(parameterisation=Noise())", "LogUniformTime()", "LogTime()"):
        assert word in text
