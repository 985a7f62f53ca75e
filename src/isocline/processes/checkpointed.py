r"""Gradients through many network calls in the memory of one (gradient checkpointing; Chen et al., arXiv 1604.06174).

Of each call only the inputs are kept for the backward pass, which makes the call again when it needs what is inside. A run of ``n``
calls then holds ``n`` states and the activations of one call, for ``2 n`` calls in place of ``n``. Gradients come from the same
operations on the same numbers, so they are the same bits where the network is deterministic.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from isocline.processes.wrapper import Wrapper


class Checkpointed(Wrapper):
    """A denoiser that repeats a call in the backward pass instead of keeping its activations; the repetition counts as a call.

    Random numbers drawn inside the network are drawn again as they were. Calls without gradients are left as they are. Around a
    guided denoiser both its calls are repeated together; inside guidance each on its own, in half the memory.

    Args:
        inner: the denoiser that does the work.

    Examples:
        >>> from isocline.processes import EDM, Data, wrap
        >>> model = Checkpointed(wrap(lambda x, t: torch.sin(x), EDM(), Data()))
        >>> x = torch.zeros(1, 2, requires_grad=True)
        >>> torch.autograd.grad(model(x, torch.tensor(1.0)).sum(), x)[0], model.calls
        (tensor([[1., 1.]]), 2)
    """

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """Return the inner denoiser's output (B, *)."""
        if not torch.is_grad_enabled():
            return self.inner(x, t, cond)
        return cast(Tensor, checkpoint(self.inner, x, t, cond, use_reentrant=False))
