"""Records of steps: attempts that were thrown away have no part in gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from isocline.integrators import PID, Tsit5, integrate


def test_an_attempt_that_overflowed_leaves_gradients_finite() -> None:
    """The first attempt is so large that exp overflows; it is rejected, and the penalty of the others has a gradient."""
    weight = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)

    def field(t: Tensor, y: Tensor) -> Tensor:
        return -weight * (y**3).sinh()

    y0 = torch.full((2,), 1.5, dtype=torch.float64)
    record = integrate(
        field, y0, 0.0, 1.0, method=Tsit5(), controller=PID(1e-6, 1e-6), dt0=50.0, record=("steps",)
    ).record
    assert record is not None
    assert not bool(record.accepted[0])
    assert not bool(record.ratio[0].isfinite())
    record.local_errors().sum().backward()
    assert weight.grad is not None
    assert bool(weight.grad.isfinite())
