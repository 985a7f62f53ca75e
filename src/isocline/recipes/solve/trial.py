"""What is trained: a field, the free parameters of its problem, and the points, which a checkpoint holds too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from isocline._core.errors import InvalidInput, require
from isocline._core.stream import Stream
from isocline.derivatives.tangent import pointwise_tangent
from isocline.equations import Problem, Values
from isocline.objectives import ResidualLoss
from isocline.objectives.residuals import INSIDE, Batch, Block
from isocline.optimizers import Evaluation
from isocline.points import PointSet
from isocline.recipes.solve.training_points import TrainingPoints, dtype_of
from isocline.training.settings import Part

ARGUMENTS = ("x", "normals", "values", "component")  # what a residual depends on; weights and gates are not part of it


class Trial(nn.Module):
    """A field on its way to a solution. Points are buffers, so that a run resumes to the same numbers.

    Args:
        problem: what shall hold.
        field: maps points (N, d) to (N, c).
        collocation: where.
        loss: of the same problem.
        rng: stream of the points.
    """

    averaged = False  # points are no weights
    drawn_at: Tensor
    seen_at: Tensor
    seen: Tensor
    gate: Tensor

    def __init__(
        self, problem: Problem, field: nn.Module, collocation: TrainingPoints, loss: ResidualLoss, rng: Stream
    ) -> None:
        super().__init__()
        self.problem, self.field, self.collocation, self.objective, self.rng = problem, field, collocation, loss, rng
        self.dtype = dtype_of(field)
        start = {
            name: nn.Parameter(torch.tensor(free.inverse(), dtype=self.dtype)) for name, free in problem.free.items()
        }
        self.free = nn.ParameterDict(start)
        self.keys: list[tuple[str, str]] = []
        self.register_buffer("drawn_at", torch.tensor(-1))
        self.register_buffer("seen_at", torch.tensor(-1))
        gate = getattr(collocation.inside, "gate", None)
        self.register_buffer("gate", torch.tensor(gate.position if gate else 0.0, dtype=torch.float64))
        self._keep(self._gated(collocation.draw(problem, self.residual, rng.child(0), self.dtype)), 0)
        self.register_buffer("seen", torch.zeros(0, 0, dtype=self.dtype))
        self.register_load_state_dict_pre_hook(_take_shapes)

    def values(self) -> Values:
        """Return the parameters of the equation as they are now."""
        return self.values_at(dict(self.free.items()))

    def values_at(self, variables: Mapping[str, Tensor]) -> Values:
        """Return the parameters of the equation for other variables of the free ones."""
        return self.problem.values({name: free.value(variables[name]) for name, free in self.problem.free.items()})

    def residual(self, x: Tensor) -> Tensor:
        """Return the residuals of the equation (N, k) at points (N, d), without gradients of parameters."""
        points = self.objective.directed({INSIDE: {"x": x.to(self.dtype)}}, self.rng.child("residual"))
        found = self.objective.blocks(self.field, points, self.values())
        return torch.stack(found[INSIDE], 1).detach()

    @property
    def points(self) -> Batch:
        """The points of all blocks."""
        batch: Batch = {}
        for index, (block, key) in enumerate(self.keys):
            batch.setdefault(block, {})[key] = getattr(self, f"points_{index}")
        return batch

    def batches(self, step: int, part: Part) -> Batch:
        """Return the points of a step; the same for all of its evaluations."""
        require(part.count == 1, "the points of a problem are one batch: use one device and accumulate=1")
        every = self.collocation.every
        if every and step % every == 0 and step > int(self.drawn_at):
            self._redraw(step)
        return self.batch(step)

    def batch(self, step: int) -> Batch:
        """Return the points there are, with what the loss draws for a step."""
        return self.objective.directed(self.points, self.rng.child("directions").child(step))

    def loss(self, network: nn.Module, batch: Batch, step: int, part: Part) -> Evaluation:
        """Return the loss on the points of a step."""
        blocks = self.objective.blocks(self.field, batch, self.values())
        self.note(torch.stack(blocks[INSIDE], 1).detach(), step)
        found = self.objective.gathered(blocks, batch)
        return replace(found, jacobian=lambda parameters: self.jacobian(batch, parameters))

    def note(self, residual: Tensor, step: int) -> None:
        """Keep the residuals (N, k) of the first evaluation of a step, where points follow them."""
        if self._follows and step > int(self.seen_at):
            self.seen, self.seen_at = residual, torch.tensor(step)

    def forward(self, block: Block, name: str) -> Tensor:
        """Return the residuals (N, k) of one block."""
        return torch.stack(self.objective.block(self.field, name, block, self.values()), 1)

    def jacobian(self, batch: Batch, parameters: Sequence[Tensor]) -> Tensor:
        """Return the derivatives (M, P) of all residuals by parameters, point by point."""
        found = []
        for name in self.objective.wanted(batch):
            block = {key: value for key, value in batch[name].items() if key in ARGUMENTS}
            rows = pointwise_tangent(partial(_called, name), self, block, parameters)
            found.append(rows.transpose(0, 1).flatten(0, 1))
        return torch.cat(found)

    @property
    def _follows(self) -> bool:
        """Whether points follow the residual of the step before."""
        return hasattr(self.collocation.inside, "update")

    @property
    def _sampler(self) -> Any:
        """The sampler of the inside, its gate where it is now."""
        sampler: Any = self.collocation.inside
        gate = getattr(sampler, "gate", None)
        return sampler if gate is None else replace(sampler, gate=replace(gate, position=float(self.gate)))

    def _gated(self, batch: Batch) -> Batch:
        gate = getattr(self._sampler, "gate", None)
        if gate is None:
            return batch
        x = batch[INSIDE]["x"]
        weights = gate.weights(PointSet(x.double()), self.problem.domain).to(x)
        return {**batch, INSIDE: {**batch[INSIDE], "gate": weights}}

    def _redraw(self, step: int) -> None:
        rng = self.rng.child(step)
        if not self._follows:
            self._keep(self.collocation.draw(self.problem, self.residual, rng, self.dtype), step)
            return
        batch, sampler, domain = self.points, self._sampler, self.problem.domain
        before = PointSet(batch[INSIDE]["x"].double())
        moved = sampler.update(before, self.seen, domain, rng)
        if hasattr(sampler, "next_gate"):
            position = sampler.next_gate(before, self.seen, domain).gate.position
            self.gate = torch.tensor(position, dtype=torch.float64)
        self._keep(self._gated({**batch, INSIDE: {"x": moved.x.to(self.dtype)}}), step)

    def _keep(self, batch: Batch, step: int) -> None:
        self.keys = [(block, key) for block, tensors in batch.items() for key in tensors]
        for index, (block, key) in enumerate(self.keys):
            self.register_buffer(f"points_{index}", batch[block][key])
        self.drawn_at = torch.tensor(step)


def _called(name: str, trial: Any, block: Block) -> Tensor:
    """Return the residuals of a block as a trial with other parameters has them."""
    found: Tensor = trial(block, name)
    return found


def _take_shapes(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Let buffers take the shapes of a checkpoint: the number of points may change from draw to draw."""
    for name, value in state.items():
        own = name.removeprefix(prefix)
        if own.startswith(("points_", "seen")) and hasattr(module, own):
            setattr(module, own, value.clone())


def check_field(problem: Problem, field: Any) -> None:
    """Refuse what does not map points of the problem to its unknowns."""
    require(callable(field), f"the network maps points (N, d) to (N, c), got {type(field).__name__}")
    x = problem.domain.bounds[0].to(dtype_of(field)).expand(2, -1)
    try:
        with torch.no_grad():
            found = field(x)
    except Exception as error:
        raise InvalidInput(
            f"the network cannot take points (N, {problem.domain.d}) of {problem.name}: {error}"
        ) from error
    fits = isinstance(found, Tensor) and found.shape == (2, problem.components)
    shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
    require(fits, f"the network maps 2 points to {shape}; {problem.name} has {problem.components} unknowns: (2, c)")
