"""Optimizers that evaluate the loss themselves, as L-BFGS does: their step, guarded."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .guards import FiniteCheck


class NotFiniteError(Exception):
    """A closure met a value that is not finite; the weights are as they were before the step."""


def needed(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer's step cannot do without a closure."""
    argument = inspect.signature(type(optimizer).step).parameters.get("closure")
    return argument is not None and argument.default is inspect.Parameter.empty


def step(
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[Tensor],
    value: float,
    gradient: Callable[[], float],
    finite: FiniteCheck,
) -> None:
    """One step of an optimizer that needs a closure.

    Args:
        optimizer, parameters: who steps, and on what.
        value: the loss here; its gradient is in place already.
        gradient: puts the gradient at the present weights in place, and returns the loss.
        finite: says whether that gradient is finite.

    Raises:
        NotFiniteError: on its way the optimizer came to a loss or gradient that is not finite.
    """
    before = [p.detach().clone() for p in parameters]
    asked = 0

    def closure() -> Tensor:
        nonlocal asked
        asked += 1
        found = value
        if asked > 1:
            optimizer.zero_grad()
            found = gradient()
            if not (math.isfinite(found) and finite()):
                raise NotFiniteError
        return torch.tensor(found)

    try:
        optimizer.step(closure)  # type: ignore[arg-type]
    except NotFiniteError:
        with torch.no_grad():
            for p, old in zip(parameters, before, strict=True):
                p.copy_(old)
        raise
