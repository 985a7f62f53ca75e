"""``isocline tune``: the best plan for a model and a budget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Optional

import typer

Text = Optional[str]  # noqa: UP045 - typer reads this form on Python 3.10


def tune(
    source: Annotated[
        Text,
        typer.Argument(help="A model.safetensors, a diffusers folder or module:name; the bundled model by default."),
    ] = None,
    calls: Annotated[
        str, typer.Option("--calls", "-n", help="Network calls of one run; several with commas: 4,6,8.")
    ] = "6",
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder of plans, report and search; or a .json file for one plan alone."),
    ] = Path("runs/tuned"),
    model: Annotated[Text, typer.Option(help="The same as the argument.")] = None,
    process: Annotated[Text, typer.Option(help="Of a torch module: vp, cosine, subvp, ve, edm or flow.")] = None,
    output: Annotated[
        str, typer.Option(help="Of a torch module: Data, Noise, VPrediction, FlowVelocity or Score.")
    ] = "Noise",
    shape: Annotated[Text, typer.Option(help="Of one datum, where the model does not say: 3,32,32.")] = None,
    classes: Annotated[int, typer.Option(help="Number of labels a torch module takes.", min=0)] = 0,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance scale; 1 is none.")] = 1.0,
    tuners: Annotated[Text, typer.Option(help='Names with commas: "GITS,end to end"; all by default.')] = None,
    seconds: Annotated[Optional[float], typer.Option(help="End the search in so many seconds.")] = None,  # noqa: UP045
    evaluations: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="End the search after so many network calls on a batch.", min=1),
    ] = None,
    noises: Annotated[str, typer.Option(help="Training, validation and held-out noises.")] = "64,64,256",
    statistic: Annotated[
        str, typer.Option(help="Plans are compared by the median or the rms of their distances to the teacher.")
    ] = "median",
    features: Annotated[
        Text, typer.Option(help="module:name of a function from samples to features, for Fréchet distances.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes to spread the search over, by Ray.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Find the best plan for a model and a number of network calls.

    Tries classical solvers, tuners without gradients and tuners with gradients; keeps the simplest plan that nothing beats, and
    reports its error on noises that nothing was fitted or chosen on. Run it again to continue an interrupted search.

    Examples: `isocline tune --calls 4,6,8,10`, `isocline tune my_package.models:load --process vp --shape 3,32,32 --calls 8`
    """
    from isocline._core.errors import require
    from isocline.recipes.family import entries_named, report, tune_family
    from isocline.recipes.importing import function_named, model_of, numbers, shape_of_text
    from isocline.recipes.portfolio import lines
    from isocline.recipes.tried import estimated
    from isocline.recipes.workers import on_ray, serially

    budgets, sizes, alone = numbers(calls, "--calls"), numbers(noises, "--noises"), out.suffix == ".json"
    require(len(sizes) == 3, f"--noises takes three numbers, got {noises!r}")
    require(not alone or len(budgets) == 1, f"several numbers of calls need a folder, not {out}")
    chosen, mapping = entries_named(tuners), serially if workers == 1 else on_ray(workers)
    opened = model_of(
        source or model,
        process=process,
        output=output,
        shape=shape_of_text(shape),
        classes=classes,
        guidance=guidance,
    )
    folder = out.with_suffix(".search") if alone else out
    found = tune_family(
        opened,
        budgets,
        folder,
        seed=seed,
        entries=chosen,
        sizes=(sizes[0], sizes[1], sizes[2]),
        statistic=statistic,  # type: ignore[arg-type]
        seconds=seconds,
        evaluations=evaluations,
        mapping=mapping,
        features=None if features is None else function_named(features),
    )
    for n, one in found.items():
        place = out if alone else folder / f"plan-{n}.json"
        if alone:
            one.plan.save(out)
        if as_json:
            continue
        for line in lines(one):
            typer.echo(f"  {line}")
        typer.echo(f"{n} calls: {one.name}")
        typer.echo(f"  best classical  {estimated(one.classical.errors, one.statistic)}")
        typer.echo(f"  chosen          {estimated(one.held_out.errors, one.statistic)}")
        typer.echo(f"  ratio           {one.ratio}   (held-out distance to the teacher, {one.statistic} over noises)")
        for name, distance in (one.distances or {}).items():
            typer.echo(f"  Fréchet distance, {name:9} {distance}")
        if not one.complete:
            typer.echo("  the budget ended before all tuners were tried; the same command continues")
        typer.echo(f"  plan            {place}")
    if as_json:
        typer.echo(json.dumps(report(found, seed, guidance)))
