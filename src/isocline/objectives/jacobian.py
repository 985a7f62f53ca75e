r"""The size of a Jacobian as a penalty (Bai, Koltun and Kolter, arXiv 2106.14342).

For a map f of states z (B, d), with random signs or normals e of unit covariance,

    E |e^T df/dz|^2 = |df/dz|_F^2 ,

so one product with the transposed Jacobian estimates its Frobenius norm without bias (Hutchinson). Where f is the cell of an
equilibrium ``z = f(z)``, a small norm makes the solver contract, and fewer iterations are needed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline._core.stream import Stream, as_stream

METHOD = Method(
    "jacobian-penalty",
    "Jacobian regularisation of equilibrium models",
    "Stabilizing Equilibrium Models by Jacobian Regularization",
    "Bai, Koltun, Kolter",
    2021,
    "2106.14342",
    room="objectives",
    when="Deep equilibrium models whose solver takes ever more iterations as training goes on.",
)


@METHOD.variant()
def jacobian_penalty(
    function: Callable[[Tensor], Tensor], z: Tensor, *, rng: Stream | int, step: int, probes: int = 1
) -> Tensor:
    """Return an unbiased estimate of ``|df/dz|_F^2 / d``, averaged over the batch, shape ().

    Args:
        function: f, maps (B, *) to the same shape. Where samples are coupled, the cross terms are counted too.
        z: where the Jacobian is taken, (B, *). Gradients go through it where it has them; the authors' code detaches it.
        rng: source of the probes.
        step: number of the update.
        probes: how many products are averaged.

    Examples:
        >>> matrix = torch.tensor([[3.0, 0.0], [0.0, 4.0]])  # for a diagonal one, random signs are exact: (9 + 16) / 2
        >>> float(jacobian_penalty(lambda z: z @ matrix, torch.zeros(5, 2), rng=0, step=0))
        12.5
    """
    require(probes >= 1, f"the estimate needs at least one probe, got {probes}")
    stream = as_stream(rng, "jacobian")
    with torch.enable_grad():
        state = z if z.requires_grad else z.detach().requires_grad_()
        value = function(state)
        require(
            value.shape == state.shape, f"f maps {tuple(state.shape)} to {tuple(value.shape)}; it must keep the shape"
        )
        sizes = [_product(value, state, stream.child(k), step) for k in range(probes)]
    return torch.stack(sizes).mean()


def _product(value: Tensor, state: Tensor, stream: Stream, step: int) -> Tensor:
    """Return the mean square of ``e^T df/dz`` for one draw of signs e."""
    signs = stream.rademacher(tuple(value.shape), step=step, dtype=value.dtype).to(value.device)
    (found,) = torch.autograd.grad(value, state, signs, create_graph=True)
    return found.square().mean()
