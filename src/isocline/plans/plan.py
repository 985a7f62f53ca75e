r"""A sampling run as one table.

A sampler with ``n`` network calls is one explicit Runge-Kutta step from noise to data, so it is a table of rows

    x_{i+1} = a_i x_i + sum_{j <= i} b_ij m_j + c_i z_i ,      m_j = network(x_j, tau_j) ,   z_i ~ N(0, I)

(the family of non-stationary solvers of Shaul et al., arXiv 2403.01329, with model times ``tau`` and noise ``c`` added). The
conversion between what the network outputs and what the solver was derived for is linear in ``(x_j, m_j)`` and is folded into
the coefficients, so a row costs one network call and a few multiply-adds.

Coefficients are numbers, or tensors of the shape of a datum where each coordinate has its own; a row may also add a constant
``k_i``. Both are what DPM-Solver-v3 (arXiv 2310.13268) asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from isocline._core.errors import Mismatch, require
from isocline._core.stream import Stream
from isocline.plans.canonical import Canonical, changed_output
from isocline.plans.provenance import Provenance
from isocline.plans.runner import Given, Sampled, StepContext, execute, walk
from isocline.plans.threshold import Threshold
from isocline.processes import Denoiser, GaussianProcess, Parameterisation
from isocline.processes.gaussian import as_time
from isocline.processes.naming import same_process

if TYPE_CHECKING:
    from matplotlib.figure import Figure


COLUMNS = ("times", "nodes", "model_times", "carry", "weights", "noise")


@dataclass(frozen=True, eq=False)
class Plan:
    """A whole sampling run as data. All tensors are float64 on the CPU and must not be changed; ``n`` is the number of rows.

    Shapes below are those of a plan whose coefficients are the same for all coordinates. Where each has its own, ``carry`` and
    ``noise`` are (n, event...), ``weights`` (n, n, event...): `event` has as many axes as a datum, each as long as there or 1.

    Args:
        times: (n+1,) time of the state each row reads, and of the result; may repeat or rise (stages, noise rows).
        nodes: main grid, strictly decreasing.
        model_times: (n,) time the network is told.
        carry: (n,) coefficients ``a``.
        weights: (n, n) coefficients ``b``, lower triangular.
        noise: (n,) coefficients ``c``.
        evaluate: (n,) bool; a row may move the state without a network call.
        parameterisation: what the outputs ``m`` are.
        process: the process the plan was made for.
        provenance: where it comes from.
        guidance: guidance scale it was made for.
        threshold: what is done to each data prediction before a row uses it; None for nothing.
        constant: (n,) or (n, event...) coefficients ``k``, added by each row; None for none.
    """

    times: Tensor
    nodes: Tensor
    model_times: Tensor
    carry: Tensor
    weights: Tensor
    noise: Tensor
    evaluate: Tensor
    parameterisation: Parameterisation
    process: GaussianProcess
    provenance: Provenance
    guidance: float = 1.0
    threshold: Threshold | None = None
    constant: Tensor | None = None

    def __post_init__(self) -> None:
        n = self.carry.shape[0] if self.carry.ndim else 0
        require(n >= 1, "a plan needs at least one row")
        row = (n, *self.event)
        expected = {"times": (n + 1,), "model_times": (n,), "evaluate": (n,), "weights": (n, *row), "noise": row}
        for name, shape in expected.items() if self.constant is None else [*expected.items(), ("constant", row)]:
            found = tuple(getattr(self, name).shape)
            require(found == shape, f"a plan of {n} rows needs {name} of shape {shape}, got {found}")
        require(
            self.threshold is None or isinstance(self.threshold, Threshold),
            f"a plan's threshold must be a Threshold or None, got {self.threshold!r}",
        )
        self._check_numbers()

    def _check_numbers(self) -> None:
        require(self.evaluate.dtype == torch.bool, f"a plan's evaluate must be bool, got {self.evaluate.dtype}")
        for name in COLUMNS if self.constant is None else (*COLUMNS, "constant"):
            column = getattr(self, name).detach()
            require(column.dtype == torch.float64, f"a plan's {name} must be float64, got {column.dtype}")
            bad = (~torch.isfinite(column)).nonzero()
            require(len(bad) == 0, f"a plan's {name} must be finite; row {bad[0, 0].item() if len(bad) else 0} is not")
        nodes, weights = self.nodes.detach(), self.weights.detach()
        require(
            nodes.ndim == 1 and len(nodes) >= 2 and bool((nodes.diff() < 0).all()),
            f"a plan's nodes must be strictly decreasing from noise to data, got {[round(v, 6) for v in nodes.flatten().tolist()]}",
        )
        later = torch.ones(weights.shape[:2], dtype=torch.bool).triu(1)
        require(bool((weights[later] == 0).all()), "a plan's weights must be lower triangular: a row uses past outputs")
        unused = weights[:, ~self.evaluate]
        require(bool((unused == 0).all()), "a plan's weights must be zero on rows that make no network call")
        require(
            self.process.has_sde or not self.stochastic,
            f"{self.process.describe()} has no Gaussian increments, but this plan adds noise; use a deterministic solver",
        )

    @property
    def event(self) -> tuple[int, ...]:
        """Shape of one coefficient: () for a number, else as many axes as a datum has, each as long as there or 1."""
        return tuple(self.carry.shape[1:])

    @property
    def calls(self) -> int:
        """Number of network calls of one run."""
        return int(self.evaluate.sum())

    @cached_property
    def stochastic(self) -> bool:
        """Whether a run draws noise."""
        return bool((self.noise.detach() != 0).any())

    @cached_property
    def _rows(self) -> dict[Any, Any]:
        """Rows that the runner compiled, by what they were compiled for."""
        return {}

    @cached_property
    def _canonical(self) -> Canonical:
        return Canonical.of_rows(self.carry, self.weights, self.noise, self.constant)

    def canonical(self) -> Canonical:
        """Return every state as a combination of start, outputs (after the threshold), noises and constants."""
        return self._canonical

    def conversion(self, parameterisation: Parameterisation) -> tuple[Tensor, Tensor]:
        """Return ``(cx, cm)``, (n,) each: the plan's outputs are ``m = cx x + cm m'`` for a network that outputs ``m'``."""
        at = self.times[:-1]
        if parameterisation == self.parameterisation:
            return torch.zeros_like(at), torch.ones_like(at)
        new_x, new_m = parameterisation.to_data(self.process, at)
        old_x, old_m = self.parameterisation.from_data(self.process, at)
        cx = torch.where(self.evaluate, old_x + old_m * new_x, 0.0)
        cm = torch.where(self.evaluate, old_m * new_m, 1.0)
        require(
            bool(torch.isfinite(cx.detach()).all() and torch.isfinite(cm.detach()).all()),
            f"{parameterisation.name} outputs are undefined at a time of this plan (alpha or sigma is zero there); "
            "start a little later or end a little earlier",
        )
        return cx, cm

    def convert(self, parameterisation: Parameterisation) -> Plan:
        """Return the same plan for a network with another output; results agree to rounding.

        A multistep plan becomes dense: past outputs are written in terms of all outputs before them. `run` avoids that.
        A threshold stays: it acts on data predictions, whatever the outputs are.
        """
        if parameterisation == self.parameterisation:
            return self
        cx, cm = self.conversion(parameterisation)
        form = changed_output(self.carry, self.weights, self.noise, cx, cm, self.constant)
        carry, weights, noise = form.rows()
        return replace(
            self, carry=carry, weights=weights, noise=noise, constant=form.constant(), parameterisation=parameterisation
        )

    def equivalent(self, other: Plan, tolerance: float = 1e-9) -> bool:
        """Say whether both plans compute the same: equal canonical forms, model times and thresholds, for the same process."""
        if not same_process(self.process, other.process) or self.times.shape != other.times.shape:
            return False
        if self.threshold != other.threshold:
            return False
        pairs = [(self.model_times, other.model_times), (self.times, other.times)]
        if not all(torch.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in pairs):
            return False
        return self.canonical().close(other.convert(self.parameterisation).canonical(), tolerance)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self.guidance == other.guidance and self.equivalent(other)

    __hash__ = None  # type: ignore[assignment]

    def check_fits(self, denoiser: Denoiser) -> None:
        """Refuse a denoiser of another process or guidance scale."""
        if not same_process(denoiser.process, self.process):
            raise Mismatch(
                f"the plan was made for {self.process.describe()} but the denoiser is {denoiser.process.describe()}; "
                "tune or compile a plan for that process"
            )
        if denoiser.guidance != self.guidance:
            raise Mismatch(
                f"the plan was made for guidance scale {self.guidance:g} but the denoiser applies {denoiser.guidance:g}; "
                "tune again, or pass plan.for_guidance(scale) to accept the difference"
            )

    def for_guidance(self, scale: float) -> Plan:
        """Return the plan labelled for another guidance scale."""
        return replace(self, guidance=float(scale))

    def with_threshold(self, threshold: Threshold | None) -> Plan:
        """Return the plan with its data predictions thresholded, or with None as they are."""
        return replace(self, threshold=threshold)

    def then(self, other: Plan) -> Plan:
        """Return this plan followed by `other`, which must start at the time at which this one ends.

        Raises:
            Mismatch: the plans are for different processes or guidance scales, threshold differently, or do not meet.
            InvalidInput: a plan has a coefficient for each coordinate, or a constant; only single numbers can be joined.
        """
        from isocline.plans.composite import followed

        require(
            not any(plan.event or plan.constant is not None for plan in (self, other)),
            "plans with coefficients for each coordinate, or with a constant, cannot be joined into one; run them in turn: "
            "second.run(denoiser, first.run(denoiser, x).x)",
        )
        return followed(self, other)

    def start(self, shape: tuple[int, ...], rng: Stream | int, **options: Any) -> Tensor:
        """Return start states of `shape` (B, *): noise at the plan's first time."""
        noise = self.process.draw_noise(shape, rng, **options)
        return noise * self.process.sigma(self.times[0].detach()).to(noise.dtype)

    def iterate(
        self,
        denoiser: Denoiser,
        x: Tensor,
        *,
        cond: Any = None,
        rng: Stream | int | None = None,
        noise: Sequence[Tensor] | None = None,
        transforms: Sequence[Callable[[StepContext, Tensor], Tensor]] = (),
        hooks: Sequence[Callable[[StepContext, Tensor], Tensor]] = (),
    ) -> Iterator[StepContext]:
        """Run row by row; arguments as in `run`. The yielded context is live: clone its ``x`` to keep it."""
        self.check_fits(denoiser)
        return walk(self, denoiser, x, Given(cond, rng, noise, transforms, hooks))

    def run(
        self,
        denoiser: Denoiser,
        x: Tensor,
        *,
        cond: Any = None,
        rng: Stream | int | None = None,
        noise: Sequence[Tensor] | None = None,
        transforms: Sequence[Callable[[StepContext, Tensor], Tensor]] = (),
        hooks: Sequence[Callable[[StepContext, Tensor], Tensor]] = (),
        record: bool = False,
    ) -> Sampled:
        """Sample.

        Args:
            denoiser: a denoiser of the plan's process and guidance scale.
            x: start states (B, *) at the plan's first time; not changed.
            cond: passed to the denoiser.
            rng: stream or seed of the noise of stochastic rows.
            noise: recorded noises, one (B, *) tensor a row, instead of `rng`.
            transforms: ``(context, x0) -> x0``, applied in turn to each data prediction before a row uses it, after the
                plan's own threshold.
            hooks: ``(context, x) -> x``, applied in turn to the state after each row.
            record: keep all states.

        Raises:
            Mismatch: the denoiser is for another process or guidance scale, or returns another shape; or the plan's
                coefficients for each coordinate are for data of another shape.
            NotFinite: a row gave NaN or infinity; the row is named.
        """
        self.check_fits(denoiser)
        return execute(self, denoiser, x, Given(cond, rng, noise, transforms, hooks), record)

    def save(self, path: str | Path) -> Path:
        """Write the plan as readable JSON, atomically. Coefficients for each coordinate go into a file beside it."""
        from isocline.plans import storage

        return storage.save(self, path)

    @staticmethod
    def load(path: str | Path) -> Plan:
        """Read a plan; a damaged file is refused with its place."""
        from isocline.plans import storage

        return storage.load(path)

    def describe(self) -> str:
        """Return the plan as text: one line of facts, then one line for each row."""
        from isocline.plans import drawing

        return drawing.text(self)

    def plot(self) -> Figure:
        """Return a picture: noise level against calls, model times, and the weights."""
        from isocline.plans import drawing

        return drawing.figure(self)

    def to_diffusers(self, folder: str | Path, output: Parameterisation | None = None) -> Path:
        """Write the plan as a scheduler for a diffusers model with that `output`; see `isocline.plans.export.diffusers`."""
        from isocline.plans.export.diffusers import to_diffusers

        return to_diffusers(self, folder, output)


def plan_of_rows(
    process: GaussianProcess,
    parameterisation: Parameterisation,
    provenance: Provenance,
    *,
    times: Tensor,
    carry: Tensor,
    weights: Tensor,
    noise: Tensor | None = None,
    nodes: Tensor | None = None,
    constant: Tensor | None = None,
) -> Plan:
    """Return a plan that calls the network in each row and tells it the state's own time."""
    times = as_time(times)
    return Plan(
        times=times,
        nodes=times if nodes is None else nodes,
        model_times=times[:-1],
        carry=carry,
        weights=weights,
        noise=torch.zeros_like(carry) if noise is None else noise,
        evaluate=torch.ones(len(carry), dtype=torch.bool),
        parameterisation=parameterisation,
        process=process,
        provenance=provenance,
        constant=constant,
    )
