"""The benchmarks measure what they say: their truth, their betas, their figures and their verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import accuracy_page, our_samplers, peer_samplers, samplers_accuracy, which_sampler
from benchmarks.contenders import OURS, Contender, checked_run
from benchmarks.exact_beds import BEDS, ENDS, PROCESS, Bed, circle, mixture, problem
from isocline.processes.exact import GaussianMixture


def one_gaussian() -> GaussianMixture:
    return GaussianMixture(PROCESS, torch.tensor([[0.7, -0.4]], dtype=torch.float64), torch.tensor([0.3]))


def test_the_reference_is_the_closed_form_for_one_gaussian(tmp_path: Path) -> None:
    bed = Bed("one", "rms", one_gaussian)
    task = problem(bed, 16, 2, tmp_path)
    mean, std = bed.model.means[0], bed.model.stds[0]
    y, top = task.start / PROCESS.alpha(1.0), PROCESS.noise_level(1.0)
    for end, time in (("t_min", 1e-3), ("zero", 0.0)):
        low = PROCESS.noise_level(time) if time else torch.zeros((), dtype=torch.float64)
        exact = mean + (y - mean) * torch.sqrt((std**2 + low**2) / (std**2 + top**2))
        assert float((task.targets[end] - exact * PROCESS.alpha(time)).abs().max()) < 1e-9  # type: ignore[index]
    assert max(task.doubt.values()) < 1e-8


def test_a_stored_reference_is_read_and_belongs_to_its_bed(tmp_path: Path) -> None:
    first = problem(Bed("one", "rms", one_gaussian), 4, 1, tmp_path)
    again = problem(Bed("one", "rms", one_gaussian), 4, 1, tmp_path)
    other = problem(Bed("one", "rms", lambda: mixture(2, 3, seed=1)), 4, 1, tmp_path)
    assert torch.equal(first.targets["zero"], again.targets["zero"])
    assert not torch.equal(first.targets["zero"], other.targets["zero"])
    assert len(list(tmp_path.glob("references/*.json"))) == 2


def test_starts_are_fresh_for_each_seed_and_do_not_change_with_their_number(tmp_path: Path) -> None:
    one, two = (problem(Bed("one", "rms", one_gaussian), 4, seeds, tmp_path).start for seeds in (1, 2))
    assert torch.equal(one, two[:4])
    assert not bool((two[:4] == two[4:]).any())


@pytest.mark.parametrize("time", [1e-3, 0.01, 0.05, 0.2, 0.6, 1.0])
def test_the_cheap_circle_is_the_circle(time: float) -> None:
    cheap, plain = circle(), GaussianMixture.circle_bed(PROCESS)
    t = torch.tensor(time, dtype=torch.float64)
    x = 1.5 * PROCESS.perturb(plain.sample(64, 0), t, 1)[0]
    assert float((cheap(x, t) - plain(x, t)).abs().max()) < 5e-14


def test_trained_betas_put_index_n_at_its_time() -> None:
    alphas_cumprod = torch.cumprod(1 - torch.tensor(peer_samplers.trained_betas(), dtype=torch.float64), 0)
    times = torch.arange(1, 1001, dtype=torch.float64) / 1000
    assert float((alphas_cumprod - PROCESS.alpha(times) ** 2).abs().max()) < 1e-12


def test_every_solver_has_a_row_or_a_reason() -> None:
    assert our_samplers.not_listed() == []
    keys = [row.key for row in our_samplers.contenders()]
    assert len(keys) == len(set(keys))


def test_figures_leave_flips_out_and_count_them() -> None:
    found = samplers_accuracy.figures(torch.tensor([0.1, 0.2, 0.2, 0.9], dtype=torch.float64))
    assert found == {"rms": 0.4743, "median": 0.2, "calm": 0.1732, "flips": 1}


def test_a_contender_that_makes_other_calls_is_refused() -> None:
    bed = Bed("one", "rms", one_gaussian)
    lazy = Contender(OURS, "lazy", "t_min", lambda bed, x, calls: bed.model(x, torch.tensor(0.5, dtype=torch.float64)))
    start = torch.zeros(2, 2, dtype=torch.float64)
    assert checked_run(lazy, bed, start, 1) is not None
    with pytest.raises(RuntimeError, match="made 1 calls instead of 5"):
        checked_run(lazy, bed, start, 5)


def row(package: str, name: str, median: float, calm: float, flips: int) -> dict[str, Any]:
    cell = {"rms": calm, "median": median, "calm": calm, "flips": flips}
    return {"package": package, "name": name, "end": "t_min", "cells": {"5": {**cell, "seeds": [cell, cell]}}}


def report(*rows: dict[str, Any]) -> dict[str, Any]:
    named = {f"{r['package']} | {r['name']} | {r['end']}": r for r in rows}
    bed = {"figure": "median", "doubt": {"t_min": 1e-10, "zero": 1e-10}, "rows": named}
    return {"facts": accuracy_page.facts(8, 2, 0.3), "calls": [5], "beds": {"gmm2": bed}}


def test_a_column_is_lost_above_two_percent_and_says_to_whom() -> None:
    found = report(
        row(OURS, "mine", 1.019, 1.03, 0), row("azula", "theirs", 1.0, 1.0, 0), row("azula", "bad", 2.0, 2.0, 0)
    )
    (near,), (far,) = (list(accuracy_page.columns(found, "gmm2", "t_min", figure)) for figure in ("median", "calm"))
    assert near.holds
    assert not far.holds
    assert (far.ours["name"], far.peer["name"]) == ("mine", "theirs")
    text = accuracy_page.page(found)
    assert "In 1 of 2 columns" in text
    assert (
        "| 5 | RMS without flips | mine | 1.03e+00 | azula theirs | 1.00e+00 | 1.030 (1.030 to 1.030) | **no** |"
        in text
    )


def test_a_row_that_is_told_more_does_not_compete() -> None:
    found = report(
        row(OURS, "mine", 1.1, 1.0, 0), row(OURS, "x, analytic first step", 0.5, 0.5, 0), row("azula", "z", 1.0, 1.0, 0)
    )
    (column,) = accuracy_page.columns(found, "gmm2", "t_min", "median")
    assert (column.ours["name"], column.holds, column.informed) == ("mine", False, 0.5)


def test_leaving_most_samples_out_wins_nothing() -> None:
    found = report(
        row(OURS, "flipper", 5.0, 0.1, 1000), row(OURS, "calm", 0.9, 0.5, 3), row("azula", "theirs", 1.0, 0.6, 2)
    )
    (column,) = accuracy_page.columns(found, "gmm2", "t_min", "calm")
    assert column.ours["name"] == "calm"


def test_the_best_three_of_ours_are_chosen_by_the_figure_of_the_bed() -> None:
    part = {
        "figure": "median",
        "doubt": {},
        "rows": {
            f"{OURS} | {name} | t_min": {"4": [1.0, median, 1.0, 0]}
            for name, median in {"a": 0.4, "b": 0.1, "c": 0.3, "d": 0.2}.items()
        },
    }
    part["rows"]["azula | e | t_min"] = {"4": [0.0, 0.0, 0.0, 0]}  # type: ignore[index]
    part["rows"][f"{OURS} | empty | t_min"] = {"6": None}  # type: ignore[index]
    best = which_sampler.exact({"beds": {"gmm2": part}})["gmm2"]["ends"]["t_min"]
    assert [found["name"] for found in best["4"]] == ["b", "d", "c"]
    assert best["6"] == []


def test_beds_have_the_dimensions_they_are_named_by() -> None:
    assert {bed.name: bed.model.event for bed in BEDS} == {"circle16": (16,), "gmm2": (2,), "gmm64": (64,)}
    assert ENDS == ("t_min", "zero")
