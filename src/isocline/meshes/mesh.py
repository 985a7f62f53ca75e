r"""Triangle meshes in the plane and their linear finite elements.

With hat functions ``phi_i`` (1 at vertex i, 0 at the others, linear on triangles) the mass and stiffness matrices are

    M_ij = int phi_i phi_j dx ,        K_ij = int grad phi_i . grad phi_j dx ;

on a triangle of area A, ``int phi_i phi_j = A (1 + delta_ij) / 12`` and ``grad phi_i = rot(e_i) / 2 A`` with the opposite edge e_i.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from isocline._core.errors import NotFinite, require

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Mesh:
    """A mesh of triangles.

    Args:
        points: vertices, (N, 2) float64.
        triangles: three vertices each, counterclockwise, (T, 3) int64.
        corners: vertices of the boundary that correspond to each other in meshes of one family, counterclockwise; may be empty.

    Raises:
        InvalidInput: other shapes, a vertex that no triangle has, or a triangle without positive area.
        NotFinite: a coordinate is NaN or infinite.

    Examples:
        >>> square = Mesh.oriented(torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]]), torch.tensor([[0, 1, 2], [2, 0, 3]]))
        >>> float(square.areas.sum()), square.loop.tolist()
        (1.0, [0, 1, 2, 3])
    """

    points: Tensor
    triangles: Tensor
    corners: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        require(self.points.ndim == 2 and self.points.shape[1] == 2, f"vertices are (N, 2), got {_shape(self.points)}")
        require(
            self.triangles.ndim == 2 and self.triangles.shape[1] == 3,
            f"triangles are (T, 3), got {_shape(self.triangles)}",
        )
        require(self.points.dtype == torch.float64, f"vertices are float64, got {self.points.dtype}")
        require(self.triangles.dtype == torch.int64, f"triangles are int64, got {self.triangles.dtype}")
        if not bool(self.points.isfinite().all()):
            raise NotFinite("a vertex of the mesh has a coordinate that is NaN or infinite")
        used = self.triangles.unique()
        complete = len(used) == len(self.points) and int(used[0]) == 0 and int(used[-1]) == len(self.points) - 1
        require(complete, "a vertex belongs to no triangle, or a triangle names a vertex that is not there")
        bad = int((self.areas <= 0).sum())
        require(bad == 0, f"{bad} triangles have no positive area; orient them with Mesh.oriented")

    def __len__(self) -> int:
        return len(self.points)

    @classmethod
    def oriented(cls, points: Tensor, triangles: Tensor, corners: Sequence[int] = ()) -> Mesh:
        """Return a mesh whose triangles are turned counterclockwise where they are not."""
        points, triangles = points.double(), triangles.long()
        negative = signed_areas(points, triangles) < 0
        turned = torch.where(negative.unsqueeze(1), triangles[:, [0, 2, 1]], triangles)
        return cls(points, turned, tuple(int(c) for c in corners))

    @classmethod
    def from_skfem(cls, mesh: Any, corners: Sequence[int] = ()) -> Mesh:
        """Return the vertices and triangles of a ``skfem.MeshTri``."""
        return cls.oriented(torch.tensor(mesh.p.T), torch.tensor(mesh.t.T.astype(np.int64)), corners)

    def moved(self, points: Tensor) -> Mesh:
        """Return the same triangles with vertices (N, 2) elsewhere.

        Raises:
            InvalidInput: a triangle would be turned over.
        """
        return Mesh(points, self.triangles, self.corners)

    @cached_property
    def areas(self) -> Tensor:
        """Areas of the triangles, (T,)."""
        return signed_areas(self.points, self.triangles)

    @cached_property
    def loop(self) -> Tensor:
        """Vertices of the boundary, counterclockwise, (B,), from the first corner (without corners, from the lowest number).

        Raises:
            InvalidInput: the boundary is not one closed line, so the mesh is not a deformed disc; or a corner is not on it,
                or the corners are not in the order of the boundary.
        """
        start, end = boundary_edges(self.triangles.numpy(), len(self.points))
        following = dict(zip(start.tolist(), end.tolist(), strict=True))
        begin = self.corners[0] if self.corners else int(start.min())
        require(begin in following, f"corner {begin} is not on the boundary of the mesh")
        found = [begin]
        while (after := following[found[-1]]) != begin and len(found) <= len(start):
            found.append(after)
        require(
            len(found) == len(start),
            f"the boundary has {len(start)} edges, but its line from vertex {begin} has {len(found)}: the mesh must be a "
            "deformed disc, without holes and in one piece",
        )
        self._require_order(found)
        return torch.tensor(found)

    def _require_order(self, loop: list[int]) -> None:
        place = {vertex: i for i, vertex in enumerate(loop)}
        outside = [c for c in self.corners if c not in place]
        require(not outside, f"corners {outside} are not on the boundary of the mesh")
        places = [place[c] for c in self.corners]
        require(places == sorted(set(places)), "corners must be different and in counterclockwise order")

    @cached_property
    def mass(self) -> sparse.csr_matrix:
        """The mass matrix, (N, N)."""
        local = np.broadcast_to((np.ones((3, 3)) + np.eye(3)) / 12, (len(self.triangles), 3, 3))
        return self._assembled(local * self.areas.numpy()[:, None, None])

    @cached_property
    def stiffness(self) -> sparse.csr_matrix:
        """The stiffness matrix, (N, N)."""
        corners = self.points.numpy()[self.triangles.numpy()]
        opposite = np.roll(corners, -2, 1) - np.roll(corners, -1, 1)
        local = np.einsum("tid,tjd->tij", opposite, opposite) / (4 * self.areas.numpy()[:, None, None])
        return self._assembled(local)

    def _assembled(self, local: Array) -> sparse.csr_matrix:
        cells, n = self.triangles.numpy(), len(self.points)
        rows, columns = np.repeat(cells, 3, 1).ravel(), np.tile(cells, (1, 3)).ravel()
        return sparse.csr_matrix(sparse.coo_matrix((local.ravel(), (rows, columns)), shape=(n, n)))


@dataclass(frozen=True, eq=False)
class MeshRun:
    """One simulation on a mesh of its own.

    Args:
        mesh: its geometry.
        inputs: numbers given, by name.
        fields: found values at vertices, (N,) each, by name; empty where they are to be predicted.
        scalars: found numbers, by name.

    Raises:
        InvalidInput: a field has another length than the mesh.
        NotFinite: a field or a number is NaN or infinite.
    """

    mesh: Mesh
    inputs: Mapping[str, float] = field(default_factory=dict)
    fields: Mapping[str, Tensor] = field(default_factory=dict)
    scalars: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, values in self.fields.items():
            shape = _shape(values)
            require(shape == (len(self.mesh),), f"{name} has shape {shape}, but the mesh {len(self.mesh)} vertices")
            if not bool(values.isfinite().all()):
                raise NotFinite(f"the field {name} has values that are NaN or infinite")
        for name, number in {**self.inputs, **self.scalars}.items():
            if not np.isfinite(number):
                raise NotFinite(f"{name} is {number}")


def signed_areas(points: Tensor, triangles: Tensor) -> Tensor:
    """Return areas (T,) of triangles, negative where they run clockwise."""
    a, b, c = points[triangles].unbind(1)
    first, second = b - a, c - a
    return (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) / 2


def boundary_edges(triangles: Array, n: int) -> tuple[Array, Array]:
    """Return first and last vertices of the edges that only one triangle has; n is the number of vertices."""
    start, end = triangles.T.ravel(), np.roll(triangles, -1, 1).T.ravel()
    alone = ~np.isin(start * n + end, end * n + start)
    return start[alone], end[alone]


def _shape(value: Tensor) -> tuple[int, ...]:
    return tuple(value.shape)
