"""Stochastic weight averaging: the plain mean of the weights along the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn
from torch.optim import Optimizer

from ..formula import Hyper
from .averaging import Averaging


class SWA(Averaging):
    """SWA: the mean of the weights, of every `every`-th step after the first `start`.

        w = base(w, g(w))
        average = (average * n + w) / (n + 1);  n = n + 1

    Source: Izmailov, Podoprikhin, Garipov, Vetrov and Wilson 2018, "Averaging Weights Leads to Wider Optima
    and Better Generalization", Algorithm 1, arXiv:1803.05407; `every` is its cycle length c in steps. The
    same as torch.optim.swa_utils.AveragedModel, updated after those steps.

    Deviations: the weights that the averaging starts from are not in the mean (as in torch; the paper counts
    them), and the mean of half-precision weights is float32. The learning rate is the schedule's business:
    the paper's is constant or cyclic (torch.optim.swa_utils.SWALR).

    Batch normalisation needs statistics of the averaged weights: inside `applied()`, run
    `torch.optim.swa_utils.update_bn(loader, model)`; or give `model`, and the buffers are averaged like the
    weights.

    Args:
        base: the optimizer that trains.
        start: the steps before the averaging, a whole number from 0; `group["swa_start"]`.
        every: steps from one averaged weight to the next, a whole number from 1; `group["swa_every"]`.
        model: average its buffers too (integers are copied). Without it, the buffers stay as they are.

    >>> import torch
    >>> w = torch.nn.Parameter(torch.tensor([4.0]))
    >>> opt = SWA(torch.optim.SGD([w], lr=1.0), start=1)
    >>> for _ in range(3):
    ...     opt.zero_grad()
    ...     w.sum().backward()
    ...     opt.step()
    >>> with opt.applied():
    ...     w.item()  # the mean of 2 and 1
    1.5

    Raises:
        UsageError: a value out of range; step() or state_dict() while the average is in place.
    """

    tag = "swa"
    hypers: ClassVar = {
        "start": Hyper(0, "[0, inf)", "steps before the averaging"),
        "every": Hyper(1, "[1, inf)", "steps from one averaged weight to the next"),
    }

    def __init__(
        self, base: Optimizer, start: int = 0, every: int = 1, *, model: nn.Module | None = None
    ) -> None:
        super().__init__(base, model, start=start, every=every)

    def _weight(self, group: Mapping[str, Any], steps: int, averaged: int) -> float | None:
        since = steps - self._get("start", group)
        if since <= 0 or since % self._get("every", group):
            return None
        return 1 / (averaged + 1)
