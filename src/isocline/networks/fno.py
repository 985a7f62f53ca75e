r"""The Fourier neural operator (Li, Kovachki, Azizzadenesheli, Liu, Bhattacharya, Stuart, Anandkumar, arXiv 2010.08895).

    v_0 = P(a) ,      v_{l+1} = act(W_l v_l + F^{-1}(R_l F v_l)) ,      u = Q(v_L)

P, Q and W act at each point. R_l multiplies the Fourier coefficients of frequencies ``|k_j| < m_j`` by one matrix each and drops
the others. With ``F`` scaled to give the coefficients of a trigonometric polynomial, they do not depend on the grid: one network
serves every grid of at least ``2 m_j - 1`` points, and what it does to a function of few frequencies is the same on all of them
up to the aliasing of ``act``.

Frequencies of an axis are kept in the order 0, 1, ..., m - 1, -(m - 1), ..., -1, which has as many of either sign; the last axis of
a real transform has 0, ..., m - 1 only. The transforms go axis by axis, and each drops what is not kept before the next begins; few
frequencies are transformed by matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline.networks.dft import product_by_matrices
from isocline.networks.resize import AliasFree

METHOD = Method(
    "fno",
    "Fourier neural operator",
    "Fourier Neural Operator for Parametric Partial Differential Equations",
    "Li, Kovachki, Azizzadenesheli, Liu, Bhattacharya, Stuart, Anandkumar",
    2020,
    "2010.08895",
    room="networks",
    when="Maps between functions on regular periodic grids, to be used at several resolutions.",
)


FEW = 32  # frequencies an axis up to which matrices are used instead of the FFT; see `isocline.networks.dft`


def spectral_product(x: Tensor, weight: Tensor, modes: Sequence[int]) -> Tensor:
    """Return ``F^{-1}(R F x)``.

    Transforms are made in the precision of the weight, also under autocast; the result has the precision of `x`.

    Args:
        x: functions on a grid, ``(B, inputs, *grid)``, of 1 to 3 axes.
        weight: R, real and imaginary parts last, (outputs, inputs, 2 m_1 - 1, ..., m_d, 2).
        modes: m, the frequencies kept along each axis, those below m.

    Returns:
        Functions on the same grid, ``(B, outputs, *grid)``.

    Raises:
        InvalidInput: another number of axes, or a grid of less than ``2 m_j - 1`` points.
    """
    grid, last = x.shape[2:], modes[-1]
    require(len(grid) == len(modes), f"functions must be (B, C) with {len(modes)} axes of space, got {tuple(x.shape)}")
    small = [(n, m) for n, m in zip(grid, modes, strict=True) if n < 2 * m - 1]
    require(not small, f"a grid {tuple(grid)} is too coarse for modes {tuple(modes)}: it needs 2 m - 1 points an axis")
    with torch.autocast(x.device.type, enabled=False):
        if max(modes) <= FEW and not torch.onnx.is_in_onnx_export():
            return product_by_matrices(x.to(weight.dtype), weight, modes).to(x.dtype)
        low = torch.fft.rfft(x.to(weight.dtype), norm="forward").narrow(-1, 0, last)
        for axis in range(len(modes) - 2, -1, -1):
            low = _kept(torch.fft.fft(low, dim=axis + 2, norm="forward"), axis + 2, modes[axis])
        low = _multiplied(low, weight)
        for axis in range(len(modes) - 1):
            low = torch.fft.ifft(_spread(low, axis + 2, grid[axis]), dim=axis + 2, norm="forward")
        low = _padded(low, x.ndim - 1, grid[-1] // 2 + 1 - last)
        return torch.fft.irfft(low, n=grid[-1], norm="forward").to(x.dtype)


def _multiplied(low: Tensor, weight: Tensor) -> Tensor:
    """``R F x``; in real numbers for exporters, which know no complex products."""
    product = "bi...,oi...->bo..."
    if not torch.onnx.is_in_onnx_export():
        return torch.einsum(product, low, torch.view_as_complex(weight.contiguous()))
    (a, b), (c, d) = torch.view_as_real(low).unbind(-1), weight.unbind(-1)
    real = torch.einsum(product, a, c) - torch.einsum(product, b, d)
    imaginary = torch.einsum(product, a, d) + torch.einsum(product, b, c)
    return torch.view_as_complex(torch.stack([real, imaginary], -1))


def _kept(spectrum: Tensor, axis: int, modes: int) -> Tensor:
    """The frequencies below `modes` of a whole axis."""
    n = spectrum.shape[axis]
    return torch.cat([spectrum.narrow(axis, 0, modes), spectrum.narrow(axis, n - modes + 1, modes - 1)], axis)


def _spread(low: Tensor, axis: int, n: int) -> Tensor:
    """Those frequencies on an axis of n points, zero at the others."""
    modes = (low.shape[axis] + 1) // 2
    first = _padded(low.narrow(axis, 0, modes), axis, n - low.shape[axis])
    return torch.cat([first, low.narrow(axis, modes, modes - 1)], axis)


def _padded(low: Tensor, axis: int, more: int) -> Tensor:
    """Zeros after the end of an axis, appended to the real and imaginary parts as exporters want."""
    parts = torch.view_as_real(low)
    zeros = parts.new_zeros([*parts.shape[:axis], more, *parts.shape[axis + 1 :]])
    return torch.view_as_complex(torch.cat([parts, zeros], axis))


class SpectralConv(nn.Module):
    """A convolution with a periodic kernel that is known by its low Fourier coefficients.

    The coefficients are real parameters with real and imaginary parts in the last axis, (outputs, inputs, 2 m_1 - 1, ..., m_d,
    2): every optimiser, file format and distributed backend takes them.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        modes: m, frequencies kept along each axis (those below m), 1 to 3 numbers.

    Source: arXiv 2010.08895.

    Examples:
        >>> SpectralConv(2, 3, (4, 4))(torch.zeros(5, 2, 16, 8)).shape
        torch.Size([5, 3, 16, 8])
    """

    def __init__(self, inputs: int, outputs: int, modes: Sequence[int]) -> None:
        super().__init__()
        self.modes = tuple(modes)
        require(1 <= len(self.modes) <= 3, f"a Fourier layer has 1 to 3 axes of space, got {len(self.modes)}")
        require(min(inputs, outputs, *self.modes) >= 1, "a Fourier layer needs channels and modes of at least 1")
        self.inputs, self.outputs = inputs, outputs
        sizes = [2 * m - 1 for m in self.modes[:-1]]
        weight = torch.randn(outputs, inputs, *sizes, self.modes[-1], 2) * (2 * inputs) ** -0.5
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, outputs, *grid)`` for x ``(B, inputs, *grid)``."""
        return spectral_product(x, self.weight, self.modes)

    def extra_repr(self) -> str:
        """Return what is shown between the brackets."""
        return f"{self.inputs}, {self.outputs}, modes={self.modes}"


class FourierBlock(nn.Module):
    """``act(W v + F^{-1}(R F v))``, without ``act`` in the last block.

    Args:
        width: channels.
        modes: as in `SpectralConv`.
        activation: makes ``act``.
    """

    def __init__(self, width: int, modes: Sequence[int], activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.spectral = SpectralConv(width, width, modes)
        self.local = at_points(len(modes), width, width)
        self.activation = activation()

    def forward(self, v: Tensor) -> Tensor:
        """Return ``(B, width, *grid)`` for v ``(B, width, *grid)``."""
        return self.activation(self.local(v) + self.spectral(v))


@METHOD.variant()
class FNO(nn.Module):
    """A Fourier neural operator: lifting, blocks, projection.

    It is equivariant to shifts of a periodic grid. Give it coordinates (`with_coordinates`) where it should know the place, and
    `padding` where the domain is not periodic.

    Args:
        inputs: channels of the input function.
        outputs: channels of the output function.
        modes: m, frequencies kept along each axis (those below m); 1 to 3 numbers, one for each axis of space.
        width: channels inside.
        depth: number of blocks.
        padding: zeros appended to each axis inside, as a share of its length, at least 0.
        activation: makes the non-linearity.
        alias_free: whether activations are evaluated on a grid of twice as many points (`AliasFree`): what the operator does then
            depends less on the grid, at several times the price. For periodic domains.

    Source: arXiv 2010.08895.

    Examples:
        >>> operator = FNO(1, 1, (8,), width=16)
        >>> [tuple(operator(torch.zeros(2, 1, n)).shape) for n in (32, 100)]
        [(2, 1, 32), (2, 1, 100)]
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        modes: Sequence[int],
        *,
        width: int = 32,
        depth: int = 4,
        padding: float = 0.0,
        activation: Callable[[], nn.Module] = nn.GELU,
        alias_free: bool = False,
    ) -> None:
        super().__init__()
        require(not (alias_free and padding > 0), "alias_free is for periodic domains, padding for others; choose one")
        make = (lambda: AliasFree(activation())) if alias_free else activation
        require(min(inputs, outputs, width, depth) >= 1, "an FNO needs channels, width and depth of at least 1")
        require(padding >= 0, f"padding is a share of the grid, at least 0, got {padding}")
        self.padding = padding
        self.lifting = _mlp(len(modes), (inputs, 2 * width, width), make)
        kinds: list[Callable[[], nn.Module]] = [*[make] * (depth - 1), nn.Identity]
        self.blocks = nn.Sequential(*(FourierBlock(width, modes, kind) for kind in kinds))
        self.projection = _mlp(len(modes), (width, 2 * width, outputs), make)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, outputs, *grid)`` for x ``(B, inputs, *grid)``."""
        grid = x.shape[2:]
        v = self.lifting(x)
        if self.padding > 0:
            v = nn.functional.pad(v, [k for n in reversed(grid) for k in (0, round(self.padding * n))])
        v = self.blocks(v)
        for axis, n in enumerate(grid):
            v = v.narrow(axis + 2, 0, n)
        return self.projection(v)


def with_coordinates(x: Tensor) -> Tensor:
    """Return `x` ``(B, C, *grid)`` with one channel for each axis that holds ``0, 1/n, ..., 1 - 1/n`` along it.

    >>> with_coordinates(torch.zeros(1, 1, 4))[0, 1]
    tensor([0.0000, 0.2500, 0.5000, 0.7500])
    """
    grid = x.shape[2:]
    axes = torch.meshgrid(*(torch.arange(n, dtype=x.dtype, device=x.device) / n for n in grid), indexing="ij")
    return torch.cat([x, torch.stack(axes).expand(len(x), -1, *grid)], dim=1)


def pointwise(axes: int) -> Callable[..., nn.Module]:
    """Return the convolution of that many axes; with kernel size 1 it acts at each point."""
    return (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]


class _AtPoints(nn.Module):
    """The forward pass of a convolution of kernel size 1 as one product of matrices for each function."""

    weight: Tensor
    bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, outputs, *grid)`` for x ``(B, inputs, *grid)``."""
        assert self.bias is not None
        matrix = self.weight.flatten(1).expand(len(x), -1, -1)
        return torch.baddbmm(self.bias[:, None], matrix, x.flatten(2)).unflatten(2, x.shape[2:])


class _AtPoints1d(_AtPoints, nn.Conv1d):
    pass


class _AtPoints2d(_AtPoints, nn.Conv2d):
    pass


class _AtPoints3d(_AtPoints, nn.Conv3d):
    pass


def at_points(axes: int, inputs: int, outputs: int) -> nn.Module:
    """Return a linear map of the channels of each point, with a bias: a convolution of kernel size 1."""
    return (_AtPoints1d, _AtPoints2d, _AtPoints3d)[axes - 1](inputs, outputs, 1)


def _mlp(axes: int, sizes: Sequence[int], activation: Callable[[], nn.Module]) -> nn.Sequential:
    layers = [layer for a, b in pairwise(sizes) for layer in (at_points(axes, a, b), activation())]
    return nn.Sequential(*layers[:-1])
