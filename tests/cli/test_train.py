import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from isocline._core import files
from isocline.cli.app import app

SMALL = ["--steps", "40", "--batch", "32", "--width", "16", "--depth", "1"]


def points(folder):
    angle = 2 * torch.pi * torch.rand(300, 1, generator=torch.Generator().manual_seed(0))
    path = folder / "points.npy"
    np.save(path, torch.cat([5 * angle.cos(), 5 * angle.sin()], dim=1).numpy())
    return path


def isocline(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


def curve(folder):
    with (folder / "loss.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def test_own_data_train_and_sample_in_their_own_unit(tmp_path):
    source, run, out = points(tmp_path), tmp_path / "run", tmp_path / "samples.csv"
    assert "40 steps, loss" in isocline("train", "data", source, "--out", run, *SMALL).stdout
    model = run / "model.safetensors"
    assert "25 samples, 5 calls" in isocline("sample", "-n", 5, "--model", model, "--count", 25, "--out", out).stdout
    assert np.loadtxt(out, delimiter=",").shape == (25, 2)


def test_a_trained_model_can_be_diagnosed(tmp_path):
    run = tmp_path / "run"
    isocline("train", "data", points(tmp_path), "--out", run, *SMALL)
    printed = isocline("diagnose", run / "model.safetensors", "--out", tmp_path / "diagnosis", "--json").stdout
    assert {"intrinsic_dimension", "thickness", "slopes", "recommendation"} <= set(json.loads(printed))


def test_a_run_out_of_time_says_so_and_continues(tmp_path):
    source, run = points(tmp_path), tmp_path / "run"
    first = isocline("train", "data", source, "--out", run, *SMALL, "--seconds", 1e-3).stdout
    assert "of 40 steps; the same command continues" in first
    whole = tmp_path / "whole"
    isocline("train", "data", source, "--out", run, *SMALL)
    isocline("train", "data", source, "--out", whole, *SMALL)
    resumed, straight = (files.read_tensors(folder / "model.safetensors")[0] for folder in (run, whole))
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)


def test_tensorboard_logs_are_written(tmp_path):
    pytest.importorskip("tensorboard")
    isocline("train", "data", points(tmp_path), "--out", tmp_path / "run", *SMALL, "--tensorboard")
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


def test_pictures_of_vectors_are_refused(tmp_path):
    isocline("train", "data", points(tmp_path), "--out", tmp_path / "run", *SMALL)
    model = tmp_path / "run" / "model.safetensors"
    with pytest.raises(Exception, match=r"no images; write them to a \.npy file"):
        isocline("sample", "-n", 5, "--model", model, "--out", tmp_path / "samples.png")


def test_unknown_precision_is_refused(tmp_path):
    with pytest.raises(Exception, match="precision is one of 32-true"):
        isocline("train", "data", points(tmp_path), "--out", tmp_path / "run", "--precision", "bf17")


@pytest.mark.slow
def test_two_processes_follow_the_curve_of_one(tmp_path):
    pytest.importorskip("lightning_fabric")
    source, runs = points(tmp_path), {n: tmp_path / str(n) for n in (1, 2)}
    for n, run in runs.items():
        command = [sys.executable, "-m", "isocline.cli.app", "train", "data", str(source), "--out", str(run), *SMALL]
        done = subprocess.run([*command, "--devices", str(n)], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("40 steps, loss") == 1
    assert curve(runs[2]) == pytest.approx(curve(runs[1]), rel=1e-4)
