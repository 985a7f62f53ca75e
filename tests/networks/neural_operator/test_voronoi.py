from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline.networks.neural_operator.voronoi import voronoi_weights

F64 = torch.float64


def uniform(count: int, dimension: int, seed: int = 0) -> Tensor:
    return torch.rand(count, dimension, generator=torch.Generator().manual_seed(seed), dtype=F64)


def of_one_case(x: Tensor, low: list[float] | None = None, high: list[float] | None = None) -> Tensor:
    d = x.shape[1]
    return voronoi_weights(x, torch.tensor([0, len(x)]), low or [0.0] * d, high or [1.0] * d)


@pytest.mark.parametrize("dimension", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 60])
def test_weights_sum_to_the_volume(dimension: int, count: int) -> None:
    low, high = [-1.0, 2.0, 0.5][:dimension], [3.0, 2.5, 1.5][:dimension]
    sides = torch.tensor(high, dtype=F64) - torch.tensor(low, dtype=F64)
    x = torch.tensor(low, dtype=F64) + sides * uniform(count, dimension)
    w = of_one_case(x, low, high)
    assert w.min() > 0
    torch.testing.assert_close(w.sum(), sides.prod(), rtol=1e-10, atol=0)


@pytest.mark.parametrize(("dimension", "side", "error"), [(1, 20000, 5e-5), (2, 300, 1e-3), (3, 50, 6e-3)])
def test_cells_are_those_of_the_nearest_point(dimension: int, side: int, error: float) -> None:
    x = uniform(12, dimension)
    centres = (torch.arange(side, dtype=F64) + 0.5) / side
    fine = torch.cartesian_prod(*[centres] * dimension).reshape(-1, dimension)
    share = torch.bincount(torch.cdist(fine, x).argmin(dim=1), minlength=12) / len(fine)
    torch.testing.assert_close(of_one_case(x), share.double(), rtol=0, atol=error)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_grid_that_holds_the_walls_gets_the_trapezoidal_rule(dimension: int) -> None:
    line = torch.linspace(0, 1, 6, dtype=F64)
    rule = torch.tensor([0.1, 0.2, 0.2, 0.2, 0.2, 0.1], dtype=F64)
    x, w = (torch.cartesian_prod(*[a] * dimension).reshape(-1, dimension) for a in (line, rule))
    torch.testing.assert_close(of_one_case(x), w.prod(dim=1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dimension", [1, 2])
def test_points_at_one_place_share_their_cell(dimension: int) -> None:
    x = uniform(20, dimension)
    w = of_one_case(x)
    shared = of_one_case(torch.cat([x, x[3:4], x[3:4]]))
    torch.testing.assert_close(shared, torch.cat([w, w[3:4], w[3:4]]) / torch.tensor([1, 1, 1, 3, *[1] * 16, 3, 3]))


@pytest.mark.parametrize("dimension", [1, 2])
def test_ragged_batch_and_order(dimension: int) -> None:
    x, order = uniform(35, dimension), torch.randperm(20, generator=torch.Generator().manual_seed(1))
    w = voronoi_weights(x, torch.tensor([0, 20, 20, 35]), [0.0] * dimension, [1.0] * dimension)
    torch.testing.assert_close(w, torch.cat([of_one_case(x[:20]), of_one_case(x[20:])]))
    torch.testing.assert_close(of_one_case(x[:20][order]), w[:20][order])


def smooth(x: Tensor) -> Tensor:
    return torch.exp(x).prod(dim=1)


def order_of(rule: Callable[[Tensor], Tensor], dimension: int) -> float:
    sizes = [50, 200, 800]
    errors = [[float((rule(x) @ smooth(x)) - (np.e - 1) ** dimension) for x in sets(n, dimension)] for n in sizes]
    spread = np.sqrt(np.mean(np.square(errors), axis=1))
    return float(np.polyfit(np.log(sizes), np.log(spread), 1)[0])


def sets(count: int, dimension: int) -> list[Tensor]:
    return [uniform(count, dimension, seed) for seed in range(8)]


@pytest.mark.parametrize(("dimension", "bar"), [(1, -1.5), (2, -0.8)])
def test_order_is_above_that_of_monte_carlo(dimension: int, bar: float) -> None:
    # -1/2 is Monte Carlo; the trapezoidal rule in 1-D has -2; cells in 2-D whose errors have random signs have -1
    assert order_of(of_one_case, dimension) <= bar
    assert order_of(lambda x: torch.full((len(x),), 1 / len(x), dtype=F64), dimension) > -0.7


def test_density_of_the_points_does_not_matter() -> None:
    x = uniform(2000, 2) ** 2
    exact = (np.e - 1) ** 2
    assert abs(float(of_one_case(x) @ smooth(x)) / exact - 1) < 0.01
    assert abs(float(smooth(x).mean()) / exact - 1) > 0.1


def test_bad_input_is_refused() -> None:
    x, whole = uniform(5, 2), torch.tensor([0, 5])
    with pytest.raises(InvalidInput, match="offsets"):
        voronoi_weights(x, torch.tensor([0, 4]), [0.0, 0.0], [1.0, 1.0])
    with pytest.raises(InvalidInput, match="corners"):
        voronoi_weights(x, whole, [0.0], [1.0])
    with pytest.raises(InvalidInput, match="below"):
        voronoi_weights(x, whole, [0.0, 1.0], [1.0, 1.0])
    with pytest.raises(InvalidInput, match="outside"):
        voronoi_weights(x, whole, [0.0, 0.0], [0.5, 0.5])
