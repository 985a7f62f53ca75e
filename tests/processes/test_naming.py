import json
from dataclasses import replace

import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline.processes import (
    EDM,
    RectifiedFlow,
    Tabulated,
    VariancePreserving,
    process_from_dict,
    process_to_dict,
    same_process,
)
from isocline.processes.naming import PROCESSES as NAMED
from tests.contracts.processes import PROCESSES, label


@pytest.mark.parametrize("process", PROCESSES, ids=label)
def test_round_trip_through_json(process):
    text = json.dumps(process_to_dict(process), allow_nan=False)
    assert process_from_dict(json.loads(text)) == process


def test_every_named_process_is_in_the_contract_list():
    assert {type(p) for p in PROCESSES} == set(NAMED)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"name": "VariancePreservin"}, "unknown process 'VariancePreservin'. Did you mean 'VariancePreserving'"),
        ({}, "unknown process None"),
        ({"name": ["EDM"]}, "unknown process"),
        ({"name": "EDM", "t_min": 0.1, "t_max": float("inf")}, "t_max must be made of finite numbers"),
        ({"name": "EDM", "t_min": 0.1, "t_max": "9"}, "t_max must be made of finite numbers"),
        ({"name": "EDM", "t_min": 0.1, "t_max": True}, "t_max must be made of finite numbers"),
        ({"name": "EDM", "t_min": 0.1}, "lacks its parameter t_max"),
        ({"name": "EDM", "t_min": 0.1, "t_max": 1, "t_mox": 2}, "no parameter 't_mox'. Did you mean 't_m"),
        ({"name": "EDM", "t_min": [0.1], "t_max": 1}, "t_min must be one number"),
        ({"name": "Tabulated", "alphas_cumprod": 0.5}, "alphas_cumprod must be a list"),
        ({"name": "Tabulated", "alphas_cumprod": [0.5, float("nan")]}, "alphas_cumprod must be made of finite numbers"),
    ],
)
def test_damaged_files_are_refused(stored, message):
    with pytest.raises(InvalidInput, match=message):
        process_from_dict(stored)


def test_unknown_kinds_cannot_be_stored():
    class Mine(EDM):
        pass

    with pytest.raises(InvalidInput, match="Mine has no file form"):
        process_to_dict(Mine())


def test_same_process_forgives_rounding_only():
    table = Tabulated.linear_betas()
    rounded = Tabulated(tuple(torch.tensor(table.alphas_cumprod, dtype=torch.float32).tolist()))
    assert table != rounded
    assert same_process(table, rounded)
    assert not same_process(table, Tabulated.linear_betas(999))
    assert not same_process(table, Tabulated.scaled_linear_betas())
    assert not same_process(VariancePreserving(), replace(VariancePreserving(), beta_max=20.01))
    assert not same_process(EDM(0.5, 1.0), RectifiedFlow(0.5, 1.0))
