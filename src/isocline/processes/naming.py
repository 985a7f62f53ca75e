"""Processes in files: a name and plain numbers, so that a plan can say what it was made for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from isocline._core.errors import InvalidInput, nearest, require
from isocline._core.files import finite
from isocline.processes.cosine import CosineVariancePreserving
from isocline.processes.edm import EDM
from isocline.processes.gaussian import GaussianProcess
from isocline.processes.poisson_flow import PoissonFlow
from isocline.processes.rectified_flow import RectifiedFlow
from isocline.processes.sub_variance_preserving import SubVariancePreserving
from isocline.processes.tabulated import Tabulated
from isocline.processes.variance_exploding import VarianceExploding
from isocline.processes.variance_preserving import VariancePreserving

PROCESSES: tuple[type[GaussianProcess], ...] = (
    EDM,
    VariancePreserving,
    CosineVariancePreserving,
    SubVariancePreserving,
    VarianceExploding,
    PoissonFlow,
    RectifiedFlow,
    Tabulated,
)
SAME = 1e-5  # relative; tables kept in float32 by other libraries differ from ours by about 1e-6


def process_to_dict(process: GaussianProcess) -> dict[str, Any]:
    """Return the process as JSON-safe plain values: its class name under ``name``, then its parameters.

    >>> process_to_dict(EDM())
    {'name': 'EDM', 't_min': 0.002, 't_max': 80.0}
    """
    require(type(process) in PROCESSES, f"{type(process).__name__} has no file form; use one of isocline's processes")
    found = {name: getattr(process, name) for name in _parameters(type(process))}
    return {"name": type(process).__name__} | {k: list(v) if isinstance(v, tuple) else v for k, v in found.items()}


def process_from_dict(stored: Mapping[str, Any]) -> GaussianProcess:
    """Return the process that `process_to_dict` stored; unknown names, parameters and non-finite numbers are refused.

    >>> process_from_dict({"name": "RectifiedFlow", "t_min": 0.001, "t_max": 1.0})
    RectifiedFlow(t_min=0.001, t_max=1.0)
    """
    given = dict(stored)
    name, table = given.pop("name", None), {kind.__name__: kind for kind in PROCESSES}
    if not isinstance(name, str) or name not in table:
        raise InvalidInput(f"unknown process {name!r}. {nearest(str(name), table)}")
    known = _parameters(table[name])
    for key, value in given.items():
        require(key in known, f"process {name} has no parameter {key!r}. {nearest(str(key), known)}")
        given[key] = _checked(value, known[key], f"process {name}: {key}")
    missing = [key for key in known if key not in given]
    require(not missing, f"process {name} lacks its parameter {', '.join(missing)}; write it with process_to_dict")
    return table[name](**given)


def same_process(a: GaussianProcess, b: GaussianProcess) -> bool:
    """Say whether `a` and `b` are of one kind with equal parameters (to a relative 1e-5).

    >>> same_process(EDM(), EDM(t_max=80.0001)), same_process(EDM(), EDM(t_max=50))
    (True, False)
    """
    if a == b:
        return True
    if type(a) is not type(b):
        return False
    return all(_close(getattr(a, name), getattr(b, name)) for name in _parameters(type(a)))


def _parameters(kind: type[GaussianProcess]) -> dict[str, bool]:
    """Return the parameters of a process and whether each is a list of numbers."""
    return {f.name: str(f.type).startswith("tuple") for f in fields(kind) if f.init}  # type: ignore[arg-type]


def _checked(value: Any, is_list: bool, place: str) -> Any:
    require(isinstance(value, list | tuple) == is_list, f"{place} must be {'a list' if is_list else 'one number'}")
    require(all(map(finite, value if is_list else [value])), f"{place} must be made of finite numbers")
    return tuple(value) if is_list else value


def _close(a: Any, b: Any) -> bool:
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(_close, a, b))
    return math.isclose(a, b, rel_tol=SAME)
