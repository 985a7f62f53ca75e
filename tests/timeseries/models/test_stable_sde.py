"""Stable neural SDEs: closed moments, signs, what a series may and may not change, and what large weights do."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.integrators.controls.hermite import HermitePath
from isocline.timeseries.models.controlled_sde import ControlledSDE, Shared, smallest_gap
from isocline.timeseries.models.gru import GRU, held
from isocline.timeseries.models.neural_sde import NeuralSDE
from isocline.timeseries.models.stable_sde import GeometricSDE, LangevinSDE, LinearNoiseSDE, StableSDE

KINDS: list[tuple[type[ControlledSDE], dict[str, bool]]] = [
    *((kind, {"strict": strict}) for kind in (LangevinSDE, LinearNoiseSDE, GeometricSDE) for strict in (False, True)),
    (NeuralSDE, {}),
]
NAN = math.nan


def made(
    kind: type[ControlledSDE], mode: dict[str, bool], channels: int = 2, seed: int = 0, **settings: float
) -> ControlledSDE:
    torch.manual_seed(seed)
    return kind(channels, 3, hidden=5, **mode, **settings).double().eval()  # type: ignore[arg-type]


def constant(network: nn.Sequential, value: Tensor) -> None:
    """Make an MLP return `value` whatever its input."""
    last = network[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(value)


def walk(n: int = 4, t: int = 9, channels: int = 2) -> tuple[Tensor, Tensor]:
    times = torch.linspace(0, 2, t, dtype=torch.float64)
    return times, Stream(1, "walk").normal((n, t, channels), dtype=torch.float64).cumsum(1)


kinds = pytest.mark.parametrize(("kind", "mode"), KINDS)


# ---------------------------------------------------------------------------------------------------- the equations


def by_hand(model: ControlledSDE, times: Tensor, values: Tensor, noise: Tensor) -> Tensor:
    """Return ``z`` by a loop written from the equations; `noise` (steps, B, H) are increments."""
    path, dt = HermitePath(times, values), float(times[1] - times[0])
    strict = getattr(model, "strict", True)
    z = model.start(path.evaluate(times[0]))
    for k in range(len(times)):
        t = times[0] + k * dt
        bar = model.mix(torch.cat([model.inner(z), model.control(path.evaluate(t))], -1))
        told = t.expand(len(z), 1) if strict else torch.stack([t.sin(), t.cos()]).expand(len(z), 2)
        g, bound = model.g, (lambda x: x) if strict else torch.tanh
        if isinstance(model, LangevinSDE):
            z = z + bound(g(bar)) * dt + bound(model.s(told)) * noise[k]
        elif isinstance(model, LinearNoiseSDE):
            z = z + bound(g(torch.cat([told, bar], -1))) * dt + bound(model.s(told)) * z * noise[k]
        elif isinstance(model, GeometricSDE) and strict:
            s = model.s(told)
            z = z * torch.exp((g(torch.cat([told, bar], -1)) - s**2 / 2) * dt + s * noise[k])
        elif isinstance(model, GeometricSDE):
            z = z * (1 + bound(g(torch.cat([told, bar], -1))) * dt + bound(model.s(told)) * noise[k])
        else:
            z = z + g(torch.cat([told, bar], -1)) * dt + model.s(torch.cat([told, z], -1)) * noise[k]
    return z


class Recorded:
    """Notes the increments that a path hands out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from isocline.integrators.brownian.path import BrownianPath

        self.found: list[Tensor] = []
        inner = BrownianPath.increment

        def increment(path: BrownianPath, *given: object, **settings: object) -> object:
            found = inner(path, *given, **settings)  # type: ignore[arg-type]
            self.found.append(found.w)
            return found

        monkeypatch.setattr(BrownianPath, "increment", increment)


@kinds
def test_a_model_is_its_equation(
    kind: type[ControlledSDE], mode: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    times, values = walk()
    values[0, 3] = NAN
    model, recorded = made(kind, mode), Recorded(monkeypatch)
    with torch.no_grad():
        state = model.final(times, values, 0)
        noise = torch.cat(recorded.found)[:, :, :5]
        expected = by_hand(model, times, values, noise)
        assert noise.shape == (9, 4, 5)  # the last value drives a step too
        assert abs(float(noise.std()) - 0.5) < 0.1
        torch.testing.assert_close(model.decode(state)[0], expected, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(model(times, values, 0)[0], model.readout(expected), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("seed", range(5))
def test_the_strict_geometric_class_has_the_moments_of_geometric_brownian_motion(seed: int) -> None:
    model, paths, dt = made(GeometricSDE, {"strict": True}, dt=0.25), 10_000, 0.25
    assert isinstance(model, StableSDE)
    g, s = torch.tensor([0.3, -0.2, 0.0, 0.1, 0.5]), torch.tensor([0.2, 0.4, 0.3, 0.1, 0.25])
    constant(model.g, g)
    constant(model.s, s)
    times, values = torch.tensor([0.0, 1.0], dtype=torch.float64), torch.ones(1, 2, 2, dtype=torch.float64)
    with torch.no_grad():
        z = model.decode(model.final(times, values, seed, draws=paths))[:, 0]
        first = model.start(values[0, 0])
    span = 1.0 + dt
    for power in (1, 2):
        moments = (z / first).pow(power)
        law = torch.exp(power * g * span + power * (power - 1) / 2 * s**2 * span).double()
        error = moments.std(0) / math.sqrt(paths)
        assert bool(((moments.mean(0) - law).abs() < 5 * error).all())


@kinds
def test_the_strict_geometric_class_alone_must_keep_signs(kind: type[ControlledSDE], mode: dict[str, bool]) -> None:
    times, values = walk(n=16)
    kept = []
    for seed in range(5):
        model = made(kind, mode, seed=seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(10)
            first = model.start(values[:, 0])
            z = model.decode(model.final(times, values, seed, draws=8))
        kept.append(bool((z.sign() == first.sign()).all()))
    assert all(kept) == (kind is GeometricSDE and mode["strict"])


# ---------------------------------------------------------------------------------------------------- series


@kinds
def test_a_missing_value_counts_as_one_on_the_line_between_its_neighbours(
    kind: type[ControlledSDE], mode: dict[str, bool]
) -> None:
    times, values = walk()
    model, gaps = made(kind, mode), values.clone()
    gaps[0, 3:5, 0], gaps[1, :2], gaps[2, 7:, 1], gaps[3, :, 0] = NAN, NAN, NAN, NAN
    filled = gaps.clone()
    filled[0, 3, 0], filled[0, 4, 0] = (
        (2 * values[0, 2, 0] + values[0, 5, 0]) / 3,
        (values[0, 2, 0] + 2 * values[0, 5, 0]) / 3,
    )
    filled[1, :2], filled[2, 7:, 1], filled[3, :, 0] = values[1, 2], values[2, 6, 1], 0.0
    with torch.no_grad():
        found, full = model(times, gaps, 0), model(times, values, 0)
        torch.testing.assert_close(found, model(times, filled, 0), rtol=1e-10, atol=1e-10)
    assert float((found - full).abs().amax(-1).min()) > 1e-6


@kinds
def test_a_prediction_depends_neither_on_padding_nor_on_batch_mates(
    kind: type[ControlledSDE], mode: dict[str, bool]
) -> None:
    times, values = walk(t=9)
    model, noise = made(kind, mode, dt=0.25), Shared(3)
    own = torch.stack([times, times + 1, times, times])
    own[2, 6:], values[2, 6:] = NAN, NAN
    with torch.no_grad():
        together = model(own, values, noise, draws=3)
        for i, length in enumerate((9, 9, 6, 9)):
            alone = model(own[i : i + 1, :length], values[i : i + 1, :length], noise, draws=3)
            torch.testing.assert_close(alone[:, 0], together[:, i], rtol=1e-10, atol=1e-10)


@kinds
def test_a_channel_without_any_value_is_allowed_and_every_weight_gets_a_gradient(
    kind: type[ControlledSDE], mode: dict[str, bool]
) -> None:
    times, values = walk()
    values[:, :, 1], values[1] = NAN, NAN
    model = made(kind, mode).train()
    model(times, values, 0).square().sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert all(g is not None and bool(g.isfinite().all()) for g in gradients.values())
    dead = {name for name, g in gradients.items() if g is not None and not bool(g.any())}
    assert dead <= {"readout.0.bias"}  # batch normalisation removes it


def test_shared_noise_is_the_same_for_all_and_other_noise_is_not() -> None:
    model = made(LangevinSDE, {"strict": False})
    times, values = walk(n=1)
    same = values.expand(3, -1, -1)
    with torch.no_grad():
        shared, single = model.final(times, same, Shared(0), draws=2), model.final(times, same, 0, draws=2)
    assert float((shared - shared[:, :1]).abs().max()) < 1e-12
    assert float((shared[0] - shared[1]).abs().min()) > 1e-6
    assert float((single[0, 0] - single[0, 1]).abs().min()) > 1e-6


def test_the_step_is_the_smallest_gap_and_steps_are_capped() -> None:
    assert smallest_gap(torch.tensor([[0.0, 1.0, 1.25], [0.0, 3.0, NAN]])) == 0.25
    assert smallest_gap(torch.tensor([0.0, 1e-6, 5.0]), max_steps=50) == 0.1


@pytest.mark.parametrize("settings", [{"hidden": 0}, {"dt": 0.0}, {"dt": -1.0}])
def test_bad_sizes_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        LangevinSDE(1, 1, **settings)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------- large weights


def large(kind: type[ControlledSDE], mode: dict[str, bool], dt: float, seed: int) -> Tensor:
    """Return what is integrated, after 50 units of time with weights times 10, 32 paths."""
    model = made(kind, mode, dt=dt, seed=seed)
    times = torch.linspace(0, 50, 51, dtype=torch.float64)
    values = Stream(seed, "large").normal((1, 51, 2), dtype=torch.float64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(10)
        return model.final(times, values, seed, draws=32)


@pytest.mark.parametrize("dt", [0.1, pytest.param(0.01, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("kind", "mode"), [(GeometricSDE, {"strict": True}), (LinearNoiseSDE, {"strict": False})])
def test_large_weights_leave_a_finite_second_moment(
    kind: type[ControlledSDE], mode: dict[str, bool], dt: float
) -> None:
    for seed in range(5 if dt == 0.1 else 3):
        state = large(kind, mode, dt, seed)
        twice_log = 2 * state.chunk(2, -1)[0] if mode["strict"] else state.square().log()
        assert bool(torch.logsumexp(twice_log, 0).isfinite().all())


def test_one_step_of_linear_noise_has_the_growth_that_bounds_the_step() -> None:
    """E z^2 grows by 1 + s^2 dt in a step, whatever s; with s^2 dt = 9 nearly every path grows, and the SDE's would shrink."""
    model = made(LinearNoiseSDE, {"strict": True}, dt=1.0)
    assert isinstance(model, StableSDE)
    constant(model.g, torch.zeros(5))
    constant(model.s, torch.full((5,), 3.0))
    times, values = torch.tensor([0.0, 20.0], dtype=torch.float64), torch.ones(1, 2, 2, dtype=torch.float64)
    with torch.no_grad():
        growth = (model.final(times, values, 0, draws=2000)[:, 0] / model.start(values[0, 0])).abs().log().mean() / 21
    u = torch.linspace(-8, 8, 200_001, dtype=torch.float64)
    law = torch.exp(-u.square() / 2) / math.sqrt(2 * math.pi)
    expected = float(torch.trapezoid(law * (1 + 3 * u).abs().clamp(min=1e-12).log(), u))
    assert expected > 0.3  # while s^2 / 2 = 4.5 is what the solution loses per unit of time
    assert abs(float(growth) - expected) < 0.02


# ---------------------------------------------------------------------------------------------------- the baseline


def test_the_gru_reads_gaps_and_masks_and_stops_at_the_end_of_a_series() -> None:
    torch.manual_seed(0)
    model = GRU(2, 3, hidden=5).double().eval()
    times, values = walk(t=6)
    own = times.expand(4, 6).clone()
    own[1, 4:], values[1, 4:], values[0, 2, 1] = NAN, NAN, NAN
    with torch.no_grad():
        together = model(own, values)
        alone = model(own[1:2, :4], values[1:2, :4])
        assert not torch.allclose(model(own * 2, values)[0], together[0])
    torch.testing.assert_close(alone[0], together[1])


def test_the_last_value_is_held() -> None:
    x = torch.tensor([[NAN, 1.0, NAN, 3.0], [2.0, NAN, NAN, NAN], [NAN] * 4]).T[None]
    assert held(x)[0].T.tolist() == [[0.0, 1.0, 1.0, 3.0], [2.0] * 4, [0.0] * 4]
