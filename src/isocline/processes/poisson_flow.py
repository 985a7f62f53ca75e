r"""PFGM++, the Poisson flow in ``N + D`` dimensions (Xu, Liu, Tian, Tong, Tegmark and Jaakkola, arXiv 2302.04265).

Data in ``R^N`` are charges in the plane ``z = 0`` of ``R^{N+D}``. By symmetry only ``r = |z|`` matters, and the field lines give

    p_r(x | x_0)  ~  (|x - x_0|^2 + r^2)^{-(N+D)/2} ,      dx/dr = (x - E[x_0 | x, r]) / r .

With ``r = sigma sqrt(D)`` the flow reads ``dx/dsigma = (x - D(x, sigma)) / sigma``, which is EDM's; so are the training loss and
every deterministic plan. Only the law of the noise ``z = (x - x_0) / sigma`` differs:

    p(z)  ~  (1 + |z|^2 / D)^{-(N+D)/2} ,

Student's law in ``R^N`` with ``D`` degrees of freedom. The paper draws its radius, ``|z|^2 / D = B / (1 - B)`` with
``B ~ Beta(N/2, D/2)``, and a uniform direction. The same law is a normal vector divided by an independent radius,

    z = g sqrt(D / c) ,      g ~ N(0, I_N),  c ~ chi^2_D ,

which is used here: nothing cancels where ``B`` is near 1, and as ``D -> inf`` the draws become those of EDM for the same seed.
``D = 1`` is the Poisson flow (arXiv 2209.11178), ``D -> inf`` diffusion.

There is no SDE with these marginals and Gaussian increments, and ``-eps / sigma`` is the field, not the score.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline._core.stream import Stream, as_stream
from isocline.processes.edm import EDM
from isocline.processes.gaussian import match

PFGM = Method(
    "pfgm-pp",
    "PFGM++",
    "PFGM++: Unlocking the Potential of Physics-Inspired Generative Models",
    "Yilun Xu, Ziming Liu, Yonglong Tian, Shangyuan Tong, Max Tegmark, Tommi Jaakkola",
    2023,
    "2302.04265",
    room="processes",
    when="Heavy-tailed training noise; D trades between Poisson flow (1) and diffusion (infinity). Deterministic plans only.",
)


@PFGM.variant()
@dataclass(frozen=True)
class PoissonFlow(EDM):
    """EDM with the noise law of a Poisson flow: ``alpha = 1``, ``sigma = t``; time is the noise level.

    Every deterministic plan applies unchanged. Plans that add noise do not: increments of this process are not Gaussian.

    Args:
        t_min: smallest noise level used by grids.
        t_max: largest noise level; large against the data's standard deviation.
        D: number of augmented dimensions, at least 1.

    Raises:
        InvalidInput: `D` is below 1 or infinite.

    Examples:
        >>> process = PoissonFlow(D=4)
        >>> z = process.draw_noise((20000, 2), 0, dtype=torch.float64)
        >>> round(float((z.square().sum(1) < 4).double().mean()), 2)  # 1 - (1 + 4 / D)^(-D / 2) in the plane
        0.75
    """

    has_sde: ClassVar[bool] = False
    D: float = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            1 <= self.D < math.inf, f"a Poisson flow needs a finite D of at least 1, got {self.D}; EDM() is its limit"
        )

    def draw_noise(self, shape: tuple[int, ...], rng: Stream | int, *, step: int = 0, **options: Any) -> Tensor:
        """Return ``z`` of `shape` (B, *), one radius for each sample, independent of how the batch is split."""
        from scipy.special import gammaincinv  # an eighth of the room's import time, for this process alone

        stream = as_stream(rng)
        normal = super().draw_noise(shape, stream, step=step, **options)
        first = options.get("first", 0)
        unit = stream.child("radius").uniform(tuple(shape[:1]), step=step, first=first, dtype=torch.float64)
        chi2 = 2 * torch.from_numpy(gammaincinv(self.D / 2, unit.numpy()))
        return normal * match(torch.sqrt(self.D / chi2), normal)

    def noise_log_density(self, z: Tensor) -> Tensor:
        """Return ``log p(z)`` (B,) of noise `z` (B, *), in nats and float64."""
        z = z.flatten(1).double()
        return self.log_normaliser(z.shape[1]) - 0.5 * (z.shape[1] + self.D) * torch.log1p(z.square().sum(1) / self.D)

    def log_normaliser(self, n: int) -> float:
        """Return the logarithm of ``p(0)`` in `n` dimensions, ``Gamma((n + D)/2) / (Gamma(D/2) (pi D)^(n/2))``."""
        return math.lgamma((n + self.D) / 2) - math.lgamma(self.D / 2) - n / 2 * math.log(math.pi * self.D)
