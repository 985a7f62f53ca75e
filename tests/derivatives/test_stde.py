"""Stochastic estimates have the right mean, independent replicas, and a cost that does not grow with the dimension."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.derivatives import (
    DenseBiharmonic,
    DenseLaplacian,
    RandomOperator,
    SecondOrder,
    SparseLaplacian,
    SparseSum,
    Spec,
    estimate,
    jet,
    laplacian,
    multiplicity,
    nested_autograd,
    unbiased_square,
)
from isocline.derivatives.stde import METHOD, _subsets
from tests.derivatives.nets import Siren, points
from tests.derivatives.test_taylor import Products

D, SEEDS = 4, range(5)
NAMES = tuple(f"x{i}" for i in range(D))


def siren(d: int = D) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Siren(d, 2).double()


def total(net: nn.Module, x: Tensor, terms: list[tuple[int, ...]]) -> Tensor:
    """Return a sum of derivatives by nested autograd, (N, c)."""
    spec = Spec.of(*terms, names=NAMES)
    found = jet(net, x, spec, nested_autograd)
    return torch.stack([found[term] for term in terms]).sum(0).detach()


def root(x: Tensor) -> Tensor:
    """Return a matrix (N, D, 2) that depends on the point."""
    return torch.stack([x, torch.sin(2 * x) + 0.5], 2)


def second_order(net: nn.Module, x: Tensor) -> Tensor:
    matrix = torch.einsum("nim,njm->nij", root(x), root(x))
    found = jet(net, x, Spec.of(*((i, j) for i in range(D) for j in range(i, D)), names=NAMES), nested_autograd)
    hessian = torch.stack([torch.stack([found[i, j] for j in range(D)]) for i in range(D)]).detach()
    return torch.einsum("nij,ijnc->nc", matrix, hessian)


def chain(j: int) -> tuple[int, ...]:
    """Return terms of three kinds: u_iij, u_ij and u_i, as in an operator with mixed orders."""
    return [(j % D, j % D, (j + 1) % D), (j % D, (j + 1) % D), (j % D,)][j // D]


def pairs(j: int) -> tuple[int, ...]:
    return (j // D, j // D, j % D, j % D)


OPERATORS: dict[str, tuple[RandomOperator, Callable[[nn.Module, Tensor], Tensor]]] = {
    "dense Laplacian": (DenseLaplacian(), lambda net, x: total(net, x, [(i, i) for i in range(D)])),
    "sparse Laplacian": (SparseLaplacian(), lambda net, x: total(net, x, [(i, i) for i in range(D)])),
    "dense biharmonic": (DenseBiharmonic(), lambda net, x: total(net, x, [pairs(j) for j in range(D * D)])),
    "sparse biharmonic": (SparseSum(D * D, pairs), lambda net, x: total(net, x, [pairs(j) for j in range(D * D)])),
    "mixed orders": (SparseSum(3 * D, chain), lambda net, x: total(net, x, [chain(j) for j in range(3 * D)])),
    "diffusion": (SecondOrder(root), second_order),
}


@pytest.mark.parametrize("kind", OPERATORS)
def test_the_mean_is_the_operator(kind: str) -> None:
    operator, exact = OPERATORS[kind]
    net, x = siren(), points(2, D)
    wanted = exact(net, x)
    scores = []
    for seed in SEEDS:
        with torch.no_grad():
            draws = estimate(net, x, operator, rng=seed, samples=2, replicas=600).estimates
        error = draws.std(0) / math.sqrt(len(draws))
        scores.append((draws.mean(0) - wanted) / error)
        assert float((error / wanted.abs()).min()) < 0.2  # the test would see a wrong factor
    score = torch.stack(scores)  # (seeds, points, components)
    assert float((score.mean(0) * math.sqrt(len(SEEDS))).abs().max()) < 3
    assert float(score.abs().max()) < 4


def test_sparse_draws_of_everything_are_exact() -> None:
    net, x = siren(), points(3, D)
    for operator, size in ((SparseLaplacian(), D), (SparseSum(3 * D, chain), 3 * D), (SparseSum(D * D, pairs), D * D)):
        exact = next(e for o, e in OPERATORS.values() if o == operator or (isinstance(o, SparseSum) and o == operator))
        found = estimate(net, x, operator, rng=0, samples=size)
        assert torch.allclose(found.estimates, exact(net, x).expand(2, -1, -1), rtol=1e-10)
        assert torch.allclose(found.value, net(x))


def test_dense_signs_are_exact_where_the_hessian_is_diagonal() -> None:
    x = points(3, D)
    found = estimate(lambda x: (x**3).sum(1, keepdim=True), x, DenseLaplacian(), rng=0, samples=1)
    assert torch.allclose(found.estimates[0], 6 * x.sum(1, keepdim=True))


def squares(replicas: int, combine: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and standard error of the squared residual of a Poisson equation over seeds and draws, and the truth."""
    net, x = siren(), points(1, D)
    exact = OPERATORS["sparse Laplacian"][1](net, x)
    force = 0.9 * exact
    with torch.no_grad():
        draws = torch.cat(
            [estimate(net, x, SparseLaplacian(), rng=seed, samples=1, replicas=1200).estimates for seed in SEEDS]
        )
    groups = (draws - force).reshape(-1, replicas, *force.shape).transpose(0, 1)
    found = combine(groups)
    return found.mean(0), found.std(0) / math.sqrt(len(found)), (exact - force).square()


def test_two_replicas_square_without_bias_and_one_does_not() -> None:
    mean, error, truth = squares(2, unbiased_square)
    assert float(((mean - truth) / error).abs().max()) < 3
    mean, error, truth = squares(3, unbiased_square)
    assert float(((mean - truth) / error).abs().max()) < 3
    mean, error, truth = squares(1, lambda r: r[0].square())
    assert float(((mean - truth) / error).abs().min()) > 15  # the control: one replica squared


def test_the_gradient_of_the_loss_is_unbiased() -> None:
    x = points(2, D)
    net = siren()
    weight = net.last.weight
    loss = laplacian(jet(net, x, Spec.of(*((i, i) for i in range(D)), names=NAMES)).unknowns()[0]).square().mean()
    (exact,) = torch.autograd.grad(loss, weight)
    found = []
    for seed in range(100):
        residual = estimate(net, x, DenseLaplacian(), rng=seed, samples=2).estimates[..., 0]
        found.append(torch.autograd.grad(unbiased_square(residual).mean(), weight)[0])
    draws = torch.stack(found)[:, 0]
    score = (draws.mean(0) - exact[0]) / (draws.std(0) / math.sqrt(100))
    assert float(score.abs().max()) < 4  # eight values
    assert float(score.square().mean()) < 3


def test_draws_belong_to_their_step_seed_and_replica() -> None:
    net, x = siren(), points(2, D)
    one = estimate(net, x, DenseLaplacian(), rng=0, step=3, samples=2, replicas=3).estimates
    assert torch.equal(one, estimate(net, x, DenseLaplacian(), rng=Stream(0), step=3, samples=2, replicas=3).estimates)
    assert torch.allclose(one[:2], estimate(net, x, DenseLaplacian(), rng=0, step=3, samples=2).estimates)
    assert not torch.allclose(one, estimate(net, x, DenseLaplacian(), rng=0, step=4, samples=2, replicas=3).estimates)
    assert not torch.allclose(one, estimate(net, x, DenseLaplacian(), rng=1, step=3, samples=2, replicas=3).estimates)
    many = estimate(net, x, DenseBiharmonic(), rng=0, samples=1, replicas=2000).estimates[:, 0, 0].detach().double()
    centred = many - many.mean()
    assert abs(float((centred[1:] * centred[:-1]).mean() / centred.square().mean())) < 4 / math.sqrt(2000)


@pytest.mark.parametrize(("size", "samples"), [(5, 2), (4, 4), (6, 3)])
def test_every_subset_is_equally_likely(size: int, samples: int) -> None:
    subsets: dict[tuple[int, ...], int] = {}
    for chosen in _subsets(size, samples, 3000, Stream(0), 0):
        assert len(set(chosen)) == samples
        assert 0 <= min(chosen) <= max(chosen) < size
        subsets[tuple(sorted(chosen))] = subsets.get(tuple(sorted(chosen)), 0) + 1
    kinds = math.comb(size, samples)
    assert len(subsets) == kinds
    expected = 3000 / kinds
    chi = sum((count - expected) ** 2 / expected for count in subsets.values())
    assert chi < kinds - 1 + 4 * math.sqrt(2 * kinds)


class Saved:
    """Bytes that a graph keeps, apart from tensors as wide as the input or given (parameters)."""

    def __init__(self, net: nn.Module, d: int) -> None:
        self.known = {p.untyped_storage().data_ptr() for p in net.parameters()}
        self.d, self.bytes = d, 0

    def __call__(self, tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in self.known and self.d not in tensor.shape:
            self.bytes += tensor.numel() * tensor.element_size()
        return tensor


def price(d: int, run: Callable[[nn.Module, Tensor], Any]) -> tuple[int, int]:
    """Return how many bytes are kept and how many matrix products are done in d dimensions."""
    net, x = siren(d), points(3, d)
    saved = Saved(net, d)
    with torch.autograd.graph.saved_tensors_hooks(saved, lambda t: t), Products() as count:
        run(net, x)
    return saved.bytes, count.calls


def test_memory_and_work_do_not_grow_with_the_dimension() -> None:
    prices = [price(d, lambda net, x: estimate(net, x, SparseLaplacian(), rng=0, samples=5)) for d in (11, 44, 440)]
    assert prices[0] == prices[1] == prices[2]
    assert prices[0][0] > 0

    def nested(net: nn.Module, x: Tensor) -> None:
        names = tuple(f"x{i}" for i in range(x.shape[1]))
        jet(net, x, Spec.of(*((i, i) for i in range(x.shape[1])), names=names), nested_autograd)

    small, large = price(7, nested), price(21, nested)
    assert large[0] > 2 * small[0]  # the control: nested autograd grows
    assert large[1] > 2 * small[1]


def test_the_factor_of_a_partition() -> None:
    counts = {(1,): 1, (1, 1): 1, (2,): 1, (2, 1): 3, (2, 2): 3, (3, 2): 10, (3, 3): 10, (2, 2, 2): 15, (4, 3): 35}
    assert {orders: multiplicity(*orders) for orders in counts} == counts


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"samples": 5, "operator": SparseLaplacian()}, "take 1 to 4 samples, got 5"),
        ({"samples": 0}, "at least one sample"),
        ({"replicas": 0}, "at least one sample and one replica"),
        ({"x": points(2, D)[0]}, r"floats of shape \(N, d\)"),
        ({"operator": SecondOrder(lambda x: x)}, r"\(N, d, m\), got \(2, 4\)"),
        ({"operator": SparseSum(1, lambda j: ()), "samples": 1}, "at least one axis"),
        ({"rng": None}, "rng must be"),
        ({"field": lambda x: torch.cumprod(x, 1)}, "no rule for cumprod"),
        ({"field": lambda x: x.sum(1)}, r"\(N, d\) to \(N, c\)"),
    ],
)
def test_bad_input_is_refused(change: dict[str, Any], match: str) -> None:
    given = {"field": siren(), "x": points(2, D), "operator": DenseLaplacian(), "rng": 0, "samples": 2, **change}
    field, x, operator = given.pop("field"), given.pop("x"), given.pop("operator")
    with pytest.raises(InvalidInput, match=match):
        estimate(field, x, operator, **given)


def test_one_replica_has_no_unbiased_square() -> None:
    with pytest.raises(InvalidInput, match="two replicas"):
        unbiased_square(torch.ones(1, 3))


def test_it_is_in_the_registry() -> None:
    assert {"DenseLaplacian", "SparseLaplacian", "estimate"} <= set(METHOD.variants)
