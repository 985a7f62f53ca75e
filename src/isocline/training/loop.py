"""The training loop: any optimiser, warm-up and cosine decay, averaged weights, atomic checkpoints.

Batches and losses are functions of the step, so the state of a run is its weights, their average, what the optimiser keeps and the
step. A run that was killed continues from its last checkpoint to the same bits (same machine, same number of threads), and a
batch computed in several parts, one after the other or on several devices, gives the same update to rounding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isocline._core import files
from isocline._core.errors import NotFinite, require
from isocline._core.estimate import Budget
from isocline._core.progress import Progress, progress
from isocline.optimizers import Evaluation, EvaluationOptimizer, Replay, without_statistics
from isocline.training.curvature import Curvature, divisors, edge
from isocline.training.devices import Alone, Devices, OnFabric, refuse_what_changes_the_method
from isocline.training.logs import Log
from isocline.training.settings import Part, Settings
from isocline.training.state import LOG_EVERY, Build, State

Batches = Callable[[int, Part], Any]
Loss = Callable[[nn.Module, Any, int, Part], "Tensor | Evaluation"]


@dataclass(frozen=True)
class Trained:
    """The result of `train`.

    Attributes:
        weights: averaged weights, by name.
        losses: the loss curve, (step, loss); the loss of training batches, not an accuracy.
        seconds: wall seconds over all resumed parts.
        finished: False where the time budget ended the run; the same call continues it.
        stopped: why the optimiser cannot go on, where it said so before the last step.
        steps: updates, over all resumed parts.
    """

    weights: dict[str, Tensor]
    losses: list[tuple[int, float]]
    seconds: float
    finished: bool = True
    stopped: str | None = None
    steps: int = 0


def train(
    network: nn.Module,
    batches: Batches,
    loss: Loss,
    settings: Settings,
    folder: str | Path,
    *,
    optimizer: Build | None = None,
    budget: Budget | None = None,
    fabric: Any = None,
    logs: Sequence[Log] = (),
    description: str = "training",
) -> Trained:
    """Minimise a loss over the parameters of `network`; continue from `folder` if a checkpoint is there.

    Args:
        network: the module whose parameters are updated in place.
        batches: ``(step, part) -> batch``: the `part` of the batch of `step`, a tensor, a nest of tensors, or a dataclass of
            tensors with a method ``to(device)``.
        loss: ``(network, batch, step, part) -> scalar``: the mean over the part; depends on its arguments alone. An optimiser that
            needs more than the loss is given it in an `isocline.optimizers.Evaluation`.
        settings: steps, rates, averaging.
        folder: where ``checkpoint.safetensors`` and ``loss.csv`` are kept.
        optimizer: ``network -> optimiser``, a `torch.optim.Optimizer`; AdamW without it. Its learning rates are set by `settings`:
            the largest becomes ``rate``, groups with smaller ones keep their share. One of `isocline.optimizers` that evaluates
            a batch several times needs ``clip=math.inf`` and ``accumulate=1``, and no ``16-mixed`` precision.
        budget: with ``seconds``, stops when this call has used them; a checkpoint is written and the next call continues.
        fabric: a launched `lightning_fabric.Fabric` for several devices or mixed precision; one process without it.
        logs: called with ``(step, figures)`` every twenty steps.
        description: shown beside the progress bar.

    Raises:
        NotFinite: the loss became NaN or infinite; names the step, the range of the batch and the last checkpoint.
        Mismatch: the checkpoint in `folder` was written with other settings or another optimiser.
        InvalidInput: the optimiser cannot be used with these settings; says which to change.
    """
    devices = Alone(_device(network)) if fabric is None else OnFabric(fabric)
    parts = devices.count * settings.accumulate
    require(
        settings.batch % parts == 0,
        f"a batch of {settings.batch} cannot be shared evenly by {devices.count} devices times {settings.accumulate} parts",
    )
    folder = files.ensure_folder(folder)
    if fabric is not None:
        network.to(fabric.device)
    state = State(network, settings, optimizer)
    refuse_what_changes_the_method(state.optimizer, settings, devices, fabric)
    checkpoint = folder / "checkpoint.safetensors"
    if checkpoint.exists():
        state.load(checkpoint)
    run = _Run(state, devices, batches, loss, checkpoint, logs)
    limit = math.inf if budget is None or budget.seconds is None else budget.seconds
    network.train()
    with progress(description, 1.0) as bar:
        run.until_done(limit, bar)
    network.eval()
    stopped = _stopped(state.optimizer)
    finished = state.step == settings.steps or stopped is not None
    return Trained(state.average, state.curve(), state.seconds, finished, stopped, state.step)


class _Run:
    """One call of `train`."""

    def __init__(
        self, state: State, devices: Devices, batches: Batches, loss: Loss, checkpoint: Path, logs: Sequence[Log]
    ) -> None:
        self.state, self.devices, self.batches, self.loss = state, devices, batches, loss
        self.checkpoint, self.logs = checkpoint, logs
        self.network, self.stepper = devices.setup(state.network, state.optimizer)
        self.curvature = Curvature(list(state.network.parameters())) if state.settings.curvature_every else None
        self.reading: dict[str, float] = {}

    def until_done(self, limit: float, bar: Progress) -> None:
        """Take steps until all are done or `limit` seconds have passed; the bar shows the share of what ends first."""
        state, before, start = self.state, self.state.seconds, time.monotonic()
        while state.step < state.settings.steps and _stopped(state.optimizer) is None:
            self._step()
            used = time.monotonic() - start
            state.seconds = before + used
            share = max(state.step / state.settings.steps, used / limit)
            bar.advance(share - bar.done, self._note())
            self._log()
            stop = (limit < math.inf and self.devices.agree(used >= limit)) or _stopped(state.optimizer) is not None
            if stop or state.step % state.settings.checkpoint_every == 0 or state.step == state.settings.steps:
                self._save()
            if stop:
                return

    def _step(self) -> None:
        state = self.state
        state.set_rate()
        if self.curvature is not None and state.step % state.settings.curvature_every == 0:
            self._read_curvature(self.curvature)
        several = isinstance(state.optimizer, EvaluationOptimizer)
        state.losses.append(float(self.devices.mean(self._evaluated() if several else self._accumulated())))
        state.advance()

    def _accumulated(self) -> Tensor:
        """Step on gradients summed over parts; return the loss."""
        count = self.state.settings.accumulate
        self.stepper.zero_grad(set_to_none=True)
        total = torch.zeros(())
        for k in range(count):
            value = self._loss(k) / count
            self.devices.backward(value, self.network, last=k == count - 1)
            total = total.to(value.device) + value.detach()
        self.devices.clip(self.network, self.stepper, self.state.settings.clip)
        self.stepper.step()
        return total

    def _evaluated(self) -> Tensor:
        """Let the optimiser evaluate the batch as often as it needs; return the first loss."""
        step: Any = self.stepper.step
        found: Tensor = step(Replay(lambda: self._evaluation(0), self.state.network))
        return found.detach()

    def _loss(self, k: int) -> Tensor:
        return self._evaluation(k).loss

    def _evaluation(self, k: int) -> Evaluation:
        """Return the loss of part `k` of this process."""
        state, count = self.state, self.state.settings.accumulate
        part = Part(self.devices.rank * count + k, self.devices.count * count)
        batch = self.devices.place(self.batches(state.step, part))
        value = self.loss(self.network, batch, state.step, part)
        found = value if isinstance(value, Evaluation) else Evaluation(value)
        self._check(found.loss.detach(), batch)
        return found

    def _read_curvature(self, curvature: Curvature) -> None:
        """Note curvature times step on this process's part; nothing of the run changes."""
        state = self.state
        part = Part(self.devices.rank, self.devices.count)
        batch = self.devices.place(self.batches(state.step, part))
        divided, limit = divisors(state.optimizer), edge(state.optimizer)
        scale = None if divided is None else [divided[p] for p in curvature.params]
        with torch.random.fork_rng(), without_statistics(state.network):
            value = curvature.read(lambda: _scalar(self.loss(state.network, batch, state.step, part)), scale)
        rate = state.settings.rate_at(state.step)
        self.reading = {"curvature": value, "curvature_times_rate": value * rate}
        if limit is not None:
            self.reading["edge_of_stability"] = limit

    def _note(self) -> str:
        """Return what stands beside the bar."""
        note = f"loss {self.state.losses[-1]:.4f}"
        if not self.reading:
            return note
        limit = self.reading.get("edge_of_stability")
        beyond = "" if limit is None else f" (stable below {limit:.3g})"
        return f"{note}, curvature x rate {self.reading['curvature_times_rate']:.3g}{beyond}"

    def _check(self, loss: Tensor, batch: Any) -> None:
        value = float(loss)
        if math.isfinite(value):
            return
        found = self.checkpoint.exists()
        place = f"the last good checkpoint is {self.checkpoint}" if found else "no checkpoint was written yet"
        raise NotFinite(
            f"the loss became {value} at step {self.state.step}; {_range(batch)}; {place}; "
            "lower the learning rate or check the data"
        )

    def _save(self) -> None:
        if self.devices.rank == 0:
            self.state.save(self.checkpoint)
            lines = "".join(f"{step},{value:.6g}\n" for step, value in self.state.curve())
            files.write_text(self.checkpoint.parent / "loss.csv", "step,loss\n" + lines)

    def _log(self) -> None:
        state = self.state
        if self.logs and self.devices.rank == 0 and state.step % LOG_EVERY == 0:
            recent = state.losses[-LOG_EVERY:]
            figures = {
                "loss": sum(recent) / len(recent),
                "rate": state.settings.rate_at(state.step - 1),
                "seconds": state.seconds,
                **self.reading,
            }
            for log in self.logs:
                log(state.step, figures)


def _device(network: nn.Module) -> torch.device | None:
    first = next(network.parameters(), None)
    return None if first is None else first.device


def _stopped(optimizer: torch.optim.Optimizer) -> str | None:
    """Return why an optimiser says that it cannot go on, if it does."""
    reason: str | None = getattr(optimizer, "stopped", None)
    return reason


def _scalar(loss: Tensor | Evaluation) -> Tensor:
    return loss.loss if isinstance(loss, Evaluation) else loss


def _range(batch: Any) -> str:
    """Return a sentence on the values of a batch: its extremes, or how many of them are not finite."""
    values = [v.detach().double().flatten() for v in _tensors(batch) if v.is_floating_point() and v.numel()]
    if not values:
        return "the batch holds no numbers"
    joined = torch.cat(values)
    bad = int((~torch.isfinite(joined)).sum())
    if bad:
        return f"the batch holds {bad} of {joined.numel()} values that are NaN or infinite"
    return f"the batch lies in [{float(joined.min()):.4g}, {float(joined.max()):.4g}]"


def _tensors(batch: Any) -> list[Tensor]:
    if isinstance(batch, Tensor):
        return [batch]
    if is_dataclass(batch):
        batch = vars(batch)
    items = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, tuple | list) else ()
    return [tensor for item in items for tensor in _tensors(item)]
