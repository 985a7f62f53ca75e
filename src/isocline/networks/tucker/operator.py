"""The Fourier neural operator with factorised kernels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from isocline.networks.fno import FNO, SpectralConv
from isocline.networks.tucker.compress import Rank, random_start


def factorised_fno(
    inputs: int,
    outputs: int,
    modes: Sequence[int],
    *,
    rank: Rank = 0.5,
    width: int = 32,
    depth: int = 4,
    padding: float = 0.0,
) -> nn.Module:
    """Return an `FNO` whose Fourier layers have kernels in Tucker's format from the start, factorised along their channels.

    A layer's ``width^2 K`` coefficients, of K frequencies, become ``r^2 K + 2 r width``, and its transforms run over r channels.
    Its weights, the factors' too, are drawn after ``torch.manual_seed``. It can be trained like any network; for ranks that adapt
    see `with_compression`.

    Args:
        inputs: channels of the input function.
        outputs: channels of the output function.
        modes: frequencies kept along each axis.
        rank: r, of out and in: a number or two, or a share of the width in (0, 1].
        width: as in `FNO`, as are the others.
        depth: number of blocks.
        padding: for domains that are not periodic.

    Source: Kossaifi, Kovachki, Azizzadenesheli, Anandkumar, arXiv 2310.00120.

    Examples:
        >>> full = FNO(1, 1, (12, 12), width=32)
        >>> small = factorised_fno(1, 1, (12, 12), width=32, rank=0.5)
        >>> sizes = [sum(p.numel() for p in net.parameters()) for net in (full, small)]
        >>> round(sizes[1] / sizes[0], 2)
        0.25
    """
    seed = int(torch.randint(2**31, ()))
    network = FNO(inputs, outputs, modes, width=width, depth=depth, padding=padding)
    return random_start(network, rank, rng=seed, where=lambda name, layer: isinstance(layer, SpectralConv))
