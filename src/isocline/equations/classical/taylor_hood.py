r"""Steady incompressible flow on triangles: Taylor and Hood's elements, Newton's method.

    (u . grad) u - nu Laplacian u + grad p = f ,      div u = 0

with given velocities on the boundary, but for an outflow, where ``nu du/dn = p n``, which holds p near 0 there. Velocities are
quadratic on each triangle and the pressure is linear, so that errors in L2 fall with the third and the second power of the
triangles' size (Taylor and Hood, Computers and Fluids 1 (1973) 73). Newton's method starts from the flow without inertia; where it
fails, from the flow of twice the viscosity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor

from isocline._core.errors import ExtraMissing, NotFinite, require

Array = np.ndarray[Any, Any]
Values = Callable[[Array], Array]
STEPS, DOUBLINGS = 12, 6
TOLERANCE = 1e-8  # of the last change; as errors are squared by a step, that of the state is far smaller


@dataclass(frozen=True, eq=False)
class Flow:
    """A flow, as a function of points.

    Args:
        quadratic: scikit-fem's basis of one component of the velocity.
        linear: that of the pressure.
        state: coefficients of ``u_x``, ``u_y`` and p, one after the other.
        reaction: what the momentum equation lacks at nodes where the velocity is given, (2, nodes): the force on the boundary.
    """

    quadratic: Any
    linear: Any
    state: Array
    reaction: Array

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``u_x, u_y, p`` at points (M, 2) inside the mesh, (M, 3) float64.

        Raises:
            ValueError: by scikit-fem, a point lies outside.
        """
        n = self.quadratic.N
        at = x.double().numpy().T
        speeds, pressures = self.quadratic.probes(at), self.linear.probes(at)
        parts = [speeds @ self.state[:n], speeds @ self.state[n : 2 * n], pressures @ self.state[2 * n :]]
        return torch.from_numpy(np.stack(parts, 1))

    def force(self, where: Callable[[Array], Array]) -> tuple[float, float]:
        """Return the force of the fluid on a part of the boundary, both components.

        Args:
            where: says of places (M, 2) whether they belong to it; asked at nodes with a given velocity only.
        """
        nodes = self.quadratic.get_dofs(self.quadratic.mesh.boundary_facets()).all()
        chosen = nodes[where(self.quadratic.doflocs[:, nodes].T)]
        return float(self.reaction[0, chosen].sum()), float(self.reaction[1, chosen].sum())


def steady_flow(
    points: Array,
    triangles: Array,
    nu: float,
    velocity: Values,
    *,
    outflow: Values | None = None,
    source: Values | None = None,
) -> Flow:
    """Return the steady flow.

    Args:
        points: vertices, (N, 2).
        triangles: their vertices, (T, 3).
        nu: viscosity.
        velocity: on the boundary, of places (M, 2) to (M, 2).
        outflow: says of middles of edges (M, 2) whether they are outflow; without any the pressure has mean zero.
        source: f of places (M, 2) to (M, 2).

    Raises:
        ExtraMissing: scikit-fem is not installed.
        InvalidInput: nu is not positive, or the given velocities bring in more than they let out.
        NotFinite: Newton's method found no flow.
    """
    require(nu > 0, f"the viscosity must be positive, got {nu:g}")
    return _Elements(points, triangles, outflow, source).solve(nu, velocity)


class _Elements:
    """Matrices and unknowns on one mesh."""

    def __init__(self, points: Array, triangles: Array, outflow: Values | None, source: Values | None) -> None:
        fem = _skfem()
        mesh = fem.MeshTri(np.ascontiguousarray(points.T), np.ascontiguousarray(triangles.T))
        self.quadratic = fem.Basis(mesh, fem.ElementTriP2(), intorder=6)
        self.linear = self.quadratic.with_element(fem.ElementTriP1())
        self.n, self.m = self.quadratic.N, self.linear.N
        self.phi, self.slope = _tables(self.quadratic)
        one, _ = _tables(self.linear)
        self.dx, dofs = self.quadratic.dx, self.quadratic.element_dofs
        self.rows, self.columns = (np.broadcast_to(d, (6, 6, dofs.shape[1])) for d in (dofs[:, None], dofs[None]))
        laplace = np.einsum("ideq,jdeq,eq->ije", self.slope, self.slope, self.dx, optimize=True)
        self.diffusion = self._matrix(laplace)
        mixed = -np.einsum("ieq,jdeq,eq->dije", one, self.slope, self.dx, optimize=True)
        rows, columns = np.broadcast_arrays(self.linear.element_dofs[:, None], dofs[None])
        shape = (self.m, self.n)
        parts = [sparse.coo_array((b.ravel(), (rows.ravel(), columns.ravel())), shape=shape) for b in mixed]
        self.divergence = sparse.hstack(parts).tocsr()
        self.load = np.zeros((2, self.n))
        if source is not None:
            places = np.asarray(self.quadratic.global_coordinates())
            f = source(places.reshape(2, -1).T).T.reshape(places.shape)
            for part, values in zip(self.load, f, strict=True):
                np.add.at(part, dofs, np.einsum("ieq,eq,eq->ie", self.phi, values, self.dx))
        facets = mesh.boundary_facets()
        middles = mesh.p[:, mesh.facets[:, facets]].mean(1).T
        free = np.zeros(len(facets), bool) if outflow is None else outflow(middles)
        self.given, self.closed = self.quadratic.get_dofs(facets[~free]).all(), not free.any()
        pinned = [*self.given, *(self.given + self.n), *([2 * self.n] if self.closed else [])]
        self.open = np.setdiff1d(np.arange(2 * self.n + self.m), pinned)

    def solve(self, nu: float, velocity: Values) -> Flow:
        state = np.zeros(2 * self.n + self.m)
        state[: 2 * self.n].reshape(2, -1)[:, self.given] = velocity(self.quadratic.doflocs[:, self.given].T).T
        at, doublings = nu, 0
        start = self._corrected(state, nu, inertia=False)
        while True:
            found = self._newton(start, at)
            if found is None:
                at, doublings = 2 * at, doublings + 1
                if doublings > DOUBLINGS:
                    raise NotFinite(
                        f"no steady flow of viscosity {nu:g} was found; take a larger one or smaller triangles"
                    )
            elif at == nu:
                return self._flow(found, nu)
            else:
                start, at = found, max(nu, at / 2)

    def _newton(self, state: Array, nu: float) -> Array | None:
        """Return the solution, None where the steps do not converge."""
        for _ in range(STEPS if np.isfinite(state).all() else 0):
            before, state = state, self._corrected(state, nu)
            change, size = np.abs(state - before).max(), np.abs(state).max()
            if not change < 1e6 * (1 + size):
                return None
            if change <= TOLERANCE * size:
                return state
        return None

    def _corrected(self, state: Array, nu: float, inertia: bool = True) -> Array:
        """Return the state after one step of Newton's method; without inertia the solution, as the equations are linear."""
        residual, matrix = self._residual(state, nu, inertia)
        after = state.copy()
        try:
            after[self.open] -= splu(matrix[self.open][:, self.open].tocsc()).solve(residual[self.open])
        except RuntimeError:  # exactly singular
            after[self.open] = np.nan
        return after

    def _residual(self, state: Array, nu: float, inertia: bool = True) -> tuple[Array, Any]:
        """Return the residual of all equations and its derivative by the state."""
        blocks = [[nu * self.diffusion, None], [None, nu * self.diffusion]]
        rest = -self.load.ravel()
        if inertia:
            u = state[: 2 * self.n].reshape(2, -1)[:, self.quadratic.element_dofs]
            value, slope = (
                np.einsum("kie,ieq->keq", u, self.phi),
                np.einsum("kie,ideq->kdeq", u, self.slope, optimize=True),
            )
            weighted = self.phi * self.dx
            carried = self._matrix(np.einsum("ieq,deq,jdeq->ije", weighted, value, self.slope, optimize=True))
            turned = np.einsum("ieq,kdeq,jeq->kdije", weighted, slope, self.phi, optimize=True)
            blocks = [[self._matrix(turned[k, d]) for d in (0, 1)] for k in (0, 1)]
            for k in (0, 1):
                blocks[k][k] = blocks[k][k] + nu * self.diffusion + carried
                rest[k * self.n : (k + 1) * self.n] += carried @ state[k * self.n : (k + 1) * self.n]
        flow, pressure = state[: 2 * self.n], state[2 * self.n :]
        friction = nu * np.concatenate([self.diffusion @ part for part in flow.reshape(2, -1)])
        momentum = friction + self.divergence.T @ pressure + rest
        matrix = sparse.block_array([[sparse.block_array(blocks), self.divergence.T], [self.divergence, None]]).tocsr()
        return np.concatenate([momentum, self.divergence @ flow]), matrix

    def _matrix(self, local: Array) -> Any:
        """Return the sparse matrix of element matrices (6, 6, T)."""
        return sparse.coo_array(
            (local.ravel(), (self.rows.ravel(), self.columns.ravel())), shape=(self.n, self.n)
        ).tocsr()

    def _flow(self, state: Array, nu: float) -> Flow:
        residual = self._residual(state, nu)[0]
        reaction = -residual[: 2 * self.n].reshape(2, -1)
        if self.closed:
            lack, flux = abs(residual[2 * self.n]), np.abs(state[: 2 * self.n]).max() * self.dx.sum() ** 0.5
            require(lack <= 1e-2 * flux, "without outflow, as much must leave through the boundary as enters")
            p = np.asarray(self.linear.interpolate(state[2 * self.n :]))
            state[2 * self.n :] -= (p * self.dx).sum() / self.dx.sum()
        return Flow(self.quadratic, self.linear, state, reaction)


def _tables(basis: Any) -> tuple[Array, Array]:
    """Return shape functions (i, T, Q) and their slopes (i, 2, T, Q)."""
    shapes = [function[0] for function in basis.basis]
    values = np.stack([np.broadcast_to(np.asarray(f), basis.dx.shape) for f in shapes])
    return values, np.stack([np.broadcast_to(f.grad, (2, *basis.dx.shape)) for f in shapes])


def _skfem() -> Any:
    try:
        import skfem
    except ImportError as error:
        raise ExtraMissing("finite elements need scikit-fem; install isocline[operators]") from error
    return skfem
