"""The quick start: load a model trained on real images, tune a 6-call sampler for it, show the result.

Writes ``plan.json``, ``report.json``, ``samples.png`` and ``report.html`` (one file, no network) to a folder.
"""

from __future__ import annotations

import html
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from isocline._core import files
from isocline._core.estimate import Estimate
from isocline._core.progress import progress
from isocline._core.stream import Stream
from isocline._version import __version__
from isocline.datasets.fashion import NAMES
from isocline.models import bundled
from isocline.plans import grids, solvers
from isocline.plans.candidate import Candidate
from isocline.plans.plan import Plan
from isocline.plans.tuners import EndToEnd, Measured, NoiseSet, measure
from isocline.processes import Denoiser
from isocline.recipes import pictures
from isocline.recipes.train import load_image_model
from isocline.recipes.tune import Outcome, tune

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CALLS = 6
CURVE = (4, 6, 8, 10, 20)
SHAPE = (1, 28, 28)
DDIM = Candidate(solvers.ddim, grids.karras)
COMMON = Candidate(solvers.dpm_solver_pp_2m, grids.karras)  # what most pipelines use


@dataclass(frozen=True)
class Row:
    """One line of the report's table."""

    name: str
    calls: int
    error: Estimate
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return the row as plain data."""
        e = self.error
        return {
            "name": self.name, "calls": self.calls, "error": e.value, "low": e.low, "high": e.high,
            "seconds": round(self.seconds, 3),
        }  # fmt: skip


@dataclass(frozen=True)
class Quickstart:
    """Everything the quick start found out."""

    outcome: Outcome
    rows: list[Row]
    seed: int
    seconds: float

    @property
    def matched_calls(self) -> int | None:
        """Return the fewest calls at which the classical solver is as good as the tuned plan, if any were tried."""
        target = self.outcome.held_out.median().value
        name = self.outcome.baseline.name
        enough = [row.calls for row in self.rows if row.name == name and row.error.value <= target]
        return min(enough, default=None)


def quickstart(
    folder: str | Path = "runs/quickstart",
    *,
    seed: int = 0,
    calls: int = CALLS,
    sizes: tuple[int, int, int] = (64, 64, 256),
    tuner: EndToEnd | None = None,
    denoiser: Denoiser | None = None,
    curve: Sequence[int] = CURVE,
) -> Quickstart:
    """Tune a sampler for the bundled Fashion-MNIST model, or for `denoiser`, and write the report to `folder`.

    Args:
        folder: where the files go; checked before any work.
        seed: seed of all noises.
        calls: network calls of the tuned plan.
        sizes: numbers of training, validation and held-out noises.
        tuner: settings of the tuner.
        denoiser: a class-conditional model of (1, 28, 28) images.
        curve: calls at which the classical solvers are measured for comparison.
    """
    start = time.monotonic()
    folder = files.ensure_folder(folder)
    model = denoiser or load_image_model(bundled("fashion"))
    rng = Stream(seed, "quickstart")
    outcome = tune(model, SHAPE, calls, rng=rng, cond=labels, sizes=sizes, tuner=tuner)
    rows = _rows(outcome, model, calls, curve)
    result = Quickstart(outcome, rows, seed, time.monotonic() - start)
    outcome.plan.save(folder / "plan.json")
    files.write_json(folder / "report.json", as_dict(result))
    samples = _samples(outcome, model, outcome.calibration.held_out)
    pictures.save(samples, folder / "samples.png")
    files.write_text(folder / "report.html", _page(result, samples))
    return result


def labels(n: int) -> Tensor:
    """Return the classes 0, 1, ..., 9, 0, 1, ... of `n` samples."""
    return torch.arange(n) % len(NAMES)


def _rows(outcome: Outcome, model: Denoiser, calls: int, curve: Sequence[int]) -> list[Row]:
    plans = [
        (c, n)
        for c in _unique([DDIM, COMMON, outcome.baseline])
        for n in curve
        if (c.name, n) != (outcome.baseline.name, calls)
    ]
    rows = [_row(outcome.baseline.name, outcome.classical), _row("tuned", outcome.held_out)]
    noises = outcome.calibration.held_out
    with progress("comparing", sum(n for _, n in plans)) as bar:
        for candidate, n in plans:
            plan = replace(candidate.compile(model.process, n, "zero"), guidance=model.guidance)
            rows.append(_row(candidate.name, measure(plan, model, noises)))
            bar.advance(n)
    return sorted(rows, key=lambda row: (row.name == "tuned", row.name, row.calls))


def _unique(candidates: list[Candidate]) -> list[Candidate]:
    return list({candidate.name: candidate for candidate in candidates}.values())


def _row(name: str, measured: Measured) -> Row:
    return Row(name, measured.calls, measured.median(), measured.seconds)


def as_dict(result: Quickstart) -> dict[str, Any]:
    """Return what ``report.json`` holds."""
    outcome = result.outcome
    classical = _row(outcome.baseline.name, outcome.classical)
    return {
        "rows": [row.as_dict() for row in result.rows],
        "best_classical": classical.as_dict(),
        "tuned": _row("tuned", outcome.held_out).as_dict(),
        "ratio": asdict(outcome.ratio),
        "matched_calls": result.matched_calls,
        "held_out_noises": len(outcome.calibration.held_out),
        "teacher": {
            "method": outcome.calibration.teacher.provenance.method,
            "calls": outcome.calibration.teacher.calls,
        },
        "tuning": {"steps": outcome.tuned.history[-1][0], **outcome.tuned.cost.as_dict()},
        "seconds": round(result.seconds, 1),
        "seed": result.seed,
        "versions": {"isocline": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }


def _page(result: Quickstart, samples: Figure) -> str:
    outcome = result.outcome
    facts = {
        "grids": pictures.inline(samples, "samples of teacher, classical and tuned plan"),
        "curve": pictures.inline(_curve(result), "error against network calls"),
        "plan": pictures.inline(outcome.plan.plot(), "the tuned plan"),
        "table": _table(result),
        "headline": _headline(result),
        "cost": _cost(result),
        "describe": html.escape(outcome.plan.describe()),
        "version": __version__,
    }
    return _PAGE.format(**facts)


def _samples(outcome: Outcome, model: Denoiser, noises: NoiseSet) -> Figure:
    part = noises.take(slice(0, 50))
    common = COMMON.compile(model.process, outcome.plan.calls, "zero").for_guidance(model.guidance)
    shown: list[tuple[str, Plan]] = [
        (f"DPM-Solver++ 2M on Karras, {common.calls} calls", common),
        (f"best classical, {outcome.classical.calls} calls", outcome.classical.plan),
        (f"tuned, {outcome.plan.calls} calls", outcome.plan),
    ]
    groups = [(title, plan.run(model, part.x, cond=part.cond).x) for title, plan in shown]
    return pictures.side_by_side([*groups, (f"teacher, {outcome.calibration.teacher.calls} calls", part.target)], 10)


def _curve(result: Quickstart) -> Figure:
    from matplotlib.figure import Figure

    picture = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = picture.subplots()
    styles = {DDIM.name: pictures.GREY, COMMON.name: pictures.GREEN}
    styles |= {result.outcome.baseline.name: pictures.INK, "tuned": pictures.ACCENT}
    for name, colour in styles.items():
        rows = sorted((row for row in result.rows if row.name == name), key=lambda row: row.calls)
        errors = [row.error for row in rows]
        bars = [[e.value - e.low for e in errors], [e.high - e.value for e in errors]]
        marker = "*" if name == "tuned" else "o"
        axes.errorbar(
            [r.calls for r in rows],
            [e.value for e in errors],
            yerr=bars,
            marker=marker,
            color=colour,
            label=name,
            capsize=3,
        )
    axes.set(yscale="log", xlabel="network calls", ylabel="median RMS distance to the teacher")
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False)
    return picture


def _table(result: Quickstart) -> str:
    cells = [
        f"<tr{' class=tuned' if row.name == 'tuned' else ''}><td>{html.escape(row.name)}</td><td>{row.calls}</td>"
        f"<td>{row.error.value:.4f}</td><td>{row.error.low:.4f} to {row.error.high:.4f}</td><td>{row.seconds:.2f}</td></tr>"
        for row in result.rows
    ]
    return "\n".join(cells)


def _headline(result: Quickstart) -> str:
    outcome, matched = result.outcome, result.matched_calls
    tail = (
        f"The classical plan needs {matched} calls for that error."
        if matched
        else "No classical row above reaches that error."
    )
    return (
        f"With {outcome.plan.calls} network calls the tuned plan's error is {outcome.ratio.value:.2f} times that of the best "
        f"classical plan (95 % interval {outcome.ratio.low:.2f} to {outcome.ratio.high:.2f}). {tail}"
    )


def _cost(result: Quickstart) -> str:
    outcome = result.outcome
    sizes = [len(s) for s in (outcome.calibration.train, outcome.calibration.validation, outcome.calibration.held_out)]
    return (
        f"{result.seconds:.0f} seconds in all, {outcome.tuned.cost.seconds:.0f} of them for {outcome.tuned.history[-1][0]} "
        f"gradient steps. Teacher: {outcome.calibration.teacher.calls} calls for each of {sum(sizes)} noises ({sizes[0]} to tune "
        f"on, {sizes[1]} to choose on, {sizes[2]} only for the figures on this page). Seed {result.seed}."
    )


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>isocline quick start</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.6rem; }} h2 {{ font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd; }}
img {{ max-width: 100%; }} pre {{ background: #f5f5f2; padding: .8rem; overflow-x: auto; font-size: .82rem; }}
table {{ border-collapse: collapse; }} td, th {{ padding: .2rem .9rem; text-align: right; border-bottom: 1px solid #eee; }}
td:first-child, th:first-child {{ text-align: left; }} tr.tuned {{ background: #fbe9dd; font-weight: 600; }}
.lead {{ font-size: 1.1rem; }} footer {{ color: #777; margin-top: 3rem; font-size: .85rem; }}
</style></head><body>
<h1>A sampler tuned for one model</h1>
<p class="lead">{headline}</p>
<h2>Samples from the same noise</h2>
<p>Columns are the ten classes of Fashion-MNIST; each position starts from the same noise in every picture.</p>
{grids}
<h2>Error against network calls</h2>
<p>Error is the median over held-out noises of the RMS distance to the teacher's image, pixels in [-1, 1]. It says how
faithfully a plan follows the model's own flow; it does not say how good the model is.</p>
{curve}
<table><tr><th>plan</th><th>calls</th><th>error</th><th>95 % interval</th><th>seconds</th></tr>
{table}
</table>
<h2>The plan</h2>
{plan}
<pre>{describe}</pre>
<h2>What it cost</h2>
<p>{cost}</p>
<h2>How to use it</h2>
<pre>import torch
from isocline.models import bundled
from isocline.plans import Plan
from isocline.recipes.train import load_image_model

model = load_image_model(bundled("fashion"))
plan = Plan.load("plan.json")
noise = plan.start((16, 1, 28, 28), rng=1)
images = plan.run(model, noise, cond=torch.arange(16) % 10).x</pre>
<p>or, from the shell: <code>isocline sample --plan plan.json --out samples.png</code></p>
<footer>isocline {version}</footer>
</body></html>
"""
