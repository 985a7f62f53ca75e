"""Plans as readable, versioned JSON.

Coefficients for each coordinate are too many for text. They go into a safetensors file beside the JSON, whose name holds a digest
of its content and is written in the JSON. The JSON is replaced last, so a crash on the way leaves the old plan whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isocline._core import files
from isocline._core.errors import BadFile, IsoclineError, require
from isocline.plans.canonical import used
from isocline.plans.plan import Plan
from isocline.plans.provenance import Provenance
from isocline.plans.threshold import Threshold
from isocline.processes.naming import process_from_dict, process_to_dict
from isocline.processes.parameterisation import parameterisation_named

FORMAT = "isocline-plan"
VERSION = 2  # 1 knows neither constants nor coefficients for each coordinate; plans without them are still written as 1


def save(plan: Plan, path: str | Path) -> Path:
    """Write `plan` to `path`, and its coefficients for each coordinate, if it has any, to a file beside it."""
    path, stored = Path(path), to_dict(plan)
    before = _tables_of(path)
    if plan.event:
        tables = _tables(plan)
        stored["tables"] = f"{path.stem}.{_digest(tables)[:16]}.safetensors"
        files.write_tensors(path.parent / stored["tables"], tables)
    files.write_json(path, stored)
    if before is not None and before.name != stored.get("tables"):
        before.unlink(missing_ok=True)
    return path


def load(path: str | Path) -> Plan:
    """Read the plan at `path`."""
    path = Path(path)
    stored = files.read_json(path)
    try:
        return from_dict(stored, path.parent)
    except IsoclineError as error:
        raise BadFile(f"{path} is not a usable plan: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise BadFile(f"{path} is not a usable plan: {type(error).__name__}: {error}") from error


def to_dict(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain data; coefficients for each coordinate only by the outputs that each row uses."""
    plain = not plan.event and plan.constant is None
    coordinates = {"event": list(plan.event)} if plan.event else {}
    return {
        "format": FORMAT,
        "version": 1 if plain else VERSION,
        "process": process_to_dict(plan.process),
        "parameterisation": plan.parameterisation.name,
        "guidance": plan.guidance,
        "threshold": None if plan.threshold is None else asdict(plan.threshold),
        "calls": plan.calls,
        "nodes": plan.nodes.tolist(),
        **coordinates,
        "rows": _rows(plan),
        "end_time": plan.times[-1].item(),
        "provenance": plan.provenance.as_dict(),
    }


def _rows(plan: Plan) -> list[dict[str, Any]]:
    columns = {"time": plan.times[:-1].tolist(), "told": plan.model_times.tolist()}
    if plan.event:
        columns["uses"] = used(plan.weights.detach())
    else:
        weights = [b[: i + 1] for i, b in enumerate(plan.weights.tolist())]
        columns |= {"carry": plan.carry.tolist(), "weights": weights, "noise": plan.noise.tolist()}
        columns |= {} if plan.constant is None else {"constant": plan.constant.tolist()}
    columns["evaluate"] = plan.evaluate.tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def from_dict(stored: dict[str, Any], folder: Path | None = None) -> Plan:
    """Rebuild a plan from plain data; `folder` is where the coefficients for each coordinate are."""
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise BadFile("it does not say that it holds an isocline plan")
    if stored["version"] > VERSION:
        raise BadFile(
            f"it has format version {stored['version']}, this isocline reads up to {VERSION}; update isocline"
        )
    rows, threshold = stored["rows"], stored.get("threshold")
    columns = _wide_columns(stored, folder) if "event" in stored else _plain_columns(rows)
    return Plan(
        times=_column([*(row["time"] for row in rows), stored["end_time"]]),
        nodes=_column(stored["nodes"]),
        model_times=_column([row["told"] for row in rows]),
        evaluate=torch.tensor([bool(row["evaluate"]) for row in rows]),
        parameterisation=parameterisation_named(stored["parameterisation"]),
        process=process_from_dict(stored["process"]),
        provenance=Provenance.from_dict(stored["provenance"]),
        guidance=float(stored["guidance"]),
        threshold=None if threshold is None else Threshold(**threshold),
        **columns,
    )


def _plain_columns(rows: list[dict[str, Any]]) -> dict[str, Any]:
    n = len(rows)
    return {
        "carry": _column([row["carry"] for row in rows]),
        "weights": _column([row["weights"] + [0.0] * (n - len(row["weights"])) for row in rows]),
        "noise": _column([row["noise"] for row in rows]),
        "constant": _column([row["constant"] for row in rows]) if any("constant" in row for row in rows) else None,
    }


def _wide_columns(stored: dict[str, Any], folder: Path | None) -> dict[str, Any]:
    name, event, uses = str(stored["tables"]), tuple(stored["event"]), [row["uses"] for row in stored["rows"]]
    require(folder is not None and Path(name).name == name, f"its tables {name!r} must be a file beside it")
    tables = files.read_tensors(Path(folder or ".") / name)[0]
    require(
        _digest(tables)[:16] in name,
        f"its tables {name!r} hold something else; copy or write the plan again with both files",
    )
    n, places = len(uses), [(i, j) for i, row in enumerate(uses) for j in row]
    require(all(j in range(i + 1) for i, j in places), "a row may use the outputs of rows up to its own only")
    shapes = {"carry": (n, *event), "weights": (len(places), *event)}
    for key, shape in shapes.items():
        found = tuple(tables[key].shape)
        require(found == shape, f"its tables {name!r} need {key} of shape {shape}, got {found}")
    weights = torch.zeros(n, n, *event, dtype=torch.float64)
    for (i, j), weight in zip(places, tables["weights"], strict=True):
        weights[i, j] = weight
    noise = tables.get("noise", torch.zeros_like(tables["carry"]))
    return {"carry": tables["carry"], "weights": weights, "noise": noise, "constant": tables.get("constant")}


def _tables(plan: Plan) -> dict[str, Tensor]:
    """Return the coefficients for each coordinate that are not zero throughout; weights (terms, *event) row by row."""
    weights = plan.weights.detach()
    terms = [weights[i, j] for i, row in enumerate(used(weights)) for j in row]
    tables = {"carry": plan.carry, "weights": torch.stack(terms) if terms else weights[0, :0]}
    tables |= {"noise": plan.noise} if plan.stochastic else {}
    return tables if plan.constant is None else tables | {"constant": plan.constant}


def _digest(tables: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tables):
        digest.update(f"{name} {tuple(tables[name].shape)} {tables[name].dtype}".encode())
        digest.update(tables[name].detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _tables_of(path: Path) -> Path | None:
    """Return the tables of the plan that is already at `path`, if there is one."""
    try:
        name = files.read_json(path).get("tables", "")
    except (IsoclineError, AttributeError):
        return None
    ours = isinstance(name, str) and Path(name).name == name and name.startswith(f"{path.stem}.")
    return path.parent / name if ours and name.endswith(".safetensors") else None


def _column(values: list[Any]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
