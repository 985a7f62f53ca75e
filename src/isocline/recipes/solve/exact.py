"""A network that meets the conditions of a problem by construction, as far as they have an exact form."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from isocline._core.errors import require
from isocline._core.stream import Stream
from isocline.equations import Ball, Box, Dirichlet, Initial, Neumann, On, Periodic, Problem, Robin
from isocline.equations.conditions import Condition
from isocline.networks import Ansatz, BallAnsatz, HardDirichlet, HardInitial, PeriodicFeatures, ScaledFeatures
from isocline.objectives import ResidualLoss
from isocline.points import Uniform
from isocline.recipes.solve.training_points import block_of, dtype_of

HELD = 1e-5
Hard = HardDirichlet | HardInitial


class Exact(Ansatz):
    """A field that meets conditions of a problem.

    Attributes:
        met: the labels of the parts that hold by construction; `solve` leaves them out of the loss.
    """

    met: tuple[str, ...] = ()


def meeting(problem: Problem, body: nn.Module) -> Exact:
    """Return a field that meets values on faces of a box, initial data and periodicity exactly; the rest is left to the loss.

    Values that differ where faces meet cannot all be met by a continuous field: values on faces are then left to the loss.

    Args:
        problem: on a `Box`.
        body: maps `features_of` the problem (N, m) to (N, c).

    Raises:
        InvalidInput: the domain is no box.

    Examples:
        >>> import torch, isocline.equations as eq
        >>> problem = eq.Problem(Box(x=(0, 1)), lambda u, q, p: u.xx, [Dirichlet("x=low", 2.0), Neumann("x=high")])
        >>> field = meeting(problem, nn.Linear(1, 1).double())
        >>> field.met, float(field(torch.zeros(1, 1, dtype=torch.float64)).detach())
        (('x=0',), 2.0)
    """
    box = problem.domain
    if not isinstance(box, Box):
        require(False, f"conditions are met exactly on a Box only, got {type(box).__name__}")
        raise AssertionError
    chosen = [c for c in problem.conditions if _has_form(c, problem.conditions)]
    field = _built(problem, box, body, chosen)
    if all(_holds(problem, field, label) for label in field.met):
        return field
    return _built(problem, box, body, [c for c in chosen if not isinstance(c, Dirichlet)])


class ExactOnBall(BallAnsatz):
    """A field on a ball that meets numbers on its sphere.

    Attributes:
        met: the labels of the parts that hold by construction.
    """

    met: tuple[str, ...] = ()


def meeting_on_ball(problem: Problem, body: nn.Module) -> ExactOnBall | None:
    """Return a field that meets numbers on the sphere of a `Ball` exactly; None where other conditions are left.

    Args:
        problem: what shall hold.
        body: maps (N, d) to (N, c); see `BallAnsatz`.
    """
    values = {c.component: c.value for c in problem.conditions if isinstance(c, Dirichlet) and c.where == "sphere"}
    numbers = [v for _, v in sorted(values.items()) if isinstance(v, int | float)]
    if not isinstance(problem.domain, Ball) or not (len(problem.conditions) == len(numbers) == problem.components):
        return None
    field = ExactOnBall(body, problem.domain, tuple(float(v) for v in numbers))
    field.met = tuple(part.label for part in problem.parts)
    return field


def _built(problem: Problem, box: Box, body: nn.Module, chosen: Sequence[Condition]) -> Exact:
    field = Exact(body, features=features_of(problem), box=box, conditions=_hard(chosen))
    field.met = tuple(part.label for condition in chosen for part in condition.parts(box))
    return field


def _holds(problem: Problem, field: Exact, label: str) -> bool:
    """Whether a part is fulfilled at random points, to far below what training reaches."""
    (part,) = (part for part in problem.parts if part.label == label)
    points = part.face.draw(Uniform(64), Stream(0, "holds"))
    found = ResidualLoss(problem).block(field, label, block_of(points, dtype_of(field)), problem.values())
    return all(float(r.detach().abs().max()) < HELD for r in found)


def features_of(problem: Problem) -> nn.Sequential:
    """Return features of a box: scaled to [-1, 1], with cosines and sines of periodic axes."""
    box = problem.domain
    assert isinstance(box, Box)
    axes = [c.axis for c in problem.conditions if isinstance(c, Periodic)]
    scaled = Box(**dict.fromkeys(box.names, (-1.0, 1.0)))
    return nn.Sequential(ScaledFeatures(box), *([PeriodicFeatures(scaled, axes)] if axes else []))


def inputs_of(problem: Problem) -> int:
    """Return m, the number of features."""
    return problem.domain.d + sum(isinstance(c, Periodic) for c in problem.conditions)


def _has_form(condition: Condition, every: Sequence[Condition]) -> bool:
    """Whether a condition has an exact form beside the others: an initial velocity only with an initial value."""
    if isinstance(condition, Periodic):
        return True
    if isinstance(condition, Dirichlet):
        return isinstance(condition.where, str) and not _on("t", [condition.where]) and _alone(condition, every)
    if not isinstance(condition, Initial):
        return False
    same = [c for c in every if isinstance(c, Initial) and c.component == condition.component]
    return condition.derivative == 0 or (condition.derivative == 1 and any(c.derivative == 0 for c in same))


def _alone(condition: Dirichlet, every: Sequence[Condition]) -> bool:
    """Whether no other condition of the component is on the same axis, except a value on the other face."""
    assert isinstance(condition.where, str)
    axis = condition.where.split("=")[0]
    others = [c for c in every if c is not condition and isinstance(c, (Dirichlet, Neumann, Robin, On))]
    where = [str(c.where) for c in others if getattr(c, "component", condition.component) == condition.component]
    return condition.where not in where and axis not in where and not (condition.where == axis and _on(axis, where))


def _on(axis: str, where: Sequence[str]) -> bool:
    return any(place.split("=")[0] == axis for place in where)


def _hard(chosen: Sequence[Condition]) -> list[Hard]:
    found: list[Hard] = []
    for c in chosen:
        if isinstance(c, Dirichlet):
            assert isinstance(c.where, str)
            found.append(HardDirichlet(c.where, c.value, c.component))
        elif isinstance(c, Initial) and c.derivative == 0:
            speeds = [o for o in chosen if isinstance(o, Initial) and o.derivative == 1 and o.component == c.component]
            velocity = speeds[0].value if speeds else None
            found.append(HardInitial(c.value, velocity, component=c.component, axis=c.axis))
    return found
