"""The exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn
from torch.optim import Optimizer

from ..formula import Hyper
from .averaging import Averaging


class EMA(Averaging):
    """EMA: an exponential moving average of the weights, to evaluate and to publish.

        w = base(w, g(w))
        average = decay * average + (1 - decay) * w

    The average starts at the weights before the first step. With `bias_correction` it starts at nothing, and
    is divided by 1 - decay**t as Adam's averages are, so that the first weights do not linger: then the
    weight of the t-th is (1 - decay) / (1 - decay**t) instead of 1 - decay.

    Source: Polyak and Juditsky 1992, "Acceleration of Stochastic Approximation by Averaging", with
    exponential weights as in Tarvainen and Valpola 2017, arXiv:1703.01780, section 2; the correction is that
    of Kingma and Ba 2015, section 3, arXiv:1412.6980. The same as torch.optim.swa_utils.AveragedModel with
    get_ema_multi_avg_fn, where that is updated once before the first step.

    Deviation: the average of half-precision weights is float32, where it would round to nothing otherwise.

    Args:
        base: the optimizer that trains.
        decay: how much of the average stays at a step, in [0, 1]; 0 is the weights; `group["ema_decay"]`.
        bias_correction: whether the average forgets where it started.
        model: average its buffers too (integers are copied). Without it, the buffers stay as they are.

    >>> import torch
    >>> w = torch.nn.Parameter(torch.tensor([1.0]))
    >>> opt = EMA(torch.optim.SGD([w], lr=0.5), decay=0.5)
    >>> w.sum().backward()
    >>> opt.step()
    >>> with opt.applied():
    ...     w.item()  # halfway from 1 to 0.5
    0.75
    >>> w.item()
    0.5

    Raises:
        UsageError: decay out of range; step() or state_dict() while the average is in place.
    """

    tag = "ema"
    hypers: ClassVar = {"decay": Hyper(0.999, "[0, 1]", "what stays of the average")}

    def __init__(
        self,
        base: Optimizer,
        decay: float = 0.999,
        *,
        bias_correction: bool = False,
        model: nn.Module | None = None,
    ) -> None:
        self.bias_correction = bias_correction
        super().__init__(base, model, decay=decay)

    def _before(self) -> None:
        self._start(self._params())

    def _weight(self, group: Mapping[str, Any], steps: int, averaged: int) -> float:
        decay = float(self._get("decay", group))
        if not self.bias_correction:
            return 1 - decay
        return (1 - decay) / (1 - decay**steps) if decay < 1 else 1 / steps
