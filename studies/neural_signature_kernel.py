r"""Does a wide random network that reads a path have the neural signature kernel?

    python studies/neural_signature_kernel.py [--quick] [--json] [--picture FILE]

Cirone, Lemercier and Salvi (arXiv 2303.17671): the controlled residual network

    S_{k+1} = S_k + sum_j (A_j phi(S_k) / sqrt(N) + b_j) dx^j_k

with one set of Gaussian weights for all layers has ``<S(x), S(y)> / N -> K(x, y)`` as the width ``N`` and then the number of layers
grow, where ``K`` solves a Goursat problem. Two limits, looked at one after the other. At a fixed number of layers the limit of
infinite width is

    K_{i+1,j+1} = K_{i+1,j} + K_{i,j+1} - K_{ij} + (sA^2 V_phi(K_ii, K_ij, K_jj) + sb^2) <dx_i, dy_j> ,

the first-order scheme of the same problem (a second implementation, written here as loops over rows). Draws of the weights should
scatter about it like ``1 / sqrt(N)``, and it should tend to the library's kernel like one over the number of layers.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from isocline._core.stream import Stream
from isocline.timeseries.kernels import Activation, ControlledResNet, Identity, NeuralSignatureKernel, ReLU
from studies.verdict import Claim, Panel, Study, above, below, main, near, slope

NAMES: dict[str, Activation] = {"identity": Identity(), "ReLU": ReLU()}
LAYERS = 4  # dyadic: every interval of a path is cut into 16 layers
SETTINGS = {"initial": 1.0, "weight": 0.9, "bias": 0.4}


def two_paths() -> Tensor:
    """Return two random walks of four points in the plane, (2, 4, 2)."""
    return (0.5 * Stream(7, "paths").normal((2, 4, 2), dtype=torch.float64)).cumsum(1)


def entries(matrix: Tensor) -> np.ndarray:
    """Return ``K(x, x), K(x, y), K(y, y)``."""
    return matrix.flatten()[[0, 1, 3]].numpy()


def infinitely_wide(x: Tensor, activation: Activation, layers: int) -> np.ndarray:
    """Return the three entries for infinite width and ``2^layers`` layers in each interval."""
    dx = x.diff(dim=1).repeat_interleave(2**layers, 1) / 2**layers
    joint = torch.zeros(2, 2, dx.shape[1] + 1, dx.shape[1] + 1, dtype=x.dtype) + SETTINGS["initial"] ** 2
    a = torch.einsum("pic,qjc->pqij", dx, dx)
    for k in range(dx.shape[1]):  # rows and columns k of all four kernels; K(k, k) is there by then
        own = torch.stack([joint[p, p].diagonal()[: k + 1] for p in range(2)])
        for p in range(2):
            for q in range(2):
                grid, product = joint[p, q], a[p, q]
                row = (
                    SETTINGS["weight"] ** 2 * activation.moment(own[p, k], grid[k, : k + 1], own[q])
                    + SETTINGS["bias"] ** 2
                )
                column = (
                    SETTINGS["weight"] ** 2 * activation.moment(own[p], grid[: k + 1, k], own[q, k])
                    + SETTINGS["bias"] ** 2
                )
                grid[k + 1, 1 : k + 1] = grid[k, 1 : k + 1] + (row * product[k, : k + 1]).cumsum(0)[:-1]
                grid[1 : k + 1, k + 1] = grid[1 : k + 1, k] + (column * product[: k + 1, k]).cumsum(0)[:-1]
                grid[k + 1, k + 1] = grid[k + 1, k] + grid[k, k + 1] - grid[k, k] + row[-1] * product[k, k]
    return entries(joint[:, :, -1, -1])


@cache
def drawn(name: str, width: int, draws: int) -> np.ndarray:
    """Return the three entries of random networks, (draws, 3)."""
    x, network = two_paths(), ControlledResNet(width, NAMES[name], refine=LAYERS, **SETTINGS)
    states = [network(x, rng=seed) for seed in range(draws)]
    return np.stack([entries(s @ s.T / width) for s in states])


def deviation(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest distance of a mean over draws from what is expected, in standard errors."""
    error = found.std(0, ddof=1) / math.sqrt(len(found))
    return float((np.abs(found.mean(0) - expected) / error).max())


def fluctuation(name: str, width: int, draws: int) -> float:
    """Return the relative standard deviation over draws, root mean square over entries."""
    found = drawn(name, width, draws)
    return float(np.sqrt(np.mean((found.std(0, ddof=1) / found.mean(0)) ** 2)))


def wide(draws: int, width: int) -> list[Claim]:
    """The mean over draws, against the limit and against a wrong one."""
    x, out = two_paths(), []
    for name, activation in NAMES.items():
        z = deviation(drawn(name, width, draws), infinitely_wide(x, activation, LAYERS))
        out.append(
            below(
                f"{name}, {draws} draws of width {width}: distance of their mean from the limit, standard errors",
                z,
                3.0,
            )
        )
    wrong = deviation(drawn("ReLU", width, draws), infinitely_wide(x, Identity(), LAYERS))
    out.append(above("control: the same for ReLU networks and the identity's limit", wrong, 10.0))
    return out


def scatter(draws: int, widths: Sequence[int]) -> list[Claim]:
    """How draws scatter as the width grows."""
    out = []
    for name in NAMES:
        found = slope(widths, [fluctuation(name, width, draws) for width in widths])
        out.append(near(f"{name}: slope in N of the standard deviation over {draws} draws", found, -0.5, 0.15))
    return out


def depth_error(activation: Activation, layers: int) -> float:
    """Return the largest relative distance of the limit at some depth from the kernel."""
    kernel = NeuralSignatureKernel(activation, refine=9, **SETTINGS)
    limit = entries(kernel(two_paths()))
    return float(np.abs(infinitely_wide(two_paths(), activation, layers) / limit - 1).max())


def deep(levels: Sequence[int]) -> list[Claim]:
    """How the limit of infinite width tends to the kernel, and how fast the library's scheme does."""
    out, x = [], two_paths()
    for name, activation in NAMES.items():
        rate = slope([2**k for k in levels], [depth_error(activation, k) for k in levels])
        out.append(near(f"{name}: slope in the number of layers of the distance from the kernel", rate, -1.0, 0.15))
        kernel = NeuralSignatureKernel(activation, **SETTINGS)
        found = [entries(replace(kernel, refine=k)(x)) for k in (*levels, levels[-1] + 1)]
        steps = [float(np.abs(a - b).max()) for a, b in pairwise(found)]
        power = slope([2**k for k in levels], steps)
        out.append(
            near(f"{name}: slope of the difference between refinements of the library's scheme", power, -2.0, 0.15)
        )
    return out


def panels(draws: int, widths: Sequence[int], levels: Sequence[int]) -> list[Panel]:
    """What the picture shows."""
    width = {name: (widths, [fluctuation(name, n, draws) for n in widths]) for name in NAMES}
    depth = {name: ([2**k for k in levels], [depth_error(phi, k) for k in levels]) for name, phi in NAMES.items()}
    return [
        Panel("Draws of the weights", "width N", "relative deviation", width),
        Panel("Infinite width", "layers in an interval", "distance from the kernel", depth),
    ]


def study(quick: bool = False) -> Study:
    """Return the outcome."""
    widths, draws, levels = (25, 35, 50, 70, 100, 140, 200, 280, 400)[: 6 if quick else 9], 250, (4, 5, 6, 7)
    claims = wide(40 if quick else 50, 100 if quick else 400) + scatter(draws, widths) + deep(levels)
    return Study(claims, lambda: panels(draws, widths, levels))


if __name__ == "__main__":
    sys.exit(main("neural_signature_kernel", __doc__, study))
