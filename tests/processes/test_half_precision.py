import pytest
import torch
from torch import nn

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.processes import (
    EDM,
    Continuous,
    Data,
    Guided,
    HalfPrecision,
    Preconditioned,
    RectifiedFlow,
    wrap,
)


class Small(nn.Module):
    """A network with a time embedding, to see what reaches it."""

    def __init__(self):
        super().__init__()
        self.input, self.time, self.output = nn.Linear(3, 32), nn.Linear(1, 32), nn.Linear(32, 3)
        for i, p in enumerate(self.parameters()):
            p.data = 0.5 * Stream(i, "small").normal((p.numel(), 1)).reshape(p.shape)
        self.seen = {}

    def forward(self, x, time, cond=None):
        self.seen = {"x": x, "time": time}
        hidden = torch.tanh(self.input(x) + self.time(torch.sin(time)[:, None]))
        return self.output(hidden) * (1.0 if cond is None else cond)


def states(dtype=torch.float32):
    return Stream(0).normal((6, 3), dtype=dtype)


@pytest.mark.parametrize(("dtype", "unit"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
@pytest.mark.parametrize("state", [torch.float32, torch.float64])
def test_network_runs_low_and_state_stays_high(dtype, unit, state):
    full = wrap(Small(), RectifiedFlow(), Data())
    half = HalfPrecision(full, dtype)
    x, t = states(state), torch.tensor(0.3, dtype=torch.float64)
    found = half.predict(x, t).x0.detach()
    inside = half.inner.network.network
    assert found.dtype == state
    assert inside.seen["x"].dtype == dtype
    assert {p.dtype for p in inside.parameters()} == {dtype}
    expected = full.network.to(state)(x, torch.full((6,), 0.3, dtype=state)).detach()
    error = float((found - expected).abs().max() / expected.abs().max())
    assert 0 < error < 8 * unit  # it did round, and to the precision it claims


def test_the_original_is_left_as_it_is():
    full = wrap(Small(), EDM(), Data())
    half = HalfPrecision(full)
    half.predict(states(), 1.0)
    assert {p.dtype for p in full.network.parameters()} == {torch.float32}
    assert (half.calls, full.calls) == (1, 0)


def test_times_keep_float32():
    """1000 t = 999 is not a bfloat16 number; rounded to 1000 it would be another time."""
    half = HalfPrecision(wrap(Small(), RectifiedFlow(), Data(), Continuous(1000.0)))
    half(states(), torch.tensor(0.999, dtype=torch.float64))
    assert half.inner.network.network.seen["time"].tolist() == [999.0] * 6


def test_weights_are_cast_once():
    half = HalfPrecision(wrap(Small(), EDM(), Data()))
    before = [p.data_ptr() for p in half.inner.network.parameters()]
    for _ in range(2):
        half(states(), torch.tensor(1.0))
    assert [p.data_ptr() for p in half.inner.network.parameters()] == before


def test_product_is_close_to_the_full_one_and_counted():
    full = wrap(Small(), EDM(), Data())
    half, x, v = HalfPrecision(full), states(), torch.ones(6, 3)
    product, expected = half.vjp(x, 1.0, v)[1], full.vjp(x, 1.0, v)[1]
    assert product.dtype == torch.float32
    assert float((product - expected).norm() / expected.norm()) < 0.02
    assert (half.calls, half.vjps) == (1, 1)


def test_preconditioning_outside_the_network_is_exact():
    """With a network that returns zeros the data prediction is c_skip x, in full precision."""
    network = Small()
    network.output.weight.data.zero_()
    network.output.bias.data.zero_()
    x = states()
    found = HalfPrecision(Preconditioned(network, EDM(), 0.5)).predict(x, 2.0).x0
    torch.testing.assert_close(found, x * 0.25 / 4.25, rtol=1e-6, atol=0)


def test_guidance_goes_outside():
    guided = Guided(HalfPrecision(wrap(Small(), EDM(), Data())), 2.0)
    assert guided.predict(states(), 1.0, 3.0).x0.dtype == torch.float32
    assert guided.calls == 2


def test_what_cannot_be_lowered_is_named():
    with pytest.raises(InvalidInput, match="Wrapped holds no torch module"):
        HalfPrecision(wrap(lambda x, t: x, EDM(), Data()))
    with pytest.raises(InvalidInput, match="Guided holds no torch module"):
        HalfPrecision(Guided(wrap(Small(), EDM(), Data()), 2.0))
    with pytest.raises(InvalidInput, match="bfloat16 or float16, got torch"):
        HalfPrecision(wrap(Small(), EDM(), Data()), torch.float64)
