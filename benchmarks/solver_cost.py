"""Evaluations at prediction of neural ODEs that were trained with a penalty on the solver's work.

    python benchmarks/solver_cost.py [--seeds 5] [--quick]

Two tasks, both with Tsit5 in float64, the whole batch with one step size:

    digits      scikit-learn's 8 x 8 digits, 1000 to train on and 797 to test: a flow of 64 dimensions on [0, 1] by a tanh
                network of width 100, a linear read-out; rtol = atol = 1e-6; 300 updates of 128 images. Test loss:
                cross-entropy. Also accuracy.
    sinusoids   sine and cosine on 16 shared irregular times in [0, 1], half of the values missing: a latent ODE of 6
                dimensions; rtol = atol = 1e-5; 400 updates of 100 series out of 300. Test loss: mean squared error at the
                missing values of 200 other series.

Contenders: no penalty; the global ones of arXiv 2105.03918 (error, stiffness); the local ones of arXiv 2303.02262 (unbiased,
biased), and with a fresh step of the size of the solver's own; the kinetic energy of RNODE (arXiv 2002.02798) without its Jacobian
term; the random times of STEER (arXiv 2006.10711).
Weights fall by a factor of ten over training. Each contender is given the weight, out of two to five, with the fewest evaluations
on seed 100 among those with at most 1.05 times the test loss without a penalty there (and accuracy within one point); the five
seeds of the table take no part in that. In the table `equal loss` is at most 1.1 times the test loss of the same seed without a
penalty, and accuracy within one point. The bar is 0.75 times its evaluations at equal loss on at least four of five seeds. Times
are processor time of training. Each run is kept in ``runs/solver_cost``. Writes ``docs/benchmarks/solver_cost.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from isocline._core import files
from isocline._core.stream import Stream
from isocline._version import __version__
from isocline.datasets import load_digits
from isocline.integrators import PID, SaveAt, Tsit5, integrate
from isocline.objectives import (
    ExponentialDecay,
    Visited,
    error_cost,
    local_step,
    stiffness_cost,
    uniform_time,
    visited_step,
    with_time,
)
from isocline.timeseries.models import LatentODE, NeuralODE, Solving, VectorField, kl_weight

OUT = Path(__file__).parent.parent / "docs" / "benchmarks"
RUNS = Path("runs/solver_cost")
METHOD, TUNED_ON, SEEDS, COUNT = Tsit5(), 100, 5, 16
STEERING = {"digits": PID(1e-6, 1e-6), "sinusoids": PID(1e-5, 1e-5)}
UPDATES = {"digits": 300, "sinusoids": 400}
TUNED_LOSS, LOSS, POINTS, BAR = 1.05, 1.1, 0.01, 0.75

Solved = tuple[Tensor, Tensor | float]


class Ask(NamedTuple):
    """What is to be solved in one update, and how heavily the solver's work counts."""

    field: Any
    z: Tensor
    times: Tensor
    steering: PID
    rng: Stream
    step: int
    weight: float


Contender = Callable[[Ask], Solved]


# ---------------------------------------------------------------------------------------------------- contenders


def solved(ask: Ask, times: Tensor, saveat: SaveAt | None = None, record: Any = (), pair: Any = None) -> Any:
    field, z = pair or (ask.field, ask.z)
    kept = saveat or SaveAt(ts=times)
    return integrate(
        field, z, 0.0, float(times[-1]), method=METHOD, controller=ask.steering, saveat=kept, record=record
    ).check()


def none(ask: Ask) -> Solved:
    return solved(ask, ask.times).ys, 0.0


def global_error(ask: Ask) -> Solved:
    found = solved(ask, ask.times, record=("steps",))
    return found.ys, error_cost(found)


def global_stiffness(ask: Ask) -> Solved:
    found = solved(ask, ask.times, record=("steps",))
    return found.ys, stiffness_cost(found)


def local(ask: Ask, y: Tensor, t: float, dt0: float | None = None) -> Tensor:
    end = float(ask.times[-1])
    return error_cost(local_step(ask.field, y, t, end, controller=ask.steering, method=METHOD, dt0=dt0))


def local_unbiased(ask: Ask) -> Solved:
    t = uniform_time(0.0, float(ask.times[-1]), rng=ask.rng, step=ask.step)
    more, place = with_time(ask.times, t)
    ys = solved(ask, more).ys
    return torch.cat([ys[:place], ys[place + 1 :]]), local(ask, ys[place], t)


def visited(ask: Ask) -> tuple[Tensor, Visited]:
    count = len(ask.times)
    found = solved(ask, ask.times, SaveAt(ts=ask.times, t0=True, steps=True))
    return found.ys[1 : 1 + count], visited_step(found, rng=ask.rng, step=ask.step, asked=count)


def local_biased(ask: Ask) -> Solved:
    ys, made = visited(ask)
    return ys, local(ask, made.y, made.t)


def local_own(ask: Ask) -> Solved:
    ys, made = visited(ask)
    return ys, local(ask, made.y, made.t, made.h)


def kinetic_energy(ask: Ask) -> Solved:
    def both(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        slope = ask.field(t, state[0])
        return slope, slope.square().mean(1)

    found = solved(ask, ask.times, pair=(both, (ask.z, ask.z.new_zeros(len(ask.z)))))
    return found.ys[0], found.ys[1][-1].mean()


def steer(ask: Ask) -> Solved:
    """Solve to times that are moved at random by up to `weight` / 2 of the gap to their neighbours: here the weight is a width."""
    before = torch.diff(ask.times, prepend=ask.times.new_zeros(1))
    gaps = torch.minimum(before, torch.cat([before[1:], before[-1:]]))
    shift = ask.rng.child("steer").uniform((len(gaps),), step=ask.step, dtype=torch.float64) - 0.5
    return solved(ask, ask.times + ask.weight * shift * gaps * 0.999).ys, 0.0


CONTENDERS: dict[str, Contender] = {
    "no penalty": none,
    "global error": global_error,
    "global stiffness": global_stiffness,
    "local error, unbiased": local_unbiased,
    "local error, biased": local_biased,
    "local error, own step": local_own,
    "kinetic energy": kinetic_energy,
    "random times (STEER)": steer,
}
LOCAL = (1e6, 1e7, 1e8)
WEIGHTS: dict[str, dict[str, tuple[float, ...]]] = {
    "digits": {
        "global error": (0.1, 0.3, 1.0),
        "global stiffness": (0.1, 0.3, 1.0),
        "local error, unbiased": LOCAL,
        "local error, biased": LOCAL,
        "local error, own step": (1.0, 3.0, 10.0),
        "kinetic energy": (0.1, 1.0, 10.0),
        "random times (STEER)": (0.5, 1.0, 1.9),
    },
    "sinusoids": {
        "global error": (0.3, 0.35, 0.4, 0.45, 0.5),
        "global stiffness": (0.2, 0.25, 0.3),
        "local error, unbiased": (1e4, 3e4, 1e5, 3e5),
        "local error, biased": (1e4, 3e4, 1e5, 3e5),
        "local error, own step": (3.0, 10.0),
        "kinetic energy": (0.01, 0.1),
        "random times (STEER)": (0.5, 0.9),
    },
}


# ---------------------------------------------------------------------------------------------------- tasks


class Task(Protocol):
    """A model, its loss and how it is judged."""

    model: nn.Module
    rate: float

    def loss(self, contender: Contender, step: int, weight: float) -> tuple[Tensor, Tensor | float]:
        """Return loss and weighted penalty of one update."""
        ...

    def judged(self) -> dict[str, float]:
        """Return test loss and evaluations."""
        ...


class Digits:
    """The classifier."""

    rate = 3e-3

    def __init__(self, seed: int) -> None:
        images, labels = load_digits().all()
        order = Stream(seed, "split").permutation(len(images))
        x, labels = images.flatten(1).double()[order], labels[order]
        self.train, self.test = (x[:1000], labels[:1000]), (x[1000:], labels[1000:])
        self.rng, self.end = Stream(seed), torch.ones(1, dtype=torch.float64)
        self.model = NeuralODE(
            VectorField(64, width=100), nn.Linear(64, 10), solving=Solving(METHOD, STEERING["digits"])
        ).double()

    def loss(self, contender: Contender, step: int, weight: float) -> tuple[Tensor, Tensor | float]:
        """Return cross-entropy and weighted penalty."""
        rows = self.rng.child("batch").integers(1000, (128,), step=step)
        ys, penalty = contender(
            Ask(self.model.field, self.train[0][rows], self.end, STEERING["digits"], self.rng, step, weight)
        )
        return nn.functional.cross_entropy(self.model.readout(ys[0]), self.train[1][rows]), weight * penalty

    @torch.no_grad()
    def judged(self) -> dict[str, float]:
        """Return figures of the test set."""
        x, labels = self.test
        solution = self.model.solve(x)
        scores = self.model.readout(solution.y1)
        return {
            "loss": float(nn.functional.cross_entropy(scores, labels)),
            "accuracy": float((scores.argmax(1) == labels).double().mean()),
            "evaluations": solution.stats.nfe,
        }


def sinusoids(rng: Stream, series: int, times: Tensor) -> Tensor:
    """Return (series, T, 2): sine and cosine, amplitude in [0.5, 1], 0.8 to 1.2 periods in [0, 1], any phase, noise of 0.02."""
    u = rng.child("shape").uniform((series, 3), dtype=torch.float64)
    angle = 2 * math.pi * ((0.8 + 0.4 * u[:, :1]) * times + u[:, 1:2])
    clean = (0.5 + 0.5 * u[:, 2:])[..., None] * torch.stack([torch.sin(angle), torch.cos(angle)], dim=-1)
    return clean + 0.02 * rng.child("noise").normal(tuple(clean.shape), dtype=torch.float64)


class Sinusoids:
    """The latent ODE."""

    rate = 2e-2

    def __init__(self, seed: int) -> None:
        self.rng = Stream(seed)
        self.times = self.rng.child("times").uniform((COUNT,), dtype=torch.float64).sort().values
        values = sinusoids(self.rng, 500, self.times)
        hidden = self.rng.child("mask").uniform((500, COUNT, 2)) < 0.5
        shown = torch.where(hidden, torch.nan, values)
        self.train = shown[:300]
        self.test = shown[300:], torch.where(hidden, values, torch.nan)[300:]
        self.model = LatentODE(
            2, latent=6, width=40, noise=0.1, solving=Solving(METHOD, STEERING["sinusoids"])
        ).double()

    def loss(self, contender: Contender, step: int, weight: float) -> tuple[Tensor, Tensor | float]:
        """Return minus the bound for each observed value, and the weighted penalty."""
        values = self.train[self.rng.child("batch").integers(300, (100,), step=step)]
        law = self.model.encode(self.times, values)
        ys, penalty = contender(
            Ask(self.model.field, law.sample(self.rng, step), self.times, STEERING["sinusoids"], self.rng, step, weight)
        )
        fit = self.model.log_likelihood(self.model.decoder(ys.movedim(0, 1)), values)
        count = (~values.isnan()).sum((1, 2))
        return -((fit - kl_weight(step, delay=20) * law.kl()) / count).mean(), weight * penalty

    @torch.no_grad()
    def judged(self) -> dict[str, float]:
        """Return figures of the test set."""
        shown, hidden = self.test
        law = self.model.encode(self.times, shown)
        solution = self.model.solve(law.mean, self.times)
        miss = self.model.decoder(solution.ys.movedim(0, 1)) - hidden
        return {"loss": float(miss.square().nanmean()), "evaluations": solution.stats.nfe}


TASKS: dict[str, Callable[[int], Any]] = {"digits": Digits, "sinusoids": Sinusoids}


# ---------------------------------------------------------------------------------------------------- cells


def cell(task: str, contender: str, weight: float, seed: int, updates: int) -> dict[str, Any]:
    """Return what one training run gave, read from its file where it has been made before."""
    place = RUNS / f"{task} {contender} {weight:g} {seed} {updates}.json"
    if place.exists():
        return dict(files.read_json(place))
    torch.manual_seed(seed)
    bed, began = TASKS[task](seed), time.process_time()
    optimiser = torch.optim.Adam(bed.model.parameters(), lr=bed.rate)
    falls = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, updates, bed.rate / 20)
    decay = ExponentialDecay(1.0, 1.0 if contender.startswith("random") else 0.1, updates)
    first = 0.0
    for step in range(updates):
        loss, penalty = bed.loss(CONTENDERS[contender], step, weight * decay(step))
        first = float(torch.as_tensor(penalty).detach()) if step == 0 else first
        optimiser.zero_grad()
        (loss + penalty).backward()
        nn.utils.clip_grad_norm_(bed.model.parameters(), 5.0)
        optimiser.step()
        falls.step()
    row = {"task": task, "contender": contender, "weight": weight, "seed": seed, "first penalty": first}
    row |= {"seconds": time.process_time() - began} | bed.judged()
    files.write_json(place, row)
    print(row, flush=True)
    return row


def equal(row: dict[str, Any], plain: dict[str, Any], allowed: float) -> bool:
    """Return whether a run is as good as the one without a penalty: its loss and, where there is one, its accuracy."""
    accurate = row.get("accuracy", 1.0) >= plain.get("accuracy", 0.0) - POINTS
    return bool(accurate and row["loss"] <= allowed * plain["loss"])


def weight_of(task: str, contender: str, updates: int) -> float:
    """Return the weight with the fewest evaluations at equal loss on the seed for tuning."""
    plain = cell(task, "no penalty", 0.0, TUNED_ON, updates)
    rows = [cell(task, contender, weight, TUNED_ON, updates) for weight in WEIGHTS[task][contender]]
    good = [row for row in rows if equal(row, plain, TUNED_LOSS)] or [min(rows, key=lambda row: row["loss"])]
    return float(min(good, key=lambda row: (row["evaluations"], row["loss"]))["weight"])


def rows_of(task: str, seeds: int, updates: int) -> list[dict[str, Any]]:
    """Return all runs of the table for one task."""
    weights = {name: weight_of(task, name, updates) for name in WEIGHTS[task]} | {"no penalty": 0.0}
    return [cell(task, name, weights[name], seed, updates) for name in CONTENDERS for seed in range(seeds)]


# ---------------------------------------------------------------------------------------------------- page


def spread(values: list[float], digits: int) -> str:
    found = torch.tensor(values, dtype=torch.float64)
    error = float(found.std() / len(values) ** 0.5) if len(values) > 1 else 0.0
    return f"{float(found.mean()):.{digits}f} ± {error:.{digits}f}"


def judged(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Return the figures of one contender beside those without a penalty, seed by seed."""
    plain = [row for row in rows if row["contender"] == "no penalty"]
    own = [row for row in rows if row["contender"] == name]
    pairs = list(zip(own, plain, strict=True))
    logs = [math.log(a["loss"] / b["loss"]) for a, b in pairs]
    reached = [a["evaluations"] <= BAR * b["evaluations"] and equal(a, b, LOSS) for a, b in pairs]
    return {
        "contender": name,
        "weight": own[0]["weight"],
        "evaluations": [row["evaluations"] for row in own],
        "ratio": sum(a["evaluations"] for a in own) / sum(b["evaluations"] for b in plain),
        "losses": [row["loss"] for row in own],
        "loss ratio": math.exp(sum(logs) / len(logs)),
        "accuracies": [row["accuracy"] for row in own if "accuracy" in row],
        "equal": sum(equal(a, b, LOSS) for a, b in pairs),
        "reached": sum(reached),
        "seeds": len(pairs),
        "seconds": sum(a["seconds"] for a in own) / sum(b["seconds"] for b in plain),
    }


def table(task: str, rows: list[dict[str, Any]]) -> str:
    found = [judged(rows, name) for name in CONTENDERS]
    accuracy = "accuracy in % | " if found[0]["accuracies"] else ""
    head = f"| {task} | weight | evaluations | share | test loss | ratio | {accuracy}equal loss | bar, seeds | training time |"
    lines = [head, "|---" * head.count(" | ") + "|---|"]
    for x in found:
        share = f"{spread([100 * a for a in x['accuracies']], 1)} | " if x["accuracies"] else ""
        reached = "" if x["contender"] == "no penalty" else f"{x['reached']} of {x['seeds']}"
        lines.append(
            f"| {x['contender']} | {x['weight']:g} | {spread(x['evaluations'], 1)} | {x['ratio']:.2f} | {spread(x['losses'], 4)} | "
            f"{x['loss ratio']:.2f} | {share}{x['equal']} of {x['seeds']} | "
            f"{reached} | {x['seconds']:.2f} |"
        )
    return "\n".join(lines)


def verdict(found: dict[str, list[dict[str, Any]]]) -> str:
    """Return which contenders reach the bar on which tasks."""
    lines = []
    for name in list(CONTENDERS)[1:]:
        marks = {task: judged(rows, name) for task, rows in found.items()}
        reached = [task for task, x in marks.items() if x["reached"] >= math.ceil(0.8 * x["seeds"])]
        lines.append(f"- {name}: {'reached on ' + ' and '.join(reached) if reached else 'not reached'}")
    return "\n".join(lines)


def page(found: dict[str, list[dict[str, Any]]]) -> str:
    tables = "\n\n".join(table(task, rows) for task, rows in found.items())
    return (
        "# Penalties on the solver's work\n\n"
        f"Written by `python benchmarks/solver_cost.py`; isocline {__version__}, torch {torch.__version__}. What was run is said "
        f"in the first lines of that script. {SEEDS} seeds. Evaluations are those of the vector field for the "
        "whole test set, with one step size; `share` is their ratio to those without a penalty. Mean and standard error over "
        "seeds; `ratio` is the geometric mean of the paired ratios of test losses; times are processor time of training as a "
        "share of that without a penalty.\n\n"
        f"{tables}\n\nThe bar, at most {BAR} of the evaluations at equal test loss on four of five seeds:\n\n{verdict(found)}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--task", choices=list(TASKS), help="only this task, also in what is written")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--quick", action="store_true", help="1 seed, 20 updates; prints, writes no table")
    given = parser.parse_args()
    torch.set_num_threads(1)
    seeds = 1 if given.quick else given.seeds
    updates = {task: 20 if given.quick else count for task, count in UPDATES.items()}
    found = {task: rows_of(task, seeds, updates[task]) for task in ([given.task] if given.task else TASKS)}
    print("\n\n".join(table(task, rows) for task, rows in found.items()))
    if given.quick:
        return
    versions = {"isocline": __version__, "torch": torch.__version__, "python": platform.python_version()}
    tuning = {
        task: [cell(task, name, w, TUNED_ON, UPDATES[task]) for name, tried in WEIGHTS[task].items() for w in tried]
        for task in found
    }
    files.write_json(given.out / "solver_cost.json", {"rows": found, "tuning": tuning, "versions": versions})
    files.write_text(given.out / "solver_cost.md", page(found))


if __name__ == "__main__":
    main()
