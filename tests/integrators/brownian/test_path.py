"""Brownian paths: the law of W and H, additivity, independence of the order of queries, units of time, cells."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from torch import Tensor

from isocline.integrators import BrownianPath, Increment
from isocline.integrators.brownian.expansion import expansion
from isocline.integrators.brownian.path import joined

F64 = torch.float64
TIMES = (0.0, 0.1, 0.125, 0.3, 1 / 3, 0.50001, 0.75, 0.9, 1.0)
GRIDS = (None, np.linspace(0, 1, 11), np.array([0.3, 0.31, 0.8]))


def path(seed: int = 0, shape: tuple[int, ...] = (6, 3), **options: Any) -> BrownianPath:
    return BrownianPath(seed, shape, 0.0, 1.0, dtype=F64, **{"area": True, **options})


def integral(x: Increment, h: float) -> Tensor:
    assert x.h is not None
    return h * (x.w / 2 + x.h)


@pytest.mark.parametrize("grid", GRIDS, ids=["one cell", "even cells", "uneven cells"])
def test_increments_and_areas_add_up(grid: Any) -> None:
    tree = path(grid=grid)
    for a, b, c in itertools.combinations(TIMES, 3):
        left, right, whole = (tree.increment(*ends) for ends in ((a, b), (b, c), (a, c)))
        assert (left.w + right.w - whole.w).abs().max() < 1e-12
        together = integral(left, b - a) + integral(right, c - b) + (c - b) * left.w
        assert (together - integral(whole, c - a)).abs().max() < 1e-12
        both = joined(left, b - a, right, c - b)
        assert both.h is not None
        assert whole.h is not None
        assert (both.h - whole.h).abs().max() < 1e-12


@pytest.mark.parametrize("grid", GRIDS, ids=["one cell", "even cells", "uneven cells"])
def test_any_order_of_queries_gives_the_same_bits(grid: Any) -> None:
    asked = list(itertools.combinations(TIMES, 2))
    first = {ends: path(grid=grid).increment(*ends) for ends in asked}  # each from a path that was asked nothing else
    for seed in range(3):
        tree = path(grid=grid)
        for ends in random.Random(seed).sample(asked, len(asked)):
            found = tree.increment(*ends)
            assert torch.equal(found.w, first[ends].w)
            assert torch.equal(found.h, first[ends].h)  # type: ignore[arg-type]


@pytest.mark.parametrize("ends", [(0.0, 1.0), (0.3, 0.7), (0.123, 0.1234), (0.5, 0.75)])
@pytest.mark.parametrize("grid", GRIDS[:2], ids=["one cell", "even cells"])
def test_increments_and_areas_are_normal_and_independent(ends: tuple[float, float], grid: Any) -> None:
    p_values = []
    for seed in range(5):
        found = path(seed, (4000,), grid=grid).increment(*ends)
        assert found.h is not None
        h = ends[1] - ends[0]
        w, area = (found.w / h**0.5).numpy(), (found.h * (12 / h) ** 0.5).numpy()
        p_values += [kstest(w, "norm").pvalue, kstest(area, "norm").pvalue, kstest((w + area) / 2**0.5, "norm").pvalue]
    assert min(p_values) > 1e-4
    assert np.median(p_values) > 0.1


@pytest.mark.parametrize("ends", [(0.0, 1.0), (0.3, 0.7), (0.123, 0.1234)])
@pytest.mark.parametrize("grid", GRIDS[:2], ids=["one cell", "even cells"])
def test_paths_without_area_are_normal_and_their_numbers_independent(ends: tuple[float, float], grid: Any) -> None:
    """Two numbers of a state share a word there: they, their squares and their sums must not show it."""
    p_values, h = [], ends[1] - ends[0]
    for seed in range(5):
        w = path(seed, (20000, 3), grid=grid, area=False).increment(*ends).w / h**0.5
        p_values += [kstest(x.numpy(), "norm").pvalue for x in (*w.T, (w[:, 0] + w[:, 2]) / 2**0.5)]
        for x in (w, w.square(), w.abs().log()):
            assert (torch.corrcoef(x.T) - torch.eye(3, dtype=F64)).abs().max() < 4.5 / 20000**0.5
    assert min(p_values) > 1e-4
    assert np.median(p_values) > 0.1


@pytest.mark.parametrize("area", [False, True])
def test_disjoint_increments_are_independent(area: bool) -> None:
    tree = path(1, (20000,), area=area)
    parts = [tree.increment(a, b) for a, b in itertools.pairwise(TIMES)]
    columns = torch.stack([x for part in parts for x in part if x is not None])
    correlation = torch.corrcoef(columns) - torch.eye(len(columns), dtype=F64)
    assert correlation.abs().max() < 4.5 / 20000**0.5


def test_coefficients_have_the_covariance_of_the_path() -> None:
    """P and Q at a time t: Var P = t, Var Q = t^3 / 3, Cov = t^2 / 2, to rounding of the time; no random number is involved."""
    for depth, t in itertools.product((5, 10, 30), (0.2, 0.5, 1 / 3, 0.999, 1.0)):
        p, q = expansion(t, 1.0, depth, True).weights
        found = np.array([(p * p).sum(), (p * q).sum(), (q * q).sum()])
        assert np.allclose(found, [t, t**2 / 2, t**3 / 3], rtol=1e-8)
        assert np.isclose((expansion(t, 1.0, depth, False).weights ** 2).sum(), t, rtol=1e-8)


@pytest.mark.parametrize("area", [False, True])
def test_two_times_have_the_covariance_of_the_path(area: bool) -> None:
    for s, t in itertools.combinations((0.2, 0.21, 0.5, 0.7), 2):
        weights: dict[int, list[np.ndarray[Any, Any]]] = {}
        for k, time in enumerate((s, t)):
            found = expansion(time, 1.0, 30, area)
            for node, p in zip(found.nodes.tolist(), found.weights[0], strict=True):
                weights.setdefault(node, [np.zeros(len(p)), np.zeros(len(p))])[k] = p
        assert abs(sum(float(a @ b) for a, b in weights.values()) - s) < 1e-8


@given(st.floats(1e-6, 1e6), st.integers(-3, 3))
@settings(max_examples=25, deadline=None)
def test_units_of_time_do_not_matter(unit: float, place: int) -> None:
    origin = place * unit
    scaled = BrownianPath(0, (3,), origin, origin + unit, dtype=F64)
    for a, b in ((0.0, 1.0), (0.25, 0.5), (0.5, 0.9375)):
        expected = path(0, (3,), area=False).increment(a, b).w * unit**0.5
        found = scaled.increment(origin + a * unit, origin + b * unit).w
        assert torch.allclose(found, expected, rtol=1e-6, atol=1e-6 * unit**0.5)


def test_nodes_drawn_for_a_step_do_not_depend_on_units_of_time() -> None:
    counts = []
    for unit in (1e-9, 1.0, 1e9):
        tree = BrownianPath(0, (3,), 0.0, unit, dtype=F64)
        h = float(tree.fitted(0.3125 * unit, 0.01 * unit))
        counts.append(len(expansion((0.3125 * unit + h) / unit, unit, 30, False).nodes))
    assert counts[0] == counts[1] == counts[2] <= 15


def test_a_path_run_backward_is_the_same_path() -> None:
    tree = path()
    forward, backward = tree.increment(0.2, 0.7), tree.increment(0.7, 0.2)
    assert torch.equal(forward.w, -backward.w)
    assert torch.equal(forward.h, backward.h)  # type: ignore[arg-type]


@pytest.mark.parametrize("area", [False, True])
def test_samples_with_times_of_their_own_see_the_same_path(area: bool) -> None:
    batch, rng = 8, np.random.default_rng(0)
    own = BrownianPath(0, (batch, 3), np.zeros(batch), np.ones(batch), area=area, dtype=F64)
    shared = path(0, (batch, 3), area=area)
    s = rng.uniform(0, 0.5, batch)
    t = s + rng.uniform(0.01, 0.5, batch)
    s[0], t[0], s[1] = 0.0, 1.0, 0.0
    for start, end in ((s, t), (t, s), (np.zeros(batch), np.ones(batch))):
        found = own.increment(start, end)
        rows = torch.tensor([5, 1])
        part = own.increment(start[rows.numpy()], end[rows.numpy()], rows=rows)
        for k in range(batch):
            alone = shared.increment(start[k], end[k])
            assert (found.w[k] - alone.w[k]).abs().max() < 1e-13
            if area:
                assert (found.h[k] - alone.h[k]).abs().max() < 1e-13  # type: ignore[index]
        assert (part.w - found.w[rows]).abs().max() < 1e-13


def test_a_batch_is_the_same_in_parts() -> None:
    whole, rest = path(0, (6, 2)), path(0, (4, 2), first=2)
    assert torch.equal(whole.increment(0.1, 0.4).w[2:], rest.increment(0.1, 0.4).w)


def test_precisions_agree() -> None:
    single = BrownianPath(0, (6, 3), 0.0, 1.0, area=True, dtype=torch.float32)
    for ends in ((0.0, 1.0), (0.25, 0.26), (0.1, 0.7)):
        assert torch.allclose(single.increment(*ends).w.double(), path().increment(*ends).w, atol=1e-5)


def test_seeds_and_names_give_other_paths() -> None:
    found = [path(seed, (2000,)).increment(0.0, 1.0).w for seed in (0, 1, -1, 2**40)]
    correlation = torch.corrcoef(torch.stack(found)) - torch.eye(4)
    assert correlation.abs().max() < 0.1


def test_steps_that_end_on_nodes_are_hardly_shorter() -> None:
    tree = path()
    for t, h in ((0.0, 0.3), (0.28125, 0.0123), (0.5, 1e-5), (1.0, -0.3), (0.75, -1e-3)):
        fitted = float(tree.fitted(t, h))
        assert abs(fitted) <= abs(h) * (1 + 1e-9)
        assert abs(fitted) > 0.96 * abs(h)
        assert fitted * h > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: path().increment(0.5, 1.5), r"on \[0, 1\] was asked for \[0.5, 1.5\]"),
        (lambda: BrownianPath(0, (2,), 1.0, 1.0), "two different times"),
        (lambda: BrownianPath(0, (2,), np.zeros(2), np.ones(2))(0.5), "ask with times"),
        (lambda: path(depth=31), "depth is between 1 and 30"),
        (lambda: BrownianPath(None, (2,), 0.0, 1.0), "pass rng=0"),  # type: ignore[arg-type]
    ],
)
def test_bad_input(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("area", [False, True])
@pytest.mark.parametrize("depth", [10, 30])
def test_many_steps_in_one_go_are_the_same_but_for_rounding(area: bool, depth: int) -> None:
    for edges in (np.linspace(0, 1, 40), np.linspace(0.125, 0.5, 7), np.array([0.1, 0.25])):
        found = list(path(0, area=area, depth=depth).increments(edges))
        alone = [path(0, area=area, depth=depth).increment(s, t) for s, t in itertools.pairwise(edges.tolist())]
        assert len(found) == len(edges) - 1
        for a, b in zip(found, alone, strict=True):
            assert (a.w - b.w).abs().max() < 1e-13
            assert (a.h is None) == (not area)
            if a.h is not None:
                assert (a.h - b.h).abs().max() < 1e-13  # type: ignore[operator]
    with pytest.raises(ValueError, match="was asked for"):
        list(path().increments(np.array([0.5, 1.5])))
    cells = list(path(grid=np.linspace(0, 1, 11)).increments(np.linspace(0, 1, 11)))
    assert torch.equal(cells[3].w, path(grid=np.linspace(0, 1, 11)).increment(0.3, 0.4).w)
