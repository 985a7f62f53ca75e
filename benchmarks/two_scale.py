"""Two-scale networks on layers: against a plain network, Fourier features, and with parts left out.

    python benchmarks/two_scale.py [--only layer,two_layers] [--quick]

Problems, eps from 1e-1 down, layers of width eps (of sqrt(nu) or nu for Burgers):

    layer        -eps u'' + 2 u' = 3 on (0, 1),  u(0) = u(1) = 0
    two_layers   eps u'' - x u' - u = 0 on (-1, 1),  u(-1) = 1,  u(1) = 2
    corner       -eps (u_xx + u_yy) + u_x + u_y = f on the unit square,  u = p(x) p(y),  p(x) = x (1 - exp(-(1 - x) / eps))
    burgers      u_t + u u_x = nu u_xx,  u(x, 0) = -sin(pi x),  u(-1, t) = u(1, t) = 0,  nu = eps / pi,  0 < t < 1

Every method has 20 000 steps of Adam in all, tanh networks of width 20 and depth 3, the same law of points (96 in one dimension,
384 in two; half of each coordinate uniform, half graded towards the places of layers; w is one over their density), the rate
3e-3 with a cosine at the end, float32, and this loss:

    mean of (w r)^2  +  20 mean over the boundary of (u - g)^2 .

The mean of ``w |r|`` is an integral, to which a layer of width eps with residuals like 1 / eps adds as much as the rest; the
squares here are of its terms. With squares in the integral, the mean of ``w r^2``, the two-scale network had lost the layer at
eps = 1e-3 in all five seeds of a trial run. Where it says successive, eps goes from 1e-1 to its value between a tenth and seven
tenths of the steps, by a constant factor every 100 steps, and the state of Adam is kept. Centres of two-scale features: the
layers, both in two_layers.

The five seeds run side by side as one batched network. Errors are on a uniform grid that was not trained on. Cells are kept in
``runs/two_scale``; those in ``docs/benchmarks/two_scale.json`` are not run again. Writes that file and ``.md``. One thread.
"""

from __future__ import annotations

import argparse
import math
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from isocline._core import files
from isocline._version import __version__
from isocline.derivatives import Spec, Unknown, jet
from isocline.networks import MLP, FourierFeatures, TwoScale, TwoScaleFeatures

OUT, RUNS = Path(__file__).parent.parent / "docs" / "benchmarks", Path("runs/two_scale")
SEEDS, STEPS, WIDTH, DEPTH, RATE, DRAWS = 5, 20_000, 20, 3, 3e-3, 50
START = 0.1

# ---------------------------------------------------------------------------------------------------- problems


@dataclass(frozen=True)
class Layered:
    """A problem with layers.

    Args:
        box: bounds of the coordinates.
        spec: derivatives of the residual, and the gradient.
        residual: ``(u, x, eps) -> (..., N)`` with x (..., N, d).
        exact: ``(x, eps) -> (N,)`` in float64.
        places: for each coordinate the places that points are graded towards.
        centres: of the two-scale features.
        axes: which columns they scale.
    """

    box: list[tuple[float, float]]
    spec: Spec
    residual: Callable[[Unknown, Tensor, Tensor], Tensor]
    exact: Callable[[Tensor, float], Tensor]
    places: list[tuple[float, ...]]
    centres: list[list[float]]
    axes: list[int]
    epsilons: tuple[float, ...]
    open_end: bool = False  # the last face of the last coordinate, an end of time, has no condition

    @property
    def points(self) -> int:
        """How many points a step has."""
        return 96 if len(self.box) == 1 else 384


def layer(x: Tensor, eps: float) -> Tensor:
    s = x[:, 0]
    return 1.5 * (s - (torch.exp(-2 * (1 - s) / eps) - math.exp(-2 / eps)) / (1 - math.exp(-2 / eps)))


def two_layers(x: Tensor, eps: float) -> Tensor:
    s, b = x[:, 0], math.erf(1 / math.sqrt(2 * eps))
    return torch.exp((s * s - 1) / (2 * eps)) * (torch.erf(s / math.sqrt(2 * eps)) + 3 * b) / (2 * b)


def corner(x: Tensor, eps: float) -> Tensor:
    return (x * (1 - torch.exp(-(1 - x) / eps))).prod(1)


def corner_source(x: Tensor, eps: Tensor) -> Tensor:
    e = torch.exp(-(1 - x) / eps)
    p = x * (1 - e)
    return (1 + e[..., 0]) * p[..., 1] + (1 + e[..., 1]) * p[..., 0]


def burgers(x: Tensor, eps: float) -> Tensor:
    """Cole and Hopf: the mean of -sin(pi y), y = x - z, with density exp(-z^2 / (4 nu t) - cos(pi y) / (2 pi nu))."""
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.hermite.hermgauss(200))
    nu = eps / math.pi
    y = x[:, :1] - torch.sqrt(4 * nu * x[:, 1:]) * nodes
    power = -torch.cos(math.pi * y) / (2 * math.pi * nu)
    density = weights * torch.exp(power - power.amax(1, keepdim=True))
    return -(torch.sin(math.pi * y) * density).sum(1) / density.sum(1)


ONE, TWO, IN_TIME = Spec.of("", "x", "xx", names="x"), Spec.of("", "x", "y", "xx", "yy", names="xy"), None
PROBLEMS = {
    "layer": Layered(
        [(0, 1)], ONE, lambda u, x, e: 2 * u.x - 3 - e * u.xx, layer, [(1,)], [[1.0]], [0], (1e-1, 1e-2, 1e-3, 1e-4)
    ),
    "two_layers": Layered(
        [(-1, 1)], ONE, lambda u, x, e: e * u.xx - x[..., 0] * u.x - u, two_layers, [(-1, 1)], [[-1.0], [1.0]], [0],
        (1e-1, 1e-2, 1e-3, 1e-4),
    ),
    "corner": Layered(
        [(0, 1), (0, 1)], TWO, lambda u, x, e: u.x + u.y - e * (u.xx + u.yy) - corner_source(x, e), corner,
        [(1,), (1,)], [[1.0, 1.0]], [0, 1], (1e-2,),
    ),
    "burgers": Layered(
        [(-1, 1), (0, 1)], Spec.of("", "x", "t", "xx", names="xt"),
        lambda u, x, e: u.t + u * u.x - e / math.pi * u.xx, burgers, [(0,), ()], [[0.0, 0.0]], [0], (1e-2,), True,
    ),
}  # fmt: skip

# ---------------------------------------------------------------------------------------------------- methods


@dataclass(frozen=True)
class Way:
    """A network, ``(problem, eps, seed) -> module``, and whether eps is lowered step by step."""

    build: Callable[[Layered, float, int], nn.Module]
    successive: bool


def plain(problem: Layered, eps: float, seed: int) -> nn.Module:
    return MLP(len(problem.box), 1, width=WIDTH, depth=DEPTH, activation=nn.Tanh)


def fourier(problem: Layered, eps: float, seed: int) -> nn.Module:
    features = FourierFeatures(len(problem.box), 5, (1.0, 10.0), rng=seed)
    return nn.Sequential(features, MLP(features.outputs, 1, width=WIDTH, depth=DEPTH, activation=nn.Tanh))


def two_scale(exponent: float = -0.5, third: bool = True, layer: bool = True) -> Callable[..., nn.Module]:
    def build(problem: Layered, eps: float, seed: int) -> nn.Module:
        centres = problem.centres if layer else [[(low + high) / 2 for low, high in problem.box]]
        features = TwoScaleFeatures(eps, *centres, exponent=exponent, axes=problem.axes, third=third)
        return TwoScale(features, width=WIDTH, depth=DEPTH)

    return build


WAYS = {
    "two-scale, successive": Way(two_scale(), True),
    "plain": Way(plain, False),
    "two-scale, from scratch": Way(two_scale(), False),
    "plain, successive": Way(plain, True),
    "Fourier features": Way(fourier, False),
    "no third input, successive": Way(two_scale(third=False), True),
    "gamma = -1, successive": Way(two_scale(exponent=-1.0), True),
    "centre of the domain, successive": Way(two_scale(layer=False), True),
}
BARRED = ("two-scale, successive", "plain", "two-scale, from scratch")
Cell = tuple[str, str, float]


def planned() -> list[Cell]:
    """Return the cells, those with a bar first."""
    lines = [name for name, problem in PROBLEMS.items() if len(problem.box) == 1]
    first = [(name, way, 1e-3) for name in lines for way in BARRED]
    more = [(name, BARRED[0], eps) for name in lines for eps in (1e-1, 1e-2, 1e-4)]
    parts = [(name, way, 1e-3) for name in lines for way in WAYS if way not in BARRED]
    plane = [(name, way, 1e-2) for name in ("burgers", "corner") for way in BARRED[:2]]
    rest = [(name, way, eps) for name in lines for way in BARRED[1:] for eps in (1e-1, 1e-2, 1e-4)]
    used = [cell for cell in parts if not (cell[0] == "two_layers" and cell[1].startswith("centre"))]  # the same there
    return first + more + used + plane + rest


# ---------------------------------------------------------------------------------------------------- points


def graded(problem: Layered, axis: int, n: int, eps: float, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return n values of a coordinate for each draw and seed, (DRAWS, SEEDS, n), and one over their density."""
    (low, high), places = problem.box[axis], problem.places[axis]
    length, share = high - low, 0.5 if places else 1.0
    least, shape = eps / 10, (DRAWS, SEEDS, n)
    sides = [(place, side) for place in places for side in (-1, 1) if low < place + side * length / 1e6 < high]
    reach = {(place, side): (place - low if side < 0 else high - place) for place, side in sides}
    x = low + length * torch.rand(shape, generator=draw)
    at, chosen = torch.rand(shape, generator=draw), torch.rand(shape, generator=draw)
    density = torch.full_like(x, share / length)
    part = (1 - share) / max(len(sides), 1)
    for k, (place, side) in enumerate(sides):
        gap = least * ((1 + reach[place, side] / least) ** at - 1)
        mine = (chosen >= share + part * k) & (chosen < share + part * (k + 1))
        x = torch.where(mine, place + side * gap, x)
    for place, side in sides:
        gap, span = (x - place) * side, reach[place, side]
        inside = (gap >= 0) & (gap <= span)
        density = density + inside * part / ((gap.clamp_min(0) + least) * math.log1p(span / least))
    return x, 1 / density


def interior(problem: Layered, eps: float, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return points (DRAWS, SEEDS, N, d) and weights (DRAWS, SEEDS, N) whose mean is about the volume."""
    pairs = [graded(problem, axis, problem.points, eps, draw) for axis in range(len(problem.box))]
    return torch.stack([x for x, _ in pairs], -1), torch.stack([w for _, w in pairs]).prod(0)


def boundary(problem: Layered, eps: float, draw: torch.Generator) -> Tensor:
    """Return points of the boundary, (DRAWS, SEEDS, M, d): 2 in one dimension, 32 on each face in two."""
    if len(problem.box) == 1:
        return torch.tensor(problem.box[0]).reshape(1, 1, 2, 1).expand(DRAWS, SEEDS, 2, 1).float()
    parts = []
    for axis in range(2):
        for end in (0, 1):
            if not (problem.open_end and (axis, end) == (1, 1)):
                x = torch.stack([graded(problem, k, 32, eps, draw)[0] for k in range(2)], -1)
                x[..., axis] = problem.box[axis][end]
                parts.append(x)
    return torch.cat(parts, 2)


# ---------------------------------------------------------------------------------------------------- training


def stacked(way: Way, problem: Layered, eps: float) -> tuple[nn.Module, dict[str, Tensor], dict[str, Tensor]]:
    """Return one module for the form, and the parameters and buffers of all seeds, each with an axis of seeds in front."""
    modules = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        modules.append(way.build(problem, eps, seed).float())
        for part in modules[-1].modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_normal_(part.weight)
                nn.init.zeros_(part.bias)
    parameters = {
        name: torch.stack([dict(m.named_parameters())[name].detach() for m in modules]).requires_grad_()
        for name, _ in modules[0].named_parameters()
    }
    buffers = {
        name: torch.stack([dict(m.named_buffers())[name] for m in modules]) for name, _ in modules[0].named_buffers()
    }
    return modules[0], parameters, buffers


def objective(problem: Layered, module: nn.Module) -> Callable[..., Tensor]:
    """Return ``(parameters, buffers, x, w, edge, g, eps) -> losses`` of one seed."""

    def loss(parameters: Any, buffers: Any, x: Tensor, w: Tensor, edge: Tensor, g: Tensor, eps: Tensor) -> Tensor:
        field = lambda y: torch.func.functional_call(module, (parameters, buffers), (y,))  # noqa: E731
        found = jet(field, x, problem.spec)
        (u,) = found.unknowns()
        inside = (w * problem.residual(u, x, eps)).square()
        return inside.mean() + 20 * (field(edge)[:, 0] - g).square().mean()

    return loss


def lowered(target: float, step: int, steps: int, successive: bool) -> float:
    """Return eps of a step: constant, or from START to the target between a tenth and seven tenths, in stages of 100 steps."""
    if not successive or target >= START:
        return target
    done = min(1.0, max(0.0, (step // 100 * 100 / steps - 0.1) / 0.6))
    return START ** (1 - done) * target**done


def rate_at(step: int, steps: int) -> float:
    late = max(0.0, (step / steps - 0.7) / 0.3)
    return RATE * (0.01 + 0.5 * (1 + math.cos(math.pi * late)))


def cell(name: str, way_name: str, target: float, steps: int = STEPS) -> dict[str, Any]:
    """Train all seeds; return their errors."""
    problem, way = PROBLEMS[name], WAYS[way_name]
    module, parameters, buffers = stacked(way, problem, lowered(target, 0, steps, way.successive))
    draw = torch.Generator().manual_seed(1)
    every = torch.func.vmap(objective(problem, module), in_dims=(0, 0, 0, 0, 0, 0, None))
    optimizer = torch.optim.Adam(parameters.values(), lr=RATE, betas=(0.9, 0.99), fused=True)
    compiled: Any = None
    for step in range(steps):
        eps = lowered(target, step, steps, way.successive)
        if step % DRAWS == 0:
            x, w = interior(problem, eps, draw)
            edge = boundary(problem, eps, draw)
            g = values(problem, edge, eps)
            for buffer in (b for key, b in buffers.items() if key.endswith("epsilon")):
                buffer.fill_(eps)
            for group in optimizer.param_groups:
                group["lr"] = rate_at(step, steps)
        k = step % DRAWS
        given = (parameters, buffers, x[k], w[k], edge[k], g[k], torch.tensor(eps))
        if compiled is None:
            compiled = torch.compile(make_fx(lambda *a: every(*a).sum())(*given))
        loss = compiled(*given)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return errors(problem, module, parameters, buffers, target)


def values(problem: Layered, edge: Tensor, eps: float) -> Tensor:
    """Return the exact solution on boundary points: (DRAWS, SEEDS, M)."""
    flat = edge.reshape(-1, edge.shape[-1]).double()
    if problem is PROBLEMS["burgers"]:
        found = torch.where(flat[:, 1] == 0, -torch.sin(math.pi * flat[:, 0]), 0.0)
    else:
        found = problem.exact(flat, eps)
    return found.reshape(edge.shape[:-1]).float()


def grid(problem: Layered) -> Tensor:
    if len(problem.box) == 1:
        return torch.linspace(*problem.box[0], 40_001, dtype=torch.float64)[:, None]
    axes = [torch.linspace(low, high, 301, dtype=torch.float64)[1:] for low, high in problem.box]
    return torch.cartesian_prod(*axes)


@torch.no_grad()
def errors(problem: Layered, module: nn.Module, parameters: Any, buffers: Any, eps: float) -> dict[str, Any]:
    """Return the relative error in L2, the largest error, and the relative L2 error of the derivative in x, for each seed."""
    x = grid(problem)
    points = x.clone().requires_grad_()
    with torch.enable_grad():
        exact = problem.exact(points, eps)
        (slope,) = torch.autograd.grad(exact.sum(), points)
    exact, slope = exact.detach(), slope[:, 0]
    out: dict[str, Any] = {"l2": [], "largest": [], "slope": []}
    for seed in range(SEEDS):
        own = (
            {key: p[seed].double() for key, p in parameters.items()},
            {key: b[seed].double() for key, b in buffers.items()},
        )
        field = lambda y, own=own: torch.func.functional_call(module, own, (y,))  # noqa: E731
        found = jet(field, x, Spec.of("", problem.spec.names[0], names=problem.spec.names))
        u, ux = found[()][:, 0], found[problem.spec.names[0]][:, 0]
        out["l2"].append(float((u - exact).norm() / exact.norm()))
        out["largest"].append(float((u - exact).abs().max()))
        out["slope"].append(float((ux - slope).norm() / slope.norm()))
    return out


# ---------------------------------------------------------------------------------------------------- report


def path_of(name: str, way: str, eps: float) -> Path:
    return RUNS / f"{name}, {way}, {eps:g}.json"


def measured(name: str, way: str, eps: float) -> dict[str, Any]:
    """Return one cell, from its file where there is one."""
    path = path_of(name, way, eps)
    if path.is_file():
        return files.read_json(path)
    began = time.process_time()
    found = cell(name, way, eps)
    found["seconds"] = time.process_time() - began
    files.write_json(path, found)
    print(f"{name}, {way}, {eps:g}: {spoken(found['l2'])}, {found['seconds']:.0f} s", flush=True)
    return found


def unpack(stored: Path) -> None:
    """Put the cells of a stored table where cells are kept."""
    cells = files.read_json(stored)["cells"] if stored.is_file() else {}
    for c in planned():
        name, way, eps = c
        found = cells.get(f"{name}, {way}, {eps:g}")
        if found and not path_of(*c).is_file():
            files.write_json(path_of(*c), found)


def spoken(found: list[float]) -> str:
    return f"{np.median(found):.2g} ({min(found):.2g} to {max(found):.2g})"


def present() -> dict[Cell, dict[str, Any]]:
    return {c: measured(*c) for c in planned() if path_of(*c).is_file()}


def bars(cells: dict[Cell, dict[str, Any]]) -> list[tuple[str, str, str, bool]]:
    """Return claim, bar, what was found, and whether it holds."""
    rows = []
    for name in ("layer", "two_layers"):
        found = {way: cells.get((name, way, 1e-3)) for way in BARRED}
        easy = cells.get((name, BARRED[0], 1e-1))
        if not all(found.values()) or easy is None:
            continue
        two, flat, scratch = (np.array(found[way]["l2"]) for way in BARRED)  # type: ignore[index]
        ratio, growth = np.median(two) / np.median(flat), np.median(two) / np.median(easy["l2"])
        worse = int((scratch > two).sum())
        rows += [
            (f"{name}, eps = 1e-3: error of every seed", "at most 1e-2", spoken(list(two)), bool(two.max() <= 1e-2)),
            (f"{name}, eps = 1e-3: median error over that of the plain network", "at most 0.1", f"{ratio:.2g}", bool(ratio <= 0.1)),
            (f"{name}, eps = 1e-3: worse when trained from scratch", "4 of 5 seeds", f"{worse} of {SEEDS}", worse >= 4),
            (f"{name}: growth of the median error from eps = 1e-1 to 1e-3", "below 10", f"{growth:.2g}", bool(growth < 10)),
        ]  # fmt: skip
    return rows


def page(cells: dict[Cell, dict[str, Any]], versions: dict[str, str]) -> str:
    lines = [
        "# Two-scale networks\n",
        f"Written by `python benchmarks/two_scale.py`; isocline {versions['isocline']}, torch {versions['torch']}, Python "
        f"{versions['python']}, one thread. Problems, loss, points and settings are described in the script; every method has "
        f"{STEPS} steps of Adam in all. Median of {SEEDS} seeds (least to largest). Successive training lowers "
        "eps in small steps; the network without it has all its steps at the last eps. Features are centred at the layers, at both "
        "in two_layers. Errors are relative to the solution, which is near zero between the layers of two_layers: one percent "
        "there is a root mean square error of 3.6e-4 at eps = 1e-3, where the solution reaches 2.\n",
        "| problem | eps | method | relative L2 | largest error | relative L2 of the slope |",
        "|---|---|---|---|---|---|",
    ]
    order = sorted(cells, key=lambda c: (list(PROBLEMS).index(c[0]), -c[2], list(WAYS).index(c[1])))
    for c in order:
        f = cells[c]
        lines.append(
            f"| {c[0]} | {c[2]:g} | {c[1]} | {spoken(f['l2'])} | {spoken(f['largest'])} | {spoken(f['slope'])} |"
        )
    lines += ["\n## What was claimed beforehand\n", "| claim | bar | found | |", "|---|---|---|---|"]
    lines += [f"| {a} | {b} | {c} | {'holds' if ok else '**does not hold**'} |" for a, b, c, ok in bars(cells)]
    missing = [c for c in planned() if c not in cells]
    if missing:
        lines.append("\nNot measured: " + "; ".join(f"{name}, {way}, {eps:g}" for name, way, eps in missing) + ".")
    return "\n".join(lines) + "\n"


def write(out: Path) -> None:
    cells = present()
    versions = {"isocline": __version__, "torch": torch.__version__, "python": platform.python_version()}
    shown = {f"{name}, {way}, {eps:g}": found for (name, way, eps), found in cells.items()}
    files.write_json(out / "two_scale.json", {"steps": STEPS, "seeds": SEEDS, "versions": versions, "cells": shown})
    files.write_text(out / "two_scale.md", page(cells, versions))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PROBLEMS), help="names of problems, with commas")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument(
        "--quick", action="store_true", help="the layer at 1e-2, 300 steps; prints, keeps and writes nothing"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.quick:
        for way in BARRED:
            print(way, spoken(cell("layer", way, 1e-2, 300)["l2"]))
        return
    files.ensure_folder(RUNS)
    unpack(given.out / "two_scale.json")
    for c in planned():
        if c[0] in given.only.split(","):
            measured(*c)
            write(given.out)


if __name__ == "__main__":
    main()
