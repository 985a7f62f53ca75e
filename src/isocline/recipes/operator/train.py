"""Train an operator on a stored data set: build, normalise, fit, measure on cases that it never saw, save."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch

from isocline._core import files
from isocline._core.errors import Mismatch, NotFinite, require
from isocline._core.estimate import Budget, Estimate
from isocline._core.stream import Stream
from isocline.datasets import FileSource, open_data
from isocline.datasets.fields import Window
from isocline.metrics import mean_estimate, relative_error
from isocline.objectives.fields import mean_square, relative_l2
from isocline.operators import (
    AllToAll,
    Denoise,
    Fitted,
    GridModel,
    MessagePassing,
    Normaliser,
    OneStep,
    OperatorModel,
    Pushforward,
    Refine,
    Refiner,
    Strategy,
    Unrolled,
    fit,
    rollout,
)
from isocline.recipes.operator.store import OperatorConfig, save_operator
from isocline.training import Settings
from isocline.training.logs import Log

STATISTICS = 50  # batches that the normaliser is made from
StrategyName = Literal["one-step", "pushforward", "unrolled", "all-to-all", "denoise", "refine"]


def strategy_of(name: str, steps: int = 2) -> Strategy:
    """Return a strategy by its name.

    Args:
        name: ``one-step``, ``pushforward``, ``unrolled``, ``all-to-all``, ``denoise`` or ``refine``.
        steps: windows that are unrolled, or frames that `AllToAll` looks ahead.
    """
    known: dict[str, Strategy] = {
        "one-step": OneStep(),
        "pushforward": Pushforward(steps),
        "unrolled": Unrolled(steps),
        "all-to-all": AllToAll(steps),
        "denoise": Denoise(),
        "refine": Refine(),
    }
    require(name in known, f"there is no strategy {name!r}; there are {', '.join(known)}")
    return known[name]


@dataclass(frozen=True)
class CaseErrors:
    """Errors on cases of the validation split.

    Attributes:
        one: relative L2 error of one window, with its interval over cases.
        far: of the last frame of a rollout over all stored frames; None for steady problems.
        frames: how many frames that rollout has.
        lost: share of cases whose rollout is not finite at its end.
    """

    one: Estimate
    far: Estimate | None
    frames: int
    lost: float

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        shown = {name: vars(value) for name in ("one", "far") if (value := getattr(self, name)) is not None}
        return {**shown, "frames": self.frames, "lost": self.lost}


def train_operator(
    data: str | Path | FileSource,
    out: str | Path,
    config: OperatorConfig,
    settings: Settings,
    *,
    strategy: Strategy | None = None,
    budget: Budget | None = None,
    fabric: Any = None,
    logs: Sequence[Log] = (),
) -> tuple[Fitted, CaseErrors]:
    """Train, measure and save an operator; continue where `out` holds an unfinished training.

    Args:
        data: a data set (`Stored`, `Arrays`, `pdebench`, ...), or a path that `open_data` opens.
        out: folder for checkpoints, ``operator.safetensors`` and ``operator.json``.
        config: what is trained.
        settings: how long and how fast.
        strategy: on what; one step without it, `Refine` for a refiner.
        budget: as in `isocline.training.train`.
        fabric: as there.
        logs: as there.

    Raises:
        Mismatch: the data or the folder belong to something else.
    """
    source = open_data(data) if isinstance(data, (str, Path)) else data
    out = files.ensure_folder(out)
    strategy = strategy or (Refine() if config.refinement else OneStep())
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        model = config.build()
    refuse_another(out, config, strategy)
    set_normaliser(model, source, settings)
    objective = mean_square if config.refinement else relative_l2
    how: dict[str, Any] = {"budget": budget, "fabric": fabric, "logs": logs}
    fitted = fit(model, source, settings, out, strategy=strategy, objective=objective, **how)
    found = measure(fitted.model, source, settings.batch)
    about = {
        "data": source.spec.name,
        "strategy": repr(strategy),
        "steps": fitted.trained.steps,
        "parameters": sum(p.numel() for p in model.parameters()),
        "training_seconds": fitted.cost.seconds,
        "finished": fitted.trained.finished,
        "valid": found.as_dict(),
    }
    save_operator(out, fitted.model, config, about)
    files.write_json(out / "operator.json", {"config": config.as_dict(), **about})
    return fitted, found


def refuse_another(out: Path, config: OperatorConfig, strategy: Strategy) -> None:
    """Refuse to go on in a folder of another model or strategy; else note what is trained there.

    Raises:
        Mismatch: says what differs.
    """
    note, mine = out / "training.json", {"config": config.as_dict(), "strategy": repr(strategy)}
    mine = json.loads(json.dumps(mine))
    if not note.exists():
        files.write_json(note, mine)
        return
    theirs = files.read_json(note)
    if theirs != mine:
        parts = [k for k in mine["config"] if theirs.get("config", {}).get(k) != mine["config"][k]]
        parts += ["strategy"] if theirs.get("strategy") != mine["strategy"] else []
        raise Mismatch(f"{out} holds a training with another {', '.join(parts)}; choose another folder with --out")


def set_normaliser(model: OperatorModel, source: FileSource, settings: Settings) -> None:
    """Give a model the means and spreads of the training split."""
    window = Window(max(model.window.past, 1), 1, model.window.stride) if model.window.past else model.window
    drawn = (
        source.draw(k, window, settings.batch, "train", Stream(settings.seed, "statistics")) for k in range(STATISTICS)
    )
    base = model.base if isinstance(model, Refiner) else model
    assert isinstance(base, GridModel | MessagePassing)
    base.normaliser.load_state_dict(Normaliser.of(source.spec, drawn).state_dict())


def measure(model: OperatorModel, source: FileSource, batch_size: int = 16, split: str = "valid") -> CaseErrors:
    """Return errors on the cases of a split: of one window and of a rollout over all frames.

    Raises:
        NotFinite: one window is not finite.
    """
    one, far, lost = [], [], []
    steady = model.window.past == 0
    frames = model.window.future if steady else frames_after(model.window, source.times(split))
    whole = Window(model.window.past, frames, model.window.stride)
    for batch in source.batches(whole, batch_size, split):
        with torch.no_grad():
            found = model(batch)
        one.append(relative_error(found, batch.target[:, : found.shape[1]]).mean(1))
        if not steady:
            done = rollout(model, batch, frames)
            far.append(relative_error(done.frames, batch.target)[:, -1])
            lost.append(done.lost < frames)
    if not bool(torch.cat(one).isfinite().all()):
        raise NotFinite("the trained model's predictions are NaN or infinite; train with a lower rate")
    if steady:
        return CaseErrors(mean_estimate(torch.cat(one)), None, frames, 0.0)
    ends, gone = torch.cat(far), torch.cat(lost)
    kept = ends[~gone]
    estimate = mean_estimate(kept) if len(kept) > 1 else None
    return CaseErrors(mean_estimate(torch.cat(one)), estimate, frames, float(gone.double().mean()))


def frames_after(window: Window, times: int) -> int:
    """Return how many frames there are after the given ones."""
    return (times - 1) // window.stride + 1 - window.past


def seconds_a_query(model: OperatorModel, source: FileSource, repeats: int = 5) -> float:
    """Return the median seconds of one case: one window, or a rollout over all frames."""
    steady = model.window.past == 0
    frames = frames_after(model.window, source.times("valid"))
    window = Window(model.window.past, model.window.future if steady else frames, model.window.stride)
    (batch,) = islice(source.batches(window, 1, "valid"), 1)
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        if steady:
            with torch.no_grad():
                model(batch)
        else:
            rollout(model, batch, frames)
        times.append(time.perf_counter() - start)
    return float(torch.tensor(times[1:]).median())
