"""Brownian paths with refused steps. Every value is linear in the fresh normals, so its law is an exact number."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from isocline.plans.adaptive.brownian import BrownianPath

steps = st.lists(st.tuples(st.floats(1e-3, 1.0), st.booleans()), min_size=1, max_size=20)


def unit(k: int, n: int) -> Tensor:
    z = torch.zeros(1, n, dtype=torch.float64)
    z[0, k] = 1.0
    return z


@settings(max_examples=40, deadline=None)
@given(tries=steps)
def test_values_have_the_covariance_of_a_brownian_path_whatever_was_refused(tries: list[tuple[float, bool]]) -> None:
    """With the k-th unit vector as the k-th draw, ``W`` is its own list of coefficients and ``<W(s), W(t)> = min(s, t)``."""
    path, here, value = BrownianPath(), 0.0, torch.zeros(1, len(tries), dtype=torch.float64)
    times, values = [], []
    for k, (share, accepted) in enumerate(tries):
        h = torch.tensor([share], dtype=torch.float64)
        w = path.step(h, unit(k, len(tries)))
        times.append(here + share)
        values.append(value + w)
        path.move(h, w, torch.tensor([accepted]))
        if accepted:
            here, value = here + share, value + w
    gram = torch.cat(values) @ torch.cat(values).T
    t = torch.tensor(times, dtype=torch.float64)
    torch.testing.assert_close(gram, torch.minimum(t[:, None], t[None]), rtol=0, atol=1e-9)


def test_a_point_once_known_stays_where_it_is() -> None:
    path, h = BrownianPath(), torch.tensor([1.0, 2.0], dtype=torch.float64)
    w = path.step(h, torch.tensor([[1.0], [2.0]], dtype=torch.float64))
    path.move(h, w, torch.tensor([False, False]))
    path.step(h / 3, torch.zeros(2, 1, dtype=torch.float64))
    torch.testing.assert_close(path.step(h, torch.full((2, 1), 7.0, dtype=torch.float64)), w)
    torch.testing.assert_close(w, h.sqrt()[:, None] * torch.tensor([[1.0], [2.0]], dtype=torch.float64))


def test_samples_refuse_and_leave_on_their_own() -> None:
    """The path of each sample is the one it has alone."""
    n, draws = 5, 12
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(draws, n, 2, generator=generator, dtype=torch.float64)
    h = torch.rand(draws, n, generator=generator, dtype=torch.float64) + 0.01
    good = torch.rand(draws, n, generator=generator) < 0.5
    alone = []
    for b in range(n):
        path, found = BrownianPath(), []
        for k in range(draws):
            found.append(path.step(h[k, b : b + 1], z[k, b : b + 1]))
            path.move(h[k, b : b + 1], found[-1], good[k, b : b + 1])
        alone.append(torch.cat(found))
    path, kept = BrownianPath(), torch.arange(n)
    for k in range(draws):
        w = path.step(h[k, kept], z[k, kept])
        torch.testing.assert_close(w, torch.stack([alone[b][k] for b in kept.tolist()]), rtol=1e-12, atol=1e-12)
        path.move(h[k, kept], w, good[k, kept])
        if k == 6:
            path.take(torch.tensor([0, 2, 3]))
            kept = kept[torch.tensor([0, 2, 3])]


def test_without_memory_each_step_is_fresh() -> None:
    path, h, z = BrownianPath(remember=False), torch.tensor([0.25]), torch.tensor([[2.0]])
    first = path.step(h, z)
    path.move(h, first, torch.tensor([False]))
    assert float(first) == 1.0
    assert float(path.step(h, -z)) == -1.0


def test_it_stands_where_it_was_told() -> None:
    """A move rebases: the next known point lies at what is left of its distance and its rise."""
    path, far = BrownianPath(), torch.tensor([2.0], dtype=torch.float64)
    whole = path.step(far, torch.tensor([[1.5]], dtype=torch.float64))
    path.move(far, whole, torch.tensor([False]))
    half = path.step(far / 2, torch.zeros(1, 1, dtype=torch.float64))
    assert float(half) == pytest.approx(float(whole) / 2)
    path.move(far / 2, half, torch.tensor([True]))
    rest = path.step(far / 2, torch.full((1, 1), math.pi, dtype=torch.float64))
    assert float(rest) == pytest.approx(float(whole - half))
