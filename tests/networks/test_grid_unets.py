from collections.abc import Callable

import pytest
import torch
from torch import nn

from isocline._core.errors import InvalidInput
from isocline.networks import ConvNeXtUNet, GridUNet
from isocline.networks.convnext_unet import ConvNeXtBlock

NETWORKS = [GridUNet, ConvNeXtUNet]
Kind = Callable[..., nn.Module]


def woken(network: nn.Module) -> nn.Module:
    """Give all that starts at zero, or nearly, a value of its own."""
    generator = torch.Generator().manual_seed(0)
    for name, p in network.named_parameters():
        if name.endswith("scale") or "shift" in name:
            p.data = 0.3 * torch.randn(p.shape, generator=generator)
    return network.double()


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_shapes_on_all_grids(kind: Kind, axes: int) -> None:
    network = kind(3, 2, axes, width=8, levels=3, conditions=2)
    for n in (12, 16):
        assert network(torch.zeros(2, 3, *[n] * axes), torch.zeros(2, 2)).shape == (2, 2, *[n] * axes)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_periodic_network_follows_shifts_of_its_coarsest_cell(kind: Kind) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 2, 32, 32, dtype=torch.float64)
    for periodic in (True, False):
        network = woken(kind(2, 1, 2, width=8, levels=3, periodic=periodic))
        same = torch.allclose(network(x.roll((4, 8), (2, 3))), network(x).roll((4, 8), (2, 3)))
        assert same is periodic


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_condition_counts_and_a_batch_may_be_split(kind: Kind) -> None:
    torch.manual_seed(0)
    network = woken(kind(1, 1, 1, width=8, levels=2, conditions=1))
    x, c = torch.randn(4, 1, 16, dtype=torch.float64), torch.rand(4, 1, dtype=torch.float64)
    assert not torch.allclose(network(x, c), network(x, c + 0.1))
    torch.testing.assert_close(network(x, c)[2:], network(x[2:], c[2:]))


@pytest.mark.parametrize("kind", NETWORKS)
def test_all_parameters_have_gradients(kind: Kind) -> None:
    torch.manual_seed(0)
    network = woken(kind(1, 1, 1, width=8, levels=3, conditions=1))
    network(torch.randn(4, 1, 16, dtype=torch.float64), torch.rand(4, 1, dtype=torch.float64)).square().sum().backward()
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in network.parameters())


@pytest.mark.parametrize("kind", NETWORKS)
def test_wrong_input_is_named(kind: Kind) -> None:
    network = kind(1, 1, 1, width=8, levels=4, conditions=2)
    with pytest.raises(InvalidInput, match=r"halves the grid 3 times, so \(20,\) must be multiples of 8"):
        network(torch.zeros(1, 1, 20), torch.zeros(1, 2))
    with pytest.raises(InvalidInput, match="a condition of 2 numbers, got 0"):
        network(torch.zeros(1, 1, 32))
    with pytest.raises(InvalidInput, match="use fewer levels"):
        ConvNeXtUNet(1, 1, 1, width=8, levels=4)(torch.zeros(1, 1, 16))


def test_a_convnext_block_is_its_formula() -> None:
    torch.manual_seed(0)
    block = woken(ConvNeXtBlock(1, 4, 0, True))
    assert isinstance(block, ConvNeXtBlock)
    x = torch.randn(2, 4, 12, dtype=torch.float64)
    (weight, bias), n = (p.detach() for p in block.each.parameters()), 12
    expected = x.clone()
    for b in range(2):
        for i in range(n):
            h = torch.stack(
                [sum(weight[c, 0, k] * x[b, c, (i + k - 3) % n] for k in range(7)) + bias[c] for c in range(4)]
            )
            h = (h - h.mean()) / (h.var(unbiased=False) + 1e-5).sqrt()
            h = block.narrow(nn.functional.gelu(block.widen(h * block.norm.weight + block.norm.bias)))
            expected[b, :, i] += (block.scale * h).detach()
    torch.testing.assert_close(block(x), expected)
