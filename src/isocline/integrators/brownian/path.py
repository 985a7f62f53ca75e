r"""The virtual Brownian tree, with space-time area.

A path on [a, b] is made of cells, intervals on which it is independent, each halved as often as a query needs. For a query from
s to t inside a cell, with P and Q as in `isocline.integrators.brownian.expansion`,

    W = P_t - P_s ,      H = (Q_t - Q_s - (t - s) P_s) / (t - s) - W / 2

is a combination of normals that are functions of (seed, cell, node, number of the state), so that it is the same whenever, and in
whatever order, it is asked for. A query of a whole cell is one normal, or two with H: where steps are known beforehand the cells
are the steps.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, require
from isocline._core.stream import Stream, as_stream
from isocline.integrators.brownian.counter import element_words, fill_normals, key_of, mixed, node_words
from isocline.integrators.brownian.expansion import DEPTH, NEAR, ROOT, SPREAD, Expansion, Reals, expansion

CHUNK, AHEAD = 1 << 15, 256  # numbers and cells that are drawn ahead where whole cells are asked for
TOGETHER = 16  # steps of a tree whose nodes are drawn in one go
FINER = 5  # steps that are not known beforehand end on a grid 2^5 times finer than they are long


class Increment(NamedTuple):
    """What a path does over a step.

    Args:
        w: its increment, variance ``|h|``.
        h: its space-time area ``1/h integral of (W - line from end to end)``, variance ``|h| / 12``; None where the path has none.
    """

    w: Tensor
    h: Tensor | None = None


class BrownianPath:
    """A Brownian path that can be asked for any increment, in any order.

    Args:
        rng: seed or stream.
        shape: of the state that it drives; the first axis counts samples, and a sample's path does not depend on the others.
        t0: one end of time; shape () or (B,) where each sample has its own.
        t1: the other end.
        area: whether the path also knows its space-time area, which `ShARK`, `SRA1` and `SPaRK` read. It is another path then.
        grid: times between them at which steps are known to end, shape (n,) or (B, n), padded with the last time; they are ends
            of cells, and a path depends on them. None for one cell.
        depth: how many times a cell is halved. Times inside a cell are resolved to ``2^-depth`` of it; those in one last interval
            have the right law one by one, but not together. Steps should be longer than that.
        first: number of the first sample, where a batch is a part of a larger one.
        dtype: of the increments.
        device: of the increments.

    Examples:
        >>> path = BrownianPath(0, (2,), 0.0, 1.0, dtype=torch.float64)
        >>> whole, left, right = (path.increment(s, t).w for s, t in ((0.0, 1.0), (0.0, 0.3), (0.3, 1.0)))
        >>> torch.allclose(left + right, whole, rtol=0, atol=1e-14)
        True
    """

    def __init__(
        self,
        rng: Stream | int,
        shape: Sequence[int],
        t0: Any,
        t1: Any,
        *,
        area: bool = False,
        grid: Any = None,
        depth: int = DEPTH,
        first: int = 0,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.dtype, self.area, self.depth = dtype or torch.get_default_dtype(), area, depth
        self.shape, self.device = tuple(shape), torch.device(device)
        self.cells = _cells(np.asarray(t0, np.float64), np.asarray(t1, np.float64), grid)
        require(self.cells.ndim == 1 or bool(self.shape), "samples with times of their own need a batch axis")
        require(1 <= depth <= DEPTH, f"depth is between 1 and {DEPTH}, got {depth}")
        rows, self.width = (self.shape or (1,))[0], math.prod(self.shape[1:])
        self.key = key_of(as_stream(rng, "brownian"))
        words = self.width if area else -(-self.width // 2)  # a word gives two normals
        self.elements = element_words(rows, words, first=first, device=self.device)
        self._ends: list[float] = self.cells.tolist() if self.cells.ndim == 1 else []
        self._together = max(1, min(AHEAD, CHUNK // max(1, self.elements.numel())))
        self._ahead: tuple[int, list[Increment]] = (-1, [])
        self._latest: tuple[int, Any, Tensor] = (-1, np.empty(0, np.int64), torch.empty(0))

    # ------------------------------------------------------------------------------------------------ queries

    def increment(self, s: Any, t: Any, rows: Tensor | None = None) -> Increment:
        """Return what the path does from `s` to `t`.

        Args:
            s: start, shape () or (m,).
            t: end; before `s` for the path that is run backward.
            rows: which samples, (m,), where samples have times of their own; None for all.
        """
        if isinstance(s, float) or np.ndim(s) == 0:  # NumPy's float64 is a float
            return self._shared(s, t)
        return self._separate(np.asarray(s), np.asarray(t), rows)

    def increments(self, edges: Reals) -> Iterator[Increment]:
        """Yield what the path does between consecutive increasing times (n + 1,), where all samples share them.

        Nodes that many steps need are drawn once; the result is that of one query after the other but for rounding.
        """
        if self.cells.ndim > 1 or len(self._ends) > 2:
            yield from (self.increment(s, t) for s, t in pairwise(edges.tolist()))
            return
        start, end = self._ends
        places = np.clip((edges - start) / (end - start), 0, 1)
        slack = NEAR * (end - start)
        if edges[0] < start - slack or edges[-1] > end + slack:
            raise InvalidInput(f"a Brownian path on [{start:g}, {end:g}] was asked for [{edges[0]:g}, {edges[-1]:g}]")
        for k in range(0, len(edges) - 1, TOGETHER):
            yield from self._parts(places[k : k + TOGETHER + 1], end - start)

    def _parts(self, places: Reals, length: float) -> list[Increment]:
        """Return the increments between places (n + 1,) in the only cell."""
        ends = expansion(places, np.full(len(places), length), self.depth, self.area)
        nodes, where = np.unique(ends.nodes, return_inverse=True)
        where, span = where.reshape(ends.nodes.shape), np.diff(places) * length
        before, after = _of_step(ends.weights[:-1], span, span), _of_step(ends.weights[1:], span, 0 * span)
        matrix = np.zeros((len(span), len(nodes), 1 + self.area, 1 + self.area))  # step, node, what is wanted, normal
        rows = np.arange(len(span))[:, None]
        np.add.at(matrix, (rows, where[1:]), after.swapaxes(1, 2))
        np.subtract.at(matrix, (rows, where[:-1]), before.swapaxes(1, 2))
        used = matrix.any((0, 2, 3))
        drawn = self._drawn(self.elements, np.zeros(int(used.sum()), np.int64), nodes[used])
        factors = torch.from_numpy(np.moveaxis(matrix[:, used], (2, 3), (0, 1)).copy()).to(self.device, self.dtype)
        found = (factors @ drawn.flatten(2)).sum(1).view(1 + self.area, len(span), *self.shape)
        return [Increment(*x) for x in zip(*(part.unbind(0) for part in found), strict=True)]

    def __call__(self, t: float) -> Tensor:
        """Return the path at a time, zero at the earlier end; where all samples share their times."""
        return self.increment(float(self.cells.flat[0]), t).w

    def fitted(self, t: Any, h: Any, rows: Tensor | None = None) -> Any:
        """Return a step that is a little shorter, so that it ends where the tree has a node and queries stay cheap."""
        cells = self._cells_of(rows, np.shape(t))
        backward = np.any(np.asarray(h) < 0)
        cell = _cell(cells, np.asarray(t), end=backward)
        start, length = _start_and_length(cells, cell)
        with np.errstate(divide="ignore"):
            unit = length * 0.5 ** np.minimum(self.depth, np.ceil(np.log2(length / np.abs(h))) + FINER)
        ends = (np.asarray(t) + h - start) / unit
        whole = np.ceil(ends - NEAR) if backward else np.floor(ends + NEAR)
        return start + whole * unit - t

    # ------------------------------------------------------------------------------------------------ one time for all

    def _shared(self, s: float, t: float) -> Increment:
        if t < s:
            found = self._shared(t, s)
            return Increment(-found.w, found.h)
        cells = self._ends
        require(bool(cells), "samples of this path have times of their own: ask with times (B,)")
        slack = NEAR * (cells[-1] - cells[0])
        if not cells[0] - slack <= s <= t <= cells[-1] + slack:
            raise InvalidInput(f"a Brownian path on [{cells[0]:g}, {cells[-1]:g}] was asked for [{s:g}, {t:g}]")
        cell = min(max(bisect_right(cells, s + slack) - 1, 0), len(cells) - 2)
        found = self._inside(cell, s, t)
        while cell + 2 < len(cells) and t > cells[cell + 1] + slack:
            cell += 1
            found = joined(
                found, cells[cell] - s, self._inside(cell, cells[cell], t), min(t, cells[cell + 1]) - cells[cell]
            )
        return found

    def _inside(self, cell: int, s: float, t: float) -> Increment:
        """Return the increment over what of a cell lies between `s` and `t`."""
        start, end = self._ends[cell], self._ends[cell + 1]
        near = NEAR * (end - start)
        if s <= start + near and t >= end - near:
            return self._whole(cell)
        return self._part(cell, (s - start) / (end - start), (min(t, end) - start) / (end - start), end - start)

    def _whole(self, cell: int) -> Increment:
        """Return the increment over a cell; those of the cells around it are drawn in one go."""
        chunk, k = divmod(cell, self._together)
        if self._ahead[0] != chunk:
            self._ahead = (
                chunk,
                self._chunk(chunk * self._together, min((chunk + 1) * self._together, len(self._ends) - 1)),
            )
        return self._ahead[1][k]

    def _chunk(self, first: int, last: int) -> list[Increment]:
        """Return the increments over the cells from `first` to `last`."""
        cells = np.arange(first, last)
        scales = np.sqrt(np.diff(self.cells[first : last + 1]) * np.array([[1.0], [1 / 12]])[: 1 + self.area])
        drawn = self._drawn(self.elements, cells, np.full_like(cells, ROOT))
        drawn.mul_(torch.from_numpy(scales).to(drawn)[..., None, None])
        parts = (x.view(last - first, *self.shape).unbind(0) for x in drawn)
        return [Increment(*found) for found in zip(*parts, strict=True)]

    def _drawn(self, elements: Tensor, cells: Any, nodes: Any) -> Tensor:
        """Return normals of nodes for elements (B, words): (1 or 2, n, B, width) of nodes (n,), (1 or 2, B, n, width) of (B, n)."""
        words = torch.from_numpy(node_words(self.key, cells, nodes).view(np.int64)).to(self.device)
        x = words[..., None] ^ elements[:, None, :] if nodes.ndim > 1 else words[:, None, None] ^ elements
        mixed(x, torch.empty_like(x))
        out = torch.empty((1 + self.area, *x.shape[:-1], self.width), dtype=self.dtype, device=self.device)
        half = x.shape[-1]
        fill_normals(x, out[0, ..., :half], out[1] if self.area else out[0, ..., half:])
        return out

    def _part(self, cell: int, s: float, t: float, length: float) -> Increment:
        """Return the increment over a part of a cell; nodes that both ends share are weighed with their difference."""
        if s == t:
            zero = torch.zeros(self.shape, dtype=self.dtype, device=self.device)
            return Increment(zero, zero if self.area else None)
        start, end = (_expansion(x, length, self.depth, self.area) for x in (s, t))
        span = (t - s) * length
        before, after = _of_step(start.weights, span, span), _of_step(end.weights, span, 0.0)
        common = _common(start.nodes, end.nodes)
        after[:, :common] -= before[:, :common]
        held = self._normals(cell, start.nodes) if common < len(start.nodes) else None
        drawn = self._normals(cell, end.nodes)
        found = self._sum(after, drawn)
        if held is not None:
            found -= self._sum(before[:, common:], held[:, common:])
        self._latest = (cell, end.nodes, drawn)
        found = found.view(-1, *self.shape)
        return Increment(found[0], found[1] if self.area else None)

    def _sum(self, weights: Reals, drawn: Tensor) -> Tensor:
        """Return sums of normals (c, n, *) with weights (r, n, c), shape (r, numbers)."""
        factors = torch.from_numpy(weights).to(self.device, self.dtype)
        total = factors[..., 0] @ drawn[0].reshape(weights.shape[1], -1)
        return total.addmm_(factors[..., 1], drawn[1].reshape(weights.shape[1], -1)) if self.area else total

    def _normals(self, cell: int, nodes: Any) -> Tensor:
        """Return normals of nodes, (1 or 2, n, B, width); those that the last query shares are still there."""
        where, known, held = self._latest
        shared = _common(known, nodes) if cell == where else 0
        if shared == len(nodes):
            return held[:, :shared]
        fresh = nodes[shared:]
        block = self._drawn(self.elements, np.full_like(fresh, cell), fresh)
        return torch.cat([held[:, :shared], block], 1) if shared else block

    # ------------------------------------------------------------------------------------------------ times of their own

    def _cells_of(self, rows: Tensor | None, shape: tuple[int, ...]) -> Reals:
        """Return the ends of the cells of samples."""
        if self.cells.ndim == 1:
            return np.broadcast_to(self.cells, (*shape, len(self.cells)))
        return self.cells if rows is None else self.cells[rows.cpu().numpy()]

    def _separate(self, s: Reals, t: Reals, rows: Tensor | None) -> Increment:
        """Return increments of samples with times of their own; each lies in one cell."""
        cells = self._cells_of(rows, s.shape)
        low, high = np.minimum(s, t), np.maximum(s, t)
        cell = _cell(cells, low)
        start, length = _start_and_length(cells, cell)
        elements = self.elements if rows is None else self.elements[rows.to(self.device)]
        span, sign = high - low, np.where(t < s, -1.0, 1.0)
        if ((low <= start + NEAR * length) & (high >= start + (1 - NEAR) * length)).all():
            scale = (1.0, SPREAD) if self.area else (1.0,)
            weights = np.sqrt(span)[:, None, None, None] * np.diag(scale)[:, None]
            nodes = np.full((len(cell), 1), ROOT)
        else:
            ends = [expansion(np.clip((x - start) / length, 0, 1), length, self.depth, self.area) for x in (low, high)]
            before, after = (_of_step(x.weights, span, back) for x, back in zip(ends, (span, 0 * span), strict=True))
            weights = np.concatenate([-before, after], -2)  # (m, r, n, c)
            nodes = np.concatenate([x.nodes for x in ends], -1)
        weights[:, 0] *= sign[:, None, None]
        drawn = self._drawn(elements, np.broadcast_to(cell[:, None], nodes.shape), nodes)
        factors = torch.from_numpy(np.moveaxis(weights, -1, 0).copy()).to(self.device, self.dtype)  # (c, m, r, n)
        found = (factors @ drawn).sum(0).reshape(len(cell), -1, *self.shape[1:])
        return Increment(found[:, 0], found[:, 1] if self.area else None)


def joined(a: Increment, ha: float, b: Increment, hb: float) -> Increment:
    """Return the increment over two intervals of lengths `ha` and `hb`, one after the other."""
    w = a.w + b.w
    if a.h is None or b.h is None:
        return Increment(w)
    integral = ha * (a.w / 2 + a.h) + hb * (a.w + b.w / 2 + b.h)
    return Increment(w, integral / (ha + hb) - w / 2)


def _of_step(weights: Reals, span: Any, back: Any) -> Reals:
    """Return the parts of W and H that come from P and Q at one end, given how far the end of the step lies behind it."""
    if weights.shape[-3] == 1:
        return weights.copy()
    p, q = weights[..., 0, :, :], weights[..., 1, :, :]
    span, back = (np.asarray(x)[..., None, None] for x in (span, back))
    return np.stack([p, (q + back * p) / np.where(span > 0, span, 1.0) - p / 2], -3)


def _common(a: Any, b: Any) -> int:
    """Return how many of the first entries agree."""
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if len(differ) else n


def _cells(t0: Reals, t1: Reals, grid: Any) -> Reals:
    """Return the ends of cells in ascending order, (n + 1,) or (B, n + 1)."""
    low, high = np.minimum(t0, t1), np.maximum(t0, t1)
    require(bool((high > low).all()), "a Brownian path needs two different times")
    inner = (
        np.empty((*low.shape, 0))
        if grid is None
        else np.broadcast_to(np.asarray(grid, np.float64), (*low.shape, np.shape(grid)[-1]))
    )
    inner = np.clip(inner, low[..., None], high[..., None])
    ends = np.sort(np.concatenate([low[..., None], inner, high[..., None]], -1), -1)
    if ends.ndim == 1:
        keep = np.append(np.diff(ends) > NEAR * (ends[-1] - ends[0]), True)
        keep[0] = True
        return np.unique(np.append(ends[keep][:-1], ends[-1]))
    return ends


def _cell(cells: Reals, t: Any, end: Any = False) -> Any:
    """Return in which cell a time lies: in the one that starts there, or in the one that ends there."""
    near = NEAR * (cells[..., -1] - cells[..., 0])
    if end:
        found = (cells < (t - near)[..., None]).sum(-1) - 1
    else:
        found = (cells <= (t + near)[..., None]).sum(-1) - 1
        width = cells.shape[-1] - 1
        found = np.minimum(found, width - 1)
    return np.maximum(found, 0)


def _start_and_length(cells: Reals, cell: Any) -> tuple[Any, Any]:
    if cells.ndim == 1:
        return cells[cell], cells[np.asarray(cell) + 1] - cells[cell]
    start = np.take_along_axis(cells, cell[:, None], -1)[:, 0]
    return start, np.take_along_axis(cells, cell[:, None] + 1, -1)[:, 0] - start


@lru_cache(maxsize=8)
def _expansion(theta: float, length: float, depth: int, area: bool) -> Expansion:
    return expansion(theta, length, depth, area)
