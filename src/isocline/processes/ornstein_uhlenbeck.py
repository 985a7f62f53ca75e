r"""The Ornstein-Uhlenbeck process ``dX = -X / 2 dt + dW``: variance preserving noise of rate 1.

    alpha = exp(-t / 2),   sigma^2 = 1 - exp(-t),   lam = -log(expm1(t)) / 2,   t = log(1 + exp(-2 lam)),

the forward process of Lu, Wang and Bal, arXiv 2301.07882. Its transitions form a semigroup: noise for a time ``r``, then for a
time ``t``, is noise for ``r + t``. Near ``t = 0`` the noise level is ``sqrt(t)``.
"""

from __future__ import annotations

from isocline.processes.variance_preserving import VariancePreserving


def ornstein_uhlenbeck(t_min: float = 1e-5, t_max: float = 10.0) -> VariancePreserving:
    """Return the Ornstein-Uhlenbeck process, which is `VariancePreserving` with a rate of 1.

    It is not a class of its own, so that plans and denoisers made for either fit the other.

    Args:
        t_min: smallest time used by grids; the noise level there is ``sqrt(t_min)``.
        t_max: time at which sampling starts; ``exp(-t_max / 2)`` of the datum is left there, 0.0067 at 10 and 0.082 at 5.

    Examples:
        >>> process = ornstein_uhlenbeck()
        >>> round(float(process.alpha(2.0)), 6), round(float(process.noise_level(1e-4)), 6)
        (0.367879, 0.01)
    """
    return VariancePreserving(1.0, 1.0, t_min, t_max)
