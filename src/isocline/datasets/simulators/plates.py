r"""Notched plates under tension: plane stress of linear elasticity by finite elements, every case on a mesh of its own.

The plate is 1 wide and 2 high; a half circle of random radius is cut out of each side at a random height. It slides on its lower
side and is pulled at its upper side by the traction ``1 + 2 g x`` with a random gradient g. With E = 1,

    div sigma = 0 ,    sigma = l tr(eps) I + 2 m eps ,    m = 1 / (2 (1 + nu)) ,    l = nu / (1 - nu^2) .

Displacements are quadratic on triangles; stresses are their projection to linear elements. All meshes are deformed discs with
eight corners that correspond: those of the plate and the ends of the notches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isocline._core.errors import ExtraMissing, require
from isocline._core.stream import Stream, as_stream
from isocline.datasets.fields import ParameterSpec
from isocline.meshes import Mesh, MeshRun, triangulate

Array = np.ndarray[Any, Any]
Range = tuple[float, float]
HALF_WIDTH, HALF_HEIGHT = 0.5, 1.0
PARAMETERS = ("left_height", "left_radius", "right_height", "right_radius", "gradient", "nu")


@dataclass(frozen=True)
class Plates:
    """Plates with two notches; what differs between cases is uniform between two ends.

    Args:
        size: edge length of triangles far from notches; near them it is half of that.
        left_height: where the left notch sits.
        left_radius: its radius.
        right_height: where the right notch sits.
        right_radius: its radius.
        gradient: g of the traction.
        nu: Poisson's ratio.

    Raises:
        InvalidInput: notches can leave the sides or meet.

    Examples:
        >>> [p.name for p in Plates().parameters][-2:]
        ['gradient', 'nu']
    """

    size: float = 0.06
    left_height: Range = (-0.5, 0.5)
    left_radius: Range = (0.12, 0.25)
    right_height: Range = (-0.5, 0.5)
    right_radius: Range = (0.12, 0.25)
    gradient: Range = (-0.5, 0.5)
    nu: Range = (0.2, 0.4)

    def __post_init__(self) -> None:
        for side in ("left", "right"):
            height, radius = getattr(self, f"{side}_height"), getattr(self, f"{side}_radius")
            reach = max(-height[0], height[1]) + radius[1]
            require(radius[0] > 0 and reach < HALF_HEIGHT, f"the notch on the {side} can leave its side of the plate")
        widest = self.left_radius[1] + self.right_radius[1]
        require(widest < 2 * HALF_WIDTH, f"notches of radii up to {widest:g} together can cut the plate in two")
        require(0 < self.size < 0.5, f"triangles need a size in (0, 0.5), got {self.size:g}")

    @property
    def parameters(self) -> tuple[ParameterSpec, ...]:
        """All that differs between cases; shapes first."""
        return tuple(ParameterSpec(name, *getattr(self, name)) for name in PARAMETERS)

    def runs(self, n: int, rng: Stream | int, first: int = 0) -> list[MeshRun]:
        """Return the cases numbered first ... first + n - 1, solved.

        Raises:
            ExtraMissing: scikit-fem is not installed.
        """
        require(n >= 1, f"at least one case is simulated, got {n}")
        stream = as_stream(rng, "plates")
        u = stream.child("parameters").uniform((n, len(self.parameters)), first=first, dtype=torch.float64)
        found = []
        for i in range(n):
            values = {p.name: float(p.of(u[i, k])) for k, p in enumerate(self.parameters)}
            found.append(self.solve(values, stream.child("mesh").child(first + i)))
        return found

    def solve(self, values: dict[str, float], rng: Stream | int = 0) -> MeshRun:
        """Return the solution for one value of every parameter, by name."""
        mesh = self.mesh(values, rng)
        inputs = {name: values[name] for name in ("gradient", "nu")}
        fields, scalars = solve_plate(mesh, **inputs)
        return MeshRun(mesh, inputs, fields, scalars)

    def mesh(self, values: dict[str, float], rng: Stream | int = 0) -> Mesh:
        """Return a mesh of the shape, with its eight corners from the lower left one on, counterclockwise."""
        w, h, fine = HALF_WIDTH, HALF_HEIGHT, self.size / 2
        right, left = (values["right_height"], values["right_radius"]), (values["left_height"], values["left_radius"])

        def size(x: Array) -> Array:
            gaps = [np.hypot(x[:, 0] - side * w, x[:, 1] - y) - r for side, (y, r) in ((1, right), (-1, left))]
            return np.where(np.minimum(*gaps) < 2 * self.size, fine, self.size)

        corners = [(-w, -h), (w, -h), (w, right[0] - right[1]), (w, sum(right)), (w, h), (-w, h)]
        corners += [(-w, sum(left)), (-w, left[0] - left[1])]
        lines, ends = [], [*corners[1:], corners[0]]
        for k, (a, b) in enumerate(zip(corners, ends, strict=True)):
            notch = {2: right, 6: left}.get(k)
            lines.append(_line(a, b, self.size) if notch is None else _arc(a, *notch, fine))
        mesh = triangulate(torch.from_numpy(np.concatenate(lines)), size, (fine, self.size), rng)
        starts = np.cumsum([0] + [len(line) for line in lines[:-1]])
        return Mesh(mesh.points, mesh.triangles, tuple(int(s) for s in starts))


def solve_plate(mesh: Mesh, gradient: float, nu: float) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Return fields at vertices and scalars of a plate that slides on its lower side and is pulled at its upper side.

    Args:
        mesh: its shape; the lowest and the highest vertices are the sides.
        gradient: of the traction ``1 + 2 g x``.
        nu: Poisson's ratio.

    Returns:
        ``displacement_x``, ``displacement_y`` and ``stress`` (von Mises), (N,) each; ``stress_max`` and ``compliance``, the work
        of the traction.

    Raises:
        ExtraMissing: scikit-fem is not installed.
    """
    fem = _skfem()
    m, l = 1 / (2 * (1 + nu)), nu / (1 - nu**2)
    cells = fem.MeshTri(mesh.points.numpy().T.copy(), mesh.triangles.numpy().T.copy())
    basis = fem.Basis(cells, fem.ElementVector(fem.ElementTriP2()))
    low, high = float(mesh.points[:, 1].min()), float(mesh.points[:, 1].max())

    @fem.BilinearForm
    def energy(u: Any, v: Any, w: Any) -> Any:
        return np.einsum("ij...,ij...", _stress(u.grad, l, m), v.grad)

    @fem.LinearForm
    def pull(v: Any, w: Any) -> Any:
        return (1 + 2 * gradient * w.x[0]) * v[1]

    upper = fem.FacetBasis(cells, basis.elem, facets=cells.facets_satisfying(lambda x: np.isclose(x[1], high)))
    stiffness, load = fem.asm(energy, basis), fem.asm(pull, upper)
    slides = basis.get_dofs(cells.facets_satisfying(lambda x: np.isclose(x[1], low))).all(["u^2"])
    pinned = basis.nodal_dofs[0, [int((mesh.points - torch.tensor([0.0, low])).norm(dim=1).argmin())]]
    u = fem.solve(*fem.condense(stiffness, load, D=np.concatenate([slides, pinned])))
    stress = _projected_stress(fem, cells, basis, u, l, m)
    x, y = (torch.from_numpy(u[basis.nodal_dofs[k]].copy()) for k in (0, 1))
    fields = {"displacement_x": x, "displacement_y": y, "stress": stress}
    return fields, {"stress_max": float(stress.max()), "compliance": float(load @ u)}


def _projected_stress(fem: Any, cells: Any, basis: Any, u: Array, l: float, m: float) -> Tensor:
    """Return von Mises' stress of the projection of all components to linear elements, (N,)."""
    linear = basis.with_element(fem.ElementTriP1())
    sigma = _stress(basis.interpolate(u).grad, l, m)
    mass = fem.asm(fem.BilinearForm(lambda p, q, w: p * q), linear)
    parts = [sigma[0, 0], sigma[1, 1], sigma[0, 1]]
    right = [fem.asm(fem.LinearForm(lambda q, w: w["s"] * q), linear, s=part) for part in parts]
    xx, yy, xy = (fem.solve(mass, r) for r in right)
    return torch.from_numpy(np.sqrt(xx**2 - xx * yy + yy**2 + 3 * xy**2))


def _stress(gradient: Array, l: float, m: float) -> Array:
    """Return the stress (2, 2, ...) of a gradient of displacement (2, 2, ...)."""
    identity = np.eye(2).reshape(2, 2, *[1] * (gradient.ndim - 2))
    trace = gradient[0, 0] + gradient[1, 1]
    return np.asarray(l * trace * identity + m * (gradient + np.swapaxes(gradient, 0, 1)))


def _line(a: tuple[float, float], b: tuple[float, float], size: float) -> Array:
    """Return points from a on, without b, (M, 2)."""
    n = max(1, round(float(np.hypot(b[0] - a[0], b[1] - a[1])) / size))
    return np.linspace(a, b, n, endpoint=False)


def _arc(a: tuple[float, float], height: float, radius: float, size: float) -> Array:
    """Return points of a half circle into the plate from its end a on, without the other end, (M, 2)."""
    n = max(4, round(np.pi * radius / size))
    turn = -np.pi * np.arange(n) / n + (-np.pi / 2 if a[0] > 0 else np.pi / 2)
    return np.stack([a[0] + radius * np.cos(turn), height + radius * np.sin(turn)], 1)


def _skfem() -> Any:
    try:
        import skfem
    except ImportError as error:
        raise ExtraMissing("finite elements need scikit-fem; install isocline[operators]") from error
    return skfem
