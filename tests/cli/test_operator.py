import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from isocline.cli.app import app
from isocline.datasets import Stored, generate
from isocline.datasets.simulators import Burgers1D

RUN = CliRunner()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heat")
    generate(Burgers1D(32, 8, low=0.02, high=0.1, steps=70), folder, train=16, valid=4, test=4)
    return folder


def test_train_rollout_and_audit(data: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    short = ["--steps", "20", "--batch", "8", "--width", "8", "--out", out]
    done = RUN.invoke(app, ["operator", "train", str(data), "--model", "convnext", "--strategy", "pushforward", *short])
    assert done.exit_code == 0, done.output
    assert "20 of 20 updates" in done.output
    assert "after a rollout of 7 frames" in done.output
    done = RUN.invoke(app, ["operator", "rollout", out, str(data)])
    assert done.exit_code == 0, done.output
    assert "last given frame kept" in done.output
    done = RUN.invoke(app, ["operator", "rollout", out, str(data), "--json", "--steps", "3"])
    assert len(json.loads(done.output)["relative_l2"]) == 3
    done = RUN.invoke(app, ["operator", "audit", out, str(data)])
    assert done.exit_code == 0, done.output
    assert "32 points" in done.output
    assert "(the own grid)" in done.output
    done = RUN.invoke(app, ["operator", "audit", out, str(data), "--json"])
    assert "growth" in json.loads(done.output)


def test_all_to_all_and_refinement(data: Path, tmp_path: Path) -> None:
    for more in (["--strategy", "all-to-all", "--unroll", "3"], ["--refine", "2"]):
        out = str(tmp_path / more[1])
        short = ["--steps", "5", "--batch", "4", "--width", "8", "--out", out, "--json"]
        done = RUN.invoke(app, ["operator", "train", str(data), *more, *short])
        assert done.exit_code == 0, done.output
        assert json.loads(done.output)["steps"] == 5


def test_data_generate_writes_what_is_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "ks"
    how = [
        "--trajectories",
        "4",
        "--valid",
        "2",
        "--test",
        "2",
        "--resolution",
        "64",
        "--frames",
        "3",
        "--out",
        str(out),
    ]
    done = RUN.invoke(app, ["data", "generate", "ks1d", *how])
    assert done.exit_code == 0, done.output
    stored = Stored(out)
    assert [stored.cases(split) for split in ("train", "valid", "test")] == [4, 2, 2]
    assert stored.spec.resolution == (64,)
    again = RUN.invoke(app, ["data", "generate", "ks1d", *how])
    assert again.exit_code == 0
    other = RUN.invoke(app, ["data", "generate", "ks1d", *how, "--seed", "1"])
    assert other.exit_code != 0


def test_an_unknown_simulator_is_named_with_what_there_is(tmp_path: Path) -> None:
    done = RUN.invoke(app, ["data", "generate", "ks2d", "--out", str(tmp_path)])
    assert done.exit_code != 0
    assert "ks1d" in str(done.exception)


def test_simulators_are_listed_with_their_equations() -> None:
    done = RUN.invoke(app, ["data", "simulators"])
    assert done.exit_code == 0
    assert "u_t + u u_x + u_xx + nu u_xxxx = 0" in done.output


def test_a_file_of_pdebench(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    x = torch.arange(32) / 32
    t = 0.1 * torch.arange(5)
    phase = torch.rand(20, 1, 1, generator=torch.Generator().manual_seed(0))
    with h5py.File(tmp_path / "waves.hdf5", "w") as file:
        file["tensor"] = torch.sin(2 * torch.pi * (x - t[:, None] + phase)).numpy()
        file["x-coordinate"], file["t-coordinate"] = x.numpy(), t.numpy()
    out, path = str(tmp_path / "run"), str(tmp_path / "waves.hdf5")
    how = ["--model", "fno", "--width", "8", "--steps", "5", "--batch", "4", "--out", out]
    done = RUN.invoke(app, ["operator", "train", path, *how])
    assert done.exit_code == 1
    assert "give the boundary" in str(done.exception)
    done = RUN.invoke(app, ["operator", "train", path, *how, "--boundary", "periodic"])
    assert done.exit_code == 0, done.output
    done = RUN.invoke(app, ["operator", "rollout", out, path, "--boundary", "periodic", "--json"])
    assert len(json.loads(done.output)["relative_l2"]) == 4
