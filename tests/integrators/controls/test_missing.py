"""Gaps: channels of time and of how much was observed, and the tridiagonal systems that gaps leave."""

from __future__ import annotations

import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline.integrators import HermitePath, with_intensity, with_time
from isocline.integrators.controls.cubic import tridiagonal
from isocline.integrators.controls.missing import observed


def test_time_is_the_first_channel() -> None:
    times = torch.tensor([[0.0, 1.0], [2.0, torch.nan]])
    found = with_time(times, torch.ones(2, 2, 3))
    assert found.shape == (2, 2, 4)
    torch.testing.assert_close(found[..., 0], times, equal_nan=True)
    assert torch.equal(with_time(torch.tensor([0.0, 1.0]), torch.ones(2, 2, 3))[1, :, 0], torch.tensor([0.0, 1.0]))
    with pytest.raises(InvalidInput, match=r"times \(3,\) do not fit values \(2, 1\)"):
        with_time(torch.arange(3.0), torch.ones(2, 1))


def test_intensity_counts_what_was_observed_so_far() -> None:
    nan = torch.nan
    values = torch.tensor([[[1.0, nan], [nan, nan], [2.0, 5.0]]])
    found = with_intensity(values)
    torch.testing.assert_close(found[..., :2], values, equal_nan=True)
    assert found[0, :, 2:].tolist() == [[1, 0], [1, 0], [2, 1]]


def test_each_channel_keeps_its_own_observations() -> None:
    nan = torch.nan
    values = torch.tensor([[nan, 1.0], [5.0, nan], [nan, nan], [6.0, 2.0], [nan, 3.0]])
    found = observed(torch.arange(5.0), values)
    assert found.count.tolist() == [[4, 3]]
    assert found.times[:, 0].tolist()[:4] == [0, 1, 3, 4]
    assert found.values[:, 0].tolist() == [5, 5, 6, 6, 6]
    assert found.times[:, 1].tolist()[:3] == [0, 3, 4]
    assert found.interval[:, 0].tolist() == [0, 1, 1, 2]
    assert found.interval[:, 1].tolist() == [0, 0, 0, 1]


def test_padding_is_no_observation() -> None:
    times = torch.tensor([[0.0, 1.0, 2.0, 3.0], [0.0, 5.0, torch.nan, torch.nan]])
    values = torch.arange(8.0).reshape(2, 4, 1)  # values behind the end of a sample are ignored
    path = HermitePath(times, values)
    assert path.end.tolist() == [3, 5]
    assert path.evaluate(9.0).tolist() == [[3], [5]]


@pytest.mark.parametrize("n", [1, 2, 3, 8, 17])
def test_tridiagonal_systems_are_solved(n: int) -> None:
    generator = torch.Generator().manual_seed(n)
    lower, upper, right = torch.randn(3, 2, n, 4, generator=generator, dtype=torch.float64)
    diagonal = lower.abs() + upper.abs() + 0.1
    found = tridiagonal(lower, diagonal, upper, right)
    for b in range(2):
        for c in range(4):
            below, above = lower[b, 1:, c], upper[b, :-1, c]
            matrix = torch.diag(diagonal[b, :, c]) + torch.diag(below, -1) + torch.diag(above, 1)
            torch.testing.assert_close(matrix @ found[b, :, c], right[b, :, c], rtol=0, atol=1e-11)
