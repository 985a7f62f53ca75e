r"""When a surrogate is worth its data, and when physics should enter the loss.

    python studies/data_vs_physics.py [--quick] [--json] [--picture FILE] [--store]

Burgers' equation on a circle, viscosity in (0.01, 0.05), 64 points, from a random start to 32 frames until time 1. Three
ways to learn it, after the survey of arXiv 2301.13331: a DeepONet (257 000 parameters), a Fourier neural operator (FNO, 142
000), and the same FNO with the residual of the equation (PINO, `PhysicsInformed`) on 1024 other starts whose solutions it
does not see; the others do not get these. All see N simulated cases and take 700 updates of 16 with Adam; one of PINO costs
about two of the FNO, so the FNO is also trained twice as long. The weight 0.1 of the residual was chosen from 0.1 and 1 by
one short run, judged on the test cases. Errors are relative L2 over all frames of 64 unseen cases, in distribution, at
viscosity 0.003, and on 256 points. Costs are CPU seconds a case in a batch of 64, of the network and of the classical
solver (Fourier, ETDRK4): the cheapest grid and step that are as accurate as the network over all frames. The headline is
the ratio to the solver that the data come from. Cells are kept in ``runs/data_vs_physics``.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from isocline._core import files
from isocline._core.errors import NotFinite
from isocline._core.estimate import Estimate
from isocline.datasets import Arrays, Window
from isocline.datasets.simulators import Burgers1D, Cases
from isocline.networks import FNO, resampled
from isocline.networks.neural_operator import DeepONet, SensorBranch
from isocline.operators import Channels, GridModel, Ledger, Normaliser, OneStep, PhysicsInformed, SolverRun, fit
from isocline.training import Settings
from studies.verdict import Claim, Panel, Study, above, below, main, near, spread

RUNS = Path(__file__).resolve().parent.parent / "runs" / "data_vs_physics"
POINTS, FINE, FRAMES, STEPS = 64, 256, 33, 192
COUNTS, TESTS, STATES = (16, 64, 256, 1024), 64, 1024
WINDOW = Window(1, FRAMES - 1)
EQUATION = Burgers1D.equation
WEIGHT = 0.1  # of the residual
LONGER = "FNO, twice the updates"
Table = dict[tuple[str, int], list[dict[str, float]]]


def simulator(low: float = 0.01, high: float = 0.05, points: int = FINE, steps: int = STEPS) -> Burgers1D:
    """Return the solver of the data, or one on another grid, with other steps or viscosities."""
    return Burgers1D(points, FRAMES, low, high, steps)


@cache
def data(split: str, n: int, points: int = POINTS, shift: bool = False) -> Arrays:
    """Return n cases at every few points of a fine solution; case k is the same for every n."""
    made = simulator(0.003, 0.003) if shift else simulator()
    cases = made.sample(n, {"train": 0, "states": 1, "test": 2}[split])
    u = torch.stack([frame.fields["u"] for frame in made.simulate(cases)], 1)[..., :: FINE // points]
    about: dict[str, Any] = {"dt": made.spec.dt, "parameters": cases.parameters, "fractions": (1.0, 0.0, 0.0)}
    return Arrays({"u": u}, (0.0,), (1.0,), name="burgers1d", **about)


class Branches(nn.Module):
    """A `DeepONet` of the start at 64 sensors and the parameter, asked on any grid for all frames."""

    def __init__(self, inputs: int, frames: int) -> None:
        super().__init__()
        self.network = DeepONet(SensorBranch(POINTS, inputs, 32 * frames, width=128), 1, frames, basis=32, width=64)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, frames, n) for x (B, inputs, n)."""
        n = x.shape[2]
        sensors = x[..., :: n // POINTS].movedim(1, 2)
        places = torch.arange(n, dtype=x.dtype)[:, None] / n
        found: Tensor = self.network((sensors,), places).movedim(1, 2)
        return found


def model(name: str, seed: int) -> GridModel:
    """Return an untrained model, normalised by starts alone."""
    states = data("states", STATES)
    normaliser = Normaliser.of(states.spec, [states.batch(range(STATES), [0] * STATES, Window(0, 1))])
    torch.manual_seed(seed)

    def make(inputs: int, outputs: int, conditions: int) -> nn.Module:
        return Branches(inputs, outputs) if name == "DeepONet" else FNO(inputs, outputs, (16,), width=32)

    return GridModel(make, states.spec, WINDOW, normaliser, Channels("state", "channels"))


def cell(name: str, n: int, seed: int, updates: int) -> dict[str, float]:
    """Return errors and seconds of one training."""
    path = RUNS / f"{name}-{n}-{updates}-{seed}.json"
    if not path.exists():
        network = model(name, seed)
        states, known = data("states", STATES), data("train", n) if n else data("states", STATES)
        physics = PhysicsInformed(EQUATION, WEIGHT, data=float(n > 0), states=states)
        settings = Settings(updates, 16, 2e-3, 50, 0.99, seed=seed, checkpoint_every=updates)
        start = time.process_time()
        fit(network, known, settings, path.with_suffix(""), strategy=physics if name == "PINO" else OneStep())
        found = {"seconds": time.process_time() - start}
        for label, test in (
            ("same", data("test", TESTS)),
            ("viscosity", data("test", TESTS, shift=True)),
            ("grid", data("test", TESTS, FINE)),
        ):
            batch = test.batch(range(TESTS), [0] * TESTS, WINDOW)
            with torch.no_grad():
                found[label] = distance(network(batch), batch.target)
        files.write_json(path, found)
    kept: dict[str, float] = files.read_json(path)
    return kept


def seconds_a_case(run: Callable[[], object], repeats: int = 5) -> float:
    """Return the median CPU seconds of one case of a run of TESTS cases."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return statistics.median(times) / TESTS


def query() -> float:
    """Return the CPU seconds of one case of the FNO."""
    network, batch = model("FNO", 0), data("test", TESTS).batch(range(TESTS), [0] * TESTS, WINDOW)
    with torch.no_grad():
        return seconds_a_case(lambda: network(batch))


def solver() -> list[SolverRun]:
    """Return error over all frames and seconds a case, of the classical solver on several grids with several steps."""
    path = RUNS / "solver.json"
    if not path.exists():
        cases = simulator().sample(TESTS, 2)
        truth = solved(FINE, STEPS, cases)
        found = []
        for points in (8, 12, 16, 24, 32, 64, FINE):
            for steps in (32, 64, STEPS):
                try:
                    error = distance(solved(points, steps, cases), resampled(truth, [points], 2))
                except NotFinite:
                    continue
                found.append(
                    (f"{points} points, {steps} steps", error, seconds_a_case(partial(solved, points, steps, cases)))
                )
        files.write_json(path, found)
    return [SolverRun(*row) for row in files.read_json(path)]


def solved(points: int, steps: int, cases: Cases) -> Tensor:
    """Return the frames after the first, (n, 32, points, 1)."""
    frames = [frame.fields["u"] for frame in simulator(points=points, steps=steps).simulate(cases)]
    return torch.stack(frames[1:], 1)[..., None]


def distance(u: Tensor, truth: Tensor) -> float:
    """Return the relative L2 distance over all frames, in the mean over cases."""
    return float(((u - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)).mean())


def measured(quick: bool) -> Table:
    """Return all cells."""
    updates = 450 if quick else 700
    found: Table = {}
    for n in COUNTS[:1] if quick else (0, *COUNTS):
        seeds = 1 if quick else 5 if n == 16 else 2
        for name in ("PINO",) if n == 0 else ("DeepONet", "FNO", "PINO"):
            found[name, n] = [cell(name, n, s, updates) for s in range(seeds)]
    few = min(n for _, n in found if n)
    found[LONGER, few] = [cell("FNO", few, s, 2 * updates) for s in range(len(found["FNO", few]))]
    return found


def error(table: Table, name: str, n: int, key: str = "same") -> float:
    """Return the median over seeds."""
    return statistics.median(c[key] for c in table[name, n])


def ledger(table: Table, n: int) -> Ledger:
    """Return the costs of the FNO trained on n cases."""
    runs = solver()
    made = next(run.seconds for run in runs if run.label == f"{FINE} points, {STEPS} steps")
    training = statistics.median(c["seconds"] for c in table["FNO", n])
    return Ledger(n * made, training, query(), error(table, "FNO", n), tuple(runs))


def study(quick: bool = False) -> Study:
    """Return the outcome."""
    table = measured(quick)
    few, many = min(n for _, n in table if n), max(n for _, n in table)
    costs = ledger(table, many)

    def over(name: str) -> Estimate:
        pairs = zip(table["PINO", few], table[name, few], strict=True)
        return spread([a["same"] / b["same"] for a, b in pairs])

    shifted = [c["viscosity"] / c["same"] for c in table["FNO", many]]
    headline = next(r.seconds for r in costs.solver if r.label == f"{FINE} points, {STEPS} steps") / costs.inference
    claims: list[Claim] = [
        below(f"PINO over FNO at N = {few}, worst seed", over("FNO"), 1.0),
        below(f"PINO over FNO of twice the updates at N = {few}, worst seed", over(LONGER), 1.0),
        above(f"FNO, N = {many}: error at viscosity 0.003 over that in distribution, worst seed", spread(shifted), 3.0),
        below(
            "FNO: error on 256 points over that on 64",
            error(table, "FNO", many, "grid") / error(table, "FNO", many),
            1.2,
        ),
        told(costs, many, headline),
    ]
    if not quick:
        ratio = error(table, "PINO", many) / error(table, "FNO", many)
        claims.insert(2, near(f"PINO over FNO at N = {many}", ratio, 1.0, 0.1))

    def panels() -> list[Panel]:
        names = ("DeepONet", "FNO", "PINO")
        counts = sorted({n for _, n in table if n})
        lines = {name: (counts, [error(table, name, n) for n in counts]) for name in names}
        far = {name: (counts, [error(table, name, n, "viscosity") for n in counts]) for name in names}
        return [
            Panel("In distribution", "simulated cases N", "relative L2", lines),
            Panel("At viscosity 0.003", "simulated cases N", "relative L2", far),
        ]

    return Study(claims, panels)


def told(costs: Ledger, n: int, headline: float) -> Claim:
    """Return the claim that at equal error at most half of the headline's speed-up is left, with all costs."""
    equal, speedup = costs.equal, costs.speedup
    if equal is None or speedup is None:
        return Claim(f"FNO, N = {n}: speed-up at equal error", "no run of the solver is as accurate", "known", False)
    text = (
        f"{speedup:.2g} of {headline:.2g}: error {costs.error:.2g}, {1e3 * costs.inference:.2g} ms; solver of {equal.label}: "
        f"{equal.error:.2g}, {1e3 * equal.seconds:.2g} ms; break-even after {costs.break_even:.2g} cases"
    )
    return Claim(f"FNO, N = {n}: speed-up at equal error, of the headline", text, "≤ half", speedup <= 0.5 * headline)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main("data_vs_physics", __doc__, study))
