"""What straightens a flow, and what it gains: reflow, improved reflow, rectified diffusion, learned coupling, hierarchical flow.

    python benchmarks/flows.py [--quick] [--only PART] [--steps 6000] [--seeds 5]

    reflow        Gaussian to ring, ring to moons: rectified flow, then once more on the model's own pairs (200 Euler steps),
                  plainly and with the improved training: U-shaped times, pseudo-Huber penalty, both
    digits        the same on 1797 images of 8 x 8 with a small U-Net (plain reflow)
    diffusion     noise prediction on the variance-preserving process, continued on its own pairs, sampled by DDIM
    coupling      the noise of each datum chosen by an encoder, on two far Gaussians and on the ring
    hierarchical  depth 2 against depth 1 at equal calls, one to two and five modes in 1 dimension, one to six in 2

Straightness is ``E |(x_1 - x_0) - dx/du|^2``, curvature ``1 - chord / length`` over 100 Euler steps (50 for images); distances are
sliced Wasserstein to fresh data, for images the Fréchet distance of a small classifier's features. All variants of a part see the
same data, initial weights and numbers of updates; the second round starts from the first one's weights and has as many
updates again. The rows "continued" train the first model for as long on fresh pairs, so that longer training is not taken for
reflow. Cells are kept in ``runs/flows``. `--quick` runs the ring with 3 seeds. Writes ``docs/benchmarks/flows.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import copy
import math
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from stacked import StackedMLP, drawn_from
from targets import digit_features, moons, shown
from torch import Tensor, nn

from isocline._core import files
from isocline._core.stream import Stream
from isocline._version import __version__
from isocline.datasets import load_digits
from isocline.metrics import frechet_distance, sliced_wasserstein
from isocline.metrics.paths import curvature, first_order_defect, straightness
from isocline.networks.unet import UNet, UNetShape
from isocline.objectives import (
    Formulation,
    HierarchicalFlow,
    LearnedCoupling,
    PseudoHuber,
    ddpm,
    rectified_flow,
    rf_plus_plus,
)
from isocline.objectives.time_laws import UShaped
from isocline.plans import Plan, grids, solvers
from isocline.processes import Denoiser, Plain, RectifiedFlow, VariancePreserving
from isocline.processes.gaussian import match
from isocline.recipes import Pairs, draw_pairs, fit_denoiser
from isocline.training import Part, Settings, train

OUT, RUNS = Path(__file__).parent.parent / "docs" / "benchmarks", Path("runs/flows")
FLOW, POINTS, SAMPLES = RectifiedFlow(), 20_000, 4096
Row = dict[str, float]


def normal(n: int, rng: Stream) -> Tensor:
    return rng.normal((n, 2))


def ring(n: int, rng: Stream) -> Tensor:
    """Six Gaussians of width 0.15 on a circle of radius 2."""
    angle = rng.child("mode").integers(6, (n,)).double() * (math.pi / 3)
    return (2 * torch.stack([torch.cos(angle), torch.sin(angle)], 1)).float() + 0.15 * rng.child("in").normal((n, 2))


def two_moons(n: int, rng: Stream) -> Tensor:
    return moons(rng.child("place").uniform((n,), dtype=torch.float64)).float() + 0.05 * rng.child("in").normal((n, 2))


def far_gaussians(n: int, rng: Stream) -> Tensor:
    """Two Gaussians of variance 0.3, ten apart."""
    side = rng.child("mode").rademacher((n, 1))
    return torch.cat([5 * side, torch.zeros_like(side)], 1) + math.sqrt(0.3) * rng.child("in").normal((n, 2))


def on_a_line(modes: int) -> Callable[[int, Stream], Tensor]:
    """Equal Gaussians of width 0.1 on a line, spread over [-2, 2]."""

    def sample(n: int, rng: Stream) -> Tensor:
        place = rng.child("mode").integers(modes, (n, 1)).float() * (4 / (modes - 1)) - 2
        return place + 0.1 * rng.child("in").normal((n, 1))

    return sample


COUPLINGS = {"Gaussian to ring": (normal, ring), "ring to moons": (ring, two_moons)}


def sets(sample: Callable[[int, Stream], Tensor], seeds: int, name: str) -> Tensor:
    """Return a data set for each seed, (seeds, N, d)."""
    return torch.stack([sample(POINTS, Stream(seed, name)) for seed in range(seeds)])


def independent(noise: Tensor, data: Tensor) -> Callable[[int, int, int], Pairs]:
    """Return batches of independently drawn ends."""
    first_end, last_end = drawn_from(noise, "noise rows"), drawn_from(data, "data rows")
    return lambda *place: Pairs(first_end(*place), last_end(*place))


def paired(noise: Tensor, data: Tensor) -> Callable[[int, int, int], Pairs]:
    """Return batches of matched ends."""
    take, d = drawn_from(torch.cat([noise, data], dim=2)), noise.shape[2]

    def batch(n: int, step: int, first: int) -> Pairs:
        rows = take(n, step, first)
        return Pairs(rows[:, :d], rows[:, d:])

    return batch


def settings_of(given: argparse.Namespace, members: int) -> Settings:
    return Settings(given.steps, batch=256 * members, rate=2e-3, clip=math.inf, checkpoint_every=2000)


@torch.no_grad()
def euler(model: Denoiser, x: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Return the states (steps + 1, B, *) of Euler's method from noise to data, and their times."""
    plan = solvers.flow_euler(FLOW, grids.uniform(FLOW, steps, t_min=0.0))
    found = plan.run(model, x, record=True).trajectory
    assert found is not None
    return found, plan.times


def judged(model: Denoiser, source: Callable, target: Callable, seeds: int) -> list[Row]:  # type: ignore[type-arg]
    """Return straightness, curvature, transport costs and distances after 1, 2, 5 and 100 Euler steps, for each seed."""
    start = torch.cat([source(SAMPLES, Stream(seed, "test start")) for seed in range(seeds)])
    ends = {n: euler(model, start, n)[0][-1].view(seeds, SAMPLES, -1) for n in (1, 2, 5)}
    states, times = euler(model, start, 100)
    states = states.view(101, seeds, SAMPLES, -1)
    ends[100] = states[-1]
    rows = []
    for seed in range(seeds):
        path, rng = states[:, seed], Stream(seed, "test data")
        moved = (path[-1] - path[0]).norm(dim=1)
        data = target(SAMPLES, rng)
        rows.append(
            {
                "straightness": straightness(path, times).value,
                "curvature": curvature(path).value,
                **{f"cost {p}": float(moved.pow(p).mean()) for p in (1, 2, 4)},
                **{
                    f"W, {n} steps": sliced_wasserstein(x[seed], data, rng.child("directions")) for n, x in ends.items()
                },
            }
        )
    return rows


def reflow(given: argparse.Namespace, name: str) -> dict[str, list[Row]]:
    """Rectified flow on one coupling, then its second rounds."""
    (source, target), seeds, folder = COUPLINGS[name], given.seeds, RUNS / f"{name} {given.steps} {given.seeds}"
    noise, data = sets(source, seeds, "source"), sets(target, seeds, "target")
    settings = settings_of(given, seeds)

    def fitted(batches: Any, formulation: Formulation, network: nn.Module, place: str) -> tuple[nn.Module, Denoiser]:
        network = copy.deepcopy(network).requires_grad_()
        return network, fit_denoiser(batches, formulation, network, settings, folder / place).denoiser

    first, model = fitted(independent(noise, data), rectified_flow(), StackedMLP(seeds, 3, 2), "first")
    made = euler(model, noise.flatten(0, 1), 200)[0][-1].view_as(noise)
    plain, improved = rectified_flow(), rf_plus_plus(2)
    huber = PseudoHuber(improved.penalty.c, fading=True)  # type: ignore[attr-defined]
    rounds = {
        "reflow": plain,
        "reflow, U-shaped times": replace(plain, time_law=UShaped()),
        "reflow, pseudo-Huber": replace(plain, penalty=huber),
        "reflow, both": improved,
    }
    rows = {"first": judged(model, source, target, seeds)}
    _, longer = fitted(independent(noise, data), plain, first, "continued")
    rows["first, continued"] = judged(longer, source, target, seeds)
    for label, formulation in rounds.items():
        _, again = fitted(paired(noise, made), formulation, first, label)
        rows[label] = judged(again, source, target, seeds)
    return rows


def diffusion(given: argparse.Namespace, name: str) -> dict[str, list[Row]]:
    """Noise prediction on VP, continued on fresh noise and on its own pairs."""
    seeds, folder, process = given.seeds, RUNS / f"{name} {given.steps} {given.seeds}", VariancePreserving()
    formulation = replace(ddpm(process), preconditioning=Plain())
    data, settings = sets(ring, seeds, "target"), settings_of(given, seeds)
    rows: dict[str, list[Row]] = {}
    network = StackedMLP(seeds, 3, 2)
    model = fit_denoiser(drawn_from(data), formulation, network, settings, folder / "first").denoiser
    noise = sets(normal, seeds, "source")
    long = solvers.ddim(process, grids.log_snr(process, 200))
    made = long.run(model, noise.flatten(0, 1) * float(process.sigma(process.t_max))).x.view_as(noise)
    rows["first"] = judged_by_ddim(model, process, seeds)
    for label, batches in (("first, continued", drawn_from(data)), ("on its pairs", paired(noise, made))):
        copied = copy.deepcopy(network).requires_grad_()
        found = fit_denoiser(batches, formulation, copied, settings, folder / label).denoiser
        rows[label] = judged_by_ddim(found, process, seeds)
    return rows


def judged_by_ddim(model: Denoiser, process: VariancePreserving, seeds: int) -> list[Row]:
    noise = torch.cat([normal(SAMPLES, Stream(seed, "test start")) for seed in range(seeds)])
    start = noise * float(process.sigma(process.t_max))

    def run(n: int) -> tuple[Tensor, Tensor]:
        plan = solvers.ddim(process, grids.log_snr(process, n))
        found = plan.run(model, start, record=True).trajectory
        assert found is not None
        return found, plan.times

    ends = {n: run(n)[0][-1].view(seeds, SAMPLES, 2) for n in (1, 2, 5)}
    states, times = run(100)
    ends[100] = states[-1].view(seeds, SAMPLES, 2)
    inner = times[::5]
    pairs = torch.stack(
        [match(process.alpha(t), noise).float() * states[-1] + process.sigma(t).float() * noise for t in inner]
    )
    rows = []
    for seed in range(seeds):
        part, rng = slice(seed * SAMPLES, (seed + 1) * SAMPLES), Stream(seed, "test data")

        def predicted(x: Tensor, t: Tensor, part: slice = part) -> Tensor:
            full = x.new_zeros(noise.shape)
            full[part] = x
            return model.predict(full, t).eps[part]

        rows.append(
            {
                "first-order defect": first_order_defect(predicted, pairs[:, part], noise[part], inner).value,
                "straightness": straightness(states[:, part], times).value,
                **{
                    f"W, {n} steps": sliced_wasserstein(x[seed], ring(SAMPLES, rng), rng.child("directions"))
                    for n, x in ends.items()
                },
            }
        )
    return rows


class Coupled(nn.Module):
    """Velocity and encoder, trained together."""

    def __init__(self, members: int) -> None:
        super().__init__()
        self.velocity, self.encoder = StackedMLP(members, 3, 2), StackedMLP(members, 2, 4)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log standard deviation; the encoder starts near N(0, I)."""
        mean, log_std = self.encoder(x).chunk(2, dim=1)
        return mean, log_std.clamp(-6, 2)


def coupling(given: argparse.Namespace, name: str) -> dict[str, list[Row]]:
    """Learned coupling at two weights of the KL term, beside independent coupling."""
    target = far_gaussians if name.endswith("Gaussians") else ring
    seeds, folder = given.seeds, RUNS / f"{name} {given.steps} {given.seeds}"
    data, settings = sets(target, seeds, "target"), settings_of(given, seeds)
    take, flow = drawn_from(data), rectified_flow()
    alone = fit_denoiser(take, flow, StackedMLP(seeds, 3, 2), settings, folder / "independent").denoiser
    rows = {"independent": judged(alone, normal, target, seeds)}
    for beta in (3.0, 10.0):
        both, rule = Coupled(seeds), LearnedCoupling(beta)

        def loss(network: nn.Module, x0: Tensor, step: int, part: Part, rule: LearnedCoupling = rule) -> Tensor:
            return rule.loss(network.velocity, network.encode, x0, Stream(0, "coupling"), step)

        def batches(step: int, part: Part) -> Tensor:
            return take(settings.batch, step, 0)

        both.load_state_dict(train(both, batches, loss, settings, folder / f"beta {beta:g}").weights)
        model = flow.denoiser(both.velocity.requires_grad_(False))
        rows[f"learned, beta = {beta:g}"] = judged(model, normal, target, seeds)
    return rows


class Nested(nn.Module):
    """``a(x, t)`` of a hierarchical flow, for `members` seeds."""

    def __init__(self, members: int, depth: int, d: int, width: int) -> None:
        super().__init__()
        self.layers = StackedMLP(members, depth * (d + 1), d, width=width)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return (members n, d) for states (members n, D, d) and times (members n, D)."""
        return self.layers(x.flatten(1), t)


LINES = {
    "hierarchical, 1 to 2 in 1-D": on_a_line(2),
    "hierarchical, 1 to 5 in 1-D": on_a_line(5),
    "hierarchical, 1 to 6 in 2-D": ring,
}
SPLITS = {10: ((1, 10), (2, 5), (5, 2)), 20: ((2, 10), (4, 5), (5, 4)), 50: ((2, 25), (5, 10), (10, 5))}


def hierarchical(given: argparse.Namespace, name: str) -> dict[str, list[Row]]:
    """Depth 1, depth 1 with more parameters, and depth 2 in three splits of the calls."""
    target, seeds, folder = LINES[name], given.seeds, RUNS / f"{name} {given.steps} {given.seeds}"
    data, settings = sets(target, seeds, "target"), settings_of(given, seeds)
    take, d, rows = drawn_from(data), data.shape[2], {}
    for label, depth, width in (("depth 1", 1, 128), ("depth 1, wider", 1, 136), ("depth 2", 2, 128)):
        flow, network = HierarchicalFlow(depth), Nested(seeds, depth, d, width)

        def loss(network: nn.Module, x: Tensor, step: int, part: Part, flow: HierarchicalFlow = flow) -> Tensor:
            return flow.loss(network, x, Stream(0, "flow"), step)

        def batches(step: int, part: Part) -> Tensor:
            return take(settings.batch, step, 0)

        network.load_state_dict(train(network, batches, loss, settings, folder / label).weights)
        for k in range(3 if depth == 2 else 1):
            steps = {n: splits[k] if depth == 2 else (n,) for n, splits in SPLITS.items()}
            shape = (seeds * SAMPLES, d)
            found = {
                n: flow.sample(network, shape, split, Stream(7, label)).view(seeds, SAMPLES, d)
                for n, split in steps.items()
            }
            tag = label if depth == 1 else f"{label}, split {' '.join('x'.join(map(str, s)) for s in steps.values())}"
            rows[tag] = [
                {
                    f"W, {n} calls": sliced_wasserstein(x[seed], target(SAMPLES, rng), rng.child("directions"))
                    for n, x in found.items()
                }
                for seed, rng in ((seed, Stream(seed, "test data")) for seed in range(seeds))
            ]
    return rows


def digits(given: argparse.Namespace, name: str) -> dict[str, list[Row]]:
    """Rectified flow on the digits, continued on fresh noise and on its own pairs, one seed after the other."""
    images = load_digits().all()[0]
    rows: dict[str, list[Row]] = {"first": [], "first, continued": [], "reflow": []}
    flow, features = rectified_flow(), digit_features(RUNS / "classifier")
    for seed in range(given.seeds):
        folder = RUNS / f"digits {given.image_steps}" / str(seed)
        settings = Settings(given.image_steps, batch=64, rate=2e-3, warmup=50, average=0.995, seed=seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = UNet(UNetShape(side=8, patch=1, widths=(16, 32), embedding=32))
        model = fit_denoiser(images, flow, network, settings, folder / "first").denoiser
        store = folder / "pairs.safetensors"
        if not store.exists():
            long = solvers.flow_euler(FLOW, grids.uniform(FLOW, 50, t_min=0.0))
            draw_pairs(model, long, (1, 8, 8), 4000, seed, batch=500).save(store)
        rounds = {"first, continued": images, "reflow": Pairs.load(store)}
        rows["first"].append(judged_images(model, features, images, seed))
        for label, data in rounds.items():
            copied = copy.deepcopy(network).requires_grad_()
            again = fit_denoiser(data, flow, copied, settings, folder / label).denoiser
            rows[label].append(judged_images(again, features, images, seed))
        print(
            f"digits, seed {seed}: " + "  ".join(f"{k} {r[-1]['F, 1 steps']:.3f}" for k, r in rows.items()), flush=True
        )
    return rows


def judged_images(model: Denoiser, features: Callable[[Tensor], Tensor], images: Tensor, seed: int) -> Row:
    noise = Stream(seed, "test start").normal((600, *images.shape[1:]))
    real = features(images)

    def plan(n: int) -> Plan:
        return solvers.flow_euler(FLOW, grids.uniform(FLOW, n, t_min=0.0))

    def end(n: int) -> Tensor:
        return plan(n).run(model, noise).x

    states, times = euler(model, noise[:200], 50)
    return {
        "straightness": straightness(states, times).value,
        "curvature": curvature(states).value,
        **{f"F, {n} steps": frechet_distance(features(end(n)), real) for n in (1, 2, 5, 50)},
    }


PARTS: dict[str, Callable[[argparse.Namespace, str], dict[str, list[Row]]]] = {
    **dict.fromkeys(COUPLINGS, reflow),
    "digits": digits,
    "diffusion on the ring": diffusion,
    "coupling, far Gaussians": coupling,
    "coupling, ring": coupling,
    **dict.fromkeys(LINES, hierarchical),
}


def place(name: str, given: argparse.Namespace) -> Path:
    """Return where a part is stored."""
    return RUNS / f"{name} {given.image_steps if name == 'digits' else given.steps} {given.seeds}" / "part.json"


def part(name: str, given: argparse.Namespace) -> dict[str, Any]:
    stored = place(name, given)
    if stored.exists():
        return files.read_json(stored)
    began = time.monotonic()
    found = {"part": name, "rows": PARTS[name](given, name), "seconds": time.monotonic() - began}
    files.ensure_folder(stored.parent)
    files.write_json(stored, found)
    print(table(found), flush=True)
    return found


def table(found: dict[str, Any]) -> str:
    rows = found["rows"]
    keys = list(next(iter(rows.values()))[0])
    lines = [f"| {found['part']} | {' | '.join(keys)} |", "|---" * (len(keys) + 1) + "|"]
    lines += [
        f"| {label} | {' | '.join(shown([r[k] for r in cells]) for k in keys)} |" for label, cells in rows.items()
    ]
    return "\n".join(lines)


def wins(better: list[Row], worse: list[Row], key: str, factor: float = 1.0) -> str:
    count = sum(a[key] <= factor * b[key] for a, b in zip(better, worse, strict=True))
    return f"{count} of {len(better)}"


def verdicts(found: dict[str, Any]) -> list[str]:
    """Return the sentences that decide a part."""
    name, rows = found["part"], found["rows"]
    if "reflow" in rows:
        one = "F, 1 steps" if name == "digits" else "W, 1 steps"
        said = [
            f"reflow is straighter than the first model in {wins(rows['reflow'], rows['first, continued'], 'straightness')} "
            f"seeds, and better in one step in {wins(rows['reflow'], rows['first, continued'], one)} "
            "(both against the continued one)"
        ]
        if "reflow, both" in rows:
            said.append(
                f"the improved training is at most 0.7 times plain reflow in one step in "
                f"{wins(rows['reflow, both'], rows['reflow'], one, 0.7)}"
            )
        return said
    if "on its pairs" in rows:
        pair = rows["on its pairs"], rows["first, continued"]
        return [
            f"one-step distance at most 0.4 times in {wins(*pair, 'W, 1 steps', 0.4)} seeds",
            f"first-order defect at most a fifth in {wins(*pair, 'first-order defect', 0.2)}",
        ]
    if "independent" in rows:
        return [
            f"{label}: straightness at most 0.7 times independent in {wins(cells, rows['independent'], 'straightness', 0.7)} "
            f"seeds, curvature in {wins(cells, rows['independent'], 'curvature', 0.7)}"
            for label, cells in rows.items()
            if label != "independent"
        ]
    return [
        f"{label} at most depth 1 in {', '.join(wins(cells, rows['depth 1'], key) for key in cells[0])} seeds at 10, 20, 50 calls"
        for label, cells in rows.items()
        if label.startswith("depth 2")
    ]


def page(result: dict[str, Any]) -> str:
    given, versions = result["settings"], result["versions"]
    lines = [
        "# What straightens a flow",
        "",
        f"Written by `python benchmarks/flows.py`; isocline {versions['isocline']}, torch {versions['torch']}. "
        f"{given['seeds']} seeds; {given['steps']} updates of 256 samples for an MLP of 3 x 128, {given['image_steps']} of 64 for "
        "a small U-Net on digits. Mean and standard error over seeds. *W*: sliced Wasserstein distance to fresh data, *F*: Fréchet "
        "distance of a small classifier's features, after so many Euler steps (DDIM steps for diffusion). *Continued*: the first "
        "model, trained for as long as the second round on fresh pairs.",
    ]
    for found in result["parts"]:
        lines += ["", f"## {found['part']}", "", table(found), "", *(f"- {line}." for line in verdicts(found))]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="Gaussian to ring, 3 seeds; prints, writes no files")
    parser.add_argument("--only", choices=list(PARTS), help="run one part; prints, writes no files")
    parser.add_argument(
        "--stored", action="store_true", help="write the page of the parts that are stored, train nothing"
    )
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--image-steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    if given.quick:
        given.only, given.seeds = "Gaussian to ring", 3
    wanted = [given.only] if given.only else [name for name in PARTS if not given.stored or place(name, given).exists()]
    result = {
        "settings": {key: vars(given)[key] for key in ("steps", "image_steps", "seeds")},
        "versions": {"isocline": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "parts": [part(name, given) for name in wanted],
    }
    print(page(result))
    if not given.only:
        files.write_json(given.out / "flows.json", result)
        files.write_text(given.out / "flows.md", page(result))


if __name__ == "__main__":
    main()
