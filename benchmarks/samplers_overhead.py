"""What a sampler costs beside its network: microseconds, ATen calls, allocations and memory of one step of order 2.

    python benchmarks/samplers_overhead.py [--quick] [--threads N]

The network is free: it returns a stored tensor, and all call the same one. Every contender takes 20 steps of DPM-Solver++ 2M
in float32; what can be made before a run (coefficients, noise levels, a scheduler's time steps) is made before the clock starts.
In each repeat all contenders run in turn, in a new order, so that a busy machine disturbs all alike; ratios are taken within
repeats. Operations and allocations per step are the difference between runs of 40 and of 20 steps, divided by 20, so that what
a run does once does not count.

A second table has each of our solvers once, beside what the peers have in its place. There everything counts for each network
call, and bars are not set.

Peers that are not installed are left out with a note; see ``benchmarks/requirements.txt``.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.counting import Counts, count
from benchmarks.overhead_contenders import OURS as PACKAGE
from benchmarks.overhead_contenders import Job, Maker, makers
from benchmarks.peer_samplers import k_diffusion_sampling
from isocline._core import files
from isocline._core.estimate import Estimate, bootstrap
from isocline._core.stream import Stream
from isocline.plans import grids, solvers
from isocline.processes import EDM, Data, Denoiser, Noise, Parameterisation

SHAPES = ((1, 4, 64, 64), (16, 4, 64, 64), (1024, 64))
STEPS = 20
SEED = 0
OUT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks" / "samplers_overhead"
Run = Callable[[Tensor], Tensor]


class Free(Denoiser):
    """A network that returns a stored tensor."""

    def __init__(self, output: Tensor, parameterisation: Parameterisation) -> None:
        super().__init__(EDM(), parameterisation)
        self.output = output

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """Return the stored tensor."""
        return self.output


def isocline_run(output: Tensor, steps: int, parameterisation: Parameterisation | None = None) -> Run:
    plan = solvers.dpm_solver_pp_2m(EDM(), grids.karras(EDM(), steps))
    network = Free(output, parameterisation or Data())
    return lambda x: plan.run(network, x).x


def noise_run(output: Tensor, steps: int) -> Run:
    return isocline_run(output, steps, Noise())


def hand_run(output: Tensor, steps: int) -> Run:
    """Return the least a person would write: two or three in-place operations a step, coefficients as Python numbers."""
    plan = solvers.dpm_solver_pp_2m(EDM(), grids.karras(EDM(), steps))
    past = [0.0, *torch.diagonal(plan.weights, -1).tolist()]
    rows = list(zip(plan.carry.tolist(), torch.diagonal(plan.weights).tolist(), past, strict=True))
    times = plan.times[:-1].unbind()
    network = Free(output, Data())

    @torch.no_grad()
    def run(x: Tensor) -> Tensor:
        x = x.clone()
        before = output
        for (a, b0, b1), t in zip(rows, times, strict=True):
            m = network(x, t)
            x.mul_(a).add_(m, alpha=b0)
            if b1:
                x.add_(before, alpha=b1)
            before = m
        return x

    return run


def k_diffusion_run(output: Tensor, steps: int) -> Run:
    sample = k_diffusion_sampling().sample_dpmpp_2m
    sigmas, network = grids.karras(EDM(), steps).float(), Free(output, Data())
    return lambda x: sample(network, x, sigmas, disable=True)


def diffusers_run(output: Tensor, steps: int) -> Run:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers import DPMSolverMultistepScheduler

        scheduler = DPMSolverMultistepScheduler(solver_order=2, prediction_type="sample")
    network = Free(output, Data())

    @torch.no_grad()
    def run(x: Tensor) -> Tensor:
        for t in scheduler.timesteps:
            told = scheduler.scale_model_input(x, t)
            x = scheduler.step(network(told, t), t, x, return_dict=False)[0]
        return x

    def prepare() -> None:
        scheduler.set_timesteps(steps)

    run.prepare = prepare  # type: ignore[attr-defined]
    return run


CONTENDERS: dict[str, Callable[[Tensor, int], Run]] = {
    "isocline": isocline_run,
    "isocline, network predicts noise": noise_run,
    "hand-written in-place loop": hand_run,
    "k-diffusion sample_dpmpp_2m": k_diffusion_run,
    "diffusers DPMSolverMultistepScheduler": diffusers_run,
}
OURS, HAND, K_DIFFUSION, DIFFUSERS = (list(CONTENDERS)[i] for i in (0, 2, 3, 4))


@dataclass(frozen=True)
class PerStep:
    """Counts of one step: ATen calls, new storages; and of a run: peak of live memory, in latents."""

    operations: float
    allocations: float
    peak: float


def available(output: Tensor) -> dict[str, Callable[[Tensor, int], Run]]:
    """Return the contenders whose packages are installed."""
    found = {}
    for name, make in CONTENDERS.items():
        try:
            make(output, 2)
            found[name] = make
        except ImportError as error:
            print(f"left out: {name} ({error}); see benchmarks/requirements.txt", file=sys.stderr)
    return found


def prepared(run: Run) -> Run:
    """Return `run` after what it does before the clock starts."""
    getattr(run, "prepare", lambda: None)()
    return run


def count_step(make: Callable[[Tensor, int], Run], x: Tensor, output: Tensor) -> PerStep:
    short, long = (_counts(make, x, output, steps) for steps in (STEPS, 2 * STEPS))
    return PerStep(
        operations=(long.total - short.total) / STEPS,
        allocations=(long.storages - short.storages) / STEPS,
        peak=short.peak / (x.numel() * x.element_size()),
    )


def _counts(make: Callable[[Tensor, int], Run], x: Tensor, output: Tensor, steps: int) -> Counts:
    run = prepared(make(output, steps))
    return count(lambda: run(x))


def time_all(runs: dict[str, Run], x: Tensor, repeats: int) -> dict[str, Tensor]:
    """Return microseconds per step (repeats,) of each contender, all run in turn in each repeat."""
    inner = {name: max(1, round(0.02 / _seconds(run, x, 3))) for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for repeat in range(repeats):
        for index in Stream(SEED, "order").permutation(len(names), step=repeat).tolist():
            name = names[index]
            times[name].append(1e6 / STEPS * _seconds(runs[name], x, inner[name]))
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in times.items()}


def _seconds(run: Run, x: Tensor, inner: int) -> float:
    """Return seconds of one run, the mean over `inner` runs whose preparation is not timed."""
    total = 0.0
    for _ in range(inner):
        prepared(run)
        start = time.perf_counter()
        run(x)
        total += time.perf_counter() - start
    return total / inner


def median(sample: Tensor) -> Estimate:
    return bootstrap(lambda v: v.quantile(0.5, dim=-1), sample, rng=SEED)


def same_results(runs: dict[str, Run], x: Tensor) -> None:
    """Check that what is timed computes the same; diffusers has its own noise levels and is compared in the tests."""
    expected = runs[HAND](x)
    for name in (OURS, K_DIFFUSION):
        if name in runs:
            torch.testing.assert_close(runs[name](x), expected, rtol=1e-4, atol=1e-4)


def measure(shape: tuple[int, ...], repeats: int) -> dict[str, Any]:
    x, output = (Stream(SEED, name).normal(shape) for name in ("x", "output"))
    contenders = available(output)
    runs = {name: prepared(make(output, STEPS)) for name, make in contenders.items()}
    same_results(runs, x)
    counts = {name: count_step(make, x, output) for name, make in contenders.items()}
    times = time_all(runs, x, repeats)
    rows = {
        name: {
            "microseconds": vars(median(times[name])),
            "ratio_to_isocline": vars(median(times[name] / times[OURS])),
            **vars(counts[name]),
        }
        for name in runs
    }
    return {"shape": list(shape), "rows": rows, "bars": bars(times, counts)}


def bars(times: dict[str, Tensor], counts: dict[str, PerStep]) -> list[dict[str, Any]]:
    """Return what is promised, what was found, and whether it holds; a timing fails only if its whole interval does."""
    ratio = median(times[OURS] / times[HAND])
    ours = counts[OURS]
    operations, allocations = ours.operations - counts[HAND].operations, ours.allocations - counts[HAND].allocations
    found = [
        _bar("time over the hand-written loop, at most 1.2", str(ratio), ratio.low <= 1.2),
        _bar("ATen calls a step beyond it, at most 2", f"{operations:g}", operations <= 2),
        _bar("allocations a step beyond it, none", f"{allocations:g}", allocations <= 0),
        _bar("peak extra memory in latents, at most 4", f"{ours.peak:.2f}", ours.peak <= 4),
    ]  # fmt: skip
    for name, least in ((K_DIFFUSION, 2.5), (DIFFUSERS, 5.0)):
        if name in times:
            gain = median(times[name] / times[OURS])
            found.append(_bar(f"{name} over isocline, at least {least:g}", str(gain), gain.high >= least))
    return found


def _bar(promise: str, found: str, holds: bool) -> dict[str, Any]:
    return {"promise": promise, "found": found, "holds": holds}


def measure_wide(shape: tuple[int, ...], repeats: int) -> list[dict[str, Any]]:
    """Return one row for each solver of ours and each counterpart: microseconds and counts for each network call."""
    x, output = (Stream(SEED, name).normal(shape) for name in ("x", "output"))
    jobs = {maker: prepared_job(maker.make(output, STEPS), x) for maker in makers()}
    times = time_all({maker.title: job for maker, (job, _) in jobs.items()}, x, repeats)
    calls = {maker.title: calls for maker, (_, calls) in jobs.items()}
    each = {name: took * STEPS / calls[name] for name, took in times.items()}
    rows = []
    for maker in jobs:
        beside = each.get(f"{PACKAGE} {maker.beside}") if maker.package != PACKAGE else None
        rows.append({
            "package": maker.package,
            "name": maker.name,
            "beside": maker.beside,
            "microseconds": vars(median(each[maker.title])),
            "ratio_to_isocline": None if beside is None else vars(median(each[maker.title] / beside)),
            **vars(count_call(maker, x, output)),
        })  # fmt: skip
    return rows


def prepared_job(job: Job, x: Tensor) -> tuple[Job, int]:
    """Return a job after one run, and how many network calls that made."""
    job.prepare()
    job(x)
    return job, job.network.calls


def count_call(maker: Maker, x: Tensor, output: Tensor) -> PerStep:
    """Return the counts for each network call, from runs of two lengths."""
    (short, few), (long, many) = (_counted(maker.make(output, calls), x) for calls in (STEPS, 2 * STEPS))
    return PerStep(
        operations=(long.total - short.total) / (many - few),
        allocations=(long.storages - short.storages) / (many - few),
        peak=short.peak / (x.numel() * x.element_size()),
    )


def _counted(job: Job, x: Tensor) -> tuple[Counts, int]:
    job.prepare()
    return count(lambda: job(x)), job.network.calls


def facts(repeats: int) -> dict[str, Any]:
    """Return what a reader needs to judge the numbers."""
    packages = {}
    for name in ("isocline", "torch", "diffusers", "k-diffusion", "azula", "numpy"):
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            from isocline._version import __version__

            packages[name] = __version__ if name == "isocline" else "not installed"
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "python": platform.python_version(),
        "packages": packages,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "seed": SEED,
        "repeats": repeats,
        "steps": STEPS,
        "dtype": "float32",
    }


def page(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    about = report["facts"]
    versions = ", ".join(f"{k} {v}" for k, v in about["packages"].items())
    lines = [
        "# Overhead of samplers",
        "",
        "Written by `python benchmarks/samplers_overhead.py`: DPM-Solver++ 2M with a network that costs nothing.",
        "",
        f"{about['date']}; Python {about['python']}, {versions}; {about['threads']} of {about['cores']} cores, {about['dtype']}, "
        f"{about['steps']} steps, {about['repeats']} interleaved repeats, seed {about['seed']}. "
        "Medians with 95% bootstrap intervals; ratios are taken within repeats.",
    ]
    for case in report["cases"]:
        lines += ["", f"## Latents {tuple(case['shape'])}", "", *_table(case), "", *_promises(case)]
    for case in report["wide"]:
        lines += ["", f"## All solvers, latents {tuple(case['shape'])}", "", *_wide_table(case["rows"])]
    return "\n".join(lines) + "\n"


def _table(case: dict[str, Any]) -> list[str]:
    head = (
        "| sampler | µs per step | times isocline | ATen calls per step | allocations per step | peak memory, latents |"
    )
    rows = [head, "|---|---|---|---|---|---|"]
    for name, row in case["rows"].items():
        took, ratio = (Estimate(**row[key]) for key in ("microseconds", "ratio_to_isocline"))
        rows.append(
            f"| {name} | {took} | {ratio} | {row['operations']:g} | {row['allocations']:g} | {row['peak']:.2f} |"
        )
    return rows


def _wide_table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| sampler | µs per call | times ours | ATen calls per call | allocations per call | peak memory, latents |",
        "|---|---|---|---|---|---|",
    ]
    order = {row["name"]: index for index, row in enumerate(row for row in rows if row["package"] == PACKAGE)}
    for row in sorted(rows, key=lambda row: (order.get(row["beside"], len(order)), row["package"] != PACKAGE)):
        ratio = row["ratio_to_isocline"]
        against = "" if ratio is None else f"{row['beside']}: {Estimate(**ratio)}"
        lines.append(
            f"| {row['package']} {row['name']} | {Estimate(**row['microseconds'])} | {against} | {row['operations']:.3g} "
            f"| {row['allocations']:.3g} | {row['peak']:.2f} |"
        )
    return lines


def _promises(case: dict[str, Any]) -> list[str]:
    return [
        f"- {'holds' if bar['holds'] else '**fails**'}: {bar['promise']}; found {bar['found']}" for bar in case["bars"]
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats; prints, writes no files")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    repeats = 8 if options.quick else 40
    wide, wide_repeats = (SHAPES[:1], 2) if options.quick else (SHAPES, repeats)
    report: dict[str, Any] = {
        "facts": facts(repeats),
        "cases": [measure(shape, repeats) for shape in SHAPES],
        "wide": [{"shape": list(shape), "rows": measure_wide(shape, wide_repeats)} for shape in wide],
    }
    text = page(report)
    print(text)
    if not options.quick:
        files.write_json(OUT.with_suffix(".json"), report)
        files.write_text(OUT.with_suffix(".md"), text)
    return 0 if all(bar["holds"] for case in report["cases"] for bar in case["bars"]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
