"""Fast waves by networks: on points that move with them against points that stay.

    python benchmarks/lpinn.py [--steps 1000] [--seeds 5]      goes on where it was stopped
    python benchmarks/lpinn.py --quick                          300 iterations, one seed, in ``runs/lpinn``

``u_t + c u_x = 0`` on (0, 2 pi) from sin x until t = 1, periodic, for two speeds c (arXiv 2205.02902), and Burgers' equation of
viscosity 0.01 on (-1, 1) from -sin(pi x) until t = 0.25, before its shock. Both ways have a tanh network of 4 x 50 for the
state; the moving points have one of 2 x 10 beside it for their places, in units of the speed, with the equation in its own
chain rule and the paper's weight of 10 on the speed. Initial values, periodicity and walls hold by construction in both ways,
so that no weights have to be found. Both have 1000 uniform points, drawn once, and equally many iterations of L-BFGS in
float64. Errors are relative L2 at the last time against the exact solution; where points have crossed, the error is that of
zero. Seeds that ``docs/benchmarks/lpinn.json`` has are not run again. Writes that file and ``.md``.
"""

from __future__ import annotations

import argparse
import math
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
from torch.optim import LBFGS

from isocline._core import files
from isocline._core.errors import InvalidInput
from isocline._version import __version__
from isocline.derivatives import Spec, jet
from isocline.equations.library import burgers
from isocline.networks import MLP, Ansatz, HardDirichlet, HardInitial, LagrangianPair, PeriodicFeatures
from isocline.points import Box

ROOT = Path(__file__).parent.parent
INSIDE = 1000
FIRST, SECOND = Spec.of("", "x", "t", names="xt"), Spec.of("", "x", "xx", "t", names="xt")


@dataclass(frozen=True)
class Wave:
    """An equation ``u_t + c(u) u_x = nu u_xx``.

    Args:
        low: lower end of the axis.
        high: upper end.
        stop: last time.
        start: the state at time zero.
        exact: the state at points (N, 2).
        speed: c; None where it is u itself.
        nu: viscosity.
    """

    low: float
    high: float
    stop: float
    start: Callable[[Tensor], Tensor]
    exact: Callable[[Tensor], Tensor]
    speed: float | None
    nu: float = 0.0

    @property
    def periodic(self) -> bool:
        """Whether the ends of the axis are one place."""
        return self.speed is not None

    def points(self, n: int) -> Tensor:
        """Return uniform points (n, 2)."""
        q = torch.rand(n, 2)
        return torch.stack([self.low + (self.high - self.low) * q[:, 0], self.stop * q[:, 1]], 1)


def convection(c: float) -> Wave:
    return Wave(0.0, 2 * math.pi, 1.0, torch.sin, lambda q: torch.sin(q[:, 0] - c * q[:, 1]), c)


def viscous() -> Wave:
    reference = burgers(0.01).reference
    assert reference is not None
    return Wave(-1.0, 1.0, 0.25, lambda x: -torch.sin(math.pi * x), lambda q: reference(q)[:, 0], None, 0.01)


class Times(nn.Module):
    """A network in another unit."""

    def __init__(self, body: nn.Module, unit: float) -> None:
        super().__init__()
        self.body, self.unit = body, unit

    def forward(self, x: Tensor) -> Tensor:
        """Return values (N, 1)."""
        found: Tensor = self.unit * self.body(x)
        return found


def fields(wave: Wave) -> tuple[nn.Module, nn.Module]:
    """Return x, (N, 2) -> (N, 1) of labels and times, and u of two columns; starts, walls and the period are exact."""
    box = Box(x=(wave.low, wave.high), t=(0.0, wave.stop))
    features: list[nn.Module] = [PeriodicFeatures(box, ["x"])] if wave.periodic else []

    def field(start: Callable[[Tensor], Tensor], wall: Callable[[Any], Tensor], body: nn.Module) -> nn.Module:
        walls = [] if wave.periodic else [HardDirichlet("x", wall)]
        conditions = [HardInitial(lambda q: start(q.x)), *walls]
        return Ansatz(body, features=nn.Sequential(*features), box=box, conditions=conditions)

    inputs = 3 if wave.periodic else 2
    place = field(lambda x: x, lambda q: q.x, Times(tanh(2, 10, inputs), wave.speed or 1.0))
    return place, field(wave.start, lambda q: 0 * q.x, tanh(4, 50, inputs))


def moving(wave: Wave, steps: int) -> Tensor:
    """Return the state at the last time and places (512,), by points that move."""
    pair, points = LagrangianPair(*fields(wave)), wave.points(INSIDE)

    def loss() -> Tensor:
        s = pair.carried(points)
        c = s.u if wave.speed is None else wave.speed
        return 10 * (s.x_t - c).square().mean() + (s.along - wave.nu * s.u_xx).square().mean()

    trained(pair, loss, steps)
    labels = torch.linspace(wave.low, wave.high, 1025)
    return pair.at(grid(wave), wave.stop, labels, wave.high - wave.low if wave.periodic else None)


def staying(wave: Wave, steps: int) -> Tensor:
    """Return the state at the last time and places (512,), by points that stay."""
    (_, field), points = fields(wave), wave.points(INSIDE)
    spec = SECOND if wave.nu else FIRST

    def loss() -> Tensor:
        u = jet(field, points, spec)
        c = u[()] if wave.speed is None else wave.speed
        return (u.t + c * u.x - (wave.nu * u.xx if wave.nu else 0.0)).square().mean()

    trained(field, loss, steps)
    with torch.no_grad():
        x = grid(wave)
        found: Tensor = field(torch.stack([x, torch.full_like(x, wave.stop)], 1))[:, 0]
    return found


def tanh(depth: int, width: int, inputs: int) -> nn.Module:
    return MLP(inputs, 1, width=width, depth=depth, activation=nn.Tanh)


def grid(wave: Wave) -> Tensor:
    return wave.low + (wave.high - wave.low) * (torch.arange(512) + 0.5) / 512


def trained(model: nn.Module, loss: Callable[[], Tensor], steps: int) -> None:
    optimizer = LBFGS(
        model.parameters(),
        max_iter=steps,
        max_eval=2 * steps,
        tolerance_grad=0,
        tolerance_change=0,
        history_size=50,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)


MOVING, STAYING = "points that move", "points that stay"
WAYS: dict[str, Callable[[Wave, int], Tensor]] = {
    MOVING: moving,
    STAYING: staying,
}
WAVES: dict[str, tuple[Callable[[], Wave], tuple[str, ...]]] = {
    "c = 2": (lambda: convection(2.0), (MOVING,)),
    "c = 50": (lambda: convection(50.0), (MOVING, STAYING)),
    "Burgers": (viscous, (MOVING, STAYING)),
}


def cell(name: str, way: str, seed: int, steps: int, folder: Path) -> dict[str, float]:
    path = folder / f"{name}-{way}-{steps}-{seed}.json".replace(" ", "-").replace(",", "")
    if not path.exists():
        wave = WAVES[name][0]()
        torch.manual_seed(seed)
        torch.set_default_dtype(torch.float64)
        start = time.process_time()
        try:
            found = WAYS[way](wave, steps)
        except InvalidInput:  # points have crossed
            found = torch.zeros(512)
        seconds = time.process_time() - start
        x = grid(wave).double()
        truth = wave.exact(torch.stack([x, torch.full_like(x, wave.stop)], 1))
        error = float((found - truth).norm() / truth.norm())
        files.write_json(path, {"error": error, "seconds": seconds})
    kept: dict[str, float] = files.read_json(path)
    return kept


def page(result: dict[str, Any]) -> str:
    doc = " ".join((__doc__ or "").split("\n\n")[2].split())
    lines = ["# Points that move with the wave", ""]
    lines += [
        f"Written by `python benchmarks/lpinn.py`; {result['versions']}. {result['steps']} iterations.",
        "",
        doc,
        "",
    ]
    lines += ["| problem | points | seeds | relative L2 | CPU seconds |", "|---|---|---|---|---|"]
    for name, table in result["tables"].items():
        for way, cells in table.items():
            errors = [c["error"] for c in cells]
            middle = statistics.median(errors)
            spread = f"{middle:.2e} ({min(errors):.2e} ... {max(errors):.2e})"
            seconds = statistics.median(c["seconds"] for c in cells)
            lines.append(f"| {name} | {way} | {len(cells)} | {spread} | {seconds:.0f} |")
    return "\n".join([*lines, "", *verdicts(result["tables"]), ""])


def verdicts(tables: dict[str, dict[str, list[dict[str, float]]]]) -> list[str]:
    lines = []
    errors = {name: {way: [c["error"] for c in cells] for way, cells in t.items()} for name, t in tables.items()}
    fast, slow = (errors.get(name, {}).get(MOVING, []) for name in ("c = 50", "c = 2"))
    if fast:
        wins = sum(e <= 1e-2 for e in fast)
        lines.append(f"- Moving points at c = 50, at most 1e-2: {wins} of {len(fast)} seeds ({said(wins, len(fast))}).")
    if fast and slow:
        ratio = statistics.median(fast) / statistics.median(slow)
        lines.append(f"- Their error at c = 50 over that at c = 2: {ratio:.2g} (bar 3: {said(int(ratio <= 3), 1)}).")
    stay = errors.get("c = 50", {}).get(STAYING, [])
    if stay:
        lost = sum(e > 0.3 for e in stay)
        lines.append(
            f"- Points that stay above 0.3 at c = 50: {lost} of {len(stay)} seeds (bar 4 of 5: {said(lost, len(stay))})."
        )
    return lines


def said(wins: int, n: int) -> str:
    return "holds" if wins >= 0.8 * n else "fails"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks")
    given = parser.parse_args()
    folder = ROOT / "runs" / "lpinn"
    if given.quick:
        given.steps, given.seeds, given.out = 300, 1, folder
    torch.set_num_threads(1)
    path = given.out / "lpinn.json"
    result: dict[str, Any] = files.read_json(path) if path.exists() else {"steps": given.steps, "tables": {}}
    if result["steps"] != given.steps:
        result = {"steps": given.steps, "tables": {}}
    for seed in range(given.seeds):
        for name in WAVES:
            for way in WAVES[name][1]:
                cells = result["tables"].setdefault(name, {}).setdefault(way, [])
                if len(cells) == seed:  # what is stored is not run again
                    cells.append(cell(name, way, seed, given.steps, folder))
        result["versions"] = f"isocline {__version__}, torch {torch.__version__}, Python {platform.python_version()}"
        files.write_json(path, result)
        files.write_text(given.out / "lpinn.md", page(result))


if __name__ == "__main__":
    main()
