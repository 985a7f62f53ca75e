"""Plans as readable, versioned JSON."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from isocline._core import files
from isocline._core.errors import BadFile, IsoclineError
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance
from isocline.plans.threshold import Threshold
from isocline.processes.naming import process_from_dict, process_to_dict
from isocline.processes.parameterisation import parameterisation_named

FORMAT = "isocline-plan"
VERSION = 1


def save(plan: Plan, path: str | Path) -> Path:
    """Write `plan` to `path`."""
    return files.write_json(path, to_dict(plan))


def load(path: str | Path) -> Plan:
    """Read the plan at `path`."""
    stored = files.read_json(path)
    try:
        return from_dict(stored)
    except IsoclineError as error:
        raise BadFile(f"{path} is not a usable plan: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise BadFile(f"{path} is not a usable plan: {type(error).__name__}: {error}") from error


def to_dict(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain data."""
    rows = [
        {"time": t, "told": told, "carry": a, "weights": b[: i + 1], "noise": c, "evaluate": e}
        for i, (t, told, a, b, c, e) in enumerate(
            zip(
                plan.times[:-1].tolist(),
                plan.model_times.tolist(),
                plan.carry.tolist(),
                plan.weights.tolist(),
                plan.noise.tolist(),
                plan.evaluate.tolist(),
                strict=True,
            )
        )
    ]
    return {
        "format": FORMAT,
        "version": VERSION,
        "process": process_to_dict(plan.process),
        "parameterisation": plan.parameterisation.name,
        "guidance": plan.guidance,
        "threshold": None if plan.threshold is None else asdict(plan.threshold),
        "calls": plan.calls,
        "nodes": plan.nodes.tolist(),
        "rows": rows,
        "end_time": plan.times[-1].item(),
        "provenance": plan.provenance.as_dict(),
    }


def from_dict(stored: dict[str, Any]) -> Plan:
    """Rebuild a plan from plain data."""
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise BadFile("it does not say that it holds an isocline plan")
    if stored["version"] > VERSION:
        raise BadFile(
            f"it has format version {stored['version']}, this isocline reads up to {VERSION}; update isocline"
        )
    rows, threshold = stored["rows"], stored.get("threshold")
    n = len(rows)
    return Plan(
        times=_column([*(row["time"] for row in rows), stored["end_time"]]),
        nodes=_column(stored["nodes"]),
        model_times=_column([row["told"] for row in rows]),
        carry=_column([row["carry"] for row in rows]),
        weights=_column([row["weights"] + [0.0] * (n - len(row["weights"])) for row in rows]),
        noise=_column([row["noise"] for row in rows]),
        evaluate=torch.tensor([bool(row["evaluate"]) for row in rows]),
        parameterisation=parameterisation_named(stored["parameterisation"]),
        process=process_from_dict(stored["process"]),
        provenance=Provenance.from_dict(stored["provenance"]),
        guidance=float(stored["guidance"]),
        threshold=None if threshold is None else Threshold(**threshold),
    )


def _column(values: list[Any]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)
