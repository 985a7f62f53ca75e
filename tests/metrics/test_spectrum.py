import math

import pytest
import torch

from isocline.metrics import band_errors, power_spectrum


@pytest.mark.parametrize("sizes", [(16,), (16, 16), (8, 12, 10)])
def test_shells_hold_the_mean_square_of_fields_without_high_waves(sizes: tuple[int, ...]) -> None:
    u = torch.randn(3, *sizes, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    dims = tuple(range(1, len(sizes) + 1))
    low = torch.fft.fftn(u, dim=dims)
    for axis, n in enumerate(sizes):
        keep = torch.fft.fftfreq(n, d=1 / n).abs() <= min(sizes) // 6
        low = low * keep.reshape(-1, *[1] * (len(sizes) - axis - 1))
    u = torch.fft.ifftn(low, dim=dims).real
    torch.testing.assert_close(power_spectrum(u, len(sizes)).sum(-1), u.square().mean(dims))


def test_a_wave_is_in_its_shell() -> None:
    line = torch.arange(32, dtype=torch.float64) * 2 * math.pi / 32
    x, y = torch.meshgrid(line, line, indexing="ij")
    found = power_spectrum(torch.sin(3 * x + 4 * y), 2)
    assert float(found[5]) == pytest.approx(0.5)
    assert float(found.sum()) == pytest.approx(0.5)


def test_an_error_of_high_waves_is_in_the_last_band() -> None:
    x = torch.arange(64, dtype=torch.float64) * 2 * math.pi / 64
    v = torch.randn(64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = band_errors(v + 0.1 * torch.sin(30 * x), v, 1)
    assert float(found[0]) < 1e-20
    assert float(found[1]) < 1e-20
    assert float(found[2]) > 1e-4
