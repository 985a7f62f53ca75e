"""The networks that `isocline operator train` offers, made for a data set."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from isocline._core.errors import nearest, require
from isocline.datasets.fields import DataSpec
from isocline.networks import FNO, T1, ConvNeXtUNet, DeepCFD, GridUNet
from isocline.networks.tucker import factorised_fno
from isocline.operators.models import Make

MODES = {1: 16, 2: 12, 3: 8}  # frequencies an axis, as in the FNO's paper
LEVELS = 4
MESSAGE_PASSING = "message-passing"  # an operator model of its own, no network on a grid


def architecture(name: str, spec: DataSpec, width: int) -> Make:
    """Return what makes the network of a name for a data set.

    Args:
        name: ``unet``, ``convnext``, ``fno``, ``tfno`` (factorised), ``t1``, or ``deepcfd`` for steady flows in the plane.
        spec: the data; their axes, grid and boundaries decide.
        width: channels inside; of ``deepcfd`` those of the finest level, 8 in its paper.

    Raises:
        InvalidInput: there is no such name, the data lie on scattered points, or they are not what ``deepcfd`` is for.
    """
    require(
        name in _ARCHITECTURES, f"there is no network {name!r}. {nearest(name, (*_ARCHITECTURES, MESSAGE_PASSING))}"
    )
    require(spec.grid == "cartesian", f"{spec.name} lies on scattered points; {name} needs a grid")
    return _ARCHITECTURES[name](spec, width)


def takes_condition(name: str) -> bool:
    """Say whether a network takes a condition as a vector."""
    return name in ("unet", "convnext")


def _unet(spec: DataSpec, width: int) -> Make:
    def make(inputs: int, outputs: int, conditions: int) -> nn.Module:
        how = {"levels": _levels(spec), "conditions": conditions, "periodic": _periodic(spec)}
        return GridUNet(inputs, outputs, len(spec.axes), width=width, **how)  # type: ignore[arg-type]

    return make


def _convnext(spec: DataSpec, width: int) -> Make:
    def make(inputs: int, outputs: int, conditions: int) -> nn.Module:
        how = {"levels": _levels(spec, 3), "conditions": conditions, "periodic": _periodic(spec)}
        return ConvNeXtUNet(inputs, outputs, len(spec.axes), width=width, **how)  # type: ignore[arg-type]

    return make


def _fno(spec: DataSpec, width: int, operator: Callable[..., nn.Module] = FNO) -> Make:
    def make(inputs: int, outputs: int, conditions: int) -> nn.Module:
        modes = tuple(min(MODES[len(spec.axes)], (n + 1) // 2) for n in spec.resolution)
        return operator(inputs, outputs, modes, width=width, padding=0.0 if _periodic(spec) else 0.125)

    return make


def _tfno(spec: DataSpec, width: int) -> Make:
    return _fno(spec, width, factorised_fno)


def _t1(spec: DataSpec, width: int) -> Make:
    def make(inputs: int, outputs: int, conditions: int) -> nn.Module:
        modes = tuple(min(2 * MODES[len(spec.axes)], n) for n in spec.resolution)
        return T1(inputs, outputs, modes, spec.resolution, width=width)

    return make


def _deepcfd(spec: DataSpec, width: int) -> Make:
    steady = len(spec.axes) == 2 and spec.times == 1
    require(
        steady, f"deepcfd is for steady fields in the plane; {spec.name} has {len(spec.axes)} axes, {spec.times} frames"
    )
    levels = min(LEVELS, min(spec.resolution).bit_length() - 1)

    def make(inputs: int, outputs: int, conditions: int) -> nn.Module:
        return DeepCFD(inputs, (1,) * outputs, filters=(width, 2 * width, 4 * width, 4 * width)[:levels])

    return make


_ARCHITECTURES: dict[str, Callable[[DataSpec, int], Make]] = {
    "unet": _unet,
    "convnext": _convnext,
    "fno": _fno,
    "tfno": _tfno,
    "t1": _t1,
    "deepcfd": _deepcfd,
}


def _periodic(spec: DataSpec) -> bool:
    return all(kind == "periodic" for kind in spec.boundary)


def _levels(spec: DataSpec, least: int = 1) -> int:
    """Return how many levels a grid allows, at most four."""
    levels = 1
    while levels < LEVELS and all(n % 2**levels == 0 and n // 2**levels >= least for n in spec.resolution):
        levels += 1
    return levels
