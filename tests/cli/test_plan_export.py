"""``isocline plan export``: what it prints can be used as it is; what it refuses gets one line."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from isocline.cli import app as module
from isocline.plans import Stretch, Threshold, composite, grids, solvers
from isocline.plans.export import comfyui, k_diffusion
from isocline.processes import EDM, RectifiedFlow

EDM_TIMES = grids.karras(EDM(t_min=0.00001), 5, end="zero")
DDIM = solvers.ddim(EDM(), EDM_TIMES, eta=0.5).for_guidance(3.0)


def printed(*arguments: object) -> str:
    result = CliRunner().invoke(module.app, ["plan", "export", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return DDIM.save(tmp_path / "plan.json")


def test_json_for_k_diffusion_is_the_export(file: Path) -> None:
    found = json.loads(printed(file, "--to", "k-diffusion", "--json"))
    export = k_diffusion(DDIM)
    assert found == {
        "sampler": "sample_euler_ancestral",
        "sigmas": list(export.sigmas),
        "settings": {"eta": 0.5},
        "guidance": 3.0,
    }


def test_text_for_comfyui_names_the_node_and_gives_levels_without_exponents(file: Path) -> None:
    lines = dict(line.split(maxsplit=1) for line in printed(file, "--to", "comfyui").splitlines())
    assert lines == {
        "sampler": "euler_ancestral",
        "node": "SamplerEulerAncestral",
        "sigmas": comfyui(DDIM).text,
        "settings": "eta=0.5",
        "guidance": "3.0",
    }
    assert lines["sigmas"].endswith(", 0.00001, 0.0")


def test_text_for_k_diffusion_has_the_digits_of_float32(tmp_path: Path) -> None:
    file = solvers.heun(EDM(), EDM_TIMES).save(tmp_path / "plan.json")
    lines = dict(line.split(maxsplit=1) for line in printed(file, "--to", "k-diffusion").splitlines())
    assert lines["settings"] == "none"
    assert [float(s) for s in lines["sigmas"].split(", ")] == pytest.approx(EDM_TIMES.tolist(), rel=1e-8)


BAD: list[tuple[str, Callable[[Path], list[object]], str]] = [
    ("unknown program", lambda f: [DDIM.save(f), "--to", "k-diffuson"], r"exported to 'k-diffuson'. Did you mean 'k-diffusion'\?"),
    ("threshold", lambda f: [DDIM.with_threshold(Threshold()).save(f), "--to", "comfyui"], "thresholds data predictions"),
    (
        "several solvers",
        lambda f: [composite(EDM(), EDM_TIMES, [Stretch(solvers.heun, 2), Stretch(solvers.ddim)]).save(f), "--to", "comfyui"],
        "several solvers share the run",
    ),
    (
        "no signal",
        lambda f: [solvers.ddim(RectifiedFlow(), grids.uniform(RectifiedFlow(), 3)).save(f), "--to", "k-diffusion"],
        "finite noise levels",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_input_gets_one_line_and_exit_code_2(
    arguments: Callable[[Path], list[object]],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["isocline", "plan", "export", *map(str, arguments(tmp_path / "plan.json"))])
    with pytest.raises(SystemExit) as stopped:
        module.main()
    errors = capsys.readouterr().err.strip()
    assert stopped.value.code == 2
    assert errors.startswith("error: ")
    assert "\n" not in errors
    assert re.search(message, errors), errors
