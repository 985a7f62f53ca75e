"""The Fourier neural operator beside neuraloperator's at equal steps, and on grids that it was not trained on.

    PYTHONPATH=src /path/to/peers/python benchmarks/fno_accuracy.py     both networks, 5 seeds; goes on where it was stopped
    python benchmarks/fno_accuracy.py --only 'isocline;alias-free'       without the peer

Burgers' equation from the start to time 1 (viscosity 0.01, 1024 points) and Darcy's (levels 3 and 12, 32 x 32): 512 cases to
learn from, 128 unseen. On Burgers training is on 256 points and the test on 256, 512 and 1024, all of the same band-limited
functions; Darcy is trained and tested on one grid. Both networks have width 32 (64 on Burgers), four layers, 16 frequencies
an axis (12 on Darcy; neuraloperator's number that keeps as many), coordinates, no channel MLP; Adam at 1e-3 with a cosine,
batch 20 (16), the relative L2 loss, float32. neuraloperator applies GELU twice after each layer but the last, isocline once;
the row from its weights is its own function, started from its numbers and trained by isocline on the same batches. T1 has the
width and depth of the others and 32 cosines, which reach as far as their 16 frequencies, and is also trained for twice the
steps, which cost it about as much as the others' (``fno.md``). Cells are kept in ``runs/fno_accuracy``. Writes
``docs/benchmarks/fno_accuracy.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn

from isocline._core import files
from isocline._core.estimate import bootstrap
from isocline._version import __version__
from isocline.datasets.simulators import Burgers1D, Darcy2D
from isocline.networks import FNO, T1, fno_from_neuralop, resampled, with_coordinates
from isocline.objectives.fields import relative_l2

ROOT = Path(__file__).parent.parent
TRAIN, TEST = 512, 128
STEPS = {"burgers": 1000, "darcy": 500}
GRIDS = {"burgers": (256, 512, 1024), "darcy": (32,)}
SAME = "isocline, from its weights"
NAMES = ("isocline", "neuraloperator", SAME, "alias-free", "T1", "T1, twice the steps")
PERIODIC = ("alias-free", "T1", "T1, twice the steps")  # not for the walls of Darcy's equation


def data(bed: str, folder: Path) -> dict[str, Tensor]:
    """Return inputs and outputs (N, 1, *S) of the cases; they are made once."""
    path = folder / f"{bed}.safetensors"
    if not path.exists():
        simulator = Burgers1D(low=0.01, high=0.01) if bed == "burgers" else Darcy2D(resolution=32)
        cases = simulator.sample(TRAIN + TEST, 0)
        frames = [f.fields["u"] for f in simulator.simulate(cases)]
        x = frames[0] if bed == "burgers" else simulator.constants(cases)["a"]
        both = [w.unsqueeze(1) for w in (x, frames[-1])]
        if bed == "burgers":  # what 256 points hold
            both = [resampled(resampled(w, [256], 2), [1024], 2) for w in both]
        files.write_tensors(path, {"x": both[0].float(), "y": both[1].float()})
    return files.read_tensors(path)[0]


def network(name: str, bed: str) -> nn.Module:
    modes, width = ((16,), 64) if bed == "burgers" else ((12, 12), 32)
    inputs = 1 + len(modes)
    if name.startswith("T1"):
        return T1(inputs, 1, (2 * modes[0],), GRIDS[bed][:1], width=width)
    if name not in ("neuraloperator", SAME):
        return FNO(
            inputs, 1, modes, width=width, alias_free=name == "alias-free", padding=0.25 if bed == "darcy" else 0.0
        )
    from neuralop.models import FNO as Peer

    kept = tuple(2 * m - 1 for m in modes)
    # their padding is at both ends, ours at one end: the same on a torus
    more = {"domain_padding": 0.125} if bed == "darcy" and name != SAME else {}
    peer: nn.Module = Peer(
        n_modes=kept, in_channels=inputs, out_channels=1, hidden_channels=width, n_layers=4, use_channel_mlp=False,
        positional_embedding=None, **more,
    )  # fmt: skip
    if name != SAME:
        return peer
    with torch.random.fork_rng():  # so that both go on with the same batches
        same = fno_from_neuralop(peer.state_dict())
    same.padding = 0.25 if bed == "darcy" else 0.0
    return same


def on(w: Tensor, n: int, bed: str) -> Tensor:
    return resampled(w, [n], 2) if bed == "burgers" and w.shape[2] != n else w


def cell(name: str, bed: str, seed: int, folder: Path) -> dict[str, Any]:
    path = folder / f"{name}-{bed}-{seed}.json"
    steps = STEPS[bed] * (2 if name.endswith("twice the steps") else 1)
    if not path.exists():
        known, first = data(bed, folder), GRIDS[bed][0]
        x, y = (on(known[k], first, bed) for k in ("x", "y"))
        mean, std = [float(w[:TRAIN].mean()) for w in (x, y)], [float(w[:TRAIN].std()) for w in (x, y)]
        torch.manual_seed(seed)
        net, batch = network(name, bed), 20 if bed == "burgers" else 16
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        start = time.process_time()

        def predicted(a: Tensor) -> Tensor:
            found: Tensor = net(with_coordinates((a - mean[0]) / std[0]))
            return found * std[1] + mean[1]

        for _ in range(steps):
            rows = torch.randint(TRAIN, (batch,))
            optimizer.zero_grad()
            relative_l2(predicted(x[rows]), y[rows]).mean().backward()
            optimizer.step()
            schedule.step()
        seconds = time.process_time() - start
        errors = {}
        with torch.no_grad():
            for n in GRIDS[bed]:
                a, b = (on(known[k][TRAIN:], n, bed) for k in ("x", "y"))
                parts = [relative_l2(predicted(u), v) for u, v in zip(a.split(32), b.split(32), strict=True)]
                errors[str(n)] = float(torch.cat(parts).mean())
        count = sum(p.numel() * (2 if p.is_complex() else 1) for p in net.parameters())
        files.write_json(path, {"errors": errors, "seconds": seconds, "parameters": count})
    kept: dict[str, Any] = files.read_json(path)
    return kept


def page(result: dict[str, Any]) -> str:
    doc = " ".join((__doc__ or "").split("\n\n")[2].split())
    lines = ["# Accuracy of Fourier neural operators", ""]
    lines += [f"Written by `python benchmarks/fno_accuracy.py`; {result['versions']}.", "", doc, ""]
    for bed, table in result["tables"].items():
        grids = [str(n) for n in GRIDS[bed]]
        lines += [
            f"## {bed}",
            "",
            "| network | seeds | parameters | "
            + " | ".join(f"error on {n} points" for n in grids)
            + " | CPU seconds |",
        ]
        lines.append("|---" * (4 + len(grids)) + "|")
        for name, cells in table.items():
            shown = []
            for n in grids:
                values = [c["errors"][n] for c in cells]
                shown.append(f"{statistics.median(values):.3g} ({min(values):.3g} ... {max(values):.3g})")
            seconds = statistics.median(c["seconds"] for c in cells)
            lines.append(f"| {name} | {len(cells)} | {cells[0]['parameters']} | {' | '.join(shown)} | {seconds:.0f} |")
        lines += ["", *verdicts(bed, table), ""]
    return "\n".join(lines) + "\n"


def verdicts(bed: str, table: dict[str, list[dict[str, Any]]]) -> list[str]:
    lines, own = [], str(GRIDS[bed][0])
    mine, theirs = table.get("isocline", []), table.get("neuraloperator", [])
    if min(len(mine), len(theirs)) >= 2:
        ratios = torch.tensor([a["errors"][own] / b["errors"][own] for a, b in zip(mine, theirs, strict=False)])
        found = bootstrap(lambda r: r.median(-1).values, ratios, rng=0)
        verdict = "holds" if found.low >= 0.9 and found.high <= 1.1 else "fails"
        lines.append(
            f"- isocline over neuraloperator: {found} over {len(ratios)} seeds (bar, inside 0.9 to 1.1: {verdict})."
        )
    if len(same := table.get(SAME, [])) >= 2:
        gaps = [abs(a["errors"][own] / b["errors"][own] - 1) for a, b in zip(same, theirs, strict=False)]
        lines.append(f"- {SAME} over neuraloperator: at most {max(gaps):.1e} from 1 over {len(gaps)} seeds.")
    for name in ("T1", "T1, twice the steps"):
        if len(cells := table.get(name, [])) >= 2:
            ratios = torch.tensor([a["errors"][own] / b["errors"][own] for a, b in zip(cells, mine, strict=False)])
            found = bootstrap(lambda r: r.median(-1).values, ratios, rng=0)
            verdict = "holds" if found.high <= 1.1 else "fails" if found.low > 1.1 else "is not decided"
            lines.append(f"- {name} over isocline: {found} over {len(ratios)} seeds (bar 1.1: {verdict}).")
    for name, bar in (("isocline", 1.2), ("alias-free", 1.05)):
        for n in GRIDS[bed][1:]:
            if cells := table.get(name, []):
                worst = max(c["errors"][str(n)] / c["errors"][own] for c in cells)
                verdict = "holds" if worst <= bar else "fails"
                lines.append(
                    f"- {name} on {n} points: at most {worst:.3f} times its error on {own} (bar {bar}: {verdict})."
                )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default=";".join(NAMES), help="names of networks, with semicolons")
    parser.add_argument("--beds", default="burgers,darcy", help="names of beds, with commas")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks")
    given = parser.parse_args()
    torch.set_num_threads(1)
    path, folder = given.out / "fno_accuracy.json", files.ensure_folder(ROOT / "runs" / "fno_accuracy")
    result: dict[str, Any] = files.read_json(path) if path.exists() else {"tables": {}}
    for bed in given.beds.split(","):
        table = result["tables"].setdefault(bed, {})
        for seed in range(given.seeds):
            for name in given.only.split(";"):
                if bed == "darcy" and name in PERIODIC:
                    continue
                if len(table.setdefault(name, [])) == seed:  # what is stored is not run again
                    table[name].append(cell(name, bed, seed, folder))
            result["versions"] = (
                f"isocline {__version__}, torch {torch.__version__}, Python {platform.python_version()}"
            )
            files.write_json(path, result)
            files.write_text(given.out / "fno_accuracy.md", page(result))


if __name__ == "__main__":
    main()
