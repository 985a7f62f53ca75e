"""GRAND against matrix exponentials, sign tests of its integrators, and what averaging must keep."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from isocline._core.errors import InvalidInput, NotFinite
from isocline._core.stream import Stream
from isocline.integrators import (
    PID,
    RK4,
    Backsolve,
    Checkpointed,
    Dopri5,
    Euler,
    ImplicitEuler,
    NewtonKrylov,
    integrate,
)
from isocline.networks.graph import (
    GCN,
    Diffusion,
    Grand,
    Graph,
    GraphAttention,
    LinearDiffusion,
    NonlinearDiffusion,
    neighbour_mean,
    propagate,
)
from isocline.networks.graph.gcn import symmetric_weights

DOUBLE = torch.float64
KINDS = [LinearDiffusion, NonlinearDiffusion]
KRYLOV = NewtonKrylov(forcing=1e-12)


def random_graph(nodes: int, seed: int) -> Graph:
    """A connected graph with self-loops: a ring with chords."""
    ring = torch.stack([torch.arange(nodes), (torch.arange(nodes) + 1) % nodes], 1)
    chords = Stream(seed, "chords").integers(nodes, (nodes, 2))
    return Graph.undirected(torch.cat([ring, chords]), nodes).with_self_loops()


def states(graph: Graph, width: int, seed: int = 0) -> Tensor:
    return Stream(seed, "x").normal((graph.nodes, width), dtype=DOUBLE)


def dense(graph: Graph, weights: Tensor) -> Tensor:
    matrix = torch.zeros(graph.nodes, graph.nodes, dtype=weights.dtype)
    matrix[graph.target, graph.source] = weights
    return matrix


def stirred(module: nn.Module, seed: int = 0, size: float = 0.7) -> nn.Module:
    """The module in float64 with weights far from their first ones."""
    for k, p in enumerate(module.double().parameters()):
        p.data = size * Stream(seed, f"p{k}").normal((*p.shape, 1), dtype=DOUBLE)[..., 0] if p.ndim else p.data + 0.4
    return module


def unit_rate(diffusion: Diffusion) -> Diffusion:
    """The equation ``dX/dt = (A - I) X`` itself."""
    diffusion.alpha.data.fill_(torch.inf)  # sigmoid(alpha) = 1
    return diffusion


# Attention


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 12), st.integers(0, 10**6), st.sampled_from([0.1, 1.0, 30.0]))
def test_attention_is_row_stochastic(nodes: int, seed: int, size: float) -> None:
    graph = random_graph(nodes, seed)
    attention = stirred(GraphAttention(3, heads=2, size=4), seed, size)
    weights = attention(states(graph, 3, seed), graph).detach()
    assert bool((weights >= 0).all())
    torch.testing.assert_close(dense(graph, weights).sum(1), torch.ones(nodes, dtype=DOUBLE))


def test_attention_is_what_its_formula_says() -> None:
    graph = random_graph(6, 1)
    attention, x = stirred(GraphAttention(3, heads=2, size=4)), states(graph, 3)
    expected = torch.zeros(6, 6, dtype=DOUBLE)
    for h in range(2):
        key, query = (m.weight.detach()[4 * h : 4 * h + 4] for m in (attention.key, attention.query))
        for i in range(6):
            neighbours = graph.source[graph.target == i].tolist()
            scores = torch.stack([(key @ x[i]) @ (query @ x[j]) / 2.0 for j in neighbours])
            expected[i, neighbours] += torch.softmax(scores, 0) / 2
    torch.testing.assert_close(dense(graph, attention(x, graph).detach()), expected)


def test_at_first_attention_is_the_mean_over_neighbours_but_its_heads_differ() -> None:
    graph = random_graph(9, 2)
    attention = GraphAttention(5).double()
    weights = attention(states(graph, 5), graph).detach()
    torch.testing.assert_close(weights, neighbour_mean(graph, weights), rtol=1e-7, atol=0)
    heads = attention.key.weight.detach().reshape(4, -1)
    assert len(torch.unique(heads, dim=0)) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_nodes_do_not_matter(kind: type[Diffusion]) -> None:
    graph, order = random_graph(8, 3), Stream(5).permutation(8)
    renamed = Graph(torch.argsort(order)[graph.edges], 8)  # node order[k] is called k now
    model = stirred(Grand(4, 3, kind(6, heads=2, size=4), width=6, time=2.0)).eval()
    x = states(graph, 4)
    torch.testing.assert_close(model(x[order], renamed), model(x, graph)[order], rtol=1e-9, atol=1e-9)


# The equation


def test_the_linear_equation_is_a_matrix_exponential() -> None:
    graph, diffusion = random_graph(10, 4), stirred(LinearDiffusion(3, heads=2, size=4))
    x0 = states(graph, 3)
    weights, _ = diffusion.arguments(x0, graph)
    rate, beta, time = torch.sigmoid(diffusion.alpha).item(), diffusion.beta.item(), 2.5
    m = rate * (dense(graph, weights.detach()) - torch.eye(10, dtype=DOUBLE))
    block = torch.zeros(20, 20, dtype=DOUBLE)  # X and its source together
    block[:10, :10], block[:10, 10:] = m, beta * torch.eye(10, dtype=DOUBLE)
    exact = torch.linalg.matrix_exp(time * block)[:10] @ torch.cat([x0, x0])
    field = diffusion.field(graph)
    found = integrate(field, x0, 0.0, time, args=(weights, x0), controller=PID(1e-10, 1e-10)).check().y1
    torch.testing.assert_close(found.detach(), exact, rtol=1e-8, atol=1e-8)


def test_both_equations_agree_where_attention_does_not_see_the_state() -> None:
    graph, x = random_graph(7, 5), states(random_graph(7, 5), 4)
    linear, nonlinear = (unit_rate(kind(4).double()) for kind in KINDS)
    for diffusion in (linear, nonlinear):
        diffusion.attention.key.weight.data.zero_()
    slopes = [d(x, graph, *d.arguments(x, graph)).detach() for d in (linear, nonlinear)]
    torch.testing.assert_close(slopes[0], slopes[1])
    mean = propagate(neighbour_mean(graph, x), x, graph)
    torch.testing.assert_close(slopes[0], mean - x)


def test_the_nonlinear_equation_computes_attention_anew() -> None:
    graph, diffusion = random_graph(7, 6), stirred(NonlinearDiffusion(4, heads=2, size=4))
    x, source = states(graph, 4, 1), states(graph, 4, 2)
    slope = diffusion.field(graph)(torch.zeros(()), x, (source,)).detach()
    a = dense(graph, diffusion.attention(x, graph).detach())
    expected = torch.sigmoid(diffusion.alpha.detach()) * (a @ x - x) + diffusion.beta.detach() * source
    torch.testing.assert_close(slope, expected)


# Steps: signs that are known exactly


def bipartite() -> tuple[Graph, Tensor]:
    """A tree without self-loops, and the eigenvector of eigenvalue -1 of its mean over neighbours."""
    pairs = torch.tensor([[0, 1], [1, 2], [1, 3], [3, 4], [3, 5], [5, 6]])
    return Graph.undirected(pairs, 7), torch.tensor([[1.0], [-1], [1], [1], [-1], [-1], [1]], dtype=DOUBLE)


def amplitude(h: float, steps: int, implicit: bool) -> float:
    graph, x = bipartite()
    diffusion = unit_rate(LinearDiffusion(1).double())
    method = ImplicitEuler(solver=KRYLOV) if implicit else Euler()
    weights = neighbour_mean(graph, x)
    run = integrate(diffusion.field(graph), x, 0.0, h * steps, method=method, args=(weights, x), dt0=h).check()
    assert run.stats.accepted == steps
    torch.testing.assert_close(run.y1.abs().detach(), run.y1[0, 0].abs().detach().expand(7, 1), rtol=1e-6, atol=1e-12)
    return float(run.y1.detach().abs().max())


@pytest.mark.parametrize("h", [0.25, 0.5, 0.9, 1.0, 1.01, 1.1, 1.5])
def test_explicit_steps_are_bounded_up_to_one_and_diverge_beyond(h: float) -> None:
    size = amplitude(h, 200, implicit=False)
    assert size == pytest.approx(abs(1 - 2 * h) ** 200, rel=1e-6, abs=1e-12)
    assert (size > 50) if h > 1 else (size <= 1 + 1e-9)


@pytest.mark.parametrize("h", [0.5, 1.0, 1.5, 10.0, 1e3])
def test_implicit_steps_are_bounded_at_every_step(h: float) -> None:
    assert amplitude(h, 3, implicit=True) == pytest.approx((1 + 2 * h) ** -3, rel=1e-5)


def test_self_loops_move_the_limit() -> None:
    graph, x = bipartite()
    looped = graph.with_self_loops()
    values = torch.linalg.eigvals(dense(looped, neighbour_mean(looped, x))).real
    assert float(values.min()) > -1 + 0.1


@settings(max_examples=15, deadline=None)
@given(st.integers(3, 10), st.integers(0, 10**6), st.sampled_from(KINDS), st.booleans())
def test_values_stay_between_the_first_extremes(nodes: int, seed: int, kind: type[Diffusion], implicit: bool) -> None:
    """The maximum principle: explicit steps of 1 and implicit ones of 5 are means."""
    graph = random_graph(nodes, seed)
    diffusion = unit_rate(stirred(kind(2, heads=2, size=3), seed))
    diffusion.beta.data.zero_()
    x0 = states(graph, 2, seed)
    h, method = (5.0, ImplicitEuler(solver=KRYLOV)) if implicit and kind is LinearDiffusion else (1.0, Euler())
    args = diffusion.arguments(x0, graph)
    with torch.no_grad():
        y = integrate(diffusion.field(graph), x0, 0.0, 4 * h, method=method, args=args, dt0=h).check().y1
    slack = 1e-6
    assert bool((y.amax(0) <= x0.amax(0) + slack).all())
    assert bool((y.amin(0) >= x0.amin(0) - slack).all())


def test_the_stationary_mean_is_kept_and_the_source_makes_it_grow() -> None:
    graph = random_graph(9, 7)
    x0, degrees = states(graph, 2), graph.degrees.double()
    weights = neighbour_mean(graph, x0)  # its stationary law: the degrees
    diffusion = unit_rate(LinearDiffusion(2).double())
    for beta in (0.0, 0.3):
        diffusion.beta.data.fill_(beta)
        y = integrate(diffusion.field(graph), x0, 0.0, 6.0, args=(weights, x0), method=RK4(), dt0=0.5).y1.detach()
        torch.testing.assert_close(degrees @ y, (1 + 6 * beta) * (degrees @ x0))


def test_without_a_source_states_of_a_component_become_equal() -> None:
    graph, diffusion = random_graph(9, 8), unit_rate(LinearDiffusion(2).double())
    x0 = states(graph, 2)
    y = integrate(diffusion.field(graph), x0, 0.0, 400.0, args=diffusion.arguments(x0, graph)).y1.detach()
    assert float((y - y[0]).abs().max()) < 1e-5 * float((x0 - x0[0]).abs().max())


# The model


def model_of(kind: type[Diffusion], **solve: object) -> Grand:
    model = Grand(4, 3, kind(5, heads=2, size=4), width=5, time=2.0, solve=partial(integrate, **solve))
    return stirred(model).eval()  # type: ignore[return-value]


@pytest.mark.parametrize("kind", KINDS)
def test_methods_agree(kind: type[Diffusion]) -> None:
    graph = random_graph(8, 9)
    x = states(graph, 4)
    fine = model_of(kind, method=Dopri5(), controller=PID(1e-10, 1e-10))(x, graph)
    torch.testing.assert_close(model_of(kind, method=RK4(), dt0=0.05)(x, graph), fine, rtol=1e-6, atol=1e-6)


def test_implicit_euler_has_order_one() -> None:
    graph = random_graph(8, 9)
    x = states(graph, 4)
    fine = model_of(LinearDiffusion, method=RK4(), dt0=0.05)(x, graph)
    runs = [model_of(LinearDiffusion, method=ImplicitEuler(solver=KRYLOV), dt0=h)(x, graph) for h in (0.2, 0.1)]
    errors = [float((run - fine).abs().max().detach()) for run in runs]
    assert 1.7 < errors[0] / errors[1] < 2.3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("implicit", [False, True])
def test_gradients_reach_every_parameter(kind: type[Diffusion], implicit: bool) -> None:
    graph = random_graph(6, 10)
    x, eps = states(graph, 4), 1e-5
    method = ImplicitEuler(solver=NewtonKrylov(forcing=1e-10)) if implicit else Euler()
    model = model_of(kind, method=method, dt0=2.0)
    model(x, graph).square().sum().backward()
    found, start = {}, [p.detach().clone() for p in model.parameters()]
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        found[name] = float(p.grad.norm())
    assert min(found.values()) > 1e-6, found
    way = [Stream(3, f"{k}").normal((*p.shape, 1), dtype=DOUBLE)[..., 0] for k, p in enumerate(start)]
    expected = sum(
        float((p.grad * v).sum()) for p, v in zip(model.parameters(), way, strict=True) if p.grad is not None
    )
    ends = []
    for sign in (1, -1):
        for p, p0, v in zip(model.parameters(), start, way, strict=True):
            p.data = p0 + sign * eps * v
        ends.append(float(model(x, graph).square().sum().detach()))
    assert expected == pytest.approx((ends[0] - ends[1]) / (2 * eps), rel=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_modes_agree(kind: type[Diffusion]) -> None:
    graph, found = random_graph(6, 11), []
    x = states(graph, 4)
    for gradient in (None, Checkpointed(), Backsolve()):
        model = model_of(kind, controller=PID(1e-9, 1e-9), gradient=gradient)
        model(x, graph).square().sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[2], found[0], rtol=1e-5, atol=1e-6)


def test_the_linear_equation_needs_one_newton_step() -> None:
    graph = random_graph(40, 12)
    diffusion, x = unit_rate(LinearDiffusion(3).double()), states(random_graph(40, 12), 3)
    args = diffusion.arguments(x, graph)
    method = ImplicitEuler(solver=NewtonKrylov(forcing=1e-14, rtol=1e-10, atol=1e-10))
    with torch.no_grad():
        y = integrate(diffusion.field(graph), x, 0.0, 8.0, method=method, args=args, dt0=8.0).check().y1
        matrix = 9 * torch.eye(40, dtype=DOUBLE) - 8 * dense(graph, args[0])
        torch.testing.assert_close(y, torch.linalg.solve(matrix, x), rtol=1e-9, atol=1e-9)


def test_a_call_says_why_it_failed() -> None:
    graph = random_graph(5, 0)
    model = model_of(LinearDiffusion, controller=PID(1e-12, 1e-12), max_steps=2)
    with pytest.raises(NotFinite, match="raise max_steps"):
        model(states(graph, 4), graph)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Grand(4, 3, LinearDiffusion(8), width=9), "made for states of width 8, the model has width=9"),
        (lambda: Grand(0, 3, LinearDiffusion(8), width=8), "at least 1"),
        (lambda: Grand(4, 3, LinearDiffusion(8), width=8, time=-1.0), "must not be negative, got -1"),
        (lambda: GraphAttention(4, heads=0), "heads and size of at least 1"),
        (lambda: GCN(4, 3, depth=0), "depth of at least 1"),
        (lambda: Grand(4, 3, LinearDiffusion(8), width=8)(torch.zeros(4, 4), random_graph(5, 0)), r"with 5 nodes"),
        (lambda: GraphAttention(4)(torch.zeros(4, 4), random_graph(5, 0)), r"shape \(5, d\), got \(4, 4\)"),
        (lambda: GCN(4, 3)(torch.zeros(2, 4), Graph(torch.zeros(2, 0, dtype=torch.int64), 2)), "with_self_loops"),
    ],
)
def test_bad_input_is_refused(make: Callable[[], object], match: str) -> None:
    with pytest.raises(InvalidInput, match=match):
        make()


# The baseline


def test_a_gcn_is_its_formula() -> None:
    graph = random_graph(7, 13)
    model, x = GCN(4, 3, width=5, depth=3).double().eval(), states(graph, 4)
    a = dense(graph, torch.ones(graph.edges.shape[1], dtype=DOUBLE))
    a = a / (a.sum(0) * a.sum(1)[:, None]).sqrt()
    expected = x
    for k, layer in enumerate(model.layers):
        expected = a @ layer(expected)
        expected = expected.relu() if k < 2 else expected
    torch.testing.assert_close(model(x, graph), expected)
    torch.testing.assert_close(dense(graph, symmetric_weights(graph, x)), a)


def test_deep_averaging_tends_to_rank_one() -> None:
    graph = random_graph(12, 14)
    weights, x = symmetric_weights(graph, torch.zeros(1, dtype=DOUBLE)), states(graph, 3)
    for _ in range(300):
        x = propagate(weights, x, graph)
    values = torch.linalg.svdvals(x)
    assert float(values[1] / values[0]) < 1e-6
    assert math.isclose(float(torch.linalg.svdvals(dense(graph, weights))[0]), 1.0, rel_tol=1e-9)
