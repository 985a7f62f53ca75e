r"""Periodic evolution equations of many cases at once, by Fourier series in space and ETDRK4 in time.

    w_t = L(k) w + N(w)

w are the coefficients of real fields on a torus, ``(n, *K)`` in the layout of ``torch.fft.rfftn``; L may differ between cases.
Products are formed on the grid; of those of degree p only waves below ``2 / (p + 1)`` of the highest are kept, which is what they
cannot fold onto. All operations are differentiable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isocline._core.errors import NotFinite, require
from isocline.integrators import ETDRK4, Semilinear
from isocline.integrators.packing import Packing
from isocline.integrators.terms import bound


@dataclass(frozen=True)
class Torus:
    """A periodic grid, of one size for all cases or of one for each.

    Args:
        sizes: points along each axis.
        lengths: of the axes, (d,) or (n, d) float64.
    """

    sizes: tuple[int, ...]
    lengths: Tensor

    def __post_init__(self) -> None:
        require(self.lengths.shape[-1] == len(self.sizes), f"{len(self.sizes)} axes need as many lengths")
        require(min(self.sizes) >= 4, f"a periodic grid has at least four points an axis, got {self.sizes}")

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes of space of a field."""
        return tuple(range(-len(self.sizes), 0))

    def numbers(self, axis: int) -> Tensor:
        """Return the whole wave numbers along an axis, shaped to multiply coefficients; the sign-less highest one is 0."""
        n, d = self.sizes[axis], len(self.sizes)
        last = axis == d - 1
        k = torch.arange(n // 2 + 1, dtype=torch.float64) if last else torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)
        k = torch.where(2 * k.abs() == n, torch.zeros_like(k), k)
        return k.reshape(-1, *[1] * (d - axis - 1))

    def wave(self, axis: int) -> Tensor:
        """Return ``i k``, what a derivative along an axis multiplies coefficients by."""
        length = self.lengths[..., axis]
        per = length.reshape(*length.shape, *[1] * len(self.sizes))
        return 2j * math.pi * self.numbers(axis) / per

    def laplacian(self) -> Tensor:
        """Return ``-|k|^2``, real."""
        return (
            torch.stack(torch.broadcast_tensors(*(self.wave(a).imag.square() for a in range(len(self.sizes)))))
            .sum(0)
            .neg()
        )

    def kept(self, degree: int = 2) -> Tensor:
        """Return ones for the waves that products of a degree do not fold onto, zeros for the others."""
        found = torch.ones((), dtype=torch.float64)
        for axis, n in enumerate(self.sizes):
            found = found * (self.numbers(axis).abs() < n / (degree + 1))
        return found

    def coefficients(self, values: Tensor) -> Tensor:
        """Return the coefficients of fields ``(..., *S)``."""
        return torch.fft.rfftn(values, dim=self.axes)

    def values(self, coefficients: Tensor) -> Tensor:
        """Return fields ``(..., *S)`` of coefficients."""
        return torch.fft.irfftn(coefficients, s=self.sizes, dim=self.axes)


class SpectralMarch:
    """Steps of one size.

    Args:
        linear: L, broadcasts against the coefficients.
        nonlinear: ``(t, w) -> N(w)``.
        h: the step.
        t: where time begins.
    """

    def __init__(self, linear: Tensor, nonlinear: Callable[[Tensor, Tensor], Tensor], h: float, t: float = 0.0) -> None:
        require(h > 0, f"a step is positive, got {h:g}")
        self.terms = Semilinear(linear.to(torch.complex128), nonlinear)
        self.h, self.t = torch.tensor(h, dtype=torch.float64), torch.tensor(t, dtype=torch.float64)
        self.method, self.carry = ETDRK4(), ()

    def advance(self, w: Tensor, steps: int) -> Tensor:
        """Return the coefficients after some steps.

        Raises:
            NotFinite: a case blew up; names it and the time.
        """
        ready = bound(self.terms, None, Packing.of(w))
        for _ in range(steps):
            done = self.method.step(ready, self.t, self.h, w, self.carry)
            w, self.carry, self.t = done.y, done.state, self.t + self.h  # type: ignore[assignment]
        bad = ~torch.view_as_real(w.detach()).flatten(1).isfinite().all(1)
        if bool(bad.any()):
            case = int(bad.int().argmax())
            raise NotFinite(
                f"case {case} of the batch blew up before t = {float(self.t):.4g}; take smaller steps or a finer grid"
            )
        return w


def random_waves(draws: Tensor, torus: Torus, size: Callable[[Tensor], Tensor]) -> Tensor:
    """Return Gaussian random fields with independent waves, ``(n, *S)``: the same functions on every grid.

    Args:
        draws: standard normal numbers, (n, 2, M, ..., 2 M) with M > 0 waves an axis (the last has both signs); in one
            dimension (n, 2, M). Waves that the grid does not hold are left out.
        torus: the grid.
        size: of the squares of wave numbers, the standard deviation of each wave's coefficients of the normalised cosine and sine.
    """
    d = len(torus.sizes)
    numbers = _half_space(draws.shape[2:], d)
    length = torus.lengths.reshape(-1, d)[0]
    angular = 2 * math.pi * numbers / length
    amplitude = draws.flatten(2) * size(angular.square().sum(-1)) * 2**0.5
    fits = (2 * numbers.abs() < torch.tensor(torus.sizes)).all(-1)
    w = torch.zeros(len(draws), *torus.sizes, dtype=torch.complex128)
    cosine, sine = amplitude[:, 0, fits], amplitude[:, 1, fits]
    places: list[Any] = [numbers[fits, axis].long() % n for axis, n in enumerate(torus.sizes)]
    w[(slice(None), *places)] = torch.complex(cosine, -sine) * math.prod(torus.sizes)
    return torch.fft.ifftn(w, dim=torus.axes).real


def _half_space(shape: Sequence[int], d: int) -> Tensor:
    """Return one wave of each pair k, -k, as many as there are draws: (M, d)."""
    if d == 1:
        return torch.arange(1, shape[0] + 1, dtype=torch.float64)[:, None]
    require(d == 2 and shape[1] == 2 * shape[0], "draws in two dimensions are (n, 2, M, 2 M)")
    m = shape[0]
    first = torch.arange(1, m + 1, dtype=torch.float64)[:, None].expand(m, 2 * m)
    second = torch.arange(-m, m, dtype=torch.float64)[None].expand(m, 2 * m)
    k = torch.stack([first, second], -1)
    k[:, 0] = torch.stack(
        [torch.zeros(m), torch.arange(1, m + 1)], -1
    )  # the waves along the second axis stand where -m would
    return k.reshape(-1, 2)
