from collections.abc import Sequence

import pytest
import torch

from isocline.networks import FNO, SpectralConv, fno, resampled
from isocline.networks.dft import product_by_matrices
from isocline.networks.fno import spectral_product

CASES = [((16,), (5,)), ((15,), (8,)), ((16, 12), (5, 6)), ((12, 10, 9), (3, 4, 5)), ((9, 9), (5, 1))]


@pytest.mark.parametrize(("grid", "modes"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matrices_do_what_the_fft_does(
    grid: Sequence[int], modes: Sequence[int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    weight = SpectralConv(3, 2, modes).weight.detach().to(dtype).requires_grad_()
    x = torch.randn(4, 3, *grid, dtype=dtype, requires_grad=True)
    monkeypatch.setattr(fno, "FEW", 0)
    results = []
    for product in (spectral_product, product_by_matrices):
        y = product(x, weight, modes)
        results.append([y.detach(), *torch.autograd.grad((y * y).sum(), [x, weight])])
    close = 2e-5 if dtype == torch.float32 else 1e-12
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(two, one, rtol=close, atol=close * float(one.abs().max()))


def test_few_frequencies_take_the_matrices_and_many_the_fft(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("matrices were used")

    monkeypatch.setattr(fno, "product_by_matrices", refuse)
    with pytest.raises(AssertionError, match="matrices"):
        SpectralConv(1, 1, (32,))(torch.zeros(1, 1, 128))
    SpectralConv(1, 1, (33,))(torch.zeros(1, 1, 128))


def test_half_precision_inside_autocast_is_left_to_the_transform() -> None:
    layer, x = SpectralConv(2, 2, (4,)), torch.randn(2, 2, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(x.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), layer(x.bfloat16().float()), rtol=1e-2, atol=1e-2)


def test_an_alias_free_operator_depends_less_on_the_grid() -> None:
    def gap(alias_free: bool, seed: int) -> float:
        torch.manual_seed(seed)
        network = FNO(1, 1, (8,), width=16, alias_free=alias_free).double()
        k = torch.arange(1, 8, dtype=torch.float64)
        phase = torch.rand(7, 1, dtype=torch.float64) * 6

        def on(n: int) -> torch.Tensor:
            x = torch.arange(n, dtype=torch.float64) * 2 * torch.pi / n
            return 3 * torch.sin(k[:, None] * x + phase).sum(0)[None, None]

        coarse, fine = network(on(32)), resampled(network(on(512)), [32], 2)
        return float((coarse - fine).detach().norm() / fine.detach().norm())

    ratios = [gap(True, seed) / gap(False, seed) for seed in range(5)]
    assert max(ratios) < 0.5
