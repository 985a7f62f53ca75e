import math
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from isocline._core import files
from isocline._core.errors import InvalidInput, Mismatch, NotFinite
from isocline._core.estimate import Budget
from isocline._core.stream import Stream
from isocline.training import Part, Settings, train


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Linear(3, 1)


def batches(step, part, batch=8):
    return Stream(1, "x").normal((batch // part.count, 3), step=step, first=part.first(batch))


def loss(network, x, step, part):
    return (network(x) - x.sum(1, keepdim=True)).square().mean()


def test_a_resumed_run_has_the_same_bits_as_an_uninterrupted_one(tmp_path):
    settings = Settings(steps=60, batch=8, rate=0.05, warmup=5, checkpoint_every=20)
    whole = train(network(), batches, loss, settings, tmp_path / "whole")

    def dies(network, x, step, part):
        if step == 47:
            raise KeyboardInterrupt
        return loss(network, x, step, part)

    with pytest.raises(KeyboardInterrupt):
        train(network(), batches, dies, settings, tmp_path / "cut")
    resumed = train(network(seed=5), batches, loss, settings, tmp_path / "cut")
    assert resumed.losses == whole.losses
    for name, value in whole.weights.items():
        assert torch.equal(value, resumed.weights[name])


SCRIPT = """
    import sys, time
    import torch
    from tests.training.test_loop import batches, loss, network
    from isocline.training import Settings, train

    torch.set_num_threads(1)

    def slow(network, x, step, part):
        if step == 25:
            print("halfway", flush=True)
            time.sleep(float(sys.argv[2]))
        return loss(network, x, step, part)

    train(network(), batches, slow, Settings(steps=40, batch=8, rate=0.05, checkpoint_every=10), sys.argv[1])
"""


def run_script(folder, pause, wait):
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(folder), str(pause)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert child.stdout is not None
    if not wait:
        assert child.stdout.readline() == b"halfway\n"
        child.send_signal(signal.SIGKILL)
    child.communicate()
    return child.returncode


def test_a_killed_process_resumes_to_the_same_bits(tmp_path):
    assert run_script(tmp_path / "whole", 0, wait=True) == 0
    assert run_script(tmp_path / "cut", 60, wait=False) == -signal.SIGKILL
    assert files.read_tensors(tmp_path / "cut" / "checkpoint.safetensors")[1]["step"] == "20"
    assert run_script(tmp_path / "cut", 0, wait=True) == 0
    ends = [files.read_tensors(tmp_path / name / "checkpoint.safetensors")[0] for name in ("whole", "cut")]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_it_learns_and_the_average_follows(tmp_path):
    trained = train(network(), batches, loss, Settings(400, batch=8, rate=0.05, warmup=5, average=0.9), tmp_path)
    torch.testing.assert_close(trained.weights["weight"], torch.ones(1, 3), atol=2e-2, rtol=0)
    assert trained.losses[-1][1] < 1e-3 < trained.losses[0][1]
    assert trained.finished


def test_the_average_is_the_stated_recursion(tmp_path):
    net, seen = network(), []

    def recording(network, x, step, part):
        if step:
            seen.append(net.weight.detach().clone())
        return loss(network, x, step, part)

    average = net.weight.detach().clone()
    trained = train(net, batches, recording, Settings(steps=30, batch=8, average=0.8), tmp_path)
    for step, weight in enumerate([*seen, net.weight.detach()]):
        keep = min(0.8, (1 + step) / (10 + step))
        average = keep * average + (1 - keep) * weight
    torch.testing.assert_close(trained.weights["weight"], average)


def test_an_accumulated_batch_gives_the_same_run(tmp_path):
    whole = train(network(), batches, loss, Settings(40, batch=8, rate=0.05), tmp_path / "whole")
    parts = train(network(), batches, loss, Settings(40, batch=8, rate=0.05, accumulate=4), tmp_path / "parts")
    torch.testing.assert_close(parts.weights["weight"], whole.weights["weight"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(parts.losses[-1][1], whole.losses[-1][1], rtol=1e-5, atol=1e-7)


def test_parts_must_share_the_batch(tmp_path):
    with pytest.raises(InvalidInput, match="batch of 8 cannot be shared evenly by 1 devices times 3 parts"):
        train(network(), batches, loss, Settings(5, batch=8, accumulate=3), tmp_path)


def test_the_rows_of_all_parts_are_the_batch():
    rows = [Part(k, 4).rows(12) for k in range(4)]
    assert [i for r in rows for i in range(12)[r]] == list(range(12))
    assert [Part(k, 4).first(12) for k in range(4)] == [0, 3, 6, 9]


def test_a_time_budget_stops_with_a_checkpoint(tmp_path):
    settings = Settings(steps=30, batch=8, rate=0.05, checkpoint_every=1000)
    trained = train(network(), batches, loss, settings, tmp_path, budget=Budget(seconds=1e-9))
    assert not trained.finished
    assert files.read_tensors(tmp_path / "checkpoint.safetensors")[1]["step"] == "1"


def test_a_budget_does_not_change_the_run(tmp_path):
    settings = Settings(steps=12, batch=8, rate=0.05)
    whole = train(network(), batches, loss, settings, tmp_path / "whole")
    for _ in range(12):
        cut = train(network(), batches, loss, settings, tmp_path / "cut", budget=Budget(seconds=1e-9))
    assert all(torch.equal(cut.weights[name], whole.weights[name]) for name in whole.weights)


def test_logs_see_the_loss_and_the_rate(tmp_path):
    seen = {}
    settings = Settings(steps=45, batch=8, rate=0.05, warmup=1)
    trained = train(
        network(), batches, loss, settings, tmp_path, logs=[lambda step, figures: seen.update({step: figures})]
    )
    assert list(seen) == [20, 40]
    assert seen[20]["loss"] == pytest.approx(trained.losses[0][1])
    assert seen[40]["rate"] == pytest.approx(settings.rate_at(39))


def test_the_rate_warms_up_and_falls_to_zero():
    settings = Settings(steps=1000, rate=2.0, warmup=100)
    assert settings.rate_at(0) == pytest.approx(0.02)
    assert settings.rate_at(49) == pytest.approx(1.0 * 0.5 * (1 + math.cos(math.pi * 0.049)))
    assert settings.rate_at(999) < 1e-4


def test_nan_stops_with_its_step_the_batch_and_the_last_checkpoint(tmp_path):
    settings = Settings(steps=30, batch=8, checkpoint_every=10)

    def breaks(network, x, step, part):
        return loss(network, x, step, part) * (math.nan if step == 13 else 1)

    found = r"nan at step 13; the batch lies in \[-\d.*\]; the last good checkpoint is .*checkpoint\.safetensors"
    with pytest.raises(NotFinite, match=found):
        train(network(), batches, breaks, settings, tmp_path)
    assert files.read_tensors(tmp_path / "checkpoint.safetensors")[1]["step"] == "10"


def test_nan_in_the_data_is_said(tmp_path):
    def bad(step, part):
        return {"x": (torch.full((4, 3), math.nan), torch.zeros(4, dtype=torch.int64))}

    with pytest.raises(NotFinite, match=r"step 0; the batch holds 12 of 12 values that are NaN.*no checkpoint"):
        train(network(), bad, lambda net, batch, step, part: net(batch["x"][0]).mean(), Settings(5, batch=4), tmp_path)


def test_other_settings_are_refused(tmp_path):
    train(network(), batches, loss, Settings(steps=5, batch=8), tmp_path)
    with pytest.raises(Mismatch, match="written with other settings"):
        train(network(), batches, loss, Settings(steps=6, batch=8), tmp_path)
