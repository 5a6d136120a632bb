"""ASGD, as torch.optim has it, over the rules of this library."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from torch import Tensor

from ..formula import Rule
from .base import FormulaOptimizer, Params
from .parts import modified


class ASGD(FormulaOptimizer):
    """Averaged SGD steps with a falling rate and keeps the average of the points it passes.

    For every element p with gradient g; t counts the parameter's steps from 1.

    Averaged SGD (Polyak and Juditsky 1992; Xu 2011, arXiv:1107.2490):

        p = p - eta * (g + lambd * p)
        ax = where(mu == 1, p, ax + mu * (p - ax))
        eta = lr / (1 + lambd * lr * t) ** alpha
        mu = 1 / maximum(1, t - t0)

    Args:
        params: the parameters, as tensors, as (name, tensor) pairs, or as dicts of parameter groups.
        lr: learning rate of the first step. In [0, inf). Default 0.01.
        lambd: decay of p, and how fast the rate falls. In (-inf, inf), sensibly in [0, inf). Default 0.0001.
        alpha: power by which the rate falls. In (-inf, inf), sensibly in [0, inf). Default 0.75.
        t0: step at which averaging starts. In (-inf, inf), sensibly in [0, inf). Default 1000000.0.
        weight_decay: strength of the L2 penalty. In [0, inf). Default 0.
        foreach: torch's choice of an implementation; every step is fused here, whatever it says.
        maximize: climb instead of descend.
        differentiable: let autograd record the step (on the torch back end, which is slower).
        capturable: must stay False: the scalars of a step are computed on the host.
        strict: refuse values that are allowed but make no sense, instead of warning.

    Raises:
        UsageError: (a ValueError) a value out of range, or a group key that is nearly an option's.

    Example:
        >>> import torch, descend
        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = descend.ASGD(model.parameters(), lr=0.01)
        >>> model(torch.ones(2, 3)).sum().backward()
        >>> optimizer.step()
        >>> optimizer.zero_grad()
    """

    family = ("asgd",)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        *,
        strict: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "lambd": lambd,
            "alpha": alpha,
            "t0": t0,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults, strict=strict)

    def _variant(self, group: Mapping[str, Any]) -> Hashable:
        return group["maximize"], group["differentiable"], bool(group["weight_decay"])

    def _rule(self, group: Mapping[str, Any]) -> Rule:
        return modified(group, "asgd")
