"""Denoising MCMC against sampling from noise, on a mixture whose noise-level posterior is exact.

    python benchmarks/denoising_mcmc.py [--seeds 5] [--chains 200] [--samples 20] [--quick] [--page]

The smooth mixture of 8 dimensions and 6 components, EDM from t = 80, float64, exact denoiser. Chains start from samples of the
best classical plan of ten calls, which are counted; the posterior of the noise level is exact and costs no call. The settings
of the chain, the finishing plan and the classical plan of each number of calls were chosen on seed 1000, which is not reported.
The error is the sliced Wasserstein distance to 16384 exact data. Writes ``docs/benchmarks/denoising_mcmc.json`` and, from it,
``.md``; ``--page`` only the latter.
"""

from __future__ import annotations

import argparse
import platform
import statistics
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isocline._core import files
from isocline._core.errors import InvalidInput
from isocline._core.progress import progress
from isocline._core.stream import Stream
from isocline._version import __version__
from isocline.metrics import sliced_wasserstein
from isocline.plans import Plan, grids, solvers
from isocline.plans.adaptive import Chains, DenoisingMCMC, ExactPosterior
from isocline.plans.candidate import Candidate
from isocline.processes import EDM, GaussianMixture, GaussianProcess

OUT = Path(__file__).parent.parent / "docs" / "benchmarks"
PROCESS = EDM()
BED = GaussianMixture.smooth_bed(PROCESS)
REFERENCE = BED.sample(16384, Stream(999, "reference"))
NEAR = 1.1  # a distance within 10 % of the floor counts as the floor
TUNING = 1000  # the seed on which everything was chosen
CALLS = (4, 5, 6, 7, 8, 9, 10, 12, 15, 20)
CLASSICAL = [
    Candidate(solver, grid, settings, {}, last)
    for solver, settings in (
        (solvers.lam_adams, {"order": 3}),
        (solvers.lam_adams, {"order": 4}),
        (solvers.exponential_adams, {"order": 3}),
        (solvers.rho_adams, {"order": 3}),
        (solvers.dpm_solver_pp_2m, {}),
    )
    for grid in (grids.karras, grids.log_snr)
    for last in (0.03, 0.12)
]


def distance(x: Tensor) -> float:
    return sliced_wasserstein(x, REFERENCE, rng=0, directions=64)


def weight_error(x: Tensor) -> float:
    """Return the largest relative error of a component's weight, by responsibilities, whose mean is the weight exactly."""
    return float((BED.responsibilities(x, PROCESS.t_min).mean(0) / BED.weights - 1).abs().max())


def heun_on_karras(calls: int) -> Plan:
    """Return the plan of the paper's comparison: Heun on a Karras grid, to zero noise where the number of calls is odd."""
    return solvers.heun(PROCESS, grids.karras(PROCESS, (calls + 1) // 2, end="zero" if calls % 2 else "t_min"))


def two_m_on_karras(calls: int) -> Plan:
    return solvers.dpm_solver_pp_2m(PROCESS, grids.karras(PROCESS, calls, end="zero"))


def finish(calls: int, last: float) -> Any:
    """Return the finishing plan: third-order exponential Adams from a time down to zero noise."""

    def compiled(process: GaussianProcess, t: float) -> Plan:
        spot = {"t_max": t}
        return Candidate(solvers.exponential_adams, grids.log_snr, {"order": 3}, spot, last).compile(
            process, calls, "zero"
        )

    return compiled


def chains_of(step: float, skip: int, calls: int, last: float, smallest: bool = False) -> DenoisingMCMC:
    return DenoisingMCMC(0.3, 2.0, count=200, step=step, skip=skip, smallest=smallest, finish=finish(calls, last))


CHAINS = {
    "step 1, 5 steps, 5 calls, last state": chains_of(1.0, 5, 5, 0.06),
    "step 1, 5 steps, 5 calls, smallest level": chains_of(1.0, 5, 5, 0.06, smallest=True),
    "step 0.5, 5 steps, 5 calls, last state": chains_of(0.5, 5, 5, 0.06),
    "step 1, 2 steps, 3 calls, last state": chains_of(1.0, 2, 3, 0.12),
    "step 1, 2 steps, 3 calls, smallest level": chains_of(1.0, 2, 3, 0.12, smallest=True),
}


def start_noise(seed: int, n: int) -> Tensor:
    return PROCESS.terminal((n, *BED.event), Stream(seed, "start"), dtype=torch.float64)


def best_classical(n: int) -> dict[int, Candidate]:
    """Return the best classical plan of each number of calls on the tuning seed."""
    x, found = start_noise(TUNING, n), {}
    for calls in CALLS:
        errors = {}
        for candidate in CLASSICAL:
            try:
                errors[candidate.name] = (distance(candidate.compile(PROCESS, calls, "zero").run(BED, x).x), candidate)
            except InvalidInput:
                continue
        found[calls] = min(errors.values(), key=lambda pair: pair[0])[1]
    return found


def fixed(name: str, plan: Plan, seeds: int, n: int, detail: str = "") -> dict[str, Any]:
    runs = [plan.run(BED, start_noise(seed, n)).x for seed in range(seeds)]
    return {
        "kind": name,
        "detail": detail,
        "calls": plan.calls,
        "together": distance(torch.cat(runs)),
        "each": [distance(x) for x in runs],
        "weights": [weight_error(x) for x in runs],
        "weights_together": weight_error(torch.cat(runs)),
    }


def chained(name: str, sampler: DenoisingMCMC, starting: Plan, seeds: int, chains: int, samples: int) -> dict[str, Any]:
    runs: list[Chains] = []
    for seed in range(seeds):
        x = starting.run(BED, start_noise(seed, chains)).x
        runs.append(sampler.run(BED, x, ExactPosterior(BED), samples, rng=Stream(seed, "chain")))
    flat = [run.x.flatten(0, 1) for run in runs]
    calls = runs[0].cost.calls + starting.calls / samples
    times = [float(run.autocorrelation_time().max()) for run in runs]
    return {
        "kind": "Denoising MCMC",
        "detail": name,
        "calls": calls,
        "together": distance(torch.cat(flat)),
        "each": [distance(x) for x in flat],
        "weights": [weight_error(x) for x in flat],
        "weights_together": weight_error(torch.cat(flat)),
        "times": times,
        "per_effective": [calls * time for time in times],
        "variance": [float(x.var() / REFERENCE.var()) for x in flat],
        "levels": [float(run.levels.median()) for run in runs],
    }


def separated(seeds: int, chains: int) -> list[dict[str, Any]]:
    """Return what chains do on two modes 20 standard deviations apart, for largest levels below and above their distance."""
    means = torch.tensor([[-1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    model = GaussianMixture(PROCESS, means, torch.tensor([0.1, 0.1], dtype=torch.float64))
    rows = []
    for high in (0.2, 0.4, 1.0, 4.0):
        moves, times, worth = [], [], []
        for seed in range(seeds):
            x = model.sample(chains, Stream(seed, "start"))
            run = DenoisingMCMC(0.05, high, count=60).run(model, x, ExactPosterior(model), 40, rng=seed)
            side = run.x[..., 0] > 0
            moves.append(float((side[:, 1:] != side[:, :-1]).double().mean()))
            times.append(float(run.autocorrelation_time()[0]))
            worth.append(run.effective_samples())
        rows.append({"high": high, "moves": moves, "times": times, "effective": worth, "total": 40 * chains})
    return rows


def needed(rows: list[dict[str, Any]], kind: str, error: float, seed: int | None = None) -> int | None:
    """Return the smallest number of calls of that kind of plan with at most `error`."""
    fits = [
        r["calls"] for r in rows if r["kind"] == kind and (r["together"] if seed is None else r["each"][seed]) <= error
    ]
    return min(fits) if fits else None


def verdicts(rows: list[dict[str, Any]]) -> list[str]:
    """Return a line for each setting of the chain: calls for an effective sample against plans from noise."""
    lines, floor = [], rows[0]
    for row in (r for r in rows if r["kind"] == "Denoising MCMC"):
        cells = [row["detail"], f"{row['together']:.4f}", f"{statistics.mean(row['per_effective']):.1f}"]
        for kind in ("Heun on Karras", "2M on Karras", "best classical"):
            whole = needed(rows, kind, max(row["together"], NEAR * floor["together"]))
            errors = [max(mine, NEAR * least) for mine, least in zip(row["each"], floor["each"], strict=True)]
            each = [needed(rows, kind, error, seed) for seed, error in enumerate(errors)]
            wins = sum(n is None or cost < n for n, cost in zip(each, row["per_effective"], strict=True))
            cells.append(f"{'more than ' + str(max(CALLS)) if whole is None else whole} ({wins}/{len(each)})")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def at_equal_calls(rows: list[dict[str, Any]]) -> list[str]:
    """Return a line for each setting of the chain: seeds in which its distance is below that of plans of as many calls."""
    lines = []
    for row in (r for r in rows if r["kind"] == "Denoising MCMC"):
        cells = [row["detail"], f"{row['calls']:.1f}"]
        for kind in ("Heun on Karras", "2M on Karras", "best classical"):
            other = min((r for r in rows if r["kind"] == kind and r["calls"] >= row["calls"]), key=lambda r: r["calls"])
            wins = sum(mine < its for mine, its in zip(row["each"], other["each"], strict=True))
            cells.append(f"{wins}/{len(row['each'])} ({other['calls']} calls)")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def span(values: list[float], form: str = ".4f") -> str:
    return f"{statistics.mean(values):{form}} [{min(values):{form}}, {max(values):{form}}]"


def page(stored: dict[str, Any]) -> str:
    """Return the page of a stored result."""
    settings, versions, rows = stored["settings"], stored["versions"], stored["rows"]
    total = settings["chains"] * settings["samples"]
    plans = [r for r in rows if r["kind"] not in ("exact data", "Denoising MCMC")]
    walks, exact = [r for r in rows if r["kind"] == "Denoising MCMC"], rows[0]
    lines = [
        "# Denoising MCMC against sampling from noise\n",
        f"Written by `python benchmarks/denoising_mcmc.py`; isocline {versions['isocline']}, torch {versions['torch']}, Python "
        f"{versions['python']}; seeds 0 to {settings['seeds'] - 1}. Smooth mixture of 8 dimensions and 6 components, EDM, "
        "float64, exact denoiser, exact posterior of the noise level (no call). "
        f"{settings['chains']} chains of {settings['samples']} samples a seed, {total} samples for plans too. Levels 0.3 to 2, "
        "finishing plans `exponential_adams(order=3)` on `log_snr`. All settings, and the best classical plan of each "
        "number of calls, were chosen on seed 1000. Calls of a chain hold those of its first sample. The error is the sliced "
        "Wasserstein distance to 16384 exact data.\n",
        "## Chains\n",
        f"Fresh exact data read {exact['together']:.4f} (all seeds together) and {span(exact['each'])}; their weights are off by "
        f"{100 * exact['weights_together']:.1f} % together and {span([100 * w for w in exact['weights']], '.1f')} % a seed. The "
        "weights of the chains should be within 10 %.\n",
        "| chain | calls a sample | all seeds together | each seed, mean and range | autocorrelation time | calls an effective "
        "sample | variance against exact | largest relative error of a weight, each seed | together | median level |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in walks:
        cells = [r["detail"], f"{r['calls']:.1f}", f"{r['together']:.4f}", span(r["each"]), span(r["times"], ".2f")]
        cells += [span(r["per_effective"], ".1f"), span(r["variance"], ".3f"), span(r["weights"], ".3f")]
        cells += [f"{r['weights_together']:.3f}", f"{statistics.mean(r['levels']):.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "\n## Against plans of as many calls a sample\n",
        "Seeds in which the chain's distance is smaller than that of the next plan with at least as many calls. Correlation is not "
        "charged here.\n",
        "| chain | calls a sample | Heun on Karras | 2M on Karras | best classical |",
        "|---|---|---|---|---|",
        *at_equal_calls(rows),
        "\n## Calls for an independent sample of equal quality\n",
        "Calls of the cheapest plan from noise whose distance (all seeds together) is not above the chain's, or within 10 % of "
        "what exact data read where the chain's is smaller; in brackets the seeds in which an effective sample of the chain costs "
        "fewer calls than such a plan. The aim was 4 of 5.\n",
        "| chain | error | calls an effective sample | Heun on Karras | 2M on Karras | best classical |",
        "|---|---|---|---|---|---|",
        *verdicts(rows),
        "\n## Plans from noise\n",
        "| plan | calls | all seeds together | each seed, mean and range | largest relative error of a weight | together |",
        "|---|---|---|---|---|---|",
    ]
    for r in plans:
        name = f"{r['kind']}: {r['detail']}" if r["detail"] else r["kind"]
        cells = [name, str(r["calls"]), f"{r['together']:.4f}", span(r["each"]), span(r["weights"], ".3f")]
        lines.append("| " + " | ".join([*cells, f"{r['weights_together']:.3f}"]) + " |")
    lines += [
        "\n## Where it fails: separated modes\n",
        "Two modes in two dimensions, 20 standard deviations (2.0) apart; levels from 0.05, windows of five, 40 samples a chain, "
        f"{settings['chains']} chains. Chains whose largest level does not join the modes never leave theirs: the autocorrelation "
        "time then is the length of the chain and an effective sample is a whole chain.\n",
        "| largest level | moves to the other mode, a sample | autocorrelation time | effective samples | of |",
        "|---|---|---|---|---|",
    ]
    for r in stored["separated"]:
        cells = [
            f"{r['high']:g}",
            span(r["moves"], ".3f"),
            span(r["times"], ".1f"),
            span(r["effective"], ".0f"),
            str(r["total"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Return everything the page shows."""
    n = given.chains * given.samples
    fresh = [BED.sample(n, Stream(seed, "fresh")) for seed in range(given.seeds)]
    rows: list[dict[str, Any]] = [
        {
            "kind": "exact data",
            "detail": "",
            "calls": 0,
            "together": distance(torch.cat(fresh)),
            "each": [distance(x) for x in fresh],
            "weights": [weight_error(x) for x in fresh],
            "weights_together": weight_error(torch.cat(fresh)),
        }
    ]
    best = best_classical(n)
    with progress("sampling", 3 * len(CALLS) + len(CHAINS)) as bar:
        for calls in CALLS:
            rows.append(fixed("Heun on Karras", heun_on_karras(calls), given.seeds, n))
            rows.append(fixed("2M on Karras", two_m_on_karras(calls), given.seeds, n))
            plan = best[calls].compile(PROCESS, calls, "zero")
            rows.append(fixed("best classical", plan, given.seeds, n, best[calls].name))
            bar.advance(3)
        starting = best[10].compile(PROCESS, 10, "zero")
        for name, sampler in CHAINS.items():
            rows.append(chained(name, sampler, starting, given.seeds, given.chains, given.samples))
            bar.advance(1)
    versions = {"isocline": __version__, "torch": torch.__version__, "python": platform.python_version()}
    settings = {"seeds": given.seeds, "chains": given.chains, "samples": given.samples}
    return {"settings": settings, "versions": versions, "rows": rows, "separated": separated(given.seeds, given.chains)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--chains", type=int, default=200)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument(
        "--quick", action="store_true", help="3 seeds of 50 chains of 10 samples; prints, writes no files"
    )
    parser.add_argument("--page", action="store_true", help="write the page again from the stored JSON")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    if given.quick:
        given.seeds, given.chains, given.samples = 3, 50, 10
    target = given.out / "denoising_mcmc.json"
    stored = files.read_json(target) if given.page else measure(given)
    if not given.quick and not given.page:
        files.write_json(target, stored)
    text = page(stored)
    print(text)
    if not given.quick:
        files.write_text(given.out / "denoising_mcmc.md", text)


if __name__ == "__main__":
    main()
