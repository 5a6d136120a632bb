"""The loop: from a window of samples to an update, a row of history, an event. It never prints."""

from __future__ import annotations

import math
import signal as signals_of_system
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import record
from ..errors import DataError, UsageError
from . import closures
from .backward import Backward
from .checkpoint import Every
from .ending import conclude, diverged, result, sentence
from .events import Event, Result
from .exact import Progress, captured, restored
from .guards import EXPLOSION, FiniteCheck, Signals
from .objectives import Objective, Part
from .recording import Place, Recorder
from .scheduling import Schedules
from .state import random_state, seed_everything, set_random_state
from .stopping import Stop, Verdict
from .threads import on_threads

# A path keeps at most this many points: where it gets longer, every second one is dropped.
PATH_POINTS = 1000


class Descent:
    """A descent as an iterator of events; `result` holds the outcome once it has ended.

        descent = Descent(objective, optimizer, stop=Stop(epochs=10))
        for event in descent:
            print(event.step, event.loss)

    Most people get one from `prepare`, which takes names and paths. A descent runs once. While it runs,
    torch's, NumPy's and Python's global generators are its own, seeded from `seed`; afterwards they are as
    before. SIGINT and SIGTERM let it finish its step and save.

    Args:
        objective: what to descend.
        optimizer: any `torch.optim.Optimizer` over the parameters of `objective.module`.
        stop: when to stop.
        schedules: the schedules of the optimizer's hyper-parameters.
        clip_norm: the norm that the whole gradient is clipped to.
        seed: of everything random that is no sample's own.
        log_every: steps between two rows of the history.
        checkpoint_every: when to save; None only saves at the start and at an interruption.
        place: where the run is recorded; None records nothing on disk.
        notices: what the user should know, passed on.
        trace: whether the path of the parameters is kept.
        surface: makes the content of `surface.json` from the descent at its end, or None.

    Raises:
        UsageError, StorageError, DataError: from the iteration; each says what to do.
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        *,
        stop: Stop | None = None,
        schedules: Schedules | None = None,
        clip_norm: float | None = None,
        seed: int = 0,
        log_every: int = 1,
        checkpoint_every: Every | None = None,
        place: Place | None = None,
        notices: Sequence[str] = (),
        trace: bool = False,
        surface: Callable[[Descent], dict[str, Any] | None] | None = None,
        threads: int | None = None,
    ) -> None:
        self.objective = objective
        self.module = objective.module
        self.optimizer = optimizer
        self.stop = stop or Stop(epochs=1)
        self.schedules = schedules or Schedules(optimizer, None, None)
        self.clip_norm = clip_norm
        self.seed = seed
        self.log_every = log_every
        self.recorder = Recorder(place, checkpoint_every)
        self.notices = list(notices)
        self.asked_notices = tuple(notices)
        self.trace = trace
        self.surface = surface
        self.threads = threads
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.progress = Progress()
        self.best: dict[str, Any] = {}
        self.verdict: Verdict | None = None
        self.diverged: dict[str, Any] | None = None
        self.signal: int | None = None
        self.result: Result | None = None
        self._restore: dict[str, Any] | None = None
        self._used = False
        self._started = 0.0
        self._ceiling = math.inf
        self._finite = FiniteCheck(self.parameters)
        self._backward = Backward()
        self._needs_closure = closures.needed(optimizer)
        # One step an epoch and nothing held out: the loss before an update is that of the weights as they
        # are.
        self._exact = objective.steps_per_epoch == 1 and getattr(objective, "validation", None) is None

    @property
    def total_steps(self) -> int | None:
        """The number of steps that the limits allow, where they say."""
        limits = [] if self.stop.steps is None else [self.stop.steps]
        if self.stop.epochs is not None:
            limits.append(self.stop.epochs * self.objective.steps_per_epoch)
        return min(limits, default=None)

    @property
    def epoch(self) -> float:
        """Epochs done, with their fraction."""
        return self.progress.epoch + self.progress.position / self.objective.steps_per_epoch

    @property
    def seconds(self) -> float:
        """Seconds of all parts of the run."""
        return self.progress.seconds + time.monotonic() - self._started

    def resume(self, directory: record.RunDirectory) -> None:
        """Makes this descent continue the run in `directory` from its last sound checkpoint.

        Raises:
            StorageError: there is none.
            UsageError: the run is of another model or rule.
        """
        step, tree, damaged = self.recorder.adopt(directory)
        self._restore = tree
        before = random_state()
        with on_threads(self.threads):
            differences = restored(self, tree)
        set_random_state(before)
        says = f"not exact: {'; '.join(differences)}" if differences else "exact"
        self.recorder.resumed(
            {"step": step, "exact": not differences, "why": differences, "damaged": damaged}
        )
        self.notices += [*damaged, f"resumed from step {step:,}: {says}"]

    def __iter__(self) -> Iterator[Event]:
        if self._used:
            raise UsageError("a descent runs once; prepare another one")
        self._used = True
        before = random_state()
        with Signals() as signals, on_threads(self.threads):
            try:
                yield from self._events(signals)
            finally:
                set_random_state(before)
                self.recorder.close()

    def _events(self, signals: Signals) -> Iterator[Event]:
        self._started = time.monotonic()
        if self._restore is not None:
            set_random_state(self._restore["random"])
            self._restore = None
        else:
            seed_everything(self.seed)
            self.keep_best(math.inf, {})
            self._trace()
        self.recorder.begin(self._captured)
        self._set_ceiling()
        yield self.event("start")
        for notice in self.notices:
            yield self.event("notice", message=notice)
        self.verdict = self.stop.limit(self.progress.step, self.progress.epoch, self.seconds)
        row: dict[str, Any] | None = None
        while self.verdict is None:
            row = yield from self._epoch(signals)
        step = self.progress.step
        if self.verdict.reason == "interrupted" and self.recorder.save(step, self._captured):
            yield self.event("checkpoint", message=f"saved at step {step:,}")
        row = conclude(self, row)
        if row is not None:
            yield self._logged(row, "epoch")
        self.result = result(self)
        yield self.event("stop", message=self.result.explanation)

    def _epoch(self, signals: Signals) -> Generator[Event, None, dict[str, Any] | None]:
        """Runs to the end of the epoch or of the descent; returns the row that is still to be logged then."""
        progress, epoch = self.progress, self.progress.epoch
        step_limit = math.inf if self.stop.steps is None else self.stop.steps
        deadline, now = math.inf, time.monotonic
        if self.stop.minutes is not None:
            deadline = self._started + 60.0 * self.stop.minutes - progress.seconds
        for window in self.objective.windows(epoch, progress.position):
            row = self._update(window)
            kind = "step"
            if progress.position == self.objective.steps_per_epoch and self.verdict is None:
                row, kind = self._epoch_ended(row), "epoch"
            if self.verdict is None:
                if progress.step >= step_limit or now() >= deadline:
                    self.verdict = self.stop.limit(progress.step, progress.epoch, self.seconds)
                elif signals.caught is not None:
                    self.signal = signals.caught
                    name = signals_of_system.Signals(self.signal).name
                    self.verdict = Verdict("interrupted", f"{name} was received, the step finished")
            if self.verdict is not None and self.verdict.reason != "interrupted":
                return row
            if row is not None:
                yield self._logged(row, kind)
            if self.verdict is not None:
                return None
            if self.recorder.due(progress) and self.recorder.save(progress.step, self._captured):
                yield self.event("checkpoint", message=f"saved at step {progress.step:,}")
        if progress.epoch == epoch:
            raise DataError(
                f"epoch {epoch + 1}: the data gave {progress.position} of "
                f"{self.objective.steps_per_epoch} batches; their length must not change"
            )
        return None

    def _update(self, window: list[Part]) -> dict[str, Any] | None:
        """One step; its row of history where it is logged. Values that are not finite set the verdict."""
        progress = self.progress
        self.schedules.before(progress.step)
        logged = (progress.step + 1) % self.log_every == 0
        self.optimizer.zero_grad()
        value, size = self._gradient(window)
        norm: float | None = None
        if self.clip_norm is not None:
            norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.clip_norm))
            finite = math.isfinite(norm)
        else:
            finite = self._finite()
            if finite and (logged or (self._exact and self.stop.tolerance is not None)):
                norm = float(
                    torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
                )
        if not (-self._ceiling < value < self._ceiling and finite):
            self._diverge(window, value, finite)
            return None
        progress.loss = value
        if progress.first_loss is None:
            progress.first_loss = value
            self._set_ceiling()
        if self._exact and self._good_enough(value, norm):
            return None if progress.logged == progress.step else self.row(norm)
        try:
            if self._needs_closure:
                closures.step(
                    self.optimizer, self.parameters, value, lambda: self._gradient(window)[0], self._finite
                )
            else:
                self.optimizer.step()
        except closures.NotFiniteError:
            self._diverge(window, math.nan, finite=False)
            return None
        self.schedules.after()
        progress.step += 1
        progress.position += 1
        progress.loss_sum += value * size
        progress.loss_count += size
        if self.trace:
            self._trace()
        return self.row(norm) if logged else None

    def _diverge(self, window: list[Part], value: float, finite: bool) -> None:
        self.diverged = diverged(self, window, value, finite)
        self.verdict = Verdict("diverged", sentence(self.diverged, value))

    def _gradient(self, window: list[Part]) -> tuple[float, int]:
        """Adds the gradient of the window's mean loss to `.grad`; the loss, and the number of samples."""
        objective = self.objective
        if len(window) == 1:
            loss = objective.loss(window[0])
            self._backward(loss)
            return loss.item(), objective.size(window[0])
        sizes = [objective.size(part) for part in window]
        total, value = sum(sizes), 0.0
        for part, size in zip(window, sizes, strict=True):
            loss = objective.loss(part) * (size / total)
            self._backward(loss)
            value += loss.item()
        return value, total

    def _good_enough(self, value: float, norm: float | None) -> bool:
        """Looks at the weights as they are, before an update that would change them."""
        if value < self.progress.best_value:
            self.keep_best(value, {})
        measured = self.objective.sign * value
        self.verdict = self.stop.reached({"loss": measured, "train_loss": measured})
        if self.verdict is None and norm is not None and self.objective.unit == "step":
            self.verdict = self.stop.converged(norm)
        return self.verdict is not None

    def _epoch_ended(self, row: dict[str, Any] | None) -> dict[str, Any] | None:
        progress = self.progress
        train_loss = progress.train_loss = progress.loss_sum / progress.loss_count
        progress.epoch, progress.position = progress.epoch + 1, 0
        progress.loss_sum, progress.loss_count = 0.0, 0
        values = self.evaluate()
        watched = values.get("validation_loss", train_loss)
        if not self._exact and watched < progress.best_value:
            self.keep_best(watched, values)
        self.schedules.epoch_ended(watched)
        if self.stop.improved(watched, progress.reference):
            progress.reference, progress.waited = watched, 0
        else:
            progress.waited += 1
        what = "held-out loss" if values else "value" if self.objective.unit == "step" else "training loss"
        self.verdict = self.verdict or self.stop.reached({"train_loss": train_loss, **values})
        if self.verdict is None and self.stop.tolerance is not None:
            norm = self.objective.full_gradient_norm()
            self.verdict = None if norm is None else self.stop.converged(norm)
        self.verdict = self.verdict or self.stop.stalled(progress.waited, what, self.objective.unit)
        self.verdict = self.verdict or self.stop.limit(progress.step, progress.epoch, 0.0)
        if row is None and (values or self.objective.steps_per_epoch > 1):
            row = self.row(None)
        if row is not None:
            row["epoch"] = self.epoch
            row.update({"train_loss": train_loss, **values} if self.objective.unit == "epoch" else {})
        return row

    def evaluate(self) -> dict[str, float]:
        """The values of the held-out part now, which the progress remembers."""
        values = self.objective.evaluate()
        self.progress.evaluated, self.progress.evaluated_step = values, self.progress.step
        return values

    def keep_best(self, value: float, values: dict[str, float]) -> None:
        """Remembers the weights as they are as the best so far."""
        progress = self.progress
        progress.best_value, progress.best_step, progress.best_values = value, progress.step, values
        self.best = {
            key: part.detach().clone() if isinstance(part, Tensor) else part
            for key, part in self.module.state_dict().items()
        }

    def _trace(self) -> None:
        progress = self.progress
        if not self.trace or progress.step % progress.stride:
            return
        progress.points.append([progress.step, *self.flat()])
        if len(progress.points) > PATH_POINTS:
            progress.points = progress.points[::2]
            progress.stride *= 2

    def flat(self) -> list[float]:
        """All parameters as one list of numbers."""
        return [number for p in self.parameters for number in p.detach().reshape(-1).tolist()]

    def event(self, kind: str, row: Mapping[str, Any] | None = None, message: str = "") -> Event:
        """An event of now; `row` adds what was measured."""
        row = row or {}
        prefix = "validation_"
        return Event(
            kind,
            self.progress.step,
            self.total_steps,
            self.epoch,
            self.stop.epochs,
            self.objective.sign * self.progress.loss,
            self._lr(),
            row.get("grad_norm"),
            row.get("validation_loss"),
            {k[len(prefix) :]: v for k, v in row.items() if k.startswith(prefix) and k != "validation_loss"},
            message,
        )

    def _lr(self) -> float:
        return float(self.optimizer.param_groups[0].get("lr", math.nan))

    def row(self, norm: float | None) -> dict[str, Any]:
        """A row of the history as of now."""
        row: dict[str, Any] = {
            "step": self.progress.step,
            "epoch": self.epoch,
            "loss": self.objective.sign * self.progress.loss,
            "lr": self._lr(),
        }
        if norm is not None:
            row["grad_norm"] = norm
        row.update(self.schedules.values())
        return row

    def _logged(self, row: dict[str, Any], kind: str) -> Event:
        self.progress.logged = self.progress.step
        self.recorder.log(row)
        return self.event(kind, row)

    def _captured(self) -> dict[str, Any]:
        tree = captured(self)
        tree["progress"]["seconds"] = self.seconds
        return tree

    def _set_ceiling(self) -> None:
        first = self.progress.first_loss
        self._ceiling = math.inf if first is None else EXPLOSION * max(1.0, abs(first))
