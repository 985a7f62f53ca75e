r"""Steady states ``f(y) = 0`` of dy/dt = f(y), and so fixed points ``y = g(y)``: take ``f = g - y``.

    Newton      y <- y - s J^{-1} f(y)                 J^{-1} f dense or by GMRES; s halved until |f| falls
    Anderson    y <- the combination of the last ``y_i + b f(y_i)`` for which the same combination of the f_i is smallest
    Relax       dy/dt = f(y) until |f| is small: finds the state that the dynamics goes to

``|f|`` is the root mean square over all entries. Gradients come from the implicit function theorem, not from the iteration.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, NotFinite, require
from isocline.integrators.controllers.base import Controller
from isocline.integrators.controllers.pid import PID
from isocline.integrators.events import Event
from isocline.integrators.gradients.implicit import Implicit, Krylov, Root, attached
from isocline.integrators.gradients.parameters import seen, tensors_of, with_tensors
from isocline.integrators.integrate import integrate
from isocline.integrators.methods.base import Method
from isocline.integrators.methods.dopri5 import Dopri5
from isocline.integrators.packing import Packing
from isocline.integrators.terms import Binding, Counter

Function = Callable[[Tensor], Tensor]


def rms(x: Tensor) -> float:
    """Return the root mean square of all entries."""
    return float(x.square().mean().sqrt())


class Finder(Protocol):
    """One way to find a zero."""

    def find(self, f: Function, y: Tensor, tolerance: float) -> tuple[Tensor, int]:
        """Return a state (n,) and how many iterations it took, from `y`, stopping where ``rms(f(y))`` is at most `tolerance`."""
        ...


@dataclass(frozen=True)
class Newton:
    """Newton's iteration with halved steps: few iterations from a good start; may find unstable steady states too.

    Args:
        most: cap on iterations.
        linear: solves the linear equations; products with the Jacobian come from a twofold reverse derivative.
    """

    most: int = 50
    linear: Krylov = field(default_factory=Krylov)

    def find(self, f: Function, y: Tensor, tolerance: float) -> tuple[Tensor, int]:
        """Return a state and the number of iterations."""
        value = f(y)
        for iteration in range(self.most):
            if not rms(value) > tolerance:
                return y, iteration
            step, _ = self.linear.solve(jacobian(f, y), value)
            moved = _shortened(f, y, step, rms(value))
            if moved is None:
                return y, iteration
            y, value = moved
        return y, self.most


def jacobian(f: Function, y: Tensor) -> Function:
    """Return ``v -> (df/dy) v`` at `y`, by differentiating ``u -> (df/dy)^T u``, which is linear."""
    with torch.enable_grad():
        own = y.detach().requires_grad_()
        value = f(own)
        require(value.requires_grad, "the field does not depend on the state: it has no isolated steady state")
        u = torch.zeros_like(value, requires_grad=True)
        (transposed,) = torch.autograd.grad(value, own, u, create_graph=True)
    return lambda v: torch.autograd.grad(transposed, u, v, retain_graph=True)[0]


def _shortened(f: Function, y: Tensor, step: Tensor, size: float) -> tuple[Tensor, Tensor] | None:
    """Return the first of the points ``y - step / 2^k`` where ``|f|`` is smaller; None where the step goes nowhere."""
    for k in range(20):
        there = y - step * 0.5**k
        value = f(there)
        if rms(value) < size:
            return there, value
    return None


@dataclass(frozen=True)
class Anderson:
    """Anderson's mixing: no derivatives, one evaluation an iteration; for maps ``y + f(y)`` that nearly contract.

    Source: Walker and Ni, SIAM J. Numer. Anal. 49 (2011) 1715.

    Args:
        memory: how many earlier states are combined.
        damping: b, the share of the residual that is added.
        most: cap on iterations.
    """

    memory: int = 5
    damping: float = 1.0
    most: int = 200

    def find(self, f: Function, y: Tensor, tolerance: float) -> tuple[Tensor, int]:
        """Return the best state and the number of iterations."""
        states, values = [y], [f(y)]
        best, size = y, rms(values[0])
        for iteration in range(self.most):
            if not size > tolerance:
                return best, iteration
            y = self._mixed(states, values)
            value = f(y)
            states, values = [*states, y][-self.memory - 1 :], [*values, value][-self.memory - 1 :]
            if rms(value) < size:
                best, size = y, rms(value)
        return best, self.most

    def _mixed(self, states: list[Tensor], values: list[Tensor]) -> Tensor:
        plain = states[-1] + self.damping * values[-1]
        if len(states) == 1:
            return plain
        dy = torch.stack([b - a for a, b in pairwise(states)], 1)
        df = torch.stack([b - a for a, b in pairwise(values)], 1)
        weights = torch.linalg.lstsq(df, values[-1][:, None], driver="gelsd").solution
        return plain - ((dy + self.damping * df) @ weights)[:, 0]


@dataclass(frozen=True)
class Relax:
    """Integrates until the field is small: finds the stable state that the start leads to.

    Args:
        method: makes the steps.
        controller: chooses them; PID with a tenth of the tolerance by default, as the field cannot be made smaller
            than errors allow.
        longest: time after which it gives up.
        most: cap on steps.
    """

    method: Method = field(default_factory=Dopri5)
    controller: Controller | None = None
    longest: float = 1e4
    most: int = 10_000

    def find(self, f: Function, y: Tensor, tolerance: float) -> tuple[Tensor, int]:
        """Return a state and the number of steps."""
        if not rms(f(y)) > tolerance:
            return y, 0
        still = Event(lambda t, x: f(x).square().mean().sqrt() - 0.99 * tolerance, direction=-1)
        controller = self.controller or PID(tolerance / 10, tolerance / 10)
        solution = integrate(
            lambda t, x: f(x),
            y,
            0.0,
            self.longest,
            method=self.method,
            controller=controller,
            events=still,
            max_steps=self.most,
        )
        return solution.y1, solution.stats.accepted


@dataclass(frozen=True)
class SteadyState:
    """What `steady_state` returns.

    Args:
        y: the state, in the structure of ``y0``; has gradients where the field's arguments or parameters have.
        residual: root mean square of ``f(y)``.
        ok: whether that is at most the tolerance.
        iterations: of the finder.
        nfe: evaluations of the field; products with its Jacobian are not counted.
    """

    y: Any
    residual: float
    ok: bool
    iterations: int
    nfe: int

    def check(self) -> SteadyState:
        """Return the result, or raise `NotFinite` with the way out where no steady state was found."""
        if not self.ok:
            raise NotFinite(
                f"no steady state was found: |f| is {self.residual:.1e} after {self.iterations} iterations; start nearer, "
                "loosen the tolerance, or pass another solver: Newton(), Anderson(damping=0.5), Relax()"
            )
        return self


def steady_state(
    function: Callable[..., Any],
    y0: Any,
    *,
    args: Any = None,
    t: float = 0.0,
    solver: Finder | None = None,
    gradient: Implicit | None = None,
    tolerance: float = 1e-8,
) -> SteadyState:
    """Return a state at which a vector field vanishes, with gradients for its arguments and parameters.

    Args:
        function: ``f(t, y)`` or, with `args`, ``f(t, y, args)``; returns the structure of ``y``. For a fixed point of
            g pass ``g - y``.
        y0: where the search starts; a real tensor or a structure of them. The result has no gradient for it.
        args: given to the field; tensors in it may need gradients.
        t: the time at which the field is taken.
        solver: `Newton` by default; `Anderson` or `Relax`.
        gradient: how the linear equation of the gradient is solved.
        tolerance: root mean square of the field at which the search stops.

    Returns:
        The state, its residual and cost. A failure is a value in it: see ``ok`` and ``check()``.

    Raises:
        InvalidInput: for complex states, or a tolerance that is not positive.

    Examples:
        >>> import torch
        >>> a = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
        >>> root = steady_state(lambda t, y, a: a - y**2, torch.tensor([1.0], dtype=torch.float64), args=a)
        >>> root.y.sum().backward()
        >>> round(root.y.item(), 6), round(float(a.grad), 6), root.ok  # sqrt(a) and 1 / (2 sqrt(a))
        (1.414214, 0.353553, True)
    """
    require(tolerance > 0, f"the tolerance of a steady state must be positive, got {tolerance}")
    mode = gradient or Implicit()
    packing = Packing.of(y0)
    packed = packing.pack(y0).detach()
    if packed.is_complex():
        raise InvalidInput("steady_state needs a real state: pass torch.view_as_real(y0)")
    time = torch.tensor(t, dtype=packed.dtype, device=packed.device)
    counter = Counter()

    def flat(y: Tensor, given: Any) -> Tensor:
        return Binding(given, packing, counter).call(function, time, y.reshape(packed.shape)).reshape(-1)

    with torch.no_grad():
        y, iterations = (solver or Newton()).find(lambda x: flat(x, args), packed.reshape(-1), tolerance)
        residual = rms(flat(y, args))
    nfe = counter.evaluations
    given = tensors_of(args)
    others = seen([function], args, mode.parameters)
    if torch.is_grad_enabled() and (given or others):
        y = attached(Root(flat, lambda fresh: with_tensors(args, fresh), len(given), mode), y, [*given, *others])
    return SteadyState(packing.unpack(y.reshape(packed.shape)), residual, residual <= tolerance, iterations, nfe)
