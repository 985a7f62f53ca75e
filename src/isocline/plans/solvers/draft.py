r"""Writing a solver with stages: states as combinations of the start, the outputs and the noises.

A multistep solver fills one row a step and needs only `rows`. A solver whose stages start from an earlier state, whose corrector
goes back, or which adds noise on the way is easier to write as it stands in its paper,

    draft = Draft(process, Noise(), rows=2)
    x, here, there = draft.start, Level.at(process, 1.0), Level.at(process, 0.5)
    first = draft.call(x, here)
    second = draft.call(noise_step(x, here, there, first), there)
    plan = draft.finish(noise_step(x, here, there, (first + second) / 2), there, nodes, provenance)

where each state and output is one vector of coefficients. `Draft.finish` turns the states that were read into rows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline.plans.canonical import Canonical
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance
from isocline.processes import GaussianProcess, Parameterisation
from isocline.processes.gaussian import as_time


class Level(NamedTuple):
    """One point of a process: time, ``alpha``, ``sigma``, half log-SNR ``lam`` and noise level ``s = sigma / alpha``."""

    time: Tensor
    alpha: Tensor
    sigma: Tensor
    lam: Tensor
    s: Tensor

    @staticmethod
    def at(process: GaussianProcess, time: Tensor | float) -> Level:
        """Return the level of `process` at `time`."""
        time = as_time(time)
        lam = process.half_log_snr(time)
        return Level(time, process.alpha(time), process.sigma(time), lam, torch.exp(-lam))


def data_step(x: Tensor, here: Level, there: Level, data: Tensor) -> Tensor:
    """Return ``y' = r y + (1 - r) D`` in ``x``: the exact step where the data prediction does not change."""
    return there.sigma / here.sigma * x + there.alpha * (1 - there.s / here.s) * data


def noise_step(x: Tensor, here: Level, there: Level, noise: Tensor) -> Tensor:
    """Return ``y' = y + (t - s) e`` in ``x``: the same step, written with the noise prediction."""
    return there.alpha / here.alpha * x + there.alpha * (there.s - here.s) * noise


class Draft:
    """A plan in the making.

    Args:
        process: the process of the plan.
        parameterisation: what its outputs are.
        rows: number of rows the plan will have: network calls and silent rows.

    Attributes:
        start: the start state as a combination.
    """

    def __init__(self, process: GaussianProcess, parameterisation: Parameterisation, rows: int) -> None:
        self.process, self.parameterisation, self.rows = process, parameterisation, rows
        self._units = torch.eye(1 + 2 * rows, dtype=torch.float64)
        self._states: list[Tensor] = []
        self._times: list[Tensor] = []
        self._called: list[bool] = []
        self.start = self._units[0]

    def call(self, x: Tensor, level: Level) -> Tensor:
        """Call the network at state `x`: add a row that reads it, and return the output as a combination."""
        return self._units[self._read(x, level, called=True)]

    def stay(self, x: Tensor, level: Level) -> None:
        """Add a row that reads `x` without a call: the state before a jump of noise."""
        self._read(x, level, called=False)

    def noise(self) -> Tensor:
        """Return the fresh noise of the last row, which may enter the next state and no state before it."""
        return self._units[self.rows + len(self._states)]

    def _read(self, x: Tensor, level: Level, called: bool) -> int:
        require(len(self._states) < self.rows, f"a draft of {self.rows} rows is full")
        self._states.append(x)
        self._times.append(level.time)
        self._called.append(called)
        return len(self._states)

    def finish(self, x: Tensor, level: Level, nodes: Tensor, provenance: Provenance) -> Plan:
        """Return the plan that ends in state `x`.

        Raises:
            InvalidInput: fewer rows than announced, or a state that no row form can reach.
        """
        require(len(self._states) == self.rows, f"a draft of {self.rows} rows has only {len(self._states)}")
        states = torch.stack([*self._states, x])
        carry, weights, noise = Canonical(states[:, 0], states[:, 1 : self.rows + 1], states[:, self.rows + 1 :]).rows()
        times = torch.stack([*self._times, level.time])
        return Plan(
            times=times,
            nodes=nodes,
            model_times=times[:-1],
            carry=carry,
            weights=weights,
            noise=noise,
            evaluate=torch.tensor(self._called),
            parameterisation=self.parameterisation,
            process=self.process,
            provenance=provenance,
        )
