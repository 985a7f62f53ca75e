from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from isocline._core.stream import Stream
from isocline.plans import grids, solvers, unroll
from isocline.processes import EDM, Checkpointed, Data, Denoiser, Guided, wrap

PROCESS, WIDTH = EDM(), 200


class Wide(nn.Module):
    """A network whose activations are far larger than its states, with dropout."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.into, self.out, self.dropout = nn.Linear(3, WIDTH), nn.Linear(WIDTH, 3), nn.Dropout(dropout)
        for i, p in enumerate(self.parameters()):
            p.data = 0.3 * Stream(i, "wide").normal((p.numel(), 1), dtype=torch.float64).reshape(p.shape)

    def forward(self, x: Tensor, time: Tensor, cond: Tensor | None = None) -> Tensor:
        inside = torch.tanh(self.into(x) + torch.sin(time)[:, None])
        inside = torch.tanh(self.dropout(inside) + inside**2)
        return self.out(inside) if cond is None else self.out(inside) * cond[:, None]


def start() -> Tensor:
    return Stream(0).normal((5, 3), dtype=torch.float64).mul(PROCESS.t_max).requires_grad_()


def gradients(model: Denoiser, cond: Any = None) -> tuple[Tensor, ...]:
    """Return the gradients of a run's end in the start, the times and the weights."""
    times, x = grids.karras(PROCESS, 6).requires_grad_(), start()
    plan = solvers.dpm_solver_pp_2m(PROCESS, times)
    weights = plan.weights.detach().requires_grad_()
    end = unroll(plan, model, x, cond=cond)[-1] + (weights.sum() - plan.weights.sum().detach())
    return torch.autograd.grad(end.square().sum(), (x, times, weights))


@pytest.mark.parametrize("cond", [None, torch.linspace(1, 2, 5, dtype=torch.float64)])
def test_gradients_are_the_same_bits(cond: Tensor | None) -> None:
    plain = wrap(Wide(), PROCESS, Data())
    for found, expected in zip(gradients(Checkpointed(plain), cond), gradients(plain, cond), strict=True):
        assert torch.equal(found, expected)
        assert bool((found != 0).any())


def test_random_numbers_inside_the_network_are_drawn_again_as_they_were() -> None:
    plain = wrap(Wide(dropout=0.5).train(), PROCESS, Data())
    torch.manual_seed(0)
    expected = gradients(plain)[0]
    torch.manual_seed(0)
    assert torch.equal(gradients(Checkpointed(plain))[0], expected)


def test_only_states_are_kept() -> None:
    def kept(model: Denoiser) -> int:
        sizes: list[int] = []

        def pack(x: Tensor) -> Tensor:
            sizes.append(x.numel())
            return x

        with saved_tensors_hooks(pack, lambda x: x):
            unroll(solvers.ddim(PROCESS, grids.karras(PROCESS, 6)), model, start())
        return max(sizes)

    plain = wrap(Wide(), PROCESS, Data())
    assert kept(plain) >= 5 * WIDTH
    assert kept(Checkpointed(plain)) <= 5 * 3


def test_the_repeated_call_is_counted_and_none_is_made_without_gradients() -> None:
    model = Checkpointed(wrap(Wide(), PROCESS, Data()))
    gradients(model)
    assert model.calls == 12
    solvers.ddim(PROCESS, grids.karras(PROCESS, 6)).run(model, start().detach())
    assert model.calls == 18


def test_guidance_may_be_inside_or_outside() -> None:
    inner, cond = wrap(Wide(), PROCESS, Data()), torch.linspace(1, 2, 5, dtype=torch.float64)
    null = torch.zeros(5, dtype=torch.float64)

    def end_gradient(model: Denoiser) -> Tensor:
        x = start()
        return torch.autograd.grad(model(x, torch.tensor(2.0), cond).sum(), x)[0]

    expected = end_gradient(Guided(inner, 3.0, null))
    inside, outside = Guided(Checkpointed(inner), 3.0, null), Checkpointed(Guided(inner, 3.0, null))
    assert inside.guidance == outside.guidance == 3.0
    assert torch.equal(end_gradient(inside), expected)
    assert torch.equal(end_gradient(outside), expected)
