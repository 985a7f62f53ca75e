import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from isocline._core import files
from isocline._core.errors import BadFile, DataMissing, InvalidInput, Mismatch
from isocline._core.estimate import Budget
from isocline.datasets import Arrays, Stored, generate
from isocline.datasets.fields import FieldSpec, Window
from isocline.datasets.simulators import Burgers1D
from isocline.operators import Pushforward, Refiner, rollout
from isocline.recipes.operator import (
    OperatorConfig,
    audit_as_dict,
    load_operator,
    measure,
    report_audit,
    report_cost,
    report_rollout,
    save_operator,
    seconds_a_query,
    simulator_of,
    strategy_of,
    train_operator,
)
from isocline.training import Settings

SIMULATOR = Burgers1D(32, 8, low=0.005, high=0.02, steps=70)
SETTINGS = Settings(steps=60, batch=8, rate=3e-3, warmup=5, average=0.9, checkpoint_every=10)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return generate(
        Burgers1D(32, 8, low=0.005, high=0.02, steps=70), tmp_path_factory.mktemp("heat"), train=16, valid=4, test=4
    )


def config(source: Stored, network: str = "unet", refinement: int = 0) -> OperatorConfig:
    return OperatorConfig(network, 8, source.spec, Window(), refinement=refinement)


@pytest.mark.parametrize("network", ["unet", "convnext", "fno", "tfno", "t1", "message-passing"])
def test_every_network_trains_is_stored_and_predicts_the_same(network: str, source: Stored, tmp_path: Path) -> None:
    fitted, found = train_operator(source, tmp_path, config(source, network), SETTINGS)
    loaded = load_operator(tmp_path)
    (batch,) = source.batches(Window(1, 7), 4, "test")
    one, two = (rollout(m, batch, 7).frames for m in (fitted.model, loaded.model))
    assert torch.equal(one, two)
    assert loaded.about["steps"] == 60
    assert found.far is not None
    assert found.frames == 7
    assert found.one.value < found.far.value
    assert found.lost == 0


def test_a_refiner_is_trained_and_stored(source: Stored, tmp_path: Path) -> None:
    train_operator(source, tmp_path, config(source, refinement=2), SETTINGS)
    model = load_operator(tmp_path).model
    assert isinstance(model, Refiner)
    assert model.steps == 2
    with pytest.raises(InvalidInput, match="takes no condition"):
        config(source, "fno", 2).build()
    with pytest.raises(InvalidInput, match="message-passing predicts differences"):
        config(source, "message-passing", 2).build()


def test_interrupted_training_goes_on_to_the_same_bits(source: Stored, tmp_path: Path) -> None:
    how = {"strategy": Pushforward(2)}
    whole, _ = train_operator(source, tmp_path / "whole", config(source), SETTINGS, **how)  # type: ignore[arg-type]
    part, _ = train_operator(
        source, tmp_path / "cut", config(source), replace(SETTINGS, checkpoint_every=1), budget=Budget(seconds=1e-6), **how  # type: ignore[arg-type]
    )  # fmt: skip
    assert not part.trained.finished
    assert not json.loads((tmp_path / "cut" / "operator.json").read_text())["finished"]
    again, _ = train_operator(source, tmp_path / "cut", config(source), replace(SETTINGS, checkpoint_every=1), **how)  # type: ignore[arg-type]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])


def test_a_folder_of_another_training_is_refused(source: Stored, tmp_path: Path) -> None:
    train_operator(source, tmp_path, config(source), replace(SETTINGS, steps=1))
    with pytest.raises(Mismatch, match="another network, strategy"):
        train_operator(source, tmp_path, config(source, "fno"), SETTINGS, strategy=Pushforward())


def test_what_cannot_be_built_leaves_the_folder_free(source: Stored, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no multiple of 8 groups"):
        train_operator(source, tmp_path, replace(config(source), width=12), SETTINGS)
    train_operator(source, tmp_path, config(source), replace(SETTINGS, steps=1))


def test_a_rollout_is_reported_with_pictures(source: Stored, tmp_path: Path) -> None:
    train_operator(source, tmp_path, config(source), SETTINGS)
    found = report_rollout(load_operator(tmp_path), source, tmp_path / "out")
    stored = files.read_json(tmp_path / "out" / "rollout.json")
    assert len(stored["relative_l2"]) == len(found.t) == 7
    assert stored["relative_l2"][0]["value"] == pytest.approx(float(found.errors[:, 0].mean()))
    truth = next(iter(source.batches(Window(1, 7), 32, "test")))
    kept = (truth.x.expand_as(truth.target) - truth.target).flatten(2).norm(dim=2) / truth.target.flatten(2).norm(dim=2)
    torch.testing.assert_close(found.persistence, kept)
    torch.testing.assert_close(found.t, torch.arange(1, 8, dtype=torch.float64) / 7, rtol=1e-5, atol=1e-6)
    for name, magic in (("error.png", b"\x89PNG"), ("spectrum.png", b"\x89PNG"), ("rollout.gif", b"GIF8")):
        assert (tmp_path / "out" / name).read_bytes().startswith(magic)


def test_more_frames_than_there_are_is_refused(source: Stored, tmp_path: Path) -> None:
    train_operator(source, tmp_path, config(source), replace(SETTINGS, steps=1))
    with pytest.raises(InvalidInput, match=r"7 frames after the given ones, so steps is 1 \.\.\. 7, got 8"):
        report_rollout(load_operator(tmp_path), source, tmp_path, steps=8)


def test_an_audit_is_reported(source: Stored, tmp_path: Path) -> None:
    train_operator(source, tmp_path, config(source, "fno"), SETTINGS)
    found = report_audit(load_operator(tmp_path), source, tmp_path)
    stored = files.read_json(tmp_path / "audit.json")
    assert stored == json.loads(json.dumps(audit_as_dict(found)))
    assert [g["sizes"] for g in stored["grids"]] == [[32], [64], [128]]
    assert [g["sizes"] for g in stored["refused"]] == [[16]]  # 16 frequencies do not fit into 16 points
    assert (tmp_path / "audit.png").read_bytes().startswith(b"\x89PNG")


def test_a_model_of_other_fields_is_refused(source: Stored, tmp_path: Path) -> None:
    train_operator(source, tmp_path, config(source), replace(SETTINGS, steps=1))
    stored = load_operator(tmp_path)
    stored.model.spec = replace(source.spec, fields=(FieldSpec("h"),))
    with pytest.raises(Mismatch, match="has the fields h"):
        report_rollout(stored, source, tmp_path)


def test_damaged_and_missing_files_are_named(source: Stored, tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="there is no file"):
        load_operator(tmp_path)
    path = save_operator(tmp_path, config(source).build(), config(source), {})
    assert isinstance(load_operator(path).config, OperatorConfig)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BadFile, match="truncated"):
        load_operator(tmp_path)
    save_operator(tmp_path, config(source, "fno").build(), config(source), {})
    with pytest.raises(BadFile, match="is no operator of isocline"):
        load_operator(tmp_path)


def test_arrays_of_ones_own_are_trained_on_and_reported(tmp_path: Path) -> None:
    x = torch.arange(16) * 2 * torch.pi / 16
    phase = torch.linspace(0, 6, 20)[:, None, None]
    waves = torch.sin(x - 2 * torch.pi / 16 * torch.arange(6)[:, None] + phase)
    mine = Arrays({"u": waves}, low=(0.0,), high=(2 * torch.pi,), fractions=(0.6, 0.2, 0.2))
    config = OperatorConfig("fno", 8, mine.spec, Window())
    _, found = train_operator(mine, tmp_path, config, SETTINGS)
    kept = 2 * math.sin(
        math.pi / 16
    )  # the error of keeping the last frame: a wave is shifted by a sixteenth of its length
    assert found.one.high < 0.5 * kept
    assert found.one.n == 4
    assert len(report_rollout(load_operator(tmp_path), mine, tmp_path).t) == 5


def test_names_that_do_not_exist_are_refused(source: Stored) -> None:
    with pytest.raises(InvalidInput, match="no network 'unett'"):
        config(source, "unett").build()
    with pytest.raises(InvalidInput, match="no strategy 'push'"):
        strategy_of("push")


def test_a_query_has_a_time_and_a_model_an_error(source: Stored) -> None:
    model = config(source).build().eval()
    assert seconds_a_query(model, source, 1) > 0
    assert measure(model, source).one.n == 4


def test_costs_are_compared_at_equal_error(source: Stored, tmp_path: Path) -> None:
    train_operator(source, tmp_path, config(source), replace(SETTINGS, steps=60))
    ledger = report_cost(load_operator(tmp_path), source.folder, tmp_path, factors=(1, 2))
    assert [run.label for run in ledger.solver] == ["32 points", "16 points"]
    assert ledger.solver[0].error == 0
    assert 1e-4 < ledger.solver[1].error < 0.5
    assert ledger.data == pytest.approx(16 * ledger.solver[0].seconds)
    assert ledger.equal == (min(ledger.solver, key=lambda run: run.seconds) if ledger.useful else None)
    assert files.read_json(tmp_path / "cost.json")["text"] == ledger.text


def test_data_of_others_have_no_solver_to_compare_with(source: Stored, tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="does not say which simulator"):
        simulator_of(tmp_path)
    assert simulator_of(source.folder) == SIMULATOR
    files.write_json(tmp_path / "generated.json", {"simulator": "Stream", "settings": {}})
    with pytest.raises(BadFile, match="no simulator 'Stream'"):
        simulator_of(tmp_path)
