r"""Plans inside diffusers: a scheduler whose configuration holds a plan.

A pipeline of diffusers owns the loop. It asks its scheduler for ``timesteps``, calls the network at each of them and hands the
output to ``step``. A plan fits into that loop call by call (`Stepping`): ``timesteps`` are the times ``tau`` that the network is
told, which may be fractional, repeat or rise, and one step takes all rows up to the next call.

Two kinds of process are known there. With the numbers ``n = 0 .. N - 1`` of a table of cumulative alphas, and with the times of a
flow ``x = (1 - t) x_0 + t eps``, a network is told

    tau = N t - 1      (`Tabulated`),        tau = N t      (`RectifiedFlow`),       N = num_train_timesteps .

A scheduler cannot see the guidance scale, nor whether the network outputs noise or ``v``: the plan file keeps the first, and the
second is given when the scheduler is written.
"""

from __future__ import annotations

import math
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isocline._core import files
from isocline._core.errors import BadFile, ExtraMissing, InvalidInput, IsoclineError, Mismatch, nearest, require
from isocline._core.stream import Stream
from isocline.plans import storage
from isocline.plans.export.stepping import Stepping
from isocline.plans.plan import Plan
from isocline.processes import (
    Continuous,
    Data,
    DiscreteIndex,
    FlowVelocity,
    GaussianProcess,
    Noise,
    Parameterisation,
    RectifiedFlow,
    Tabulated,
    VPrediction,
    wrap,
)
from isocline.processes.gaussian import match
from isocline.processes.model_time import ModelTime

PREDICTION_TYPES: dict[str, Parameterisation] = {
    "epsilon": Noise(),
    "sample": Data(),
    "v_prediction": VPrediction(),
    "flow_prediction": FlowVelocity(),
}
CONFIG = "scheduler_config.json"
FLOW_STEPS = 1000  # flow networks are told 1000 t, whatever they were trained with
UNIT_NOISE = 0.01  # diffusers' own schedulers take sigma = 0.9977 of Stable Diffusion for 1
ROUND_TRIP = 1e-6  # of the largest state; what float32 leaves of the times a network is told


def to_diffusers(plan: Plan, folder: str | Path, output: Parameterisation | None = None) -> Path:
    """Write `plan` as a scheduler of diffusers into `folder`, and return the folder.

    Before anything is written, the scheduler is stored, read back and run beside the plan on a made-up network; each state it
    gives must be that of the plan.

    Args:
        plan: a plan for a `Tabulated` process or a `RectifiedFlow`.
        folder: made where it is missing; gets ``scheduler_config.json``.
        output: what the model outputs, `from_diffusers(...).parameterisation`. Without it, velocities for flows and noise for the
            others, as diffusers' own schedulers assume.

    Raises:
        ExtraMissing: diffusers is not installed.
        InvalidInput: diffusers has no models of this process, or the outputs are undefined at a time of the plan.
        Mismatch: the scheduler that was read back does not compute what the plan does.
        CannotWrite: the folder cannot be written to.
    """
    scheduler = scheduler_class().from_plan(plan, output)
    text = scheduler.to_json_string()
    with tempfile.TemporaryDirectory() as trial:
        files.write_text(Path(trial) / CONFIG, text)
        check_round_trip(plan, scheduler_class().from_pretrained(trial))
    return files.write_text(Path(folder) / CONFIG, text).parent


def check_round_trip(plan: Plan, scheduler: Any) -> None:
    """Refuse a scheduler whose states differ from those of `plan.run`.

    Both see one smooth made-up network that depends on state and told time. Noise is drawn alike, so stochastic plans are compared
    state by state, too.

    Raises:
        Mismatch: the states differ by more than a millionth of the largest.
    """
    scheduler.set_timesteps(plan.calls)
    unit = scheduler.config.num_train_timesteps
    seed, shape = 0, (4, 8)

    def network(x: Tensor, told: Tensor) -> Tensor:
        return torch.sin(0.5 * x + 3 * told[:, None] / unit)

    denoiser = wrap(network, plan.process, scheduler.output, told_time(plan.process))
    denoiser.guidance = plan.guidance
    x = scheduler.init_noise_sigma * Stream(seed, "round trip").normal(shape, dtype=torch.float64)
    first = int(plan.evaluate.nonzero()[0])
    draws = torch.Generator().manual_seed(seed)
    noise = [  # as the scheduler draws: none before the first call, and only where it is used
        torch.randn(shape, generator=draws, dtype=torch.float64) if i >= first and c else torch.zeros_like(x)
        for i, c in enumerate(plan.noise.tolist())
    ]
    run = plan.run(denoiser, x / math.prod(plan.carry[:first].tolist()), noise=noise, record=True)
    expected = run.trajectory[[*plan.evaluate.nonzero().flatten().tolist(), -1]]  # type: ignore[index]
    states, generator = [x], torch.Generator().manual_seed(seed)
    for told in scheduler.timesteps:
        m = network(states[-1], told.double().expand(len(x)))
        states.append(scheduler.step(m, told, states[-1], generator=generator).prev_sample)
    worst = float((torch.stack(states) - expected).abs().max() / expected.abs().max())
    if not worst <= ROUND_TRIP:
        raise Mismatch(
            f"the scheduler read back from its file differs from the plan by {worst:.2g} of the largest state; "
            "nothing was written. Save the plan with plan.save and report this"
        )


def told_time(process: GaussianProcess) -> ModelTime:
    """Return how diffusers' networks for `process` are told the time.

    Raises:
        InvalidInput: diffusers' pipelines have no such process.
    """
    if isinstance(process, Tabulated):
        return DiscreteIndex(len(process.alphas_cumprod))
    require(
        isinstance(process, RectifiedFlow),
        f"diffusers' pipelines run models of a table of alphas (Tabulated) and flows (RectifiedFlow), not {process.describe()}; "
        "compile the plan for the model's own process, from_diffusers(...).process",
    )
    return Continuous(FLOW_STEPS)


class PlanStepping:
    """What `PlanScheduler` does, before it is joined to the base classes of diffusers. States are (B, *)."""

    timesteps: Tensor
    _begin: int | None
    order = 1  # every call is a step of its own, as far as pipelines count

    def _take(self, plan: dict[str, Any] | None, prediction_type: str, num_train_timesteps: int) -> None:
        self.plan = _stored_plan(plan)
        if prediction_type not in PREDICTION_TYPES:
            raise InvalidInput(
                f"unknown prediction_type {prediction_type!r}. {nearest(prediction_type, PREDICTION_TYPES)}"
            )
        process = self.plan.process
        model_time, self.output = told_time(process), PREDICTION_TYPES[prediction_type]
        flow = isinstance(process, RectifiedFlow)
        require(
            flow == (prediction_type == "flow_prediction"),
            f"models for {process.describe()} do not have prediction_type {prediction_type!r}",
        )
        told = FLOW_STEPS if flow else len(process.alphas_cumprod)  # type: ignore[attr-defined]
        require(
            num_train_timesteps == told, f"num_train_timesteps must be {told} for this plan, got {num_train_timesteps}"
        )
        self._steps = Stepping(self.plan, self.output)
        self._offset = 0 if flow else 1
        rows = torch.tensor(self._steps.calls)
        self._told = model_time(process, self.plan.model_times.detach()[rows]).float()
        self._times = self.plan.times.detach()[rows]
        self._start_is_scaled = False
        self.set_timesteps()

    @classmethod
    def from_plan(cls, plan: Plan, output: Parameterisation | None = None) -> Any:
        """Return the scheduler of `plan` for a model with that `output`; see `to_diffusers` for the default.

        Raises:
            InvalidInput: diffusers has no models of this process, or none with this output.
        """
        flow = isinstance(plan.process, RectifiedFlow)
        output = output or (FlowVelocity() if flow else Noise())
        names = {kind: name for name, kind in PREDICTION_TYPES.items()}
        require(
            output in names,
            f"diffusers' models do not output {output.name}; choose from {', '.join(k.name for k in names)}",
        )
        require(
            not plan.event, "coefficients for each coordinate do not fit into a scheduler's configuration; use plan.run"
        )
        told_time(plan.process)
        steps = FLOW_STEPS if flow else len(plan.process.alphas_cumprod)  # type: ignore[attr-defined]
        made: Any = cls
        return made(plan=storage.to_dict(plan), prediction_type=names[output], num_train_timesteps=steps)

    @property
    def init_noise_sigma(self) -> float:
        """What a pipeline multiplies standard noise by: the standard deviation of the state the first call reads."""
        self._start_is_scaled = True
        return self._steps.start_sigma

    @property
    def step_index(self) -> int | None:
        """Number of the next call; None before the first."""
        return self._steps.place if self._running else None

    @property
    def begin_index(self) -> int | None:
        """Number of the call to begin with, where a pipeline has set one."""
        return self._begin

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Begin with that call, as image-to-image pipelines do; refused at the first step where the plan cannot."""
        self._begin = begin_index

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Any = None,
        sigmas: Any = None,
        mu: float | None = None,
    ) -> None:
        """Start a new run.

        Args:
            num_inference_steps: the plan's number of calls; another number is refused.
            device: where `timesteps` shall be.
            timesteps: refused, since the plan has its own.
            sigmas: refused, except the even spacing that flow pipelines pass on their own.
            mu: shift for the image size that flow pipelines pass on their own; a plan's times are final, so it is not used.

        Raises:
            InvalidInput: one of the arguments asks for another schedule.
        """
        calls = self.plan.calls
        require(
            timesteps is None and (sigmas is None or _evenly_spaced(sigmas)),
            "the plan in this scheduler has its own times: leave out timesteps= and sigmas=, or compile a plan on those times",
        )
        asked = num_inference_steps if sigmas is None else len(sigmas)
        require(
            asked is None or asked == calls,
            f"the plan in this scheduler makes {calls} network calls, not {asked}: pass num_inference_steps={calls}",
        )
        self.timesteps = self._told.to(device=device)
        self.num_inference_steps = calls
        self._begin = None
        self._running = False

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """Return `sample`: plans work in the state the network sees."""
        return sample

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> Any:
        """Return the state that the next call reads, or the result after the last call.

        Args:
            model_output: (B, *) what the network said; twice the channels where it predicts variances, which are not used.
            timestep: an entry of `timesteps`; it only finds the place of a run's first step.
            sample: (B, *) the state the network saw. Sums are in float32, or float64 for such states.
            eta: refused unless 0: the plan says how much noise is added.
            use_clipped_model_output: refused, as `eta`.
            generator: of the noise of stochastic plans.
            return_dict: with False a tuple ``(prev_sample,)``; else an object that also has `pred_original_sample`, the data
                prediction, or None where the output does not define one.

        Raises:
            InvalidInput: `eta` was given, the run is over, it cannot begin here, or its start was not scaled.
        """
        require(
            not eta and not use_clipped_model_output,
            "the plan in this scheduler fixes noise and clipping: leave out eta and use_clipped_model_output",
        )
        if not self._running:
            self._begin_run(timestep)
        wide = torch.promote_types(sample.dtype, torch.float32)
        x, m = sample.to(wide), _without_variance(model_output, sample).to(wide)
        data = self._steps.data(x, m) if return_dict and self._steps.place < self.plan.calls else None

        def draw(shape: torch.Size) -> Tensor:
            from diffusers.utils.torch_utils import randn_tensor

            return randn_tensor(tuple(shape), generator=generator, device=x.device, dtype=wide)

        after = self._steps.advance(x, m, draw).to(sample.dtype)
        if not return_dict:
            return (after,)
        from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput

        return DDIMSchedulerOutput(after, None if data is None else data.to(sample.dtype))

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return ``alpha x_0 + sigma eps`` for data and noise (B, *) at the states' times of `timesteps` (scalar or (B,))."""
        self._start_is_scaled = True
        t = torch.tensor([self._time(told) for told in timesteps.flatten().tolist()], dtype=torch.float64)
        alpha, sigma = (match(c, original_samples) for c in (self.plan.process.alpha(t), self.plan.process.sigma(t)))
        return alpha * original_samples + sigma * noise

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """Return what `add_noise` does, in the order of arguments of flow pipelines."""
        return self.add_noise(sample, noise, timestep)

    def __len__(self) -> int:
        config: Any = self.config  # type: ignore[attr-defined]
        return int(config.num_train_timesteps)

    def _begin_run(self, timestep: Any) -> None:
        place = self._begin
        if place is None:
            places = self._places(float(timestep))
            require(
                bool(places), f"{float(timestep):g} is none of this plan's timesteps; pass one of scheduler.timesteps"
            )
            place = next(filter(self._steps.can_begin, places), places[0])
        off = abs(self._steps.start_sigma - 1)
        require(
            place > 0 or self._start_is_scaled or off <= UNIT_NOISE,
            f"this plan starts at noise of standard deviation {self._steps.start_sigma:.6g}, but the pipeline did not ask for it. "
            "Start the plan's grid at t_max = 1, or multiply the latents by scheduler.init_noise_sigma yourself",
        )
        self._steps.restart(place)
        self._running = True

    def _places(self, told: float) -> list[int]:
        return [k for k, own in enumerate(self._told.tolist()) if own == told]

    def _time(self, told: float) -> float:
        """Return the time of the state at which the network is told `told`: the next such place of the run, if there is one."""
        places = self._places(told)
        now = self._steps.place if self._running else self._begin or 0
        ahead = [k for k in places if k >= now] or places
        return float(self._times[ahead[0]]) if ahead else (told + self._offset) / len(self)


@cache
def scheduler_class() -> Any:
    """Return `PlanScheduler`. It is made when it is first asked for, so that isocline does not load diffusers, nor need it."""
    try:
        from diffusers.configuration_utils import ConfigMixin, register_to_config
        from diffusers.schedulers.scheduling_utils import SchedulerMixin
    except ImportError as error:
        raise ExtraMissing("plans inside diffusers need it: pip install 'isocline[diffusers]'") from error

    class PlanScheduler(PlanStepping, SchedulerMixin, ConfigMixin):  # type: ignore[misc]
        """A scheduler for pipelines of diffusers that takes the steps of a plan.

        Written by `Plan.to_diffusers`, read by ``PlanScheduler.from_pretrained(folder)``. Its ``scheduler_config.json`` holds the
        whole plan. `set_timesteps` refuses another number of steps, and ``timesteps`` or ``sigmas`` of the caller's own; `step`
        takes all rows up to the next network call; `plan` is the plan, with the guidance scale it was made for.

        Args:
            plan: the plan as plain data.
            prediction_type: what the model outputs: "epsilon", "sample", "v_prediction" or "flow_prediction".
            num_train_timesteps: entries of the model's table; 1000 for flows.
            base_image_seq_len: like the next three, read by flow pipelines for a shift that a plan does not use.
            max_image_seq_len: see above.
            base_shift: see above.
            max_shift: see above.

        Raises:
            BadFile: the stored plan is damaged.
            InvalidInput: the plan is for a process or an output that diffusers' models do not have.
        """

        @register_to_config
        def __init__(
            self,
            plan: dict[str, Any] | None = None,
            prediction_type: str = "epsilon",
            num_train_timesteps: int = FLOW_STEPS,
            base_image_seq_len: int = 256,
            max_image_seq_len: int = 4096,
            base_shift: float = 0.5,
            max_shift: float = 1.15,
        ) -> None:
            self._take(plan, prediction_type, num_train_timesteps)

    PlanScheduler.__qualname__ = "PlanScheduler"
    return PlanScheduler


def __getattr__(name: str) -> Any:
    """Return `PlanScheduler` when it is asked for, and its base class, by which diffusers finds out how to load it."""
    if name == "PlanScheduler":
        return scheduler_class()
    if name == "SchedulerMixin":
        return next(base for base in scheduler_class().__mro__ if base.__name__ == name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _stored_plan(stored: dict[str, Any] | None) -> Plan:
    require(
        stored is not None,
        "a PlanScheduler needs a plan: write one with plan.to_diffusers(folder) and use PlanScheduler.from_pretrained(folder)",
    )
    try:
        return storage.from_dict(stored)  # type: ignore[arg-type]
    except (IsoclineError, KeyError, TypeError, ValueError) as error:
        raise BadFile(f"the plan in this scheduler's configuration is not usable: {error!r}; write it again") from error


def _evenly_spaced(sigmas: Any) -> bool:
    """Say whether `sigmas` are ``1, (n-1)/n, ..., 1/n``, which flow pipelines pass when the caller passes nothing."""
    n = len(sigmas)
    return all(abs(float(s) - (n - i) / n) < 1e-6 for i, s in enumerate(sigmas))


def _without_variance(output: Tensor, sample: Tensor) -> Tensor:
    """Return the first half of the channels of an output that also predicts variances."""
    if output.ndim > 1 and output.shape[1] == 2 * sample.shape[1]:
        return output[:, : sample.shape[1]]
    return output
