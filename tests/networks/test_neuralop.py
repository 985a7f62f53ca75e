"""Weights of neuraloperator's FNO; the comparisons run where that package is installed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.networks import fno_from_neuralop, with_coordinates
from isocline.networks.neuralop import _paired

CASES = [((14,), (32,)), ((6,), (33,)), ((7, 6), (16, 20)), ((8, 6), (16, 17)), ((4, 5, 6), (8, 10, 12))]


def peer(n_modes: tuple[int, ...], **settings: Any) -> Any:
    models = pytest.importorskip("neuralop.models")
    torch.manual_seed(0)
    settings = {"use_channel_mlp": False, "n_layers": 3} | settings
    return models.FNO(n_modes=n_modes, in_channels=2, out_channels=1, hidden_channels=8, **settings)


@pytest.mark.parametrize(("n_modes", "grid"), CASES)
def test_the_same_weights_are_the_same_function(n_modes: tuple[int, ...], grid: tuple[int, ...]) -> None:
    theirs = peer(n_modes)
    ours, x = fno_from_neuralop(theirs.state_dict()), torch.randn(3, 2, *grid)
    expected = theirs(x).detach()
    assert float((ours(with_coordinates(x)) - expected).detach().abs().max()) <= 1e-5 * float(expected.abs().max())
    assert float(expected.std()) > 1e-3


def test_without_an_embedding_the_function_is_that_of_the_input() -> None:
    theirs = peer((6, 6), positional_embedding=None)
    x = torch.randn(2, 2, 12, 12)
    torch.testing.assert_close(fno_from_neuralop(theirs.state_dict())(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_on_an_odd_number_of_points_theirs_is_another_function() -> None:
    theirs = peer((6, 6), positional_embedding=None)
    x = torch.randn(2, 2, 13, 12)
    gap = fno_from_neuralop(theirs.state_dict())(x) - theirs(x)
    assert float(gap.detach().abs().max()) > 1e-3


@pytest.mark.parametrize(
    "settings", [{"use_channel_mlp": True}, {"norm": "group_norm"}, {"domain_padding": 0.2}, {"stabilizer": "tanh"}]
)
def test_other_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(settings))):
        fno_from_neuralop(peer((4,), **settings).state_dict())


def a_state(depth: int = 2) -> dict[str, Tensor]:
    """The weights of a network of one axis and width 4, as neuraloperator names them."""
    torch.manual_seed(0)
    shapes = {"lifting": [(8, 3), (4, 8)], "projection": [(8, 4), (1, 8)]}
    state = {}
    for k in range(depth):
        state[f"fno_blocks.convs.{k}.bias"] = torch.randn(4, 1)
        state[f"fno_blocks.fno_skips.{k}.conv.weight"] = torch.randn(4, 4, 1)
        state[f"fno_blocks.convs.{k}.weight.tensor"] = torch.randn(4, 4, 3, dtype=torch.complex64)
    for part, sizes in shapes.items():
        for k, (out, into) in enumerate(sizes):
            state[f"{part}.fcs.{k}.weight"], state[f"{part}.fcs.{k}.bias"] = torch.randn(out, into, 1), torch.randn(out)
    return state


def test_a_state_is_their_formula() -> None:
    state = a_state()
    x = torch.randn(2, 3, 16)

    def layer(name: str, h: Tensor) -> Tensor:
        return torch.einsum("oi,bin->bon", state[f"{name}.weight"][..., 0], h) + state[f"{name}.bias"][:, None]

    gelu = torch.nn.functional.gelu
    v = layer("lifting.fcs.1", gelu(layer("lifting.fcs.0", x)))
    for k in range(2):
        low = torch.fft.rfft(v, norm="forward")[..., :3]
        low = torch.einsum("bik,iok->bok", low, state[f"fno_blocks.convs.{k}.weight.tensor"])
        v = torch.einsum("oi,bin->bon", state[f"fno_blocks.fno_skips.{k}.conv.weight"][..., 0], v)
        v = v + torch.fft.irfft(low, n=16, norm="forward") + state[f"fno_blocks.convs.{k}.bias"]
        v = gelu(gelu(v)) if k == 0 else v
    expected = layer("projection.fcs.1", gelu(layer("projection.fcs.0", v)))
    torch.testing.assert_close(fno_from_neuralop(state)(x), expected, rtol=1e-5, atol=1e-5)


def test_frequencies_are_put_in_order_and_the_unpaired_one_gets_an_opposite() -> None:
    def order(k: int) -> list[float]:
        named = torch.arange(-(k // 2), k - k // 2).to(torch.complex64)  # each frequency as its own weight
        paired: list[float] = _paired(named.reshape(1, 1, k, 1))[0, 0, :, 0, 0].tolist()
        return paired

    assert order(5) == [0, 1, 2, -2, -1]
    assert order(4) == [0, 1, 0, -2, -1]
    assert order(1) == [0]


def test_a_state_of_something_else_is_refused() -> None:
    state = a_state()
    with pytest.raises(InvalidInput, match="no state of a neuralop FNO"):
        fno_from_neuralop({})
    with pytest.raises(InvalidInput, match=r"weights that an FNO here does not: fno_blocks\.norm\.0\.weight"):
        fno_from_neuralop(state | {"fno_blocks.norm.0.weight": torch.zeros(4)})
    with pytest.raises(InvalidInput, match="use channel ratios of 2"):
        fno_from_neuralop(state | {"lifting.fcs.0.weight": torch.zeros(12, 3, 1)})
    with pytest.raises(InvalidInput, match="is not in the state"):
        fno_from_neuralop({name: w for name, w in state.items() if "bias" not in name})
