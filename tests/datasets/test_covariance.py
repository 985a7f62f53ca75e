"""The proof: the solution of the changed equation is the changed solution."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.sparse.linalg import splu, spsolve
from torch import Tensor

from isocline._core.errors import InvalidInput
from isocline._core.stream import Stream
from isocline.datasets.covariance import Covariance, random_maps, with_tensor
from isocline.datasets.fields import Batch, DataSpec, FieldSpec
from isocline.equations.classical.darcy import solve_darcy
from tests.meshes.shapes import square

Field = Callable[..., Tensor]
ALL = Covariance("a", "b", "c", "f", strength=0.4)


def spec(d: int, n: int, times: int = 1, boundary: Any = "wall", sides: tuple[float, ...] = (1.0, 1.0)) -> DataSpec:
    constant = [("a", 2), ("b", 1), ("c", 0), ("f", 0), *([("m", 0)] if times > 1 else [])]
    fields = (FieldSpec("u"), *(FieldSpec(name, order, varies=False) for name, order in constant))
    axes = ("x", "y")[:d]
    return DataSpec("test", fields, axes, (0.0,) * d, sides[:d], (n,) * d, (boundary,) * d, times, 0.1 * (times > 1))


def batch(of: DataSpec, coordinates: Tensor, u: Tensor, constants: Tensor) -> Batch:
    """Return cases with one frame to predict: u (B, *S), constants (B, *S, C)."""
    size = len(u)
    empty = u.unsqueeze(1)[:, :0].unsqueeze(-1)
    zeros = torch.zeros(size, 1, dtype=torch.float64)
    return Batch(of, empty, u[:, None, ..., None], zeros, zeros[:, 0], torch.zeros(size, 0), coordinates, constants)


def grid(d: int, n: int, sides: tuple[float, ...] = (1.0, 1.0)) -> Tensor:
    lines = [torch.linspace(0, side, n + 1, dtype=torch.float64) for side in sides[:d]]
    return torch.stack(torch.meshgrid(*lines, indexing="ij"), -1)


def coefficients(x: Tensor) -> Tensor:
    """Return a, b, c and f of one case in two dimensions, (*S, 4 + 2 + 1 + 1)."""
    s, t = x.unbind(-1)
    p, q, r = 2 + torch.sin(3 * s + t), 1.5 + torch.cos(2 * t - s), 0.5 * torch.sin(s + 2 * t)
    b = [1 + s * t, torch.cos(4 * s)]
    return torch.stack([p, r, r, q, *b, 1 + s**2, 3 * torch.sin(5 * s) + 4 * t + 1], -1)


def solved(values: Tensor, sides: tuple[float, ...] = (1.0, 1.0)) -> Tensor:
    """Return u (n + 1, n + 1), 0 at the boundary, of constants (n + 1, n + 1, 8), by linear elements."""
    n = len(values) - 1
    mesh = square(n)
    mesh = mesh.moved(mesh.points * torch.tensor(sides))
    v = values.reshape(-1, 8).numpy()[mesh.triangles.numpy()].mean(1)
    corners, area = mesh.points.numpy()[mesh.triangles.numpy()], mesh.areas.numpy()
    edges = np.roll(corners, -2, 1) - np.roll(corners, -1, 1)
    slopes = np.stack([-edges[..., 1], edges[..., 0]], -1) / (2 * area[:, None, None])
    local = np.einsum("tid,tde,tje->tij", slopes, v[:, :4].reshape(-1, 2, 2), slopes) * area[:, None, None]
    local += np.einsum("td,tjd->tj", v[:, 4:6], slopes)[:, None, :] * area[:, None, None] / 3
    local += v[:, 6, None, None] * ((np.ones((3, 3)) + np.eye(3)) / 12) * area[:, None, None]
    system = mesh._assembled(local)
    right = np.bincount(mesh.triangles.numpy().ravel(), np.repeat(v[:, 7] * area / 3, 3), len(mesh))
    inner = np.setdiff1d(np.arange(len(mesh)), mesh.loop.numpy())
    u = np.zeros(len(mesh))
    u[inner] = spsolve(system[inner][:, inner].tocsc(), right[inner])
    return torch.from_numpy(u).reshape(n + 1, n + 1)


def gaps(n: int, seed: int, sides: tuple[float, ...] = (1.0, 1.0)) -> float:
    """Return the relative L2 distance between the solution of the changed equation and the changed solution."""
    x = grid(2, n, sides)
    constants = coefficients(x)
    u = solved(constants, sides)
    found = ALL(batch(spec(2, n + 1, sides=sides), x, u[None], constants[None]), Stream(seed))
    assert found.constants is not None
    moved = found.target[0, 0, ..., 0]
    again = solved(found.constants[0], sides)
    assert float((moved - u).norm() / u.norm()) > 0.02  # the map does something
    return float((again - moved).norm() / moved.norm())


@pytest.mark.parametrize("seed", range(5))
def test_solving_the_changed_equation_gives_the_changed_solution(seed: int) -> None:
    errors = [gaps(n, seed) for n in (16, 32, 64)]
    assert errors[-1] <= 5e-3
    assert np.log2(errors[0] / errors[-1]) / 2 >= 1.8


def test_so_it_does_on_an_oblong() -> None:
    errors = [gaps(n, 0, (2.0, 0.5)) for n in (16, 32)]
    assert np.log2(errors[0] / errors[1]) >= 1.8


def darcy_gap(n: int, seed: int) -> float:
    """Return the same distance by the finite volumes of the library, from a scalar coefficient at the middle of cells."""
    line = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    x = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1)
    a, f = 1.5 + torch.sin(5 * x[..., 0] + 2 * x[..., 1]), 1 + x[..., 0] * torch.cos(4 * x[..., 1])
    fields = (FieldSpec("u"), FieldSpec("a", varies=False), FieldSpec("f", varies=False))
    u = solve_darcy(a[None], f)
    given = batch(replace(spec(2, n), fields=fields), x, u, torch.stack([a, f], -1)[None])
    found = Covariance("a", source="f", strength=0.4)(with_tensor(given, "a"), Stream(seed))
    assert found.constants is not None
    again = solve_darcy(found.constants[..., :4].unflatten(-1, (2, 2)), found.constants[..., 4])
    moved = found.target[:, 0, ..., 0]
    return float((again - moved).norm() / moved.norm())


@pytest.mark.parametrize("seed", range(3))
def test_so_it_does_by_finite_volumes_from_a_scalar(seed: int) -> None:
    errors = [darcy_gap(n, seed) for n in (16, 32, 64)]
    assert errors[-1] <= 5e-3
    assert np.log2(errors[0] / errors[-1]) / 2 >= 1.8


def line_matrices(values: Tensor, side: float = 1.0) -> tuple[Any, Any, Any]:
    """Return stiffness with advection and reaction, mass, and load of linear elements for constants (n + 1, C)."""
    n = len(values) - 1
    h = side / n
    a, b, c, f, m = (values[:, k].numpy() for k in range(5))
    mid = lambda v: (v[1:] + v[:-1]) / 2  # noqa: E731
    upper = -mid(a) / h + mid(b) / 2 + h * mid(c) / 6
    lower = -mid(a) / h - mid(b) / 2 + h * mid(c) / 6
    own = np.zeros(n + 1)
    own[1:] += mid(a) / h + mid(b) / 2 + h * mid(c) / 3
    own[:-1] += mid(a) / h - mid(b) / 2 + h * mid(c) / 3
    stiffness = sparse.diags([lower, own, upper], [-1, 0, 1]).tocsc()[1:-1, 1:-1]
    return stiffness, sparse.diags(h * m[1:-1]).tocsc(), h * f[1:-1]


def line_coefficients(x: Tensor) -> Tensor:
    s = x[..., 0]
    return torch.stack([1.5 + torch.sin(4 * s), torch.cos(3 * s), 1 + s, 5 * torch.sin(6 * s) + 2, 1 + 0.5 * s**2], -1)


def heated(values: Tensor, start: Tensor, steps: int = 200) -> Tensor:
    """Return u (n + 1,) at t = 0.1 of ``m u_t = (a u')' - b u' - c u + f`` by Crank and Nicolson."""
    stiffness, mass, load = line_matrices(values)
    h, u = 0.1 / steps, start.numpy().copy()[1:-1]
    left = splu((mass + h / 2 * stiffness).tocsc())
    for _ in range(steps):
        u = left.solve((mass - h / 2 * stiffness) @ u + h * load)
    return torch.from_numpy(np.concatenate([[0.0], u, [0.0]]))


@pytest.mark.parametrize("seed", range(5))
def test_so_it_does_in_time_where_the_mass_factor_changes_too(seed: int) -> None:
    errors = []
    for n in (32, 64, 128):
        x = grid(1, n)
        constants, start = line_coefficients(x), torch.sin(torch.pi * x[:, 0])
        end = heated(constants, start)
        given = batch(spec(1, n + 1, times=2), x, end[None], constants[None])
        given = replace(given, x=start[None, None, :, None])
        found = Covariance("a", "b", "c", "f", "m", strength=0.6)(given, Stream(seed))
        assert found.constants is not None
        moved, again = found.target[0, 0, :, 0], heated(found.constants[0], found.x[0, 0, :, 0])
        errors.append(float((again - moved).norm() / moved.norm()))
    assert errors[1] <= 5e-3
    assert np.log2(errors[0] / errors[-1]) / 2 >= 1.8


@pytest.mark.parametrize("periodic", [(False, False), (True, True), (True, False)])
def test_maps_keep_every_side_and_do_not_fold(periodic: tuple[bool, bool]) -> None:
    x = grid(2, 40)
    strength = 0.59 if not any(periodic) else 0.33
    places, slopes = random_maps(x, 200, Stream(0), strength, 3, periodic)
    assert float(torch.linalg.det(slopes).min()) > 0
    for i in (0, 1):
        low, high = places[..., i].select(1 + i, 0), places[..., i].select(1 + i, -1)
        assert float(low.abs().max()) < 1e-14
        assert float((high - 1).abs().max()) < 1e-14
        if periodic[1 - i]:
            first, last = places[..., i].select(2 - i, 0), places[..., i].select(2 - i, -1)
            assert float((first - last).abs().max()) < 1e-14


def test_slopes_are_those_of_the_maps() -> None:
    x, step = grid(2, 10)[1:-1, 1:-1], 1e-5
    _, slopes = random_maps(x, 3, Stream(4), 0.5, 3, (False, True))
    for j in (0, 1):
        by = step * torch.eye(2, dtype=torch.float64)[j]
        ahead, behind = (random_maps(x + sign * by, 3, Stream(4), 0.5, 3, (False, True))[0] for sign in (1, -1))
        assert float(((ahead - behind) / (2 * step) - slopes[..., j]).abs().max()) < 1e-8  # step^2 X''' / 6


@pytest.mark.parametrize("boundary", ["wall", "periodic"])
def test_interpolation_is_of_fourth_order(boundary: str) -> None:
    errors = []
    for n in (16, 32, 64):
        offset = 0.0 if boundary == "periodic" else 0.5
        line = (torch.arange(n, dtype=torch.float64) + offset) / n
        x = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1)
        field = lambda x: torch.sin(2 * torch.pi * x[..., 0]) * torch.cos(2 * torch.pi * x[..., 1])  # noqa: E731
        of = replace(spec(2, n, boundary=boundary), fields=(FieldSpec("u"),))
        given = replace(batch(of, x, field(x)[None], x[None]), constants=None)
        found = Covariance(None, strength=0.3)(given, Stream(1)).target[0, 0, ..., 0]
        places = random_maps(x, 1, Stream(1).child("covariance"), 0.3, 2, (boundary == "periodic",) * 2)[0]
        errors.append(float((found - field(places[0])).abs().max()))
    assert np.log2(errors[0] / errors[-1]) / 2 > 3.5


def small() -> Batch:
    x = grid(2, 8)
    return batch(spec(2, 9), x, torch.stack([x[..., 0]] * 2), torch.stack([coefficients(x)] * 2))


def test_each_case_has_its_map_and_a_seed_gives_it_again() -> None:
    first, again, other = (ALL(small(), rng).target for rng in (0, 0, 1))
    assert torch.equal(first, again)
    assert float((first - other).abs().max()) > 1e-3
    assert float((first[0] - first[1]).abs().max()) > 1e-3


def test_a_scalar_becomes_a_tensor_and_stays_symmetric() -> None:
    given = small()
    assert given.constants is not None
    scalar = replace(
        given,
        spec=replace(given.spec, fields=(FieldSpec("u"), FieldSpec("a", varies=False))),
        constants=given.constants[..., :1],
    )
    with pytest.raises(InvalidInput, match=r"a has order 0, in its role it needs 2; see with_tensor"):
        Covariance()(scalar, 0)
    tensor = with_tensor(scalar, "a")
    assert tensor.constants is not None
    assert torch.equal(tensor.constants[..., 0], given.constants[..., 0])
    assert float(tensor.constants[..., 1:3].abs().max()) == 0
    found = Covariance()(tensor, 0).constants
    assert found is not None
    assert float((found[..., 1] - found[..., 2]).abs().max()) < 1e-14
    assert float(found[..., 1].abs().max()) > 1e-2
    determinant = found[..., 0] * found[..., 3] - found[..., 1] * found[..., 2]
    alone = Covariance(None, carried=("a",))(scalar, 0).constants
    assert alone is not None
    assert float((determinant - alone[..., 0] ** 2).abs().max()) < 1e-9  # |J|^2 |J|^-2 a^2
    with pytest.raises(InvalidInput, match="no constant scalar field 'k'"):
        with_tensor(scalar, "k")


def test_what_does_not_fit_is_refused() -> None:
    given = small()
    with pytest.raises(InvalidInput, match="strength lies between 0 and 1"):
        Covariance(strength=1.0)
    with pytest.raises(InvalidInput, match=r"could fold the plane here; take less than 0\.6"):
        replace(ALL, strength=0.7)(given, 0)
    with pytest.raises(InvalidInput, match="say what b, c, f is in the equation"):
        Covariance()(given, 0)
    with pytest.raises(InvalidInput, match="no constant field 'k'; it has a, b, c, f"):
        Covariance("k")(given, 0)
    with pytest.raises(InvalidInput, match="without a mask"):
        ALL(replace(given, mask=torch.ones(9, 9, dtype=torch.bool)), 0)
    with pytest.raises(InvalidInput, match="the unknowns must be scalars"):
        ALL(replace(given, spec=replace(given.spec, fields=(FieldSpec("u", 1), *given.spec.fields[1:]))), 0)
    with pytest.raises(InvalidInput, match="name the field that multiplies u_t as `mass`"):
        ALL(replace(given, spec=replace(given.spec, times=3)), 0)
    with pytest.raises(InvalidInput, match="uniform grid"):
        ALL(replace(given, coordinates=given.coordinates**2), 0)
