"""What a descent tells while it runs, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

REASONS = (
    "step_limit",
    "epoch_limit",
    "time_limit",
    "converged",
    "no_progress",
    "target",
    "diverged",
    "interrupted",
)


@dataclass(frozen=True)
class Event:
    """Something that happened: `kind` is start, step, epoch, checkpoint, notice or stop.

    Attributes:
        step: steps done, from 1 after the first.
        total_steps: the limit of steps, where it is known.
        epoch: epochs done, with their fraction.
        total_epochs: the limit of epochs, where there is one.
        loss: the mean loss of the latest batch.
        lr: the learning rate of the step.
        grad_norm: the norm of the gradient before clipping, at steps that were logged.
        validation_loss, metrics: of the held-out part, where this event evaluated it.
        message: a plain sentence, for notices, checkpoints and the stop.
    """

    kind: str
    step: int
    total_steps: int | None
    epoch: float
    total_epochs: int | None
    loss: float
    lr: float
    grad_norm: float | None = None
    validation_loss: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    message: str = ""


Listener = Callable[[Event], None]


@dataclass
class Result:
    """How a descent ended.

    Attributes:
        reason: one of `REASONS`.
        explanation: the same as a sentence.
        steps, epochs, seconds: how long it went; the seconds of all parts of a resumed run together.
        loss: the mean training loss of the latest epoch.
        validation_loss, metrics: of the held-out part at the end; None and empty without one.
        best: step and loss at which the best weights were kept, and their metrics.
        notices: what the user should know.
        diverged: what became non-finite, at which step and batch, or None.
        signal: the number of the signal that interrupted it, or None.
        resumed: how many times the run was resumed.
        resumes: of each resume the step, whether it was exact, and why not.
        path: the run directory, or None.
        model: the module with its final weights.
        best_weights: the state dict of the best weights.
        history: the logged rows.
    """

    reason: str
    explanation: str
    steps: int
    epochs: float
    seconds: float
    loss: float
    validation_loss: float | None
    metrics: dict[str, float]
    best: dict[str, Any]
    notices: list[str]
    diverged: dict[str, Any] | None
    signal: int | None
    resumed: int
    resumes: list[dict[str, Any]]
    path: Path | None
    model: torch.nn.Module
    best_weights: dict[str, Any]
    history: list[dict[str, Any]]

    def recorded(self) -> dict[str, Any]:
        """What `result.json` holds."""
        left_out = ("path", "model", "best_weights", "history")
        return {key: value for key, value in vars(self).items() if key not in left_out}


@dataclass
class Minimum:
    """Where `minimize` ended.

    Attributes:
        point: the last point, in the form of the start: a tensor, a tuple of them, or a dict by name.
        value: the function there.
        path: the points on the way, at most about a thousand: dicts of step, x (a flat list) and loss.
        reason, explanation: why it stopped, as in `Result`.
        steps: updates done.
        best_point, best_value: the best that was seen.
        result: everything else.
    """

    point: Tensor | tuple[Tensor, ...] | dict[str, Tensor]
    value: float
    path: list[dict[str, Any]]
    reason: str
    explanation: str
    steps: int
    best_point: Tensor | tuple[Tensor, ...] | dict[str, Tensor]
    best_value: float
    result: Result
