"""Equal steps in the half log-SNR (Lu et al., DPM-Solver, arXiv 2206.00927)."""

from __future__ import annotations

from torch import Tensor

from isocline.plans.grids.span import End, spread
from isocline.processes import GaussianProcess


def log_snr(
    process: GaussianProcess, n: int, *, t_max: float | None = None, t_min: float | None = None, end: End = "t_min"
) -> Tensor:
    """Return ``n + 1`` times with equal steps in ``lam = log(alpha / sigma)``.

    It leads on mixtures and on the bundled image model; on the exact circle `exponential` is better.

    >>> from isocline.processes import EDM
    >>> [round(t, 9) for t in log_snr(EDM(t_min=0.01, t_max=100.0), 4).tolist()]
    [100.0, 10.0, 1.0, 0.1, 0.01]
    """
    return spread(process, n, process.half_log_snr, process.time_of, t_max, t_min, end)
