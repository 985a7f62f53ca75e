"""Who takes part in the wide table of `samplers_overhead`: each of our solvers once, and what the peers have in its place.

The network is free and stored, as in the main table. Peers are told what is native to them: diffusers' schedulers noise
predictions, k-diffusion and azula data predictions. A peer's noise is plain ``randn``.
"""

from __future__ import annotations

import copy
import importlib
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.peer_samplers import k_diffusion_sampling
from isocline.plans import grids, solvers
from isocline.processes import EDM, Data, Denoiser

PROCESS = EDM()
OURS = "isocline"


class Free(Denoiser):
    """A network that returns a stored tensor."""

    def __init__(self, output: Tensor) -> None:
        super().__init__(PROCESS, Data())
        self.output = output

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """Return the stored tensor."""
        return self.output


@dataclass
class Job:
    """A run on start states, what must be done before each one, and the network whose calls are counted."""

    run: Callable[[Tensor], Tensor]
    network: Free
    prepare: Callable[[], Any] = lambda: None

    def __call__(self, x: Tensor) -> Tensor:
        """Run."""
        return self.run(x)


@dataclass(frozen=True)
class Maker:
    """How to make a contender: ``make(output, calls) -> Job``, and which of our solvers it stands beside."""

    package: str
    name: str
    beside: str
    make: Callable[[Tensor, int], Job]

    @property
    def title(self) -> str:
        """Its name in the table."""
        return f"{self.package} {self.name}"


# Ours: a solver and one order

ONE_EACH: dict[str, dict[str, Any]] = {
    "ddim": {},
    "dpm_solver_pp_2m": {},
    "dpm_solver_pp_3m": {},
    "exponential_adams": {"order": 3},
    "lam_adams": {"order": 3},
    "rho_adams": {"order": 4},
    "t_adams": {"order": 3},
    "flow_adams": {"order": 3},
    "flow_heun": {},
    "flow_midpoint": {},
    "heun": {},
    "unipc": {"order": 2},
    "sa_solver": {"predictor_order": 2, "corrector_order": 2},
    "dpm_solver_2": {},
    "dpm_solver_3": {},
    "dpm_solver_fast": {},
    "dpm_solver_pp_2s": {},
    "dpm_solver_pp_3s": {},
    "ipndm": {},
    "plms": {},
    "s_pndm": {},
    "f_pndm": {},
    "ancestral": {},
    "euler_maruyama": {},
    "reverse_diffusion": {},
    "predictor_corrector": {},
    "stochastic_heun": {"s_churn": 10.0},
    "sde_dpm_solver_pp_1": {},
    "sde_dpm_solver_pp_2m": {},
    "sde_dpm_solver_pp_3m": {},
}


def _ours(name: str, settings: dict[str, Any], output: Tensor, calls: int) -> Job:
    plan = getattr(solvers, name)(PROCESS, grids.karras(PROCESS, calls), **settings)
    network, noise = Free(output), {"rng": 0} if plan.stochastic else {}
    return Job(lambda x: plan.run(network, x, **noise).x, network)


# diffusers: scheduler, settings, ours

_SCHEDULERS: list[tuple[str, dict[str, Any], str]] = [
    ("DDIMScheduler", {"clip_sample": False}, "ddim"),
    ("EulerDiscreteScheduler", {}, "ddim"),
    ("DPMSolverMultistepScheduler", {"solver_order": 3}, "dpm_solver_pp_3m"),
    ("DPMSolverSinglestepScheduler", {"solver_order": 2, "lower_order_final": True}, "dpm_solver_pp_2s"),
    ("UniPCMultistepScheduler", {"solver_order": 2}, "unipc"),
    ("DEISMultistepScheduler", {"solver_order": 3}, "lam_adams"),
    ("LMSDiscreteScheduler", {}, "rho_adams"),
    ("HeunDiscreteScheduler", {}, "heun"),
    ("KDPM2DiscreteScheduler", {}, "dpm_solver_2"),
    ("PNDMScheduler", {"skip_prk_steps": True}, "plms"),
    ("SASolverScheduler", {"tau_func": lambda t: 0.0}, "sa_solver"),
    ("EulerAncestralDiscreteScheduler", {}, "ancestral"),
]


def _scheduler(name: str, settings: dict[str, Any], output: Tensor, calls: int) -> Job:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fresh = getattr(importlib.import_module("diffusers"), name)(**settings)
        fresh.set_timesteps(calls)
    network, made = Free(output), [fresh]

    @torch.no_grad()
    def run(x: Tensor) -> Tensor:
        scheduler = made[0]
        for t in scheduler.timesteps:
            told = scheduler.scale_model_input(x, t)
            x = scheduler.step(network(told, t), t, x, return_dict=False)[0]
        return x

    def prepare() -> None:
        made[0] = copy.deepcopy(fresh)

    return Job(run, network, prepare)


# k-diffusion: sampler, settings, ours

_RANDN = "randn"  # stands for a source of the right shape
_STILL = {"eta": 0.0, "noise_sampler": lambda sigma, sigma_next: 0.0}
_SAMPLERS: list[tuple[str, dict[str, Any], str]] = [
    ("sample_euler", {}, "ddim"),
    ("sample_heun", {}, "heun"),
    ("sample_dpm_2", {}, "dpm_solver_2"),
    ("sample_lms", {}, "rho_adams"),
    ("sample_dpmpp_2s_ancestral", _STILL, "dpm_solver_pp_2s"),
    ("sample_dpmpp_3m_sde", _STILL, "exponential_adams"),
    ("sample_euler_ancestral", {}, "ancestral"),
    ("sample_dpmpp_2m_sde", {"noise_sampler": _RANDN}, "sde_dpm_solver_pp_2m"),
]


def _sampler(name: str, settings: dict[str, Any], output: Tensor, calls: int) -> Job:
    sample, network = getattr(k_diffusion_sampling(), name), Free(output)
    sigmas = grids.karras(PROCESS, calls).float()

    def run(x: Tensor) -> Tensor:
        noise = {"noise_sampler": lambda a, b: torch.randn_like(x)} if settings.get("noise_sampler") == _RANDN else {}
        return sample(network, x, sigmas, disable=True, **(settings | noise))

    return Job(run, network)


# azula: sampler, settings, ours

_AZULA: list[tuple[str, dict[str, Any], str]] = [
    ("DDIMSampler", {}, "ddim"),
    ("HeunSampler", {}, "heun"),
    ("zABSampler", {"order": 4}, "rho_adams"),
    ("vABSampler", {"order": 3}, "flow_adams"),
    ("zEABSampler", {"order": 3}, "lam_adams"),
    ("xEABSampler", {"order": 3}, "exponential_adams"),
]


def _azula(name: str, settings: dict[str, Any], output: Tensor, calls: int) -> Job:
    denoise, network = importlib.import_module("azula.denoise"), Free(output)

    class Stored(denoise.Denoiser):  # type: ignore[name-defined]
        def schedule(self, t: Tensor) -> tuple[Tensor, Tensor]:
            return torch.ones_like(t), t

        def forward(self, x: Tensor, t: Tensor) -> Any:
            return denoise.DiracPosterior(network(x, t))

    times = grids.karras(PROCESS, calls).float()
    sampler = getattr(importlib.import_module("azula.sample"), name)
    on_times = type(name, (sampler,), {"timesteps": property(lambda self: times)})
    return Job(on_times(Stored(), silent=True, **settings), network)


def makers() -> list[Maker]:
    """Return everyone whose package is installed and who can be made."""
    found = [Maker(OURS, name, name, partial(_ours, name, s)) for name, s in ONE_EACH.items() if hasattr(solvers, name)]
    tables = (
        ("diffusers", partial(importlib.import_module, "diffusers"), _SCHEDULERS, _scheduler),
        ("k-diffusion", k_diffusion_sampling, _SAMPLERS, _sampler),
        ("azula", partial(importlib.import_module, "azula.sample"), _AZULA, _azula),
    )
    for package, load, table, make in tables:
        try:
            load()
        except ImportError as error:
            print(f"left out: {package} ({error}); see benchmarks/requirements.txt", file=sys.stderr)
            continue
        found += [Maker(package, name, beside, partial(make, name, settings)) for name, settings, beside in table]
    return found
