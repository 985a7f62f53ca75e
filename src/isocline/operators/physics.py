r"""Training with the residual of the equation (Li et al., arXiv 2111.03794).

    loss = w_d |G(a) - u|_data + w_r (1 / M) sum_j |R(a_j, G(a_j))|^2

R is the residual on the grid of the first state followed by the predicted frames, between frames, so that it decides all of
them. It needs no solution: a_j may be states that were never simulated, and training works without any data. It has the error
of its own differences: a model without data converges to the solution of the midpoint rule with the step between frames.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline.datasets.fields import Batch, Window
from isocline.equations.spec import EquationSpec
from isocline.objectives.fields import FieldObjective
from isocline.operators.fit import Source
from isocline.operators.models import OperatorModel
from isocline.operators.residual import grid_residual
from isocline.operators.strategies import Draws, Strategy

METHOD = Method(
    "pino",
    "Physics-informed neural operator",
    "Physics-Informed Neural Operator for Learning Partial Differential Equations",
    "Li, Zheng, Kovachki, Jin, Chen, Liu, Azizzadenesheli, Anandkumar",
    2021,
    "2111.03794",
    room="operators",
    when="Few or no simulations of an equation that is known, first order in time, on a grid fine enough for its differences.",
)


@METHOD.variant()
@dataclass(frozen=True)
class PhysicsInformed(Strategy):
    """One window from true frames, and the residual of an equation.

    Args:
        equation: first order in time; its fields and parameters are those of the data.
        weight: w_r.
        data: w_d; with 0 the frames to predict are not looked at.
        states: where states for the residual are drawn; without it they are those of the batch.
        batch: M, how many of them.

    Source: arXiv 2111.03794.
    """

    equation: EquationSpec
    weight: float = 1.0
    data: float = 1.0
    states: Source | None = None
    batch: int = 16

    def __post_init__(self) -> None:
        require(self.weight >= 0 and self.data >= 0, f"weights are at least 0, got {self.weight} and {self.data}")
        require(self.weight + self.data > 0, "one of the weights must be above 0")
        require(self.batch >= 1, f"at least one state is drawn, got {self.batch}")

    def window(self, model: Window) -> Window:
        """Return the model's own window."""
        require(self.equation.steady or model.past >= 1, f"{self.equation.name} needs a past frame to begin at")
        return model

    def loss(self, model: OperatorModel, batch: Batch, objective: FieldObjective, rng: Draws) -> Tensor:
        """Return the weighted sum."""
        total = torch.zeros((), device=batch.x.device)
        if self.data:
            total = total + self.data * objective(model(batch), batch.target).mean()
        if not self.weight:
            return total
        begin = batch if self.states is None else self._drawn(model.window, rng).to(batch.x.device)
        return total + self.weight * self._residual(model, begin).square().mean()

    def _drawn(self, window: Window, rng: Draws) -> Batch:
        assert self.states is not None
        return self.states.draw(rng.step, window, self.batch, "train", rng.stream.child("states"))

    def _residual(self, model: OperatorModel, batch: Batch) -> Tensor:
        frames, found = batch.x[:, -1:], model(batch)
        first = replace(batch, t=batch.t[:, :1] - batch.dt[:, None])
        steady = self.equation.steady
        return grid_residual(self.equation, found if steady else torch.cat([frames, found], 1), first, between=True)
