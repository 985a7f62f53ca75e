"""The verb: train a field on a problem until a budget is used, then say how wrong it is."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from isocline._core import files
from isocline._core.errors import Mismatch, require
from isocline._core.estimate import Budget
from isocline._core.stream import Stream, as_stream
from isocline.derivatives import taylor
from isocline.derivatives.jet import Backend
from isocline.equations import Problem, Reference
from isocline.objectives import EstimatedLaplacian, EstimatedLoss, ResidualLoss
from isocline.optimizers import Evaluation, EvaluationOptimizer
from isocline.optimizers.gauss_newton import GaussNewton
from isocline.optimizers.lbfgs import QuasiNewton
from isocline.recipes.solve.accuracy import measure
from isocline.recipes.solve.classical import attempt
from isocline.recipes.solve.compiled import CompiledLoss
from isocline.recipes.solve.defaults import (
    default_network,
    default_optimizer,
    default_points,
    default_width,
    first_order,
)
from isocline.recipes.solve.solution import Classical, Solution, SolveCost
from isocline.recipes.solve.training_points import TrainingPoints
from isocline.recipes.solve.trial import Trial, check_field
from isocline.training import Settings, train
from isocline.training.logs import Log
from isocline.training.loop import Trained
from isocline.training.settings import Part
from isocline.training.state import Build

Loss = Callable[..., Evaluation]
ENDLESS = 1_000_000  # steps of an optimiser that stops by itself or when the time is over
PROBE = 5
LEAST, ENOUGH = 10.0, 1e-7  # seconds of a classical solver, and the error at which it ends
MINUTE = Budget(seconds=60)


def solve(
    problem: Problem,
    network: nn.Module | None = None,
    points: TrainingPoints | None = None,
    optimizer: Build | None = None,
    budget: Budget = MINUTE,
    *,
    weights: Mapping[str, float] | None = None,
    backend: Backend | EstimatedLaplacian = taylor,
    rng: Stream | int = 0,
    folder: str | Path | None = None,
    classical: bool = True,
    compile: bool = False,
    logs: Sequence[Log] = (),
) -> Solution:
    """Train a network to solve a problem, and measure how wrong it is on points it was not trained on.

    Args:
        problem: what shall hold.
        network: maps points (N, d) to (N, c), one column for each unknown; it is trained in place. By default a small tanh network
            in float64 that meets conditions on faces of a box by construction where it can (`isocline.recipes.solve.meeting`).
        points: where residuals are evaluated. Scrambled Sobol points by default, drawn anew at every step of Gauss-Newton, every
            hundred steps of a first-order optimiser, and once for quasi-Newton methods.
        optimizer: ``module -> optimiser``; its learning rate is taken as it is. Gauss-Newton by default, Adam for networks too
            large for it. First-order optimisers lower their rate to zero along a cosine.
        budget: ``seconds`` of training, ``evaluations`` (steps), ``points`` and ``parameters`` of the defaults.
        weights: of the blocks of the loss, see `ResidualLoss`. 1 for the equation, 10 for conditions, 0 for those that the
            network meets by construction (its ``met``) by default.
        backend: how derivatives are had; an `EstimatedLaplacian` for equations in a hundred dimensions and more, which first-order
            optimisers take.
        rng: stream or seed of points and default weights.
        folder: where checkpoints are kept; the same call continues a run that was stopped, and its budget counts all parts.
        classical: whether a classical solver is run beside the network, for at most a quarter of the training time. Where the
            problem has no reference and that solver converges, its solution is the reference.
        compile: whether a first-order optimiser's loss and gradient are compiled; it pays off in long runs.
        logs: called with ``(step, figures)`` every twenty steps.

    Returns:
        The field with its error, measured against `Problem.reference` or a classical solution; where there is neither, only the
        residuals are known, and the error says so.

    Raises:
        InvalidInput: the network does not fit the problem; says which shapes do.
        NotFinite: a residual became NaN or infinite; names the points.

    Examples:
        >>> import isocline as iso, isocline.equations as eq
        >>> poisson = eq.Problem(eq.Box(x=(0, 1)), lambda u, q, p: u.xx + 2.0, [eq.Dirichlet("x")],
        ...                      reference=eq.Reference(lambda x: x * (1 - x)))
        >>> solution = iso.solve(poisson, budget=iso.Budget(evaluations=20))
        >>> solution.error.relative_l2.value < 1e-4
        True
    """
    rng = as_stream(rng, "solve")
    require(isinstance(budget, Budget), f"budget is an isocline.Budget such as Budget(seconds=60), got {budget!r}")
    require(
        budget.seconds is not None or budget.evaluations is not None,
        "the budget of solve names seconds or evaluations (steps)",
    )
    if network is None:
        network = default_network(problem, default_width(problem, budget), seed=rng.seed)
    check_field(problem, network)
    collocation = points or default_points(problem, budget)
    given = {"conditions": 10.0} if weights is None else dict(weights)
    met = dict.fromkeys(getattr(network, "met", ()), 0.0)
    loss = _loss(problem, {**met, **given}, backend)
    trial = Trial(problem, network, collocation, loss, rng.child("points"))
    build = optimizer or (first_order if loss.noisy else default_optimizer)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary) if folder is None else files.ensure_folder(folder)
        trained, name, steps = _trained(trial, build, budget, place, logs, compile)
    values = trial.values()
    found = {name: float(values[name].detach()) for name in problem.free}
    cost = SolveCost(trained.seconds, steps, _residuals(trial), sum(p.numel() for p in network.parameters()), name)
    beside, reference = _classical(problem, trained.seconds, rng.child("classical")) if classical else (None, None)
    problem = problem if reference is None or problem.reference is not None else replace(problem, reference=reference)
    error = measure(
        problem, network, problem.reference, rng.child("test"), problem.values(found), _loss(problem, {}, backend)
    )
    return Solution(problem, network, found, error, cost, trial.points, trained.losses, _why(trained, budget), beside)


def _loss(problem: Problem, weights: Mapping[str, float], backend: Backend | EstimatedLaplacian) -> ResidualLoss:
    if isinstance(backend, EstimatedLaplacian):
        return EstimatedLoss(problem, weights, backend)
    return ResidualLoss(problem, weights, backend=backend)


def _classical(problem: Problem, seconds: float, rng: Stream) -> tuple[Classical | None, Reference | None]:
    """Let a classical solver try for a quarter of the training time."""
    return attempt(problem, max(LEAST, seconds / 4), ENOUGH, rng) or (None, None)


def _trained(
    trial: Trial, build: Build, budget: Budget, folder: Path, logs: Sequence[Log], compile: bool
) -> tuple[Trained, str, int]:
    """Train, and return how it went with the optimiser's name and the number of steps."""
    optimizer = build(trial)
    if trial.collocation.every is None:
        trial.collocation = replace(trial.collocation, every=_every(optimizer))
    _refuse_moving_points(optimizer, trial.collocation)
    several = isinstance(optimizer, EvaluationOptimizer)
    name = type(optimizer).__name__
    require(
        not (trial.objective.noisy and several), f"{name} cannot take an estimated Laplacian, which is noisy: use Adam"
    )
    require(not (compile and several), f"{name} needs more than a compiled loss: use compile=False")
    loss = CompiledLoss(trial) if compile else trial.loss
    spent = _spent(folder)
    steps = _steps(trial, loss, optimizer, budget, folder)
    settings = Settings(
        steps=steps,
        batch=1,
        rate=max(group.get("lr", 1.0) for group in optimizer.param_groups),
        warmup=1,
        average=0.0,
        clip=math.inf,
        checkpoint_every=min(50 if several else 1000, max(1, steps // 20)),
        schedule="constant" if several else "cosine",
    )
    left = None if budget.seconds is None else Budget(seconds=max(budget.seconds - spent, 1e-3))
    trained = train(
        trial, trial.batches, loss, settings, folder,
        optimizer=lambda network: build(network), budget=left, logs=logs, description=f"solving {trial.problem.name}",
    )  # fmt: skip
    return trained, name, trained.losses[-1][0] if trained.losses else 0


def _steps(trial: Trial, loss: Loss, optimizer: torch.optim.Optimizer, budget: Budget, folder: Path) -> int:
    """Return the number of steps: that of the budget, or as many as fit its seconds where a rate shall fall over them."""
    kept, about = folder / "solve.json", _about(trial)
    if kept.exists():
        found = files.read_json(kept)
        for name, value in about.items():
            if found.get(name) != value:
                raise Mismatch(f"{folder} holds a run with another {name}; give another folder, or remove this one")
        return int(found["steps"])
    steps = budget.evaluations or ENDLESS
    if budget.seconds is not None and not isinstance(optimizer, EvaluationOptimizer):
        steps = min(steps, max(1, int(0.97 * budget.seconds / _seconds_of_a_step(trial, loss))))
    files.write_json(kept, {"steps": steps, **about})
    return steps


def _about(trial: Trial) -> dict[str, object]:
    """Return what a run that is continued must have in common with the one before, by name."""
    problem = trial.problem
    numbers = {name: v if isinstance(v, int | float) else repr(v) for name, v in (problem.parameters or {}).items()}
    return {
        "problem": problem.name,
        "domain": repr(problem.domain),
        "set of parameters": numbers,
        "network": {name: list(value.shape) for name, value in trial.field.state_dict().items()},
    }


def _seconds_of_a_step(trial: Trial, loss: Loss) -> float:
    """Return the median time of a loss and its gradient."""
    times = []
    batch = trial.batch(0)
    loss(trial, batch, -1, Part())  # compiles, where it does
    for _ in range(PROBE):
        start = time.perf_counter()
        loss(trial, batch, -1, Part()).loss.backward()
        times.append(time.perf_counter() - start)
    trial.zero_grad()
    return sorted(times)[PROBE // 2] * 1.15


def _spent(folder: Path) -> float:
    """Return the seconds that earlier parts of a run took."""
    path = folder / "checkpoint.safetensors"
    return float(files.read_tensors(path)[1]["seconds"]) if path.exists() else 0.0


def _every(optimizer: torch.optim.Optimizer) -> int:
    """Return how often default points are drawn: a linearised problem is new at each step, curvature must not be."""
    if isinstance(optimizer, GaussNewton):
        return 1
    return 0 if isinstance(optimizer, QuasiNewton) else 100


def _refuse_moving_points(optimizer: torch.optim.Optimizer, points: TrainingPoints) -> None:
    require(
        not (isinstance(optimizer, QuasiNewton) and points.every),
        f"{type(optimizer).__name__} builds its curvature from step to step and needs the same points: use every=0",
    )


def _residuals(trial: Trial) -> int:
    """Return how many residuals one batch has, each estimate counted."""
    found = trial.objective.blocks(trial.field, trial.batch(0), trial.values())
    return sum(len(r) for several in found.values() for r in several)


def _why(trained: Trained, budget: Budget) -> str:
    if trained.stopped is not None:
        return trained.stopped
    return "all steps were made" if trained.finished else f"the time of {budget.seconds:g} seconds was used"
