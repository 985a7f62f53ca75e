"""The look-alike of torchcde's cdeint: its results (figures of torchcde 0.2.5), its gradients, and clear refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from isocline._core.errors import InvalidInput
from isocline.compat import cdeint
from isocline.integrators import HermitePath, LinearPath, NaturalCubicPath

DOUBLE: dict[str, Any] = {"dtype": torch.float64}
TIMES = torch.tensor([0.0, 0.5, 0.8, 1.7, 2.0, 2.6], **DOUBLE)
A = torch.tensor([[0.3, -0.5], [0.2, 0.4]], **DOUBLE)
Z0 = torch.tensor([[1.0, -0.5], [0.2, 0.8]], **DOUBLE)
T = torch.tensor([0.0, 1.0, 2.6], **DOUBLE)

# last states of torchcde: Dopri5 at rtol=1e-9, atol=1e-11 with jump_t; rk4 with steps of 0.1
DOPRI5 = {
    LinearPath: [[0.5223716763132765, 0.06343349769253659], [0.22986037458640202, 0.5589909175788504]],
    HermitePath: [[0.48352960216081964, 0.05914131628952889], [0.2376256108795124, 0.5775630138952017]],
    NaturalCubicPath: [[0.6787654391158462, 0.08360823973565053], [0.20171574466445663, 0.49274107242525295]],
}
RK4 = {
    HermitePath: [[0.4837247684845177, 0.05923990923954632], [0.23762753249187119, 0.5775688253121065]],
    NaturalCubicPath: [[0.6788168426375918, 0.08361373122660185], [0.20171625743700167, 0.49274146483834586]],
}


def values() -> Tensor:
    k = torch.arange(6, **DOUBLE)[:, None]
    x = torch.sin((k + 1) * torch.tensor([1.0, 2.0], **DOUBLE)) * torch.tensor([1.0, -0.5], **DOUBLE)[:, None, None]
    x[0, 2, 0] = x[1, 0, 1] = x[1, 4, 0] = x[1, 5, 0] = torch.nan
    return x


def field(t: Tensor, z: Tensor) -> Tensor:
    return torch.stack([torch.tanh(z @ A), torch.sin(z) * torch.cos(t)], -1)


@pytest.mark.parametrize("kind", list(DOPRI5))
def test_the_results_of_torchcde(kind: Any) -> None:
    path = kind(TIMES, values())
    options = {"jump_t": path.knots}
    found = cdeint(path, field, Z0, T, adjoint=False, rtol=1e-9, atol=1e-11, options=options)
    assert found.shape == (2, 3, 2)
    assert torch.equal(found[:, 0], Z0)
    torch.testing.assert_close(found[:, -1], torch.tensor(DOPRI5[kind], **DOUBLE), rtol=0, atol=3e-8)


@pytest.mark.parametrize("kind", list(RK4))
def test_fixed_steps_give_the_numbers_of_torchcde(kind: Any) -> None:
    options = {"step_size": 0.1, "interp": "cubic"}
    found = cdeint(kind(TIMES, values()), field, Z0, T, adjoint=False, method="rk4", options=options)
    torch.testing.assert_close(found[:, -1], torch.tensor(RK4[kind], **DOUBLE), rtol=0, atol=1e-12)


def test_a_closed_form() -> None:
    path = HermitePath(TIMES, values())
    found = cdeint(
        path, lambda t, z: torch.stack([z, -z], -1), Z0, T, rtol=1e-9, atol=1e-11, options={"jump_t": path.knots}
    )
    moved = path.evaluate(T[:, None, None]) - path.evaluate(0.0)
    exact = Z0[:, None] * (moved[..., 0] - moved[..., 1]).exp().mT[..., None]
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-7)


def test_both_gradients_agree() -> None:
    net = nn.Linear(2, 4).double()
    x = values().nan_to_num().requires_grad_()
    leaves = [x, *net.parameters()]

    def gradient(adjoint: bool) -> Tensor:
        path = HermitePath(TIMES, x)
        options = {"jump_t": path.knots}
        states = cdeint(
            path,
            lambda t, z: torch.tanh(net(z)).unflatten(-1, (2, 2)),
            Z0,
            T,
            adjoint,
            rtol=1e-9,
            atol=1e-11,
            options=options,
        )
        return torch.cat([g.flatten() for g in torch.autograd.grad(states[:, 1:].square().sum(), leaves)])

    torch.testing.assert_close(gradient(True), gradient(False), rtol=1e-7, atol=1e-7)


class Product:
    """dz = z dX_0, as a product."""

    def prod(self, t: Tensor, z: Tensor, slope: Tensor) -> Tensor:
        return z * slope[..., :1]


def test_any_path_and_products_will_do() -> None:
    class Ramp:
        def derivative(self, t: Tensor) -> Tensor:
            return torch.tensor([2.0, 0.0], **DOUBLE)

    found = cdeint(Ramp(), Product(), Z0, torch.tensor([0.0, 1.0], **DOUBLE), rtol=1e-9, atol=1e-11)  # type: ignore[arg-type]
    torch.testing.assert_close(found[:, -1], Z0 * math.exp(2), rtol=1e-7, atol=0)


def test_what_does_not_fit_is_refused() -> None:
    path = HermitePath(TIMES, values())
    with pytest.raises(InvalidInput, match="X must be a control path such as HermitePath"):
        cdeint(values(), field, Z0, T)
    with pytest.raises(InvalidInput, match="z0 must be a tensor, got tuple"):
        cdeint(path, field, (Z0, Z0), T)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="adjoint_rtol has no meaning with adjoint=False"):
        cdeint(path, field, Z0, T, adjoint=False, adjoint_rtol=1e-3)
    with pytest.raises(InvalidInput, match="a path of 2 channels; expected"):
        cdeint(path, lambda t, z: z[..., None], Z0, T)
