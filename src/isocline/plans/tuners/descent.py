"""What tuners by gradient descent share: a differentiable model, batches that fit into memory, the clock and the best plan."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from isocline._core.errors import InvalidInput, NotFinite, require
from isocline._core.estimate import Cost
from isocline._core.progress import Progress
from isocline._core.stream import Stream
from isocline.plans.plan import Plan
from isocline.plans.tuners.best import Best
from isocline.plans.tuners.calibration import Calibration
from isocline.plans.tuners.tuned import Tuned
from isocline.processes import Denoiser
from isocline.processes.wrapper import Wrapper


class Differentiable(Wrapper):
    """A denoiser whose outputs are refused where they do not depend on the state for autograd.

    Args:
        inner: the denoiser that does the work.
        tuner: who asks for gradients, for the error's text.
    """

    def __init__(self, inner: Denoiser, tuner: str) -> None:
        super().__init__(inner)
        self.tuner = tuner

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """Return the inner denoiser's output (B, *)."""
        output = self.inner(x, t, cond)
        if torch.is_grad_enabled() and x.requires_grad and not output.requires_grad:
            raise without_gradients(self.tuner)
        return output


def without_gradients(tuner: str) -> InvalidInput:
    """Return the error for a model that autograd cannot see through."""
    return InvalidInput(
        f"{tuner} needs gradients through the model, but the model's output has none; "
        "call the network without no_grad or detach, or use a tuner without gradients, such as GITS"
    )


class Batches:
    """Indices of noises in shuffled order, each once in a pass; half as many at a time after memory has run out.

    Args:
        tuner: who works on them, for the warning's text.
        count: number of noises.
        size: noises in a batch, at most.
        rng: their order.
    """

    def __init__(self, tuner: str, count: int, size: int, rng: Stream) -> None:
        require(size >= 1, f"{tuner} needs batches of at least 1 noise, got {size}")
        self.tuner, self.count, self.size, self.rng = tuner, count, min(size, count), rng
        self._pass, self._place = 0, 0

    def run(self, work: Callable[[Tensor], None]) -> None:
        """Call `work` with the next batch of indices (b,); where memory runs out, halve the batch, warn and call it again."""
        while not self._done(work):
            self.size //= 2
            warnings.warn(
                f"{self.tuner} ran out of memory and goes on with batches of {self.size}; "
                "a smaller batch from the start, or a Checkpointed model, avoids that",
                RuntimeWarning,
                stacklevel=3,
            )

    def _done(self, work: Callable[[Tensor], None]) -> bool:
        if self._place + self.size > self.count:
            self._pass, self._place = self._pass + 1, 0
        order = self.rng.permutation(self.count, step=self._pass)
        try:
            work(order[self._place : self._place + self.size])
        except torch.OutOfMemoryError:
            if self.size == 1:
                raise
            return False
        self._place += self.size
        return True


def hand(leaves: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
    """Give each leaf its gradient, all of them shortened to norm 1 together."""
    for leaf, gradient in zip(leaves, gradients, strict=True):
        leaf.grad = gradient
    torch.nn.utils.clip_grad_norm_(leaves, 1.0)


class Descent:
    """One search by gradient descent.

    Args:
        tuner: its name.
        base: the plan to start from; same ends as the teacher.
        denoiser: the model, as the search shall call it.
        calibration: train and validation noises.
        seconds: wall time after which the search is `late`, or None.
        bar: progress to advance by one for each step.
        power: of the mean over validation samples; see `power_mean`.

    Attributes:
        model: the denoiser, which refuses to be without gradients.
        best: the best plan so far on the validation noises.
        end: when the search is late, on the monotonic clock, or None.
        step: steps so far.
    """

    def __init__(
        self,
        tuner: str,
        base: Plan,
        denoiser: Denoiser,
        calibration: Calibration,
        seconds: float | None,
        bar: Progress | None = None,
        power: float = 1.0,
    ) -> None:
        calibration.check_comparable(base)
        self.tuner, self.base, self.bar, self.step = tuner, base, bar, 0
        self._start, self._calls = time.monotonic(), denoiser.calls
        self.end = None if seconds is None else self._start + seconds
        self.model = Differentiable(denoiser, tuner)
        self.best = Best(base, denoiser, calibration.validation, power)

    @property
    def late(self) -> bool:
        """Whether the time is over."""
        return self.end is not None and time.monotonic() > self.end

    def advance(self) -> None:
        """Count a step."""
        self.step += 1
        if self.bar is not None:
            self.bar.advance(1, f"validation error {self.best.error:.4f}")

    def gradients(self, loss: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
        """Return the gradients of `loss` in `leaves`; nothing else, such as the network's weights, gets one.

        Raises:
            NotFinite: the loss is NaN or infinite.
            InvalidInput: the loss does not depend on the leaves for autograd.
        """
        if not math.isfinite(loss.item()):
            raise NotFinite(
                f"the loss of {self.tuner} became {loss.item()} at step {self.step}; lower the learning rate"
            )
        if not loss.requires_grad:
            raise without_gradients(self.tuner)
        found = torch.autograd.grad(loss, leaves, allow_unused=True)
        return [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True)]

    @torch.enable_grad()
    def descend(
        self,
        student: Callable[[], Plan],
        optimizer: torch.optim.Optimizer,
        loss: Callable[[Plan, Tensor], Tensor],
        batches: Batches,
        steps: int,
        check_every: int,
    ) -> None:
        """Take so many steps down the `loss` (plan, indices of noises) of the student's plan; rates fall to zero along a cosine.

        Where the time ends before the steps do, the cosine follows the clock.

        Every `check_every` steps, at the end and when late the plan is offered to `best`.
        """
        leaves = [leaf for group in optimizer.param_groups for leaf in group["params"]]
        began = time.monotonic()

        def done(k: int) -> float:
            clock = 0.0 if self.end is None else (time.monotonic() - began) / max(self.end - began, 1e-9)
            return min(max(k / steps, clock), 1.0)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 0.5 * (1 + math.cos(math.pi * done(k))))
        last, late = self.step + steps, False
        while self.step < last and not late:
            batches.run(lambda index: hand(leaves, self.gradients(loss(student(), index), leaves)))
            optimizer.step()
            schedule.step()
            self.advance()
            late = self.late
            if self.step % check_every == 0 or self.step == last or late:
                self.best.offer(self.step, student())

    def tuned(self, labelled: Callable[[Plan], Plan] | None = None) -> Tuned:
        """Return the best plan with its cost so far; `labelled` unless it is the base."""
        plan = self.best.plan
        if labelled is not None and plan is not self.base:
            plan = labelled(plan)
        return Tuned(plan, self.best.history, Cost(self.model.calls - self._calls, 0, time.monotonic() - self._start))
