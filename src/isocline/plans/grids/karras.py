"""Equal steps in a root of the noise level (Karras et al., EDM, arXiv 2206.00364)."""

from __future__ import annotations

from torch import Tensor

from isocline._core.errors import require
from isocline.plans.grids.span import End, spread
from isocline.processes import GaussianProcess


def karras(
    process: GaussianProcess,
    n: int,
    *,
    rho: float = 7.0,
    t_max: float | None = None,
    t_min: float | None = None,
    end: End = "t_min",
) -> Tensor:
    """Return ``n + 1`` times with equal steps in ``s^(1/rho)``, ``s = sigma / alpha``.

    ``rho = 1`` is uniform in the noise level, ``rho -> inf`` uniform in log-SNR; 7 is the paper's choice for images.

    >>> from isocline.processes import EDM
    >>> [round(t, 9) for t in karras(EDM(t_min=1.0, t_max=9.0), 2, rho=2).tolist()]
    [9.0, 4.0, 1.0]
    """
    require(rho > 0, f"rho must be positive, got {rho}")
    return spread(
        process,
        n,
        lambda t: process.noise_level(t) ** (1 / rho),
        lambda u: process.time_of_noise_level(u**rho),
        t_max,
        t_min,
        end,
    )
