"""T3: the same samplers as diffusers 0.42, as plans.

Both sides are driven by one recorded list of random outputs, so nothing but the coefficients is compared: no network, no feedback.
diffusers computes in float32, hence the tolerance of 1e-5; its states live in ``x`` (DDIM, DPM-Solver++, DEIS) or in
``y = x / alpha`` (Euler, Heun). Index ``n`` of its table is our time ``(n + 1) / 1000``. Its table of noise levels suffers from
``1 - abar`` in float32, which costs up to 3e-4 at index 0; the multistep schedulers are therefore compared with our levels put
in their place, after a check that theirs agree as far as float32 goes.

What diffusers' DEIS is, by algebra: its second-order weights integrate ``(log rho - log c) / (log b - log c)`` over ``d rho``,
the third likewise with two factors. Those are Lagrange polynomials in ``log rho = -lam`` under the measure ``ds``: `lam_adams`,
not rho or t.

Where an exact match is impossible:

- Karras sigmas of DEIS repeat the last noise level, a step of length zero; plans have strictly decreasing nodes, so the comparison
  stops at the level before the repetition.
- diffusers lowers the order of the last steps only below 15 steps; `final_order=1` says the same for any number of steps. The
  default of DEIS and DPM-Solver++ differs from 15 steps on, where plans take `final_order=None`.
- diffusers rounds Karras sigmas to integer indices for what the network is told. The coefficients are exact, so recorded outputs
  agree; a real network would be told another time. The test compares coefficients only.
- diffusers' DDIM steps to index ``n - 1000 // N`` and, below 0, to ``alpha = 1`` (``set_alpha_to_one``): our grid then ends at
  time 0.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from isocline.plans import Plan, solvers
from isocline.processes import Data, GaussianProcess, Noise, Parameterisation, Tabulated, VPrediction
from tests.plans.helpers import Replay, normal

diffusers = pytest.importorskip("diffusers", minversion="0.42")

TABLES: dict[str, tuple[GaussianProcess, dict[str, Any]]] = {
    "linear": (Tabulated.linear_betas(), {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}),
    "scaled_linear": (
        Tabulated.scaled_linear_betas(),
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    ),
}
OUTPUTS: dict[str, Parameterisation] = {"epsilon": Noise(), "v_prediction": VPrediction(), "sample": Data()}

every_table = pytest.mark.parametrize("table", TABLES)
every_output = pytest.mark.parametrize("output", OUTPUTS)


def scheduler(name: str, table: str, output: str, steps: int, **settings: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = getattr(diffusers, name)(prediction_type=output, **TABLES[table][1], **settings)
    made.set_timesteps(steps)
    return made


def theirs(
    made: Any, outputs: list[Tensor], x: Tensor, extra: Callable[[int], dict[str, Any]] = lambda i: {}
) -> Tensor:
    """Return the end state of a scheduler fed with recorded outputs."""
    for i, t in enumerate(made.timesteps):
        made.scale_model_input(x, t)
        x = made.step(outputs[i], t, x, **extra(i)).prev_sample
    return x


def ours(plan: Plan, outputs: list[Tensor], x: Tensor, output: str, noise: list[Tensor] | None = None) -> Tensor:
    """Return the end state of a plan fed with the same outputs, in float64."""
    network = Replay([m.double() for m in outputs], plan.process, OUTPUTS[output])
    return plan.run(network, x.double(), noise=noise).x


def recorded(n: int) -> tuple[list[Tensor], Tensor]:
    return [normal(2, 3, seed=10 + i, dtype=torch.float32) for i in range(n)], normal(2, 3, dtype=torch.float32)


def agree(found: Tensor, expected: Tensor) -> None:
    scale = float(expected.abs().max())
    assert float((found - expected.double()).abs().max()) < 1e-5 * scale


def index_times(indices: Tensor | np.ndarray, end: float) -> Tensor:
    """Return our times for table indices, then the end."""
    times = (torch.as_tensor(np.asarray(indices), dtype=torch.float64) + 1) / 1000
    return torch.cat([times, torch.tensor([end], dtype=torch.float64)])


def with_levels(made: Any, process: GaussianProcess, times: Tensor) -> Any:
    """Put our noise levels into a multistep scheduler whose own agree to float32."""
    levels = process.noise_level(times)
    torch.testing.assert_close(made.sigmas.double(), levels, rtol=5e-4, atol=0)
    made.sigmas = levels
    return made


def level_times(process: GaussianProcess, sigmas: Tensor) -> Tensor:
    """Return our times of noise levels ``sigma / alpha``, the last of which may be 0."""
    return process.time_of_noise_level(sigmas.double())


@every_table
@every_output
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("to_one", [True, False])
def test_ddim(table: str, output: str, eta: float, to_one: bool) -> None:
    process, steps = TABLES[table][0], 8
    made = scheduler("DDIMScheduler", table, output, steps, clip_sample=False, set_alpha_to_one=to_one)
    outputs, x = recorded(steps)
    noise = [normal(2, 3, seed=50 + i, dtype=torch.float32) for i in range(steps)]
    indices = made.timesteps[:-1] if not to_one else made.timesteps
    # with set_alpha_to_one=False the last step, from index 0, goes to index 0 again and moves nothing but through its noise
    times = index_times(indices, 0.0 if to_one else 1 / 1000)
    plan = solvers.ddim(process, times, eta=eta)
    made.timesteps = indices
    expected = theirs(made, outputs, x, lambda i: {"eta": eta, "variance_noise": noise[i]} if eta else {})
    agree(ours(plan, outputs, x, output, [z.double() for z in noise[: len(indices)]]), expected)


@every_table
@every_output
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize(("steps", "final_order"), [(10, 1), (16, None)])
@pytest.mark.parametrize("end", ["zero", "sigma_min"])
def test_dpm_solver_pp(table: str, output: str, order: int, steps: int, final_order: int | None, end: str) -> None:
    process = TABLES[table][0]
    made = scheduler("DPMSolverMultistepScheduler", table, output, steps, solver_order=order, final_sigmas_type=end)
    outputs, x = recorded(steps)
    times = index_times(made.timesteps, 0.0 if end == "zero" else 1 / 1000)
    plan = multistep(order, process, times, final_order)
    agree(ours(plan, outputs, x, output), theirs(with_levels(made, process, times), outputs, x))


@every_table
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("output", ["epsilon", "v_prediction"])
def test_dpm_solver_pp_on_karras_sigmas(table: str, order: int, output: str) -> None:
    process, steps = TABLES[table][0], 9
    made = scheduler("DPMSolverMultistepScheduler", table, output, steps, solver_order=order, use_karras_sigmas=True)
    outputs, x = recorded(steps)
    plan = multistep(order, process, level_times(process, made.sigmas), 1)
    agree(ours(plan, outputs, x, output), theirs(made, outputs, x))


def multistep(order: int, process: GaussianProcess, times: Tensor, final_order: int | None) -> Plan:
    if order == 1:
        return solvers.dpm_solver_pp_1(process, times)
    compile = solvers.dpm_solver_pp_2m if order == 2 else solvers.dpm_solver_pp_3m
    return compile(process, times, final_order=final_order)


@every_table
@pytest.mark.parametrize("output", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize(("steps", "final_order"), [(10, 1), (16, None)])
def test_deis_is_adams_in_log_snr(table: str, output: str, order: int, steps: int, final_order: int | None) -> None:
    process = TABLES[table][0]
    made = scheduler("DEISMultistepScheduler", table, output, steps, solver_order=order)
    outputs, x = recorded(steps)
    times = index_times(made.timesteps, 1 / 1000)
    plan = solvers.lam_adams(process, times, order=order, final_order=final_order)
    agree(ours(plan, outputs, x, output), theirs(with_levels(made, process, times), outputs, x))
    other = solvers.rho_adams(process, times, order=order, final_order=final_order)
    assert (order == 1) == plan.equivalent(other, 1e-6)


def test_deis_on_karras_sigmas_up_to_the_repeated_level() -> None:
    process, steps = TABLES["linear"][0], 16
    made = scheduler("DEISMultistepScheduler", "linear", "epsilon", steps, solver_order=3, use_karras_sigmas=True)
    outputs, x = recorded(steps)
    assert float(made.sigmas[-1]) == float(made.sigmas[-2])
    made.timesteps = made.timesteps[:-1]
    plan = solvers.lam_adams(process, level_times(process, made.sigmas[:-1]))
    agree(ours(plan, outputs, x, "epsilon"), theirs(made, outputs, x))


@every_table
@pytest.mark.parametrize("output", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("karras", [False, True])
@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "HeunDiscreteScheduler"])
def test_euler_and_heun(table: str, output: str, karras: bool, name: str) -> None:
    process, steps = TABLES[table][0], 7
    made = scheduler(name, table, output, steps, use_karras_sigmas=karras, timestep_spacing="linspace")
    compile = solvers.euler if name.startswith("Euler") else solvers.heun
    sigmas = made.sigmas if name.startswith("Euler") else torch.cat([made.sigmas[:1], made.sigmas[1::2]])
    times = level_times(process, sigmas)
    plan = compile(process, times)
    outputs, y = recorded(plan.calls)
    found = ours(plan, outputs, y.double() * process.alpha(times[0]), output) / process.alpha(times[-1])
    agree(found, theirs(made, outputs, y))
