"""What guards a descent: signals that let it finish its step, and checks that nothing became non-finite."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Sequence
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor

# A loss this many times the first one (or 1, if that is larger) is an explosion, though it is still finite.
EXPLOSION = 1e10


class Signals:
    """Catches SIGINT and SIGTERM while it is entered: the first is noted, a second ends the process at once.

    Handlers can only be set in the main thread; elsewhere this does nothing. They are put back on leaving.
    """

    def __init__(self) -> None:
        self.caught: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.caught is not None:
            os._exit(128 + number)
        self.caught = number


class FiniteCheck:
    """Says whether all gradients are finite, in one pass over them on their own device."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = parameters
        devices = {parameter.device for parameter in parameters}
        dense = all(p.dtype in (torch.float32, torch.float64) for p in parameters)
        self._together = len(devices) == 1 and dense
        device = next(iter(devices))
        self._flag = torch.zeros((), dtype=torch.float32, device=device)
        self._one = torch.ones((), dtype=torch.float32, device=device)

    def __call__(self) -> bool:
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if self._together:
            try:
                # What torch.amp.GradScaler runs, with a scale of 1: the gradients keep their bits.
                torch._amp_foreach_non_finite_check_and_unscale_(gradients, self._flag, self._one)
            except RuntimeError:  # sparse gradients, which it does not take
                self._together = False
            else:
                if self._flag.item() == 0.0:
                    return True
                self._flag.zero_()
                return False
        return all_finite(gradients)


def all_finite(tensors: Iterable[Any]) -> bool:
    """Whether every floating-point tensor among `tensors` holds finite numbers only."""
    for value in tensors:
        if isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex()):
            dense = value._values() if value.is_sparse else value
            if not bool(torch.isfinite(dense).all()):
                return False
    return True
