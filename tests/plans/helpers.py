"""What the tests of plans share: processes, networks that ignore their time, random plans, a naive loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from isocline.plans import Plan, Provenance
from isocline.processes import (
    EDM,
    Data,
    Denoiser,
    FlowVelocity,
    GaussianProcess,
    Noise,
    Parameterisation,
    RectifiedFlow,
    Score,
    SubVariancePreserving,
    VarianceExploding,
    VariancePreserving,
    VPrediction,
)
from isocline.processes.gaussian import match

PROCESSES: tuple[GaussianProcess, ...] = (
    VariancePreserving(),
    VarianceExploding(),
    SubVariancePreserving(),
    EDM(),
    RectifiedFlow(t_max=0.98),
)
PARAMETERISATIONS: tuple[Parameterisation, ...] = (Data(), Noise(), VPrediction(), FlowVelocity(), Score())


class Told(Denoiser):
    """A denoiser whose data prediction is a given function ``(x, t) -> x0``, handed out in any parameterisation."""

    def __init__(
        self,
        data: Callable[[Tensor, Tensor], Tensor],
        process: GaussianProcess,
        parameterisation: Parameterisation | None = None,
    ) -> None:
        super().__init__(process, parameterisation or Data())
        self.data = data

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        dx, dm = self.parameterisation.from_data(self.process, t)
        return match(dx, x) * x + match(dm, x) * self.data(x, t)


class Replay(Denoiser):
    """A network that returns recorded outputs in turn, whatever it is asked, and remembers what it was told."""

    def __init__(self, outputs: Sequence[Tensor], process: GaussianProcess, parameterisation: Parameterisation) -> None:
        super().__init__(process, parameterisation)
        self.outputs, self.told = list(outputs), []

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        self.told.append(float(t))
        return self.outputs[self.calls - 1]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64).to(dtype)


def random_plan(
    seed: int,
    rows: int = 4,
    *,
    process: GaussianProcess = PROCESSES[0],
    parameterisation: Parameterisation = PARAMETERISATIONS[0],
    noisy: bool = False,
    silent: bool = False,
) -> Plan:
    """Return a plan of random coefficients; `noisy` gives every second row noise, `silent` takes the call from the second."""
    draw = generator(seed)

    def uniform(n: int, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, dtype=torch.float64, generator=draw)

    times = uniform(rows + 1, 0.1, 0.9).sort(descending=True).values
    weights = torch.tril(0.5 * torch.randn(rows, rows, dtype=torch.float64, generator=draw))
    weights[weights.abs() < 0.1] = 0.0
    evaluate = torch.ones(rows, dtype=torch.bool)
    if silent and rows > 1:
        evaluate[1] = False
        weights[:, 1] = 0.0
    return Plan(
        times=times,
        nodes=times,
        model_times=times[:-1] * uniform(rows, 0.9, 1.1),
        carry=uniform(rows, 0.6, 1.4),
        weights=weights,
        noise=uniform(rows, 0.1, 1.0) * (torch.arange(rows) % 2 == 0) * noisy,
        evaluate=evaluate,
        parameterisation=parameterisation,
        process=process,
        provenance=Provenance("random", settings={"seed": seed}),
    )


def simulate(plan: Plan, outputs: Sequence[Tensor], x: Tensor, noise: Sequence[Tensor] | None = None) -> list[Tensor]:
    """Return all states from the definition of a row, given the plan's own outputs ``m_j``."""
    states = [x]
    for i in range(len(plan.carry)):
        state = float(plan.carry[i]) * states[-1]
        for j in range(i + 1):
            state = state + float(plan.weights[i, j]) * outputs[j]
        if noise is not None:
            state = state + float(plan.noise[i]) * noise[i]
        states.append(state)
    return states
