r"""How many dimensions a sampling path needs.

    python studies/trajectory_shape.py [--quick] [--json] [--picture FILE]

Chen, Zhou, Wang, Shen and Lyu (arXiv 2405.11326) find that each path ``x_0, ..., x_n`` of the probability-flow ODE lies in a
subspace of about three dimensions, whatever the model and the result. With ``X`` the path less its mean, (n+1, d), and its
singular values ``w_k``, the share of the variance that ``m`` components miss is

    sum_{k > m} w_k^2 / sum_k w_k^2 .

A path from noise level 80 to data of size 1 is a long straight line with a small bend at its end, so that one component carries
nearly everything and the claim says little. It is therefore asked twice more: of the part below noise level 3, and of what is left
off the chord ``u = (x_n - x_0) / |x_n - x_0|``, the bend ``b_i = (x_i - x_0) - u u^T (x_i - x_0)``.

Paths are those of the exact denoiser of the smooth mixture in 8 dimensions and of the bundled Fashion-MNIST network in 784, by
DPM-Solver++ 2M; ancestral paths of the same models are the control.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from isocline._core.estimate import Estimate
from isocline._core.stream import Stream
from isocline.models import bundled
from isocline.plans import Plan, grids, solvers
from isocline.processes import EDM, Denoiser
from isocline.processes.exact import GaussianMixture
from isocline.recipes.quickstart import SHAPE, labels
from isocline.recipes.train import load_image_model
from studies.verdict import Claim, Panel, Study, above, below, main, spread

VE = EDM()
SEEDS = 5
LATE = 3.0  # noise level below which the data's shape matters


class Walk:
    """A model, the shape of its data, and how many paths of it are drawn for each seed."""

    def __init__(self, name: str, model: Denoiser, shape: tuple[int, ...], each: int, cond: bool = False) -> None:
        self.name, self.model, self.shape, self.each, self.cond = name, model, shape, each, cond

    def paths(self, plan: Plan) -> Tensor:
        """Return the paths (n+1, B, d) of `plan`, in float64; seeds follow each other in the batch."""
        dtype = torch.float32 if self.cond else torch.float64
        parts = []
        for seed in range(SEEDS):
            start = plan.start((self.each, *self.shape), Stream(seed, "trajectory shape"), dtype=dtype)
            states = plan.run(self.model, start, cond=labels(self.each) if self.cond else None, rng=seed, record=True)
            assert states.trajectory is not None
            parts.append(states.trajectory.flatten(2).double())
        return torch.cat(parts, 1)


def mixture(quick: bool) -> Walk:
    """Return the smooth mixture."""
    return Walk("mixture", GaussianMixture.smooth_bed(VE), (8,), 16 if quick else 64)


def network(quick: bool) -> Walk:
    """Return the bundled network, one image of each class."""
    return Walk("network", load_image_model(bundled("fashion")), SHAPE, 2 if quick else 10, cond=True)


def missed(paths: Tensor, components: int) -> Tensor:
    """Return the share (B,) of the variance of each path (n+1, B, d) that its first principal components miss."""
    centred = (paths - paths.mean(0)).transpose(0, 1)
    variances = torch.linalg.svdvals(centred).square()
    return variances[:, components:].sum(1) / variances.sum(1)


def bends(paths: Tensor) -> Tensor:
    """Return what is left of each path (n+1, B, d) off its chord."""
    moved, chord = paths - paths[0], paths[-1] - paths[0]
    along = chord / chord.norm(dim=-1, keepdim=True)
    return moved - (moved * along).sum(-1, keepdim=True) * along


def by_seed(values: Tensor, measure: Callable[[Tensor], Tensor]) -> Estimate:
    """Return `measure` of the part of `values` (B,) that belongs to each seed: mean and range."""
    return spread([float(measure(part)) for part in values.chunk(SEEDS)])


def late(paths: Tensor, times: Tensor) -> Tensor:
    """Return the part of the paths from noise level `LATE` on."""
    return paths[int((times > LATE).sum()) :]


def subspaces(walk: Walk, steps: int) -> list[Claim]:
    """The claims about one model."""
    times, of = grids.karras(VE, steps), f"{walk.name}: share of the variance that "
    paths = walk.paths(solvers.dpm_solver_pp_2m(VE, times))
    noisy = walk.paths(solvers.ancestral(VE, times))
    return [
        below(of + "3 components miss, worst path", by_seed(missed(paths, 3), torch.max), 0.01),
        below(of + "1 component misses, worst path", by_seed(missed(paths, 1), torch.max), 0.01),
        below(of + "3 miss from s = 3 on, worst path", by_seed(missed(late(paths, times), 3), torch.max), 0.01),
        below(of + "3 miss off the chord, mean", by_seed(missed(bends(paths), 3), torch.mean), 0.01),
        above("control, " + of + "3 miss of ancestral paths, mean", by_seed(missed(noisy, 3), torch.mean), 0.05),
    ]


def panels() -> list[Panel]:
    """What the picture shows."""
    lines = {}
    for walk in (mixture(True), network(True)):
        times = grids.karras(VE, 30)
        paths = walk.paths(solvers.dpm_solver_pp_2m(VE, times))
        for name, part in (("path", paths), ("bend", bends(paths))):
            left = [float(missed(part, m).mean()) for m in range(1, 7)]
            lines[f"{walk.name}: {name}"] = (range(1, 7), left)
    return [Panel("What few components leave out", "components", "share of the variance left", lines)]


def study(quick: bool = False) -> Study:
    """Return the outcome."""
    steps = 30 if quick else 60
    return Study([claim for make in (mixture, network) for claim in subspaces(make(quick), steps)], panels)


if __name__ == "__main__":
    sys.exit(main("trajectory_shape", __doc__, study))
