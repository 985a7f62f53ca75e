import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.networks.neural_operator.mgno import MGNO, Level, nested_levels, spaced_levels
from isocline.networks.neural_operator.neighbours import within_radius
from isocline.networks.neural_operator.voronoi import voronoi_weights

F64 = torch.float64
SIZES, RADII = (40, 9, 4), (0.25, 0.45, 0.8)


def ragged(sizes: tuple[int, ...], dimension: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    total = sum(sizes)
    coordinates = torch.rand(total, dimension, generator=random, dtype=F64)
    values = torch.randn(total, 3, generator=random, dtype=F64)
    weights = torch.rand(total, generator=random, dtype=F64) / 20
    return coordinates, values, weights, torch.tensor([0, *np.cumsum(sizes).tolist()])


def mgno(levels: int = 3, *, diagonal: bool = True) -> MGNO:
    torch.manual_seed(1)
    return MGNO(2, 3, 2, levels=levels, width=5, cycles=2, kernel_width=8, diagonal=diagonal).double()


def naive(network: MGNO, x: Tensor, a: Tensor, w: Tensor, chosen: list[list[int]]) -> Tensor:
    """The output for one case by loops over all pairs of nodes, for the nodes of each level."""
    known = torch.cat([x, a], dim=1)
    weight = [{i: float(w[i]) for i in chosen[0]}]
    for nodes in chosen[1:]:
        sums = dict.fromkeys(nodes, 0.0)
        for i, share in weight[-1].items():
            sums[min(nodes, key=lambda j: float((x[i] - x[j]).norm()))] += share
        weight.append(sums)

    def integral(kernel: torch.nn.Module, i: int, v: dict[int, Tensor], level: int, radius: float) -> Tensor:
        total = torch.zeros(5, dtype=F64)
        for j in chosen[level]:
            if float((x[i] - x[j]).norm()) <= radius:
                kappa = kernel.network(torch.cat([known[i], known[j]]))  # type: ignore[operator]
                total = total + weight[level][j] * (kappa * v[j] if kappa.numel() == 5 else kappa.view(5, 5) @ v[j])
        return total

    u = [{i: network.lift(known[i]) if level == 0 else torch.zeros(5, dtype=F64) for i in nodes}
         for level, nodes in enumerate(chosen)]  # fmt: skip
    last = len(chosen) - 1
    for _ in range(network.cycles):
        v = [u[0]]
        for m in range(last):
            v.append(
                {i: gelu(u[m + 1][i] + integral(network.down[m], i, v[m], m, RADII[m + 1])) for i in chosen[m + 1]}
            )
        for m in range(last, -1, -1):
            new = {i: network.linear[m](v[m][i]) + integral(network.within[m], i, v[m], m, RADII[m]) for i in chosen[m]}
            if m < last:
                new = {i: z + integral(network.up[m], i, u[m + 1], m + 1, RADII[m + 1]) for i, z in new.items()}
            u[m] = {i: gelu(z) for i, z in new.items()}
    return torch.stack([network.project(u[0][i]) for i in chosen[0]])


@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_v_cycle_is_that_of_loops(levels: int, diagonal: bool) -> None:
    x, a, w, offsets = ragged((14,))
    network = mgno(levels, diagonal=diagonal)
    drawn = nested_levels(x, w, offsets, SIZES[:levels], RADII[:levels], rng=0)
    with torch.no_grad():
        expected = naive(network, x, a, w, [level.nodes.tolist() for level in drawn])
        torch.testing.assert_close(network(x, a, drawn), expected)


def test_node_sets_are_nested_and_keep_the_weight_of_each_case() -> None:
    x, _, w, offsets = ragged((60, 0, 25, 3))
    levels = nested_levels(x, w, offsets, SIZES, RADII, rng=0)
    case = torch.repeat_interleave(offsets.diff())
    totals = torch.zeros(4, dtype=F64).index_add(0, case, w)
    for fine, coarse, size in zip(levels[:-1], levels[1:], SIZES[1:], strict=True):
        assert set(coarse.nodes.tolist()) < set(fine.nodes.tolist())
        counts = torch.bincount(case[coarse.nodes], minlength=4)
        assert torch.equal(counts, offsets.diff().clamp(max=size))
        torch.testing.assert_close(torch.zeros(4, dtype=F64).index_add(0, case[coarse.nodes], coarse.weights), totals)
        assert torch.equal(case[fine.nodes][coarse.between[0]], case[coarse.nodes][coarse.between[1]])
        assert torch.equal(case[coarse.nodes][coarse.within[0]], case[coarse.nodes][coarse.within[1]])


def nodes(levels: list[Level]) -> list[list[int]]:
    return [level.nodes.tolist() for level in levels]


def test_nodes_are_a_function_of_seed_and_step() -> None:
    x, _, w, offsets = ragged((50,))

    def draw(seed: int, step: int) -> list[list[int]]:
        return nodes(nested_levels(x, w, offsets, SIZES, RADII, rng=Stream(seed), step=step))

    assert draw(0, 3) == draw(0, 3)
    assert len({str(draw(seed, step)) for seed in range(3) for step in range(3)}) == 9


def test_every_point_is_drawn_alike() -> None:
    x, _, w, offsets = ragged((20,))
    drawn = [nodes(nested_levels(x, w, offsets, (20, 5), RADII[:2], rng=0, step=step))[1] for step in range(400)]
    counts = np.bincount(np.concatenate(drawn), minlength=20)
    # a quarter of 400 draws each: 100 with a standard deviation of 8.7, and 19 degrees of freedom
    assert np.square((counts - 100) / 8.66).sum() < 50


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_edges_are_linear_in_the_points(dimension: int) -> None:
    counts, edges, plain = [500, 1000, 2000, 4000], [], []
    for n in counts:
        x, _, w, offsets = ragged((n,), dimension)
        levels = nested_levels(x, w, offsets, *spaced_levels(n, 1.0, dimension), rng=0)
        edges.append(sum(level.within.shape[1] + level.between.shape[1] for level in levels))
        plain.append(within_radius(x, offsets, 0.1).shape[1])
    slope = np.polyfit(np.log(counts), np.log(edges), 1)[0]
    assert 0.95 < slope < {1: 1.05, 2: 1.1, 3: 1.2}[dimension]  # a smaller part of the nodes is near a wall
    assert np.polyfit(np.log(counts), np.log(plain), 1)[0] > (1.25 if dimension == 3 else 1.7)  # one fixed radius


@pytest.mark.parametrize("diagonal", [True, False])
def test_ragged_batch_is_the_cases_one_by_one(diagonal: bool) -> None:
    x, a, w, offsets = ragged((12, 30, 0, 3))
    network = mgno(diagonal=diagonal)
    whole = network(x, a, nested_levels(x, w, offsets, SIZES, RADII, rng=0))
    for b, e in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        alone = nested_levels(x[b:e], w[b:e], torch.tensor([0, e - b]), SIZES, RADII, rng=0)
        torch.testing.assert_close(network(x[b:e], a[b:e], alone), whole[b:e])


def test_order_of_the_points_does_not_matter_where_all_are_nodes() -> None:
    x, a, w, offsets = ragged((40,))
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    network = mgno()
    here = network(x, a, nested_levels(x, w, offsets, (40, 40, 40), RADII, rng=0))
    there = network(x[order], a[order], nested_levels(x[order], w[order], offsets, (40, 40, 40), RADII, rng=0))
    torch.testing.assert_close(there, here[order])


def at_target(network: MGNO, x: Tensor, w: Tensor, seed: int) -> Tensor:
    """Output at one place that has no weight of its own; a half and a fifth of the points are coarse nodes."""
    x, w = torch.cat([torch.full((1, 2), 0.3, dtype=F64), x]), torch.cat([torch.zeros(1, dtype=F64), w])
    a = torch.stack([torch.sin(3 * x[:, 0]), x[:, 1] ** 2, x[:, 0] * x[:, 1]], dim=1)
    sizes = (len(x), len(x) // 2, len(x) // 5)
    levels = nested_levels(x, w, torch.tensor([0, len(x)]), sizes, (2.0, 2.0, 2.0), rng=seed)
    with torch.no_grad():
        result: Tensor = network(x, a, levels)[0]
    return result


def test_other_points_and_nodes_give_the_same_operator_with_weights_and_not_without() -> None:
    network, sizes = mgno(), [30, 90, 270]
    side = (torch.arange(20, dtype=F64) + 0.5) / 20
    grid = torch.cartesian_prod(side, side)
    exact = torch.stack([at_target(network, grid, torch.full((400,), 1 / 400, dtype=F64), s) for s in range(4)]).mean(0)
    weighted: list[float] = []
    plain: list[float] = []
    for n in sizes:
        draws = [torch.rand(n, 2, generator=torch.Generator().manual_seed(s), dtype=F64) for s in range(8)]
        # the points x = s^2 have the density 1 / (2 sqrt(x)) along the first axis
        places = [torch.stack([d[:, 0] ** 2, d[:, 1]], dim=1) for d in draws]
        sets = [(x, voronoi_weights(x, torch.tensor([0, n]), [0.0, 0.0], [1.0, 1.0])) for x in places]
        for errors, right in ((weighted, True), (plain, False)):
            found = [
                at_target(network, x, w if right else torch.full_like(w, 1 / n), s) for s, (x, w) in enumerate(sets)
            ]
            errors.append(float(np.mean([float((u - exact).norm()) for u in found])))
    assert np.polyfit(np.log(sizes), np.log(weighted), 1)[0] <= -0.4
    assert plain[-1] > 0.7 * plain[0]
    assert plain[-1] > 2 * weighted[-1]


def test_every_parameter_is_used() -> None:
    x, a, w, offsets = ragged((30, 20))
    network = mgno()
    network(x, a, nested_levels(x, w, offsets, SIZES, RADII, rng=0)).square().sum().backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in network.parameters())


def test_bad_input_is_refused() -> None:
    x, a, w, offsets = ragged((12,))
    with pytest.raises(InvalidInput, match="a size and a radius"):
        nested_levels(x, w, offsets, (12, 4), (0.1,), rng=0)
    with pytest.raises(InvalidInput, match="must not grow"):
        nested_levels(x, w, offsets, (4, 12), (0.1, 0.2), rng=0)
    with pytest.raises(InvalidInput, match="needs 3 levels"):
        mgno()(x, a, nested_levels(x, w, offsets, (12, 4), (0.1, 0.2), rng=0))
    with pytest.raises(InvalidInput, match="at least one level"):
        MGNO(2, 3, 2, levels=0)
    with pytest.raises(InvalidInput, match="positive"):
        spaced_levels(10, 0.0, 2)
