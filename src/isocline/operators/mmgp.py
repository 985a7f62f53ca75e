r"""MMGP: mesh morphing, modes and Gaussian processes, for few simulations on meshes of different shapes.

Casenave, Staber & Roynard 2023 (arXiv 2305.12871). Every mesh is put on the unit disc by Floater's map, boundary first, corners to
the same places. The mesh of the median shape on the disc is the common one. There, after linear interpolation,

- the coordinates of the vertices are two fields, whose modes give the features a of a shape;
- every output field has modes of its own, orthonormal in the finite element mass matrix, with coefficients c;
- Gaussian processes take (a, inputs) to c, one for each mode, and to every output number.

A prediction draws coefficients, adds them up on the common mesh, and interpolates back to the mesh asked for. What fields lose by
modes and by the two interpolations is measured on the given runs, and counts as independent noise at each vertex.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from scipy import sparse
from torch import Tensor

from isocline._core import files
from isocline._core.errors import BadFile, require
from isocline._core.registry import Method
from isocline._core.stream import Stream, as_stream
from isocline.meshes import Mesh, MeshRun, Modes, corner_fractions, interpolation, pod, to_disc
from isocline.operators.gaussian_process import GaussianProcess

METHOD = Method(
    "mmgp",
    "MMGP",
    "MMGP: a Mesh Morphing Gaussian Process-based machine learning method for regression of physical problems under "
    "non-parameterized geometrical variability",
    "Casenave, Staber, Roynard",
    2023,
    "2305.12871",
    room="operators",
    when="some dozens to hundreds of simulations, each on a mesh of its own, and intervals are wanted.",
)
KIND = "isocline.mmgp"


@dataclass(frozen=True, eq=False)
class Predicted:
    """What is predicted for one field or number.

    Attributes:
        mean: (N,), or a scalar tensor for a number.
        std: standard deviation, likewise.
        draws: (S, N) or (S,).
    """

    mean: Tensor
    std: Tensor
    draws: Tensor

    def interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """Return lower and upper ends of the central interval of the draws."""
        require(0 < level < 1, f"an interval's level lies between 0 and 1, got {level}")
        tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=self.draws.dtype)
        low, high = self.draws.quantile(tails, dim=0)
        return low, high


@dataclass(frozen=True, eq=False)
class FieldModel:
    """An output field on the common mesh.

    Attributes:
        modes: its basis.
        lost: variance of what modes and interpolation lose, (N,).
        process: from features to coefficients.
    """

    modes: Modes
    lost: Tensor
    process: GaussianProcess


@METHOD.variant()
@dataclass(frozen=True, eq=False)
class MMGP:
    """A surrogate of simulations on meshes of one family: deformed discs with corners that correspond.

    Attributes:
        common: the common mesh, on the unit disc.
        at: where corners lie on the circle, parts of a turn.
        shape: modes of both coordinates, (K, 2 N).
        inputs: names of the inputs.
        fields: by name.
        scalars: names of output numbers.
        process: from features to output numbers; None where there are none.
    """

    common: Mesh
    at: tuple[float, ...]
    shape: Modes
    inputs: tuple[str, ...]
    fields: Mapping[str, FieldModel]
    scalars: tuple[str, ...]
    process: GaussianProcess | None

    @classmethod
    def fit(
        cls,
        runs: Sequence[MeshRun],
        *,
        shape_modes: int = 8,
        field_modes: int = 16,
        restarts: int = 3,
        rng: Stream | int = 0,
    ) -> MMGP:
        """Return the surrogate of runs.

        Args:
            runs: with the same names of inputs, fields and scalars.
            shape_modes: features of a shape, at most.
            field_modes: coefficients of a field, at most.
            restarts: of the maximisation of each marginal likelihood.
            rng: of the restarts.

        Raises:
            InvalidInput: too few runs, names that differ, or a mesh that is not a deformed disc with the same corners.
        """
        _require_alike(runs, shape_modes, field_modes)
        stream = as_stream(rng, "mmgp")
        at = _common_places([run.mesh for run in runs])
        discs = [to_disc(run.mesh, at) for run in runs]
        common = discs[_median(runs, discs)]
        there = [interpolation(disc, common.points) for disc in discs]
        back = [interpolation(common, disc.points) for disc in discs]
        coordinates = torch.stack([_coordinates(run.mesh, way) for run, way in zip(runs, there, strict=True)])
        shape = pod(coordinates, sparse.block_diag([common.mass] * 2).tocsr(), shape_modes)
        names = _names(runs[0])
        features = torch.cat([shape.coefficients(coordinates), _numbers([run.inputs for run in runs], names[0])], 1)
        fields = {}
        for name in names[1]:
            values = [run.fields[name].double() for run in runs]
            moved = torch.stack([_apply(way, value) for way, value in zip(there, values, strict=True)])
            modes = pod(moved, common.mass, field_modes)
            coefficients = modes.coefficients(moved)
            process = GaussianProcess.fit(features, coefficients, restarts=restarts, rng=stream.child(name))
            fields[name] = FieldModel(modes, _lost(values, modes.fields(coefficients), there, back), process)
        found = _numbers([run.scalars for run in runs], names[2])
        scalars = GaussianProcess.fit(features, found, restarts=restarts, rng=stream.child("/")) if names[2] else None
        return cls(common, at, shape, names[0], fields, names[2], scalars)

    def features(self, run: MeshRun) -> Tensor:
        """Return features of the shape, then the inputs, (1, D).

        Raises:
            InvalidInput: other inputs, or a mesh of another family.
        """
        return self._read(run)[0]

    def predict(self, run: MeshRun, *, samples: int = 256, rng: Stream | int = 0) -> dict[str, Predicted]:
        """Return fields on the mesh of a run and numbers, by name, from its geometry and inputs alone.

        Args:
            run: its fields and scalars are not read.
            samples: draws.
            rng: of the draws.

        Raises:
            InvalidInput: other inputs, a mesh of another family, or fewer than two samples.
        """
        require(samples >= 2, f"at least two samples are drawn, got {samples}")
        stream = as_stream(rng, "mmgp")
        features, disc = self._read(run)
        back = interpolation(self.common, disc.points)
        found = {
            name: _drawn(field, features, back, samples, stream.child(name)) for name, field in self.fields.items()
        }
        if self.process is not None:
            mean, std = self.process.predict(features)
            draws = mean + std * stream.child("/").normal((samples, len(self.scalars)), dtype=torch.float64)
            for k, name in enumerate(self.scalars):
                found[name] = Predicted(mean[0, k], std[0, k], draws[:, k])
        return found

    def representation(self, run: MeshRun) -> dict[str, tuple[Tensor, Tensor]]:
        """Return, for each known field of a run, what comes back from the common mesh: by interpolation alone, and by modes.

        The first shows the error of both interpolations, the second adds what modes leave out; neither has to do with learning.
        """
        _, disc = self._read(run)
        there, back = interpolation(disc, self.common.points), interpolation(self.common, disc.points)
        found = {}
        for name in sorted(set(self.fields) & set(run.fields)):
            moved, modes = _apply(there, run.fields[name].double()), self.fields[name].modes
            kept = modes.fields(modes.coefficients(moved.unsqueeze(0)))[0]
            found[name] = (_apply(back, moved), _apply(back, kept))
        return found

    def _read(self, run: MeshRun) -> tuple[Tensor, Mesh]:
        _require_names("inputs", run.inputs, self.inputs)
        corners = len(run.mesh.corners)
        require(corners == len(self.common.corners), f"meshes have {len(self.common.corners)} corners, got {corners}")
        disc = to_disc(run.mesh, self.at)
        coordinates = _coordinates(run.mesh, interpolation(disc, self.common.points))
        shape = self.shape.coefficients(coordinates.unsqueeze(0))
        return torch.cat([shape, _numbers([run.inputs], self.inputs)], 1), disc

    def save(self, folder: str | Path) -> Path:
        """Write ``mmgp.safetensors`` and ``mmgp.json`` into a folder, and return it.

        Raises:
            CannotWrite: the folder cannot be written to.
        """
        tensors = {"common.points": self.common.points, "common.triangles": self.common.triangles}
        tensors |= _packed("shape", self.shape)
        for name, field in self.fields.items():
            tensors |= _packed(f"fields.{name}", field.modes) | {f"fields.{name}.lost": field.lost}
            tensors |= {f"fields.{name}.process.{key}": value for key, value in field.process.tensors().items()}
        if self.process is not None:
            tensors |= {f"process.{key}": value for key, value in self.process.tensors().items()}
        names = {"inputs": self.inputs, "fields": tuple(self.fields), "scalars": self.scalars}
        facts = {"kind": KIND, "at": self.at, "corners": self.common.corners, **names}
        files.write_tensors(Path(folder) / "mmgp.safetensors", tensors, {"kind": KIND})
        files.write_json(Path(folder) / "mmgp.json", facts)
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> MMGP:
        """Return what `save` wrote.

        Raises:
            DataMissing: a file is not there.
            BadFile: a file is damaged or of another kind.
        """
        facts = files.read_json(Path(folder) / "mmgp.json")
        tensors, _ = files.read_tensors(Path(folder) / "mmgp.safetensors")
        if not isinstance(facts, dict) or facts.get("kind") != KIND:
            raise BadFile(f"{folder} does not hold a surrogate of MMGP; write it with MMGP.save")
        try:
            fields = {name: _field(tensors, f"fields.{name}") for name in facts["fields"]}
            process = GaussianProcess.of(_below(tensors, "process")) if facts["scalars"] else None
            common = Mesh(tensors["common.points"], tensors["common.triangles"], tuple(facts["corners"]))
            names = (tuple(facts["inputs"]), fields, tuple(facts["scalars"]))
            return cls(common, tuple(facts["at"]), _unpacked(tensors, "shape"), *names, process)
        except (KeyError, TypeError) as error:
            raise BadFile(f"{folder}: {error} is missing from the surrogate; save it again") from error


def _drawn(field: FieldModel, features: Tensor, back: sparse.csr_matrix, samples: int, rng: Stream) -> Predicted:
    """Return a field on the mesh that `back` leads to, with draws of its coefficients and of what they leave out."""
    mean, std = field.process.predict(features)
    normal = rng.child("coefficients").normal((samples, mean.shape[1]), dtype=torch.float64)
    modes = _apply(back, field.modes.modes)
    middle = _apply(back, field.modes.fields(mean)[0])
    lost = _apply(back, field.lost).clamp(min=0)
    noise = rng.child("lost").normal((samples, len(middle)), dtype=torch.float64)
    draws = middle + (std * normal) @ modes + lost.sqrt() * noise
    return Predicted(middle, ((std.square() @ modes.square())[0] + lost).sqrt(), draws)


def _lost(
    values: Sequence[Tensor], kept: Tensor, there: Sequence[sparse.csr_matrix], back: Sequence[sparse.csr_matrix]
) -> Tensor:
    """Return the mean square of fields minus what comes back of them, (N,) on the common mesh."""
    total = torch.zeros_like(kept[0])
    for value, field, forth, home in zip(values, kept, there, back, strict=True):
        total += _apply(forth, (value - _apply(home, field)).square())
    return total / len(kept)


def _median(runs: Sequence[MeshRun], discs: Sequence[Mesh]) -> int:
    """Return which shape has the least sum of distances to the others, in the mass matrix of the first disc."""
    ways = (interpolation(disc, discs[0].points) for disc in discs)
    x = torch.stack([_coordinates(run.mesh, way) for run, way in zip(runs, ways, strict=True)])
    weights = torch.from_numpy(discs[0].mass.sum(1)).flatten().repeat(2).sqrt()
    return int(torch.cdist(x * weights, x * weights).sum(1).argmin())


def _common_places(meshes: Sequence[Mesh]) -> tuple[float, ...]:
    """Return the mean places of corners along the boundary."""
    return tuple(torch.stack([corner_fractions(mesh) for mesh in meshes]).mean(0).tolist())


def _coordinates(mesh: Mesh, way: sparse.csr_matrix) -> Tensor:
    """Return both coordinates as one field on the common mesh, (2 N,)."""
    return _apply(way, mesh.points.T).flatten()


def _apply(way: sparse.csr_matrix, values: Tensor) -> Tensor:
    """Return fields (..., M) of fields (..., N)."""
    found = way @ values.detach().double().reshape(-1, values.shape[-1]).numpy().T
    return torch.from_numpy(found.T.copy()).reshape(*values.shape[:-1], -1)


def _numbers(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> Tensor:
    return torch.tensor([[float(row[name]) for name in names] for row in rows], dtype=torch.float64).reshape(
        len(rows), len(names)
    )


def _names(run: MeshRun) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    return tuple(sorted(run.inputs)), tuple(sorted(run.fields)), tuple(sorted(run.scalars))


def _require_alike(runs: Sequence[MeshRun], shape_modes: int, field_modes: int) -> None:
    least = max(shape_modes, field_modes) + 2
    require(shape_modes >= 1 and field_modes >= 1, "at least one mode is kept for shapes and for fields")
    require(len(runs) >= least, f"{least} runs or more are needed for that many modes, got {len(runs)}")
    inputs, fields, scalars = _names(runs[0])
    corners = len(runs[0].mesh.corners)
    require(corners >= 1, "meshes need corners: vertices of the boundary that correspond to each other, at least one")
    require(bool(fields or scalars), "the runs have neither fields nor scalars to learn")
    for i, run in enumerate(runs):
        _require_names(f"inputs of run {i}", run.inputs, inputs)
        _require_names(f"fields of run {i}", run.fields, fields)
        _require_names(f"scalars of run {i}", run.scalars, scalars)
        own = len(run.mesh.corners)
        require(own == corners, f"the mesh of run {i} has {own} corners, that of run 0 has {corners}")


def _require_names(what: str, given: Iterable[str], wanted: Sequence[str]) -> None:
    missing, unknown = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    require(not missing, f"{what}: {', '.join(missing)} missing; they are {', '.join(wanted)}")
    require(not unknown, f"{what}: {', '.join(unknown)} unknown; they are {', '.join(wanted) or 'none'}")


def _packed(name: str, modes: Modes) -> dict[str, Tensor]:
    return {f"{name}.{key}": getattr(modes, key) for key in modes.__dataclass_fields__}


def _unpacked(tensors: Mapping[str, Tensor], name: str) -> Modes:
    return Modes(**{key: tensors[f"{name}.{key}"] for key in Modes.__dataclass_fields__})


def _field(tensors: Mapping[str, Tensor], name: str) -> FieldModel:
    process = GaussianProcess.of(_below(tensors, f"{name}.process"))
    return FieldModel(_unpacked(tensors, name), tensors[f"{name}.lost"], process)


def _below(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key[len(name) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{name}.")}
