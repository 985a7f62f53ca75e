r"""Power by wave number, of fields on a periodic grid.

With coefficients ``c_k`` of ``u = sum_k c_k exp(i k x)`` in units of the lowest wave of each axis, shell j holds the k with
``j - 1/2 <= |k| < j + 1/2`` and has the power ``sum |c_k|^2``; all shells together have the mean square of u (Parseval), up to the
corners beyond the highest shell. Errors are compared in bands, as The Well does: low, middle and high wave numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isocline._core.errors import require


def power_spectrum(u: Tensor, axes: int) -> Tensor:
    """Return the power in each shell.

    Args:
        u: ``(..., *S)``, with `axes` axes of space.
        axes: how many axes of space it has, the last ones.

    Returns:
        (..., K), shells 0 ... K - 1 with ``K = min(S) // 2 + 1``.

    Examples:
        >>> x = torch.arange(16) * 2 * torch.pi / 16
        >>> power_spectrum(torch.sin(3 * x), 1).round(decimals=3)[:5]
        tensor([0.0000, 0.0000, 0.0000, 0.5000, 0.0000])
    """
    sizes = u.shape[-axes:]
    require(u.ndim >= axes >= 1, f"a spectrum over {axes} axes needs a field of as many, got {tuple(u.shape)}")
    dims = tuple(range(-axes, 0))
    power = torch.fft.fftn(u, dim=dims, norm="forward").abs().square().flatten(-axes)
    shells = _shells(tuple(sizes)).to(u.device)
    count = min(sizes) // 2 + 1
    found = power.new_zeros(*power.shape[:-1], int(shells.max()) + 1)
    return found.index_add_(-1, shells, power)[..., :count]


def band_errors(u: Tensor, v: Tensor, axes: int, bands: int = 3) -> Tensor:
    """Return the power of the error over that of v in bands of wave numbers, lowest first.

    Args:
        u: predictions, ``(..., *S)``.
        v: truth, of the same shape.
        axes: how many axes of space they have, the last ones.
        bands: how many, of equal width in the logarithm of the wave number; the mean counts to the first.

    Returns:
        (..., bands).
    """
    require(u.shape == v.shape, f"fields differ in shape: {tuple(u.shape)} and {tuple(v.shape)}")
    error, truth = power_spectrum(u - v, axes), power_spectrum(v, axes)
    members = _bands(truth.shape[-1], bands).to(u.device)
    totals = [w.new_zeros(*w.shape[:-1], bands).index_add_(-1, members, w) for w in (error, truth)]
    return totals[0] / totals[1]


def _shells(sizes: tuple[int, ...]) -> Tensor:
    """Return the shell of every coefficient, flattened."""
    lines = [torch.fft.fftfreq(n, d=1 / n, dtype=torch.float64) for n in sizes]
    k = torch.stack(torch.meshgrid(*lines, indexing="ij"))
    return (k.square().sum(0).sqrt() + 0.5).floor().long().flatten()


def _bands(shells: int, bands: int) -> Tensor:
    """Return the band of every shell."""
    require(shells > bands >= 1, f"{shells} wave numbers cannot be cut into {bands} bands")
    place = torch.arange(1, shells, dtype=torch.float64).log() / torch.tensor(float(shells)).log() * bands
    return torch.cat([torch.zeros(1, dtype=torch.long), place.long().clamp(max=bands - 1)])
