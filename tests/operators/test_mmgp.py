from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import spsolve

from isocline._core.errors import BadFile, DataMissing, InvalidInput
from isocline.meshes import Mesh, MeshRun
from isocline.operators.mmgp import MMGP
from tests.meshes.shapes import disc, polygon


def family(seed: int, low: float = 0.0, high: float = 0.12) -> Mesh:
    """Return a mesh of a star of three random numbers of sizes in a range; its vertices do not correspond to others'."""
    turn, draw = 2 * np.pi * np.arange(48) / 48, np.random.default_rng(seed)
    a, b, c = draw.uniform(low, high, 3) * draw.choice([-1, 1], 3)
    return polygon(1 + a * np.cos(turn) + b * np.sin(2 * turn) + c * np.cos(3 * turn), 4, 0.15, seed)


def poisson(mesh: Mesh, source: float) -> MeshRun:
    """Return the solution of ``-Delta u = 1 + s x``, 0 at the boundary, and its integral."""
    right = mesh.mass @ (1 + source * mesh.points[:, 0].numpy())
    inner = np.setdiff1d(np.arange(len(mesh)), mesh.loop.numpy())
    u = np.zeros(len(mesh))
    u[inner] = spsolve(mesh.stiffness[inner][:, inner].tocsc(), right[inner])
    fields = {"u": torch.from_numpy(u)}
    return MeshRun(mesh, {"source": source}, fields, {"integral": float((mesh.mass @ u).sum())})


@cache
def runs(first: int, n: int) -> list[MeshRun]:
    sources = np.random.default_rng(first).uniform(-1, 1, n)
    return [poisson(family(first + i), float(s)) for i, s in enumerate(sources)]


@cache
def fitted() -> MMGP:
    return MMGP.fit(runs(0, 50), shape_modes=6, field_modes=8, restarts=1)


def _outputs(run: MeshRun) -> tuple[Any, Any]:
    return run.fields, run.scalars


def relative(found: torch.Tensor, truth: torch.Tensor) -> float:
    return float((found - truth).norm() / truth.norm())


def test_fields_and_numbers_of_unseen_shapes() -> None:
    errors, inside, numbers, truths = [], [], [], []
    for run in runs(1000, 20):
        found = fitted().predict(run)
        low, high = found["u"].interval(0.9)
        errors.append(relative(found["u"].mean, run.fields["u"]))
        interior = np.setdiff1d(np.arange(len(run.mesh)), run.mesh.loop.numpy())
        covered = (run.fields["u"] >= low) & (run.fields["u"] <= high)
        inside.append(float(covered[interior].double().mean()))
        numbers.append(float(found["integral"].mean))
        truths.append(run.scalars["integral"])
    spread = np.square(np.array(truths) - np.mean(truths)).sum()
    assert np.median(errors) < 0.03
    assert 1 - np.square(np.array(numbers) - truths).sum() / spread > 0.98
    assert 0.8 <= np.mean(inside) <= 0.97


def test_the_answer_is_not_read() -> None:
    run = runs(1000, 20)[0]
    bare = MeshRun(run.mesh, run.inputs)
    assert torch.equal(fitted().predict(bare)["u"].mean, fitted().predict(run)["u"].mean)


def test_draws_have_the_mean_and_the_spread_that_are_given() -> None:
    found = fitted().predict(runs(1000, 20)[1], samples=4000)["u"]
    spread = found.std[found.std > 0]  # it is 0 where u is 0, at the boundary
    gaps, stds = (found.draws.mean(0) - found.mean)[found.std > 0], found.draws.std(0)[found.std > 0]
    assert len(spread) == len(found.std) - 48
    assert float((gaps / spread).abs().max()) < 0.1
    assert float((stds / spread - 1).abs().max()) < 0.07
    low, high = found.interval(0.9)
    assert float(((high - low)[found.std > 0] / spread / 3.29 - 1).abs().max()) < 0.15


def test_the_median_shape_is_the_common_mesh_and_loses_nothing_by_interpolation() -> None:
    gaps = []
    for run in (r for r in runs(0, 50) if torch.equal(r.mesh.triangles, fitted().common.triangles)):
        gaps.append(float((fitted().representation(run)["u"][0] - run.fields["u"]).abs().max()))
    assert len(gaps) == 1
    assert gaps[0] < 1e-12


def test_the_numbering_of_vertices_does_not_matter() -> None:
    run = runs(1000, 20)[3]
    order = torch.randperm(len(run.mesh), generator=torch.Generator().manual_seed(0))
    place = torch.argsort(order)
    corners = tuple(int(place[c]) for c in run.mesh.corners)
    mixed = Mesh(run.mesh.points[order], place[run.mesh.triangles], corners)
    found = fitted().predict(MeshRun(mixed, run.inputs))["u"].mean
    assert float((found[place] - fitted().predict(run)["u"].mean).abs().max()) < 1e-9


def test_shapes_unlike_those_seen_have_wider_intervals() -> None:
    near = np.median([float(fitted().predict(run)["u"].std.mean()) for run in runs(1000, 20)])
    far = [
        float(fitted().predict(MeshRun(family(2000 + i, 0.24, 0.28), {"source": 0.0}))["u"].std.mean())
        for i in range(9)
    ]
    assert np.median(far) > 1.5 * near


def test_it_comes_back_from_its_folder(tmp_path: Path) -> None:
    run = runs(1000, 20)[4]
    fitted().save(tmp_path / "model")
    again = MMGP.load(tmp_path / "model")
    for name, found in fitted().predict(run, rng=3).items():
        assert torch.equal(found.draws, again.predict(run, rng=3)[name].draws)
    assert again.inputs == ("source",)
    with pytest.raises(DataMissing):
        MMGP.load(tmp_path)
    (tmp_path / "model" / "mmgp.safetensors").write_bytes(b"no")
    with pytest.raises(BadFile, match="truncated"):
        MMGP.load(tmp_path / "model")


def test_one_corner_and_runs_without_fields_do() -> None:
    plain = [MeshRun(Mesh(r.mesh.points, r.mesh.triangles, (0,)), r.inputs, {}, r.scalars) for r in runs(0, 50)[:20]]
    found = MMGP.fit(plain, shape_modes=4, restarts=1, field_modes=4).predict(plain[0])
    assert list(found) == ["integral"]
    assert float(found["integral"].mean) == pytest.approx(plain[0].scalars["integral"], rel=0.1)


def test_shapes_alone_and_fields_alone_do(tmp_path: Path) -> None:
    bare = [MeshRun(r.mesh, {}, r.fields) for r in (poisson(family(i), 0.0) for i in range(20))]
    model = MMGP.fit(bare, shape_modes=4, field_modes=4, restarts=1)
    again = MMGP.load(model.save(tmp_path))
    found = again.predict(MeshRun(family(1000)), rng=1)
    assert list(found) == ["u"]
    same = model.predict(MeshRun(family(1000)), rng=1)["u"].draws
    torch.testing.assert_close(found["u"].draws, same, rtol=1e-9, atol=1e-12)  # products may depend on where arrays lie
    assert relative(found["u"].mean, poisson(family(1000), 0.0).fields["u"]) < 0.1


def test_what_does_not_fit_is_refused() -> None:
    known = runs(0, 50)
    with pytest.raises(InvalidInput, match="18 runs or more are needed for that many modes, got 17"):
        MMGP.fit(known[:17])
    with pytest.raises(InvalidInput, match="inputs: source missing; they are source"):
        fitted().predict(MeshRun(known[0].mesh))
    with pytest.raises(InvalidInput, match="inputs: speed unknown; they are source"):
        fitted().predict(MeshRun(known[0].mesh, {"source": 0.0, "speed": 1.0}))
    other = MeshRun(known[0].mesh, known[0].inputs, known[0].fields, {"drag": 1.0})
    with pytest.raises(InvalidInput, match="scalars of run 20: integral missing; they are integral"):
        MMGP.fit([*known[:20], other])
    bare = [MeshRun(Mesh(r.mesh.points, r.mesh.triangles), r.inputs, {}, r.scalars) for r in known[:20]]
    with pytest.raises(InvalidInput, match="meshes need corners"):
        MMGP.fit(bare)
    fewer = MeshRun(Mesh(known[0].mesh.points, known[0].mesh.triangles, (0,)), known[0].inputs, *_outputs(known[0]))
    with pytest.raises(InvalidInput, match="the mesh of run 20 has 1 corners, that of run 0 has 4"):
        MMGP.fit([*known[:20], fewer])
    plain = disc()
    with pytest.raises(InvalidInput, match="meshes have 4 corners, got 0"):
        fitted().predict(MeshRun(plain, {"source": 0.0}))
    holed = plain.triangles[plain.points[plain.triangles].mean(1).norm(dim=1) > 0.4]
    used, renamed = holed.unique(return_inverse=True)
    ring = Mesh(plain.points[used], renamed, tuple(range(0, 40, 10)))
    with pytest.raises(InvalidInput, match="without holes and in one piece"):
        fitted().predict(MeshRun(ring, {"source": 0.0}))
    with pytest.raises(InvalidInput, match="two samples"):
        fitted().predict(known[0], samples=1)
