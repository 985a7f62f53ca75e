"""Meshes for tests."""

from __future__ import annotations

import numpy as np
import torch

from isocline.meshes import Mesh, triangulate
from isocline.meshes.mesh import Array


def polygon(radii: Array, corners: int = 0, size: float = 0.15, rng: int = 0) -> Mesh:
    """Return a mesh of the polygon with these radii at equal angles; `corners` of its vertices correspond."""
    turn = 2 * np.pi * np.arange(len(radii)) / len(radii)
    line = torch.from_numpy(np.stack([radii * np.cos(turn), radii * np.sin(turn)], 1))
    mesh = triangulate(line, lambda x: np.full(len(x), size), (size, size), rng)
    step = len(radii) // corners if corners else 0
    return Mesh(mesh.points, mesh.triangles, tuple(range(0, step * corners, step)) if corners else ())


def disc(n: int = 40, size: float = 0.15, rng: int = 0, corners: int = 0) -> Mesh:
    """Return a mesh of a regular polygon of n sides."""
    return polygon(np.ones(n), corners, size, rng)


def star(seed: int, corners: int = 4) -> Mesh:
    """Return a mesh of a random smooth star, not convex."""
    turn = 2 * np.pi * np.arange(48) / 48
    draw = np.random.default_rng(seed).uniform(-1, 1, 6)
    radii = 1 + sum(
        0.12 * draw[2 * k - 2] * np.cos(k * turn) + 0.12 * draw[2 * k - 1] * np.sin(k * turn) for k in (1, 2, 3)
    )
    return polygon(np.asarray(radii), corners, 0.15, seed)


def square(n: int) -> Mesh:
    """Return the unit square with n x n cells, its corners named."""
    line = torch.linspace(0, 1, n + 1, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    i = torch.arange((n + 1) ** 2).reshape(n + 1, n + 1)
    a, b, c, d = (part.flatten() for part in (i[:-1, :-1], i[1:, :-1], i[1:, 1:], i[:-1, 1:]))
    triangles = torch.cat([torch.stack([a, b, c], 1), torch.stack([a, c, d], 1)])
    return Mesh(points, triangles, (0, n * (n + 1), (n + 1) ** 2 - 1, n))
