"""The published code of GITS and OptimalSteps on a bed: prints the times that it finds. `research_code.py` calls `main`.

Each method runs in a process of its own, which imports the repository's modules and nothing else of it. They are run with the
settings of their repositories; what has to be chosen for the beds is here:

- GITS draws its own noises; its model is the bed's, called in float64. Its schedule is that of the bed's base plans, Karras with
  exponent 7, and the teacher is iPNDM on 61 nodes, as in its README.
- OptimalSteps works in flow time ``sigma / (1 + sigma)`` on states ``x / (1 + sigma)``, where Euler's step is DDIM's. Its teacher
  is Euler's method on 201 nodes, here those of the Karras grid, and ends where the bed ends. The median over noises is its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tuners import BEDS, prepared

from isocline.plans import grids
from isocline.processes import Denoiser

GITS_NOISES = 256


class Counted:
    """A bed's model as a function of states (B, ...) and noise level; counts calls times batch."""

    def __init__(self, model: Denoiser, shape: tuple[int, ...]) -> None:
        self.model, self.shape, self.calls = model, shape, 0

    def data(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return the data prediction at states `x` and noise level (,) or (B,)."""
        self.calls += len(x)
        flat = x.reshape(len(x), *self.shape).double()
        return self.model.predict(flat, sigma.double(), None).x0.reshape(x.shape).to(x)


class Pixels(Counted):
    """What GITS expects of a network: images (B, d, 1, 1) and one noise level."""

    img_resolution, label_dim = 1, 0

    @property
    def img_channels(self) -> int:
        """Number of coordinates."""
        return self.shape[0]

    def __call__(self, x: Tensor, sigma: Tensor, class_labels: Any = None) -> Tensor:
        """Return the data prediction."""
        return self.data(x, sigma)


class Velocity(Counted):
    """What OptimalSteps expects of a flow model: its times from clean to noise, and velocities at places in that list."""

    def __init__(self, model: Denoiser, shape: tuple[int, ...], sigma: Tensor) -> None:
        super().__init__(model, shape)
        self.sigma, self.fm_steps = sigma, sigma / (1 + sigma)

    def __call__(self, z: Tensor, place: Tensor, *_: Any) -> Tensor:
        """Return the velocity ``eps - x_0`` at states `z` (B, *)."""
        wide = (len(z), *([1] * (z.ndim - 1)))
        scale, time = (1 + self.sigma[place]).reshape(wide), self.fm_steps[place].reshape(wide)
        return (z - self.data(z * scale, self.sigma[place])) / time


def gits(repository: Path, model: Denoiser, shape: tuple[int, ...], calls: int, seed: int) -> dict[str, Any]:
    """Return times (n+1) of the published GITS, its cost matrix and the path its dynamic programming found in it."""
    sys.path.insert(0, str(repository / "gits-main"))
    import gits_utils
    import solver_utils

    if not torch.distributed.is_initialized():  # it sums costs over processes
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    process, network = model.process, Pixels(model, shape)
    grid = {
        "sigma_min": float(process.sigma(process.t_min)),
        "sigma_max": float(process.sigma(process.t_max)),
        "schedule_type": "polynomial",
        "schedule_rho": 7,
    }
    torch.manual_seed(seed)
    began = time.process_time()
    with watched(gits_utils, "dp") as costs, contextlib.redirect_stdout(sys.stderr):
        path = gits_utils.get_dp_list(
            network,
            torch.device("cpu"),
            dataset_name="bed",
            num_warmup=GITS_NOISES,
            max_batch_size=GITS_NOISES,
            num_steps=calls + 1,
            num_steps_tea=61,
            solver="euler",
            solver_tea="ipndm",
            max_order=4,
            afs=False,
            metric="dev",
            coeff=1.15,
            model_source="edm",
            prompt=None,
            **grid,
        )
    seconds = time.process_time() - began
    times = solver_utils.get_schedule(61, **grid, device=torch.device("cpu"), dp_list=path)
    return {
        "times": times.tolist(),
        "path": [int(i) for i in path],
        "costs": costs[0].tolist(),
        "calls": network.calls / GITS_NOISES,
        "noises": GITS_NOISES,
        "seconds": seconds,
    }


@contextlib.contextmanager
def watched(module: Any, name: str) -> Iterator[list[Any]]:
    """Keep the first argument of each call of a module's function."""
    seen, function = [], getattr(module, name)

    def keeping(first: Any, *rest: Any) -> Any:
        seen.append(first)
        return function(first, *rest)

    setattr(module, name, keeping)
    try:
        yield seen
    finally:
        setattr(module, name, function)


def optimal_steps(
    repository: Path, model: Denoiser, shape: tuple[int, ...], calls: int, noises: Tensor
) -> dict[str, Any]:
    """Return times (n+1) of the published OptimalSteps from start states (B, *)."""
    sys.path.insert(0, str(repository))
    from OSS.OSS import cal_medium, search_OSS_batch

    network = Velocity(model, shape, model.process.sigma(grids.karras(model.process, 200)).flip(0))
    start = noises.reshape(len(noises), -1, 1, 1) / (1 + network.sigma[-1])
    began = time.process_time()
    found = cal_medium(
        search_OSS_batch(network, start, len(start), None, "cpu", teacher_steps=200, student_steps=calls)
    )
    return {
        "times": [float(network.sigma[i]) for i in (*reversed(found), 0)],
        "calls": network.calls / len(start),
        "noises": len(start),
        "seconds": time.process_time() - began,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("repository", type=Path)
    parser.add_argument("--method", choices=("GITS", "OptimalSteps"), required=True)
    parser.add_argument("--bed", choices=[bed for bed in BEDS if BEDS[bed].cond is None], required=True)
    parser.add_argument("--calls", default="5,6,8,10")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    model, calibration = prepared(given.bed, given.seed)
    shape = BEDS[given.bed].shape
    for calls in map(int, given.calls.split(",")):
        if given.method == "GITS":
            found = gits(given.repository, model, shape, calls, given.seed)
        else:
            found = optimal_steps(given.repository, model, shape, calls, calibration.train.x)
        print(json.dumps({"at": calls, **found}), flush=True)
