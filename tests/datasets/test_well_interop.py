"""Our files in The Well's own loader; runs where ``the_well`` is installed, in an environment of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from isocline.datasets import DataSpec, FieldSpec, ParameterSpec, Stored, Window, generate, write_well
from isocline.datasets.generate import statistics_of
from tests.datasets.heat import Heat

well = pytest.importorskip("the_well.data")
yaml = pytest.importorskip("yaml")
FIELDS = (
    FieldSpec("velocity", 1),
    FieldSpec("pressure"),
    FieldSpec("stress", 2),
    FieldSpec("a", varies=False),
    FieldSpec("b", 1, varies=False),
)


def flow(folder: Path) -> Stored:
    """Write two files of random fields on 6 by 4 points."""
    ends: tuple[tuple[float, ...], tuple[float, ...]] = ((0.0, -1.0), (1.0, 1.0))
    spec = DataSpec(
        "flow", FIELDS, ("x", "y"), *ends, (6, 4), ("periodic", "wall"), 5, 0.25, (ParameterSpec("nu", 1, 2),)
    )
    rng = torch.Generator().manual_seed(0)
    grid = torch.stack(torch.meshgrid(torch.arange(6) / 6, torch.linspace(-1, 1, 4), indexing="ij"), -1)
    for k, n in enumerate((3, 2)):
        fields = {f.name: 2 + torch.randn((n, 5, 6, 4, *(2,) * f.order), generator=rng) for f in spec.varying}
        constants = {f.name: torch.randn((n, 6, 4, *(2,) * f.order), generator=rng) for f in spec.constant}
        how: dict[str, Any] = {"parameters": {"nu": 1 + torch.rand(n, generator=rng)}, "constants": constants}
        times = 0.25 * torch.arange(5, dtype=torch.float64)
        write_well(folder / f"data/train/{k}.hdf5", spec, fields, times=times, coordinates=grid, **how)
    source = Stored(folder)
    statistics_of(source).write(folder / "stats.yaml")
    return source


def test_fields_of_every_order_arrive_in_their_shapes(tmp_path: Path) -> None:
    ours = flow(tmp_path)
    theirs = well.WellDataset(path=str(tmp_path), well_split_name="train", n_steps_input=2, n_steps_output=1)
    assert theirs.metadata.spatial_resolution == (6, 4)
    assert theirs.metadata.n_trajectories_per_file == [3, 2]
    assert theirs.metadata.field_names[1] == ["velocity_x", "velocity_y"]
    assert sorted(theirs.metadata.boundary_condition_types) == ["periodic", "wall"]
    assert len(theirs) == 5 * 3
    item, mine = theirs[4], ours.batch([1], [1], Window(2, 1))
    # they put scalars first, then vectors, then tensors; here velocity comes before pressure
    order = [2, 0, 1, 3, 4, 5, 6]
    assert torch.equal(item["input_fields"], mine.x[0][..., order])
    assert torch.equal(item["output_fields"], mine.target[0][..., order])
    assert mine.constants is not None
    assert torch.equal(item["constant_fields"], mine.constants[0])
    assert torch.equal(item["constant_scalars"], mine.parameters[0])
    assert torch.equal(item["space_grid"], mine.coordinates)
    assert item["boundary_conditions"].tolist() == [[2, 2], [0, 0]]


@pytest.mark.parametrize("kind", ["ZScoreNormalization", "RMSNormalization"])
def test_their_normalisation_reads_our_statistics(tmp_path: Path, kind: str) -> None:
    flow(tmp_path)
    how = {"use_normalization": True, "normalization_type": getattr(well.normalization, kind)}
    theirs = well.WellDataset(path=str(tmp_path), well_split_name="train", n_steps_output=4, **how)
    every = torch.stack([torch.cat([theirs[i]["input_fields"], theirs[i]["output_fields"]]) for i in range(5)])
    if kind == "ZScoreNormalization":
        assert torch.allclose(every.mean((0, 1, 2, 3)), torch.zeros(7), atol=1e-6)
        assert torch.allclose(every.std((0, 1, 2, 3), unbiased=False), torch.ones(7), atol=1e-6)
    else:
        assert torch.allclose(every.square().mean((0, 1, 2, 3)), torch.ones(7), atol=1e-6)


def test_statistics_are_those_that_their_loader_gives_by_hand(tmp_path: Path) -> None:
    flow(tmp_path)
    theirs = well.WellDataset(path=str(tmp_path), well_split_name="train", n_steps_output=4)
    every = torch.stack([torch.cat([theirs[i]["input_fields"], theirs[i]["output_fields"]]) for i in range(5)]).double()
    found = yaml.safe_load((tmp_path / "stats.yaml").read_text())
    pressure, velocity = every[..., :1], every[..., 1:3]
    for values, suffix in ((every, ""), (every.diff(dim=1), "_delta")):
        pressure, velocity = values[..., :1].flatten(0, -2), values[..., 1:3].flatten(0, -2)
        assert found[f"mean{suffix}"]["pressure"] == pytest.approx(pressure.mean().item(), rel=1e-8)
        assert found[f"std{suffix}"]["velocity"] == pytest.approx(velocity.std(0, unbiased=False).tolist(), rel=1e-8)
        assert found[f"rms{suffix}"]["velocity"] == pytest.approx(velocity.square().mean(0).sqrt().tolist(), rel=1e-8)
    stress = every[..., 3:].flatten(0, -2).mean(0).reshape(2, 2).tolist()
    assert [pytest.approx(row, rel=1e-8) for row in stress] == found["mean"]["stress"]


def test_generated_data_open(tmp_path: Path) -> None:
    ours = generate(Heat(), tmp_path, train=5, valid=2, test=2, batch=3)
    for split in ours.splits:
        theirs = well.WellDataset(path=str(tmp_path), well_split_name=split, full_trajectory_mode=True)
        assert len(theirs) == ours.cases(split)
        assert theirs.metadata.dataset_name == "heat"
        item, mine = theirs[0], ours.batch([0], [0], Window(1, 5), split)
        assert torch.equal(item["output_fields"], mine.target[0][..., [1, 0]])
        assert torch.allclose(item["output_time_grid"], mine.t[0].float())


def test_we_read_what_they_write(tmp_path: Path) -> None:
    dummy = pytest.importorskip("the_well.utils.dummy_data")
    (tmp_path / "data/train").mkdir(parents=True)
    dummy.write_dummy_data(str(tmp_path / "data/train/a.hdf5"))
    ours = Stored(tmp_path)
    theirs = well.WellDataset(path=str(tmp_path), well_split_name="train", n_steps_output=2)
    assert ours.spec.resolution == theirs.metadata.spatial_resolution
    assert [p.name for p in ours.spec.parameters] == theirs.metadata.constant_scalar_names == ["a", "b"]
    item, mine = theirs[3], ours.batch([0], [3], Window(1, 2))
    assert torch.equal(item["input_fields"], mine.x[0])
    assert torch.equal(item["output_fields"], mine.target[0])
    assert mine.constants is not None
    assert torch.equal(item["constant_fields"], mine.constants[0])
    assert ours.spec.boundary == ("periodic", "periodic")
