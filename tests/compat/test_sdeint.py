"""`sdeint`: the same states as torchsde's on the same path, closed solutions, gradients, bad input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from isocline.compat import sdeint, sdeint_adjoint
from isocline.integrators import BrownianPath

F64 = torch.float64
TS = torch.linspace(0, 1, 5, dtype=F64)


class Model(torch.nn.Module):
    """A small neural SDE in torchsde's form."""

    def __init__(self, noise_type: str, sde_type: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.noise_type, self.sde_type = noise_type, sde_type
        self.drift = torch.nn.Linear(3, 3).double()
        self.columns = {"diagonal": 0, "scalar": 1, "general": 2, "additive": 2}[noise_type]
        self.diffusion = torch.nn.Linear(3, 3 * max(1, self.columns)).double()

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(self.drift(y)) * (1 + t)

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        if self.columns == 0:
            return 0.3 * torch.cos(self.diffusion.bias * y) + 0.1 * t
        seen = torch.zeros_like(y) if self.noise_type == "additive" else y
        return 0.3 * torch.tanh(self.diffusion(seen)).reshape(len(y), 3, self.columns)


CASES = [
    ("diagonal", "ito", "euler"),
    ("general", "ito", "euler"),
    ("diagonal", "ito", "milstein"),
    ("additive", "ito", "srk"),
    ("diagonal", "stratonovich", "midpoint"),
    ("general", "stratonovich", "heun"),
    ("diagonal", "stratonovich", "milstein"),
    ("scalar", "stratonovich", "heun"),
    ("general", "stratonovich", "reversible_heun"),
]


def brownian(model: Model) -> BrownianPath:
    return BrownianPath(3, (6, model.columns or 3), 0.0, 1.0, area=True, dtype=F64)


def start() -> Tensor:
    return torch.linspace(-1, 1, 18, dtype=F64).reshape(6, 3)


@pytest.mark.parametrize(("noise", "calculus", "method"), CASES)
def test_agreement_with_torchsde_on_the_same_path(noise: str, calculus: str, method: str) -> None:
    torchsde = pytest.importorskip("torchsde")
    model = Model(noise, calculus)
    path = brownian(model)

    class Shared(torchsde.BaseBrownian):  # type: ignore[misc, name-defined]
        dtype, device, shape, levy_area_approximation = F64, torch.device("cpu"), path.shape, "space-time"

        def __repr__(self) -> str:
            return "the path of this library"

        def __call__(self, ta: Any, tb: Any, return_U: bool = False, return_A: bool = False) -> Any:
            found = path.increment(float(ta), float(tb))
            assert found.h is not None
            span = float(tb) - float(ta)
            return (found.w, span * (found.w / 2 + found.h)) if return_U else found.w

    theirs = torchsde.sdeint(model, start(), TS, bm=Shared(), method=method, dt=1 / 16)
    ours = sdeint(model, start(), TS, bm=path, method=method, dt=1 / 16)
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-10)


def test_geometric_brownian_motion() -> None:
    class Growth:
        noise_type, sde_type = "diagonal", "ito"

        def h(self, t: Tensor, y: Tensor) -> Tensor:
            return 0.1 * y

        def g(self, t: Tensor, y: Tensor) -> Tensor:
            return 0.4 * y

    path = BrownianPath(0, (64, 2), 0.0, 1.0, dtype=F64)
    found = sdeint(Growth(), torch.ones(64, 2, dtype=F64), TS, bm=path, dt=1 / 512, names={"drift": "h"})
    exact = torch.stack([torch.exp((0.1 - 0.08) * t + 0.4 * (path(float(t)) if t else 0 * path(1.0))) for t in TS])
    assert found.shape == (5, 64, 2)
    assert (found - exact).abs().max() < 0.01


@pytest.mark.parametrize("method", ["midpoint", "reversible_heun"])
def test_adjoint_gradients_are_those_of_the_steps(method: str) -> None:
    found = []
    for solve in (sdeint, sdeint_adjoint):
        model, y0 = Model("diagonal", "stratonovich"), start().requires_grad_()
        ys = solve(model, y0, TS, bm=7, method=method, dt=1 / 64)
        found.append(torch.autograd.grad(ys.square().sum(), [y0, *model.drift.parameters(), model.diffusion.bias]))
    for direct, adjoint in zip(*found, strict=True):
        assert (direct - adjoint).abs().max() <= 1e-10 * direct.abs().max()


def test_the_global_seed_decides_where_none_is_given() -> None:
    model = Model("diagonal", "ito")
    ends = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        ends.append(sdeint(model, start(), TS, dt=0.1)[-1])
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_adaptive_steps() -> None:
    model = Model("general", "stratonovich")
    path = brownian(model)
    fine = sdeint(model, start(), TS, bm=path, method="heun", dt=1 / 512)
    found = sdeint(model, start(), TS, bm=path, method="heun", dt=0.1, adaptive=True, rtol=1e-2, atol=1e-2)
    assert (found[-1] - fine[-1]).abs().max() < 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "mildstein"}, "Did you mean 'milstein'"),
        ({"method": "srk"}, "for additive noise only"),
        ({"method": "heun"}, "no method 'heun' for ito SDEs"),
        ({"ts": [0.0, 0.0]}, "strictly increasing"),
        ({"ts": [0.0]}, "at least two times"),
        ({"names": {"drif": "f"}}, "Did you mean 'drift'"),
        ({"names": {"drift": "h"}}, "has no method 'h'"),
        ({"y0": torch.zeros(3)}, "must have shape"),
        ({"adaptive": True, "method": "euler"}, "no error estimate"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"y0": start(), "ts": TS, "bm": 0, "dt": 0.1, **change}
    with pytest.raises(ValueError, match=message):
        sdeint(Model("diagonal", "ito"), **given)


def test_a_model_without_its_kind_is_refused() -> None:
    model = Model("diagonal", "ito")
    model.noise_type = "white"
    with pytest.raises(ValueError, match="noise_type is one of additive"):
        sdeint(model, start(), TS, bm=0)
