r"""What a surrogate costs beside a classical solver of the same error, and after how many queries it pays.

    N* = (C_data + C_train) / (c_solver - c_net)

c_solver is the price of one query to the solver at the resolution where its error equals the network's, not at that of the training
data: comparing with an over-resolved solver makes any surrogate look fast (McGreivy and Hakim, arXiv 2407.07218).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from isocline._core.errors import require


@dataclass(frozen=True)
class SolverRun:
    """A classical solver at one resolution.

    Args:
        label: which resolution.
        error: its relative error.
        seconds: for one query.
    """

    label: str
    error: float
    seconds: float


@dataclass(frozen=True)
class Ledger:
    """Costs in seconds.

    Args:
        data: of making the training data.
        training: of training.
        inference: of one query to the model.
        error: the model's relative error on test cases.
        solver: the solver at several resolutions, at least one.
    """

    data: float
    training: float
    inference: float
    error: float
    solver: tuple[SolverRun, ...]

    def __post_init__(self) -> None:
        require(bool(self.solver), "a ledger needs the solver at one resolution or more")
        numbers = (self.data, self.training, self.inference, self.error, *(r.seconds for r in self.solver))
        require(all(math.isfinite(n) and n >= 0 for n in numbers), "costs and errors are finite and not negative")

    @property
    def useful(self) -> bool:
        """Whether the model is closer to the truth than zero is."""
        return self.error < 1

    @property
    def equal(self) -> SolverRun | None:
        """The cheapest run of the solver that is at least as accurate as the model; None where none is, or the model is useless."""
        if not self.useful:
            return None
        good = [run for run in self.solver if run.error <= self.error]
        return min(good, key=lambda run: run.seconds) if good else None

    @property
    def speedup(self) -> float | None:
        """Seconds of the solver over those of the model, at equal error; None where no run is as accurate."""
        return None if self.equal is None else self.equal.seconds / self.inference

    @property
    def break_even(self) -> float | None:
        """Queries after which data and training have paid; infinite where they never do, None where it is not known."""
        if self.equal is None:
            return None
        saved = self.equal.seconds - self.inference
        return (self.data + self.training) / saved if saved > 0 else math.inf

    @property
    def text(self) -> str:
        """What a person should know, in a sentence."""
        if not self.useful:
            return f"The model's error, {self.error:.2g}, is no smaller than that of predicting zero; no speed-up is stated."
        if self.equal is None:
            return f"No run of the solver is as accurate as the model ({self.error:.2g}); no speed-up is stated."
        if self.break_even == math.inf:
            return (
                f"At equal error ({self.error:.2g}) the solver ({self.equal.label}) takes {self.equal.seconds:.3g} s a query, "
                f"the model {self.inference:.3g} s: the model never pays."
            )
        return (
            f"At equal error ({self.error:.2g}) the model is {self.speedup:.3g} times as fast as the solver "
            f"({self.equal.label}); data and training have paid after {self.break_even:.0f} queries."
        )

    def as_dict(self) -> dict[str, object]:
        """Return it as plain data; what is infinite or unknown is None."""
        known = self.break_even if self.break_even not in (None, math.inf) else None
        return {**asdict(self), "speedup_at_equal_error": self.speedup, "break_even_queries": known, "text": self.text}
