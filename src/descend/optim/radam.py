"""RAdam, as torch.optim has it, over the rules of this library."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from torch import Tensor

from ..formula import Rule
from .base import BETAS, FormulaOptimizer, Params
from .parts import decoupled, modified


class RAdam(FormulaOptimizer):
    """RAdam is Adam that waits to divide by v until v can be trusted.

    For every element p with gradient g; t counts the parameter's steps from 1.

    RAdam (Liu et al. 2020, Algorithm 2, arXiv:1908.03265):

        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = m / (1 - beta1**t)
        rho_inf = 2 / (1 - beta2) - 1
        rho = rho_inf - 2 * t * beta2**t / (1 - beta2**t)
        r = sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
        l = sqrt(1 - beta2**t) / (sqrt(v) + eps)
        p = p - where(rho > 5, lr * r * l * m_hat, lr * m_hat)

    Args:
        params: the parameters, as tensors, as (name, tensor) pairs, or as dicts of parameter groups.
        lr: learning rate. In [0, inf). Default 0.001.
        betas: the pair (beta1, beta2). Default (0.9, 0.999).
            beta1: how much of m is kept each step. In [0, 1).
            beta2: how much of v is kept each step. In [0, 1).
        eps: keeps the division finite where v is zero. In [0, inf). Default 1e-08.
        weight_decay: strength of the L2 penalty. In [0, inf). Default 0.
        decoupled_weight_decay: let the weights decay by themselves, p = p - lr * weight_decay * p, instead of
            through the gradient.
        foreach: torch's choice of an implementation; every step is fused here, whatever it says.
        maximize: climb instead of descend.
        capturable: must stay False: the scalars of a step are computed on the host.
        differentiable: let autograd record the step (on the torch back end, which is slower).
        strict: refuse values that are allowed but make no sense, instead of warning.

    Raises:
        UsageError: (a ValueError) a value out of range, or a group key that is nearly an option's.

    Example:
        >>> import torch, descend
        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = descend.RAdam(model.parameters(), lr=0.001)
        >>> model(torch.ones(2, 3)).sum().backward()
        >>> optimizer.step()
        >>> optimizer.zero_grad()
    """

    hyper_keys = BETAS
    family = ("radam",)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        strict: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "capturable": capturable,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults, strict=strict)

    def _variant(self, group: Mapping[str, Any]) -> Hashable:
        return (
            group["maximize"],
            group["differentiable"],
            bool(group["weight_decay"]),
            group["decoupled_weight_decay"],
        )

    def _rule(self, group: Mapping[str, Any]) -> Rule:
        return modified(group, "radam", decoupled(group))
