r"""A discrete table ``abar_0 > abar_1 > ...`` of cumulative alphas, made continuous.

Entry ``n`` of ``N`` belongs to ``t_n = (n + 1) / N``, where ``alpha = sqrt(abar_n)`` and ``sigma = sqrt(1 - abar_n)``.
Between the entries ``log alpha`` is linear in ``t``, from ``log alpha = 0`` at ``t = 0``; so the process is a VP one
with a piecewise constant rate, and time is had from ``lam`` by the same interpolation read backwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.processes.gaussian import GaussianProcess, as_time


@dataclass(frozen=True, repr=False)
class Tabulated(GaussianProcess):
    """The process of a discrete-time model (Ho et al., arXiv 2006.11239), valid for ``1 / N <= t <= 1``.

    Rates jump at the entries; there they are those of either side. Times above 1 continue the last piece.

    Args:
        alphas_cumprod: the table, strictly decreasing inside (0, 1).

    Examples:
        >>> table = Tabulated((0.81, 0.25, 0.01))
        >>> [round(float(table.alpha((n + 1) / 3)), 6) for n in range(3)]
        [0.9, 0.5, 0.1]
        >>> table
        Tabulated(3 entries, 0.81..0.01)
    """

    alphas_cumprod: tuple[float, ...]
    t_min: float = field(init=False, default=0.0)
    t_max: float = field(init=False, default=1.0)
    _knots: Tensor = field(init=False, compare=False)  # (N + 1,) log alpha at t = 0, 1/N, ..., 1

    def __post_init__(self) -> None:
        table = tuple(float(a) for a in self.alphas_cumprod)
        require(len(table) > 1, f"a table of alphas needs at least two entries, got {len(table)}")
        falling = all(a > b for a, b in zip((1.0, *table), (*table, 0.0), strict=True))
        require(falling, "alphas_cumprod must fall strictly inside (0, 1); pass the cumulative products, noisiest last")
        object.__setattr__(self, "alphas_cumprod", table)
        object.__setattr__(self, "t_min", 1 / len(table))
        object.__setattr__(self, "_knots", 0.5 * torch.log(torch.tensor((1.0, *table), dtype=torch.float64)))

    @classmethod
    def linear_betas(cls, n: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Tabulated:
        """Return the table of `n` entries with ``beta`` linear in the index (Ho et al., arXiv 2006.11239)."""
        return cls._of_betas(torch.linspace(beta_start, beta_end, n, dtype=torch.float64))

    @classmethod
    def scaled_linear_betas(cls, n: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012) -> Tabulated:
        """Return the table with ``sqrt(beta)`` linear in the index (Rombach et al., arXiv 2112.10752)."""
        return cls._of_betas(torch.linspace(beta_start**0.5, beta_end**0.5, n, dtype=torch.float64) ** 2)

    @classmethod
    def _of_betas(cls, betas: Tensor) -> Tabulated:
        return cls(tuple(torch.cumprod(1 - betas, 0).tolist()))

    def alpha(self, t: Tensor | float) -> Tensor:
        """Return the interpolated ``sqrt(abar)``."""
        return torch.exp(self._log_alpha(t)[0])

    def sigma(self, t: Tensor | float) -> Tensor:
        """Return ``sqrt(1 - alpha^2)``."""
        return torch.sqrt(-torch.expm1(2 * self._log_alpha(t)[0]))

    def half_log_snr(self, t: Tensor | float) -> Tensor:
        """Return ``log(alpha / sigma)``."""
        log_alpha = self._log_alpha(t)[0]
        return log_alpha - 0.5 * torch.log(-torch.expm1(2 * log_alpha))

    def time_of(self, lam: Tensor | float) -> Tensor:
        """Return the time at which the interpolated half log-SNR is `lam`."""
        lam = as_time(lam)
        log_alpha = -0.5 * torch.logaddexp(torch.zeros_like(lam), -2 * lam)
        knots = self._knots.to(lam)
        piece = torch.searchsorted(-knots[1:-1], -log_alpha.detach().contiguous())
        low, high = knots[piece], knots[piece + 1]
        return (piece + (log_alpha - low) / (high - low)) / self._entries

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return ``(alpha', sigma')`` of the piece that holds `t`."""
        log_alpha, slope = self._log_alpha(t)
        alpha_rate = slope * torch.exp(log_alpha)
        return alpha_rate, -torch.exp(log_alpha) * alpha_rate / self.sigma(t)

    def describe(self) -> str:
        """Return one line: the number of entries and their ends."""
        return f"Tabulated({self._entries} entries, {self.alphas_cumprod[0]:g}..{self.alphas_cumprod[-1]:g})"

    def __repr__(self) -> str:
        return self.describe()

    @property
    def _entries(self) -> int:
        return len(self.alphas_cumprod)

    def _log_alpha(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return ``log alpha`` and its slope at `t`."""
        t = as_time(t)
        knots, place = self._knots.to(t), t * self._entries
        piece = place.detach().floor().clamp(0, self._entries - 1).long()
        rise = knots[piece + 1] - knots[piece]
        return knots[piece] + (place - piece) * rise, rise * self._entries
