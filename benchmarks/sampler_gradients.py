"""How near are gradients of samples to the truth, and what do they cost in memory?

    python benchmarks/sampler_gradients.py [--seeds 5] [--quick]

Three exact beds under the linear VP process, float64: a mixture of three Gaussians in one dimension, the smooth bed (8
dimensions, 6 components) and the same with components of width 0.1 (sharp). The loss is the sum of a sample's coordinates, so
that its gradient with respect to the start is one product with the Jacobian of the flow. The truth is that of the equation:
state and Jacobian are integrated together by DOP853 at 1e-12, with the closed-form Jacobian of the denoiser. Errors are
relative, in the Euclidean norm.

Memory is the peak of bytes alive (`PeakBytes`) over the forward and the backward pass of a 3-layer network of width 256 on 64
samples of 16 numbers, whose parameters want gradients too. Writes ``docs/benchmarks/sampler_gradients.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import math
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from isocline._core import files
from isocline._core.stream import Stream
from isocline._version import __version__
from isocline.integrators.methods.euler import Euler
from isocline.integrators.methods.explicit import ExplicitRungeKutta
from isocline.integrators.methods.midpoint import Midpoint
from isocline.integrators.methods.rk4 import RK4
from isocline.plans import Plan, grids, solvers
from isocline.plans.gradients import (
    AdjointDEIS,
    AdjointDPM,
    AdjointODE,
    Checkpointed,
    Direct,
    PeakBytes,
    PlanGradient,
    differentiable,
    plan_gradient,
    rho_runge_kutta,
)
from isocline.processes import GaussianMixture, Noise, VariancePreserving, wrap
from isocline.processes.exact import ExactDenoiser

OUT = Path(__file__).parent.parent / "docs" / "benchmarks"
PROCESS = VariancePreserving(t_min=1e-3)
METHODS: dict[str, ExplicitRungeKutta] = {"euler": Euler(), "midpoint": Midpoint(), "rk4": RK4()}


def three() -> GaussianMixture:
    """Return the mixture in one dimension."""
    means = torch.tensor([[-2.0], [0.5], [2.5]], dtype=torch.float64)
    stds, weights = torch.tensor([0.4, 0.3, 0.5], dtype=torch.float64), torch.tensor([0.3, 0.5, 0.2])
    return GaussianMixture(PROCESS, means, stds, weights)


BEDS: dict[str, Callable[[], ExactDenoiser]] = {
    "one dimension": three,
    "smooth": lambda: GaussianMixture.smooth_bed(PROCESS),
    "sharp": lambda: GaussianMixture.sharp_bed(PROCESS),
}


def truth(bed: ExactDenoiser, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sample (1, d) of the start `x` (1, d) and the gradient (1, d) of the sum of its coordinates, to about 1e-11."""
    process, d = bed.process, x.shape[1]
    eye = torch.eye(d, dtype=torch.float64)

    def rate(lam: float, z: np.ndarray) -> np.ndarray:
        t = process.time_of(lam)
        alpha, sigma, s = process.alpha(t), process.sigma(t), math.exp(-lam)
        state = alpha * torch.tensor(z[None, :d])
        prediction, jacobian = bed.vjp(state.expand(d, d), t, eye)
        slope = (alpha / sigma) * (eye - alpha * jacobian) @ torch.tensor(z[d:]).reshape(d, d)
        return -s * np.concatenate([prediction.eps[0].numpy(), slope.flatten().numpy()])

    ends = [float(process.half_log_snr(t)) for t in (process.t_max, process.t_min)]
    start, end = process.alpha(process.t_max), process.alpha(process.t_min)
    z0 = np.concatenate([(x[0] / start).numpy(), eye.flatten().numpy()])
    z = torch.tensor(solve_ivp(rate, ends, z0, method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1])
    return end * z[None, :d], (end / start * z[d:].reshape(d, d).sum(0))[None]


def starts(bed: ExactDenoiser, seeds: int) -> list[Tensor]:
    if bed.event == (1,):
        return [torch.tensor([[0.7]], dtype=torch.float64)]
    return [
        PROCESS.terminal((1, *bed.event), Stream(seed, "sampler gradients"), dtype=torch.float64)
        for seed in range(seeds)
    ]


def error(plan: Plan, bed: ExactDenoiser, gradient: PlanGradient, x: Tensor, true: Tensor) -> float:
    """Return the relative error of the gradient of the sum of the samples."""
    found = plan_gradient(plan, bed, x, lambda samples: samples.sum(), gradient=gradient).x
    return float((found - true).norm() / true.norm())


def rows() -> dict[str, tuple[Callable[[Tensor], Plan], PlanGradient]]:
    """Return what is compared: for each row the sampler and the gradient mode."""
    heun, ddim = (lambda t: solvers.heun(PROCESS, t)), (lambda t: solvers.ddim(PROCESS, t))
    found: dict[str, tuple[Callable[[Tensor], Plan], PlanGradient]] = {
        "DDIM, checkpointed": (ddim, Checkpointed()),
        "DDIM, AdjointDEIS 1": (ddim, AdjointDEIS(1)),
        "DDIM, AdjointDEIS 2": (ddim, AdjointDEIS(2)),
        "DPM-Solver++ 2M, checkpointed": (lambda t: solvers.dpm_solver_pp_2m(PROCESS, t), Checkpointed()),
        "DPM-Solver++ 2M, AdjointDEIS 2": (lambda t: solvers.dpm_solver_pp_2m(PROCESS, t), AdjointDEIS(2)),
        "Heun, checkpointed": (heun, Checkpointed()),
        "Heun, AdjointDEIS 1": (heun, AdjointDEIS(1)),
        "Heun, AdjointDEIS 2": (heun, AdjointDEIS(2)),
    }
    for name, method in METHODS.items():
        plan = lambda t, method=method: rho_runge_kutta(PROCESS, t, method)  # noqa: E731
        found[f"{name} in rho, checkpointed"] = (plan, Checkpointed())
        found[f"{name} in rho, AdjointDPM re-solved"] = (plan, AdjointDPM(method))
        found[f"{name} in rho, AdjointDPM stored"] = (plan, AdjointDPM(method, stored=True))
    return found


def accuracy(name: str, steps: list[int], seeds: int) -> list[dict[str, Any]]:
    bed = BEDS[name]()
    tasks = [(x, truth(bed, x)[1]) for x in starts(bed, seeds)]
    table = []
    for key, (sampler, gradient) in rows().items():
        errors = {n: [error(sampler(grids.log_snr(PROCESS, n)), bed, gradient, *task) for task in tasks] for n in steps}
        table.append({"bed": name, "row": key, "errors": errors})
    return table


def variables(name: str, steps: int, seeds: int) -> list[dict[str, Any]]:
    """Return errors of the backward pass alone, with and without the change of variables: it starts from an accurate sample."""
    bed = BEDS[name]()
    plan = rho_runge_kutta(PROCESS, grids.log_snr(PROCESS, 100), RK4())
    tasks = [(x, truth(bed, x)[1]) for x in starts(bed, seeds)]
    grid = {"uniform": grids.uniform, "quadratic": grids.quadratic, "karras": grids.karras, "log_snr": grids.log_snr}
    table = []
    for key, method in METHODS.items():
        for where, spaced in grid.items():
            modes = {"t": AdjointODE(method, steps, spaced), "rho": AdjointDPM(method, steps, spaced)}
            errors = {v: [error(plan, bed, mode, *task) for task in tasks] for v, mode in modes.items()}
            table.append({"bed": name, "method": key, "grid": where, "errors": errors})
    return table


def network(width: int = 256, d: int = 16) -> torch.nn.Module:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = [torch.nn.Linear(d, width), torch.nn.Tanh(), torch.nn.Linear(width, width), torch.nn.Tanh()]
            self.net = torch.nn.Sequential(*layers, torch.nn.Linear(width, d))

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.net(x)

    return Net()


def memory(gradient: PlanGradient, steps: int, batch: int = 64) -> dict[str, float]:
    """Return peak bytes and network calls of one forward and backward pass."""
    torch.manual_seed(0)
    denoiser = wrap(network(), PROCESS, Noise())
    plan = solvers.ddim(PROCESS, grids.log_snr(PROCESS, steps))
    x = torch.randn(batch, 16).requires_grad_()
    with PeakBytes() as meter:
        differentiable(plan, denoiser, x, gradient=gradient).square().sum().backward()
    return {"steps": steps, "bytes": meter.peak, "calls": denoiser.calls}


MEMORY: dict[str, PlanGradient] = {
    "Direct": Direct(),
    "Checkpointed": Checkpointed(),
    "AdjointDEIS 2, stored": AdjointDEIS(2),
    "AdjointDEIS 2, re-solved": AdjointDEIS(2, stored=False),
    "AdjointDPM euler, stored": AdjointDPM(Euler(), stored=True),
    "AdjointDPM euler, re-solved": AdjointDPM(Euler()),
    "AdjointDPM rk4, re-solved": AdjointDPM(RK4()),
}


def path_errors(steps: list[int], seed: int, order: int = 1, samples: int = 16) -> dict[int, float]:
    """Return the distance of AdjointDEIS to backpropagation along the same path of noise, ancestral sampling in one dimension.

    The noises of the coarser grids are sums of those of the finest one, so that all follow one Brownian path.
    """
    bed, finest = three(), max(steps)
    stream = Stream(seed, "sampler gradients")
    x = PROCESS.terminal((samples, 1), stream.child("start"), dtype=torch.float64)
    fine = [PROCESS.draw_noise((samples, 1), stream, step=k, dtype=torch.float64) for k in range(finest)]
    found = {}
    for n in steps:
        plan = solvers.ancestral(PROCESS, grids.log_snr(PROCESS, n))
        noise = coarser(fine, PROCESS.noise_level(grids.log_snr(PROCESS, finest)).tolist(), finest // n)
        loss = lambda out: out.sum()  # noqa: E731
        true, ours = (
            plan_gradient(plan, bed, x, loss, gradient=g, noise=noise).x for g in (Direct(), AdjointDEIS(order, eta=1))
        )
        found[n] = float((ours - true).norm() / true.norm())
    return found


def coarser(fine: list[Tensor], s: list[float], many: int) -> list[Tensor]:
    """Return the noises of ancestral steps that each join so many: ``y`` gets ``t sqrt(1 - r^2) z`` and shrinks by ``r^2``."""
    joined = []
    for start in range(0, len(fine), many):
        total = torch.zeros_like(fine[0])
        for k in range(start, start + many):
            r = s[k + 1] / s[k]
            total = r**2 * total + s[k + 1] * math.sqrt(1 - r**2) * fine[k]
        r = s[start + many] / s[start]
        joined.append(total / (s[start + many] * math.sqrt(1 - r**2)))
    return joined


def slope(errors: dict[int, float]) -> float:
    """Return the observed order: minus the slope of log error against log steps, by least squares."""
    n, e = (np.log(np.array(list(v), dtype=float)) for v in (errors.keys(), errors.values()))
    return float(-np.polyfit(n, e, 1)[0])


def middle(values: list[float]) -> float:
    return float(np.median(values))


def tables(result: dict[str, Any]) -> str:
    lines: list[str] = []
    for name in BEDS:
        table = [row for row in result["accuracy"] if row["bed"] == name]
        if not table:
            continue
        steps = list(table[0]["errors"])
        lines += [f"## Error of the gradient: {name}", "", f"| sampler, gradient | {' | '.join(map(str, steps))} |"]
        lines += ["|---" * (len(steps) + 1) + "|"]
        lines += [f"| {r['row']} | {' | '.join(f'{middle(v):.2g}' for v in r['errors'].values())} |" for r in table]
        lines += [""]
    lines += ["## With and without the change of variables", "", "| bed | method | grid | in t | in rho | rho / t |"]
    lines += ["|---|---|---|---|---|---|"]
    for r in result["variables"]:
        t, rho = (middle(r["errors"][v]) for v in ("t", "rho"))
        lines.append(f"| {r['bed']} | {r['method']} | {r['grid']} | {t:.2g} | {rho:.2g} | {rho / t:.2g} |")
    lines += [
        "",
        "## Memory",
        "",
        "| gradient | kB at 20 steps | kB at 200 steps | ratio | calls at 20 |",
        "|---" * 5 + "|",
    ]
    for key, pair in result["memory"].items():
        few, many = pair
        ratio = many["bytes"] / few["bytes"]
        lines.append(f"| {key} | {few['bytes'] / 1e3:.0f} | {many['bytes'] / 1e3:.0f} | {ratio:.2f} | {few['calls']} |")
    lines += [
        "",
        "## Along a path of noise",
        "",
        "| seed | " + " | ".join(map(str, result["path_steps"])) + " | order at the end |",
    ]
    lines += ["|---" * (len(result["path_steps"]) + 2) + "|"]
    for seed, errors in enumerate(result["paths"]):
        cells = " | ".join(f"{v:.3g}" for v in errors.values())
        lines.append(f"| {seed} | {cells} | {slope({int(n): errors[n] for n in list(errors)[-2:]}):.2f} |")
    return "\n".join(lines)


def page(result: dict[str, Any]) -> str:
    versions = result["versions"]
    lines = [
        "# Gradients of samples: adjoints beside checkpointing",
        "",
        f"Written by `python benchmarks/sampler_gradients.py --seeds {result['seeds']}`; isocline "
        f"{versions['isocline']}, torch {versions['torch']}, Python {versions['python']}. Exact denoisers under the linear VP "
        "process from t = 1 to 0.001, float64, grids of equal steps in the half log-SNR. Relative error of the gradient of a "
        "sample's sum with respect to its start; the truth is that of the equation (state and Jacobian by DOP853 at 1e-12). "
        f"Columns are numbers of steps. One dimension: one start, 0.7; elsewhere the median of {result['seeds']} starts.",
        "",
        "*Checkpointed* is the exact gradient of the sampler that was run. *Stored* keeps the states of the run, *re-solved* "
        "only its ends.",
        "",
        tables(result).split("## With and")[0].rstrip(),
        "",
        "## With and" + tables(result).split("## With and")[1].split("## Memory")[0].rstrip(),
        "",
        f"The backward pass alone, {result['variable_steps']} steps from an accurate sample: AdjointDPM integrates in `rho`, "
        "AdjointODE the same equation in `t`, on the same nodes. A ratio above 1 says that the change of variables made it worse.",
        "",
        "## Memory" + tables(result).split("## Memory")[1].split("## Along")[0].rstrip(),
        "",
        "Peak of bytes alive, forward and backward, DDIM, a network of 3 layers of width 256 and 64 samples of 16 numbers; calls "
        "include the forward pass.",
        "",
        "## Along" + tables(result).split("## Along")[1].rstrip(),
        "",
        "Ancestral sampling in one dimension, 16 starts: AdjointDEIS of order 1 with `eta = 1` against backpropagation through the "
        "sampler along the same path of noise, relative; refined grids share one Brownian path.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--quick", action="store_true", help="3 seeds, fewer steps; prints, writes no files")
    given = parser.parse_args()
    seeds = 3 if given.quick else given.seeds
    path_steps = [32, 64, 128] if given.quick else [64, 128, 256, 512, 1024]
    result: dict[str, Any] = {
        "seeds": seeds,
        "versions": {"isocline": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "accuracy": accuracy("one dimension", [20, 40, 80] if given.quick else [20, 40, 80, 160, 320], 1),
        "variable_steps": 20,
        "path_steps": path_steps,
    }
    for name in ("smooth", "sharp"):
        result["accuracy"] += accuracy(name, [20, 40] if given.quick else [20, 80], seeds)
    result["variables"] = [row for name in BEDS for row in variables(name, 20, seeds)]
    result["memory"] = {key: [memory(mode, n) for n in (20, 200)] for key, mode in MEMORY.items()}
    result["paths"] = [path_errors(path_steps, seed) for seed in range(seeds)]
    print(tables(result))
    if not given.quick:
        files.write_json(given.out / "sampler_gradients.json", result)
        files.write_text(given.out / "sampler_gradients.md", page(result))


if __name__ == "__main__":
    main()
