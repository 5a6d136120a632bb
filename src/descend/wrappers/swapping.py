"""Wrappers that keep other weights beside the trained ones, and put them in place to be evaluated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..errors import UsageError
from .base import Wrapper
from .tensors import copy_


class Swapping(Wrapper):
    """A wrapper with weights to evaluate in `kept[p][average]`."""

    average: ClassVar[str]

    def __init__(self, base: Optimizer, **values: float) -> None:
        self._applied = False
        super().__init__(base, **values)

    def _pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        """What lies in the model, and what takes its place."""
        params = [p for p in self._params() if self.average in self.kept.get(p, {})]
        return params, [self.kept[p][self.average] for p in params]

    def _refuse_while_applied(self, what: str) -> None:
        if self._applied:
            raise UsageError(
                f"{what} inside `with {type(self).__name__}.applied()`: the averaged weights are in place "
                "there, not the trained ones; leave the block first"
            )

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The averaged weights are in place inside the `with` block; afterwards the trained ones, to the bit.

        Before there is an average, the weights stay as they are.
        """
        if self._applied:
            yield
            return
        live, averages = self._pairs()
        with torch.no_grad():
            trained = [t.detach().clone(memory_format=torch.preserve_format) for t in live]
            copy_(live, averages)
        self._applied = True
        try:
            yield
        finally:
            self._applied = False
            with torch.no_grad():
                copy_(live, trained)

    def state_dict(self) -> dict[str, Any]:
        """The state dict; outside applied() only, where the model holds the weights that belong to it."""
        self._refuse_while_applied("state_dict()")
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a state dict was taken; outside applied() only."""
        self._refuse_while_applied("load_state_dict()")
        super().load_state_dict(state_dict)
