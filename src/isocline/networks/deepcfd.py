r"""DeepCFD: steady flow around an obstacle from a picture of it (Ribeiro, Rehman, Ahmed, Dengel, arXiv 2004.08826).

The input has three channels: the signed distance to the obstacle, labels of the regions of the flow, and the signed distance to
the walls. One encoder goes down by max-pooling; each field has a decoder of its own. A decoder puts values back where their
maxima were (unpooling), beside the values that the encoder had there:

    x_{l+1}, i_l = pool(E_l x_l) ,      y_l = D_l [E_l x_l, unpool(y_{l+1}, i_l)]

``E_l`` are convolutions and ``D_l`` transposed convolutions of stride one, each followed by ReLU but for the very last; no norms.
Any grid will do: an odd number of points loses its last one on the way down and gets zeros there on the way up.

The names of the weights are those of the official code, whose checkpoints `load_deepcfd` reads.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isocline._core.errors import BadFile, DataMissing, require
from isocline._core.registry import Method

METHOD = Method(
    "deepcfd",
    "DeepCFD",
    "DeepCFD: Efficient Steady-State Laminar Flow Approximation with Deep Convolutional Neural Networks",
    "Ribeiro, Rehman, Ahmed, Dengel",
    2020,
    "2004.08826",
    room="networks",
    when="Steady flow around shapes, from pictures of them on a regular grid.",
)
FILTERS = (8, 16, 32, 32)


@METHOD.variant()
class DeepCFD(nn.Module):
    """A U-Net that pools by maxima, with one decoder for each group of output channels.

    Args:
        inputs: channels of the input.
        outputs: channels of each decoder; ``(1, 1, 1)`` is the paper's network of three decoders, ``(3,)`` its plain U-Net.
        filters: channels of each level.
        kernel: points of a convolution an axis, odd.
        layers: convolutions a level, down and up.

    Raises:
        InvalidInput: in `forward`, a grid that cannot be halved once for each level.

    Source: arXiv 2004.08826.

    Examples:
        >>> DeepCFD()(torch.zeros(2, 3, 43, 20)).shape
        torch.Size([2, 3, 43, 20])
    """

    def __init__(
        self,
        inputs: int = 3,
        outputs: Sequence[int] = (1, 1, 1),
        *,
        filters: Sequence[int] = FILTERS,
        kernel: int = 5,
        layers: int = 3,
    ) -> None:
        super().__init__()
        _require_shape(inputs, outputs, filters, kernel)
        require(layers >= 1, f"a level needs at least one layer, got {layers}")
        before = (inputs, *filters[:-1])
        self.encoder = nn.Sequential(*(_down(a, b, kernel, layers) for a, b in zip(before, filters, strict=True)))
        self.decoders = nn.ModuleList(_decoder(out, filters, kernel, layers) for out in outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, H, W) for x (B, inputs, H, W)."""
        levels = len(self.encoder)
        enough = min(x.shape[2:]) >> levels >= 1
        require(enough, f"a grid {tuple(x.shape[2:])} cannot be halved {levels} times; use fewer filters")
        seen = []
        for block in self.encoder:
            left = block(x)
            x, places = nn.functional.max_pool2d(left, 2, return_indices=True)
            seen.append((left, places))
        return torch.cat([_up(decoder, x, seen) for decoder in self.decoders], 1)


def _up(decoder: nn.Module, x: Tensor, seen: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    for block, (left, places) in zip(decoder.children(), reversed(seen), strict=True):
        x = nn.functional.max_unpool2d(x, places, (2, 2), output_size=left.shape[2:])
        x = block(torch.cat([left, x], 1))
    return x


@METHOD.variant()
class DeepCFDAutoEncoder(nn.Module):
    """The paper's comparison: convolutions there and transposed convolutions back, without pooling and without shortcuts.

    Args:
        inputs: channels of the input.
        outputs: channels of each decoder, as in `DeepCFD`.
        filters: channels of each layer of the encoder.
        kernel: points of a convolution an axis, odd.

    Source: arXiv 2004.08826.

    Examples:
        >>> DeepCFDAutoEncoder()(torch.zeros(2, 3, 43, 20)).shape
        torch.Size([2, 3, 43, 20])
    """

    def __init__(
        self, inputs: int = 3, outputs: Sequence[int] = (3,), *, filters: Sequence[int] = FILTERS, kernel: int = 5
    ) -> None:
        super().__init__()
        _require_shape(inputs, outputs, filters, kernel)
        before = (inputs, *filters[:-1])
        self.encoder = nn.Sequential(
            *(_layer(nn.Conv2d, a, b, kernel) for a, b in zip(before, filters, strict=True)),
        )
        self.decoders = nn.ModuleList(_straight_decoder(out, filters, kernel) for out in outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, H, W) for x (B, inputs, H, W)."""
        x = self.encoder(x)
        return torch.cat([decoder(x) for decoder in self.decoders], 1)


def _require_shape(inputs: int, outputs: Sequence[int], filters: Sequence[int], kernel: int) -> None:
    counts = (inputs, *outputs, *filters)
    require(
        bool(outputs) and bool(filters) and min(counts) >= 1, "DeepCFD needs outputs and filters of at least 1 channel"
    )
    require(kernel % 2 == 1, f"the kernel must be odd, got {kernel}")


def _layer(
    kind: type[nn.Conv2d | nn.ConvTranspose2d], a: int, b: int, kernel: int, last: bool = False
) -> nn.Sequential:
    conv = kind(a, b, kernel, padding=kernel // 2)
    return nn.Sequential(conv) if last else nn.Sequential(conv, nn.ReLU())


def _down(a: int, b: int, kernel: int, layers: int) -> nn.Sequential:
    return nn.Sequential(*(_layer(nn.Conv2d, b if k else a, b, kernel) for k in range(layers)))


def _decoder(outputs: int, filters: Sequence[int], kernel: int, layers: int) -> nn.Sequential:
    """Return the blocks from the coarsest level to the finest; each starts from twice its channels."""
    after = (outputs, *filters[:-1])
    blocks = []
    for level in reversed(range(len(filters))):
        inside = filters[level]
        sizes = [2 * inside, *[inside] * (layers - 1), after[level]]
        ends = [level == 0 and k == layers - 1 for k in range(layers)]
        parts = zip(sizes[:-1], sizes[1:], ends, strict=True)
        blocks.append(nn.Sequential(*(_layer(nn.ConvTranspose2d, a, b, kernel, end) for a, b, end in parts)))
    return nn.Sequential(*blocks)


def _straight_decoder(outputs: int, filters: Sequence[int], kernel: int) -> nn.Sequential:
    after = (outputs, *filters[:-1])
    levels = reversed(range(len(filters)))
    return nn.Sequential(*(_layer(nn.ConvTranspose2d, filters[k], after[k], kernel, last=k == 0) for k in levels))


NAMES = ("UNetEx", "UNet", "AutoEncoder", "AutoEncoderEx")  # the official classes that are read
# A checkpoint names its class. An empty class answers to that name, so that none of theirs is needed, and nothing else is let in.
STAND_INS: list[Any] = [
    type(name, (), {"__module__": f"{package}.{name}"}) for name in NAMES for package in ("deepcfd.models", "Models")
]


def load_deepcfd(path: str | Path) -> DeepCFD | DeepCFDAutoEncoder:
    """Return the network of a checkpoint that the official code has written.

    Only tensors, numbers and the name of one of its classes are read; nothing in the file is run.

    Args:
        path: what ``python -m deepcfd --output`` or ``torch.save(model.state_dict())`` wrote, without batch or weight norm.

    Raises:
        DataMissing: there is no such file.
        BadFile: the file is damaged, holds other objects, or the weights of another network.

    Source: the repository mdribeiro/DeepCFD.
    """
    path = Path(path)
    if not path.is_file():
        raise DataMissing(f"there is no DeepCFD checkpoint {path}")
    try:
        with torch.serialization.safe_globals(STAND_INS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of files that torch did not write; they are refused below
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        found = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        reason = (
            f"it holds an object of {found[1]}, which is not loaded" if found else "it is damaged or of another kind"
        )
        raise BadFile(f"{path} is no DeepCFD checkpoint: {reason}") from error
    if not isinstance(state, Mapping):
        raise BadFile(f"{path} is no DeepCFD checkpoint: it does not hold named weights")
    weights = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    try:
        return _network(weights)
    except (KeyError, RuntimeError, ValueError) as error:
        reason = "its weights are not those of a UNetEx, UNet or auto-encoder without norms"
        raise BadFile(f"{path} is no DeepCFD checkpoint: {reason}") from error


def _network(weights: Mapping[str, Tensor]) -> DeepCFD | DeepCFDAutoEncoder:
    """Return a network whose size is read off the weights."""
    pooled = "encoder.0.0.0.weight" in weights
    first = weights["encoder.0.0.0.weight" if pooled else "encoder.0.0.weight"]
    renamed = _renamed(weights, pooled)
    levels, decoders = _count(renamed, r"encoder\.(\d+)\."), _count(renamed, r"decoders\.(\d+)\.")
    layers = _count(renamed, r"encoder\.0\.(\d+)\.") if pooled else 1
    inner = ".0" if pooled else ""
    filters = [len(renamed[f"encoder.{k}{inner}.0.weight"]) for k in range(levels)]
    end = f"{levels - 1}.{layers - 1}.0" if pooled else f"{levels - 1}.0"
    outputs = [renamed[f"decoders.{k}.{end}.weight"].shape[1] for k in range(decoders)]
    shape: dict[str, Any] = {"filters": filters, "kernel": first.shape[-1]}
    network: DeepCFD | DeepCFDAutoEncoder
    if pooled:
        network = DeepCFD(first.shape[1], outputs, layers=layers, **shape)
    else:
        network = DeepCFDAutoEncoder(first.shape[1], outputs, **shape)
    network.load_state_dict(renamed)
    return network


def _renamed(weights: Mapping[str, Tensor], pooled: bool) -> dict[str, Tensor]:
    """The single decoder of a U-Net or auto-encoder is the first of one here; an auto-encoder calls several ``decoder`` too."""
    depth = 4 if pooled else 3  # numbers in the name of a weight of one of several decoders
    found = {}
    for name, value in weights.items():
        several = len(re.findall(r"\d+", name)) == depth
        found[re.sub(r"^decoder\.", "decoders." if several else "decoders.0.", name)] = value
    return found


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    numbers = [int(match[1]) for name in weights if (match := re.match(pattern, name))]
    return max(numbers, default=-1) + 1
