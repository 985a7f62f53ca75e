"""
Order is visible
================

The data here are a mixture of Gaussians, whose denoiser is known in closed form. Nothing is trained, so what remains is the
error of the sampler alone: the distance between its samples and those of a run with very many steps from the same noise.

On logarithmic axes a method of order ``p`` falls along a line of slope ``-p``.
"""

import matplotlib.pyplot as plt
import torch

from isocline.plans.grids import log_snr
from isocline.plans.solvers import ddim, dpm_solver_pp_2m, heun
from isocline.processes import EDM, GaussianMixture

process = EDM(t_min=0.02, t_max=20.0)
model = GaussianMixture.smooth_bed(process)

# %%
# A teacher: Heun's method with far more steps than anybody would pay for.
start = process.terminal((256, 8), rng=0, dtype=torch.float64)
exact = heun(process, log_snr(process, 256)).run(model, start).x

# %%
# Three samplers at equal cost. Heun's method spends two network calls on a step, so it gets half the steps.
calls = [8, 16, 32, 64]
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for name, solver, per_step in [("DDIM", ddim, 1), ("DPM-Solver++ 2M", dpm_solver_pp_2m, 1), ("Heun", heun, 2)]:
    errors = []
    for n in calls:
        plan = solver(process, log_snr(process, n // per_step))
        assert plan.calls == n
        errors.append(float((plan.run(model, start).x - exact).square().mean().sqrt()))
    slope = torch.log2(torch.tensor(errors[-2] / errors[-1]))
    print(f"{name}: halving the step divides the error by 2^{slope:.2f}")
    axes.loglog(calls, errors, "o-", label=name)

axes.set(xlabel="network calls", ylabel="root mean square error", xticks=calls, xticklabels=calls)
axes.legend(frameon=False)

# %%
# The same sampler as data: every row says at which time the network is called and what becomes of its answers.
print(dpm_solver_pp_2m(process, log_snr(process, 4)).describe())
