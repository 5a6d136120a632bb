"""Lookahead: k steps forward, one step back."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch.optim import Optimizer

from ..formula import Hyper
from .base import Closure
from .swapping import Swapping
from .tensors import copy_, lerp_


class Lookahead(Swapping):
    """Lookahead: slow weights follow the fast ones every k steps, and the fast ones start again from there.

        fast = base(fast, g(fast))             k times
        slow = slow + alpha * (fast - slow)
        fast = slow

    Source: Zhang, Lucas, Hinton and Ba 2019, "Lookahead Optimizer: k steps forward, 1 step back", Algorithm
    1, arXiv:1907.08610. The base's own state (momentum) is kept across a synchronisation, as by default in
    the authors' code. `with opt.applied():` evaluates the slow weights, as the paper does. No deviations.

    Args:
        base: the optimizer of the fast weights.
        k: steps between synchronisations, a whole number from 1; `group["lookahead_k"]`.
        alpha: how far the slow weights go, in [0, 1]; 1 is the base alone; `group["lookahead_alpha"]`.

    >>> import torch
    >>> w = torch.nn.Parameter(torch.tensor([1.0]))
    >>> opt = Lookahead(torch.optim.SGD([w], lr=0.5), k=2, alpha=0.5)
    >>> for _ in range(2):
    ...     opt.zero_grad()
    ...     w.sum().backward()
    ...     opt.step()
    >>> w.item()  # the fast weights went from 1 to 0, the slow ones halfway
    0.5

    Raises:
        UsageError: k or alpha out of range.
    """

    tag = "lookahead"
    hypers: ClassVar = {
        "k": Hyper(5, "[1, inf)", "steps between synchronisations"),
        "alpha": Hyper(0.5, "[0, 1]", "step of the slow weights"),
    }
    counts: ClassVar = {"steps": 0}
    tensors = ("slow",)
    average = "slow"

    def __init__(self, base: Optimizer, k: int = 5, alpha: float = 0.5) -> None:
        super().__init__(base, k=k, alpha=alpha)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """Step the fast weights; after every k-th step, the slow ones."""
        self._refuse_while_applied("step()")
        for p in self._params():
            if "slow" not in self.kept[p]:
                self.kept[p]["slow"] = p.detach().clone(memory_format=torch.preserve_format)
        loss = self.base.step(closure)
        for group in self.param_groups:
            steps = self._get("steps", group) + 1
            if steps >= self._get("k", group):
                slow = [self.kept[p]["slow"] for p in group["params"]]
                lerp_(slow, group["params"], float(self._get("alpha", group)))
                copy_(group["params"], slow)
                steps = 0
            self._set("steps", steps, group)
        return loss
