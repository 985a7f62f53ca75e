r"""The adjoint equation of diffusion sampling, in the unscaled state and the noise level.

With ``y = x / alpha`` and ``rho = sigma / alpha`` the probability-flow ODE is ``dy/drho = eps(alpha y, t(rho), c)``, and the
adjoint ``a = dL/dy = alpha dL/dx`` of any loss ``L`` of the sample obeys, from data to noise,

    dy/drho     =    eps
    da/drho     = -k a^T d eps / dy ,          a(rho_0) = alpha_0 dL/dx_0
    dg/drho     = -k a^T d eps / d(c, theta) , g(rho_0) = 0 ;     dL/dx_T = a(rho_T) / alpha_T ,  dL/d(c, theta) = g(rho_T)

with ``k = 1``. For the family of reverse SDEs with a share ``eta`` of fresh noise (``eta = 1``: the reverse SDE itself) the
noise is additive, so that the adjoint along a given path of noise is still an ODE, with ``k = 1 + eta``; only the states must
be those of that path.

Nothing of the network's inside outlives one evaluation. The gradient is that of the equation, not of the discrete sampler: the
two differ by the errors of both discretisations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils import _pytree as pytree

from isocline._core.errors import InvalidInput, require
from isocline.plans.gradients.run import Run
from isocline.plans.plan import Plan
from isocline.processes.gaussian import GaussianProcess, match


@dataclass
class Report:
    """What the backward pass of an adjoint mode found; given to `differentiable`, filled by ``backward``.

    Attributes:
        drift: how far the re-solved start lies from the true one, ``|y_back - y| / |y|`` at the noisy end; None where states
            are stored.
        evaluations: network calls of the backward pass, each with one vector-Jacobian product.
    """

    drift: float | None = None
    evaluations: int = 0


@dataclass(frozen=True)
class Kept:
    """What the forward pass leaves for the backward pass.

    Args:
        states: k+1 states (B, *) at `times`, from noise to data: all nodes, or only both ends.
        times: (k+1,) decreasing.
    """

    states: Sequence[Tensor]
    times: Tensor

    def unscaled(self, k: int, process: GaussianProcess) -> Tensor:
        """Return ``y = x / alpha`` at place `k`."""
        return self.states[k] / match(process.alpha(self.times[k]), self.states[k])


class Adjoint(Protocol):
    """An adjoint mode: what it keeps, and how it climbs from data to noise."""

    def keep(self, run: Run) -> Kept:
        """Sample without gradients and return what the backward pass needs."""
        ...

    def climb(self, pulls: Pulls, kept: Kept, a: Tensor, report: Report) -> tuple[Tensor, list[Tensor]]:
        """Return ``a`` at the noisy end and the gradients ``g`` of the leaves, from `a` at the end of the data."""
        ...


class Pulls:
    """Evaluates ``eps`` and its products ``a^T d eps / d(y, leaves)``, one network call and one product each time.

    Args:
        run: the run that is differentiated.
        cond: its condition, with leaves of its own where gradients are wanted.
        leaves: tensors besides the state that gradients are wanted for.
        report: counts the evaluations.
    """

    def __init__(self, run: Run, cond: Any, leaves: Sequence[Tensor], report: Report) -> None:
        self.run, self.cond, self.leaves, self.report = run, cond, leaves, report
        self.checked = False

    def __call__(self, y: Tensor, t: Tensor, a: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return ``eps``, ``a^T d eps / dy`` (B, *) and the products with the leaves, at unscaled states `y` (B, *)."""
        denoiser, alpha = self.run.denoiser, match(self.run.plan.process.alpha(t), y)
        self.report.evaluations += 1
        denoiser.vjps += 1
        with torch.enable_grad():
            x = (alpha * y).detach().requires_grad_()
            eps = denoiser.predict(x, t, self.cond).eps
            self._check(eps, x)
            found = torch.autograd.grad(eps, (x, *self.leaves), a, allow_unused=True, materialize_grads=True)
        return eps.detach(), alpha * found[0], [pull.to(y) for pull in found[1:]]

    def zeros(self, like: Tensor) -> list[Tensor]:
        """Return gradients of the leaves before the first step."""
        return [torch.zeros(leaf.shape, dtype=like.dtype, device=leaf.device) for leaf in self.leaves]

    def _check(self, eps: Tensor, x: Tensor) -> None:
        """Refuse a network that uses a parameter nobody named: its gradient would silently be missing."""
        if self.checked:
            return
        self.checked = True
        known = {id(leaf) for leaf in (x, *self.leaves)}
        for leaf in _graph_leaves(eps):
            if id(leaf) not in known:
                raise InvalidInput(
                    f"the network uses a parameter of shape {tuple(leaf.shape)} that its denoiser does not hold: pass "
                    "parameters=[...] with all tensors that need gradients, or use gradient=Checkpointed()"
                )


def _graph_leaves(out: Tensor) -> list[Tensor]:
    found, stack, seen = [], [out.grad_fn], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        stack.extend(parent for parent, _ in node.next_functions)
    return found


def through(adjoint: Adjoint, run: Run, report: Report) -> Tensor:
    """Return the samples (B, *) with gradients by `adjoint`."""
    leaves, spec = pytree.tree_flatten(run.cond)
    wanted = [k for k, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.requires_grad]
    given = (*(leaves[k] for k in wanted), *run.parameters)

    def fresh(tensors: Sequence[Tensor]) -> tuple[Any, tuple[Tensor, ...]]:
        """Return the condition with leaves of its own in place of the wanted tensors, and these with the parameters."""
        own = [tensor.detach().requires_grad_() for tensor in tensors[: len(wanted)]]
        replaced = [own[wanted.index(k)] if k in wanted else leaf for k, leaf in enumerate(leaves)]
        return pytree.tree_unflatten(replaced, spec), (*own, *run.parameters)

    return _Through.apply(adjoint, run, report, fresh, run.x, *given)


class _Through(torch.autograd.Function):
    """Samples forward; climbs the adjoint equation backward."""

    @staticmethod
    def forward(ctx: Any, adjoint: Adjoint, run: Run, report: Report, fresh: Any, x: Tensor, *given: Tensor) -> Tensor:
        kept = adjoint.keep(replace(run, x=x.detach()))
        ctx.adjoint, ctx.run, ctx.report, ctx.fresh, ctx.times = adjoint, run, report, fresh, kept.times
        ctx.count = len(kept.states)
        ctx.save_for_backward(*kept.states, *given)
        return kept.states[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        states, given = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        cond, leaves = ctx.fresh(given)
        kept, process = Kept(states, ctx.times), ctx.run.plan.process
        first, last = (match(process.alpha(t), grad) for t in (kept.times[0], kept.times[-1]))
        pulls = Pulls(ctx.run, cond, leaves, ctx.report)
        a, g = ctx.adjoint.climb(pulls, kept, last * grad, ctx.report)
        return (None, None, None, None, a / first, *(x.to(leaf) for x, leaf in zip(g, leaves, strict=True)))


def kept_ends(run: Run) -> Kept:
    """Sample and keep only the start and the samples."""
    out = run.plan.run(run.denoiser, run.x, cond=run.cond, rng=run.rng, noise=run.noise).x
    return Kept((run.x, out), run.plan.times[[0, -1]])


def kept_nodes(run: Run) -> Kept:
    """Sample and keep the states at the main nodes: of several at one time the last, which the next step starts from."""
    plan, found = run.plan, {0: run.x}
    places = [(plan.times == node).nonzero() for node in plan.nodes]
    require(all(len(place) for place in places), "the plan has no state at some of its nodes; states cannot be stored")
    last = [int(place[-1]) for place in places]
    for step in plan.iterate(run.denoiser, run.x, cond=run.cond, rng=run.rng, noise=run.noise):
        if step.row + 1 in last:
            found[step.row + 1] = step.x.clone()
    return Kept([found[k] for k in last], plan.nodes)


def check_continuous(plan: Plan, mode: str) -> None:
    """Refuse a plan that does not follow one equation from a finite noise level to a positive one."""
    require(plan.threshold is None, f"{mode}: no equation describes a plan's threshold; use Checkpointed()")
    falls = bool((plan.times.diff() <= 0).all())  # stages may go back and forth, noise may not
    require(
        falls or not plan.stochastic,
        f"{mode}: the times of this plan rise, so it follows no single path; use Checkpointed()",
    )
    first, last = plan.times[0], plan.times[-1]
    finite = float(plan.process.alpha(first)) > 0 and float(plan.process.sigma(last)) > 0
    require(
        finite,
        f"{mode} needs a finite noise level at both ends, but {plan.process.describe()} has none at t = {float(first):g} or "
        f"t = {float(last):g}; end the grid at t_min, start it a little later, or use Checkpointed()",
    )
