import math

import pytest
import torch
from scipy.fft import dctn

from isocline._core.errors import InvalidInput
from isocline.networks import T1
from isocline.networks.t1 import SpectrumBlock, from_spectrum, to_spectrum


@pytest.mark.parametrize("grid", [(12,), (8, 10), (4, 5, 6)])
def test_the_transform_is_the_orthonormal_cosine_transform(grid: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, *grid, dtype=torch.float64)
    axes = tuple(range(2, x.ndim))
    expected = torch.from_numpy(dctn(x.numpy(), axes=axes, norm="ortho"))
    torch.testing.assert_close(to_spectrum(x, grid), expected)
    torch.testing.assert_close(from_spectrum(expected, grid), x)
    torch.testing.assert_close(to_spectrum(x, grid).square().sum(), x.square().sum())  # Parseval
    kept = to_spectrum(x, [3] * len(grid))
    torch.testing.assert_close(kept, expected[tuple([slice(None)] * 2 + [slice(3)] * len(grid))])


def test_one_function_has_one_output_on_all_grids() -> None:
    torch.manual_seed(0)
    network = awake(T1(1, 1, (10,), (32,), width=8).double())

    def on(n: int) -> torch.Tensor:
        x = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        return (torch.cos(3 * math.pi * x) + 0.3 * torch.cos(7 * math.pi * x))[None, None]

    coarse, fine = network(on(32)), network(on(96))
    torch.testing.assert_close(
        fine[..., 1::3], coarse, rtol=1e-2, atol=1e-2
    )  # every third point lies on the coarse grid
    assert float(coarse.detach().std()) > 0.1


def awake(network: T1) -> T1:
    """Give all that starts near zero a size."""
    generator = torch.Generator().manual_seed(0)
    for name, p in network.named_parameters():
        if "mixing" in name or "head" in name:
            p.data = torch.randn(p.shape, generator=generator, dtype=p.dtype) * p.shape[-1] ** -0.5
    return network


@pytest.mark.parametrize("share", [2, 4, 8, 16])
def test_the_start_keeps_the_size_of_functions_on_the_grid(share: int) -> None:
    torch.manual_seed(0)
    n, c = 128, 32
    m = n // share
    x = torch.randn(64, c, n)
    block = SpectrumBlock(c, (m,), (n / (2 * m * c)) ** 0.5)
    flat = torch.bmm(to_spectrum(x, (m,)).permute(2, 0, 1), block.channels).permute(1, 2, 0)
    ours = float(from_spectrum(flat.detach(), (n,)).var())
    assert ours == pytest.approx(0.5, rel=0.1)  # m / N of the variance is kept, the gain is N / (2 m)
    plain = torch.bmm(to_spectrum(x, (m,)).permute(2, 0, 1), torch.randn(m, c, c) / c**2).permute(1, 2, 0)
    assert float(from_spectrum(plain, (n,)).var()) < 0.05


def test_a_block_is_its_formula_and_starts_as_the_identity() -> None:
    torch.manual_seed(0)
    block = SpectrumBlock(2, (3, 4), 0.5)
    z = torch.randn(2, 2, 3, 4)
    torch.testing.assert_close(block(z), z)
    for matrix in block.mixing:
        matrix.data = torch.randn_like(matrix)
    expected = z.clone()
    channels = block.channels.unflatten(0, (3, 4))
    h = torch.sin(torch.einsum("bcij,ijcd->bdij", z, channels))
    for b in range(2):
        for c in range(2):
            expected[b, c] += (block.mixing[0][c].T @ h[b, c] @ block.mixing[1][c]).detach()
    torch.testing.assert_close(block(z), expected)


def test_distances_on_the_spectrum_are_those_on_the_grid() -> None:
    torch.manual_seed(0)
    network = awake(T1(2, 1, (6, 6), (16, 16), width=8))
    x, truth = torch.randn(3, 2, 16, 16), from_spectrum(torch.randn(3, 1, 6, 6), (16, 16))
    on_grid = (network(x) - truth).square().sum()
    on_spectrum = (network.spectrum(x) - to_spectrum(truth, (6, 6))).square().sum()
    torch.testing.assert_close(on_spectrum, on_grid, rtol=1e-4, atol=1e-4)


def test_a_grid_that_is_too_coarse_is_refused() -> None:
    with pytest.raises(InvalidInput, match="does not hold"):
        T1(1, 1, (16,), (64,))(torch.zeros(1, 1, 8))
