"""Several devices and logs: two gloo processes follow the curve of one process at the same global batch."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch

from isocline._core.errors import InvalidInput
from isocline.training import Settings, TensorBoard, train
from tests.training.test_loop import batches, loss, network

pytest.importorskip("lightning_fabric")

TWO = """
    import json, sys, warnings
    import torch
    from lightning_fabric import Fabric
    from isocline._core.estimate import Budget
    from isocline.training import Settings, train
    from tests.training.test_loop import batches, loss, network

    def work(fabric, folder, accumulate, seconds):
        torch.set_num_threads(1)
        settings = Settings(40, batch=8, rate=0.05, warmup=5, checkpoint_every=10, accumulate=accumulate)
        trained = train(network(), batches, loss, settings, folder, fabric=fabric, budget=Budget(seconds=seconds))
        if fabric.global_rank == 0:
            weights = {name: value.tolist() for name, value in trained.weights.items()}
            print("RESULT " + json.dumps({"losses": trained.losses, "weights": weights, "count": fabric.world_size}))

    if __name__ == "__main__":
        fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp_fork")
        fabric.launch(work, sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
"""


def two_processes(tmp_path, folder, accumulate=1, seconds=1e9):
    script = tmp_path / "two.py"
    script.write_text(textwrap.dedent(TWO))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd(), "MASTER_ADDR": "127.0.0.1"}
    command = [sys.executable, str(script), str(folder), str(accumulate), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return json.loads(lines[0].removeprefix("RESULT "))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_follow_one(tmp_path, accumulate):
    settings = Settings(40, batch=8, rate=0.05, warmup=5, checkpoint_every=10)
    alone = train(network(), batches, loss, settings, tmp_path / "one")
    two = two_processes(tmp_path, tmp_path / "two", accumulate)
    assert two["count"] == 2
    for (step, expected), (same, found) in zip(alone.losses, two["losses"], strict=True):
        assert step == same
        assert found == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(torch.tensor(two["weights"]["weight"]), alone.weights["weight"], rtol=1e-4, atol=1e-5)


def test_one_process_continues_what_two_began(tmp_path):
    """A checkpoint does not know how many processes wrote it."""
    whole = train(network(), batches, loss, Settings(40, batch=8, rate=0.05, warmup=5), tmp_path / "whole")
    begun = two_processes(tmp_path, tmp_path / "part", seconds=1e-9)
    assert [step for step, _ in begun["losses"]] == [1]
    again = train(network(3), batches, loss, Settings(40, batch=8, rate=0.05, warmup=5), tmp_path / "part")
    torch.testing.assert_close(again.weights["weight"], whole.weights["weight"], rtol=1e-4, atol=1e-5)


def test_mixed_precision_trains(tmp_path):
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    fabric.launch()
    trained = train(network(), batches, loss, Settings(300, batch=8, rate=0.05, warmup=5), tmp_path, fabric=fabric)
    assert trained.weights["weight"].dtype == torch.float32
    torch.testing.assert_close(trained.weights["weight"], torch.ones(1, 3), atol=0.1, rtol=0)


def test_something_else_than_fabric_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"fabric must be a lightning_fabric\.Fabric, got str"):
        train(network(), batches, loss, Settings(5, batch=8), tmp_path, fabric="two devices")


def test_tensorboard_reads_what_was_logged(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trained = train(network(), batches, loss, Settings(40, batch=8), tmp_path, logs=[TensorBoard(tmp_path / "log")])
    events = reader.EventAccumulator(str(tmp_path / "log"))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("loss")]
    assert [step for step, _ in found] == [20, 40]
    assert [value for _, value in found] == pytest.approx([value for _, value in trained.losses], rel=1e-6)
