"""The whole state of a descent, to the bit: taken for a checkpoint, put back by a resume, and compared."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import StorageError, UsageError
from .state import random_state, same, set_random_state

if TYPE_CHECKING:
    from .loop import Descent


@dataclass
class Progress:
    """Where a descent stands. Everything that decides what comes next is here, and goes into the checkpoints.

    Attributes:
        step, epoch, position: updates done; whole epochs done; updates done in the epoch under way.
        loss: of the latest batch.
        loss_sum, loss_count: over the epoch under way: batch losses times their samples, and the samples.
        train_loss: the mean of the latest whole epoch.
        first_loss: of the first batch.
        best_value, best_step, best_values: the lowest loss watched, where, and what else was measured there.
        reference, waited: the loss that counts as progress to fall below, and the epochs since one did.
        evaluated, evaluated_step: the latest values of the held-out part, and when.
        logged: the step of the latest row of the history.
        seconds: of all parts of the run.
        points, stride: the path of a small problem: [step, x, ...] every `stride` steps.
    """

    step: int = 0
    epoch: int = 0
    position: int = 0
    loss: float = float("nan")
    loss_sum: float = 0.0
    loss_count: int = 0
    train_loss: float = float("nan")
    first_loss: float | None = None
    best_value: float = float("inf")
    best_step: int = 0
    best_values: dict[str, float] = field(default_factory=dict)
    reference: float = float("inf")
    waited: int = 0
    evaluated: dict[str, float] = field(default_factory=dict)
    evaluated_step: int = -1
    logged: int = -1
    seconds: float = 0.0
    points: list[list[float]] = field(default_factory=list)
    stride: int = 1


def environment(module: torch.nn.Module) -> dict[str, Any]:
    """What decides the last bits of a result besides the state."""
    from .. import __version__

    device = next(module.parameters()).device
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "descend": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "device": f"{device.type} ({where})",
        "threads": torch.get_num_threads(),
        "matmul precision": torch.get_float32_matmul_precision(),
    }


def captured(descent: Descent) -> dict[str, Any]:
    """The state of a descent between two steps."""
    return {
        "progress": asdict(descent.progress),
        "model": descent.module.state_dict(),
        "best": descent.best,
        "optimizer": descent.optimizer.state_dict(),
        "schedules": descent.schedules.state(),
        "random": random_state(),
        "environment": environment(descent.module),
        "history": descent.recorder.length,
    }


def restored(descent: Descent, tree: dict[str, Any]) -> list[str]:
    """Puts a captured state back into a descent made from the same configuration.

    Returns:
        Why the continuation will not be exact to the bit; empty where it will be.

    Raises:
        UsageError: the checkpoint is of another model or optimizer.
        StorageError: it lacks a part.
    """
    try:
        try:
            descent.module.load_state_dict(tree["model"])
            descent.optimizer.load_state_dict(tree["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise UsageError(f"the checkpoint is not of this model and rule: {error}") from error
        descent.schedules.load(tree["schedules"])
        descent.progress = Progress(**tree["progress"])
        descent.best = tree["best"]
        set_random_state(tree["random"])
        before = tree["environment"]
    except (KeyError, TypeError) as error:
        raise StorageError(f"the checkpoint cannot be used by this version: {error}") from error
    now = environment(descent.module)
    differences = [
        f"{key} was {before.get(key)}, is {value}" for key, value in now.items() if before.get(key) != value
    ]
    for part, state in (
        ("the model", (descent.module.state_dict(), tree["model"])),
        ("the optimizer", (descent.optimizer.state_dict(), tree["optimizer"])),
        ("the schedule", (descent.schedules.state(), tree["schedules"])),
        ("the random state", (random_state(), tree["random"])),
    ):
        if not same(*state):
            differences.append(f"{part} did not take its state back to the bit")
    return differences
