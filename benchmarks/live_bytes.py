"""The peak of what tensors occupy, counted from outside: whatever holds a storage, graph or list, makes it count."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that operations made inside of it and that are still alive; `peak` is their largest sum.

    Dead storages are looked for whenever the number of operations since the last time exceeds a sixteenth of what is
    alive, so that the peak is found to about 6 percent.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = self.since = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in (out,) if isinstance(out, Tensor) else pytree.tree_leaves(out):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in self.alive:  # a weak reference keeps the address from being used again
                    self.alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.since += 1
        if self.since > max(16, len(self.alive) // 16):
            self.look()
        return out

    def look(self) -> None:
        """Forget what has been freed and update the peak."""
        self.since = 0
        self.alive = {key: entry for key, entry in self.alive.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.look()
        super().__exit__(kind, value, traceback)
