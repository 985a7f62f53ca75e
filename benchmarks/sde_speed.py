"""Seconds for 100 steps of a neural SDE by isocline, a loop written by hand, torchsde and diffrax, side by side in one process.

    python benchmarks/sde_speed.py [--repeats 30] [--quick] [--threads 1]

State 16, batch 128, drift and diffusion two-layer tanh MLPs of width 64, diagonal noise, t in [0, 1], float32: Euler's method (Ito)
and Heun's (Stratonovich), forward, and with the gradient of the sum of the final state with respect to all weights. The loop by
hand draws ``torch.randn`` each step and can do nothing else. isocline once with steps that are known beforehand and once with a
Brownian tree that can be asked at any time (resolved to 2^-10, as diffrax's at tolerance 1e-3, and to 2^-30). torchsde has the
step as a hint.

The contenders take turns in each repeat; shown are medians, and the median and the 95 % interval of the paired ratios to the
loop by hand and to diffrax's tree. Contenders that are not installed are left out. Writes ``docs/benchmarks/sde_speed.json`` and
``.md``.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ode_speed import OUT, ratio, timed, version
from torch import Tensor, nn

from isocline._core import files
from isocline._version import __version__
from isocline.integrators import SDE, BrownianPath, EulerMaruyama, StochasticHeun, integrate

STEPS, BATCH, WIDTH, HIDDEN = 100, 128, 16, 64
HAND, FIXED, DIFFRAX = "by hand", "isocline, fixed steps", "diffrax, tree"
BARS = {"hand": 1.3, "tree": 1 / 3}
Run = Callable[[], Any]


class Task(NamedTuple):
    """Which scheme, and whether the gradient is wanted."""

    heun: bool
    gradient: bool

    @property
    def name(self) -> str:
        """What the table calls it."""
        return ("Heun" if self.heun else "Euler") + (", with gradient" if self.gradient else ", forward")


def mlp(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(WIDTH, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, WIDTH)
    )


DRIFT, DIFFUSION = mlp(0), mlp(1)
START = torch.randn(BATCH, WIDTH, generator=torch.Generator().manual_seed(2))


def differentiated(task: Task, solve: Callable[[], Tensor]) -> Run:
    """Return the run: the solution, and its gradient where that is asked for."""
    if task.gradient:
        weights = [*DRIFT.parameters(), *DIFFUSION.parameters()]
        return lambda: torch.autograd.grad(solve().sum(), weights)

    def run() -> Tensor:
        with torch.no_grad():
            return solve()

    return run


def by_hand(task: Task) -> Run:
    h = 1 / STEPS

    def solve() -> Tensor:
        y = START
        for _ in range(STEPS):
            w = torch.randn(BATCH, WIDTH) * h**0.5
            f, g = DRIFT(y), DIFFUSION(y)
            z = y + h * f + g * w
            y = y + 0.5 * h * (f + DRIFT(z)) + 0.5 * (g + DIFFUSION(z)) * w if task.heun else z
        return y

    return differentiated(task, solve)


def ours(task: Task, depth: int | None) -> Run:
    calculus: Any = "stratonovich" if task.heun else "ito"
    method = StochasticHeun() if task.heun else EulerMaruyama()

    def solve() -> Tensor:
        path = 0 if depth is None else BrownianPath(0, (BATCH, WIDTH), 0.0, 1.0, depth=depth)
        terms = SDE(lambda t, y: DRIFT(y), lambda t, y: DIFFUSION(y), path, calculus=calculus)
        return integrate(terms, START, 0.0, 1.0, method=method, dt0=1 / STEPS).y1

    return differentiated(task, solve)


def by_torchsde(task: Task) -> Run:
    import torchsde

    class Model(nn.Module):
        noise_type, sde_type = "diagonal", "stratonovich" if task.heun else "ito"

        def f(self, t: Tensor, y: Tensor) -> Tensor:
            return DRIFT(y)

        def g(self, t: Tensor, y: Tensor) -> Tensor:
            return DIFFUSION(y)

    model, times = Model(), torch.tensor([0.0, 1.0])

    def solve() -> Tensor:
        path = torchsde.BrownianInterval(0.0, 1.0, size=(BATCH, WIDTH), dt=1 / STEPS)
        return torchsde.sdeint(model, START, times, bm=path, method="heun" if task.heun else "euler", dt=1 / STEPS)[-1]

    return differentiated(task, solve)


def by_diffrax(task: Task) -> Run:
    import diffrax
    import jax
    import jax.numpy as jnp

    def arrays(net: nn.Sequential) -> list[tuple[Any, Any]]:
        return [
            (jnp.asarray(x.weight.detach().numpy()), jnp.asarray(x.bias.detach().numpy()))
            for x in net
            if isinstance(x, nn.Linear)
        ]

    def applied(weights: list[tuple[Any, Any]], y: Any) -> Any:
        for w, b in weights[:-1]:
            y = jnp.tanh(y @ w.T + b)
        w, b = weights[-1]
        return y @ w.T + b

    weights, y0 = (arrays(DRIFT), arrays(DIFFUSION)), jnp.asarray(START.numpy())
    solver = diffrax.Heun() if task.heun else diffrax.Euler()

    def solve(weights: Any, key: Any) -> Any:
        path = diffrax.VirtualBrownianTree(0.0, 1.0, 1e-3, (BATCH, WIDTH), key)
        drift = diffrax.ODETerm(lambda t, y, args: applied(args[0], y))
        noise = diffrax.ControlTerm(lambda t, y, args: lineax_diagonal(applied(args[1], y)), path)
        terms = diffrax.MultiTerm(drift, noise)
        return diffrax.diffeqsolve(terms, solver, 0.0, 1.0, 1 / STEPS, y0, args=weights, max_steps=STEPS + 1).ys.sum()

    def lineax_diagonal(x: Any) -> Any:
        import lineax

        return lineax.DiagonalLinearOperator(x)

    made = jax.jit(jax.grad(solve) if task.gradient else solve)
    key = jax.random.PRNGKey(0)
    return lambda: jax.block_until_ready(made(weights, key))


CONTENDERS: dict[str, Callable[[Task], Run]] = {
    HAND: by_hand,
    FIXED: lambda task: ours(task, None),
    "isocline, tree 2^-10": lambda task: ours(task, 10),
    "isocline, tree 2^-30": lambda task: ours(task, 30),
    "torchsde, with the step as a hint": by_torchsde,
    DIFFRAX: by_diffrax,
}


def measured(task: Task, repeats: int) -> dict[str, Any]:
    print(task.name, flush=True)
    runs: dict[str, Run] = {}
    rows: dict[str, Any] = {}
    for name, make in CONTENDERS.items():
        try:
            run = make(task)
            run(), run()
        except Exception as problem:  # a peer that is missing or fails is a row of the table
            rows[name] = {"left out": f"{type(problem).__name__}: {str(problem)[:120]}"}
            continue
        runs[name] = run
    times = timed(runs, repeats)
    for name, taken in times.items():
        rows[name] = {
            "ms": 1e3 * float(np.median(taken)),
            "best ms": 1e3 * min(taken),
            "to hand": ratio(taken, times[HAND]),
        }
        if DIFFRAX in times:
            rows[name]["to diffrax"] = ratio(taken, times[DIFFRAX])
    return rows


def said(r: dict[str, float] | None) -> str:
    return f"{r['value']:.2f} [{r['low']:.2f}, {r['high']:.2f}]" if r else ""


def page(result: dict[str, Any]) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in result["versions"].items())
    lines = [
        "# Speed of stochastic integration",
        "",
        f"Written by `python benchmarks/sde_speed.py`; {versions}; {result['threads']} thread, "
        f"{result['repeats']} interleaved repeats. {STEPS} steps, state {WIDTH}, batch {BATCH}, float32. Medians; ratios are "
        "paired, in the same repeat, with a 95 % interval.",
    ]
    for name, rows in result["tasks"].items():
        lines += [
            "",
            f"## {name}",
            "",
            "| contender | ms | best ms | ratio to the loop by hand | ratio to diffrax's tree |",
            "|---" * 5 + "|",
        ]
        for who, row in rows.items():
            if "left out" in row:
                lines.append(f"| {who} | left out: {row['left out']} | | | |")
            else:
                lines.append(
                    f"| {who} | {row['ms']:.1f} | {row['best ms']:.1f} | {said(row['to hand'])} | {said(row.get('to diffrax'))} |"
                )
        lines += ["", *verdicts(rows)]
    return "\n".join(lines) + "\n"


def verdicts(rows: dict[str, Any]) -> list[str]:
    found = []
    for who, key, bar in ((FIXED, "to hand", BARS["hand"]), ("isocline, tree 2^-10", "to diffrax", BARS["tree"])):
        r = rows.get(who, {}).get(key)
        if r:
            verdict = "holds" if r["value"] <= bar else "not resolved" if r["low"] <= bar else "fails"
            found.append(f"- {who}, {key}: {r['value']:.2f}, bar {bar:.2f}: {verdict}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="5 repeats, nothing is written")
    parser.add_argument("--only", help="part of a task's name")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    repeats = 5 if given.quick else given.repeats
    tasks = [Task(heun, gradient) for heun in (False, True) for gradient in (False, True)]
    began = time.perf_counter()
    result = {
        "versions": {
            "isocline": __version__,
            "python": platform.python_version(),
            **{p: version(p) for p in ("torch", "torchsde", "diffrax", "jax")},
        },
        "threads": given.threads,
        "repeats": repeats,
        "tasks": {
            task.name: measured(task, repeats)
            for task in tasks
            if not given.only or given.only.lower() in task.name.lower()
        },
    }
    result["seconds"] = time.perf_counter() - began
    print(page(result))
    if not given.quick and not given.only:
        files.write_json(given.out / "sde_speed.json", result)
        files.write_text(given.out / "sde_speed.md", page(result))


if __name__ == "__main__":
    main()
