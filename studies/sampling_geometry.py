r"""The shape of sampling paths: nearly straight, led by the denoised point, an annealed mean shift.

    python studies/sampling_geometry.py [--quick] [--json] [--picture FILE]

Chen, Zhou, Mei, Shen, Chen and Wang (arXiv 2305.19947) describe the paths of ``dx/ds = (x - D(x, s)) / s`` under variance
exploding noise. Data here are scikit-learn's 1 797 digits in ``R^64``, and ``D`` is the exact denoiser of that finite set,

    D(x, s) = sum_i w_i x_i,    w_i = softmax_i(-|x - x_i|^2 / 2 s^2),

one mean-shift step from ``x`` with a Gaussian kernel of bandwidth ``s``. An Euler step ``x' = r x + (1 - r) D``, ``r = s' / s``,
goes part of the way. Mean shift is an EM step, so (derived here) for every ``x'``

    log p_s(x') - log p_s(x)  >=  (|x - D|^2 - |x' - D|^2) / (2 s^2) :

the likelihood rises on the whole way to ``D`` and as far beyond it. Second-order steps are Euler's plus a finite difference
of ``D``:

    Heun      x' = r x + (1 - r) D + (s - s') / (2 s') (D~ - D),
    2M        x' = r x + (1 - r) D + (1 - r) q / 2 (D - D_previous),    q = h / h_previous in half log-SNR.

Since ``D`` settles early, a run may stop and give ``D`` (an "ODE jump"). And a denoiser that memorises is told from one that
learned by comparing both on data it has not seen.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from isocline._core.estimate import Estimate
from isocline._core.stream import Stream
from isocline.datasets import load_digits
from isocline.metrics import energy_distance, proportion
from isocline.networks import DenoisingMLP
from isocline.objectives import LogNormal, edm
from isocline.plans import Plan, grids, solvers
from isocline.processes import EDM, Denoiser, FinitePoints
from isocline.recipes import fit_denoiser
from isocline.training import Settings
from studies.verdict import Claim, Panel, Study, above, below, main, near, spread

VE = EDM()
SEEDS = 5
SEEN = 1500  # digits a model is made from, where others are held out
SLIGHT = 0.1  # noise level at which models are compared


class Paths(NamedTuple):
    """States (n+1, B, d), data predictions (n, B, d) and noise levels (n+1,) of a run; seeds follow each other in the batch."""

    x: Tensor
    data: Tensor
    s: Tensor


@cache
def digits() -> tuple[Tensor, Tensor]:
    """Return the digits (1797, 64), pixels in [-1, 1] less their mean, in a random order, and their labels."""
    images, labels = load_digits().all()
    order, pixels = Stream(0, "digits").permutation(len(labels)), images.flatten(1).double()
    return (pixels - pixels.mean(0))[order], labels[order]


def follow(plan: Plan, model: Denoiser, each: int) -> Paths:
    """Return the paths of `each` starts for each seed."""
    start = torch.cat([plan.start((each, 64), Stream(seed, "geometry"), dtype=torch.float64) for seed in range(SEEDS)])
    x = plan.run(model, start, rng=0, record=True).trajectory
    assert x is not None
    data = torch.stack([model.predict(state, t).x0 for state, t in zip(x[:-1], plan.times[:-1], strict=True)])
    return Paths(x, data, plan.times)


def by_seed(values: Tensor, measure: Callable[[Tensor], Tensor | float]) -> Estimate:
    """Return `measure` of the part of `values` (B, *) that belongs to each seed: mean and range."""
    return spread([float(measure(part)) for part in values.chunk(SEEDS)])


def share(holds: Tensor) -> Tensor:
    """Return how often `holds` is true."""
    return holds.double().mean()


def pooled(holds: Tensor) -> Estimate:
    """Return how often `holds` (B,) is true over all seeds, with its 95 % interval."""
    return proportion(int(holds.sum()), len(holds))


def bend(x: Tensor) -> Tensor:
    """Return the largest distance of each path (n+1, B, d) from its chord, over the chord's length (B,)."""
    chord = x[-1] - x[0]
    length = chord.norm(dim=-1)
    along = ((x - x[0]) * chord).sum(-1, keepdim=True) / length[:, None] ** 2
    return (x - x[0] - along * chord).norm(dim=-1).amax(0) / length


def straightness(paths: Paths, model: Denoiser, each: int) -> list[Claim]:
    """The whole path is nearly straight; what is left of it at the data's scale is not."""
    whole, late = bend(paths.x), bend(paths.x[int((paths.s > 3).sum()) :])
    noisy = bend(follow(solvers.ancestral(VE, paths.s), model, each).x)
    return [
        below("distance from the chord over its length, s = 80 to 0.002: worst path", by_seed(whole, torch.max), 0.02),
        above("control: the same for ancestral paths, median", by_seed(noisy, torch.median), 0.2),
        above("but for the part of the path from s = 3 on, median", by_seed(late, torch.median), 0.03),
    ]


def settled(wrong: Tensor) -> Tensor:
    """Return the first step (B,) from which on `wrong` (n, B) is false."""
    return (wrong.int() * torch.arange(1, len(wrong) + 1)[:, None]).amax(0)


def nearest_label(x: Tensor) -> Tensor:
    """Return the label of the digit nearest to `x` (n, B, d)."""
    data, labels = digits()
    return torch.stack([labels[torch.cdist(state, data).argmin(1)] for state in x])


def who_leads(paths: Paths) -> list[Claim]:
    """The denoised point reaches the end before the state does; but its nearest label settles later."""
    data, _ = digits()
    x, end, last = paths.x[:-1], paths.data[-1], len(paths.data) - 1
    from_x, from_data = (x - end).norm(dim=-1), (paths.data - end).norm(dim=-1)
    tenth = 0.1 * float(data.norm(dim=1).mean())
    levels = [paths.s[settled(distance > tenth).clamp(max=last)] for distance in (from_data, from_x)]
    seen_x, seen_data = nearest_label(x), nearest_label(paths.data)
    earlier = settled(seen_data != seen_data[-1]) < settled(seen_x != seen_x[-1])
    return [
        above("share of states whose D is nearer to the end", by_seed((from_data <= from_x).T, share), 0.95),
        above(
            "noise level where D comes within a tenth of a digit's norm of the end, over the state's: 5 % quantile",
            by_seed(levels[0] / levels[1], lambda ratio: ratio.quantile(0.05)),
            2.0,
        ),
        below(
            "share of paths where the label nearest to D settles before the label nearest to x",
            pooled(earlier),
            0.5,
        ),
        above("share of pure noises whose nearest digit has the final label", pooled(seen_x[0] == seen_x[-1]), 0.5),
    ]


def jumps(model: Denoiser, each: int, reference: int) -> list[Claim]:
    """Stopping a run of 40 calls early and giving ``D``; `reference` digits stand for the data.

    The cost is the growth of the energy distance from the data, in units of that distance for data and their mean.
    """
    data = digits()[0][:reference]
    unit = energy_distance(data.mean(0, keepdim=True), data)
    even, karras = (follow(solvers.ddim(VE, grid(VE, 40)), model, each) for grid in (grids.log_snr, grids.karras))

    def cost(stop: Tensor, full: Tensor) -> Estimate:
        pairs = zip(stop.chunk(SEEDS), full.chunk(SEEDS), strict=True)
        return spread([(energy_distance(a, data) - energy_distance(b, data)) / unit for a, b in pairs])

    early, late = cost(even.data[20], even.x[-1]), cost(karras.data[28], karras.x[-1])
    return [
        near("cost in energy distance of giving D after 20 of 40 log-SNR steps", early, 0.0, 0.01),
        above("control: of giving the state there", cost(even.x[20], even.x[-1]), 0.02),
        near("cost of giving D after 28 of 40 Karras steps", late, 0.0, 0.01),
        above("but after 20 of 40 Karras steps", cost(karras.data[20], karras.x[-1]), 0.1),
    ]


def mean_shift(x: Tensor, s: Tensor) -> Tensor:
    """Return ``sum_i K(x - x_i) x_i / sum_i K(x - x_i)`` for states (n, B, d) and bandwidths (n,), from plain differences."""
    data, shifted = digits()[0], []
    for states, width in zip(x, s, strict=True):
        squared = torch.stack([(state - data).square().sum(1) for state in states])
        kernel = torch.exp((squared.amin(1, keepdim=True) - squared) / (2 * width**2))
        shifted.append(kernel @ data / kernel.sum(1, keepdim=True))
    return torch.stack(shifted)


def likelihoods(paths: Paths, model: FinitePoints) -> list[Claim]:
    """Euler's method is an annealed mean shift, and the likelihood rises along it."""
    s = paths.s[:-1, None, None]
    r = paths.s[1:, None, None] / s
    before, after, data = paths.x[:-1], paths.x[1:], paths.data
    shift = mean_shift(before[:, ::8], paths.s[:-1]) - data[:, ::8]  # every eighth path: the plain form is slow
    step = (after - (r * before + (1 - r) * data)).abs().amax() / before.abs().amax()

    def log_density(x: Tensor, times: Tensor) -> Tensor:
        return torch.stack([model.log_density(state, t) for state, t in zip(x, times, strict=True)])

    old, new = log_density(before, paths.s[:-1]), log_density(after, paths.s[:-1])
    bound = ((before - data).square() - (after - data).square()).sum(-1) / (2 * paths.s[:-1, None] ** 2)
    slack = (new - old - bound) / (1 + bound)
    beyond = log_density(before + 3 * (data - before), paths.s[:-1])
    annealed = log_density(after, paths.s[1:]) >= old
    return [
        below("D is the mean-shift step: largest difference", float(shift.abs().max()), 1e-12),
        below("Euler's step is the convex combination: relative error", float(step), 1e-12),
        above("share of steps that raise the likelihood at their own bandwidth", by_seed((new >= old).T, share), 1.0),
        above("gain beyond the bound of an EM step, relative: least", float(slack.min()), -1e-7),
        above("share of steps that raise the annealed likelihood", by_seed(annealed.T, share), 0.99),
        below("control: share of moves three times as far as D that raise it", by_seed((beyond >= old).T, share), 0.5),
    ]


def differences(model: Denoiser, each: int) -> list[Claim]:
    """Second-order steps as Euler's plus a finite difference of the data prediction."""
    s = grids.log_snr(VE, 20)
    two, one = follow(solvers.heun(VE, s), model, each), follow(solvers.dpm_solver_pp_2m(VE, s), model, each)
    a, b = s[:-1, None, None], s[1:, None, None]
    x, first, second = two.x[:-1:2], two.data[::2], two.data[1::2]
    heun = b / a * x + (1 - b / a) * first + (a - b) / (2 * b) * (second - first)
    h = -torch.diff(torch.log(s))
    q = (h[1:] / h[:-1])[:, None, None]
    r, now, past = (b / a)[1:], one.data[1:], one.data[:-1]
    multistep = r * one.x[1:-1] + (1 - r) * now + (1 - r) * q / 2 * (now - past)
    return [
        below("Heun is Euler plus a difference of D: largest error", float((heun - two.x[2::2]).abs().max()), 1e-10),
        below("2M is Euler plus a difference of D: largest error", float((multistep - one.x[2:]).abs().max()), 1e-10),
    ]


def train(seed: int, quick: bool) -> Denoiser:
    """Return a small network trained on the seen digits; noise levels centred at 1 cover what a run from s = 20 meets."""
    data = digits()[0][:SEEN].float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DenoisingMLP(64, width=256, depth=2)
    steps, batch = (200, 64) if quick else (400, 128)
    settings = Settings(steps=steps, batch=batch, rate=4e-3, warmup=50, average=0.99, seed=seed)
    formulation = replace(edm(float(data.std())), time_law=LogNormal(0.0, 1.2))
    with tempfile.TemporaryDirectory() as folder:
        return fit_denoiser(data, formulation, network, settings, folder).denoiser


class Compared(NamedTuple):
    """A model on digits it was made from and on held-out ones."""

    copies: float  # share of its samples within 1 of a digit it was made from; digits are 2 apart
    distance: float  # energy distance of its samples from the held-out digits
    seen: float  # root mean square error of D at noise level SLIGHT, on seen and on held-out digits
    unseen: float
    gap_seen: float  # root mean square difference from the exact denoiser of the seen digits
    gap_unseen: float


def compare(model: Denoiser, exact: Denoiser, seed: int, count: int) -> Compared:
    """Return how `model`, of which `count` samples are drawn, treats seen and held-out digits."""
    data, dtype = digits()[0], torch.float64 if model is exact else torch.float32
    plan = solvers.ddim(VE, grids.karras(VE, 30, t_max=20.0, end="zero"))
    samples = plan.run(model, plan.start((count, 64), Stream(seed, "generated"), dtype=dtype)).x.double()
    near_by = torch.cdist(samples, data[:SEEN]).amin(1) < 1
    errors, gaps = [], []
    for part in (data[: len(data) - SEEN], data[SEEN:]):
        x, _ = VE.perturb(part, SLIGHT, Stream(seed, "slight"))
        found = model.predict(x.to(dtype), SLIGHT).x0.double()
        errors.append(float((found - part).square().mean().sqrt()))
        gaps.append(float((found - exact.predict(x, SLIGHT).x0).square().mean().sqrt()))
    return Compared(float(share(near_by)), energy_distance(samples, data[SEEN:]), *errors, *gaps)


def independent_pixels(seed: int) -> float:
    """Return the energy distance, from the held-out digits, of Gaussian pixels with the seen digits' means and deviations."""
    data = digits()[0]
    noise = Stream(seed, "pixels").normal((1000, 64), dtype=torch.float64)
    return energy_distance(data[:SEEN].mean(0) + data[:SEEN].std(0) * noise, data[SEEN:])


def memorising(quick: bool) -> list[Claim]:
    """The exact denoiser of a training set against a network trained on it."""
    seeds = range(1 if quick else SEEDS)
    exact = FinitePoints(VE, digits()[0][:SEEN])
    rote = [compare(exact, exact, seed, 200) for seed in seeds]
    learned = [compare(train(seed, quick), exact, seed, 1000) for seed in seeds]
    quality = [c.distance / independent_pixels(seed) for c, seed in zip(learned, seeds, strict=True)]
    return [
        above("exact denoiser: share of samples that copy a training digit", spread([c.copies for c in rote]), 0.99),
        below("network: share of samples that copy a training digit", spread([c.copies for c in learned]), 0.01),
        below("network: energy distance from held-out digits over independent pixels'", spread(quality), 0.9),
        below(
            "exact denoiser: error on seen digits over error on held-out ones",
            spread([c.seen / c.unseen for c in rote]),
            0.01,
        ),
        near(
            "network: error on seen digits over error on held-out ones",
            spread([c.seen / c.unseen for c in learned]),
            1.0,
            0.1,
        ),
        above(
            "network's distance from the exact D, held-out over seen digits",
            spread([c.gap_unseen / c.gap_seen for c in learned]),
            2.0,
        ),
    ]


def panels() -> list[Panel]:
    """What the picture shows."""
    paths = follow(solvers.ddim(VE, grids.karras(VE, 60)), FinitePoints(VE, digits()[0]), 16)
    s, end = paths.s[:-1].tolist(), paths.data[-1]
    state, data = ((z - end).norm(dim=-1).median(1).values.clamp_min(1e-3) for z in (paths.x[:-1], paths.data))
    lines = {"state": (s, state.tolist()), "data prediction": (s, data.tolist())}
    return [Panel("Who reaches the end first", "noise level", "median distance", lines)]


def study(quick: bool = False) -> Study:
    """Return the outcome."""
    model, each = FinitePoints(VE, digits()[0]), 16 if quick else 64
    paths = follow(solvers.ddim(VE, grids.karras(VE, 30 if quick else 60)), model, each)
    claims = (
        straightness(paths, model, each) + who_leads(paths) + jumps(model, each, 8 * each) + likelihoods(paths, model)
    )
    return Study(claims + differences(model, each) + memorising(quick), panels)


if __name__ == "__main__":
    sys.exit(main("sampling_geometry", __doc__, study))
