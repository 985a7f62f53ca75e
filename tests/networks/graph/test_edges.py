from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.integrators.solvers.forward import along
from isocline.networks.graph import (
    Graph,
    neighbour_mean,
    personalised_pagerank,
    propagate,
    scatter_softmax,
    scatter_sum,
)
from isocline.networks.graph.edges import take

PATH = Graph.undirected(torch.tensor([[0, 1], [1, 2], [2, 3]]), 4)


def dense(graph: Graph, weights: Tensor) -> Tensor:
    matrix = torch.zeros(graph.nodes, graph.nodes, dtype=weights.dtype)
    for (j, i), w in zip(graph.edges.T.tolist(), weights, strict=True):
        matrix[i, j] = matrix[i, j] + w
    return matrix


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """A random undirected graph with self-loops."""
    nodes = draw(st.integers(1, 9))
    pairs = draw(st.lists(st.tuples(*[st.integers(0, nodes - 1)] * 2), max_size=20))
    return Graph.undirected(torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2), nodes).with_self_loops()


def test_an_undirected_graph_holds_both_directions_once() -> None:
    pairs = torch.tensor([[0, 1], [1, 0], [0, 1], [2, 2], [2, 1]])
    graph = Graph.undirected(pairs, 4)
    assert sorted(map(tuple, graph.edges.T.tolist())) == [(0, 1), (1, 0), (1, 2), (2, 1)]
    assert graph.symmetric
    assert not graph.looped
    assert graph.degrees.tolist() == [1, 2, 1, 0]


def test_self_loops_come_once() -> None:
    looped = PATH.with_self_loops()
    assert looped.looped
    assert torch.equal(looped.with_self_loops().edges, looped.edges)
    assert looped.degrees.tolist() == [2, 3, 3, 2]


def test_a_one_way_edge_is_not_symmetric() -> None:
    assert not Graph(torch.tensor([[0], [1]]), 2).symmetric
    assert Graph(torch.zeros(2, 0, dtype=torch.int64), 2).symmetric


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Graph(torch.tensor([[0, 1], [1, 4]]), 4), r"name nodes 0\.\.4; a graph with nodes=4 has 0\.\.3"),
        (lambda: Graph(torch.tensor([[-1], [0]]), 4), r"name nodes -1"),
        (lambda: Graph(torch.tensor([[0, 0], [1, 1]]), 2), "1 edges are listed twice"),
        (lambda: Graph(torch.tensor([[0, 1]]), 2), r"shape \(2, E\)"),
        (lambda: Graph(torch.zeros(2, 1), 2), "int64, got torch.float32"),
        (lambda: Graph(torch.zeros(2, 0, dtype=torch.int64), 0), "at least one node"),
        (lambda: Graph.undirected(torch.zeros(2, 3, dtype=torch.int64), 2), r"shape \(E, 2\)"),
        (lambda: personalised_pagerank(PATH, top=4), r"top must lie in 1\.\.3"),
        (lambda: personalised_pagerank(PATH, top=2, restart=1.0), "between 0 and 1"),
        (lambda: personalised_pagerank(Graph.undirected(torch.tensor([[0, 1]]), 3), top=1), "has no edge"),
    ],
)
def test_what_is_no_graph_is_refused(make: Callable[[], Graph], match: str) -> None:
    with pytest.raises(InvalidInput, match=match):
        make()


@settings(max_examples=40, deadline=None)
@given(graphs(), st.integers(0, 10**6), st.integers(1, 3))
def test_scatter_is_what_loops_give(graph: Graph, seed: int, heads: int) -> None:
    values = 30 * Stream(seed).normal((graph.edges.shape[1], heads), dtype=torch.float64)
    sums, soft = (f(values, graph.target, graph.nodes) for f in (scatter_sum, scatter_softmax))
    for node in range(graph.nodes):
        mine = graph.target == node
        torch.testing.assert_close(sums[node], values[mine].sum(0))
        torch.testing.assert_close(soft[mine], torch.softmax(values[mine], 0))


def test_a_softmax_of_large_scores_does_not_overflow() -> None:
    values = torch.tensor([1e4, 1e4 - 1.0, -1e4])
    soft = scatter_softmax(values, torch.tensor([0, 0, 1]), 2)
    torch.testing.assert_close(soft, torch.tensor([0.7310586, 0.2689414, 1.0]))


@settings(max_examples=20, deadline=None)
@given(graphs(), st.integers(0, 10**6))
def test_propagation_is_the_matrix(graph: Graph, seed: int) -> None:
    weights = Stream(seed, "w").normal((graph.edges.shape[1],), dtype=torch.float64)
    x = Stream(seed, "x").normal((graph.nodes, 3), dtype=torch.float64)
    torch.testing.assert_close(propagate(weights, x, graph), dense(graph, weights) @ x)
    assert torch.equal(take(x, graph.source), x[graph.source])


def test_derivatives_in_both_modes() -> None:
    graph = PATH.with_self_loops()
    x = Stream(0).normal((4, 2), dtype=torch.float64).requires_grad_()
    scores = Stream(1).normal((graph.edges.shape[1],), dtype=torch.float64).requires_grad_()

    def layer(scores: Tensor, x: Tensor) -> Tensor:
        return propagate(scatter_softmax(scores, graph.target, graph.nodes), x, graph)

    assert torch.autograd.gradcheck(layer, (scores, x))
    ahead = along(lambda v: layer(v, x.detach()), scores.detach(), torch.ones_like(scores))
    torch.testing.assert_close(ahead, torch.zeros_like(ahead), atol=1e-15, rtol=0)  # a common shift changes no weight
    v = Stream(2).normal(tuple(scores.shape), dtype=torch.float64)
    ahead = along(lambda u: layer(u, x.detach()), scores.detach(), v)
    eps = 1e-6
    slope = (layer(scores + eps * v, x) - layer(scores - eps * v, x)).detach() / (2 * eps)
    torch.testing.assert_close(ahead, slope, atol=1e-8, rtol=1e-6)


def test_personalised_pagerank_is_the_sum_of_its_walks() -> None:
    ring = Graph.undirected(torch.tensor([[i, (i + 1) % 7] for i in range(7)] + [[0, 3], [0, 2]]), 7)  # without ties
    walk = dense(ring, neighbour_mean(ring, torch.zeros(1, dtype=torch.float64)))
    rank, power = torch.zeros(7, 7, dtype=torch.float64), torch.eye(7, dtype=torch.float64)
    for _ in range(400):
        rank, power = rank + 0.15 * power, 0.85 * power @ walk
    torch.testing.assert_close(rank.sum(1), torch.ones(7, dtype=torch.float64))
    rank.fill_diagonal_(0)
    best = {(i, j) for i in range(7) for j in rank[i].argsort(descending=True)[:3].tolist()}
    made = personalised_pagerank(ring, top=3)
    assert set(map(tuple, made.edges.T.tolist())) == best | {(j, i) for i, j in best}


def test_rewiring_stays_in_its_component() -> None:
    two = Graph.undirected(torch.tensor([[0, 1], [1, 2], [3, 4]]), 5)
    made = personalised_pagerank(two, top=4)
    assert sorted(map(tuple, made.edges.T.tolist())) == [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1), (3, 4), (4, 3)]
