"""What a piece of tensor code does, counted rather than timed: ATen calls, new storages, peak of live bytes."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


@dataclass
class Counts:
    """Counts of one run.

    Attributes:
        operations: ATen calls by name, views and metadata included.
        storages: storages that an operation made.
        peak: largest number of live bytes in such storages at any time.
    """

    operations: Counter[str] = field(default_factory=Counter)
    storages: int = 0
    peak: int = 0

    @property
    def total(self) -> int:
        """All ATen calls."""
        return sum(self.operations.values())


class _Watch(TorchDispatchMode):
    """Counts every call below autograd; a storage is new if no argument of the call had it."""

    def __init__(self) -> None:
        super().__init__()
        self.counts, self.live, self._sizes = Counts(), 0, {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the call, then look for storages that none of its arguments had."""
        given = {_storage(a) for a in tree_iter((args, kwargs or {})) if isinstance(a, Tensor)}
        out = func(*args, **(kwargs or {}))
        self.counts.operations[str(func)] += 1
        for value in tree_iter(out):
            if isinstance(value, Tensor) and (key := _storage(value)) not in given and key not in self._sizes:
                self._made(key, value)
        return out

    def _made(self, key: int, value: Tensor) -> None:
        storage = value.untyped_storage()
        self._sizes[key] = storage.nbytes()
        self.live += storage.nbytes()
        self.counts.storages += 1
        self.counts.peak = max(self.counts.peak, self.live)
        weakref.finalize(storage, self._freed, key)

    def _freed(self, key: int) -> None:
        self.live -= self._sizes.pop(key, 0)


def _storage(x: Tensor) -> int:
    return x.untyped_storage()._cdata


def count(run: Callable[[], object]) -> Counts:
    """Return what `run` does, temporaries inside single operations not included.

    >>> import torch
    >>> x = torch.zeros(8)
    >>> found = count(lambda: x.mul(2).add_(1))
    >>> dict(found.operations), found.storages, found.peak
    ({'aten.mul.Tensor': 1, 'aten.add_.Tensor': 1}, 1, 32)
    """
    watch = _Watch()
    with watch:
        kept = run()
    del kept
    return watch.counts
