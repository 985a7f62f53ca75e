"""Plans whose coefficients differ from coordinate to coordinate, and plans that add constants."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from isocline._core import files
from isocline._core.errors import BadFile, CannotWrite, InvalidInput, Mismatch
from isocline.plans import Plan, grids, solvers, unroll
from isocline.plans.canonical import Canonical
from isocline.processes import EDM, Noise, Parameterisation, VariancePreserving, VPrediction
from tests.plans.helpers import PARAMETERISATIONS, Told, normal, random_plan

VP = VariancePreserving()
ROWS = 4
close = torch.testing.assert_close


def wavy(x: Tensor, t: Tensor) -> Tensor:
    return torch.sin(x) + 0.3 * t.to(x.dtype)


def scalar_plan(seed: int, noisy: bool = False) -> Plan:
    """Return a random plan whose rows add constants and tell the state's time; times and calls do not depend on the seed."""
    shape = random_plan(0, ROWS, noisy=noisy, silent=True)
    plan = random_plan(seed, ROWS, noisy=noisy, silent=True)
    times = {"times": shape.times, "nodes": shape.nodes, "model_times": shape.times[:-1]}
    return replace(plan, constant=normal(ROWS, seed=seed), **times)


def wide_plan(event: tuple[int, ...], noisy: bool = False) -> tuple[Plan, list[Plan]]:
    """Return a plan with coefficients for each coordinate of `event`, and the plan of numbers of each coordinate."""
    parts = [scalar_plan(seed, noisy) for seed in range(int(np.prod(event)))]

    def joined(name: str) -> Tensor:
        column = torch.stack([getattr(part, name) for part in parts], dim=-1)
        return column.reshape(*column.shape[:-1], *event)

    columns = {name: joined(name) for name in ("carry", "weights", "noise", "constant")}
    return replace(parts[0], **columns), parts


@pytest.mark.parametrize("network_output", PARAMETERISATIONS)
@pytest.mark.parametrize("noisy", [False, True])
def test_each_coordinate_follows_the_plan_of_its_own_numbers(network_output: Parameterisation, noisy: bool) -> None:
    """The network acts coordinate by coordinate, so one wide run is many runs of plans of numbers, themselves run naively."""
    plan, parts = wide_plan((2, 3), noisy)
    network, x, noise = (
        Told(wavy, VP, network_output),
        normal(5, 2, 3),
        [normal(5, 2, 3, seed=9 + i) for i in range(ROWS)],
    )
    found = plan.run(network, x, noise=noise, record=True)
    for c, part in enumerate(parts):
        at = (slice(None), slice(None), c // 3, c % 3)
        states = hand_loop(part, network, x[:, c // 3, c % 3], [z[:, c // 3, c % 3] for z in noise])
        assert found.trajectory is not None
        close(found.trajectory[at], torch.stack(states), rtol=1e-9, atol=1e-9)
    close(found.trajectory, torch.stack(unroll(plan, network, x, noise=noise)), rtol=1e-9, atol=1e-9)
    assert found.cost.calls == plan.calls


def hand_loop(plan: Plan, network: Told, x: Tensor, noise: list[Tensor]) -> list[Tensor]:
    """Run a plan of numbers by the definition of a row."""
    assert plan.constant is not None
    states, outputs = [x], []
    for i in range(ROWS):
        outputs.append(wavy(states[-1], plan.model_times[i]) if plan.evaluate[i] else torch.zeros_like(x))
        new = float(plan.carry[i]) * states[-1] + float(plan.noise[i]) * noise[i] + float(plan.constant[i])
        states.append(new + sum(float(plan.weights[i, j]) * m for j, m in enumerate(outputs)))
    return states


def test_constants_alone_need_no_coordinates() -> None:
    plan, x = scalar_plan(3), normal(4, 2)
    network = Told(wavy, VP, VPrediction())
    close(plan.run(network, x).x, hand_loop(plan, network, x, [torch.zeros_like(x)] * ROWS)[-1], rtol=1e-9, atol=1e-9)
    assert plan != replace(plan, constant=None)
    assert replace(plan, constant=torch.zeros(ROWS, dtype=torch.float64)) == replace(plan, constant=None)


def test_an_axis_of_length_one_is_shared() -> None:
    plan, _ = wide_plan((3, 1, 1))
    columns = {name: getattr(plan, name) for name in ("carry", "weights", "noise", "constant")}
    full = replace(plan, **{name: c.expand(*c.shape[:-2], 2, 2).clone() for name, c in columns.items()})
    x = normal(2, 3, 2, 2)
    assert torch.equal(plan.run(Told(wavy, VP), x).x, full.run(Told(wavy, VP), x).x)
    assert plan.equivalent(full)
    assert full.equivalent(plan)


@pytest.mark.parametrize("shape", [(2, 4), (2, 3, 3), (2, 1), (2,)])
def test_states_of_another_shape_are_refused_in_one_line(shape: tuple[int, ...]) -> None:
    plan, x = wide_plan((3,))[0], torch.zeros(shape)
    for run in (plan.run, lambda d, x: unroll(plan, d, x)):
        with pytest.raises(Mismatch, match=r"each coordinate of data of shape \(3,\).*tune or load a plan") as caught:
            run(Told(wavy, VP), x)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_states_keep_their_precision(dtype: torch.dtype) -> None:
    plan, x = wide_plan((3,))[0], normal(2, 3)
    found = plan.run(Told(wavy, VP, Noise()), x.to(dtype)).x
    exact = plan.run(Told(wavy, VP, Noise()), x).x
    assert found.dtype == dtype
    close(found.double(), exact, rtol=0, atol=60 * torch.finfo(dtype).eps * float(exact.abs().max()))


def test_transforms_act_before_the_coefficients() -> None:
    plan, x = wide_plan((3,))[0], normal(2, 3)
    clipped = Told(lambda x, t: wavy(x, t).clamp(-0.2, 0.2), VP)
    found = plan.run(Told(wavy, VP, Noise()), x, transforms=[lambda step, x0: x0.clamp(-0.2, 0.2)]).x
    close(found, plan.run(clipped, x).x, rtol=1e-9, atol=1e-9)


def test_unrolling_is_differentiable_in_every_coefficient() -> None:
    plan, x = wide_plan((2,))[0], normal(3, 2)
    assert plan.constant is not None
    free = [
        plan.carry.clone().requires_grad_(),
        plan.weights.clone().requires_grad_(),
        plan.constant.clone().requires_grad_(),
    ]
    end = unroll(replace(plan, carry=free[0], weights=free[1], constant=free[2]), Told(wavy, VP), x)[-1]
    for grad in torch.autograd.grad(end.sum(), free):
        assert grad.shape[-1] == 2
        assert bool((grad != 0).any(0).any(0).all())


def test_the_canonical_form_holds_for_every_coordinate() -> None:
    plan, parts = wide_plan((2, 2), noisy=True)
    form = plan.canonical()
    assert form.constants is not None
    for c, part in enumerate(parts):
        own = part.canonical()
        assert own.constants is not None
        at = (..., c // 2, c % 2)
        pairs = [
            (form.start, own.start),
            (form.outputs, own.outputs),
            (form.noises, own.noises),
            (form.constants, own.constants),
        ]
        for wide, numbers in pairs:
            close(wide[at], numbers, rtol=1e-12, atol=1e-12)
    carry, weights, noise = form.rows()
    constant = form.constant()
    assert constant is not None
    assert plan.constant is not None
    for found, column in ((carry, plan.carry), (weights, plan.weights), (noise, plan.noise), (constant, plan.constant)):
        close(found, column, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("to", PARAMETERISATIONS)
def test_conversion_keeps_what_a_plan_does(to: Parameterisation) -> None:
    plan, _ = wide_plan((2,))
    converted, x = plan.convert(to), normal(3, 2)
    assert converted.equivalent(plan, 1e-8)
    network = Told(wavy, VP, to)
    close(converted.run(network, x).x, plan.run(network, x).x, rtol=1e-7, atol=1e-7)
    close(converted.run(Told(wavy, VP), x).x, plan.run(Told(wavy, VP), x).x, rtol=1e-7, atol=1e-7)


def test_equality_looks_at_every_coordinate() -> None:
    plan, parts = wide_plan((2, 3))
    assert plan == replace(plan, carry=plan.carry.clone())
    for name in ("carry", "weights", "constant"):
        column = getattr(plan, name).clone()
        column[..., 1, 2] *= 1 + 1e-6
        assert plan != replace(plan, **{name: column})
    same = parts[0]
    repeated = {
        n: getattr(same, n)[..., None].expand(*getattr(same, n).shape, 4).clone() for n in ("carry", "weights", "noise")
    }
    wide = replace(same, constant=same.constant[:, None].expand(ROWS, 4).clone(), **repeated)  # type: ignore[index]
    assert wide == same
    assert same == wide
    assert wide != plan


def test_plans_of_numbers_only_can_be_joined() -> None:
    plan = wide_plan((2,))[0]
    for first, second in ((plan, plan), (scalar_plan(0), plan), (scalar_plan(0), random_plan(0))):
        with pytest.raises(InvalidInput, match=r"cannot be joined.*first\.run"):
            first.then(second)


def test_columns_must_have_one_shape() -> None:
    plan = wide_plan((3,))[0]
    with pytest.raises(InvalidInput, match=r"needs weights of shape \(4, 4, 2\), got \(4, 4, 3\)"):
        replace(plan, carry=plan.carry[:, :2])
    with pytest.raises(InvalidInput, match=r"needs constant of shape \(4, 3\), got \(4,\)"):
        replace(plan, constant=torch.zeros(4, dtype=torch.float64))
    later = plan.weights.clone()
    later[0, 2, 1] = 0.1
    with pytest.raises(InvalidInput, match="lower triangular"):
        replace(plan, weights=later)
    with pytest.raises(InvalidInput, match="constant must be finite; row 2 is not"):
        replace(plan, constant=plan.constant * torch.tensor([[1.0], [1.0], [torch.inf], [1.0]]))  # type: ignore[operator]


@pytest.mark.parametrize("noisy", [False, True])
def test_files_keep_every_bit(tmp_path: Path, noisy: bool) -> None:
    for k, plan in enumerate((wide_plan((2, 3), noisy)[0], scalar_plan(1, noisy))):
        for case in (plan, replace(plan, constant=None)):
            back = Plan.load(case.save(tmp_path / f"plan{k}.json"))
            for name in ("times", "nodes", "model_times", "carry", "weights", "noise", "evaluate"):
                assert torch.equal(getattr(back, name), getattr(case, name)), name
            assert (back.constant is None) == (case.constant is None)
            assert case.constant is None or torch.equal(back.constant, case.constant)  # type: ignore[arg-type]


def test_plans_of_numbers_are_written_as_before(tmp_path: Path) -> None:
    """A file without constants and coordinates keeps version 1 and its keys, so older readers take it."""
    stored = json.loads(random_plan(0).save(tmp_path / "plan.json").read_text())
    assert stored["version"] == 1
    assert list(stored["rows"][0]) == ["time", "told", "carry", "weights", "noise", "evaluate"]
    assert not {"event", "tables"} & set(stored)
    assert len(list(tmp_path.iterdir())) == 1
    assert json.loads(scalar_plan(0).save(tmp_path / "plan.json").read_text())["version"] == 2


def test_only_used_weights_are_stored_and_old_tables_go(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    plan = wide_plan((3,))[0]
    first = json.loads(plan.save(path).read_text())
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["plan.json", first["tables"]])
    terms = sum(len(row["uses"]) for row in first["rows"])
    assert files.read_tensors(tmp_path / first["tables"])[0]["weights"].shape == (terms, 3)
    second = json.loads(replace(plan, carry=2 * plan.carry).save(path).read_text())
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["plan.json", second["tables"]])
    random_plan(0).save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]


def test_a_crash_between_the_two_files_leaves_the_old_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, plan = tmp_path / "plan.json", wide_plan((3,))[0]
    plan.save(path)

    def crash(path: Path, value: Any) -> Path:
        raise CannotWrite("the disk is full")

    monkeypatch.setattr(files, "write_json", crash)
    with pytest.raises(CannotWrite):
        replace(plan, carry=2 * plan.carry).save(path)
    assert torch.equal(Plan.load(path).carry, plan.carry)


def swap(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d | {"tables": "elsewhere.safetensors"}, "there is no file"),
        (lambda d: d | {"tables": "../plan.safetensors"}, "must be a file beside it"),
        (lambda d: {k: v for k, v in d.items() if k != "tables"}, "tables"),
        (lambda d: d | {"event": [4]}, r"need carry of shape \(4, 4\), got \(4, 3\)"),
        (lambda d: d | {"event": "abc"}, "not a usable plan"),
        (lambda d: d | {"rows": [{**r, "uses": r["uses"][:-1]} for r in d["rows"]]}, r"need weights of shape"),
        (lambda d: d | {"rows": [{**r, "uses": [j + 9 for j in r["uses"]]} for r in d["rows"]]}, "up to its own only"),
        (lambda d: d | {"rows": [{**r, "uses": ["a" for _ in r["uses"]]} for r in d["rows"]]}, "not a usable plan"),
    ],
)
def test_damaged_files_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], dict[str, Any]], message: str
) -> None:
    path = wide_plan((3,))[0].save(tmp_path / "plan.json")
    swap(path, change)
    with pytest.raises(BadFile, match=message) as caught:
        Plan.load(path)
    assert str(path) in str(caught.value)


def test_tables_of_another_plan_are_refused(tmp_path: Path) -> None:
    path = wide_plan((3,))[0].save(tmp_path / "plan.json")
    name = json.loads(path.read_text())["tables"]
    tables = files.read_tensors(tmp_path / name)[0]
    files.write_tensors(tmp_path / name, tables | {"carry": tables["carry"] + 1e-12})
    with pytest.raises(BadFile, match="hold something else"):
        Plan.load(path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-8])
    with pytest.raises(BadFile, match="truncated"):
        Plan.load(path)


def test_text_and_picture_summarise_the_coordinates() -> None:
    base = solvers.dpm_solver_pp_2m(EDM(), grids.karras(EDM(), 3))
    scale = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    wide = {n: getattr(base, n)[..., None] * scale for n in ("carry", "weights", "noise")}
    plan = replace(base, constant=torch.full((3, 3), 0.25, dtype=torch.float64), **wide)
    lines = plan.describe().splitlines()
    assert lines[1] == "a coefficient for each coordinate of shape (3,): mean [least, largest]"
    carry = base.carry[0] * scale
    assert f"{carry.mean():.4g} [{carry.min():.3g}, {carry.max():.3g}]" in lines[3]
    assert lines[3].endswith("+ 0.25")
    image = torch.as_tensor(np.asarray(plan.plot().axes[1].get_images()[0].get_array()))
    close(image, torch.as_tensor(np.asarray(base.plot().axes[1].get_images()[0].get_array())), rtol=1e-12, atol=1e-12)


def test_canonical_constants_are_kept_apart_from_forms_without() -> None:
    form = random_plan(0).canonical()
    assert form.constants is None
    assert form.constant() is None
    other = Canonical(form.start, form.outputs, form.noises, torch.ones_like(form.start))
    assert not form.close(other, 1e-9)
    assert form.close(Canonical(form.start, form.outputs, form.noises, torch.zeros_like(form.start)), 1e-9)
