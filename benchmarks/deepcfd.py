"""DeepCFD on flows past random shapes: three decoders, one, an auto-encoder, and what each query saves beside the solver.

    python benchmarks/deepcfd.py              all contenders, 3 seeds; goes on where it was stopped
    python benchmarks/deepcfd.py --quick      the three networks of the paper, one seed
    python benchmarks/deepcfd.py --updates 4000 --seeds 1 --only "three decoders"     longer training
    python benchmarks/deepcfd.py --stored     writes the page again from what is stored

Steady flows of `Obstacle2D` (viscosity 0.01; circles, squares, diamonds, triangles, stars of random size and place) as images of
64 x 32, from meshes of size 0.03: 280 cases to learn from, 120 unseen. Inputs: distances to the obstacle, regions of the flow,
distances to the walls, and the mask. Contenders have filters 8, 16, 32, 32 and kernels of 5 points. All train on the paper's loss
(squared velocities and absolute pressure, each over its root mean square) with AdamW at 1e-3, a cosine, averaged weights and weight
decay 5e-3, batch 8, float32. Updates are equal, which is not equal cost; the U-Net of one decoder is therefore also trained for
twice as many, which takes about the seconds of three decoders. NMSE is the squared error over the mean square of the truth, for
each channel and case, on the whole image; intervals are 95 % bootstrap intervals over unseen cases of the mean over seeds. Seconds
are CPU seconds of one thread. Cells are kept in ``runs/deepcfd``. Writes ``docs/benchmarks/deepcfd.json``, ``.md`` and ``.png``.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn

from isocline._core import files
from isocline._core.errors import InvalidInput
from isocline._core.estimate import bootstrap
from isocline._core.stream import Stream
from isocline._version import __version__
from isocline.datasets import Stored, generate
from isocline.datasets.fields import Batch, Window
from isocline.datasets.simulators import Obstacle2D
from isocline.datasets.simulators.base import Cases
from isocline.datasets.simulators.obstacle2d import LENGTHS
from isocline.equations.classical.obstacle import channel_flow
from isocline.metrics import nmse
from isocline.networks import DeepCFD, DeepCFDAutoEncoder
from isocline.objectives import FlowLoss
from isocline.operators import Channels, GridModel, Ledger, Normaliser, SolverRun, fit
from isocline.training import Settings

ROOT = Path(__file__).parent.parent
RUNS = ROOT / "runs" / "deepcfd"
IMAGE, MESH, TRAIN, TEST = (64, 32), 0.03, 280, 120
BATCH, UPDATES = 8, 1000
CHANNELS = ("Ux", "Uy", "p")
STEADY = Window(0, 1)
BAR, LONGEST = 0.05, 600.0  # NMSE, and seconds of training it may take

REFERENCE = (0.015, 0.03375)
MESHES = (
    (0.03, 0.0675),
    (0.05, 0.1125),
    (0.05, 0.2),
    (0.08, 0.16),
    (0.1, 0.2),
    (0.125, 0.2),
    (0.15, 0.2),
    (0.2, 0.2),
)  # sizes of triangles at the obstacle and far from it
JUDGED = 20  # unseen cases that are also solved on the other meshes


@dataclass(frozen=True)
class Contender:
    """A network of (inputs, outputs), and how many times the updates it trains."""

    network: Callable[[int, int], nn.Module]
    times: int = 1


def unet(inputs: int, outputs: int) -> nn.Module:
    return DeepCFD(inputs, (outputs,))


THREE, ONE, AUTO, LONGER = "three decoders", "one decoder", "auto-encoder", "one decoder, twice the updates"
CONTENDERS = {
    THREE: Contender(lambda inputs, outputs: DeepCFD(inputs, (1,) * outputs)),
    ONE: Contender(unet),
    AUTO: Contender(lambda inputs, outputs: DeepCFDAutoEncoder(inputs, (outputs,))),
    LONGER: Contender(unet, 2),
}
QUICK = (THREE, ONE, AUTO)
Table = dict[str, list[dict[str, Any]]]


def data() -> Stored:
    """Return the data set; it is made once."""
    return generate(Obstacle2D(IMAGE, size=MESH), RUNS / "data", train=TRAIN, test=TEST)


def everything(source: Stored, split: str) -> Batch:
    return next(source.batches(STEADY, source.cases(split), split))


def model_of(name: str, source: Stored, seed: int = 0) -> GridModel:
    """Return an untrained model with the means and spreads of the training set."""
    torch.manual_seed(seed)
    normaliser = Normaliser.of(source.spec, [everything(source, "train")])
    make = CONTENDERS[name].network
    return GridModel(lambda i, o, _: make(i, o), source.spec, STEADY, normaliser, Channels("state", "none"))


def cell(name: str, seed: int, updates: int) -> dict[str, Any]:
    path = RUNS / f"{name.replace(' ', '-').replace(',', '')}-{updates}-{seed}.json"
    if not path.exists():
        source = data()
        model, loss = model_of(name, source, seed), FlowLoss.of(everything(source, "train").target.movedim(-1, 1))
        steps = updates * CONTENDERS[name].times
        settings = Settings(steps, BATCH, 1e-3, 100, decay=5e-3, seed=seed, checkpoint_every=steps)
        start = time.process_time()
        fit(model, source, settings, path.with_suffix(""), objective=loss.per_case)
        seconds, (guess, truth) = time.process_time() - start, unseen(model, source)
        found = {
            "nmse": nmse(guess, truth)[:, 0].tolist(),
            "seconds": seconds,
            "updates": steps,
            "parameters": sum(p.numel() for p in model.parameters()),
            "against reference": nmse(guess[:JUDGED].double(), reference()).mean((0, 1)).tolist(),
            "query": seconds_a_query(model, source),
        }
        files.write_tensors(path.with_suffix(".safetensors"), model.state_dict())
        files.write_json(path, found)
    kept: dict[str, Any] = files.read_json(path)
    return kept


def unseen(model: GridModel, source: Stored) -> tuple[Tensor, Tensor]:
    """Return predicted and true fields of the unseen cases, (B, 1, x, y, 3)."""
    with torch.no_grad():
        parts = [(model(batch), batch.target) for batch in source.batches(STEADY, 30, "test")]
    guess, truth = zip(*parts, strict=True)
    return torch.cat(guess), torch.cat(truth)


# ---------------------------------------------------------------------------------------------------- the solver


def unseen_cases(size: float, n: int) -> tuple[Obstacle2D, Cases]:
    """Return the first unseen cases of the data set, with outlines of edges of `size`, at most 0.05."""
    simulator = Obstacle2D(IMAGE, size=min(size, 0.05))
    return simulator, simulator.sample(n, Stream(0).child("test"))


def solved(sizes: tuple[float, float]) -> tuple[Tensor, float]:
    """Return flows (JUDGED, 1, x, y, 3) on meshes of these sizes, as `Obstacle2D` makes them, and the median CPU seconds of one.

    Raises:
        InvalidInput: a case has no mesh of these sizes.
    """
    simulator, cases = unseen_cases(sizes[0], JUDGED)
    wet = simulator.constants(cases)["mask"] > 0
    x = simulator.coordinates(cases, IMAGE)
    found, seconds = torch.zeros(JUDGED, *IMAGE, 3, dtype=torch.float64), []
    for i, polygon in enumerate(simulator.polygons(cases)):
        start = time.process_time()
        found[i, wet[i]] = channel_flow(polygon, simulator.low, LENGTHS, sizes)(x[wet[i]])
        seconds.append(time.process_time() - start)
    return found.unsqueeze(1), statistics.median(seconds)


def reference() -> Tensor:
    path = RUNS / "reference.safetensors"
    if not path.exists():
        files.write_tensors(path, {"flow": solved(REFERENCE)[0]})
    return files.read_tensors(path)[0]["flow"]


def solver() -> list[dict[str, Any]]:
    """Return errors and seconds of the solver on every mesh that all cases have; they are computed once."""
    path = RUNS / "solver.json"
    if not path.exists():
        found, truth = [], reference()
        for sizes in MESHES:
            try:
                flow, seconds = solved(sizes)
            except InvalidInput:
                continue
            found.append({"sizes": sizes, "nmse": nmse(flow, truth).mean((0, 1)).tolist(), "seconds": seconds})
        files.write_json(path, found)
    kept: list[dict[str, Any]] = files.read_json(path)
    return kept


def seconds_a_query(model: GridModel, source: Stored, repeats: int = 20) -> float:
    """Return the median CPU seconds of one case: its distances and regions, and a forward pass."""
    simulator, cases = unseen_cases(MESH, 1)
    one, times = source.batch([0], [0], STEADY, "test"), []
    for _ in range(repeats):
        start = time.process_time()
        simulator.constants(cases)
        with torch.no_grad():
            model(one)
        times.append(time.process_time() - start)
    return statistics.median(times)


def ledgers(cells: list[dict[str, Any]], runs: list[dict[str, Any]]) -> dict[str, Ledger]:
    """Return costs at equal error for every channel; errors are roots of the mean NMSE over cases and seeds."""
    made = next(run["seconds"] for run in runs if run["sizes"][0] == MESH)
    training, query = (statistics.median(c[k] for c in cells) for k in ("seconds", "query"))
    found = {}
    for i, channel in enumerate(CHANNELS):
        error = statistics.mean(c["against reference"][i] for c in cells) ** 0.5
        ladder = tuple(SolverRun(f"triangles of {r['sizes'][0]:g}", r["nmse"][i] ** 0.5, r["seconds"]) for r in runs)
        found[channel] = Ledger(TRAIN * made, training, query, error, ladder)
    return found


# ---------------------------------------------------------------------------------------------------- the page


def errors_of(cells: list[dict[str, Any]]) -> Tensor:
    """Return NMSE (cases, channels), the mean over seeds."""
    return torch.tensor([c["nmse"] for c in cells], dtype=torch.float64).mean(0)


def page(result: dict[str, Any]) -> str:
    doc = " ".join((__doc__ or "").split("\n\n")[2].split())
    lines = ["# DeepCFD on flows past unseen shapes", ""]
    lines += [f"Written by `python benchmarks/deepcfd.py`; {result['versions']}.", "", doc, ""]
    for title, table in result["tables"].items():
        lines += [f"## {title}", "", *errors(table, torch.tensor(result["mean flow"])), "", *verdicts(table), ""]
        if title in result["pictures"]:
            lines += [result["pictures"][title], "", f"![Truth, prediction and difference]({image(title)})", ""]
    lines += ladder(result["solver"])
    for title, table in result["tables"].items():
        lines += costs(title, table, result["solver"])
    return "\n".join(lines) + "\n"


def errors(table: Table, mean: Tensor) -> list[str]:
    """Return the table of errors on unseen cases; `mean` are those of the mean flow, (cases, channels)."""
    lines = [
        "| contender | seeds | parameters | updates | CPU seconds | "
        + " | ".join(f"NMSE of {c}" for c in CHANNELS)
        + " | mean |",
        "|---" * 9 + "|",
    ]
    for name, cells in table.items():
        seconds = statistics.median(c["seconds"] for c in cells)
        figures = f"{len(cells)} | {cells[0]['parameters']} | {cells[0]['updates']} | {seconds:.0f}"
        lines.append(f"| {name} | {figures} | {intervals(errors_of(cells))} |")
    return [*lines, f"| mean of the training flows |  |  |  |  | {intervals(mean)} |"]


def intervals(found: Tensor) -> str:
    return " | ".join(str(bootstrap(lambda w: w.mean(-1), values, rng=0)) for values in (*found.T, found.mean(1)))


def verdicts(table: Table) -> list[str]:
    lines = []
    for name, cells in table.items():
        means, slowest = errors_of(cells).mean(0).tolist(), max(c["seconds"] for c in cells)
        verdict = "holds" if max(means) <= BAR and slowest <= LONGEST else "fails"
        worst = CHANNELS[means.index(max(means))]
        lines.append(
            f"- {name}: at most {max(means):.2%} NMSE ({worst}) after {slowest:.0f} CPU seconds (bar 5 % a channel after at most "
            f"600 seconds: {verdict})."
        )
    for better, worse in ((THREE, ONE), (ONE, AUTO), (THREE, LONGER)):
        if better in table and worse in table:
            lines.append(f"- {compared(better, worse, table)}")
    return lines


def compared(better: str, worse: str, table: Table) -> str:
    """Return how the mean NMSE of two contenders compare over the seeds that both have."""
    n = min(len(table[better]), len(table[worse]))
    a, b = (errors_of(table[name][:n]).mean(1) for name in (better, worse))
    ratio = bootstrap(lambda u, v: u.mean(-1) / v.mean(-1), a, b, rng=0)
    seeds = torch.tensor([[torch.tensor(c["nmse"]).mean() for c in table[k][:n]] for k in (better, worse)])
    bar = f" (bar 1: {'holds' if ratio.value <= 1 else 'fails'})" if worse != LONGER else ""
    lower = int((seeds[0] <= seeds[1]).sum())
    return f"NMSE of {better} over {worse}: {ratio}{bar}; lower in {lower} of {n} seeds."


def ladder(runs: list[dict[str, Any]]) -> list[str]:
    lines = ["## The solver beside a query", ""]
    lines += [
        f"The finite element solver on {JUDGED} of the unseen shapes, against triangles of {REFERENCE[0]:g} at the obstacle.",
        "Reading the flow out at the image's points is in the seconds; a mesh that one of the shapes does not have is left out.",
        "",
        "| triangles at the obstacle, far | " + " | ".join(f"NMSE of {c}" for c in CHANNELS) + " | CPU seconds |",
        "|---" * 5 + "|",
    ]
    for run in runs:
        shown = " | ".join(f"{e:.2e}" for e in run["nmse"])
        lines.append(f"| {run['sizes'][0]:g}, {run['sizes'][1]:g} | {shown} | {run['seconds']:.3f} |")
    return [
        *lines,
        "",
        "Below, the cheapest of these meshes that is at least as accurate as the network on that channel, against the same",
        "reference; since none of these meshes may be exactly as accurate, the ratio of seconds is at most what is stated.",
        "A query is the distances and regions of one case and one forward pass. Break-even are the queries after which data,",
        "at the solver's seconds on their mesh, and training have paid.",
        "",
    ]


def costs(title: str, table: Table, runs: list[dict[str, Any]]) -> list[str]:
    lines = [
        f"### After {title}",
        "",
        "| contender | channel | error | query, ms | solver | its error | its ms | ratio, at most | break-even, at least |",
        "|---" * 9 + "|",
    ]
    for name, cells in table.items():
        lines += [cost(name, channel, ledger) for channel, ledger in ledgers(cells, runs).items()]
    return [*lines, ""]


def cost(name: str, channel: str, ledger: Ledger) -> str:
    start = f"| {name} | {channel} | {ledger.error:.3f} | {1e3 * ledger.inference:.1f} |"
    if ledger.equal is None:
        return f"{start} none |  |  |  |  |"
    solver = f"{ledger.equal.label} | {ledger.equal.error:.3f} | {1e3 * ledger.equal.seconds:.0f}"
    return f"{start} {solver} | {ledger.speedup:.1f} | {ledger.break_even:.0f} |"


def mean_flow() -> list[list[float]]:
    """Return NMSE (cases, channels) of predicting the mean of the training flows for every shape."""
    source = data()
    truth = everything(source, "test").target
    mean = everything(source, "train").target.mean(0, keepdim=True).expand_as(truth)
    found: list[list[float]] = nmse(mean, truth)[:, 0].tolist()
    return found


def picture(path: Path, updates: int) -> str:
    """Draw the unseen shape of the median error of three decoders, seed 0; return what it shows."""
    from matplotlib.figure import Figure

    source, stem = data(), f"{THREE.replace(' ', '-')}-{updates}-0"
    model = model_of(THREE, source)
    model.load_state_dict(files.read_tensors(RUNS / f"{stem}.safetensors")[0])
    guess, truth = unseen(model.eval(), source)
    errors = nmse(guess, truth)[:, 0]
    case = int(errors.mean(1).argsort()[len(errors) // 2])
    figure = Figure(figsize=(11, 4), layout="constrained")
    grid = figure.subplots(2, 3)
    for row, channel in zip(grid, (0, 2), strict=True):
        a, b = truth[case, 0, ..., channel], guess[case, 0, ..., channel]
        low, high, most = float(a.min()), float(a.max()), float((b - a).abs().max())
        shown = {
            "truth": (a, "viridis", low, high),
            "prediction": (b, "viridis", low, high),
            "difference": (b - a, "RdBu_r", -most, most),
        }
        for axes, (what, (values, colours, least, greatest)) in zip(row, shown.items(), strict=True):
            drawn = axes.imshow(values.T, origin="lower", cmap=colours, vmin=least, vmax=greatest)
            axes.set_title(f"{CHANNELS[channel]}, {what}")
            axes.set_axis_off()
            figure.colorbar(drawn, ax=axes, shrink=0.8)
    figure.savefig(path, dpi=110)
    parts = ", ".join(f"{100 * e:.2g} % of {c}" for c, e in zip(CHANNELS, errors[case].tolist(), strict=True))
    return f"Three decoders, seed 0, on the unseen shape of its median error: NMSE {parts}."


def image(title: str) -> str:
    """Return the name of the picture of a table."""
    updates = int(title.split()[0])
    return "deepcfd.png" if updates == UPDATES else f"deepcfd_{updates}.png"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="the three networks of the paper, one seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=UPDATES)
    parser.add_argument("--only", choices=tuple(CONTENDERS), action="append")
    parser.add_argument("--stored", action="store_true", help="write the page from what is stored")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks")
    given = parser.parse_args()
    torch.set_num_threads(1)
    path, title = given.out / "deepcfd.json", f"{given.updates} updates"
    result: dict[str, Any] = files.read_json(path) if path.exists() else {"tables": {}, "pictures": {}}
    seeds, names = (1, QUICK) if given.quick else (given.seeds, given.only or tuple(CONTENDERS))
    todo = [(name, seed) for seed in range(seeds) for name in names]
    if not given.stored and "solver" not in result:
        result |= {"solver": solver(), "mean flow": mean_flow()}
    for name, seed in () if given.stored else todo:
        cells = result["tables"].setdefault(title, {}).setdefault(name, [])
        if len(cells) == seed:  # what is stored is not run again
            cells.append(cell(name, seed, given.updates))
        if name == THREE and title not in result["pictures"]:
            result["pictures"][title] = picture(given.out / image(title), given.updates)
        result["versions"] = f"isocline {__version__}, torch {torch.__version__}, Python {platform.python_version()}"
        files.write_json(path, result)
        files.write_text(given.out / "deepcfd.md", page(result))
    files.write_text(given.out / "deepcfd.md", page(result))


if __name__ == "__main__":
    main()
