"""Seconds for the same integration by isocline, torchdiffeq, torchode and diffrax, side by side in one process.

    python benchmarks/ode_speed.py [--repeats 30] [--quick] [--threads 1]

Three problems, each at its tolerance (rtol = atol) with Dormand-Prince 5(4) and one step size for the whole batch:

    neural ODE    two-layer tanh MLP of width 64, state 16, batch 128, t in [0, 1], float32, 1e-5; forward, and with the gradient of
                  the sum of the final state with respect to all weights
    Van der Pol   mu = 5, batch 64, t in [0, 10], float64, 1e-6, forward
    Lorenz        batch 64, t in [0, 5], float64, 1e-6, forward

The contenders take turns in each repeat, so that load on the machine meets all of them alike; shown are medians, and the median
and the 95 % interval of the paired ratio to torchdiffeq (bootstrap over repeats). `max error` is against a run of SciPy's DOP853
at 1e-12. One row is the vector field alone, evaluated as often as we do. Contenders that are not installed are left out;
torchode is also compiled where it compiles. jax runs on as many threads as torch. Writes ``docs/benchmarks/ode_speed.json`` and
``.md``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

OUT = Path(__file__).parent.parent / "docs" / "benchmarks"
THREADS = next((b for a, b in zip(sys.argv, sys.argv[1:], strict=False) if a == "--threads"), "1")
os.environ.setdefault(
    "XLA_FLAGS", f"--xla_cpu_multi_thread_eigen={str(THREADS != '1').lower()} intra_op_parallelism_threads={THREADS}"
)
os.environ.setdefault("OMP_NUM_THREADS", THREADS)

import torch  # noqa: E402
from scipy.integrate import solve_ivp  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from isocline._core import files  # noqa: E402
from isocline._version import __version__  # noqa: E402
from isocline.integrators import PID, Direct, Dopri5, integrate  # noqa: E402
from isocline.integrators.compiled import Compiled  # noqa: E402

MU, SIGMA, RHO, BETA = 5.0, 10.0, 28.0, 8 / 3
Run = Callable[[], Any]


class Problem(NamedTuple):
    """A vector field with its start, end and tolerance, and the bars on the ratio to torchdiffeq: eager, compiled."""

    field: Callable[[Any, Tensor], Tensor]
    y0: Tensor
    end: float
    tolerance: float
    bars: tuple[float, float]
    weights: tuple[Tensor, ...] = ()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 16))
    with torch.no_grad():
        for layer in (net[0], net[2], net[4]):
            layer.weight.mul_(3.0)  # torchdiffeq then makes 38 evaluations
    return net


def van_der_pol(t: Any, y: Tensor) -> Tensor:
    x, v = y[:, 0], y[:, 1]
    return torch.stack([v, MU * (1 - x**2) * v - x], 1)


def lorenz(t: Any, y: Tensor) -> Tensor:
    x, v, z = y[:, 0], y[:, 1], y[:, 2]
    return torch.stack([SIGMA * (v - x), x * (RHO - z) - v, x * v - BETA * z], 1)


def problems() -> dict[str, Problem]:
    net = network()
    noise = torch.Generator().manual_seed(1)
    draw = lambda *shape, **kw: torch.randn(*shape, generator=noise, **kw)  # noqa: E731
    double = {"dtype": torch.float64}
    weights = tuple(net.parameters())
    field = lambda t, y: net(y)  # noqa: E731
    y0 = draw(128, 16)
    return {
        "neural ODE, forward": Problem(field, y0, 1.0, 1e-5, (0.4, 0.25)),
        "neural ODE, with gradient": Problem(field, y0, 1.0, 1e-5, (0.7, 0.45), weights),
        "Van der Pol": Problem(van_der_pol, draw(64, 2, **double), 10.0, 1e-6, (0.4, 0.12)),
        "Lorenz": Problem(lorenz, draw(64, 3, **double), 5.0, 1e-6, (0.4, 0.12)),
    }


def differentiated(p: Problem, solve: Callable[[], Tensor]) -> Run:
    if not p.weights:
        return torch.no_grad()(solve)
    return lambda: torch.autograd.grad(solve().sum(), p.weights)


def ours(p: Problem, compiled: bool) -> tuple[Run, Callable[[], Tensor]]:
    gradient = Compiled() if compiled else Direct()
    controller = PID(p.tolerance, p.tolerance)

    def solve() -> Tensor:
        options: dict[str, Any] = {"method": Dopri5(), "controller": controller, "gradient": gradient}
        return integrate(p.field, p.y0, 0.0, p.end, max_steps=100_000, **options).y1

    return differentiated(p, solve), solve


def by_torchdiffeq(p: Problem) -> tuple[Run, Callable[[], Tensor]]:
    import torchdiffeq

    times = torch.tensor([0.0, p.end], dtype=p.y0.dtype)

    def solve() -> Tensor:
        return torchdiffeq.odeint(p.field, p.y0, times, rtol=p.tolerance, atol=p.tolerance, method="dopri5")[-1]

    return differentiated(p, solve), solve


def by_torchode(p: Problem, compiled: bool) -> tuple[Run, Callable[[], Tensor]]:
    import torchode

    term = torchode.ODETerm(p.field)
    control = torchode.IntegralController(atol=p.tolerance, rtol=p.tolerance, term=term)
    solver: Any = torchode.AutoDiffAdjoint(torchode.Dopri5(term=term), control)
    if compiled:
        solver = torch.compile(solver)
    count = p.y0.shape[0]
    span = {"t_start": torch.zeros(count, dtype=p.y0.dtype), "t_end": torch.full((count,), p.end, dtype=p.y0.dtype)}

    def solve() -> Tensor:
        return solver.solve(torchode.InitialValueProblem(y0=p.y0, **span)).ys[:, -1]

    return differentiated(p, solve), solve


def by_diffrax(p: Problem) -> tuple[Run, Callable[[], Tensor]]:
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    y0 = jnp.asarray(p.y0.numpy())
    layers: Any = ()
    if p.y0.dtype == torch.float32:
        found = list(network().parameters())
        layers = [jnp.asarray(w.detach().numpy()) for w in found]

    def field(t: Any, y: Any, w: Any) -> Any:
        if w:
            hidden = jnp.tanh(y @ w[0].T + w[1])
            return jnp.tanh(hidden @ w[2].T + w[3]) @ w[4].T + w[5]
        if y.shape[1] == 2:
            return jnp.stack([y[:, 1], MU * (1 - y[:, 0] ** 2) * y[:, 1] - y[:, 0]], 1)
        x, v, z = y[:, 0], y[:, 1], y[:, 2]
        return jnp.stack([SIGMA * (v - x), x * (RHO - z) - v, x * v - BETA * z], 1)

    def solve(w: Any) -> Any:
        control = diffrax.PIDController(rtol=p.tolerance, atol=p.tolerance)
        options = {"stepsize_controller": control, "max_steps": 4096, "args": w}
        return diffrax.diffeqsolve(diffrax.ODETerm(field), diffrax.Dopri5(), 0.0, p.end, None, y0, **options).ys[-1]

    forward = jax.jit(solve)
    gradient = jax.jit(jax.grad(lambda w: solve(w).sum()))
    run = (
        (lambda: jax.block_until_ready(gradient(layers)))
        if p.weights
        else (lambda: forward(layers).block_until_ready())
    )
    return run, lambda: torch.as_tensor(np.array(forward(layers)))


def field_alone(p: Problem) -> tuple[Run, Callable[[], Tensor]]:
    """Return the evaluations that our integration makes, and nothing else: what no eager solver of this pair can undercut."""
    _, solve = ours(p, False)
    count = integrate(p.field, p.y0, 0.0, p.end, controller=PID(p.tolerance, p.tolerance), max_steps=100_000).stats.nfe
    t = torch.zeros((), dtype=p.y0.dtype)

    def evaluate() -> Tensor:
        y = p.y0
        for _ in range(count - 1):
            p.field(t, y)
        return p.field(t, y)

    def chained() -> Tensor:
        y = p.y0
        for _ in range(count):
            y = p.field(t, y)
        return y

    return differentiated(p, chained if p.weights else evaluate), solve


CONTENDERS: dict[str, Callable[[Problem], tuple[Run, Callable[[], Tensor]]]] = {
    "torchdiffeq": by_torchdiffeq,
    "isocline": lambda p: ours(p, False),
    "isocline, compiled": lambda p: ours(p, True),
    "our evaluations of the field alone": field_alone,
    "torchode": lambda p: by_torchode(p, False),
    "torchode, compiled": lambda p: by_torchode(p, True),
    "diffrax, jit": by_diffrax,
}


def reference(p: Problem) -> Tensor:
    @torch.no_grad()
    def flat(t: float, y: Any) -> Any:
        state = torch.as_tensor(y).reshape(p.y0.shape).to(p.y0.dtype)
        return p.field(t, state).double().numpy().ravel()

    tight = 1e-12 if p.y0.dtype == torch.float64 else 1e-6
    found = solve_ivp(flat, (0.0, p.end), p.y0.double().numpy().ravel(), "DOP853", rtol=tight, atol=tight)
    return torch.as_tensor(found.y[:, -1]).reshape(p.y0.shape)


def prepared(p: Problem) -> tuple[dict[str, Run], dict[str, Any]]:
    """Return what runs, warmed up, and for each contender its error or why it is left out."""
    truth, runs, said = reference(p), {}, {}
    for name, make in CONTENDERS.items():
        began = time.perf_counter()
        try:
            run, solve = make(p)
            run()
            run()
            error = float((solve().detach().double() - truth).abs().max())
        except Exception as problem:  # a peer that is missing or fails is a row of the table
            said[name] = f"{type(problem).__name__}: {str(problem).splitlines()[0][:120] if str(problem) else ''}"
            continue
        runs[name], said[name] = run, {"error": error, "warm-up": time.perf_counter() - began}
        print(f"  {name}: ready after {said[name]['warm-up']:.1f} s", flush=True)
    return runs, said


def timed(runs: dict[str, Run], repeats: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in runs}
    for k in range(repeats):
        names = list(runs)
        for name in names[k % len(names) :] + names[: k % len(names)]:
            began = time.perf_counter()
            runs[name]()
            found[name].append(time.perf_counter() - began)
    return found


def ratio(a: list[float], b: list[float]) -> dict[str, float]:
    """Return the median of paired ratios with a bootstrap interval."""
    pairs = np.array(a) / np.array(b)
    draws = np.random.default_rng(0).choice(pairs, (2000, len(pairs)))
    low, high = np.quantile(np.median(draws, 1), [0.025, 0.975])
    return {"value": float(np.median(pairs)), "low": float(low), "high": float(high)}


def measured(name: str, p: Problem, repeats: int) -> dict[str, Any]:
    print(name, flush=True)
    runs, said = prepared(p)
    times = timed(runs, repeats)
    base = times.get("torchdiffeq")
    rows = {}
    for who, told in said.items():
        if isinstance(told, str):
            rows[who] = {"left out": told}
            continue
        rows[who] = {"ms": 1e3 * float(np.median(times[who])), "best ms": 1e3 * min(times[who]), **told}
        if base:
            rows[who]["ratio"] = ratio(times[who], base)
    return {"rows": rows, "bars": p.bars}


def page(result: dict[str, Any]) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in result["versions"].items())
    lines = [
        "# Speed of integration",
        "",
        f"Written by `python benchmarks/ode_speed.py`; {versions}; {result['threads']} thread, {result['repeats']} interleaved "
        "repeats. Medians; ratios are paired, to torchdiffeq in the same repeat, with a 95 % interval. The first use of a compiled "
        "contender takes the seconds of the last column.",
    ]
    for name, found in result["problems"].items():
        head = "| contender | ms | best ms | ratio to torchdiffeq | max error | first use, s |"
        lines += ["", f"## {name}", "", head, "|---" * 6 + "|"]
        for who, row in found["rows"].items():
            if "left out" in row:
                lines.append(f"| {who} | left out: {row['left out']} | | | | |")
                continue
            r = row.get("ratio")
            shown = f"{r['value']:.3f} [{r['low']:.3f}, {r['high']:.3f}]" if r else ""
            figures = f"{row['ms']:.2f} | {row['best ms']:.2f} | {shown} | {row['error']:.1e} | {row['warm-up']:.1f}"
            lines.append(f"| {who} | {figures} |")
        for who, bar in zip(("isocline", "isocline, compiled"), found["bars"], strict=True):
            r = found["rows"].get(who, {}).get("ratio")
            if r:
                verdict = "holds" if r["value"] <= bar else "not resolved" if r["low"] <= bar else "fails"
                lines.append(f"\n- {who}: {r['value']:.2f}, bar {bar}: {verdict}")
    return "\n".join(lines) + "\n"


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="5 repeats, nothing is written")
    parser.add_argument("--only", help="part of a problem's name")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    repeats = 5 if given.quick else given.repeats
    chosen = {k: p for k, p in problems().items() if not given.only or given.only.lower() in k.lower()}
    packages = ("torch", "torchdiffeq", "torchode", "diffrax", "jax")
    result = {
        "versions": {"isocline": __version__, "python": platform.python_version(), **{p: version(p) for p in packages}},
        "threads": given.threads,
        "repeats": repeats,
        "problems": {name: measured(name, p, repeats) for name, p in chosen.items()},
    }
    print(page(result))
    if not given.quick and not given.only:
        files.write_json(given.out / "ode_speed.json", result)
        files.write_text(given.out / "ode_speed.md", page(result))


if __name__ == "__main__":
    main()
