r"""Weights of the ``FNO`` of the package neuraloperator (2.0.0), as weights of `isocline.networks.FNO`.

Both scale the transform to the coefficients of a trigonometric polynomial. Where K frequencies are kept along an axis, theirs are
``-(K // 2), ..., (K - 1) // 2``, so an even K has one frequency without its opposite; the last axis keeps 0, ..., m - 1. Here they
come in pairs: an even K becomes ``m = K / 2 + 1`` with weight zero at ``+K / 2``. The bias of their Fourier layer becomes that of
the layer at each point. So the functions are the same, up to rounding, on grids with an even number of points along all axes but
the last. With an odd number theirs shifts the spectrum by one frequency on the way back, which is not repeated here.

Without its channel MLP theirs applies GELU twice after every block but the last; so does the network that is returned.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from isocline._core.errors import require
from isocline.networks.fno import FNO

NEEDED = {
    "use_channel_mlp": (False,),
    "fno_skip": ("linear",),
    "norm": (None,),
    "complex_data": (False,),
    "domain_padding": (None, 0),
    "resolution_scaling_factor": (None, 1),
    "stabilizer": (None,),
    "max_n_modes": (None,),
    "separable": (False,),
    "preactivation": (False,),
    "fno_block_precision": ("full",),
}
WAY_OUT = "make it with use_channel_mlp=False and the other settings left as they are"


def fno_from_neuralop(state: Mapping[str, Any]) -> FNO:
    """Return the network of the same function.

    Args:
        state: ``state_dict()`` of a ``neuralop.models.FNO`` with ``use_channel_mlp=False``, 1 to 3 axes and dense weights. What it
            says about its settings is checked; where it says nothing, GELU and no padding are assumed.

    Returns:
        An `FNO`. The positional embedding of theirs is `with_coordinates` here: ``network(with_coordinates(x))`` is their network
        of x, and ``network(x)`` where they have none.

    Raises:
        InvalidInput: the weights are those of another architecture; names what differs.

    Source: arXiv 2010.08895; conventions of neuraloperator 2.0.0.
    """
    settings = state.get("_metadata") or {}
    for name, allowed in NEEDED.items():
        given = settings.get(name, allowed[0])
        require(given in allowed, f"an FNO with {name}={given!r} has no counterpart here; {WAY_OUT}")
    activation = getattr(settings.get("non_linearity"), "__name__", "gelu")
    require(activation == "gelu", f"an FNO with non_linearity={activation} has no counterpart here; use gelu")
    network = _same_shape(state)
    expected = network.state_dict()
    found = {ours: _converted(state, theirs, expected[ours].shape) for ours, theirs in _names(network).items()}
    other = sorted(set(state) - set(_names(network).values()) - {"_metadata"})
    require(not other, f"the state has weights that an FNO here does not: {', '.join(other[:3])}; {WAY_OUT}")
    network.load_state_dict(found)
    return network


def _same_shape(state: Mapping[str, Any]) -> FNO:
    """Return an `FNO` of the widths, depth and modes of the weights."""
    depth = 0
    while f"fno_blocks.convs.{depth}.weight.tensor" in state:
        depth += 1
    require(
        depth > 0, "this is no state of a neuralop FNO with dense weights: it has no fno_blocks.convs.0.weight.tensor"
    )
    weight = state["fno_blocks.convs.0.weight.tensor"]
    lifting, projection = _weight(state, "lifting.fcs.0"), _weight(state, "projection.fcs.1")
    width, kept = weight.shape[0], weight.shape[2:]
    hidden = (len(lifting), projection.shape[1])
    require(hidden == (2 * width, 2 * width), f"hidden layers of {hidden} for width {width}; use channel ratios of 2")
    modes = (*(k // 2 + 1 for k in kept[:-1]), kept[-1])
    network = FNO(lifting.shape[1], len(projection), modes, width=width, depth=depth)
    for block in list(network.blocks)[:-1]:
        block.activation = nn.Sequential(nn.GELU(), nn.GELU())
    return network.to(lifting.dtype)


def _weight(state: Mapping[str, Any], layer: str) -> Tensor:
    name = f"{layer}.weight"
    require(name in state, f"{name} is not in the state; {WAY_OUT}")
    weight: Tensor = state[name]
    return weight


def _names(network: FNO) -> dict[str, str]:
    """Return which of their weights each of ours comes from."""
    names = {}
    for part in ("lifting", "projection"):
        for k in range(2):
            for kind in ("weight", "bias"):
                names[f"{part}.{2 * k}.{kind}"] = f"{part}.fcs.{k}.{kind}"
    for k in range(len(network.blocks)):
        names[f"blocks.{k}.spectral.weight"] = f"fno_blocks.convs.{k}.weight.tensor"
        names[f"blocks.{k}.local.weight"] = f"fno_blocks.fno_skips.{k}.conv.weight"
        names[f"blocks.{k}.local.bias"] = f"fno_blocks.convs.{k}.bias"
    return names


def _converted(state: Mapping[str, Any], name: str, shape: torch.Size) -> Tensor:
    require(name in state, f"{name} is not in the state; {WAY_OUT}")
    weight: Tensor = state[name]
    if weight.is_complex():
        weight = _paired(weight.transpose(0, 1))
    require(weight.numel() == shape.numel(), f"{name} has the shape {tuple(weight.shape)}, not one like {tuple(shape)}")
    return weight.detach().reshape(shape)


def _paired(weight: Tensor) -> Tensor:
    """Return complex weights (o, i, K_1, ..., m) in the order of `SpectralConv`, (o, i, 2 m_1 - 1, ..., m, 2)."""
    for axis in range(2, weight.ndim - 1):
        kept = weight.shape[axis]
        negative, others = weight.split([kept // 2, kept - kept // 2], axis)
        unpaired = torch.zeros_like(weight.narrow(axis, 0, 1 - kept % 2))
        weight = torch.cat([others, unpaired, negative], axis)
    return torch.view_as_real(weight.contiguous())
