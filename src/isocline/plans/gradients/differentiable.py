"""Two ways in: samples that any loss can be differentiated through, and the gradients of one loss at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from isocline._core.stream import Stream
from isocline.plans.gradients.adjoint import Report
from isocline.plans.gradients.exact import Checkpointed
from isocline.plans.gradients.run import PlanGradient, Run, parameters_of
from isocline.plans.plan import Plan
from isocline.processes import Denoiser


def differentiable(
    plan: Plan,
    denoiser: Denoiser,
    x: Tensor,
    *,
    gradient: PlanGradient | None = None,
    cond: Any = None,
    rng: Stream | int | None = None,
    noise: Sequence[Tensor] | None = None,
    parameters: Sequence[Tensor] | None = None,
    report: Report | None = None,
) -> Tensor:
    """Return samples (B, *) with gradients: with respect to `x`, to tensors in `cond` and to the network's parameters.

    Networks with dropout or batch statistics must be in evaluation mode: every mode but `Direct` calls them again.

    Args:
        plan: the sampler; for adjoint modes without threshold and without rising times.
        denoiser: a denoiser of the plan's process and guidance scale; of a guided one both branches are differentiated.
        x: start states (B, *) at the plan's first time.
        gradient: how gradients are had: `Checkpointed` by default, `Direct`, `AdjointDPM`, `AdjointDEIS`.
        cond: passed to the denoiser; any structure, of which tensors that require gradients get them.
        rng: stream or seed of the noise of stochastic plans; the numbers are those of `Plan.run`.
        noise: recorded noises, one (B, *) tensor a row, instead of `rng`.
        parameters: tensors the network depends on; found by `parameters_of` where they are not given.
        report: filled by the backward pass of adjoint modes.

    Raises:
        InvalidInput: an adjoint mode was given a plan that follows no equation, or (in the backward pass) the network uses a
            parameter that is not among `parameters`.
        Mismatch: plan and denoiser do not fit.

    Examples:
        >>> from isocline.plans import grids, solvers
        >>> from isocline.processes import EDM, GaussianMixture
        >>> model = GaussianMixture(EDM(), torch.zeros(1, 2, dtype=torch.float64), torch.ones(1))
        >>> plan = solvers.ddim(EDM(), grids.karras(EDM(), 10))
        >>> x = torch.full((1, 2), 80.0, dtype=torch.float64, requires_grad=True)
        >>> differentiable(plan, model, x).sum().backward()
        >>> round(float(x.grad[0, 0]), 3)  # the gradient of these ten steps; that of the equation is 0.012
        0.01
    """
    plan.check_fits(denoiser)
    held = parameters_of(denoiser) if parameters is None else tuple(parameters)
    run = Run(plan, denoiser, x, cond, rng, noise, held)
    return (gradient or Checkpointed()).sample(run, report or Report())


class Gradients(NamedTuple):
    """The gradients of one loss.

    Attributes:
        loss: its value.
        x: (B, *) with respect to the start states.
        cond: with respect to the condition, in its structure; None for what is not a floating-point tensor.
        parameters: one for each parameter.
        calls: network calls made, forward and backward.
        drift: see `Report`; None for exact modes and stored states.
    """

    loss: float
    x: Tensor
    cond: Any
    parameters: tuple[Tensor, ...]
    calls: int
    drift: float | None


def plan_gradient(
    plan: Plan,
    denoiser: Denoiser,
    x: Tensor,
    loss: Callable[[Tensor], Tensor],
    *,
    gradient: PlanGradient | None = None,
    cond: Any = None,
    rng: Stream | int | None = None,
    noise: Sequence[Tensor] | None = None,
    parameters: Sequence[Tensor] | None = None,
) -> Gradients:
    """Return the gradients of ``loss(samples)``, a number, with respect to all that the samples depend on.

    Nothing accumulates: ``.grad`` of the inputs is left alone. Arguments as in `differentiable`; the condition's tensors need not
    require gradients.

    Examples:
        >>> from isocline.plans import grids, solvers
        >>> from isocline.processes import EDM, GaussianMixture
        >>> model = GaussianMixture(EDM(), torch.zeros(1, 2, dtype=torch.float64), torch.ones(1))
        >>> plan = solvers.heun(EDM(), grids.karras(EDM(), 40))
        >>> found = plan_gradient(plan, model, torch.full((1, 2), 80.0, dtype=torch.float64), lambda x: x.sum())
        >>> round(float(found.x[0, 0]), 3), found.calls
        (0.013, 160)
    """
    start, before, report = x.detach().requires_grad_(), denoiser.calls, Report()
    leaves, spec = pytree.tree_flatten(cond)
    leaves = [v.detach().requires_grad_() if _real(v) else v for v in leaves]
    held = parameters_of(denoiser) if parameters is None else tuple(parameters)
    with torch.enable_grad():
        value = loss(
            differentiable(
                plan,
                denoiser,
                start,
                gradient=gradient,
                cond=pytree.tree_unflatten(leaves, spec),
                rng=rng,
                noise=noise,
                parameters=held,
                report=report,
            )
        )
    wanted = [v for v in leaves if _real(v)]
    found = torch.autograd.grad(value, [start, *wanted, *held], allow_unused=True, materialize_grads=True)
    told = iter(found[1 : 1 + len(wanted)])
    by_cond = pytree.tree_unflatten([next(told) if _real(v) else None for v in leaves], spec)
    return Gradients(
        float(value.detach()), found[0], by_cond, tuple(found[1 + len(wanted) :]), denoiser.calls - before, report.drift
    )


def _real(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()
