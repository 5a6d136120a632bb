"""Adamax, as torch.optim has it, over the rules of this library."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from torch import Tensor

from ..formula import Rule
from .base import BETAS, FormulaOptimizer, Params
from .parts import modified


class Adamax(FormulaOptimizer):
    """AdaMax divides an average of the gradients by their largest recent size.

    For every element p with gradient g; t counts the parameter's steps from 1.

    AdaMax (Kingma and Ba 2015, Algorithm 2, arXiv:1412.6980):

        m = beta1 * m + (1 - beta1) * g
        u_inf = maximum(beta2 * u_inf, abs(g) + eps)
        direction = where(u_inf == 0, 0, m / u_inf)
        p = p - lr / (1 - beta1**t) * direction

    Args:
        params: the parameters, as tensors, as (name, tensor) pairs, or as dicts of parameter groups.
        lr: learning rate: the size of a step. In [0, inf). Default 0.002.
        betas: the pair (beta1, beta2). Default (0.9, 0.999).
            beta1: how much of m is kept each step. In [0, 1).
            beta2: how much of u_inf is kept each step. In [0, 1).
        eps: keeps u_inf from zero. In [0, inf). Default 1e-08.
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
        >>> optimizer = descend.Adamax(model.parameters(), lr=0.002)
        >>> model(torch.ones(2, 3)).sum().backward()
        >>> optimizer.step()
        >>> optimizer.zero_grad()
    """

    hyper_keys = BETAS
    family = ("adamax",)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        strict: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
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
        return modified(group, "adamax")
