"""The folder of a search: its noises, and every plan that was tried, so that an interrupted search continues."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isocline._core import files
from isocline._core.errors import Mismatch
from isocline._core.estimate import Cost
from isocline.plans.plan import Plan
from isocline.plans.tuners import Calibration, NoiseSet
from isocline.recipes.diffusers import Conditions
from isocline.recipes.tried import Tried

SETS = ("train", "validation", "held_out")


class Store:
    """Keeps a search in a folder; with None nothing is kept.

    Args:
        folder: where.
        identity: plain data that say what is searched; a folder that holds another search is refused.

    Raises:
        Mismatch: the folder holds another search.
    """

    def __init__(self, folder: str | Path | None, identity: dict[str, Any]) -> None:
        self.folder = None if folder is None else files.ensure_folder(folder)
        if self.folder is None:
            return
        about = self.folder / "search.json"
        if about.exists():
            found = files.read_json(about)
            changed = [key for key in identity if found.get(key) != identity[key]]
            if changed:
                raise Mismatch(f"{self.folder} holds a search with another {', '.join(changed)}; choose another folder")
        files.write_json(about, identity)

    def calibration(self) -> Calibration | None:
        """Return the noises of an earlier run."""
        if self.folder is None or not (self.folder / "noises.safetensors").exists():
            return None
        tensors, _ = files.read_tensors(self.folder / "noises.safetensors")
        train, validation, held_out = (_noises(tensors, name) for name in SETS)
        return Calibration(train, validation, held_out, Plan.load(self.folder / "teacher.json"))

    def keep_calibration(self, calibration: Calibration) -> None:
        """Write noises, conditions (tensors or `Conditions`), targets and teacher."""
        if self.folder is None:
            return
        parts: dict[str, Tensor] = {}
        for name in SETS:
            found = getattr(calibration, name)
            parts |= {f"{name}.x": found.x, f"{name}.target": found.target}
            parts |= _flat(f"{name}.cond", found.cond.arguments if isinstance(found.cond, Conditions) else found.cond)
        calibration.teacher.save(self.folder / "teacher.json")
        files.write_tensors(self.folder / "noises.safetensors", parts)

    def recalled(self, name: str, number: int) -> Tried | None:
        """Return what an earlier run found for the entry `name` of a round."""
        place = self._place(name, number)
        if place is None or not place.exists():
            return None
        found = files.read_json(place)
        errors = found["errors"] and torch.tensor(found["errors"], dtype=torch.float64)
        plan = Plan.load(place.with_name(found["plan"])) if found["plan"] else None
        return Tried(name, number, plan, errors, Cost(**found["cost"]), found["reason"])

    def keep(self, one: Tried) -> None:
        """Write one plan with its validation errors; the plan first, so that what is listed is there."""
        place = self._place(one.name, one.round)
        if place is None or place.exists():
            return
        plan = place.with_suffix(".plan.json")
        if one.plan is not None:
            one.plan.save(plan)
        errors = None if one.errors is None else one.errors.tolist()
        files.write_json(
            place,
            {
                "name": one.name,
                "plan": plan.name if one.plan is not None else None,
                "errors": errors,
                "cost": asdict(one.cost),
                "reason": one.reason,
            },
        )

    def keep_result(self, plan: Plan) -> None:
        """Write the chosen plan."""
        if self.folder is not None:
            plan.save(self.folder / "plan.json")

    def _place(self, name: str, number: int) -> Path | None:
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        return None if self.folder is None else self.folder / f"{number}-{slug}.json"


def _noises(tensors: dict[str, Tensor], name: str) -> NoiseSet:
    cond = _nested(tensors, f"{name}.cond")
    return NoiseSet(
        tensors[f"{name}.x"], Conditions(**cond) if isinstance(cond, dict) else cond, tensors[f"{name}.target"]
    )


def _flat(name: str, value: Any) -> dict[str, Tensor]:
    """Return the tensors in nested dictionaries by their path, such as ``train.cond/added_cond_kwargs/time_ids``."""
    if isinstance(value, dict):
        return {key: leaf for k, v in value.items() for key, leaf in _flat(f"{name}/{k}", v).items()}
    return {} if value is None else {name: value.contiguous()}


def _nested(tensors: dict[str, Tensor], name: str) -> Any:
    """Return what `_flat` stored under `name`: None, a tensor or a dictionary."""
    inner = dict.fromkeys(key[len(name) + 1 :].split("/")[0] for key in tensors if key.startswith(f"{name}/"))
    return {key: _nested(tensors, f"{name}/{key}") for key in inner} if inner else tensors.get(name)
