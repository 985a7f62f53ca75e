r"""A graph of WordNet's nouns: a real one with features and labels, to be had from a Debian package (WordNet 3.0 licence).

    node       a set of synonyms whose words are tagged at least three times in WordNet's own corpus
    edge       any relation between two of them (kind of, part of, instance of, topic, ...)
    features   which words occur in its definition, of those that occur in at least five definitions; rows add up to 1
    label      the lexicographers' file it is in: act, artefact, attribute, cognition, ...

Of the eight largest files the largest connected component is kept: 2 015 nodes, 2 233 edges. It is nearly a tree, so that
labels travel along few paths.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from isocline._core.errors import BadFile, DataMissing
from isocline.datasets.graphs import NodeData
from isocline.datasets.packages import data_folder
from isocline.networks.graph import Graph

FILES = ("data.noun", "cntlist.rev")
DEBIAN = Path("/usr/share/wordnet")
TAGGED, DEFINITIONS, LARGEST = 3, 5, 8
NAMES = (
    "", "", "", "tops", "act", "animal", "artifact", "attribute", "body", "cognition", "communication", "event", "feeling",
    "food", "group", "location", "motive", "object", "person", "phenomenon", "plant", "possession", "process", "quantity",
    "relation", "shape", "state", "substance", "time",
)  # fmt: skip  # the lexicographers' files of nouns have numbers from 3


@dataclass(frozen=True)
class Synset:
    """A line of ``data.noun``: its file, how often its words are tagged, the nouns it is related to, its definition."""

    file: int
    tagged: int
    related: tuple[str, ...]
    definition: str


def load_wordnet(folder: str | Path | None = None) -> NodeData:
    """Return the graph of the nouns.

    Args:
        folder: a folder that holds ``data.noun`` and ``cntlist.rev`` of WordNet 3.0. Where it is None, the place of
            ``isocline data fetch wordnet`` and then that of the Debian package are tried.

    Raises:
        DataMissing: no folder holds the files; the message says how to get them.
        BadFile: a file is damaged.
    """
    places = [Path(folder)] if folder is not None else [data_folder() / "wordnet", DEBIAN]
    for place in places:
        if all((place / file).is_file() for file in FILES):
            return _graph(_synsets(place))
    raise DataMissing(
        f"WordNet ({', '.join(FILES)}) is not in {' or '.join(map(str, places))}; run `isocline data fetch wordnet`, "
        "or `apt-get install wordnet-base`, or name its folder"
    )


def _synsets(place: Path) -> dict[str, Synset]:
    counts: Counter[tuple[str, int, int]] = Counter()
    try:
        for line in (place / FILES[1]).read_text(encoding="utf-8").splitlines():
            key, _, count = line.split()
            word, rest = key.split("%")
            kind, file, sense = rest.split(":")[:3]
            counts[word, int(file), int(sense)] += int(count) if kind == "1" else 0
        lines = (place / FILES[0]).read_text(encoding="utf-8").splitlines()
        return dict(_synset(line, counts) for line in lines if not line.startswith("  "))
    except (ValueError, IndexError) as error:
        raise BadFile(f"{place} does not hold WordNet's {' and '.join(FILES)} as they ship ({error})") from error


def _synset(line: str, counts: Counter[tuple[str, int, int]]) -> tuple[str, Synset]:
    """Read ``offset file n words {word id} relations {symbol offset n source-target} | definition; "example"``."""
    head, gloss = line.split(" | ", 1)
    parts = head.split()
    file, words = int(parts[1]), int(parts[3], 16)
    tagged = sum(counts[parts[k].lower(), file, int(parts[k + 1], 16)] for k in range(4, 4 + 2 * words, 2))
    first = 5 + 2 * words
    related = tuple(parts[k + 1] for k in range(first, first + 4 * int(parts[first - 1]), 4) if parts[k + 2] == "n")
    return parts[0], Synset(file, tagged, related, gloss.split('; "')[0].lower())


def _graph(synsets: dict[str, Synset]) -> NodeData:
    used = {key: s for key, s in synsets.items() if s.tagged >= TAGGED}
    files = sorted(file for file, _ in Counter(s.file for s in used.values()).most_common(LARGEST))
    used = {key: s for key, s in used.items() if s.file in files}
    index = {key: k for k, key in enumerate(used)}
    pairs = np.array([(index[a], index[b]) for a, s in used.items() for b in s.related if b in index]).reshape(-1, 2)
    matrix = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(used), len(used)))
    part = connected_components(matrix, directed=False)[1]
    kept = part == np.bincount(part).argmax()
    pairs = (np.cumsum(kept) - 1)[pairs[kept[pairs[:, 0]]]]
    nodes = [s for s, keep in zip(used.values(), kept, strict=True) if keep]
    labels = torch.tensor([files.index(s.file) for s in nodes])
    graph = Graph.undirected(torch.from_numpy(pairs), len(nodes))
    return NodeData(graph, _bag_of_words([s.definition for s in nodes]), labels, [NAMES[file] for file in files])


def _bag_of_words(texts: list[str]) -> torch.Tensor:
    words = [set(re.findall("[a-z]+", text)) for text in texts]
    counts = Counter(word for each in words for word in each)
    column = {word: k for k, word in enumerate(sorted(word for word, n in counts.items() if n >= DEFINITIONS))}
    features = torch.zeros(len(texts), len(column))
    for row, each in zip(features, words, strict=True):
        row[[column[word] for word in each if word in column]] = 1.0
    return features / features.sum(1, keepdim=True).clamp_min(1.0)
