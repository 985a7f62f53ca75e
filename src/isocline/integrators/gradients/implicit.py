r"""Gradients of steady states from the implicit function theorem.

Where ``f(y*, theta) = 0``,

    dL/d theta = -(df/d theta)^T v ,        (df/dy)^T v = dL/dy* ,

so that the way to ``y*`` does not matter: memory is that of one evaluation. The linear equation is solved densely for
small states and otherwise by GMRES on products with the transposed Jacobian (Saad and Schultz, SIAM J. Sci. Stat.
Comput. 7 (1986) 856).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from isocline._core.errors import NotFinite
from isocline._core.registry import Method
from isocline.integrators.gradients.once import once
from isocline.integrators.gradients.parameters import Parameters, ends_of, refuse_hidden

METHOD = Method(
    "implicit-gradient",
    "Implicit gradient",
    "Deep Equilibrium Models",
    "Bai, Kolter, Koltun",
    2019,
    "1909.01377",
    room="integrators.gradients",
    when="Gradients of steady states and of fixed points, whatever found them.",
)

Linear = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Krylov:
    """Solves a linear equation of which only products are known.

    Args:
        tolerance: residual relative to the right-hand side at which GMRES stops.
        dense: equations of at most this many unknowns are solved with the whole matrix.
        restart: dimension of the Krylov space before it is started afresh.
        rounds: how often it may be.
    """

    tolerance: float = 1e-10
    dense: int = 64
    restart: int = 50
    rounds: int = 10

    def solve(self, apply: Linear, b: Tensor) -> tuple[Tensor, float]:
        """Return the solution of ``apply(x) = b`` for real `b`, shape (n,), and its residual relative to `b`."""
        size = float(b.norm())
        if size == 0.0:
            return torch.zeros_like(b), 0.0
        if b.numel() <= self.dense:
            matrix = torch.stack([apply(e) for e in torch.eye(b.numel(), dtype=b.dtype, device=b.device)], dim=1)
            x, info = torch.linalg.solve_ex(matrix, b)
            return x, float((matrix @ x - b).norm()) / size if int(info) == 0 else torch.inf
        bar = max(self.tolerance, 32 * torch.finfo(b.dtype).eps) * size
        x, rest = torch.zeros_like(b), b
        for _ in range(self.rounds):
            x = x + gmres(apply, rest, self.restart, bar)
            rest = b - apply(x)
            if float(rest.norm()) <= bar:
                break
        return x, float(rest.norm()) / size


@METHOD.variant()
@dataclass(frozen=True)
class Implicit:
    """Gradient of a steady state by one linear equation with the transposed Jacobian.

    Exact as far as the state is a zero: its error is that of the state times the condition of the Jacobian. Not for
    second derivatives. Source: Bai, Kolter and Koltun, arXiv 1909.01377.

    Args:
        linear: solves the equation.
        parameters: what the field depends on besides its arguments, tensors or a module; by default they are searched
            for in it.
    """

    linear: Krylov = field(default_factory=Krylov)
    parameters: Parameters = None


def gmres(apply: Linear, b: Tensor, restart: int, bar: float) -> Tensor:
    """Return an approximate solution of ``apply(x) = b``, shape (n,), from a Krylov space of at most `restart` dimensions.

    Stops where the residual falls below `bar`.

    >>> matrix = torch.tensor([[2.0, 1.0], [0.0, 4.0]], dtype=torch.float64)
    >>> gmres(lambda x: matrix @ x, torch.tensor([4.0, 8.0], dtype=torch.float64), 2, 1e-12).tolist()
    [1.0, 2.0]
    """
    size = b.norm()
    if float(size) <= bar:
        return torch.zeros_like(b)
    basis = [b / size]
    columns: list[Tensor] = []
    weights = torch.zeros(0, dtype=b.dtype, device=b.device)
    for k in range(min(restart, b.numel())):
        w = apply(basis[-1])
        stack = torch.stack(basis)
        column = stack @ w
        w = w - column @ stack
        again = stack @ w  # orthogonal to rounding only after a second pass
        w, column = w - again @ stack, column + again
        norm = w.norm()
        columns.append(torch.cat([column, norm[None]]))
        hessenberg = torch.zeros(k + 2, k + 1, dtype=b.dtype, device=b.device)
        for j, entries in enumerate(columns):
            hessenberg[: len(entries), j] = entries
        right = torch.zeros(k + 2, dtype=b.dtype, device=b.device)
        right[0] = size
        weights = torch.linalg.lstsq(hessenberg, right[:, None]).solution[:, 0]
        if float((hessenberg @ weights - right).norm()) <= bar or float(norm) <= 1e-14 * float(size):
            break
        basis.append(w / norm)
    return weights @ torch.stack(basis[: len(weights)])


@dataclass(frozen=True)
class Root:
    """A zero that was found, and how gradients are had of it.

    Args:
        function: ``(y flat, arguments) -> f(y)`` flat, both of shape (n,).
        rebuilt: ``tensors -> arguments``: the arguments made of other tensors.
        given: number of tensors that come from the arguments.
        mode: solves the linear equation.
    """

    function: Callable[[Tensor, Any], Tensor]
    rebuilt: Callable[[Sequence[Tensor]], Any]
    given: int
    mode: Implicit


class _Attach(torch.autograd.Function):
    """Gives a zero its gradients."""

    @staticmethod
    def forward(ctx: Any, root: Root, y: Tensor, *tensors: Tensor) -> Tensor:
        ctx.root = root
        found = y.clone()
        ctx.save_for_backward(found, *tensors)
        return found

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        root: Root = ctx.root
        y, *tensors = ctx.saved_tensors
        fresh = [x.detach().requires_grad_() for x in tensors[: root.given]]
        inputs = [*fresh, *tensors[root.given :]]
        own = y.detach().requires_grad_()
        with torch.enable_grad():
            f = root.function(own, root.rebuilt(fresh))
        refuse_hidden(ends_of([f], [own, *inputs]), "Implicit")

        def transposed(v: Tensor) -> Tensor:
            (out,) = torch.autograd.grad(f, (own,), v, retain_graph=True, allow_unused=True)
            return torch.zeros_like(v) if out is None else out

        with torch.no_grad():
            v, miss = root.mode.linear.solve(transposed, cotangent)
        if not miss <= max(1e-6, 100 * root.mode.linear.tolerance, 100 * torch.finfo(v.dtype).eps):
            raise NotFinite(
                f"Implicit: the linear equation with the Jacobian was solved to {miss:.0e} only; the Jacobian may be singular "
                "at this steady state, or pass Implicit(Krylov(restart=..., rounds=...)) with larger numbers"
            )
        grads = torch.autograd.grad(f, inputs, -v, allow_unused=True)
        return (None, None, *once(grads, [*tensors, cotangent], "Implicit"))


def attached(root: Root, y: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """Return the zero `y`, shape (n,), with gradients for the tensors: those from the arguments first."""
    out: Tensor = _Attach.apply(root, y, *tensors)
    return out
