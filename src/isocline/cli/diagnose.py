"""``isocline diagnose``: what training targets suit these data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from torch import Tensor

    from isocline.processes import Denoiser
    from isocline.recipes.diagnose import Diagnosis


def diagnose(
    source: Annotated[
        str, typer.Argument(help="Data (.npy or .csv, one datum a row), `digits`, or a model.safetensors.")
    ],
    seconds: Annotated[float, typer.Option(help="Time to train a model of the data.", min=1.0)] = 60.0,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the report.")] = Path("runs/diagnosis"),
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the diagnosis as JSON.")] = False,
) -> None:
    """Estimate the dimension and thickness of data, how targets blow up, and what to train.

    Writes `diagnosis.json` and `diagnosis.png`. Example: `isocline diagnose points.csv --seconds 30`
    """
    from isocline._core.estimate import Budget
    from isocline.recipes.diagnose import diagnose as run

    data, denoiser = _load(source, seed)
    found = run(data, denoiser=denoiser, budget=Budget(seconds=seconds), rng=seed)
    folder = found.save(out)
    if as_json:
        typer.echo(json.dumps(found.as_dict()))
        return
    for line in _lines(found):
        typer.echo(line)
    typer.echo(f"Report: {folder / 'diagnosis.json'}   Picture: {folder / 'diagnosis.png'}")


def _load(source: str, seed: int) -> tuple[Tensor, Denoiser | None]:
    from isocline.recipes.sources import load_array, model_samples

    if source == "digits":
        from isocline.datasets import load_digits

        return load_digits().all()[0], None
    if source.endswith(".safetensors"):
        return model_samples(source, 500, seed)
    return load_array(source), None


def _lines(found: Diagnosis) -> list[str]:
    thick = "not resolved" if found.thickness is None else str(found.thickness)
    advice = found.recommendation
    return [
        f"entries              {found.entries}, spread {found.spread:.3g}",
        f"intrinsic dimension  {found.intrinsic_dimension}  (floor of the weighted loss, at noise level {found.at_level:.3g})",
        f"                     {found.neighbours_dimension}  (nearest neighbours)",
        f"thickness            {thick}",
        *(f"slope of {name:12}{slope}  in t, at fixed points off the data" for name, slope in found.slopes.items()),
        f"train                {advice['formulation']}: target {advice['target']}, weight {advice['weight']}, "
        f"times {advice['time_law']}, {advice['preconditioning']} preconditioning",
        f"sample               {advice['grid']} grid down to noise level {advice['noise_level_min']:.3g}",
        f"because              {advice['why']}",
    ]
