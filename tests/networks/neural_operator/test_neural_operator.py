import numpy as np
import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.networks.neural_operator import GNO, LowRankOperator, kernel_integral, within_radius

F64 = torch.float64


def ragged(sizes: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    total = sum(sizes)
    coordinates = torch.rand(total, 2, generator=random, dtype=F64)
    values = torch.randn(total, 3, generator=random, dtype=F64)
    weights = torch.cat([torch.full((n,), 1 / max(n, 1), dtype=F64) for n in sizes])
    return coordinates, values, weights, torch.tensor([0, *np.cumsum(sizes).tolist()])


def gno(radius: float = 0.4, *, diagonal: bool = True) -> GNO:
    torch.manual_seed(1)
    return GNO(2, 3, 2, radius=radius, width=6, depth=3, kernel_width=8, diagonal=diagonal).double()


@pytest.mark.parametrize("period", [None, 1.0])
def test_neighbours_are_those_of_a_double_loop(period: float | None) -> None:
    x, _, _, offsets = ragged((20, 0, 31))
    gap = (x[:, None] - x[None]).abs()
    gap = gap if period is None else torch.minimum(gap, period - gap)
    case = torch.repeat_interleave(offsets.diff())
    near = (gap.norm(dim=2) <= 0.3) & (case[:, None] == case[None])
    edges = within_radius(x, offsets, 0.3, period=period)
    found = torch.zeros_like(near, dtype=torch.int64).index_put(tuple(edges), torch.tensor(1), accumulate=True)
    assert torch.equal(found, near.long())


@pytest.mark.parametrize("diagonal", [True, False])
def test_kernel_integral_is_the_double_loop(diagonal: bool) -> None:
    x, v, w, offsets = ragged((7, 9))
    edges = within_radius(x, offsets, 0.5)
    kernel = torch.randn(edges.shape[1], *((3,) if diagonal else (4, 3)), dtype=F64)
    naive = torch.zeros(16, 3 if diagonal else 4, dtype=F64)
    for k, (i, j) in enumerate(edges.T.tolist()):
        naive[i] += w[j] * (kernel[k] * v[j] if diagonal else kernel[k] @ v[j])
    torch.testing.assert_close(kernel_integral(kernel, v, w, edges, 16), naive)


@pytest.mark.parametrize("diagonal", [True, False])
def test_ragged_batch_is_the_cases_one_by_one(diagonal: bool) -> None:
    x, a, w, offsets = ragged((12, 30, 5))
    network = gno(diagonal=diagonal)
    whole = network(x, a, w, offsets)
    for b, e in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        torch.testing.assert_close(network(x[b:e], a[b:e], w[b:e], torch.tensor([0, e - b])), whole[b:e])


def test_order_of_the_points_does_not_matter() -> None:
    x, a, w, offsets = ragged((40,))
    order = torch.randperm(40)
    network = gno()
    torch.testing.assert_close(network(x[order], a[order], w[order], offsets), network(x, a, w, offsets)[order])


def at_target(network: GNO, x: Tensor, w: Tensor) -> Tensor:
    """Output at one place that has no weight of its own."""
    x, w = torch.cat([torch.full((1, 2), 0.3, dtype=F64), x]), torch.cat([torch.zeros(1, dtype=F64), w])
    a = torch.stack([torch.sin(3 * x[:, 0]), x[:, 1] ** 2, x[:, 0] * x[:, 1]], dim=1)
    with torch.no_grad():
        result: Tensor = network(x, a, w, torch.tensor([0, len(x)]))[0]
    return result


def grid(n: int) -> tuple[Tensor, Tensor]:
    side = (torch.arange(n, dtype=F64) + 0.5) / n
    return torch.cartesian_prod(side, side), torch.full((n * n,), 1 / n**2, dtype=F64)


def slope(sizes: list[int], errors: list[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])


def test_output_converges_at_the_order_of_the_quadrature() -> None:
    network, sizes = gno(radius=2.0), [4, 6, 9, 13]
    exact = at_target(network, *grid(26))
    assert slope(sizes, [float((at_target(network, *grid(n)) - exact).norm()) for n in sizes]) <= -1.8


def test_random_points_converge_with_weights_and_not_without() -> None:
    network, sizes = gno(radius=2.0), [30, 90, 270]
    exact = at_target(network, *grid(16))
    weighted, plain = [], []
    for n in sizes:
        draws = [torch.rand(n, 2, generator=torch.Generator().manual_seed(s), dtype=F64) for s in range(8)]
        # the points x = s^2 have the density 1 / (2 sqrt(x)) along the first axis
        sets = [(torch.stack([d[:, 0] ** 2, d[:, 1]], dim=1), 2 * d[:, 0] / n) for d in draws]
        weighted.append(float(np.mean([float((at_target(network, x, w) - exact).norm()) for x, w in sets])))
        plain.append(
            float(np.mean([float((at_target(network, x, torch.ones_like(w) / n) - exact).norm()) for x, w in sets]))
        )
    assert slope(sizes, weighted) <= -0.4
    assert plain[-1] > 0.7 * plain[0]
    assert plain[-1] > 2 * weighted[-1]


def test_low_rank_is_its_dense_kernel() -> None:
    x, v, w, offsets = ragged((8, 0, 11))
    network = LowRankOperator(2, 3, rank=5, width=8).double()
    phi, psi = (net(x).unflatten(1, (5, 3)) for net in (network.phi, network.psi))
    kernel = torch.einsum("irc,jrd->ijcd", phi, psi)
    case = torch.repeat_interleave(offsets.diff())
    same = (case[:, None] == case[None]).double()
    torch.testing.assert_close(network(x, v, w, offsets), torch.einsum("ij,ijcd,jd,j->ic", same, kernel, v, w))


def test_bad_input_is_refused() -> None:
    x, _, _, offsets = ragged((5,))
    with pytest.raises(InvalidInput, match="radius"):
        within_radius(x, offsets, 0.0)
    with pytest.raises(InvalidInput, match="offsets"):
        within_radius(x, offsets[:1], 0.1)
