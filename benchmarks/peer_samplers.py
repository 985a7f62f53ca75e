"""The peers' rows: diffusers, k-diffusion and azula on the same exact denoiser, each with one setting that was fixed beforehand.

What makes the comparison fair, and what it cannot mend:

- diffusers gets ``trained_betas`` with which index ``n`` of its table is exactly ``t = (n + 1) / 1000``; the denoiser is called at
  the index the scheduler hands out, also where that was rounded and the scheduler's own noise level was not. Its tables are
  float32. Where the default spacing would start below ``t = 1`` (DDIM, PNDM), ``trailing`` is used, which starts there.
- k-diffusion and azula get our noise levels, in float64. azula's own grid is linear in time; the grid uniform in log-SNR, on
  which it is much stronger, goes in as its time steps.
- azula's REAB has ``sqrt(alpha_s^2 + sigma_t^2)`` where its derivation has ``sigma_s``. It takes part as shipped, and with that
  factor put right.
- Samplers that draw noise do not take part; those that become deterministic with a setting do, with that setting.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.contenders import Contender
from benchmarks.exact_beds import PROCESS, Bed, End
from isocline.plans import grids
from isocline.processes.gaussian import as_time

DIFFUSERS, K_DIFFUSION, AZULA = "diffusers", "k-diffusion", "azula"
Steps = Callable[[int], "int | None"]


def contenders() -> list[Contender]:
    """Return the rows of all peers that are installed; the others are named on the error stream."""
    rows: list[Contender] = []
    for package, make in ((DIFFUSERS, _diffusers), (K_DIFFUSION, _k_diffusion), (AZULA, _azula)):
        try:
            rows += make()
        except ImportError as error:
            print(f"left out: {package} ({error}); see benchmarks/requirements.txt", file=sys.stderr)
    return rows


# How many steps use `calls` calls, or None.


def one_each(calls: int) -> int | None:
    return calls


def two_each(calls: int) -> int | None:
    return calls // 2 if calls % 2 == 0 else None


def two_each_but_the_last(calls: int) -> int | None:
    return (calls + 1) // 2 if calls % 2 else None


def one_more(calls: int) -> int | None:
    return calls - 1 if calls > 3 else None


def runge_kutta_start(calls: int) -> int | None:
    return calls - 9 if calls >= 13 else None


# diffusers

_TRAILING = {"timestep_spacing": "trailing"}
_KARRAS, _LU, _EXPONENTIAL = ({f"use_{name}": True} for name in ("karras_sigmas", "lu_lambdas", "exponential_sigmas"))
_DPM, _SINGLE = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"
_UNIPC, _DEIS, _SA = "UniPCMultistepScheduler", "DEISMultistepScheduler", "SASolverScheduler"
_NO_NOISE = {"tau_func": lambda t: 0.0}
_NOISE = {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}


def _spacings(
    name: str, scheduler: str, end: End, steps: Steps, settings: dict[str, Any], extra: tuple[str, ...]
) -> Any:
    kinds = {"default": {}, "karras": _KARRAS, "exponential": _EXPONENTIAL, "lu": _LU}
    return [(f"{name}, {kind}", scheduler, end, steps, {**settings, **kinds[kind]}) for kind in ("default", *extra)]


def _order(k: int) -> dict[str, Any]:
    return {"solver_order": k}


_SCHEDULERS: list[tuple[str, str, End, Steps, dict[str, Any]]] = [
    ("DDIM, trailing", "DDIMScheduler", "zero", one_each, {"clip_sample": False, **_TRAILING}),
    *_spacings("Euler", "EulerDiscreteScheduler", "zero", one_each, {}, ("karras", "exponential")),
    *_spacings("Heun", "HeunDiscreteScheduler", "zero", two_each_but_the_last, {}, ("karras", "exponential")),
    *_spacings("KDPM2", "KDPM2DiscreteScheduler", "zero", two_each_but_the_last, {}, ("karras", "exponential")),
    *_spacings("LMS", "LMSDiscreteScheduler", "zero", one_each, {}, ("karras", "exponential")),
    *_spacings("DPM++ 2M", _DPM, "zero", one_each, _order(2), ("karras", "exponential", "lu")),
    *_spacings("DPM++ 3M", _DPM, "zero", one_each, _order(3), ("karras", "exponential", "lu")),
    *_spacings("DPM++ 2M to sigma_min", _DPM, "t_min", one_each, {**_order(2), "final_sigmas_type": "sigma_min"}, ()),
    *_spacings("DPM++ 3M to sigma_min", _DPM, "t_min", one_each, {**_order(3), "final_sigmas_type": "sigma_min"}, ()),
    *_spacings("DPM-Solver 2M", _DPM, "t_min", one_each, {**_order(2), **_NOISE}, ()),
    *_spacings("DPM-Solver 3M", _DPM, "t_min", one_each, {**_order(3), **_NOISE}, ()),
    *_spacings("DPM++ 2S", _SINGLE, "zero", one_each, {**_order(2), "lower_order_final": True}, ("karras", "exponential")),
    *_spacings("DPM++ 3S", _SINGLE, "zero", one_each, {**_order(3), "lower_order_final": True}, ("karras", "exponential")),
    *_spacings("UniPC 2", _UNIPC, "zero", one_each, _order(2), ("karras", "exponential")),
    *_spacings("UniPC 3", _UNIPC, "zero", one_each, _order(3), ("karras", "exponential")),
    *_spacings("UniPC 2 to sigma_min", _UNIPC, "t_min", one_each, {**_order(2), "final_sigmas_type": "sigma_min"}, ()),
    *_spacings("DEIS 2", _DEIS, "t_min", one_each, _order(2), ("karras", "exponential")),
    *_spacings("DEIS 3", _DEIS, "t_min", one_each, _order(3), ("karras", "exponential")),
    *_spacings("SA-Solver without noise", _SA, "t_min", one_each, _NO_NOISE, ("karras", "exponential")),
    ("PNDM, trailing", "PNDMScheduler", "t_min", runge_kutta_start, _TRAILING),
    ("PNDM without Runge-Kutta steps, trailing", "PNDMScheduler", "t_min", one_more, {"skip_prk_steps": True, **_TRAILING}),
]  # fmt: skip


@cache
def trained_betas() -> list[float]:
    """Return the rates whose cumulative products are ``alpha^2`` at ``t = (n + 1) / 1000``."""
    log_alpha = torch.log(PROCESS.alpha(torch.arange(1001, dtype=torch.float64) / 1000))
    return (-torch.expm1(2 * log_alpha.diff())).tolist()


def _diffusers() -> list[Contender]:
    importlib.import_module("diffusers").utils.logging.set_verbosity_error()
    return [
        Contender(DIFFUSERS, name, end, partial(_run_scheduler, scheduler, steps, settings))
        for name, scheduler, end, steps, settings in _SCHEDULERS
    ]


def _run_scheduler(
    name: str, steps_for: Steps, settings: dict[str, Any], bed: Bed, x: Tensor, calls: int
) -> Tensor | None:
    steps = steps_for(calls)
    if steps is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = copy.deepcopy(_scheduler(name, tuple(settings.items())))
        made.set_timesteps(steps)
        # schedulers that work on y = x / alpha start at the top of their noise levels
        top = float(made.init_noise_sigma)
        x = x * ((1 + top**2) ** 0.5 if top > 1.001 else 1.0)
        for index in made.timesteps:
            told = made.scale_model_input(x, index)
            x = made.step(_noise_at(bed, told.double(), (float(index) + 1) / 1000), index, x).prev_sample
    return x


@cache
def _scheduler(name: str, settings: tuple[tuple[str, Any], ...]) -> Any:
    """Return a scheduler that was never run; some take a second to make."""
    return getattr(importlib.import_module("diffusers"), name)(trained_betas=trained_betas(), **dict(settings))


def _noise_at(bed: Bed, x: Tensor, time: float) -> Tensor:
    t = as_time(time)
    return (x - PROCESS.alpha(t) * bed.model(x, t)) / PROCESS.sigma(t)


# k-diffusion


@cache
def k_diffusion_sampling() -> types.ModuleType:
    """Load the sampling module alone: the package's own import needs image libraries that sampling does not use."""
    spec = importlib.util.find_spec("k_diffusion")
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError("k-diffusion is not installed")
    package, utils = types.ModuleType("k_diffusion"), types.ModuleType("k_diffusion.utils")
    package.__path__ = list(spec.submodule_search_locations)
    utils.append_dims = _append_dims  # type: ignore[attr-defined]
    package.utils = utils  # type: ignore[attr-defined]
    sys.modules |= {"k_diffusion": package, "k_diffusion.utils": utils}
    return importlib.import_module("k_diffusion.sampling")


def _append_dims(x: Tensor, ndim: int) -> Tensor:
    return x.reshape(x.shape + (1,) * (ndim - x.ndim))


def _still(sigma: Any, sigma_next: Any) -> float:
    return 0.0


_STILL = {"eta": 0.0, "noise_sampler": _still}
_SAMPLERS: list[tuple[str, str, bool, dict[str, Any]]] = [
    ("euler", "sample_euler", False, {}),
    ("heun", "sample_heun", True, {}),
    ("dpm_2", "sample_dpm_2", True, {}),
    ("lms, order 4", "sample_lms", False, {}),
    ("dpmpp_2m", "sample_dpmpp_2m", False, {}),
    ("dpmpp_2s_ancestral, eta 0", "sample_dpmpp_2s_ancestral", True, _STILL),
    ("dpmpp_2m_sde, eta 0", "sample_dpmpp_2m_sde", False, _STILL),
    ("dpmpp_3m_sde, eta 0", "sample_dpmpp_3m_sde", False, _STILL),
]


def _k_diffusion() -> list[Contender]:
    k_diffusion_sampling()
    rows = [
        Contender(K_DIFFUSION, f"{name}, {grid}", end, partial(_run_sampler, function, grid, end, _steps(two, end), settings))
        for name, function, two, settings in _SAMPLERS
        for grid in ("log_snr", "karras")
        for end in ("t_min", "zero")
    ]  # fmt: skip
    return [*rows, Contender(K_DIFFUSION, "dpm_fast, log_snr", "t_min", _run_dpm_fast)]


def _steps(two: bool, end: End) -> Steps:
    if not two:
        return one_each
    return two_each if end == "t_min" else two_each_but_the_last


def _run_sampler(
    function: str, grid: str, end: End, steps_for: Steps, settings: dict[str, Any], bed: Bed, x: Tensor, calls: int
) -> Tensor | None:
    steps = steps_for(calls)
    if steps is None:
        return None
    times = getattr(grids, grid)(PROCESS, steps, end=end)
    sampler = getattr(k_diffusion_sampling(), function)
    y = sampler(_in_levels(bed), x / PROCESS.alpha(times[0]), PROCESS.noise_level(times), disable=True, **settings)
    return y * PROCESS.alpha(times[-1])


def _run_dpm_fast(bed: Bed, x: Tensor, calls: int) -> Tensor:
    low, high = (PROCESS.noise_level(t) for t in (PROCESS.t_min, PROCESS.t_max))
    y = x / PROCESS.alpha(PROCESS.t_max)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        y = k_diffusion_sampling().sample_dpm_fast(
            _in_levels(bed), y, low, high, calls, disable=True, noise_sampler=_still
        )
    return y * PROCESS.alpha(PROCESS.t_min)


def _in_levels(bed: Bed) -> Callable[..., Tensor]:
    """Return the denoiser as k-diffusion calls it: ``D(y, sigma)`` with sigma (B,), equal for all."""

    def model(y: Tensor, sigma: Tensor) -> Tensor:
        t = PROCESS.time_of_noise_level(sigma[0])
        return bed.model(PROCESS.alpha(t) * y, t)

    return model


# azula

_ADAMS = ("zAB", "vAB", "zEAB", "xEAB", "REAB")
_SPACINGS = {"log_snr": grids.log_snr, "linear in time": grids.uniform}


def _azula() -> list[Contender]:
    importlib.import_module("azula.sample")
    return [
        Contender(AZULA, f"{name}, {spacing}", "t_min", partial(_run_azula, build, spacing, steps))
        for spacing in _SPACINGS
        for name, build, steps in _azula_samplers()
    ]


def _azula_samplers() -> Iterator[tuple[str, Callable[..., Any], Steps]]:
    yield "DDIM", partial(_shipped, "DDIM", {}), one_each
    yield "Heun", partial(_shipped, "Heun", {}), two_each
    for kind in _ADAMS:
        for order in (2, 3, 4):
            yield f"{kind}{order}", partial(_shipped, kind, {"order": order}), one_each
    for order in (2, 3, 4):
        yield f"REAB{order} with sigma_s", partial(_rescaled, order), one_each


def _run_azula(
    build: Callable[..., Any], spacing: str, steps_for: Steps, bed: Bed, x: Tensor, calls: int
) -> Tensor | None:
    steps = steps_for(calls)
    if steps is None:
        return None
    return build(_azula_denoiser(bed), _SPACINGS[spacing](PROCESS, steps))(x)


def _shipped(kind: str, settings: dict[str, Any], denoiser: Any, times: Tensor) -> Callable[[Tensor], Tensor]:
    sampler = getattr(importlib.import_module("azula.sample"), f"{kind}Sampler")
    on_times = type(sampler.__name__, (sampler,), {"timesteps": property(lambda self: times)})
    return on_times(denoiser, silent=True, **settings)


def _rescaled(order: int, denoiser: Any, times: Tensor) -> Callable[[Tensor], Tensor]:
    """Return REAB with the right factor: unit-variance states, azula's own weights."""
    weights = importlib.import_module("azula.sample").REABSampler._exponential_adams_bashforth
    alpha, sigma = PROCESS.alpha(times), PROCESS.sigma(times)
    scale, level = torch.hypot(alpha, sigma), torch.log(sigma / alpha)

    def run(x: Tensor) -> Tensor:
        z = x / scale[0]
        past: list[Tensor] = []
        for i in range(len(times) - 1):
            data = denoiser(scale[i] * z, times[i]).mean
            past = [*past, (alpha[i] * z - scale[i] * data) / sigma[i]][-order:]
            z = z + sum(w * f for w, f in zip(weights(level, i=i, n=order), past, strict=True))
        return scale[-1] * z

    return run


def _azula_denoiser(bed: Bed) -> Any:
    denoise = importlib.import_module("azula.denoise")

    class Exact(denoise.Denoiser):  # type: ignore[name-defined]
        def schedule(self, t: Tensor) -> tuple[Tensor, Tensor]:
            return PROCESS.alpha(t), PROCESS.sigma(t)

        def forward(self, x: Tensor, t: Tensor) -> Any:
            return denoise.DiracPosterior(bed.model(x, t))

    return Exact()
