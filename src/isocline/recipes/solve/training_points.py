"""Which points a problem is trained on: drawn once, again every so many steps, or following the residual."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from isocline._core.errors import nearest, require
from isocline._core.stream import Stream
from isocline.equations import Problem
from isocline.objectives.residuals import INSIDE, OBSERVED, Batch, Block
from isocline.points import Box, Domain, Kept, PointSet, Sampler, Sobol, Uniform

Residual = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class TrainingPoints:
    """Where residuals are evaluated in training.

    Args:
        inside: sampler of the domain; or, for one that reads residuals, ``residual -> sampler``, for example
            ``lambda residual: RAD(residual, n=500, pool=5000)``.
        faces: sampler of all faces, or one for each label of the problem's parts.
        every: steps between draws; 0 keeps the first points, None leaves it to the optimiser. Points that have an ``update`` (R3)
            follow the residual of the step before, every so many steps.

    Examples:
        >>> from isocline.points import GoodLattice
        >>> TrainingPoints(GoodLattice(610), Sobol(64), every=1).every
        1
    """

    inside: Sampler | Callable[[Residual], Sampler]
    faces: Sampler | Mapping[str, Sampler]
    every: int | None = 0

    def __post_init__(self) -> None:
        require(
            self.every is None or self.every >= 0, f"points are drawn every 0 or more steps, got every={self.every}"
        )

    def on_face(self, label: str) -> Sampler:
        """Return the sampler of a part."""
        if not isinstance(self.faces, Mapping):
            return self.faces
        require(label in self.faces, f"no sampler for {label!r}. {nearest(label, self.faces)}")
        return self.faces[label]

    def sampler(self, residual: Residual) -> Sampler:
        """Return the sampler of the inside."""
        if hasattr(self.inside, "draw"):
            return self.inside
        made: Sampler = self.inside(residual)
        require(hasattr(made, "draw"), f"inside is a sampler or a function that makes one, got {type(made).__name__}")
        return made

    def draw(self, problem: Problem, residual: Residual, rng: Stream, dtype: torch.dtype) -> Batch:
        """Return points for all blocks of a problem."""
        batch = {INSIDE: block_of(self.sampler(residual).draw(problem.domain, rng.child(INSIDE)), dtype)}
        for part in problem.parts:
            drawn = part.face.draw(self.on_face(part.label), rng.child(part.label))
            batch[part.label] = block_of(drawn, dtype)
        if problem.observations:
            batch[OBSERVED] = observed(problem, dtype)
        return batch


def default_training_points(problem: Problem, n: int) -> TrainingPoints:
    """Return about `n` points inside and ``n^((d-1)/d)`` on each face, at least 16: scrambled Sobol points."""
    inside = power_of_two(n)
    faces = power_of_two(max(16, round(n ** (1 - 1 / problem.domain.d))))
    return TrainingPoints(rule_for(problem.domain, inside), Sobol(faces), every=None)


def rule_for(domain: Domain, n: int) -> Any:
    """Return a low-discrepancy rule of `n` points, a power of two, that the domain can take; random points where none can."""
    if not isinstance(domain, Box):
        try:
            domain.scale(torch.full((1, domain.d), 0.5, dtype=torch.float64))
        except ValueError:
            return Kept(Sobol(n))
    return Sobol(n) if domain.d <= 16 else Uniform(n)


def power_of_two(n: int) -> int:
    """Return the power of two nearest to `n` in ratio."""
    return 1 << max(0, round(torch.log2(torch.tensor(float(n))).item()))


def dtype_of(field: Any) -> torch.dtype:
    """Return the type of a field's parameters, float64 where it has none."""
    parameters = field.parameters() if isinstance(field, nn.Module) else iter(())
    return next((p.dtype for p in parameters), torch.float64)


def block_of(points: PointSet, dtype: torch.dtype) -> Block:
    """Return a point set as tensors by name."""
    block = {"x": points.x.to(dtype)}
    if points.w is not None:
        block["w"] = (points.w / points.w.mean()).to(dtype)  # volumes in many dimensions are no numbers of float32
    normals = getattr(points, "normals", None)
    if normals is not None and not bool((normals == normals[0]).all()):
        block["normals"] = normals.to(dtype)
    return block


def observed(problem: Problem, dtype: torch.dtype) -> Block:
    """Return all observations as one block."""
    every = problem.observations
    return {
        "x": torch.cat([o.points for o in every]).to(dtype),
        "values": torch.cat([o.values for o in every]).to(dtype),
        "component": torch.cat([torch.full((len(o.points),), float(o.component)) for o in every]).to(dtype),
    }
