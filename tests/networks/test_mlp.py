import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline.networks import MLP, DenoisingMLP


def test_sizes_of_an_mlp():
    network = MLP(3, 2, width=5, depth=2, activation=torch.nn.Tanh)
    assert sum(p.numel() for p in network.parameters()) == (3 * 5 + 5) + (5 * 5 + 5) + (5 * 2 + 2)
    assert network(torch.zeros(4, 3)).shape == (4, 2)
    with pytest.raises(InvalidInput, match="width and depth of at least 1"):
        MLP(3, 2, depth=0)


def test_a_denoising_mlp_sees_time_and_label():
    network = DenoisingMLP(3, width=8, classes=2)
    x, time = torch.ones(1, 3), torch.tensor([0.3])
    outputs = [network(x, time, torch.tensor([k])) for k in range(3)]
    assert not torch.equal(outputs[0], outputs[1])
    assert torch.equal(network(x, time), outputs[2])  # the last label means none
    assert not torch.equal(network(x, time), network(x, time + 1))
    assert DenoisingMLP(3, width=8)(x, time).shape == (1, 3)
