r"""A network in bfloat16 or float16 inside a run that keeps its own precision.

The weights are cast once, in a copy. The state enters the network in half precision and its output returns in the
state's dtype, so preconditioning, conversions and the sampler's sums are untouched. The time is told in float32, since
bfloat16 has 8 bits, too few for an index up to 1000; autocast resolves layers that mix it with half-precision weights.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from isocline._core.errors import require
from isocline.processes.denoiser import Denoiser
from isocline.processes.wrapper import Wrapper


class HalfPrecision(Wrapper):
    """A copy of a denoiser whose network runs in half precision; it counts its own calls.

    Lower the denoiser that holds the network first, then guide or perturb it.

    Args:
        denoiser: made by `wrap` or `Preconditioned` around a torch module; it is left as it is.
        dtype: ``torch.bfloat16`` or ``torch.float16``.
    """

    def __init__(self, denoiser: Denoiser, dtype: torch.dtype = torch.bfloat16) -> None:
        require(dtype in (torch.bfloat16, torch.float16), f"half precision is bfloat16 or float16, got {dtype}")
        network: Any = getattr(denoiser, "network", None)
        kind, is_module = type(denoiser).__name__, isinstance(network, nn.Module)
        require(is_module, f"{kind} holds no torch module; pass a denoiser made around a torch.nn.Module")
        inner: Any = copy.copy(denoiser)
        inner.network, inner.calls, inner.vjps = Lowered(network, dtype), 0, 0
        super().__init__(inner)


class Lowered(nn.Module):
    """A copy of `network` with weights in `dtype`; states (B, *) enter and leave in their own dtype."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = copy.deepcopy(network).to(dtype), dtype

    def forward(self, x: Tensor, time: Tensor, *cond: Any) -> Tensor:
        """Call the network with the state in half precision and the time in float32."""
        with torch.autocast(x.device.type, dtype=self.dtype):
            return self.network(x.to(self.dtype), time.float(), *cond).to(x.dtype)
