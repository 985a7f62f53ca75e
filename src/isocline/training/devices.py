"""Where training runs: one process by default; several devices and mixed precision through Lightning Fabric.

`train` talks to either through the few verbs of `Devices`. A Fabric object is made and launched by the caller:

    from lightning_fabric import Fabric

    fabric = Fabric(accelerator="auto", devices=2, precision="bf16-mixed")
    fabric.launch()
    train(network, batches, loss, settings, folder, fabric=fabric)

Every process draws its own share of the same global batch, so a run on two devices follows the curve of a run on one.
"""

from __future__ import annotations

import math
from dataclasses import is_dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from isocline._core.errors import ExtraMissing, InvalidInput, require
from isocline.optimizers import EvaluationOptimizer
from isocline.training.settings import Settings

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


def launched(devices: int = 1, precision: str = "32-true") -> Any:
    """Return a launched Lightning Fabric, or None where one process in float32 is asked for.

    With several devices the command that called this is started again for each of them, as Fabric does.

    Args:
        devices: how many; GPUs where there are any, else processes.
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``.

    Raises:
        ExtraMissing: Lightning Fabric is not installed.
    """
    require(devices >= 1, f"training needs at least 1 device, got {devices}")
    require(precision in PRECISIONS, f"precision is one of {', '.join(PRECISIONS)}, got {precision!r}")
    if devices == 1 and precision == "32-true":
        return None
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise ExtraMissing(
            "several devices and mixed precision need Lightning Fabric: pip install 'isocline[fabric]'"
        ) from error
    fabric = Fabric(accelerator="auto", devices=devices, precision=precision)  # type: ignore[arg-type]
    fabric.launch()
    return fabric


class Devices(Protocol):
    """What the training loop asks of the place it runs in."""

    rank: int
    count: int

    def setup(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Return both, ready to be trained."""

    def place(self, batch: Any) -> Any:
        """Return `batch` on this process's device."""

    def backward(self, loss: Tensor, network: nn.Module, last: bool) -> None:
        """Add gradients; processes meet in the `last` part of a step."""

    def clip(self, network: nn.Module, optimizer: torch.optim.Optimizer, norm: float) -> None:
        """Limit the gradient norm."""

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a scalar over processes."""

    def agree(self, flag: bool) -> bool:
        """Return rank 0's answer on every process."""


class Alone:
    """One process, the device the network is on."""

    rank, count = 0, 1

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device

    def setup(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Return both as they are."""
        return network, optimizer

    def place(self, batch: Any) -> Any:
        """Return `batch` on the network's device."""
        return moved(batch, self.device)

    def backward(self, loss: Tensor, network: nn.Module, last: bool) -> None:
        """Add gradients."""
        loss.backward()

    def clip(self, network: nn.Module, optimizer: torch.optim.Optimizer, norm: float) -> None:
        """Limit the gradient norm."""
        nn.utils.clip_grad_norm_(network.parameters(), norm)

    def mean(self, value: Tensor) -> Tensor:
        """Return `value`."""
        return value

    def agree(self, flag: bool) -> bool:
        """Return `flag`."""
        return flag


class OnFabric:
    """The processes of a launched Lightning Fabric."""

    def __init__(self, fabric: Any) -> None:
        missing = [name for name in ("setup", "backward", "all_reduce", "world_size") if not hasattr(fabric, name)]
        if missing:
            raise InvalidInput(f"fabric must be a lightning_fabric.Fabric, got {type(fabric).__name__}")
        self.fabric, self.rank, self.count = fabric, fabric.global_rank, fabric.world_size

    def setup(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Return Fabric's wrappers of both."""
        wrapped, stepper = self.fabric.setup(network, optimizer)
        return wrapped, stepper

    def place(self, batch: Any) -> Any:
        """Return `batch` on this process's device."""
        return moved(batch, self.fabric.device)

    def backward(self, loss: Tensor, network: nn.Module, last: bool) -> None:
        """Add gradients; gradients are exchanged only in the `last` part."""
        with self.fabric.no_backward_sync(network, enabled=not last):
            self.fabric.backward(loss)

    def clip(self, network: nn.Module, optimizer: torch.optim.Optimizer, norm: float) -> None:
        """Limit the gradient norm."""
        self.fabric.clip_gradients(network, optimizer, max_norm=norm, error_if_nonfinite=False)

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean over processes."""
        reduced: Tensor = self.fabric.all_reduce(value, reduce_op="mean")
        return reduced

    def agree(self, flag: bool) -> bool:
        """Return rank 0's answer on every process."""
        return bool(self.fabric.broadcast(flag))


def refuse_what_changes_the_method(
    optimizer: torch.optim.Optimizer, settings: Settings, devices: Devices, fabric: Any
) -> None:
    """Refuse what cannot be resumed, and settings under which an optimiser that evaluates a batch would be another method."""
    require(
        not isinstance(optimizer, torch.optim.LBFGS),
        "LBFGS calls its closure as often as it likes and cannot be resumed; call it directly on a whole batch",
    )
    if not isinstance(optimizer, EvaluationOptimizer):
        return
    name = type(optimizer).__name__
    require(
        settings.accumulate == 1,
        f"{name} evaluates the whole batch itself: its gradients cannot be accumulated; set accumulate=1",
    )
    require(
        settings.clip == math.inf,
        f"{name} takes its gradients inside of a step, where they cannot be clipped; set clip=math.inf",
    )
    scaler = getattr(getattr(getattr(fabric, "_strategy", None), "precision", None), "scaler", None)
    require(scaler is None, f"{name} cannot use scaled gradients; use precision 32-true or bf16-mixed")
    require(
        devices.count == 1 or not optimizer.own_gradients,
        f"{name} works on one device only: several processes would not exchange what it needs "
        "(PSGDNewton works on several with difference=1e-3)",
    )


def moved(batch: Any, device: torch.device | None) -> Any:
    """Return tensors, tuples, lists and dicts of them, and dataclasses with a method ``to``, on `device`."""
    if isinstance(batch, Tensor):
        return batch if device is None else batch.to(device)
    if isinstance(batch, tuple | list):
        return type(batch)(moved(item, device) for item in batch)
    if isinstance(batch, dict):
        return {key: moved(item, device) for key, item in batch.items()}
    if device is not None and is_dataclass(batch) and hasattr(batch, "to"):
        return batch.to(device)
    return batch
