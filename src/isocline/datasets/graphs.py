r"""Graphs whose nodes have features and labels.

Cora, Citeseer and Pubmed ship in no package. `planetoid` reads a copy of yours; nothing here reproduces results on them. In
their place: the nearest-neighbour graph of scikit-learn's digits, WordNet's nouns (`wordnet`), and contextual stochastic
block models (Deshpande et al., arXiv 1807.09596): for labels ``c_i`` in equal shares

    edge {i, j}     with probability  p_in  if c_i = c_j,  p_out  else
    features        x_i = signal * u_{c_i} + noise ,        noise ~ N(0, I),  u_c orthonormal
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from isocline._core.errors import BadFile, DataMissing, require
from isocline._core.stream import Stream, as_stream
from isocline.datasets.digits import load_digits
from isocline.networks.graph import Graph

PICKLES = ("x", "y", "tx", "ty", "allx", "ally", "graph")


@dataclass(frozen=True, eq=False)
class NodeSplit:
    """Which nodes are for training, for choosing when to stop, and for the final figure; three index tensors without overlap."""

    train: Tensor
    validation: Tensor
    test: Tensor


@dataclass(frozen=True, eq=False)
class NodeData:
    """A graph whose nodes are to be classified.

    Args:
        graph: the edges, without self-loops.
        features: (N, F), floating.
        labels: (N,), int64, from 0.
        classes: names of the classes.

    Raises:
        InvalidInput: the parts do not belong together, or a value is not finite.
    """

    graph: Graph
    features: Tensor
    labels: Tensor
    classes: Sequence[str]

    def __post_init__(self) -> None:
        n = self.graph.nodes
        require(
            self.features.ndim == 2 and len(self.features) == n,
            f"features have shape ({n}, F) for {n} nodes, got {tuple(self.features.shape)}",
        )
        require(bool(self.features.isfinite().all()), "features must be finite")
        fine = self.labels.shape == (n,) and self.labels.dtype == torch.int64
        require(fine, f"labels have shape ({n},) and type int64, got {tuple(self.labels.shape)}, {self.labels.dtype}")
        low, high = int(self.labels.min()), int(self.labels.max())
        require(low >= 0 and high < len(self.classes), f"labels {low}..{high} do not fit {len(self.classes)} classes")

    @property
    def homophily(self) -> float:
        """Share of edges that join nodes of one class."""
        same = self.labels[self.graph.source] == self.labels[self.graph.target]
        return float(same.double().mean())

    def split(self, per_class: int, *, validation: int, rng: Stream | int) -> NodeSplit:
        """Return a random split with `per_class` labels of each class for training, `validation` for stopping, the rest for test.

        Raises:
            InvalidInput: a class has too few nodes.
        """
        order = as_stream(rng, "split").permutation(self.graph.nodes)
        parts: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
        for k, name in enumerate(self.classes):
            mine = order[self.labels[order] == k]
            require(
                len(mine) > per_class + validation,
                f"class {name!r} has {len(mine)} nodes, too few for {per_class} + {validation} and a test set",
            )
            for part, nodes in zip(
                parts, mine.split([per_class, validation, len(mine) - per_class - validation]), strict=True
            ):
                part.append(nodes)
        return NodeSplit(*(torch.cat(part) for part in parts))


def nearest_neighbours(points: Tensor, count: int) -> Graph:
    """Return the undirected graph that joins each of the `points` (N, d) with the `count` nearest others.

    >>> nearest_neighbours(torch.tensor([[0.0], [1.0], [3.0]]), 1).edges.T.tolist()
    [[1, 0], [0, 1], [2, 1], [1, 2]]
    """
    require(1 <= count < len(points), f"count must lie in 1..{len(points) - 1}, got {count}")
    distance = torch.cdist(points, points).fill_diagonal_(torch.inf)
    near = distance.topk(count, dim=1, largest=False).indices
    node = torch.arange(len(points))[:, None].expand(-1, count)
    return Graph.undirected(torch.stack([node.reshape(-1), near.reshape(-1)], 1), len(points))


def digits_graph(neighbours: int = 8, folder: str | Path | None = None) -> NodeData:
    """Return scikit-learn's 1 797 digits, each joined with its nearest neighbours by pixels; features are pixels in 0..1.

    Args:
        neighbours: how many each node chooses; the graph is made symmetric.
        folder: as for `load_digits`.

    Raises:
        DataMissing: the digits are not there.
    """
    images = load_digits(folder)
    pixels = images.pixels.flatten(1).double() / 255
    return NodeData(nearest_neighbours(pixels, neighbours), pixels.float(), images.labels, images.names)


def contextual_blocks(
    nodes: int = 1500,
    classes: int = 3,
    *,
    degree: float = 8.0,
    homophily: float = 0.7,
    dimension: int = 16,
    signal: float = 1.0,
    rng: Stream | int,
) -> NodeData:
    """Return a contextual stochastic block model.

    Args:
        nodes: number of nodes; class sizes differ by one at most.
        classes: number of classes.
        degree: mean degree.
        homophily: expected share of edges inside a class; ``1 / classes`` says nothing about labels.
        dimension: of the features.
        signal: distance of the class means from 0, in units of the noise.
        rng: stream or seed.

    Raises:
        InvalidInput: a number is out of range; no probability may exceed 1.

    Source: Deshpande, Montanari, Mossel and Sen, arXiv 1807.09596 (two classes there).
    """
    require(classes >= 2 and nodes >= 2 * classes, f"{nodes} nodes are too few for {classes} classes")
    require(dimension >= classes, f"{classes} orthonormal means need a dimension of at least that, got {dimension}")
    require(0 <= homophily <= 1, f"homophily is a share, got {homophily}")
    require(degree > 0, f"degree must be positive, got {degree}")
    stream = as_stream(rng, "blocks")
    labels = torch.arange(nodes) % classes
    same = labels[:, None] == labels
    inside = same.sum().item() - nodes
    inner, outer = (
        degree * nodes * share / count
        for share, count in ((homophily, inside), (1 - homophily, nodes**2 - nodes - inside))
    )
    require(max(inner, outer) <= 1, f"degree={degree} asks for edges with a probability above 1; lower it or add nodes")
    chance = torch.where(same, inner, outer).double()
    draw = stream.child("edges").uniform((nodes, nodes), dtype=torch.float64)
    pairs = torch.nonzero(torch.triu(draw < chance, 1))
    means = torch.linalg.qr(stream.child("means").normal((dimension, classes), dtype=torch.float64))[0].T
    noise = stream.child("noise").normal((nodes, dimension), dtype=torch.float64)
    features = (signal * means[labels] + noise).float()
    return NodeData(Graph.undirected(pairs, nodes), features, labels, [str(k) for k in range(classes)])


def planetoid(folder: str | Path, name: str = "cora") -> NodeData:
    """Return Cora, Citeseer or Pubmed from a copy of yours.

    Read are, whichever is there first: ``NAME.content`` and ``NAME.cites`` (plain text; a line of the first is a paper, its
    features and its class, a line of the second a cited and a citing paper), or ``NAME.npz`` with arrays ``features`` (N, F),
    ``labels`` (N,) and ``edges`` (2, E) or (E, 2). Citations of papers that are not listed are left out.

    Args:
        folder: where the files are.
        name: of the data set, in lower case.

    Raises:
        DataMissing: no such files are there.
        BadFile: a file is damaged, or is a pickle.
    """
    place = Path(folder)
    content, cites, arrays = (place / f"{name}.{ending}" for ending in ("content", "cites", "npz"))
    if content.is_file() and cites.is_file():
        return _from_text(content, cites)
    if arrays.is_file():
        return _from_arrays(arrays)
    if any((place / f"ind.{name}.{part}").exists() for part in PICKLES):
        raise BadFile(
            f"{place} holds ind.{name}.* files, which are pickles: reading one runs whatever code it contains, so none is read. "
            f"Use {name}.content and {name}.cites instead, or convert a copy that you trust to {name}.npz (features, labels, edges)"
        )
    raise DataMissing(f"{place} holds neither {name}.content with {name}.cites nor {name}.npz; put your copy there")


def _from_text(content: Path, cites: Path) -> NodeData:
    rows = [line.split() for line in content.read_text(encoding="utf-8").splitlines() if line.strip()]
    widths = {len(row) for row in rows}
    if len(widths) != 1 or min(widths) < 3:
        raise BadFile(
            f"{content} should hold lines of one length: a name, features, a class; found lengths {sorted(widths)[:5]}"
        )
    index = {row[0]: k for k, row in enumerate(rows)}
    if len(index) != len(rows):
        raise BadFile(f"{content} lists {len(rows) - len(index)} papers twice")
    classes = sorted({row[-1] for row in rows})
    labels = torch.tensor([classes.index(row[-1]) for row in rows])
    try:
        features = torch.from_numpy(np.array([row[1:-1] for row in rows], dtype=np.float32))
    except ValueError as error:
        raise BadFile(f"{content} holds a feature that is no number ({error})") from error
    links = [line.split() for line in cites.read_text(encoding="utf-8").splitlines() if line.strip()]
    if any(len(link) != 2 for link in links):
        raise BadFile(f"{cites} should hold two names a line")
    pairs = [(index[a], index[b]) for a, b in links if a in index and b in index]
    return _checked(content, torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2), features, labels, classes)


def _from_arrays(path: Path) -> NodeData:
    try:
        with np.load(path, allow_pickle=False) as held:
            features, labels, edges = (held[key] for key in ("features", "labels", "edges"))
    except (KeyError, ValueError, OSError, EOFError, BadZipFile) as error:
        raise BadFile(f"{path} should hold plain arrays features, labels and edges ({error})") from error
    if edges.ndim != 2 or 2 not in edges.shape or labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise BadFile(
            f"{path}: edges have shape {edges.shape}, expected (2, E); labels are {labels.dtype}, expected integers"
        )
    pairs = torch.from_numpy((edges if edges.shape[1] == 2 else edges.T).astype(np.int64))
    values = torch.from_numpy(np.asarray(features, dtype=np.float32))
    names = [str(k) for k in range(int(labels.max()) + 1)]
    return _checked(path, pairs, values, torch.from_numpy(labels.astype(np.int64)), names)


def _checked(path: Path, pairs: Tensor, features: Tensor, labels: Tensor, classes: list[str]) -> NodeData:
    try:
        return NodeData(Graph.undirected(pairs, len(features)), features, labels, classes)
    except ValueError as error:
        raise BadFile(f"{path}: {error}") from error
