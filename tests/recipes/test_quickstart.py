import json
import re

import pytest
import torch

from isocline import Plan
from isocline._core.errors import CannotWrite
from isocline.plans.tuners import EndToEnd
from isocline.recipes.quickstart import quickstart
from tests.recipes import tiny


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart")
    found = quickstart(
        folder,
        calls=3,
        sizes=(4, 4, 6),
        tuner=EndToEnd(steps=4, batch=2, check_every=2),
        denoiser=tiny.model(),
        curve=(2, 3),
    )
    return folder, found


def test_the_report_holds_what_it_promises(result):
    folder, _ = result
    report = json.loads((folder / "report.json").read_text())
    assert {"rows", "best_classical", "tuned", "ratio", "versions", "seed"} <= set(report)
    assert all(set(row) == {"name", "calls", "error", "low", "high", "seconds"} for row in report["rows"])
    assert all(row["low"] <= row["error"] <= row["high"] for row in report["rows"])
    assert report["ratio"]["low"] <= report["ratio"]["value"] <= report["ratio"]["high"]
    assert report["tuned"]["calls"] == report["best_classical"]["calls"] == 3
    assert report["ratio"]["value"] == pytest.approx(report["tuned"]["error"] / report["best_classical"]["error"])
    assert report["held_out_noises"] == 6
    assert report["teacher"]["calls"] == 199
    assert {row["calls"] for row in report["rows"]} == {2, 3}


def test_the_page_is_one_file_without_a_network(result):
    assert (result[0] / "samples.png").read_bytes().startswith(b"\x89PNG")
    page = (result[0] / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert not re.findall(r"(?:src|href)=[\"']?(?:https?:)?//", page)
    assert "<script" not in page


def test_the_stored_plan_gives_the_reported_error(result):
    folder, found = result
    noises = found.outcome.calibration.held_out
    x = Plan.load(folder / "plan.json").run(tiny.model(), noises.x, cond=noises.cond).x
    errors = (x - noises.target).flatten(1).square().mean(1).sqrt()
    assert float(errors.median()) == pytest.approx(found.outcome.held_out.median().value, rel=1e-5)


def test_the_printed_seed_reproduces_the_plan(result, tmp_path):
    again = quickstart(
        tmp_path,
        calls=3,
        sizes=(4, 4, 6),
        tuner=EndToEnd(steps=4, batch=2, check_every=2),
        denoiser=tiny.model(),
        curve=(3,),
    )
    assert torch.equal(again.outcome.plan.weights, result[1].outcome.plan.weights)


def test_a_folder_that_cannot_be_made_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CannotWrite, match="choose another place"):
        quickstart(tmp_path / "file" / "below", denoiser=None)
