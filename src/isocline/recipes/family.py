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
    seconds: float | None = None,
    evaluations: int | None = None,
    mapping: Mapping = serially,
) -> dict[int, Chosen]:
    """Search a plan for each number of calls and write ``plan-N.json``, ``report.json`` and ``tradeoff.png`` to `folder`.

    Args:
        model: what is sampled, and the shape of its data.
        calls: numbers of network calls; with guidance each step of a plan makes two.
        folder: also keeps each search, so that the same call continues an interrupted one.
        seed: of everything.
        entries: tuners.
        sizes: numbers of training, validation and held-out noises.
        seconds: limit for all searches together, shared evenly.
        evaluations: limit of network calls on a batch, for each search.
        mapping: how entries are run; see `isocline.recipes.workers`.
    """
    folder, found = files.ensure_folder(folder), {}
    for n in calls:
        share = None if seconds is None else seconds / len(calls)
        found[n] = tune_portfolio(
            model.denoiser,
            model.shape,
            Budget(calls=n, seconds=share, evaluations=evaluations),
            rng=Stream(seed, "tune"),
            cond=_labels(model.classes),
            sizes=sizes,
            entries=entries,
            folder=folder / f"search-{n}",
            mapping=mapping,
        )
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
        "error": asdict(one.held_out.median()),
        "rms": one.held_out.rms(),
        "classical_error": asdict(one.classical.median()),
        "classical_rms": one.classical.rms(),
        "ratio": asdict(one.ratio),
        "rms_ratio": asdict(one.rms_ratio),
        "teacher": {"method": one.calibration.teacher.provenance.method, "calls": one.calibration.teacher.calls},
        "held_out_noises": len(one.calibration.held_out),
        "cost": one.cost.as_dict(),
        "complete": one.complete,
        "tried": [
            {
                "name": t.name,
                "round": t.round,
                "validation_median": None if t.errors is None else t.score,
                "cost": t.cost.as_dict(),
                "reason": t.reason,
            }
            for t in one.tried
        ],
    }


def tradeoff(found: dict[int, Chosen]) -> Figure:
    """Return a picture of the held-out median error against network calls, with intervals."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(5.5, 3.6), layout="constrained")
    axes, calls = picture.subplots(), list(found)
    for name, colour, measured in (
        ("best classical plan", pictures.INK, [one.classical for one in found.values()]),
        ("tuned", pictures.ACCENT, [one.held_out for one in found.values()]),
    ):
        medians = [m.median() for m in measured]
        low = [m.value - m.low for m in medians]
        high = [m.high - m.value for m in medians]
        axes.errorbar(
            calls, [m.value for m in medians], yerr=[low, high], color=colour, marker="o", capsize=3, label=name
        )
    axes.set(xlabel="network calls", ylabel="RMS distance to the teacher, median", yscale="log", xticks=calls)
    axes.legend(frameon=False)
    return picture
