import numpy as np
import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline.meshes import interpolation, pod
from isocline.meshes.mesh import Array
from tests.meshes.shapes import disc, square, star


def linear(x: Array) -> Array:
    return np.asarray(1 + 2 * x[:, 0] - 3 * x[:, 1])


def test_linear_fields_are_exact_inside_and_rows_sum_to_one() -> None:
    mesh = star(0)
    wanted = 0.6 * disc(30, 0.11, rng=3).points
    way = interpolation(mesh, wanted)
    assert np.abs(way @ linear(mesh.points.numpy()) - linear(wanted.numpy())).max() < 1e-13
    assert np.abs(way.sum(1) - 1).max() < 1e-14
    assert way.min() >= -1e-12


def test_vertices_keep_their_values() -> None:
    mesh = star(1)
    values = np.random.default_rng(0).standard_normal(len(mesh))
    assert np.abs(interpolation(mesh, mesh.points) @ values - values).max() < 1e-10


def test_outside_the_nearest_place_of_the_boundary_counts() -> None:
    mesh = square(4)
    outside = torch.tensor([[1.5, 0.3], [-0.2, -0.7], [0.6, 1.0 + 1e-9]], dtype=torch.float64)
    expected = linear(np.array([[1, 0.3], [0, 0], [0.6, 1]]))
    assert np.abs(interpolation(mesh, outside) @ linear(mesh.points.numpy()) - expected).max() < 1e-8


def test_smooth_fields_there_and_back_converge_at_second_order() -> None:
    errors = []
    for n in (8, 16, 32):
        mesh, other = square(n), square(3 * n // 2)
        field = np.sin(3 * mesh.points.numpy()).prod(1)
        back = interpolation(other, mesh.points) @ (interpolation(mesh, other.points) @ field)
        errors.append(np.sqrt(np.mean((back - field) ** 2)))
    assert np.log2(errors[0] / errors[2]) / 2 > 1.8


def test_places_must_be_pairs() -> None:
    with pytest.raises(InvalidInput, match="places are"):
        interpolation(square(2), torch.zeros(4, 3))


def test_modes_are_orthonormal_in_the_mass_matrix_and_the_best_ones() -> None:
    mesh = star(3)
    x, y = mesh.points.T
    draw = torch.randn(12, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    snapshots = draw @ torch.stack([x, y, x * y, x.exp(), (3 * y).sin(), x**3])
    found = pod(snapshots, mesh.mass, 4)
    gram = found.modes.numpy() @ (mesh.mass @ found.modes.numpy().T)
    assert np.abs(gram - np.eye(4)).max() < 1e-11
    root = np.linalg.cholesky(mesh.mass.toarray())
    centred = (snapshots - snapshots.mean(0)).numpy() @ root
    singular = np.linalg.svd(centred, compute_uv=False)
    assert found.energies[:6].tolist() == pytest.approx((singular[:6] ** 2).tolist(), rel=1e-8)
    rest = (snapshots - found.fields(found.coefficients(snapshots))).numpy() @ root
    assert float((rest**2).sum()) == pytest.approx(float((singular[4:] ** 2).sum()), rel=1e-8)


def test_modes_end_where_the_snapshots_end() -> None:
    mesh = square(3)
    snapshots = torch.outer(torch.arange(5.0, dtype=torch.float64), mesh.points[:, 0])
    found = pod(snapshots, mesh.mass, 4)
    assert found.modes.shape == (1, len(mesh))
    with pytest.raises(InvalidInput, match="5 snapshots give 1 to 4 modes, not 5"):
        pod(snapshots, mesh.mass, 5)
