"""The Ornstein-Uhlenbeck process: its own equation, its semigroup, its digits near t = 0."""

from decimal import Decimal, localcontext

import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline.processes import VariancePreserving, ornstein_uhlenbeck, process_from_dict, process_to_dict, same_process

TIMES = torch.tensor([1e-5, 1e-3, 0.1, 1.0, 4.0, 10.0], dtype=torch.float64)


def test_it_is_variance_preserving_noise_of_rate_one() -> None:
    process = ornstein_uhlenbeck(1e-4, 5.0)
    assert process == VariancePreserving(beta_min=1.0, beta_max=1.0, t_min=1e-4, t_max=5.0)
    assert same_process(process_from_dict(process_to_dict(process)), process)


def test_alpha_sigma_and_lam_are_those_of_the_formulas_in_fifty_digits() -> None:
    process = ornstein_uhlenbeck()
    with localcontext() as context:
        context.prec = 50
        for t in [1e-12, *TIMES.tolist()]:
            growth = Decimal(t).exp()
            exact = {
                "alpha": (-Decimal(t) / 2).exp(),
                "sigma": (1 - 1 / growth).sqrt(),
                "half_log_snr": -(growth - 1).ln() / 2,
            }
            for name, value in exact.items():
                assert float(getattr(process, name)(t)) == pytest.approx(float(value), rel=1e-15, abs=0), (name, t)


def test_time_of_inverts_to_the_last_digits_near_zero() -> None:
    process = ornstein_uhlenbeck()
    torch.testing.assert_close(process.time_of(process.half_log_snr(TIMES)), TIMES, rtol=1e-14, atol=0)


def test_the_marginals_solve_the_equation_of_the_moments() -> None:
    """``m' = -m / 2`` and ``v' = 1 - v`` from ``m = 1, v = 0``, by many small steps of the midpoint rule."""
    mean, variance, h = 1.0, 0.0, 1e-3
    for _ in range(2000):
        mean *= 1 - h / 2 + h**2 / 8
        variance += h * (1 - variance) * (1 - h / 2)
    process = ornstein_uhlenbeck()
    assert float(process.alpha(2.0)) == pytest.approx(mean, rel=1e-6)
    assert float(process.sigma(2.0)) ** 2 == pytest.approx(variance, rel=1e-6)


def test_transitions_form_a_semigroup() -> None:
    process, r = ornstein_uhlenbeck(), 0.7
    joint = process.alpha(TIMES) ** 2 * process.sigma(r) ** 2 + process.sigma(TIMES) ** 2
    torch.testing.assert_close(process.alpha(TIMES) * process.alpha(r), process.alpha(TIMES + r), rtol=1e-14, atol=0)
    torch.testing.assert_close(joint, process.sigma(TIMES + r) ** 2, rtol=1e-14, atol=0)


def test_an_empty_range_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"t_min < t_max, got t_min=10\.0, t_max=5\.0"):
        ornstein_uhlenbeck(10.0, 5.0)
