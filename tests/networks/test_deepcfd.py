"""DeepCFD: every point by hand, weights of the official layout, files that are refused."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from isocline._core.errors import BadFile, DataMissing, InvalidInput
from isocline.networks import DeepCFD, DeepCFDAutoEncoder, load_deepcfd


def by_hand(network: DeepCFD, x: Tensor) -> Tensor:
    """Pooling and unpooling point by point, for one sample."""
    seen = []
    for block in network.encoder:
        left = block(x)
        channels, height, width = left.shape[1], left.shape[2] // 2, left.shape[3] // 2
        x, places = left.new_zeros(1, channels, height, width), {}
        for c in range(channels):
            for i in range(height):
                for j in range(width):
                    cells = [(float(left[0, c, a, b]), a, b) for a in (2 * i, 2 * i + 1) for b in (2 * j, 2 * j + 1)]
                    x[0, c, i, j], *places[c, i, j] = max(cells, key=lambda cell: cell[0])
        seen.append((left, places))
    fields = []
    for decoder in network.decoders:
        y = x
        for block, (left, places) in zip(decoder.children(), reversed(seen), strict=True):
            spread = torch.zeros_like(left)
            for (c, i, j), (a, b) in places.items():
                spread[0, c, a, b] = y[0, c, i, j]
            y = block(torch.cat([left, spread], 1))
        fields.append(y)
    return torch.cat(fields, 1)


@pytest.mark.parametrize("outputs", [(1, 1, 1), (3,)])
def test_a_network_is_pooling_and_unpooling(outputs: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = DeepCFD(2, outputs, filters=(3, 4), kernel=3, layers=2).double().requires_grad_(False)
    for p in network.parameters():
        p.copy_(torch.randn_like(p))
    x = torch.randn(1, 2, 9, 6, dtype=torch.float64)
    found = network(x)
    torch.testing.assert_close(found, by_hand(network, x))
    assert float(found.std()) > 0.1
    assert float(found.min()) < 0  # no ReLU at the end


def test_each_decoder_is_alone_with_its_field() -> None:
    torch.manual_seed(0)
    network = DeepCFD(filters=(4, 4))
    network(torch.randn(2, 3, 12, 12))[:, 1].sum().backward()
    grads = [sum(float(p.grad.abs().sum()) for p in d.parameters() if p.grad is not None) for d in network.decoders]
    assert grads[1] > 0
    assert grads[0] == grads[2] == 0
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in network.encoder.parameters())


def test_the_auto_encoder_is_a_chain_of_convolutions() -> None:
    torch.manual_seed(0)
    network, x = DeepCFDAutoEncoder(filters=(4, 6), kernel=3), torch.randn(2, 3, 7, 8)
    a, b, c, d = (m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d))
    expected = x
    for layer, transposed in ((a, False), (b, False), (c, True)):
        function: Any = nn.functional.conv_transpose2d if transposed else nn.functional.conv2d
        expected = function(expected, layer.weight, layer.bias, padding=1).clamp(min=0)
    expected = nn.functional.conv_transpose2d(expected, d.weight, d.bias, padding=1)
    torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize("network", [DeepCFD(), DeepCFD(outputs=(3,), layers=2), DeepCFDAutoEncoder(outputs=(1, 1, 1))])
def test_a_batch_may_be_split(network: nn.Module) -> None:
    x = torch.randn(4, 3, 35, 22)
    torch.testing.assert_close(network(x)[2:], network(x[2:]), rtol=1e-4, atol=1e-6)


def official(network: DeepCFD | DeepCFDAutoEncoder) -> dict[str, Any]:
    """The weights under the names of the official code."""
    several = isinstance(network, DeepCFD) and len(network.decoders) > 1
    old, new = ("decoders.", "decoders.") if several else ("decoders.0.", "decoder.")
    if not several and len(network.decoders) > 1:
        old, new = "decoders.", "decoder."
    return {name.replace(old, new): value for name, value in network.state_dict().items()}


CASES: list[tuple[str, DeepCFD | DeepCFDAutoEncoder]] = [
    ("UNetEx", DeepCFD(filters=(4, 6), layers=3)),
    ("UNet", DeepCFD(2, (3,), filters=(4, 6, 6), kernel=3, layers=2)),
    ("AutoEncoder", DeepCFDAutoEncoder(filters=(4, 6))),
    ("AutoEncoderEx", DeepCFDAutoEncoder(outputs=(1, 1, 1), filters=(4,))),
]


@pytest.mark.parametrize(("name", "network"), CASES)
def test_a_checkpoint_with_its_class_is_read_without_that_class(
    name: str, network: DeepCFD | DeepCFDAutoEncoder, tmp_path: Path
) -> None:
    names = ("deepcfd", "deepcfd.models", f"deepcfd.models.{name}")
    modules = {path: ModuleType(path) for path in names}
    kind = type(name, (nn.Module,), {"__module__": names[-1]})
    setattr(modules[names[-1]], name, kind)
    with pytest.MonkeyPatch.context() as patch:
        for path, module in modules.items():
            patch.setitem(sys.modules, path, module)
        state = official(network) | {"input_shape": (1, 3, 172, 79), "filters": [4, 6], "kernel_size": 5}
        torch.save(state | {"architecture": kind}, tmp_path / "official.pt")
    found = load_deepcfd(tmp_path / "official.pt")
    x = torch.randn(
        2, network.encoder.get_parameter(next(iter(dict(network.encoder.named_parameters())))).shape[1], 17, 12
    )
    assert type(found) is type(network)
    torch.testing.assert_close(found(x), network(x), rtol=0, atol=0)


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    state = DeepCFD(filters=(2,)).state_dict() | {"architecture": Hostile(tmp_path / "touched")}
    torch.save(state, tmp_path / "hostile.pt")
    with pytest.raises(BadFile, match="which is not loaded"):
        load_deepcfd(tmp_path / "hostile.pt")
    assert not (tmp_path / "touched").exists()


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="there is no DeepCFD checkpoint"):
        load_deepcfd(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("not a checkpoint")
    torch.save(DeepCFD(filters=(2,)).state_dict(), tmp_path / "whole.pt")
    (tmp_path / "half.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:2000])
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps([1, 2]))
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "linear.pt")
    norms = DeepCFD(filters=(2,)).state_dict() | {"encoder.0.0.2.running_mean": torch.zeros(2)}
    torch.save(norms, tmp_path / "norms.pt")
    for name in ("text", "half", "pickle", "tensor", "linear", "norms"):
        with pytest.raises(BadFile, match=f"{name}.pt is no DeepCFD checkpoint"):
            load_deepcfd(tmp_path / f"{name}.pt")


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(InvalidInput, match="cannot be halved 4 times"):
        DeepCFD()(torch.zeros(1, 3, 15, 40))
    with pytest.raises(InvalidInput, match="must be odd"):
        DeepCFD(kernel=4)
    with pytest.raises(InvalidInput, match="at least 1 channel"):
        DeepCFDAutoEncoder(filters=())
    with pytest.raises(InvalidInput, match="at least one layer"):
        DeepCFD(layers=0)
