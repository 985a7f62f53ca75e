r"""The deep operator network (Lu, Jin, Karniadakis, arXiv 1910.03193), unstacked and with a bias.

    G(a)(y) = sum_{k <= p} b_k(a) t_k(y) + b_0

The branch turns the input function into p coefficients, the trunk is a basis of p functions of the place y. With C outputs each has
its own p coefficients and its own p functions, cut out of one branch and one trunk. The paper's branch reads a at m fixed sensors.
A branch for point clouds is the integral

    b = rho(int phi(x, a(x)) dx) ,

a sum with quadrature weights, so that another set of points gives the same coefficients up to the error of the quadrature.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isocline._core.errors import require
from isocline._core.registry import Method
from isocline.networks.mlp import MLP

METHOD = Method(
    "deeponet",
    "deep operator network",
    "DeepONet: Learning Nonlinear Operators for Identifying Differential Equations Based on the Universal Approximation Theorem of "
    "Operators",
    "Lu, Jin, Karniadakis",
    2019,
    "1910.03193",
    room="networks",
    when="Outputs at any points from an input function at fixed sensors, or from a point cloud with weights.",
)


class SensorBranch(nn.Module):
    """A branch that reads the input function at fixed sensors.

    Args:
        sensors: m.
        inputs: channels of the input function.
        coefficients: what comes out, ``p * C`` for a `DeepONet`.
        width: size of each hidden layer.
        depth: number of hidden layers.
    """

    def __init__(self, sensors: int, inputs: int, coefficients: int, *, width: int = 128, depth: int = 3) -> None:
        super().__init__()
        self.shape = (sensors, inputs)
        self.network = MLP(sensors * inputs, coefficients, width=width, depth=depth, activation=nn.GELU)

    def forward(self, values: Tensor) -> Tensor:
        """Return the coefficients ``(B, coefficients)`` from the values at the sensors, ``(B, m, inputs)``.

        Raises:
            InvalidInput: another number of sensors or channels.
        """
        shape = tuple(values.shape[1:])
        require(shape == self.shape, f"the branch reads {self.shape} sensors and channels, got {shape}")
        result: Tensor = self.network(values.flatten(1))
        return result


class CloudBranch(nn.Module):
    """A branch that reads the input function at any points with quadrature weights.

    Args:
        dimension: of the space of the points.
        inputs: channels of the input function.
        coefficients: what comes out, ``p * C`` for a `DeepONet`.
        width: size of each hidden layer, and of the integral.
        depth: number of hidden layers of phi and of rho.
    """

    def __init__(self, dimension: int, inputs: int, coefficients: int, *, width: int = 128, depth: int = 2) -> None:
        super().__init__()
        self.phi = MLP(dimension + inputs, width, width=width, depth=depth, activation=nn.GELU)
        self.rho = MLP(width, coefficients, width=width, depth=depth, activation=nn.GELU)

    def forward(self, coordinates: Tensor, values: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
        """Return the coefficients ``(B, coefficients)``.

        Args:
            coordinates: points of all cases, ``(sum N, dimension)``.
            values: the input function there, ``(sum N, inputs)``.
            weights: quadrature weights, (sum N,); those of a case sum to the volume of its domain.
            offsets: where each case begins, and the end, ``(B + 1,)``.
        """
        terms = weights[:, None] * self.phi(torch.cat([coordinates, values], dim=1))
        case = torch.repeat_interleave(offsets.diff())
        integrals = terms.new_zeros(len(offsets) - 1, terms.shape[1]).index_add(0, case, terms)
        result: Tensor = self.rho(integrals)
        return result


@METHOD.variant()
class DeepONet(nn.Module):
    """A deep operator network around any branch.

    Args:
        branch: gives ``(B, p * C)`` coefficients; a `SensorBranch`, a `CloudBranch` or another module.
        dimension: D, of the places y.
        outputs: C.
        basis: p, functions for each output.
        width: size of each hidden layer of the trunk.
        depth: number of hidden layers of the trunk.

    Raises:
        InvalidInput: fewer than one output or basis function.

    Examples:
        >>> network = DeepONet(SensorBranch(20, 1, 16 * 2), 3, 2, basis=16)
        >>> network((torch.zeros(5, 20, 1),), torch.zeros(7, 3)).shape
        torch.Size([5, 7, 2])
    """

    def __init__(
        self, branch: nn.Module, dimension: int, outputs: int, *, basis: int, width: int = 128, depth: int = 3
    ) -> None:
        super().__init__()
        require(min(outputs, basis) >= 1, f"outputs and basis must be at least 1, got {outputs} and {basis}")
        self.shape = (basis, outputs)
        self.branch = branch
        trunk = MLP(dimension, basis * outputs, width=width, depth=depth, activation=nn.GELU)
        # as in the paper the last layer of the trunk has an activation too
        self.trunk = nn.Sequential(trunk, nn.GELU())
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, function: tuple[Tensor, ...], points: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Return ``G(a)(y)`` at points that all cases share, ``(B, Q, C)``, or at those of each case, ``(sum Q, C)``.

        Args:
            function: arguments of the branch.
            points: y, ``(Q, D)`` for all cases or ``(sum Q, D)`` laid one case after the other.
            offsets: where the points of each case begin, and the end, ``(B + 1,)``; None where all cases share them.

        Raises:
            InvalidInput: a branch with another number of coefficients, or offsets for another number of cases.
        """
        return self.combine(self.branch(*function), points, offsets)

    def combine(self, coefficients: Tensor, points: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Return what `forward` returns, for coefficients ``(B, p * C)`` that are known already."""
        size = self.shape[0] * self.shape[1]
        got = tuple(coefficients.shape)
        require(got[1:] == (size,), f"the branch must give {size} coefficients a case, got the shape {got}")
        b, t = coefficients.unflatten(1, self.shape), self.trunk(points).unflatten(1, self.shape)
        if offsets is None:
            return torch.einsum("bkc,qkc->bqc", b, t) + self.bias
        require(len(offsets) == got[0] + 1, f"{got[0]} cases need {got[0] + 1} offsets, got {len(offsets)}")
        return torch.einsum("qkc,qkc->qc", b[torch.repeat_interleave(offsets.diff())], t) + self.bias
