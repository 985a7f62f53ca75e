r"""The adjoint of the probability-flow ODE in its own variables, ``x`` and ``t`` (Chen et al., arXiv 1806.07366).

    dx/dt = f x + k eps ,      da/dt = -f a - k a^T d eps / dx ,      dg/dt = -k a^T d eps / d(c, theta) ,      k = g^2 / (2
    sigma)

is what AdjointDPM starts from. Where ``sigma`` is close to 1 and the data prediction does not depend on the state, ``f + k /
sigma`` vanishes and nothing moves, while ``y = x / alpha`` still grows by orders of magnitude; so for variance-preserving
processes few explicit steps go further here than in ``(y, rho)``. For ``alpha = 1`` the two are the same equation in another
time.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from isocline._core.registry import Method
from isocline.plans.gradients.adjoint import Pulls
from isocline.plans.gradients.adjoint_dpm import AdjointDPM, Joint
from isocline.processes.gaussian import match

METHOD = Method(
    "neural-ode-adjoint",
    "Adjoint of the probability flow",
    "Neural Ordinary Differential Equations",
    "Ricky T. Q. Chen, Yulia Rubanova, Jesse Bettencourt, David Duvenaud",
    2018,
    "1806.07366",
    room="plans.gradients",
    when="As AdjointDPM; for variance-preserving processes and few steps of a method of low order.",
)


@METHOD.variant()
@dataclass(frozen=True)
class AdjointODE(AdjointDPM):
    """AdjointDPM without its change of variables; the same arguments. `uniform` and `quadratic` are grids that suit ``t``."""

    def _stretch(self, pulls: Pulls, state: Joint, times: Tensor) -> Joint:
        """Return ``(y, a, g...)`` at the last of rising `times`, from those at the first."""
        process = pulls.run.plan.process

        def slopes(t: Tensor, state: Joint) -> Joint:
            (x, a, *_), alpha = state, match(process.alpha(t), state[0])
            f, k = (match(v, x) for v in (process.drift(t), process.diffusion2(t) / (2 * process.sigma(t))))
            eps, pull, others = pulls(x / alpha, t, a)
            return (f * x + k * eps, -f * a - k * pull / alpha, *(-k * g for g in others))

        start, end = (match(process.alpha(t), state[0]) for t in (times[0], times[-1]))
        y, a, *g = state
        x, a, *g = self._integrated(slopes, (start * y, a / start, *g), times)
        return (x / end, end * a, *g)
