"""What gradients of ODE solutions cost: error, peak memory and time of every mode.

    python benchmarks/ode_gradients.py [--quick] [--repeats 5]

Field: a tanh network of one hidden layer (width 32) on 32 states of dimension 16, float64, t from 0 to 1, constant steps.

    error    the largest difference from the gradient of `Direct` over its largest entry, at 1000 steps
    peak     bytes that all tensors occupy at the most during one solution and its gradient, beyond the network and the first state,
             counted from outside (`live_bytes.py`); the grid of steps, 16 bytes a step, is added
    growth   peak at 10^4 steps over that at 10^2
    time     processor time of one solution with its gradient over that of `Direct`, medians of interleaved repeats, at 100
             steps, and for an adaptive solution of a few steps ("short": Dopri5, PID(1e-5, 1e-5))

Cells at 10^4 steps that would take more than 1 GB are left out. `--quick` measures three methods up to 10^3 steps and
prints; otherwise writes ``docs/benchmarks/ode_gradients.json`` and ``.md``, row by row.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from live_bytes import LiveBytes
from torch import Tensor, nn

from isocline._core import files
from isocline._version import __version__
from isocline.integrators import (
    PID,
    RK4,
    Backsolve,
    Checkpointed,
    Direct,
    Dopri5,
    Leapfrog,
    Midpoint,
    Reversible,
    ReversibleAdjoint,
    ReversibleHeun,
    Separable,
    integrate,
)

OUT = Path(__file__).parent.parent / "docs" / "benchmarks"
QUICK = ("Reversible(Midpoint)", "Leapfrog", "Dopri5")
METHODS: dict[str, Any] = {
    "Reversible(Midpoint)": Reversible(Midpoint()),
    "Leapfrog": Leapfrog(),
    "ReversibleHeun": ReversibleHeun(),
    "RK4": RK4(),
    "Dopri5": Dopri5(),
    "Reversible(RK4)": Reversible(RK4()),
}
MODES: dict[str, Any] = {
    "Direct": Direct(),
    "Checkpointed(sqrt)": Checkpointed("sqrt"),
    "Checkpointed(log)": Checkpointed("log"),
    "ReversibleAdjoint": ReversibleAdjoint(),
    "Backsolve": Backsolve(),
}
BATCH, SIZE, WIDTH, MOST = 32, 16, 32, 1e8


def modes_of(method: str) -> list[str]:
    undone = method.startswith("Reversible") or method == "Leapfrog"
    return [m for m in MODES if (undone or m != "ReversibleAdjoint") and (method != "Leapfrog" or m != "Backsolve")]


class Bed:
    """The network, the first state and what is integrated."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        half = SIZE // 2
        shapes = ((WIDTH, SIZE), (SIZE, WIDTH), (WIDTH, half), (half, WIDTH))
        weights = [torch.randn(s, generator=generator, dtype=torch.float64) / s[1] ** 0.5 for s in shapes]
        self.weights = nn.ParameterList([nn.Parameter(w) for w in weights])
        self.y0 = torch.randn(BATCH, SIZE, generator=generator, dtype=torch.float64).requires_grad_()

    def field(self, t: Tensor, y: Tensor) -> Tensor:
        """Return dy/dt."""
        a, b, *_ = self.weights
        return torch.tanh(y @ a.mT + t) @ b.mT

    def force(self, t: Tensor, q: Tensor) -> Tensor:
        """Return dp/dt of the Hamiltonian system that Leapfrog integrates."""
        *_, a, b = self.weights
        return torch.tanh(q @ a.mT + t) @ b.mT

    def gradient(self, method: str, mode: str, **control: Any) -> Tensor:
        """Return the gradient of a sum of functions of the last state, by the first state and the weights."""
        chosen = METHODS[method]
        options = {"method": chosen, "gradient": MODES[mode], "max_steps": 100_000, **control}
        if method == "Leapfrog":
            halves = self.y0.chunk(2, -1)
            q, p = integrate(Separable(lambda t, p: p, self.force), halves, 0.0, 1.0, **options).y1
            loss, used = (q.sin() + p).sum(), self.weights[2:]
        else:
            loss, used = integrate(self.field, self.y0, 0.0, 1.0, **options).y1.sin().sum(), self.weights[:2]
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, (self.y0, *used))])


def error(bed: Bed, method: str, mode: str, steps: int) -> float:
    expected = bed.gradient(method, "Direct", dt0=1 / steps)
    return float((bed.gradient(method, mode, dt0=1 / steps) - expected).abs().max() / expected.abs().max())


def peak(bed: Bed, method: str, mode: str, steps: int) -> int:
    with LiveBytes() as count:
        bed.gradient(method, mode, dt0=1 / steps)
    return count.peak + (0 if mode == "Direct" else 16 * steps)


def times(bed: Bed, method: str, repeats: int, **control: Any) -> dict[str, float]:
    """Return the median time of each mode over that of `Direct`, from interleaved repeats."""
    modes = modes_of(method)
    taken: dict[str, list[float]] = {mode: [] for mode in modes}
    for repeat in range(repeats + 1):
        for mode in modes:
            start = time.process_time()
            bed.gradient(method, mode, **control)
            if repeat:
                taken[mode].append(time.process_time() - start)
    base = statistics.median(taken["Direct"])
    return {mode: statistics.median(taken[mode]) / base for mode in modes}


def row(bed: Bed, method: str, mode: str, long: tuple[int, ...], ratios: dict[str, float]) -> dict[str, Any]:
    peaks: dict[str, int] = {}
    for n in long:
        if n <= 1000 or peaks["1000"] < MOST:
            peaks[str(n)] = peak(bed, method, mode, n)
    growth = peaks["10000"] / peaks["100"] if "10000" in peaks else None
    return {
        "method": method,
        "mode": mode,
        "error": error(bed, method, mode, long[min(1, len(long) - 1)]),
        "peak": peaks,
        "growth": growth,
        "time": ratios[mode],
    }


def measured(quick: bool, repeats: int, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    bed, steps = Bed(), (100, 1000) if quick else (100, 1000, 10_000)
    result: dict[str, Any] = {
        "version": __version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "quick": quick,
        "short": times(bed, "Dopri5", 10 * repeats, controller=PID(1e-5, 1e-5)),
        "rows": [],
    }
    for method in QUICK if quick else METHODS:
        ratios = times(bed, method, repeats, dt0=1 / 100)
        for mode in modes_of(method):
            result["rows"].append(row(bed, method, mode, steps, ratios))
            print(result["rows"][-1], flush=True)
            keep(result)
    return result


def shown(x: float | None, form: str) -> str:
    return "" if x is None else format(x, form)


def page(result: dict[str, Any]) -> str:
    lines = [
        "# Gradients of ODE solutions: error, memory, time",
        "",
        f"Written by `python benchmarks/ode_gradients.py`; isocline {result['version']}, torch {result['torch']}, "
        f"{result['threads']} thread(s). A tanh network of one hidden layer (width 32) on 32 states of dimension 16, float64, "
        "constant steps from 0 to 1. *Error*: largest difference from the gradient of `Direct` over its largest entry, at 1000 "
        "steps. *Peak*: bytes of all tensors at the most during one solution and its gradient, counted from outside, with the "
        "grid of steps (16 bytes a step). *Growth*: peak at 10^4 steps over that at 10^2. *Time*: processor time over that of "
        "`Direct`, at 100 steps, medians of interleaved repeats.",
        "",
    ]
    lines += [
        "| method | gradient | error | peak 10² (MB) | 10³ | 10⁴ | growth | time |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in result["rows"]:
        peaks = [shown(r["peak"].get(n) and r["peak"][n] / 1e6, ".2f") for n in ("100", "1000", "10000")]
        cells = [
            r["method"],
            r["mode"],
            shown(r["error"], ".0e"),
            *peaks,
            shown(r["growth"], ".2f"),
            shown(r["time"], ".2f"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "A short adaptive solution (Dopri5, `PID(1e-5, 1e-5)`), time over that of `Direct`:", ""]
    lines += [f"- {mode}: {ratio:.2f}" for mode, ratio in result["short"].items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three methods up to 1000 steps; prints, writes no files")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()

    def keep(result: dict[str, Any]) -> None:
        if not given.quick:
            files.write_json(given.out / "ode_gradients.json", result)
            files.write_text(given.out / "ode_gradients.md", page(result))

    print(page(measured(given.quick, given.repeats, keep)))


if __name__ == "__main__":
    main()
