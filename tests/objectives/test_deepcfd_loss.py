"""The loss of DeepCFD: by hand, and blind to units."""

from __future__ import annotations

import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline.objectives import FlowLoss


def test_the_loss_is_its_sum() -> None:
    torch.manual_seed(0)
    y, x = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    scale = [0.5, 2.0, 3.0]
    expected = 0.0
    for b in range(2):
        for i in range(4):
            for j in range(5):
                gaps = (x - y)[b, :, i, j].tolist()
                expected += gaps[0] ** 2 / scale[0] + gaps[1] ** 2 / scale[1] + abs(gaps[2]) / scale[2]
    assert float(FlowLoss(torch.tensor(scale))(x, y)) == pytest.approx(expected, rel=1e-5)


def test_the_scales_are_root_mean_squares() -> None:
    fields = torch.stack([torch.full((6, 7), 2.0), torch.cat([torch.full((3, 7), 3.0), -torch.full((3, 7), 3.0)])])
    torch.testing.assert_close(FlowLoss.of(fields[None]).scale, torch.tensor([2.0, 3.0]))


def test_the_pressure_does_not_feel_its_unit() -> None:
    torch.manual_seed(0)
    y, x = torch.randn(3, 1, 8), torch.randn(3, 1, 8)
    torch.testing.assert_close(FlowLoss.of(1000 * y)(1000 * x, 1000 * y), FlowLoss.of(y)(x, y))


def test_each_case_has_its_mean_over_points() -> None:
    torch.manual_seed(0)
    y, x = torch.randn(4, 2, 5, 6, 3), torch.randn(4, 2, 5, 6, 3)
    loss = FlowLoss(torch.tensor([0.5, 2.0, 3.0]))
    found = loss.per_case(x, y)
    for b in range(4):
        whole = loss(x[b].movedim(-1, 1), y[b].movedim(-1, 1))  # of two frames, as two samples
        torch.testing.assert_close(found[b], whole / (2 * 5 * 6))


def test_bad_input_is_refused() -> None:
    with pytest.raises(InvalidInput, match="above zero"):
        FlowLoss(torch.tensor([1.0, 0.0]))
    with pytest.raises(InvalidInput, match="one shape with 3 channels"):
        FlowLoss(torch.ones(3))(torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))
    with pytest.raises(InvalidInput, match="3 channels at the end"):
        FlowLoss(torch.ones(3)).per_case(torch.zeros(1, 1, 4, 2), torch.zeros(1, 1, 4, 2))
