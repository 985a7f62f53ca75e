"""A family of plans: one search for each number of calls, a report and a picture of error against calls."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from isocline._core import files
from isocline._core.errors import InvalidInput, nearest
from isocline._core.estimate import Budget
from isocline._core.stream import Stream
from isocline._version import __version__
from isocline.recipes import pictures
from isocline.recipes.models import StoredModel
from isocline.recipes.portfolio import PORTFOLIO, Chosen, Entry, tune_portfolio
from isocline.recipes.quality import Features, quality
from isocline.recipes.tried import Statistic, estimated, paired_ratio
from isocline.recipes.workers import Mapping, serially

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def entries_named(names: str | None) -> tuple[Entry, ...]:
    """Return the entries of the portfolio in a comma-separated list of names; all of them for None."""
    if names is None:
        return PORTFOLIO
    table = {entry.name: entry for entry in PORTFOLIO}
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in table:
            raise InvalidInput(f"the portfolio has no tuner {name!r}. {nearest(name, table)}")
    return tuple(table[name] for name in wanted)


def tune_family(
    model: StoredModel,
    calls: Sequence[int],
    folder: str | Path,
    *,
    seed: int = 0,
    entries: Sequence[Entry] = PORTFOLIO,
    sizes: tuple[int, int, int] = (64, 64, 256),
    statistic: Statistic = "median",
    seconds: float | None = None,
    evaluations: int | None = None,
    mapping: Mapping = serially,
    features: Features | None = None,
    real: Tensor | None = None,
) -> dict[int, Chosen]:
    """Search a plan for each number of calls and write ``plan-N.json``, ``report.json`` and ``tradeoff.png`` to `folder`.

    Args:
        model: what is sampled, and the shape of its data.
        calls: numbers of network calls; with guidance each step of a plan makes two.
        folder: also keeps each search, so that the same call continues an interrupted one.
        seed: of everything.
        entries: tuners.
        sizes: numbers of training, validation and held-out noises.
        statistic: by which plans are compared; see `tune_portfolio`.
        seconds: limit for all searches together, shared evenly.
        evaluations: limit of network calls on a batch, for each search.
        mapping: how entries are run; see `isocline.recipes.workers`.
        features: ``samples (B, *) -> numbers (B, F)``, for the Fréchet distances of `quality` in the report.
        real: data (M, *) that they are to; the teacher's samples by default.
    """
    folder, found, cond = files.ensure_folder(folder), dict[int, Chosen](), _labels(model.classes)
    for n in calls:
        share = None if seconds is None else seconds / len(calls)
        found[n] = tune_portfolio(
            model.denoiser,
            model.shape,
            Budget(calls=n, seconds=share, evaluations=evaluations),
            rng=Stream(seed, "tune"),
            cond=cond,
            sizes=sizes,
            statistic=statistic,
            calibration=next((one.calibration for one in found.values()), None),
            entries=entries,
            folder=folder / f"search-{n}",
            mapping=mapping,
        )
        if features is not None:
            distances = quality(found[n], model.denoiser, features, real=real, rng=seed, cond=cond)
            found[n] = found[n]._replace(distances=distances)
        found[n].plan.save(folder / f"plan-{n}.json")
        files.write_json(folder / "report.json", report(found, seed, model.denoiser.guidance))
    if len(found) > 1:
        pictures.save(tradeoff(found), folder / "tradeoff.png")
    return found


def _labels(classes: int) -> Callable[[int], Tensor] | None:
    return (lambda n: torch.arange(n) % classes) if classes else None


def report(found: dict[int, Chosen], seed: int, guidance: float) -> dict[str, Any]:
    """Return everything a reader needs as plain data."""
    versions = {"isocline": __version__, "torch": torch.__version__, "python": platform.python_version()}
    per_step = 1 if guidance == 1.0 else 2
    return {
        "versions": versions,
        "seed": seed,
        "guidance": guidance,
        "plans": [_facts(n, one) | {"network_calls": n * per_step} for n, one in found.items()],
    }


def _facts(calls: int, one: Chosen) -> dict[str, Any]:
    return {
        "calls": calls,
        "chosen": one.name,
        "statistic": one.statistic,
        "error": asdict(one.held_out.median()),
        "rms": one.held_out.rms(),
        "classical_error": asdict(one.classical.median()),
        "classical_rms": one.classical.rms(),
        "ratio": asdict(paired_ratio(one.held_out.errors, one.classical.errors, "median")),
        "rms_ratio": asdict(paired_ratio(one.held_out.errors, one.classical.errors, "rms")),
        "teacher": {"method": one.calibration.teacher.provenance.method, "calls": one.calibration.teacher.calls},
        "frechet": {name: asdict(distance) for name, distance in (one.distances or {}).items()},
        "held_out_noises": len(one.calibration.held_out),
        "cost": one.cost.as_dict(),
        "complete": one.complete,
        "tried": [
            {
                "name": t.name,
                "round": t.round,
                "validation_error": None if t.errors is None else t.score(one.statistic),
                "cost": t.cost.as_dict(),
                "reason": t.reason,
            }
            for t in one.tried
        ],
    }


def tradeoff(found: dict[int, Chosen]) -> Figure:
    """Return a picture of the held-out error against network calls, with intervals."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(5.5, 3.6), layout="constrained")
    axes, calls = picture.subplots(), list(found)
    statistic = next(iter(found.values())).statistic
    for name, colour, measured in (
        ("best classical plan", pictures.INK, [one.classical for one in found.values()]),
        ("tuned", pictures.ACCENT, [one.held_out for one in found.values()]),
    ):
        errors = [estimated(m.errors, statistic) for m in measured]
        low = [e.value - e.low for e in errors]
        high = [e.high - e.value for e in errors]
        axes.errorbar(
            calls, [e.value for e in errors], yerr=[low, high], color=colour, marker="o", capsize=3, label=name
        )
    how = "median" if statistic == "median" else "root mean square"
    axes.set(xlabel="network calls", ylabel=f"distance to the teacher, {how}", yscale="log", xticks=calls)
    axes.legend(frameon=False)
    return picture
