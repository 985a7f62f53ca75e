"""Checkpointed gradients are those of `Direct` for every method of the contract list: nothing that a method carries is lost."""

from typing import Any

import pytest
import torch
from torch import Tensor

from isocline.integrators import PID, Checkpointed, Direct, SaveAt, integrate
from tests.contracts.integrators import FIRST, INTEGRATORS, Entry, driven, quotients


@pytest.mark.parametrize("entry", INTEGRATORS, ids=str)
def test_checkpointed_equals_direct(entry: Entry) -> None:
    field = driven(quotients)
    control: dict[str, Any] = {"controller": PID(1e-3, 1e-3), "dt0": 1.0} if entry.method.error_order else {"dt0": 0.1}

    def gradient(mode: Any) -> tuple[Tensor, ...]:
        y0 = FIRST.clone().requires_grad_()
        scale = torch.tensor(1.1, dtype=torch.float64, requires_grad=True)
        terms = entry.terms(lambda t, y: field(t, y) * scale)
        saveat = SaveAt(ts=[0.31, 0.9], t1=True)
        found = integrate(terms, y0, 0.0, 1.0, method=entry.method, gradient=mode, saveat=saveat, **control).ys
        return torch.autograd.grad((found**2).sum(), (y0, scale))

    torch.testing.assert_close(gradient(Checkpointed()), gradient(Direct()), rtol=1e-8, atol=1e-9)
