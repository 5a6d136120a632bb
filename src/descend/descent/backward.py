"""The backward pass of a scalar loss, without the checks that `Tensor.backward` repeats at every step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# What torch.autograd.backward itself ends in. Its checks are a tenth of a small network's step.
_engine: Any = getattr(torch.autograd.Variable, "_execution_engine", None)


class Backward:
    """`loss.backward()`, to the bit: for a plain scalar straight to autograd's engine, else the usual way."""

    def __init__(self) -> None:
        self._one: Tensor | None = None

    def __call__(self, loss: Tensor) -> None:
        one = self._one
        if one is None or one.dtype is not loss.dtype or one.device != loss.device:
            one = self._one = torch.ones((), dtype=loss.dtype, device=loss.device)
        if _engine is None or type(loss) is not Tensor or loss.dim() or loss.is_complex():
            loss.backward()  # type: ignore[no-untyped-call]
            return
        _engine.run_backward((loss,), (one,), False, False, (), allow_unreachable=True, accumulate_grad=True)
