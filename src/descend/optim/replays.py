"""When a step is written down to be replayed, and for how long it pays."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from ..kernels.cpu.replay import Replay
from ..kernels.plans import CpuPlan, TorchPlan
from .checks import Where

CALM = 8
"""Steps through Python, of the same plans, after which one is written down."""


class Replays:
    """The replays of an optimizer's plans; `again` takes a step that has been written down, if it can.

    To write one down costs as much as twenty small steps. Where one is soon given up, the next comes later.
    """

    def __init__(self) -> None:
        self.again: Callable[..., bool] = _never
        self._replay: Replay | None = None
        self._steps, self._patience = 0, CALM

    def leave(self) -> None:
        """Give up what was written down: this step goes through Python."""
        if self._replay is not None:
            if self._replay.taken < self._patience:
                self._patience *= 2
            self.again, self._replay, self._steps = _never, None, 0

    def note(self, write_down: Callable[[], Replay | None]) -> None:
        """A step went through Python; if it was one of many, let `write_down` make a replay of it."""
        self._steps += 1
        if self._steps < self._patience:
            return
        self._steps, self._replay = 0, write_down()
        if self._replay is None:
            self._patience *= 2
        else:
            self.again = self._replay.again


def replay_of(
    optimizer: Optimizer,
    plans: Sequence[CpuPlan | TorchPlan],
    keys: Mapping[str, Where],
    changes: ctypes.c_int64,
    seen: int,
) -> Replay | None:
    """The replay of the step that an optimizer's plans took last, or None where it cannot be one.

    `keys` says where a group keeps hyper-parameters under another name than their own; `changes` counts the
    changed states, and was `seen` when the plans were made.
    """
    items = [[*group.items()] for group in optimizer.param_groups]
    if sum(bool(plan.program.meets) for plan in plans) > 1:
        return None  # such plans take their passes side by side, with Python between
    notes = [note for note in (plan.notes(keys) for plan in plans) if note is not None]
    if not notes or len(notes) < len(plans):
        return None
    own = (optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks)
    common = (_global_optimizer_pre_hooks, _global_optimizer_post_hooks)
    found = Replay.of(notes, optimizer.param_groups, optimizer.defaults, own, common, changes, seen)
    # another thread may have come in between
    now = [[*group.items()] for group in optimizer.param_groups]
    return found if [*map(_ids, now)] == [*map(_ids, items)] else None


def _ids(items: list[tuple[str, Any]]) -> list[tuple[int, int]]:
    return [(id(key), id(value)) for key, value in items]


def _never(*_: Any) -> bool:
    """No step has been written down."""
    return False
