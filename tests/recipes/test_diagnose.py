"""With an exact model the diagnosis must find what is known; with a trained one it must run and say what it found."""

import json

import numpy as np
import pytest
import torch

from isocline._core.errors import BadFile, DataMissing, InvalidInput
from isocline._core.estimate import Budget
from isocline._core.stream import Stream
from isocline.processes import EDM, AffineSubspace, Circle, Sphere, VariancePreserving
from isocline.recipes.diagnose import diagnose
from isocline.recipes.sources import load_array


def cloud(model, n=1500, width=0.0):
    x = model.sample(n, 0)
    return (x + width * Stream(5).normal(tuple(x.shape), dtype=torch.float64)).float()


@pytest.mark.parametrize(
    ("model", "dimension"),
    [(Circle(EDM(), 8), 1), (Sphere(VariancePreserving(t_min=1e-6), 6, 3), 3)],
    ids=["circle in R^8", "3-sphere in R^6, VP"],
)
def test_sets_of_known_dimension(model, dimension):
    found = diagnose(cloud(model), denoiser=model)
    assert found.intrinsic_dimension.value == pytest.approx(dimension, rel=0.1)
    assert found.neighbours_dimension.value == pytest.approx(dimension, rel=0.15)
    assert found.thickness is not None
    assert found.thickness.value < 0.02
    for name, slope in (("score", -1.0), ("noise", -0.5), ("data", 0.0)):
        assert found.slopes[name].value == pytest.approx(slope, abs=0.05), name
    assert found.recommendation["formulation"] == "cem"


def test_full_dimensional_data_are_not_called_thin():
    model = AffineSubspace(EDM(), torch.eye(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64), 1.0)
    found = diagnose(cloud(model), denoiser=model)
    assert found.intrinsic_dimension.value > 3.5
    assert found.slopes["score"].value > -0.1  # the score of a normal law does not blow up
    assert found.recommendation["formulation"] == "edm"


def test_it_trains_where_there_is_no_model_and_keeps_a_report(tmp_path):
    found = diagnose(cloud(Circle(EDM(), 3), 400), budget=Budget(seconds=1.0), rng=1)
    assert found.entries == 3
    assert len(found.loss) == len(found.levels) == 25
    assert found.save(tmp_path / "report") == tmp_path / "report"
    stored = json.loads((tmp_path / "report" / "diagnosis.json").read_text())
    assert stored["intrinsic_dimension"]["value"] == found.intrinsic_dimension.value
    assert {"intrinsic_dimension", "thickness", "slopes", "recommendation"} <= set(stored)
    assert (tmp_path / "report" / "diagnosis.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (torch.zeros(300, 2), "do not vary"),
        (torch.randn(50, 2, generator=torch.Generator().manual_seed(0)), "at least 200 data, got 50"),
        (torch.full((300, 2), float("nan")), "NaN"),
        (torch.zeros(300, 2, dtype=torch.int64), "floating point"),
    ],
)
def test_what_cannot_be_diagnosed_is_said(data, message):
    with pytest.raises(InvalidInput, match=message):
        diagnose(data)


def test_shapes_that_have_no_network_are_named():
    with pytest.raises(InvalidInput, match=r"square grey images.*not for data of shape \(3, 8, 8\)"):
        diagnose(Stream(0).normal((200, 3, 8, 8)), budget=Budget(seconds=1.0))


def test_tables_are_read(tmp_path):
    table = np.arange(6.0).reshape(3, 2)
    np.save(tmp_path / "x.npy", table)
    (tmp_path / "x.csv").write_text("a,b\n0,1\n2,3\n4,5\n")
    (tmp_path / "y.csv").write_text("0,1\n2,3\n4,5\n")
    for name in ("x.npy", "x.csv", "y.csv"):
        assert load_array(tmp_path / name).tolist() == table.tolist()


def test_other_files_are_refused(tmp_path):
    with pytest.raises(DataMissing, match="there is no file"):
        load_array(tmp_path / "none.npy")
    with pytest.raises(InvalidInput, match=r"\.npy and \.csv files, not from 'x.pt'"):
        load_array(tmp_path / "x.pt")
    (tmp_path / "words.csv").write_text("a,b\n1,two\n")
    with pytest.raises(BadFile, match="does not hold a table of numbers"):
        load_array(tmp_path / "words.csv")
    np.save(tmp_path / "object.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(BadFile, match="does not hold a table of numbers"):
        load_array(tmp_path / "object.npy")
