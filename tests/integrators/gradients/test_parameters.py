"""Tensors that a field sees without being given them are found, or their absence is not silent."""

import functools
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from isocline._core.errors import InvalidInput
from isocline.integrators import Backsolve, Checkpointed, Direct, Each, integrate
from isocline.integrators.gradients.parameters import ends_of, reached, tensors_of, with_tensors

GLOBAL = torch.tensor([0.3, 0.4], dtype=torch.float64, requires_grad=True)
HIDDEN: dict[str, Any] = {}


def leaf(value: float = 0.5) -> Tensor:
    return torch.tensor([value, value], dtype=torch.float64, requires_grad=True)


def helped(y: Tensor) -> Tensor:
    return GLOBAL * y


class Callable:
    def __init__(self, weight: Tensor) -> None:
        self.parts = {"weight": [weight]}

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        return self.parts["weight"][0] * y

    def method(self, t: Tensor, y: Tensor) -> Tensor:
        return self(t, y)


@dataclass(frozen=True)
class Data:
    weight: Tensor

    def of(self, y: Tensor) -> Tensor:
        return self.weight * y


class Plain(nn.Module):
    """A module with a tensor that is no parameter."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight
        self.linear = nn.Linear(2, 2).double()

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.linear(y) * self.weight


def fields(w: Tensor) -> dict[str, Any]:
    data = Data(w)
    return {
        "closure": lambda t, y: w * y,
        "nested closure": lambda t, y: (lambda z: w * z)(y),
        "default": lambda t, y, v=w: v * y,
        "partial": functools.partial(lambda v, t, y: v * y, w),
        "keyword": functools.partial(lambda t, y, v: v * y, v=w),
        "bound method": Callable(w).method,
        "callable object": Callable(w),
        "data class": lambda t, y: data.of(y),
        "list": (lambda all_of_them: lambda t, y: all_of_them[0]["w"] * y)([{"w": w}]),
        "module": Plain(w),
        "module in a closure": (lambda net: lambda t, y: net(t, y))(Plain(w)),
    }


@pytest.mark.parametrize("name", fields(leaf()))
def test_what_is_found(name: str) -> None:
    w = leaf()
    field = fields(w)[name]
    found = reached(field)
    assert sum(x is w for x in found) == 1
    y0 = torch.ones(2, dtype=torch.float64)
    results = []
    for mode in (Direct(), Checkpointed()):
        y1 = integrate(field, y0, 0.0, 1.0, dt0=0.25, gradient=mode).y1
        results.append(torch.autograd.grad(y1.sum(), found, allow_unused=True))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_globals_are_found_through_other_functions() -> None:
    assert [x is GLOBAL for x in reached(lambda t, y: helped(y))] == [True]


def test_what_has_no_gradient_is_not_found() -> None:
    w = torch.ones(2)
    assert reached(lambda t, y: w * y, torch.nn.functional.relu, nn.Linear(2, 2).requires_grad_(False)) == []


def test_arguments_are_taken_apart_and_put_together() -> None:
    a, b = leaf(1.0), leaf(2.0)
    args = {"a": a, "rest": (torch.zeros(1), Each(b), "name", None)}
    assert [x is y for x, y in zip(tensors_of(args), (a, b), strict=True)] == [True, True]
    other = with_tensors(args, [a + 1, b + 1])
    assert torch.equal(other["a"], a + 1)
    assert torch.equal(other["rest"][1].rows, b + 1)
    assert other["rest"][2] == "name"


@pytest.mark.parametrize("mode", [Checkpointed(), Backsolve()], ids=str)
def test_a_module_in_the_arguments(mode: Any) -> None:
    net = nn.Linear(2, 2).double()
    y0 = torch.ones(2, dtype=torch.float64)
    found = []
    for gradient in (Direct(), mode):
        y1 = integrate(lambda t, y, args: args["net"](y), y0, 0, 1, args={"net": net}, dt0=0.02, gradient=gradient).y1
        found.append(torch.autograd.grad(y1.sum(), list(net.parameters())))
    torch.testing.assert_close(found[0], found[1], rtol=1e-3 if isinstance(mode, Backsolve) else 1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", [Checkpointed(), Backsolve()], ids=str)
def test_a_hidden_tensor_is_not_silent(mode: Any) -> None:
    HIDDEN["x"] = Hides(leaf())
    y0, seen = torch.ones(2, dtype=torch.float64, requires_grad=True), leaf()
    # nothing is found: the forward pass says so
    with pytest.raises(InvalidInput, match=r"shape \(2,\).*not found.*args=.*parameters=.*Direct"):
        integrate(lambda t, y: hidden()(y), y0.detach(), 0, 1, dt0=0.1, gradient=mode)
    # something is found, but not everything: the backward pass says so
    for field in (lambda t, y: hidden()(y), lambda t, y: hidden()(y) + seen):
        y1 = integrate(field, y0, 0, 1, dt0=0.1, gradient=mode).y1
        with pytest.raises(InvalidInput, match=r"shape \(2,\).*not found.*args=.*parameters=.*Direct"):
            y1.sum().backward()


@pytest.mark.parametrize("mode", [Checkpointed, Backsolve])
def test_parameters_may_be_named(mode: Any) -> None:
    HIDDEN["x"] = Hides(leaf())
    y0, weight = torch.ones(2, dtype=torch.float64), HIDDEN["x"].weight()
    found = []
    for gradient in (Direct(), mode(parameters=[weight])):
        y1 = integrate(lambda t, y: hidden()(y), y0, 0, 1, dt0=0.01, gradient=gradient).y1
        found.append(torch.autograd.grad(y1.sum(), weight)[0])
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=0)


class Hides:
    """Keeps its tensor where no search looks."""

    __slots__ = ("row",)

    def __init__(self, weight: Tensor) -> None:
        self.row: list[Any] = [*range(1000), weight]

    def weight(self) -> Tensor:
        return self.row[-1]

    def __call__(self, y: Tensor) -> Tensor:
        return self.weight() * y


def hidden() -> Hides:
    return HIDDEN["x"]


def test_a_computed_tensor_may_be_closed_over() -> None:
    source = leaf()
    found = []
    for mode in (Direct(), Checkpointed(), Backsolve()):
        w = source.exp()
        y1 = integrate(lambda t, y, w=w: w * y, torch.ones(2, dtype=torch.float64), 0, 1, dt0=0.01, gradient=mode).y1
        found.append(torch.autograd.grad(y1.sum(), source)[0])
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=0)
    torch.testing.assert_close(found[2], found[0], rtol=1e-6, atol=0)


def test_a_tensor_and_what_it_was_computed_from_are_refused() -> None:
    source = leaf()
    w = source.exp()
    with pytest.raises(InvalidInput, match=r"computed from; pass the computed one in args="):
        integrate(lambda t, y: w * y * source, torch.ones(2).double(), 0, 1, dt0=0.1, gradient=Checkpointed())
    found = []
    for mode in (Direct(), Checkpointed()):
        w = source.exp()
        field = lambda t, y, w: w * y * source  # noqa: E731
        y1 = integrate(field, torch.ones(2).double(), 0, 1, args=w, dt0=0.1, gradient=mode).y1
        found.append(torch.autograd.grad(y1.sum(), source)[0])
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=0)


def test_the_graph_search_stops_where_it_is_told() -> None:
    a, b = leaf(1.0), leaf(2.0)
    middle = a * 2
    end = middle * b
    assert [x is b for x in ends_of([end], [middle])] == [True]
    assert {id(x) for x in ends_of([end], [])} == {id(a), id(b)}
    assert ends_of([end], [middle, b]) == []
