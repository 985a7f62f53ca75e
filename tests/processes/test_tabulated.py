import numpy as np
import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline.processes import Tabulated


def test_entries_are_met_at_their_times():
    process = Tabulated.linear_betas()
    n = torch.arange(1000)
    alpha = process.alpha((n + 1).double() / 1000)
    torch.testing.assert_close(alpha**2, torch.tensor(process.alphas_cumprod, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("process", "betas"),
    [
        (Tabulated.linear_betas(), np.linspace(1e-4, 0.02, 1000)),
        (Tabulated.scaled_linear_betas(), np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2),
    ],
)
def test_tables_are_running_products(process, betas):
    product, expected = 1.0, []
    for beta in betas:
        product *= 1 - beta
        expected.append(product)
    np.testing.assert_allclose(process.alphas_cumprod, expected, rtol=1e-12)


def test_between_entries_log_alpha_is_numpys_interpolation():
    process = Tabulated((0.9, 0.5, 0.2, 0.05))
    t = np.linspace(0.02, 0.99, 41)
    expected = np.interp(t, np.arange(5) / 4, 0.5 * np.log([1, *process.alphas_cumprod]))
    np.testing.assert_allclose(torch.log(process.alpha(torch.from_numpy(t))), expected, rtol=1e-13)


def test_rate_is_constant_between_entries():
    process = Tabulated((0.9, 0.5, 0.2, 0.05))
    drift = process.drift(torch.tensor([0.51, 0.6, 0.74], dtype=torch.float64))
    torch.testing.assert_close(drift, torch.full_like(drift, 2 * float(np.log(0.2 / 0.5))))


def test_domain_is_first_entry_to_one():
    process = Tabulated.linear_betas(20)
    assert (process.t_min, process.t_max) == (0.05, 1.0)


@pytest.mark.parametrize("table", [(0.5, 0.5), (0.5, 0.6), (1.0, 0.5), (0.5, 0.0), (float("nan"), 0.1)])
def test_tables_that_do_not_fall_are_refused(table):
    with pytest.raises(InvalidInput, match="must fall strictly inside"):
        Tabulated(table)


def test_a_single_entry_is_refused():
    with pytest.raises(InvalidInput, match="at least two entries, got 1"):
        Tabulated((0.5,))


def test_text_form_is_short():
    assert repr(Tabulated((0.5, 0.25))) == "Tabulated(2 entries, 0.5..0.25)"
