"""Taylor mode agrees with nested autograd, value by value and gradient by gradient."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import derivatives
from isocline._core.errors import InvalidInput
from isocline.derivatives import Spec, directional, jet, multiplicity, nested_autograd, pushforward, taylor
from isocline.derivatives.rays import plan
from tests.derivatives.nets import NETS, mlp, network, points

NAMES = "xyt"
SPEC = Spec.of(
    "", "x", "t", "xx", "xy", "yyt", "xyt", "ttt", "xxyy", "xxxt", "xxyt", "yyyyy", "xxxyy", "xxxyt", names=NAMES
)


def every(order: int, d: int = 3) -> Spec:
    indices = itertools.combinations_with_replacement(range(d), order)
    return Spec(frozenset(indices), tuple(NAMES[:d]))


@pytest.mark.parametrize("kind", NETS)
def test_derivatives_to_order_five_are_those_of_nested_autograd(kind: str) -> None:
    net, x = network(kind), points(3)
    ours, theirs = jet(net, x, SPEC), jet(net, x, SPEC, nested_autograd)
    assert set(ours) == set(theirs) == SPEC.indices
    for index in SPEC.indices:
        a, b = ours[index].detach(), theirs[index].detach()
        assert float((a - b).abs().max()) < 1e-10 * max(1.0, float(b.abs().max())), index


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_every_derivative_of_an_order(order: int) -> None:
    net, x, spec = network("siren"), points(2), every(order)
    ours, theirs = jet(net, x, spec), jet(net, x, spec, nested_autograd)
    for index in spec.indices:
        a, b = ours[index].detach(), theirs[index].detach()
        assert float((a - b).abs().max()) < 1e-10 * max(1.0, float(b.abs().max())), index


@pytest.mark.parametrize("kind", NETS)
def test_gradients_of_parameters_agree(kind: str) -> None:
    net, x = network(kind), points(4)
    spec = Spec.of("", "t", "xx", "xy", "xxt", names=NAMES)

    def gradient(backend: object) -> list[Tensor]:
        u = jet(net, x, spec, backend)  # type: ignore[arg-type]
        residual = u.t + u[()] * u.xx - u.xy * u.xxt
        return list(torch.autograd.grad(residual.square().mean(), list(net.parameters()), allow_unused=True))

    for a, b in zip(gradient(taylor), gradient(nested_autograd), strict=True):
        assert (a is None) == (b is None) or float((b if a is None else a).abs().max()) == 0
        if a is not None and b is not None:
            assert torch.allclose(a, b, rtol=1e-9, atol=1e-11)


def test_gradients_of_points_agree() -> None:
    net = network("gated")
    spec = Spec.of("xx", names=NAMES)
    grads = []
    for backend in (taylor, nested_autograd):
        x = points().requires_grad_()
        grads.append(torch.autograd.grad(jet(net, x, spec, backend).xx.square().sum(), x)[0])
    assert torch.allclose(*grads, rtol=1e-9, atol=1e-11)


def test_single_precision_stays_single_and_is_right_to_its_rounding() -> None:
    net, x = network("tanh"), points()
    exact = jet(net, x, Spec.of("xx", names=NAMES)).xx
    found = jet(net.float(), x.float(), Spec.of("xx", names=NAMES)).xx
    assert found.dtype == torch.float32
    assert float((found - exact).detach().abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("function", "closed"),
    [
        (lambda x: x**3, [1.331, 3.63, 6.6, 6, 0, 0]),
        (lambda x: 1 / x, [(-1) ** k * [1, 1, 2, 6, 24, 120][k] / 1.1 ** (k + 1) for k in range(6)]),
        (lambda x: 2**x, [2**1.1 * torch.tensor(2.0, dtype=torch.float64).log().item() ** k for k in range(6)]),
        (lambda x: torch.rsqrt(x) * torch.sqrt(x), [1, 0, 0, 0, 0, 0]),
        (lambda x: torch.log(torch.exp(x)), [1.1, 1, 0, 0, 0, 0]),
        (lambda x: torch.sin(x) ** 2 + torch.cos(x).square(), [1, 0, 0, 0, 0, 0]),
        (lambda x: torch.cosh(x) ** 2 - torch.sinh(x).square(), [1, 0, 0, 0, 0, 0]),
        (lambda x: torch.tan(x) * torch.cos(x) - torch.sin(x), [0, 0, 0, 0, 0, 0]),
        (lambda x: torch.tan(torch.atan(x)), [1.1, 1, 0, 0, 0, 0]),
        (lambda x: torch.log1p(torch.expm1(x)), [1.1, 1, 0, 0, 0, 0]),
        (torch.arctan, [0.8329812666744317, 1 / 2.21, -2.2 / 2.21**2, (6 * 1.21 - 2) / 2.21**3]),
    ],
)
def test_closed_forms(function: object, closed: list[float]) -> None:
    x = torch.full((1, 1), 1.1, dtype=torch.float64)
    found = jet(function, x, Spec.of(*("x" * k for k in range(6)), names="x"))  # type: ignore[arg-type]
    for k, value in enumerate(closed):
        assert float(found["x" * k]) == pytest.approx(value, rel=1e-11, abs=1e-10)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.softmax(3 * x, 1),
        lambda x: torch.softmax(1e3 + torch.sin(x), dim=-1),
        lambda x: torch.prod(torch.cos(x), 1, keepdim=True),
        lambda x: (1 - x.square()).prod(-1)[:, None],
        lambda x: torch.linalg.norm(x, dim=1, keepdim=True),
        lambda x: torch.linalg.vector_norm(x, 2, 1, True),
        lambda x: x.norm(dim=1, keepdim=True),
        lambda x: torch.linalg.vecdot(x, x)[:, None],
        lambda x: torch.linalg.vecdot(torch.sin(x), 2 * x).unsqueeze(1),
    ],
)
def test_functions_made_of_others_agree_with_nested_autograd(function: Callable[[Tensor], Tensor]) -> None:
    x, spec = points(), Spec.of("", "x", "xy", "tt", "xxy", names=NAMES)
    ours, theirs = jet(function, x, spec), jet(function, x, spec, nested_autograd)
    for index in spec.indices:
        assert torch.allclose(ours[index], theirs[index], rtol=1e-9, atol=1e-11)


def test_layer_norm_to_order_three() -> None:
    """Against the same written out, as torch's own layer_norm has wrong derivatives from order three on."""
    weight, bias = torch.tensor([1.0, 2.0, 3.0]).double(), torch.ones(3).double()

    def written(x: Tensor) -> Tensor:
        centred = torch.sin(x) - torch.sin(x).mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias

    x, spec = points(), Spec.of("", "x", "xy", "tt", "xxy", "xxx", names=NAMES)
    ours = jet(lambda x: F.layer_norm(torch.sin(x), (3,), weight, bias), x, spec)
    theirs = jet(written, x, spec, nested_autograd)
    for index in spec.indices:
        assert torch.allclose(ours[index], theirs[index], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("function", [torch.prod, torch.linalg.norm, lambda x: torch.linalg.norm(x, 1, dim=1)])
def test_sums_over_points_and_other_norms_are_refused(function: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(InvalidInput, match="along one axis"):
        jet(function, points(4), Spec.of("x", names=NAMES))


def test_a_polynomial_at_zero_has_its_derivatives() -> None:
    x = torch.zeros(1, 2, dtype=torch.float64)
    found = jet(lambda x: x[:, :1] ** 2 * x[:, 1:] ** 3, x, Spec.of("xxyyy", "xxyy", names="xy"))
    assert float(found.xxyyy) == pytest.approx(12, rel=1e-12)
    assert abs(float(found.xxyy)) < 1e-12


def test_fields_that_are_constant_or_linear_have_zeros() -> None:
    x = points(4)
    spec = Spec.of("x", "xx", names=NAMES)
    for field in (lambda x: torch.ones(len(x), 1, dtype=torch.float64), lambda x: 2 * x[:, :1]):
        ours, theirs = jet(field, x, spec), jet(field, x, spec, nested_autograd)
        assert torch.equal(ours.x, theirs.x)
        assert torch.equal(ours.xx, theirs.xx)
        assert float(ours.xx.abs().max()) == 0


class Products:
    """Count matrix products and the numbers of multiplications in them."""

    calls, multiplications = 0, 0

    def __enter__(self) -> Products:
        self._profile = torch.autograd.profiler.profile(record_shapes=True)
        self._profile.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._profile.__exit__(None, None, None)
        for event in self._profile.function_events or []:
            if event.name in ("aten::mm", "aten::addmm", "aten::bmm"):
                a, b = [shape for shape in event.input_shapes if len(shape) >= 2][-2:]
                self.calls += 1
                self.multiplications += math.prod(a) * b[-1]


def products(backend: object, spec: Spec) -> int:
    net = mlp(nn.Tanh).double()
    with Products() as count:
        jet(net, points(6), spec, backend)  # type: ignore[arg-type]
    return count.multiplications


def test_only_what_is_asked_is_computed() -> None:
    first, burgers = Spec.of("x", names=NAMES), Spec.of("", "t", "x", "xx", names=NAMES)
    value = products(taylor, Spec.of("", names=NAMES))
    hidden = 6 * (9 * 8 + 8 * 2)
    assert value == 6 * 3 * 9 + hidden
    assert products(taylor, first) == value + 3 * 9 + hidden  # a direction is one row in the first layer
    assert products(taylor, burgers) == value + 2 * 3 * 9 + 3 * hidden  # x, t, and the second order of x


def test_a_high_order_costs_less_than_nested_autograd() -> None:
    spec = Spec.of("xxxx", names=NAMES)
    assert products(taylor, spec) * 4 < products(nested_autograd, spec)


@pytest.mark.parametrize(
    ("index", "lines"),
    [((0, 1), 2), ((0, 0, 1), 3), ((0, 1, 2), 4), ((0, 0, 1, 1), 4), ((0, 0, 1, 2), 6), ((0, 1, 2, 3, 4), 16)],
)
def test_mixed_derivatives_take_few_directions(index: tuple[int, ...], lines: int) -> None:
    assert len(plan(frozenset({index})).rays) == lines


def test_directions_are_shared() -> None:
    assert len(plan(frozenset({(0, 0), (1, 1), (0, 1)})).rays) == 3
    assert len(plan(frozenset({(0,) * 4, (1,) * 4, (0, 0, 1, 1)})).rays) == 4


def test_directional_derivatives_of_different_degrees() -> None:
    net, x = network("siren"), points()
    v = torch.tensor([[1.0, 2.0, -1.0], [0.0, 1.0, 1.0]], dtype=torch.float64)
    value, found = directional(net, x, v, (3, 1))
    assert torch.allclose(value, net(x))
    line = jet(
        lambda s: net(x[:1] + s * v[0]),
        torch.zeros(1, 1, dtype=torch.float64),
        Spec.of("sss", names="s"),
        nested_autograd,
    )
    assert torch.allclose(found[2][0, :1], line.sss)
    assert [len(f) for f in found] == [2, 1, 1]
    own = (
        v[:, None] * torch.arange(5, dtype=torch.float64)[:, None]
    )  # twice the direction, eight times the third derivative
    assert torch.allclose(directional(net, x, own, (3, 1))[1][2][0, 2], 8 * found[2][0, 2])


def test_curves_single_out_contractions() -> None:
    net, x = network("tanh"), points()
    e = torch.eye(3, dtype=torch.float64)
    found = pushforward(net, x, [None, e[0], e[1], None, None, None])
    u = jet(net, x, Spec.of("x", "y", "xx", "xy", "yy", "xxx", names=NAMES))
    assert torch.allclose(found[2], u.x)
    assert torch.allclose(found[3], u.y)
    assert torch.allclose(found[4], multiplicity(2, 2) * u.xx)
    assert torch.allclose(found[5], multiplicity(2, 3) * u.xy)
    assert torch.allclose(found[6], multiplicity(2, 2, 2) * u.xxx + multiplicity(3, 3) * u.yy)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: torch.logsumexp(x, 1, keepdim=True), "logsumexp"),
        (lambda x: torch.cumprod(x, 1), "cumprod"),
        (lambda x: x.asinh(), "asinh"),
        (lambda x: torch.maximum(x, 2 * x), "maximum"),
        (lambda x: F.group_norm(x, 1), "group_norm"),
        (lambda x: torch.gather(torch.ones(4, 3, dtype=torch.float64), 1, x), "gather"),
    ],
)
def test_a_function_without_a_rule_is_named(function: object, name: str) -> None:
    with pytest.raises(InvalidInput, match=rf"no rule for \w*{name}; pass backend=nested_autograd"):
        jet(function, points(4), Spec.of("x", names=NAMES))  # type: ignore[arg-type]


def test_an_exponent_that_depends_on_x_is_refused() -> None:
    with pytest.raises(InvalidInput, match="exponent"):
        jet(lambda x: x**x, points(4).abs(), Spec.of("x", names=NAMES))


@pytest.mark.parametrize(("kind", "name"), [(nn.ReLU, "relu"), (nn.LeakyReLU, "leaky_relu")])
def test_a_second_derivative_that_does_not_exist_is_refused(kind: type[nn.Module], name: str) -> None:
    net = mlp(kind).double()
    first = Spec.of("x", names=NAMES)
    assert torch.allclose(jet(net, points(), first).x, jet(net, points(), first, nested_autograd).x)
    with pytest.raises(InvalidInput, match=f"{name} has no derivative of order 2.*smooth"):
        jet(net, points(), Spec.of("xx", names=NAMES))
    zeros = jet(net, points(), Spec.of("xx", names=NAMES), nested_autograd).xx
    assert float(zeros.detach().abs().max()) == 0


def test_dropout_in_training_is_refused() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1)).double()
    spec = Spec.of("x", names=NAMES)
    with pytest.raises(InvalidInput, match="eval"):
        jet(net, points(), spec)
    net.eval()
    assert torch.allclose(jet(net, points(), spec).x, jet(net, points(), spec, nested_autograd).x)


def test_the_loss_written_by_hand_is_the_same() -> None:
    net, x = derivatives.network(2, 3, 20).double(), points(7, 2)
    losses = [
        derivatives.burgers(net, x, taylor),
        derivatives.burgers(net, x, nested_autograd),
        derivatives.by_hand(net, x),
    ]
    assert float((torch.stack(losses) - losses[0]).detach().abs().max()) < 1e-15
