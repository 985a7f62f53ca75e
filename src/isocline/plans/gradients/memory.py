"""How many bytes of tensors are alive at once: what a gradient mode costs in memory, measured and not estimated."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


class PeakBytes(TorchDispatchMode):
    """Measures, while it is entered, the largest number of bytes of tensors made inside that are alive at once.

    Saved activations, states, gradients and temporaries of the backward pass count alike; tensors made before do not. A storage
    is counted once, however many views it has. Slows every operation down: for measurements only.

    Attributes:
        peak: the largest number so far.
        now: bytes alive at present.

    Examples:
        >>> import torch
        >>> with PeakBytes() as meter:
        ...     kept = torch.zeros(100)
        ...     for _ in range(5):
        ...         lost = torch.zeros(1000)
        ...         del lost
        >>> meter.peak, meter.now
        (4400, 400)
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self.now = 0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the operation and count the storages it made."""
        out = func(*args, **(kwargs or {}))
        known = {id(x.untyped_storage()) for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for leaf in pytree.tree_leaves(out):
            if isinstance(leaf, Tensor) and id(leaf.untyped_storage()) not in known:
                self._count(leaf)
        return out

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._alive:
            return
        self._alive[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self.now -= self._alive.pop(key, 0)
