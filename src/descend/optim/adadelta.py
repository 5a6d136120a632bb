"""Adadelta, as torch.optim has it, over the rules of this library."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from torch import Tensor

from ..formula import Rule
from .base import FormulaOptimizer, Params
from .parts import modified


class Adadelta(FormulaOptimizer):
    """Adadelta scales the gradient by the ratio of recent steps to recent gradients.

    For every element p with gradient g; t counts the parameter's steps from 1.

    Adadelta (Zeiler 2012, Algorithm 1, arXiv:1212.5701):

        v = rho * v + (1 - rho) * g**2
        step = sqrt(d + eps) / sqrt(v + eps) * g
        d = rho * d + (1 - rho) * step**2
        p = p - lr * step

    Args:
        params: the parameters, as tensors, as (name, tensor) pairs, or as dicts of parameter groups.
        lr: multiplies the step; 1 in the paper. In [0, inf). Default 1.0.
        rho: how much of both averages is kept each step. In [0, 1], sensibly in [0, 1). Default 0.9.
        eps: starts the steps off; keeps both roots from zero. In [0, inf). Default 1e-06.
        weight_decay: strength of the L2 penalty. In [0, inf). Default 0.
        foreach: torch's choice of an implementation; every step is fused here, whatever it says.
        capturable: must stay False: the scalars of a step are computed on the host.
        maximize: climb instead of descend.
        differentiable: let autograd record the step (on the torch back end, which is slower).
        strict: refuse values that are allowed but make no sense, instead of warning.

    Raises:
        UsageError: (a ValueError) a value out of range, or a group key that is nearly an option's.

    Example:
        >>> import torch, descend
        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = descend.Adadelta(model.parameters(), lr=1.0)
        >>> model(torch.ones(2, 3)).sum().backward()
        >>> optimizer.step()
        >>> optimizer.zero_grad()
    """

    family = ("adadelta",)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
        strict: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "capturable": capturable,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults, strict=strict)

    def _variant(self, group: Mapping[str, Any]) -> Hashable:
        return group["maximize"], group["differentiable"], bool(group["weight_decay"])

    def _rule(self, group: Mapping[str, Any]) -> Rule:
        return modified(group, "adadelta")
