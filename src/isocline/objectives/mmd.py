r"""Maximum mean discrepancy between a batch of samples and a batch of data, as a loss.

    L = 1/(n(n-1)) sum_{i != j} k(f_i, f_j) + 1/(m(m-1)) sum_{i != j} k(g_i, g_j) - 2/(nm) sum_ij k(f_i, g_j)

for features ``f`` of samples and ``g`` of data: the unbiased estimate, so that its gradient is that of the discrepancy itself
at any batch size (Gretton et al., arXiv 0805.2368). The loss of one batch may be negative.
"""

from __future__ import annotations

from torch import Tensor

from isocline._core.errors import require
from isocline.metrics.mmd import Kernel


def mmd_loss(samples: Tensor, data: Tensor, kernel: Kernel) -> Tensor:
    """Return the unbiased ``MMD^2``, a scalar with gradient in both arguments.

    Args:
        samples: (n, d), at least two.
        data: (m, d), at least two.
        kernel: maps points (n, d) and (m, d) to (n, m), symmetric; see `isocline.metrics.mmd`.
    """
    enough = min(len(samples), len(data)) >= 2
    require(enough, f"the MMD needs at least two samples on each side, got {len(samples)} and {len(data)}")
    return _own(samples, kernel) + _own(data, kernel) - 2 * kernel(samples, data).mean()


def _own(x: Tensor, kernel: Kernel) -> Tensor:
    matrix, n = kernel(x, x), len(x)
    return (matrix.sum() - matrix.diagonal().sum()) / (n * (n - 1))
